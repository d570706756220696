// The values templates compute with: Python's, as far as templates can see them. Lists, tuples, dicts and strings never
// change after they are made (the sandbox chat templates run in forbids it), so values share them freely.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "text/jinja/budget.h"
#include "text/jinja/str.h"

namespace penstock::jinja {

class Interpreter;
class Value;
struct Dict;

enum class Kind : std::uint8_t {
  kMissing,  // no value at all: never seen by templates
  kUndefined,
  kNone,
  kBool,
  kInt,   // int64
  kUInt,  // above INT64_MAX
  kFloat,
  kStr,
  kList,
  kTuple,
  kDict,
  kView,  // dict.keys(), .values(), .items()
  kRange,
  kNamespace,
  kGenerator,  // what map, select … give: can be walked once, has no length
  kCallable,   // macros, methods, loop, cycler …
};

__extension__ using Int128 = __int128;

struct UndefinedInfo final : Object {
  std::string hint;   // the whole message, when not empty
  std::string owner;  // "dict object": what lacks the attribute; empty for variables
  std::string name;   // as it is shown: quoted for attributes, repr() for elements
  std::string message() const;
};

struct List;
using ListPtr = std::shared_ptr<const List>;
using DictPtr = std::shared_ptr<const Dict>;

enum class ViewKind : std::uint8_t { kKeys, kValues, kItems };

class Value {
 public:
  Value() = default;  // missing
  static Value undefined(std::string variable);
  static Value undefined_hint(std::string hint);
  static Value undefined_attribute(const Value& owner, std::string_view name);
  static Value undefined_element(const Value& owner, const std::string& name_repr);
  static Value none() { return Value(Kind::kNone); }
  static Value boolean(bool b);
  static Value integer(std::int64_t i);
  static Value integer(Int128 i);  // fails when it needs more than 64 bits
  static Value integer(std::size_t i) { return integer(static_cast<Int128>(i)); }
  static Value real(double d);
  static Value str(StrPtr s) { return Value(Kind::kStr, std::move(s)); }
  static Value str(std::string s) { return str(make_str(std::move(s))); }
  static Value list(Budget& budget, std::vector<Value> items);
  static Value tuple(Budget& budget, std::vector<Value> items, bool group = false);
  static Value dict(DictPtr d);
  static Value object(Kind kind, std::shared_ptr<const Object> o) { return Value(kind, std::move(o)); }

  Kind kind() const { return kind_; }
  bool is(Kind k) const { return kind_ == k; }
  bool is_missing() const { return kind_ == Kind::kMissing; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_str() const { return kind_ == Kind::kStr; }
  bool is_dict() const { return kind_ == Kind::kDict; }
  bool is_sequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }
  bool is_integer() const { return kind_ == Kind::kInt || kind_ == Kind::kUInt || kind_ == Kind::kBool; }
  bool is_number() const { return is_integer() || kind_ == Kind::kFloat; }

  bool as_bool() const { return i_ != 0; }
  Int128 as_int() const { return kind_ == Kind::kUInt ? static_cast<Int128>(static_cast<std::uint64_t>(i_)) : i_; }
  double as_double() const { return kind_ == Kind::kFloat ? d_ : static_cast<double>(as_int()); }
  const Str& as_str() const { return static_cast<const Str&>(*object_); }
  StrPtr str_ptr() const { return std::static_pointer_cast<const Str>(object_); }
  const List& as_list() const;
  const Dict& as_dict() const;
  DictPtr dict_ptr() const;
  const UndefinedInfo& as_undefined() const { return static_cast<const UndefinedInfo&>(*object_); }
  // Namespaces, generators, loops and cyclers do change, through the one pointer everybody shares.
  template <typename T>
  T& as() const {
    return const_cast<T&>(static_cast<const T&>(*object_));
  }
  const Object* identity() const { return object_.get(); }
  const std::shared_ptr<const Object>& object_ptr() const { return object_; }

