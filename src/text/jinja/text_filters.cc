// Filters on texts and numbers.
#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "text/jinja/args.h"
#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/ops.h"
#include "text/jinja/print.h"
#include "text/jinja/pyformat.h"
#include "text/jinja/string_ops.h"
#include "text/jinja/unicode.h"

namespace penstock::jinja {
namespace {

template <StrPtr (*Operation)(Budget&, const Str&)>
Value on_text(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("this filter", args, {});
  Budget& budget = interpreter.budget();
  return Value::str(Operation(budget, *to_str(budget, value)));
}

Value trim_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("trim", args, {"chars"});
  const StrPtr chars = a.given(0) ? a.str(0) : nullptr;
  Budget& budget = interpreter.budget();
  return Value::str(strip(budget, *to_str(budget, value), chars.get(), Side::kBoth));
}

Value replace_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("replace", args, {"old", "new", "count"}, 2);
  Budget& budget = interpreter.budget();
  const std::int64_t count = a.given(2) ? a.integer(2) : -1;
  return Value::str(replace(budget, *to_str(budget, value), *to_str(budget, a[0]), *to_str(budget, a[1]), count));
}

StrPtr text_only(const Value& value, const char* filter) {
  require_defined(value);
  if (!value.is_str()) fail(std::string("the filter ") + filter + " needs a text, not " + value.type_name());
  return value.str_ptr();
}

Value indent_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("indent", args, {"width", "first", "blank"});
  Budget& budget = interpreter.budget();
  const StrPtr text = text_only(value, "indent");
  const StrPtr blank = make_str(" ");
  const StrPtr by = a.has(0) && a[0].is_str() ? a.str(0) : repeat(budget, *blank, a.integer_or(0, 4));
  const bool first = a.truthy_or(1, false);
  const bool blank_lines = a.truthy_or(2, false);
  const std::vector<StrPtr> lines = split_lines(budget, *concat(budget, *text, *make_str("\n")), false);
  StrBuilder out(budget);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i != 0) out.append("\n");
    if (i == 0 ? first : blank_lines || !lines[i]->text.empty()) out.append(*by);
    out.append(*lines[i]);
  }
  return Value::str(out.finish());
}

Value truncate_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("truncate", args, {"length", "killwords", "end", "leeway"});
  Budget& budget = interpreter.budget();
  const std::int64_t length = a.integer_or(0, 255);
  const StrPtr end = a.has(2) ? a.str(2) : make_str("...");
  const std::int64_t leeway = a.given(3) ? a.integer(3) : 5;
  const auto end_chars = static_cast<std::int64_t>(end->chars);
  if (length < end_chars) fail("expected length >= " + std::to_string(end_chars) + ", got " + std::to_string(length));
  if (leeway < 0) fail("expected leeway >= 0, got " + std::to_string(leeway));
  const auto size = length_of(value);
  if (size && static_cast<std::int64_t>(*size) - leeway <= length) return value;
  const StrPtr text = text_only(value, "truncate");
  StrPtr head = substr(budget, *text, 0, text->byte_offset(static_cast<std::size_t>(length - end_chars)));
  if (!a.truthy_or(1, false)) head = split(budget, *head, make_str(" ").get(), 1, true).front();
  return Value::str(concat(budget, *head, *end));
}

Value center_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("center", args, {"width"});
  Budget& budget = interpreter.budget();
  return Value::str(pad(budget, *to_str(budget, value), a.integer_or(0, 80), *make_str(" "), Align::kCenter));
}

Value format_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  if (!args.positional.empty() && !args.named.empty()) {
    fail("can't handle positional and keyword arguments at the same time");
  }
  Budget& budget = interpreter.budget();
  const StrPtr format = to_str(budget, value);
  if (args.named.empty()) return Value::str(percent_format(budget, *format, Value::tuple(budget, args.positional)));
  auto values = std::make_shared<Dict>();
  for (const auto& [name, item] : args.named) values->set(budget, Value::str(name), item);
  return Value::str(percent_format(budget, *format, Value::dict(std::move(values))));
}

