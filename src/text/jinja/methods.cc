#include "text/jinja/methods.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "text/jinja/args.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/ops.h"

namespace penstock::jinja {
namespace {

using Entry = std::pair<std::string_view, NativeFunction>;

class BoundMethod final : public Callable {
 public:
  BoundMethod(Value self, std::string_view name, NativeFunction function)
      : self_(std::move(self)), name_(name), function_(function) {}
  Value call(Interpreter& interpreter, CallArgs& args) const override { return function_(interpreter, self_, args); }
  std::string type_name() const override { return "builtin_function_or_method"; }
  std::string repr() const override { return "<built-in method " + name_ + " of " + self_.type_name() + " object>"; }
  std::uint32_t depth() const override { return 1 + self_.depth(); }

 private:
  Value self_;
  std::string name_;
  NativeFunction function_;
};

// ----------------------------------------------------------------------------------------------------------------
// dicts

constexpr std::array<Entry, 6> kDictMethods = {{
    {"get",
     [](Interpreter& interpreter, const Value& self, CallArgs& args) {
       const Args a("get", args, {"key", "default"}, 1, 2);
       const Value* found = self.as_dict().find(interpreter.budget(), a[0]);
       return found != nullptr ? *found : a.has(1) ? a[1] : Value::none();
     }},
    {"items",
     [](Interpreter&, const Value& self, CallArgs& args) {
       const Args a("items", args, {});
       return make_view(self.dict_ptr(), ViewKind::kItems);
     }},
    {"keys",
     [](Interpreter&, const Value& self, CallArgs& args) {
       const Args a("keys", args, {});
       return make_view(self.dict_ptr(), ViewKind::kKeys);
     }},
    {"values",
     [](Interpreter&, const Value& self, CallArgs& args) {
       const Args a("values", args, {});
       return make_view(self.dict_ptr(), ViewKind::kValues);
     }},
    {"copy",
     [](Interpreter&, const Value& self, CallArgs& args) {
       const Args a("copy", args, {});
       return self;  // dicts never change
     }},
    {"fromkeys",
     [](Interpreter& interpreter, const Value&, CallArgs& args) {
       const Args a("fromkeys", args, {"iterable", "value"}, 1, 2);
       auto dict = std::make_shared<Dict>();
       Iterator it(interpreter.budget(), a[0]);
       for (Value key; it.next(key);) dict->set(interpreter.budget(), key, a.has(1) ? a[1] : Value::none());
       return Value::dict(std::move(dict));
     }},
}};

// ------------------------------------------------------------------------------------------------------ lists and
// others

Value count_method(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a("count", args, {"value"}, 1, 1);
  std::int64_t count = 0;
  Iterator it(interpreter.budget(), self);
  for (Value item; it.next(item);) count += equal(interpreter.budget(), item, a[0]) ? 1 : 0;
  return Value::integer(count);
}

Value index_method(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a("index", args, {"value", "start", "stop"}, 1, 3);
  const auto size = static_cast<std::int64_t>(*length_of(self));
  const auto bound = [&](std::size_t i, std::int64_t missing) {
    const std::int64_t at = a.integer_or(i, missing);
    return std::clamp<std::int64_t>(at < 0 ? std::max(at, -size) + size : at, 0, size);
  };
  const std::int64_t start = bound(1, 0);
  const std::int64_t stop = bound(2, size);
  Iterator it(interpreter.budget(), self);
  Value item;
  for (std::int64_t i = 0; i < stop && it.next(item); ++i) {
    if (i >= start && equal(interpreter.budget(), item, a[0])) return Value::integer(i);
  }
  fail("the value is not in the " + self.type_name());
}

constexpr std::array<Entry, 3> kListMethods = {{
    {"count", count_method},
    {"index", index_method},
    {"copy",
     [](Interpreter&, const Value& self, CallArgs& args) {
       const Args a("copy", args, {});
       return self;
     }},
}};

constexpr std::array<Entry, 1> kFloatMethods = {{
    {"is_integer",
     [](Interpreter&, const Value& self, CallArgs& args) {
       const Args a("is_integer", args, {});
       const double d = self.as_double();
       return Value::boolean(std::isfinite(d) && std::trunc(d) == d);
     }},
}};

constexpr std::array<Entry, 1> kIntMethods = {{
    {"bit_length",
     [](Interpreter&, const Value& self, CallArgs& args) {
       const Args a("bit_length", args, {});
       std::int64_t bits = 0;
       for (Int128 rest = self.as_int(); rest != 0; rest /= 2) ++bits;
       return Value::integer(bits);
     }},
}};

template <std::size_t N>
NativeFunction look_up(const std::array<Entry, N>& table, std::string_view name, std::size_t count = N) {
  const auto* end = table.begin() + count;
  const auto* it = std::find_if(table.begin(), end, [name](const Entry& entry) { return entry.first == name; });
  return it == end ? nullptr : it->second;
}

}  // namespace

NativeFunction find_method(const Value& self, std::string_view name) {
  switch (self.kind()) {
    case Kind::kStr:
      return find_str_method(name);
    case Kind::kDict:
      return look_up(kDictMethods, name);
    case Kind::kList:
      return look_up(kListMethods, name);
    case Kind::kTuple:
    case Kind::kRange:
      return look_up(kListMethods, name, 2);  // no copy()
    case Kind::kFloat:
      return look_up(kFloatMethods, name);
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kUInt:
      return look_up(kIntMethods, name);
    default:
      return nullptr;
  }
}

bool is_mutating_method(const Value& self, std::string_view name) {
  constexpr std::array<std::string_view, 5> kDict = {"clear", "pop", "popitem", "setdefault", "update"};
  constexpr std::array<std::string_view, 8> kList = {"append", "clear",  "extend",  "insert",
                                                     "pop",    "remove", "reverse", "sort"};
  if (self.is_dict()) return std::find(kDict.begin(), kDict.end(), name) != kDict.end();
  return self.is(Kind::kList) && std::find(kList.begin(), kList.end(), name) != kList.end();
}

Value bind_method(const Value& self, std::string_view name, NativeFunction function) {
  return Value::object(Kind::kCallable, std::make_shared<BoundMethod>(self, name, function));
}

}  // namespace penstock::jinja
