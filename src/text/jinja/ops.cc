#include "text/jinja/ops.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "text/jinja/interpreter.h"
#include "text/jinja/methods.h"
#include "text/jinja/print.h"
#include "text/jinja/pyformat.h"

namespace penstock::jinja {

void require_defined(const Value& v) {
  if (v.is_undefined()) fail(v.as_undefined().message());
}

std::int64_t as_index(const Value& v, std::string_view what) {
  require_defined(v);
  if (!v.is_integer()) fail(std::string(what) + " must be an integer, not '" + v.type_name() + "'");
  constexpr Int128 kMin = std::numeric_limits<std::int64_t>::min();
  constexpr Int128 kMax = std::numeric_limits<std::int64_t>::max();
  return static_cast<std::int64_t>(std::clamp(v.as_int(), kMin, kMax));
}

// -----------------------------------------------------------------------------------------------------------
// arithmetic

namespace {

const char* symbol(BinaryOp op) {
  switch (op) {
    case BinaryOp::kAdd:
      return "+";
    case BinaryOp::kSub:
      return "-";
    case BinaryOp::kMul:
      return "*";
    case BinaryOp::kDiv:
      return "/";
    case BinaryOp::kFloorDiv:
      return "//";
    case BinaryOp::kMod:
      return "%";
    case BinaryOp::kPow:
      return "** or pow()";
  }
  return "?";
}

Int128 floor_mod(Int128 a, Int128 b) {
  const Int128 rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

Int128 multiply(Int128 a, Int128 b) {
  Int128 product = 0;
  if (__builtin_mul_overflow(a, b, &product)) fail("integer overflow: numbers have 64 bits here");
  return product;
}

double power(double base, double exponent) {
  if (base == 0.0 && exponent < 0.0) fail("0.0 cannot be raised to a negative power");
  if (base < 0.0 && std::trunc(exponent) != exponent && std::isfinite(exponent)) {
    fail("a negative number to a fractional power is not a real number");
  }
  const double result = std::pow(base, exponent);
  if (std::isinf(result) && std::isfinite(base) && std::isfinite(exponent)) fail("float overflow in **");
  return result;
}

Value integer_power(Int128 base, Int128 exponent) {
  if (exponent < 0) return Value::real(power(static_cast<double>(base), static_cast<double>(exponent)));
  if (base == 0 || base == 1) return Value::integer(exponent == 0 ? Int128{1} : base);
  if (base == -1) return Value::integer(exponent % 2 == 0 ? Int128{1} : Int128{-1});
  if (exponent > 64) fail("integer overflow: numbers have 64 bits here");
  Int128 result = 1;
  for (Int128 i = 0; i < exponent; ++i) result = multiply(result, base);
  return Value::integer(result);
}

Value binary_int(BinaryOp op, Int128 a, Int128 b) {
  const bool divides = op == BinaryOp::kDiv || op == BinaryOp::kFloorDiv || op == BinaryOp::kMod;
  if (divides && b == 0) fail(op == BinaryOp::kDiv ? "division by zero" : "integer division or modulo by zero");
  switch (op) {
    case BinaryOp::kAdd:
      return Value::integer(a + b);
    case BinaryOp::kSub:
      return Value::integer(a - b);
    case BinaryOp::kMul:
      return Value::integer(multiply(a, b));
    case BinaryOp::kDiv:
      return Value::real(static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
    case BinaryOp::kFloorDiv:
      return Value::integer((a - floor_mod(a, b)) / b);
    case BinaryOp::kMod:
      return Value::integer(floor_mod(a, b));
    case BinaryOp::kPow:
      return integer_power(a, b);
  }
  return {};
}

Value binary_float(BinaryOp op, double a, double b) {
  const auto mod = [&] {
    const double rest = std::fmod(a, b);
    if (rest == 0.0) return std::copysign(0.0, b);
    return (rest < 0.0) != (b < 0.0) ? rest + b : rest;
  };
  switch (op) {
    case BinaryOp::kAdd:
      return Value::real(a + b);
    case BinaryOp::kSub:
      return Value::real(a - b);
    case BinaryOp::kMul:
      return Value::real(a * b);
    case BinaryOp::kDiv:
      if (b == 0.0) fail("float division by zero");
      return Value::real(a / b);
    case BinaryOp::kFloorDiv: {
      if (b == 0.0) fail("float floor division by zero");
      const double quotient = (a - mod()) / b;
      if (quotient == 0.0) return Value::real(std::copysign(0.0, a / b));
      const double down = std::floor(quotient);
      return Value::real(quotient - down > 0.5 ? down + 1.0 : down);
    }
    case BinaryOp::kMod:
      if (b == 0.0) fail("float modulo");
      return Value::real(mod());
    case BinaryOp::kPow:
      return Value::real(power(a, b));
  }
  return {};
}

Value add_sequences(Budget& budget, const Value& a, const Value& b) {
  std::vector<Value> items = a.as_list().items;
  const auto& more = b.as_list().items;
  items.insert(items.end(), more.begin(), more.end());
  return a.is(Kind::kList) ? Value::list(budget, std::move(items)) : Value::tuple(budget, std::move(items));
}

Value repeat_sequence(Budget& budget, const Value& sequence, std::int64_t count) {
  std::vector<Value> items;
  const auto& one = sequence.as_list().items;
  for (std::int64_t i = 0; i < count && !one.empty(); ++i) {
    budget.step(static_cast<std::int64_t>(one.size()));
    items.insert(items.end(), one.begin(), one.end());
  }
  return sequence.is(Kind::kList) ? Value::list(budget, std::move(items)) : Value::tuple(budget, std::move(items));
}

}  // namespace

Value binary(Budget& budget, BinaryOp op, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_integer() && b.is_integer()) return binary_int(op, a.as_int(), b.as_int());
    return binary_float(op, a.as_double(), b.as_double());
  }
  if (op == BinaryOp::kMod && a.is_str()) return Value::str(percent_format(budget, a.as_str(), b));
  require_defined(a);
  require_defined(b);
  if (op == BinaryOp::kAdd) {
    if (a.is_str() && b.is_str()) return Value::str(concat(budget, a.as_str(), b.as_str()));
    if (a.is_sequence() && a.kind() == b.kind()) return add_sequences(budget, a, b);
    if (a.is_str() || a.is_sequence()) {
      fail("can only concatenate " + a.type_name() + " (not \"" + b.type_name() + "\") to " + a.type_name());
    }
  }
  if (op == BinaryOp::kMul) {
    const bool swapped = a.is_integer();
    const Value& thing = swapped ? b : a;
    const Value& count = swapped ? a : b;
    if (count.is_integer()) {
      const std::int64_t n = std::max<std::int64_t>(0, as_index(count, "a repetition"));
      if (thing.is_str()) return Value::str(repeat(budget, thing.as_str(), n));
      if (thing.is_sequence()) return repeat_sequence(budget, thing, n);
    }
    if (thing.is_str() || thing.is_sequence()) {
      fail("can't multiply sequence by non-int of type '" + count.type_name() + "'");
    }
  }
  fail(std::string("unsupported operand type(s) for ") + symbol(op) + ": '" + a.type_name() + "' and '" +
       b.type_name() + "'");
}

Value negate(const Value& v) {
  require_defined(v);
  if (v.is_integer()) return Value::integer(-v.as_int());
  if (v.is_number()) return Value::real(-v.as_double());
  fail("bad operand type for unary -: '" + v.type_name() + "'");
}

Value plus(const Value& v) {
  require_defined(v);
  if (v.is_integer()) return Value::integer(v.as_int());
  if (v.is_number()) return v;
  fail("bad operand type for unary +: '" + v.type_name() + "'");
}

// -----------------------------------------------------------------------------------------------------------
// comparison

namespace {

// a OP b for an ordering operator; values that have no order fail.
bool ordered(Budget& budget, CompareOp op, const Value& a, const Value& b) {
  const auto decide = [op](const auto& x, const auto& y) {
    switch (op) {
      case CompareOp::kLt:
        return x < y;
      case CompareOp::kLe:
        return x <= y;
      case CompareOp::kGt:
        return x > y;
      default:
        return x >= y;
    }
  };
  budget.step();
  if (a.is_number() && b.is_number()) {
    // A 64-bit integer and a double both fit a long double exactly.
    const auto wide = [](const Value& v) {
      return v.is_integer() ? static_cast<long double>(v.as_int()) : static_cast<long double>(v.as_double());
    };
    return decide(wide(a), wide(b));
  }
  if (a.is_str() && b.is_str()) {  // UTF-8 sorts as code points do
    budget.work(std::min(a.as_str().text.size(), b.as_str().text.size()));
    return decide(a.as_str().text.compare(b.as_str().text), 0);
  }
  require_defined(a);
  require_defined(b);
  if (a.is_sequence() && a.kind() == b.kind()) {
    const auto& x = a.as_list().items;
    const auto& y = b.as_list().items;
    for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(budget, x[i], y[i])) return ordered(budget, op, x[i], y[i]);
    }
    return decide(x.size(), y.size());
  }
  const char* name = op == CompareOp::kLt ? "<" : op == CompareOp::kLe ? "<=" : op == CompareOp::kGt ? ">" : ">=";
  fail(std::string("'") + name + "' not supported between instances of '" + a.type_name() + "' and '" + b.type_name() +
       "'");
}

}  // namespace