Value wordcount_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("wordcount", args, {});
  const StrPtr text = to_str(interpreter.budget(), value);
  interpreter.budget().work(text->text.size());
  std::int64_t words = 0;
  bool in_word = false;
  for (std::size_t at = 0; at < text->text.size();) {
    const auto [cp, bytes] = decode_utf8(text->text, at);
    const bool word = cp == '_' || is_alpha(cp) || is_digit(cp) || is_numeric(cp);
    words += word && !in_word ? 1 : 0;
    in_word = word;
    at += bytes;
  }
  return Value::integer(words);
}

Value string_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("string", args, {});
  return Value::str(to_str(interpreter.budget(), value));
}

Value safe_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("safe", args, {});
  const StrPtr text = to_str(interpreter.budget(), value);
  interpreter.budget().work(text->text.size());
  return Value::str(std::make_shared<const Str>(text->text, text->user, true));
}

Value escape_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("escape", args, {});
  Budget& budget = interpreter.budget();
  return Value::str(escape_html(budget, *to_str(budget, value)));
}

Value forceescape_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("forceescape", args, {});
  Budget& budget = interpreter.budget();
  const StrPtr text = to_str(budget, value);
  return Value::str(escape_html(budget, Str(text->text, text->user, false)));
}

void append_quoted(StrBuilder& out, const Str& text, bool query) {
  for (std::size_t i = 0; i < text.text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text.text[i]);
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("_.-~").find(static_cast<char>(c)) != std::string_view::npos;
    if (plain || (c == '/' && !query)) {
      out.append(text, i, i + 1);
    } else if (c == ' ' && query) {
      out.append("+", text.is_user(i));
    } else {
      char buffer[4];
      std::snprintf(buffer, sizeof buffer, "%%%02X", static_cast<unsigned>(c));
      out.append(buffer, text.is_user(i));
    }
  }
}

Value urlencode_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("urlencode", args, {});
  Budget& budget = interpreter.budget();
  StrBuilder out(budget);
  if (value.is_str() || (!length_of(value) && !value.is(Kind::kGenerator))) {
    append_quoted(out, *to_str(budget, value), false);
    return Value::str(out.finish());
  }
  Iterator it(budget, value.is_dict() ? make_view(value.dict_ptr(), ViewKind::kItems) : value);
  for (Value item; it.next(item);) {
    const std::vector<Value> pair = to_vector(budget, item);
    if (pair.size() != 2) fail("urlencode needs pairs of keys and values");
    if (out.size() != 0) out.append("&");
    append_quoted(out, *to_str(budget, pair[0]), true);
    out.append("=");
    append_quoted(out, *to_str(budget, pair[1]), true);
  }
  return Value::str(out.finish());
}

// --------------------------------------------------------------------------------------------------------------
// numbers

std::string stripped_number(std::string_view text) {
  std::size_t begin = 0;
  std::size_t end = text.size();
  while (begin < end && static_cast<unsigned char>(text[begin]) <= ' ') ++begin;
  while (end > begin && static_cast<unsigned char>(text[end - 1]) <= ' ') --end;
  std::string out;
  for (std::size_t i = begin; i < end; ++i) {
    // Single underscores between digits are allowed.
    const bool between = text[i] == '_' && i > begin && i + 1 < end &&
                         std::isalnum(static_cast<unsigned char>(text[i - 1])) &&
                         std::isalnum(static_cast<unsigned char>(text[i + 1]));
    if (!between) out.push_back(text[i]);
  }
  return out;
}

std::optional<Int128> parse_integer(std::string_view text, std::int64_t base) {
  std::string digits = stripped_number(text);
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.erase(0, 1);
  if (digits.size() > 2 && digits[0] == '0') {
    const char kind = static_cast<char>(digits[1] | 0x20);
    const std::int64_t named = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
    if (named != 0 && (base == named || base == 0)) {
      digits.erase(0, 2);
      base = named;
    }
  }
  if (base == 0) base = 10;
  if (digits.empty() || base < 2 || base > 36) return std::nullopt;
  Int128 value = 0;
  for (const char c : digits) {
    const char low = static_cast<char>(c | 0x20);
    const int digit = c >= '0' && c <= '9' ? c - '0' : low >= 'a' && low <= 'z' ? low - 'a' + 10 : 99;
    if (digit >= base) return std::nullopt;
    value = value * base + digit;
    if (value > static_cast<Int128>(UINT64_MAX)) fail("integer overflow: numbers have 64 bits here");
  }
  return negative ? -value : value;
}

