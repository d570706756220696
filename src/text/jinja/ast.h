// The parsed template. Names are numbered once, so that variables are found without comparing text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/jinja/ops.h"
#include "text/jinja/value.h"

namespace penstock::jinja {

struct Filter;
struct Test;
struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using StmtPtr = std::unique_ptr<Stmt>;
using Body = std::vector<StmtPtr>;
using Symbol = std::int32_t;

enum class ExprKind : std::uint8_t {
  kConst,
  kName,
  kNamespaceRef,  // target only: a.b of {% set a.b = … %}
  kTuple,
  kList,
  kDict,       // items: key, value, key, value …
  kAttribute,  // a.text
  kItem,       // a[b]
  kSlice,      // a[b:c:d]; parts may be null
  kCall,       // a(arguments)
  kFilter,     // a | text(arguments); a is null in filter blocks
  kTest,       // a is text(arguments)
  kNot,
  kNegate,
  kPlus,
  kBinary,   // a op b
  kConcat,   // items joined by ~
  kCompare,  // a, then (operator, item) pairs
  kAnd,      // items
  kOr,
  kCondition,  // a if b else c; c may be null
};

struct Arguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<StrPtr, ExprPtr>> named;
  ExprPtr star;       // *list
  ExprPtr star_star;  // **dict
};

struct Expr {
  ExprKind kind = ExprKind::kConst;
  std::uint32_t at = 0;     // byte offset in the source
  std::uint32_t depth = 1;  // of the tree, bounded by the parser so that destroying it cannot overflow the stack
  BinaryOp op = BinaryOp::kAdd;
  Symbol symbol = -1;
  Value value;
  std::string text;
  ExprPtr a, b, c, d;
  std::vector<ExprPtr> items;
  std::vector<CompareOp> compare;  // one for each item
  Arguments arguments;
  const Filter* filter = nullptr;  // null: unknown, an error when it is reached
  const Test* test = nullptr;
};

enum class StmtKind : std::uint8_t {
  kData,
  kOutput,  // exprs
  kIf,      // branches
  kFor,
  kSet,       // target = a
  kSetBlock,  // target = body through the filter `a` (may be null)
  kMacro,
  kCall,    // call block: a is the call, the rest as for a macro
  kFilter,  // filter block: a, body
  kWith,    // targets, values, body
  kScope,   // block, generation: body in a scope of its own
  kBreak,
  kContinue,
  kUnavailable,  // include, import, extends: an error when it is reached
};

struct Branch {
  ExprPtr condition;  // null: else
  Body body;
};

struct Parameter {
  Symbol name = -1;
  StrPtr text;
  ExprPtr value;  // default, or null
};

struct MacroCode {
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
  bool uses_caller = false;  // the body mentions caller, kwargs, varargs, which are not parameters
  bool uses_kwargs = false;
  bool uses_varargs = false;
};

struct Stmt {
  StmtKind kind = StmtKind::kData;
  std::uint32_t at = 0;
  std::uint32_t depth = 1;
  bool recursive = false;  // for loops
  bool isolated = false;   // scopes: sees only the template's own variables (block)
  StrPtr data;
  std::string text;  // tag name
  Symbol symbol = -1;
  ExprPtr target;
  ExprPtr a;     // iterable, value, call or filter
  ExprPtr test;  // for … if test
  std::vector<ExprPtr> exprs;
  std::vector<ExprPtr> targets;
  std::vector<Branch> branches;
  Body body;
  Body otherwise;
  std::shared_ptr<MacroCode> macro;
};

struct Template {
  std::string source;  // normalised; positions count in it
  Body body;
  std::vector<std::string> symbols;  // by number
  std::unordered_map<std::string, Symbol> numbers;
  Symbol loop = -1, caller = -1, kwargs = -1, varargs = -1;

  Symbol number(const std::string& name) {
    const auto [it, fresh] = numbers.try_emplace(name, static_cast<Symbol>(symbols.size()));
    if (fresh) symbols.push_back(name);
    return it->second;
  }
};

}  // namespace penstock::jinja