bool compare(Budget& budget, CompareOp op, const Value& a, const Value& b) {
  switch (op) {
    case CompareOp::kEq:
      return equal(budget, a, b);
    case CompareOp::kNe:
      return !equal(budget, a, b);
    case CompareOp::kIn:
      return contains(budget, b, a);
    case CompareOp::kNotIn:
      return !contains(budget, b, a);
    default:
      return ordered(budget, op, a, b);
  }
}

bool less(Budget& budget, const Value& a, const Value& b) {
  return ordered(budget, CompareOp::kLt, a, b);
}

bool contains(Budget& budget, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kStr:
      if (!item.is_str()) fail("'in <string>' requires string as left operand, not " + item.type_name());
      budget.work(container.as_str().text.size());
      return container.as_str().text.find(item.as_str().text) != std::string::npos;
    case Kind::kDict:
      return container.as_dict().find(budget, item) != nullptr;
    case Kind::kView:
      if (container.as<View>().view == ViewKind::kKeys) return container.as<View>().dict->find(budget, item) != nullptr;
      break;
    case Kind::kRange: {
      const Range& r = container.as<Range>();
      if (!item.is_integer()) break;
      const Int128 offset = item.as_int() - r.start;
      return offset % r.step == 0 && offset / r.step >= 0 && offset / r.step < r.length;
    }
    case Kind::kUndefined:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kGenerator:
      break;
    default:
      fail("argument of type '" + container.type_name() + "' is not iterable");
  }
  Iterator it(budget, container);
  for (Value v; it.next(v);) {
    if (equal(budget, v, item)) return true;
  }
  return false;
}