std::optional<double> parse_float(std::string_view text) {
  const std::string number = stripped_number(text);
  if (number.empty() || number.find_first_of("xXpP(") != std::string::npos ||
      static_cast<unsigned char>(number[0]) <= ' ') {
    return std::nullopt;
  }
  char* end = nullptr;
  const double value = std::strtod(number.c_str(), &end);
  if (end != number.c_str() + number.size()) return std::nullopt;
  return value;
}

Value int_filter(Interpreter&, const Value& value, CallArgs& args) {
  const Args a("int", args, {"default", "base"});
  require_defined(value);
  const Value fallback = a.has(0) ? a[0] : Value::integer(std::int64_t{0});
  if (value.is_integer()) return Value::integer(value.as_int());
  std::optional<double> number;
  if (value.is_str()) {
    if (const auto parsed = parse_integer(value.as_str().text, a.integer_or(1, 10))) return Value::integer(*parsed);
    number = parse_float(value.as_str().text);
  } else if (value.is(Kind::kFloat)) {
    number = value.as_double();
    if (std::isinf(*number)) fail("cannot convert float infinity to integer");
  }
  if (!number || !std::isfinite(*number)) return fallback;
  if (std::abs(*number) >= 0x1p64) fail("integer overflow: numbers have 64 bits here");
  return Value::integer(static_cast<Int128>(std::trunc(*number)));
}

Value float_filter(Interpreter&, const Value& value, CallArgs& args) {
  const Args a("float", args, {"default"});
  require_defined(value);
  if (value.is_number()) return Value::real(value.as_double());
  if (value.is_str()) {
    if (const auto parsed = parse_float(value.as_str().text)) return Value::real(*parsed);
  }
  return a.has(0) ? a[0] : Value::real(0.0);
}

Value abs_filter(Interpreter&, const Value& value, CallArgs& args) {
  const Args a("abs", args, {});
  require_defined(value);
  if (value.is_integer()) return Value::integer(value.as_int() < 0 ? -value.as_int() : value.as_int());
  if (!value.is_number()) fail("bad operand type for abs(): '" + value.type_name() + "'");
  return Value::real(std::abs(value.as_double()));
}

// round(): to even, from the number's exact decimal digits.
double round_to(double value, std::int64_t digits) {
  if (!std::isfinite(value) || digits > 330) return value;
  if (digits < -330) return std::copysign(0.0, value);
  if (digits < 0) {
    const double scale = std::pow(10.0, static_cast<double>(-digits));
    return std::nearbyint(value / scale) * scale;
  }
  char buffer[700];
  std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(digits), value);
  return std::strtod(buffer, nullptr);
}

Int128 round_integer(Int128 value, std::int64_t digits) {
  if (digits >= 0) return value;
  if (digits < -20) return 0;
  Int128 scale = 1;
  for (std::int64_t i = 0; i < -digits; ++i) scale *= 10;
  const Int128 rest = ((value % scale) + scale) % scale;
  const Int128 down = value - rest;
  const bool odd = (down / scale) % 2 != 0;
  return rest * 2 > scale || (rest * 2 == scale && odd) ? down + scale : down;
}

Value round_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("round", args, {"precision", "method"});
  require_defined(value);
  if (!value.is_number()) fail("type " + value.type_name() + " cannot be rounded");
  const std::string method = a.has(1) ? a.str(1)->text : "common";
  const std::int64_t digits = a.integer_or(0, 0);
  if (method == "common") {
    return value.is_integer() ? Value::integer(round_integer(value.as_int(), digits))
                              : Value::real(round_to(value.as_double(), digits));
  }
  if (method != "ceil" && method != "floor") fail("method must be common, ceil or floor");
  Budget& budget = interpreter.budget();
  const Value scale = binary(budget, BinaryOp::kPow, Value::integer(std::int64_t{10}), Value::integer(digits));
  const double scaled = binary(budget, BinaryOp::kMul, value, scale).as_double();
  return Value::real((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale.as_double());
}

