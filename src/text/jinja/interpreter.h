// Runs a parsed template once.
#pragma once

#include <ctime>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/budget.h"
#include "text/jinja/value.h"

namespace penstock::jinja {

struct Scope final : Object {
  explicit Scope(std::shared_ptr<Scope> parent_in) : parent(std::move(parent_in)) {}

  std::vector<std::pair<Symbol, Value>> variables;  // few: searched one by one
  std::shared_ptr<Scope> parent;

  const Value* find(Symbol name) const;  // here or further out; null when it is set nowhere
  void set(Symbol name, Value value);    // here
};
using ScopePtr = std::shared_ptr<Scope>;

class Interpreter {
 public:
  // `now`: what strftime_now shows; the local time when null. Both references must outlive the interpreter.
  Interpreter(const Template& source, const TemplateLimits& limits, const std::tm* now);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  void set_variable(const std::string& name, Value value);
  StrPtr run();

  // For filters, methods and functions.
  Budget& budget() { return budget_; }
  std::tm now() const;
  Value call(const Value& callee, CallArgs& args);
  // Objects that can hold themselves: emptied when the interpreter goes.
  void keep(const std::shared_ptr<Namespace>& object);
  void keep(const ScopePtr& scope);

 private:
  friend class Loop;
  friend class Macro;

  enum class Flow : std::uint8_t { kNext, kBreak, kContinue };

  // Sends what is printed into a builder of its own until it is destroyed.
  class Capture {
   public:
    explicit Capture(Interpreter& interpreter)
        : interpreter_(interpreter), builder_(interpreter.budget_), outer_(interpreter.out_) {
      interpreter_.out_ = &builder_;
    }
    ~Capture() { interpreter_.out_ = outer_; }
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;
    Value finish() { return Value::str(builder_.finish()); }

   private:
    Interpreter& interpreter_;
    StrBuilder builder_;
    StrBuilder* outer_;
  };

  // Statements: interpreter.cc.
  Flow run_body(const Body& body, const ScopePtr& scope);
  Flow run_stmt(const Stmt& stmt, const ScopePtr& scope);
  Flow dispatch(const Stmt& stmt, const ScopePtr& scope);
  Flow run_if(const Stmt& stmt, const ScopePtr& scope);
  Flow run_for(const Stmt& stmt, const Value& iterable, const ScopePtr& scope, std::int64_t depth0);
  Flow run_set_block(const Stmt& stmt, const ScopePtr& scope);
  Flow run_filter_block(const Stmt& stmt, const ScopePtr& scope);
  Flow run_with(const Stmt& stmt, const ScopePtr& scope);
  void run_call_block(const Stmt& stmt, const ScopePtr& scope);
  void print(const Value& value);
  void assign(const Expr& target, const Value& value, const ScopePtr& scope);
  Value make_macro(const std::shared_ptr<MacroCode>& code, const ScopePtr& scope);
  Value run_macro(const MacroCode& code, const ScopePtr& closure, CallArgs& args);
  void bind_parameters(const MacroCode& code, CallArgs& args, const ScopePtr& scope);

  // Expressions: eval.cc.
  Value eval(const Expr& expr, const ScopePtr& scope);
  Value eval_kind(const Expr& expr, const ScopePtr& scope);
  Value eval_name(const Expr& expr, const ScopePtr& scope);
  Value eval_binary(const Expr& expr, const ScopePtr& scope);
  Value eval_compare(const Expr& expr, const ScopePtr& scope);
  Value eval_concat(const Expr& expr, const ScopePtr& scope);
  Value eval_dict(const Expr& expr, const ScopePtr& scope);
  Value eval_slice(const Expr& expr, const ScopePtr& scope);
  Value eval_call(const Expr& expr, const ScopePtr& scope, Value caller = {});
  Value eval_filters(const Expr& expr, const ScopePtr& scope, const Value& input);
  Value eval_test(const Expr& expr, const ScopePtr& scope);
  std::vector<Value> eval_all(const std::vector<ExprPtr>& exprs, const ScopePtr& scope);
  CallArgs eval_arguments(const Arguments& arguments, const ScopePtr& scope);

  const Template& template_;
  Budget budget_;
  const std::tm* now_;
  std::vector<Value> variables_;  // the caller's, by symbol; globals join them when they are first used
  ScopePtr root_;
  StrBuilder* out_ = nullptr;
  std::vector<std::shared_ptr<Namespace>> kept_namespaces_;
  std::vector<ScopePtr> kept_scopes_;
};

// The `loop` variable.
class Loop final : public Callable, public std::enable_shared_from_this<Loop> {
 public:
  Loop(Interpreter& interpreter, const Stmt& stmt, const Value& iterable, ScopePtr scope, std::int64_t depth0);

  bool advance(Value& item);  // false at the end

  Value call(Interpreter& interpreter, CallArgs& args) const override;  // loop(children)
  Value attribute(Interpreter& interpreter, std::string_view name) const override;
  std::string type_name() const override { return "LoopContext"; }
  std::string object_repr() const override { return "jinja2.runtime.LoopContext object"; }
  std::string repr() const override;
  std::uint32_t depth() const override { return data_depth_; }
  // The loop is over. It lets go of its items, so that loops kept in a namespace cannot hold one another in long
  // chains.
  void close();

  bool changed(std::vector<Value> values);
  std::int64_t index0() const { return index0_; }

 private:
  bool pull(Value& item);  // from the iterable, through the loop's `if`
  bool peek();             // whether there is a next item, in after_
  std::int64_t length();

  Interpreter& interpreter_;
  const Stmt& stmt_;
  ScopePtr scope_;  // where the loop stands: for its `if` and for recursion
  Iterator iterator_;
  std::optional<std::size_t> size_;  // known before the end: no `if`, and the iterable has a length
  std::vector<Value> rest_;          // read to count them
  std::size_t rest_at_ = 0;
  bool exhausted_ = false;
  bool open_ = true;
  std::int64_t index0_ = -1;
  std::int64_t depth0_;
  std::uint32_t data_depth_;
  Value before_, current_, after_;
  std::optional<std::vector<Value>> last_changed_;
};

class Macro final : public Callable {
 public:
  Macro(std::shared_ptr<MacroCode> code, ScopePtr closure) : code_(std::move(code)), closure_(std::move(closure)) {}
  Value call(Interpreter& interpreter, CallArgs& args) const override;
  Value attribute(Interpreter& interpreter, std::string_view name) const override;
  std::string type_name() const override { return "Macro"; }
  std::string object_repr() const override { return "jinja2.runtime.Macro object"; }
  std::string repr() const override { return "<Macro '" + code_->name + "'>"; }

 private:
  std::shared_ptr<MacroCode> code_;
  ScopePtr closure_;
};

}  // namespace penstock::jinja