// --------------------------------------------------------------------------------------------------------------
// lookups

namespace {

// Attributes proper; missing when there is none.
Value find_attribute(Interpreter& interpreter, const Value& object, std::string_view name) {
  if (object.is(Kind::kNamespace)) {
    const Value* found = object.as<Namespace>().attributes.find(name);
    return found != nullptr ? *found : Value();
  }
  if (object.is(Kind::kCallable)) return object.as<Callable>().attribute(interpreter, name);
  if (object.is(Kind::kTuple) && object.as_list().group && (name == "grouper" || name == "list")) {
    return object.as_list().items[name == "list" ? 1 : 0];
  }
  if (const NativeFunction method = find_method(object, name)) return bind_method(object, name, method);
  const bool hidden = name.size() > 4 && name.starts_with("__") && name.ends_with("__");
  if (is_mutating_method(object, name) || (hidden && !object.is_dict())) {
    return Value::undefined_hint("access to attribute '" + std::string(name) + "' of '" + object.type_name() +
                                 "' object is unsafe.");
  }
  return {};
}

// container[key] for an integer key; missing when out of range or not a sequence.
Value find_index(Budget& budget, const Value& object, const Value& key) {
  const bool indexable = object.is_str() || object.is_sequence() || object.is(Kind::kRange);
  if (!indexable || !key.is_integer()) return {};
  const auto size = static_cast<Int128>(*length_of(object));
  const Int128 index = key.as_int() < 0 ? key.as_int() + size : key.as_int();
  if (index < 0 || index >= size) return {};
  const auto i = static_cast<std::size_t>(index);
  if (object.is_sequence()) return object.as_list().items[i];
  if (object.is(Kind::kRange)) return object.as<Range>().at(static_cast<std::int64_t>(i));
  const Str& s = object.as_str();
  if (!s.ascii()) budget.work(s.text.size());
  const std::size_t begin = s.byte_offset(i);
  std::size_t end = begin + 1;
  while (end < s.text.size() && (static_cast<unsigned char>(s.text[end]) & 0xC0U) == 0x80U) ++end;
  return Value::str(substr(budget, s, begin, end));
}

}  // namespace