Value filesizeformat_filter(Interpreter&, const Value& value, CallArgs& args) {
  const Args a("filesizeformat", args, {"binary"});
  require_defined(value);
  const auto parsed = value.is_str() ? parse_float(value.as_str().text) : std::optional(value.as_double());
  if (!parsed || (!value.is_number() && !value.is_str())) fail("filesizeformat needs a number");
  const bool binary_units = a.truthy_or(0, false);
  const double bytes = *parsed;
  const double base = binary_units ? 1024 : 1000;
  if (bytes == 1) return Value::str(std::string("1 Byte"));
  if (bytes < base) return Value::str(integer_text(static_cast<Int128>(bytes)) + " Bytes");
  constexpr std::string_view kUnits = "kMGTPEZY";
  double unit = base * base;
  std::size_t i = 0;
  for (; i + 1 < kUnits.size() && bytes >= unit; ++i) unit *= base;
  const char letter = binary_units && i == 0 ? 'K' : kUnits[i];
  char buffer[400];
  std::snprintf(buffer, sizeof buffer, "%.1f %c%sB", base * bytes / unit, letter, binary_units ? "i" : "");
  return Value::str(std::string(buffer));
}

// ------------------------------------------------------------------------------------------------------- any value

Value default_filter(Interpreter&, const Value& value, CallArgs& args) {
  const Args a("default", args, {"default_value", "boolean"});
  const bool missing = value.is_undefined() || (a.truthy_or(1, false) && !value.truthy());
  if (!missing) return value;
  return a.has(0) ? a[0] : Value::str(std::string());
}

Value tojson_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  Budget& budget = interpreter.budget();
  JsonOptions options;
  options.ensure_ascii = a.truthy_or(0, false);
  options.sort_keys = a.truthy_or(3, false);
  if (a.given(1)) {
    options.indent = a[1].is_str() ? a.str(1)->text : repeat(budget, *make_str(" "), a.integer(1))->text;
    options.item_separator = ",";
  }
  if (a.given(2)) {
    const std::vector<Value> pair = to_vector(budget, a[2]);
    if (pair.size() != 2 || !pair[0].is_str() || !pair[1].is_str()) fail("separators must be a pair of texts");
    options.item_separator = pair[0].as_str().text;
    options.key_separator = pair[1].as_str().text;
  }
  return Value::str(to_json(budget, value, options));
}

Value attr_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("attr", args, {"name"}, 1);
  const std::string& name = a.str(0)->text;
  Value found = get_attribute(interpreter, value, name);
  // Items are no attributes.
  const bool item = value.is_dict() && value.as_dict().find(name) != nullptr && !found.is(Kind::kCallable);
  return item ? Value::undefined_attribute(value, name) : found;
}

constexpr std::array<Filter, 26> kFilters = {{
    {"upper", on_text<upper>},
    {"lower", on_text<lower>},
    {"capitalize", on_text<capitalize>},
    {"title", on_text<title_filter>},
    {"trim", trim_filter},
    {"replace", replace_filter},
    {"indent", indent_filter},
    {"truncate", truncate_filter},
    {"center", center_filter},
    {"format", format_filter},
    {"wordcount", wordcount_filter},
    {"string", string_filter},
    {"safe", safe_filter},
    {"escape", escape_filter},
    {"e", escape_filter},
    {"forceescape", forceescape_filter},
    {"urlencode", urlencode_filter},
    {"int", int_filter},
    {"float", float_filter},
    {"abs", abs_filter},
    {"round", round_filter},
    {"filesizeformat", filesizeformat_filter},
    {"default", default_filter},
    {"d", default_filter},
    {"tojson", tojson_filter},
    {"attr", attr_filter},
}};

}  // namespace

const Filter* find_text_filter(std::string_view name) {
  const auto* it = std::find_if(kFilters.begin(), kFilters.end(), [name](const Filter& f) { return f.name == name; });
  return it == kFilters.end() ? nullptr : it;
}

}  // namespace penstock::jinja
