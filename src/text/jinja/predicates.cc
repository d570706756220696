// Tests: what may follow `is`.
#include <algorithm>
#include <array>

#include "text/jinja/args.h"
#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/methods.h"
#include "text/jinja/ops.h"
#include "text/jinja/print.h"

namespace penstock::jinja {
namespace {

template <bool (*Predicate)(const Value&)>
bool of_value(Interpreter&, const Value& value, CallArgs& args) {
  const Args a("this test", args, {});
  return Predicate(value);
}

bool is_mapping(const Value& v) {
  return v.is_dict();
}
bool is_boolean(const Value& v) {
  return v.is(Kind::kBool);
}
bool is_true(const Value& v) {
  return v.is(Kind::kBool) && v.as_bool();
}
bool is_false(const Value& v) {
  return v.is(Kind::kBool) && !v.as_bool();
}
bool is_integer(const Value& v) {
  return v.is_integer() && !v.is(Kind::kBool);
}
bool is_float(const Value& v) {
  return v.is(Kind::kFloat);
}
bool is_number(const Value& v) {
  return v.is_number();
}
bool is_string(const Value& v) {
  return v.is_str();
}
bool is_none(const Value& v) {
  return v.is_none();
}
bool is_defined(const Value& v) {
  return !v.is_undefined();
}
bool is_undefined(const Value& v) {
  return v.is_undefined();
}
bool is_escaped(const Value& v) {
  return v.is_str() && v.as_str().markup;
}
bool is_iterable(const Value& v) {
  return length_of(v).has_value() || v.is(Kind::kGenerator) ||
         (v.is(Kind::kCallable) && v.type_name() == "LoopContext");
}
// Has a length and can be indexed; an undefined value looks like an empty one to jinja2.
bool is_sequence(const Value& v) {
  return length_of(v).has_value() && !v.is(Kind::kView);
}
bool is_callable(const Value& v) {
  return v.is_undefined() || (v.is(Kind::kCallable) && v.as<Callable>().callable());
}

template <CompareOp op>
bool comparison(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("this test", args, {"other"}, 1);
  return compare(interpreter.budget(), op, value, a[0]);
}

bool remainder_is(Interpreter& interpreter, const Value& value, std::int64_t divisor, std::int64_t rest) {
  Budget& budget = interpreter.budget();
  return equal(budget, binary(budget, BinaryOp::kMod, value, Value::integer(divisor)), Value::integer(rest));
}

bool odd_test(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("odd", args, {});
  return remainder_is(interpreter, value, 2, 1);
}

bool even_test(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("even", args, {});
  return remainder_is(interpreter, value, 2, 0);
}

bool divisibleby_test(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("divisibleby", args, {"num"}, 1);
  Budget& budget = interpreter.budget();
  return equal(budget, binary(budget, BinaryOp::kMod, value, a[0]), Value::integer(std::int64_t{0}));
}

bool sameas_test(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("sameas", args, {"other"}, 1);
  return same(interpreter.budget(), value, a[0]);
}

bool case_test(Interpreter& interpreter, const Value& value, CallArgs& args, const char* method) {
  const Args a(method, args, {});
  const Value text = Value::str(to_str(interpreter.budget(), value));
  CallArgs none;
  return find_str_method(method)(interpreter, text, none).truthy();
}

bool upper_test(Interpreter& interpreter, const Value& value, CallArgs& args) {
  return case_test(interpreter, value, args, "isupper");
}

bool lower_test(Interpreter& interpreter, const Value& value, CallArgs& args) {
  return case_test(interpreter, value, args, "islower");
}

bool filter_test(Interpreter&, const Value& value, CallArgs& args) {
  const Args a("filter", args, {});
  return value.is_str() && find_filter(value.as_str().text) != nullptr;
}

bool test_test(Interpreter&, const Value& value, CallArgs& args) {
  const Args a("test", args, {});
  return value.is_str() && find_test(value.as_str().text) != nullptr;
}

constexpr std::array<Test, 39> kTests = {{
    {"defined", of_value<is_defined>},
    {"undefined", of_value<is_undefined>},
    {"none", of_value<is_none>},
    {"string", of_value<is_string>},
    {"mapping", of_value<is_mapping>},
    {"sequence", of_value<is_sequence>},
    {"iterable", of_value<is_iterable>},
    {"boolean", of_value<is_boolean>},
    {"true", of_value<is_true>},
    {"false", of_value<is_false>},
    {"integer", of_value<is_integer>},
    {"float", of_value<is_float>},
    {"number", of_value<is_number>},
    {"callable", of_value<is_callable>},
    {"escaped", of_value<is_escaped>},
    {"odd", odd_test},
    {"even", even_test},
    {"divisibleby", divisibleby_test},
    {"sameas", sameas_test},
    {"upper", upper_test},
    {"lower", lower_test},
    {"filter", filter_test},
    {"test", test_test},
    {"in", comparison<CompareOp::kIn>},
    {"==", comparison<CompareOp::kEq>},
    {"eq", comparison<CompareOp::kEq>},
    {"equalto", comparison<CompareOp::kEq>},
    {"!=", comparison<CompareOp::kNe>},
    {"ne", comparison<CompareOp::kNe>},
    {">", comparison<CompareOp::kGt>},
    {"gt", comparison<CompareOp::kGt>},
    {"greaterthan", comparison<CompareOp::kGt>},
    {">=", comparison<CompareOp::kGe>},
    {"ge", comparison<CompareOp::kGe>},
    {"<", comparison<CompareOp::kLt>},
    {"lt", comparison<CompareOp::kLt>},
    {"lessthan", comparison<CompareOp::kLt>},
    {"<=", comparison<CompareOp::kLe>},
    {"le", comparison<CompareOp::kLe>},
}};

}  // namespace

const Test* find_test(std::string_view name) {
  const auto* it = std::find_if(kTests.begin(), kTests.end(), [name](const Test& t) { return t.name == name; });
  return it == kTests.end() ? nullptr : it;
}

}  // namespace penstock::jinja