Value get_attribute(Interpreter& interpreter, const Value& object, std::string_view name) {
  require_defined(object);
  Value found = find_attribute(interpreter, object, name);
  if (!found.is_missing()) return found;
  if (object.is_dict()) {
    if (const Value* item = object.as_dict().find(name)) return *item;
  }
  return Value::undefined_attribute(object, name);
}

Value get_item(Interpreter& interpreter, const Value& object, const Value& key) {
  require_defined(object);
  Budget& budget = interpreter.budget();
  if (object.is_dict()) {
    if (key.is_str()) {
      if (const Value* item = object.as_dict().find(key.as_str().text)) return *item;
    } else if (!key.is(Kind::kList) && !key.is(Kind::kDict)) {
      if (const Value* item = object.as_dict().find(budget, key)) return *item;
    }
  } else if (Value item = find_index(budget, object, key); !item.is_missing()) {
    return item;
  }
  if (!key.is_str()) return Value::undefined_element(object, repr(budget, key)->text);
  Value found = find_attribute(interpreter, object, key.as_str().text);
  return found.is_missing() ? Value::undefined_attribute(object, key.as_str().text) : found;
}

Value get_slice(Budget& budget, const Value& object, const Value& start, const Value& stop, const Value& step) {
  require_defined(object);
  const bool sliceable = object.is_str() || object.is_sequence() || object.is(Kind::kRange);
  if (!sliceable) fail("'" + object.type_name() + "' object cannot be sliced");
  constexpr std::int64_t kMaxIndex = std::numeric_limits<std::int64_t>::max();
  const auto given = [](const Value& v) { return !v.is_missing() && !v.is_none(); };
  const std::int64_t by = given(step) ? std::max(as_index(step, "slice indices"), -kMaxIndex) : 1;
  if (by == 0) fail("slice step cannot be zero");
  const auto size = static_cast<std::int64_t>(*length_of(object));
  const auto bound = [&](const Value& v, std::int64_t missing) {
    if (!given(v)) return missing;
    std::int64_t i = as_index(v, "slice indices");
    if (i < 0) i = i < -size ? -1 : i + size;
    return by < 0 ? std::clamp<std::int64_t>(i, -1, size - 1) : std::clamp<std::int64_t>(i, 0, size);
  };
  const std::int64_t first = bound(start, by < 0 ? size - 1 : 0);
  const std::int64_t last = bound(stop, by < 0 ? -1 : size);
  const auto more = [&](std::int64_t i) { return by > 0 ? i < last : i > last; };
  const auto advance = [&](std::int64_t i) {  // saturating: a step may be as large as an int64
    std::int64_t next = 0;
    return __builtin_add_overflow(i, by, &next) ? last : next;
  };

  if (object.is_str()) {
    const Str& s = object.as_str();
    if (by == 1) {
      if (!s.ascii()) budget.work(s.text.size());
      const std::size_t begin = s.byte_offset(static_cast<std::size_t>(first));
      return Value::str(substr(budget, s, begin, s.byte_offset(static_cast<std::size_t>(std::max(first, last)))));
    }
    std::vector<std::size_t> offsets;  // of every character, and the end
    for (std::size_t at = 0; at < s.text.size(); ++at) {
      if ((static_cast<unsigned char>(s.text[at]) & 0xC0U) != 0x80U) offsets.push_back(at);
    }
    offsets.push_back(s.text.size());
    budget.step(size);
    StrBuilder out(budget);
    for (std::int64_t i = first; more(i); i = advance(i)) {
      out.append(s, offsets[static_cast<std::size_t>(i)], offsets[static_cast<std::size_t>(i) + 1]);
    }
    return Value::str(out.finish(s.markup));
  }
  if (object.is(Kind::kRange)) {
    const Range& r = object.as<Range>();
    const std::int64_t count = more(first) ? (std::abs(last - first) - 1) / std::abs(by) + 1 : 0;
    auto range = std::make_shared<Range>();
    range->start = r.start + first * r.step;
    range->step = r.step * (count > 1 ? by : 1);
    range->length = count;
    const Int128 end = r.start + static_cast<Int128>(last) * r.step;
    range->stop = static_cast<std::int64_t>(std::clamp<Int128>(end, -kMaxIndex, kMaxIndex));
    return Value::object(Kind::kRange, std::move(range));
  }
  std::vector<Value> items;
  for (std::int64_t i = first; more(i); i = advance(i))
    items.push_back(object.as_list().items[static_cast<std::size_t>(i)]);
  return object.is(Kind::kList) ? Value::list(budget, std::move(items)) : Value::tuple(budget, std::move(items));
}

}  // namespace penstock::jinja