  bool truthy() const;
  std::uint32_t depth() const;      // containers nested in this value, itself included; 0 for scalars
  std::string type_name() const;    // 'str', 'NoneType', as Python's messages say it
  std::string object_repr() const;  // "dict object", "None": as jinja2's messages say it

 private:
  explicit Value(Kind kind) : kind_(kind) {}
  Value(Kind kind, std::shared_ptr<const Object> o) : kind_(kind), object_(std::move(o)) {}

  Kind kind_ = Kind::kMissing;
  union {
    std::int64_t i_ = 0;
    double d_;
  };
  std::shared_ptr<const Object> object_;
};

struct CallArgs {
  std::vector<Value> positional;
  std::vector<std::pair<StrPtr, Value>> named;
};

struct List final : Object {  // lists and tuples
  std::vector<Value> items;
  std::uint32_t depth = 1;  // nesting of containers, this one included
  bool group = false;       // a tuple from groupby: also has .grouper and .list
};
inline const List& Value::as_list() const {
  return static_cast<const List&>(*object_);
}

struct Dict final : Object {
  std::vector<std::pair<Value, Value>> entries;  // in order of insertion
  std::uint32_t depth = 1;

  const Value* find(std::string_view key) const;
  const Value* find(Budget& budget, const Value& key) const;  // fails on keys that cannot be hashed
  void set(Budget& budget, Value key, Value value);

 private:
  template <typename Match>
  std::ptrdiff_t locate(std::uint64_t hash, Match match) const;
  static constexpr std::size_t kLinear = 8;  // up to so many entries are searched one by one
  std::unordered_multimap<std::uint64_t, std::uint32_t> index_;
};

struct View final : Object {
  DictPtr dict;
  ViewKind view = ViewKind::kKeys;
};

struct Range final : Object {
  std::int64_t start = 0;
  std::int64_t stop = 0;
  std::int64_t step = 1;
  std::int64_t length = 0;
  Value at(std::int64_t i) const { return Value::integer(start + i * step); }
};

struct Namespace final : Object {
  Dict attributes;
};

struct Generator final : Object {
  std::function<bool(Value&)> next;
  std::string repr = "<generator object>";
  std::uint32_t depth = 1;
};

struct Callable : Object {
  virtual Value call(Interpreter& interpreter, CallArgs& args) const = 0;
  virtual Value attribute(Interpreter&, std::string_view) const { return {}; }  // missing: there is none
  virtual std::string type_name() const { return "function"; }
  virtual std::string object_repr() const { return type_name() + " object"; }
  virtual std::string repr() const { return "<" + type_name() + ">"; }
  virtual bool callable() const { return true; }
  virtual std::uint32_t depth() const { return 0; }  // of the values it holds on to, plus one
};

// One pass over a value, as Python's iter(). Fails with a TypeError's text when the value cannot be iterated.
class Iterator {
 public:
  Iterator(Budget& budget, const Value& value, bool reversed = false);
  bool next(Value& out);

 private:
  bool next_str(Value& out);

  Budget* budget_;
  Value value_;
  bool reversed_;
  std::size_t at_ = 0;    // index, or byte offset in a string
  std::size_t size_ = 0;  // elements, or bytes
};

std::vector<Value> to_vector(Budget& budget, const Value& value);
std::optional<std::size_t> length_of(const Value& value);  // none: it has no len()
// `depth`: of the values `next` holds on to, plus one.
Value make_generator(Budget& budget, const char* name, std::uint32_t depth, std::function<bool(Value&)> next);
Value make_view(DictPtr dict, ViewKind view);

bool equal(Budget& budget, const Value& a, const Value& b);
bool same(Budget& budget, const Value& a, const Value& b);  // Python's `is`, except that equal strings are the same
std::uint64_t hash_of(Budget& budget, const Value& value);

// `user`: strings (and keys) in it are a user's text. Fails on text that is not UTF-8 and on deep nesting; `where`
// names the value in messages.
Value from_json(Budget& budget, const nlohmann::ordered_json& json, bool user, const std::string& where,
                std::uint32_t level = 0);

}  // namespace penstock::jinja
