#include "text/jinja/pyformat.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include "text/jinja/interpreter.h"
#include "text/jinja/ops.h"
#include "text/jinja/print.h"
#include "text/jinja/unicode.h"

namespace penstock::jinja {
namespace {

// One conversion, in either notation.
struct Spec {
  char32_t fill = ' ';
  char align = '\0';  // < > ^ =, or the type's default
  char sign = '-';    // + - or space
  bool alternate = false;
  bool zero = false;
  std::int64_t width = 0;
  char grouping = '\0';  // , or _
  std::optional<std::int64_t> precision;
  char type = '\0';
};

std::int64_t parse_count(Budget& budget, std::string_view text, std::size_t& at) {
  std::int64_t count = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
    count = count * 10 + (text[at++] - '0');
    budget.check_string(static_cast<std::size_t>(count));
  }
  return count;
}

void append_fill(StrBuilder& out, Budget& budget, char32_t fill, std::int64_t count) {
  if (count <= 0) return;
  budget.check_string(static_cast<std::size_t>(count));
  budget.step(count / 64);
  for (std::int64_t i = 0; i < count; ++i) out.append_char(fill, false);
}

// `body` in a field; '=' puts the filling behind the first `prefix_bytes` (a sign or 0x).
void append_field(StrBuilder& out, Budget& budget, const Str& body, const Spec& spec, char default_align,
                  std::size_t prefix_bytes) {
  const char align = spec.align != '\0' ? spec.align : default_align;
  const std::int64_t missing = spec.width - static_cast<std::int64_t>(body.chars);
  if (align == '=') {
    out.append(body, 0, prefix_bytes);
    append_fill(out, budget, spec.fill, missing);
    return out.append(body, prefix_bytes, body.text.size());
  }
  const std::int64_t left = align == '>' ? missing : align == '^' ? missing / 2 : 0;
  append_fill(out, budget, spec.fill, missing > 0 ? left : 0);
  out.append(body);
  append_fill(out, budget, spec.fill, missing - std::max<std::int64_t>(left, 0));
}

std::string group_digits(const std::string& digits, char separator, std::size_t every) {
  std::string out;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i != 0 && (digits.size() - i) % every == 0) out.push_back(separator);
    out.push_back(digits[i]);
  }
  return out;
}

std::string digits_in_base(Int128 value, unsigned base, bool capital) {
  auto rest = value < 0 ? -static_cast<unsigned __int128>(value) : static_cast<unsigned __int128>(value);
  std::string digits;
  do {
    const auto digit = static_cast<int>(rest % base);
    digits.push_back(static_cast<char>(digit < 10 ? '0' + digit : (capital ? 'A' : 'a') + digit - 10));
    rest /= base;
  } while (rest != 0);
  std::reverse(digits.begin(), digits.end());
  return digits;
}

std::string sign_of(bool negative, char sign) {
  return negative ? "-" : sign == '+' ? "+" : sign == ' ' ? " " : "";
}

// Sign, prefix and digits of an integer; `prefix_bytes` receives the length of sign and prefix.
std::string integer_body(const Spec& spec, Int128 value, std::size_t& prefix_bytes) {
  const char type = spec.type;
  const unsigned base = type == 'x' || type == 'X' ? 16U : type == 'o' ? 8U : type == 'b' ? 2U : 10U;
  std::string digits = digits_in_base(value, base, type == 'X');
  if (spec.grouping != '\0') digits = group_digits(digits, spec.grouping, base == 10 ? 3 : 4);
  std::string prefix = sign_of(value < 0, spec.sign);
  if (spec.alternate && base != 10) prefix += std::string("0") + type;
  prefix_bytes = prefix.size();
  return prefix + digits;
}

std::string float_body(Budget& budget, const Spec& spec, double value, std::size_t& prefix_bytes) {
  const bool percent = spec.type == '%';
  const char type = percent ? 'f' : spec.type == 'n' ? 'g' : spec.type;
  const double magnitude = std::abs(percent ? value * 100 : value);
  std::string prefix = sign_of(std::signbit(value) && !std::isnan(value), spec.sign);
  prefix_bytes = prefix.size();
  std::string digits;
  if (!std::isfinite(magnitude)) {
    const bool capital = type == 'E' || type == 'F' || type == 'G';
    digits = std::isnan(magnitude) ? (capital ? "NAN" : "nan") : (capital ? "INF" : "inf");
  } else if (type == '\0' && !spec.precision) {
    digits = float_repr(magnitude);
  } else {
    const std::int64_t precision = spec.precision.value_or(6);
    if (precision > 1000) fail("precision too large: 1000 digits at most");
    budget.step(precision / 8);
    const std::string format = std::string("%") + (spec.alternate ? "#" : "") + ".*" + (type == '\0' ? 'g' : type);
    std::string buffer(static_cast<std::size_t>(precision) + 400, '\0');
    const int length =
        std::snprintf(buffer.data(), buffer.size(), format.c_str(), static_cast<int>(precision), magnitude);
    digits = buffer.substr(0, static_cast<std::size_t>(length));
    if (type == '\0' && digits.find_first_of(".e") == std::string::npos) digits += ".0";
  }
  if (spec.grouping != '\0') {
    const std::size_t point = std::min(digits.find_first_of(".e"), digits.size());
    digits = group_digits(digits.substr(0, point), spec.grouping, 3) + digits.substr(point);
  }
  return prefix + digits + (percent ? "%" : "");
}

StrPtr truncate_chars(Budget& budget, const StrPtr& s, std::optional<std::int64_t> chars) {
  if (!chars || static_cast<std::int64_t>(s->chars) <= *chars) return s;
  return substr(budget, *s, 0, s->byte_offset(static_cast<std::size_t>(*chars)));
}

Spec parse_spec(Budget& budget, std::string_view text) {
  Spec spec;
  std::size_t at = 0;
  const auto peek = [&](std::size_t i) { return i < text.size() ? text[i] : '\0'; };
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  if (!text.empty()) {
    const auto [fill, bytes] = decode_utf8(text, 0);
    if (is_align(peek(bytes))) {
      spec.fill = fill;
      spec.align = peek(bytes);
      at = bytes + 1;
    } else if (is_align(peek(0))) {
      spec.align = peek(at++);
    }
  }
  if (peek(at) == '+' || peek(at) == '-' || peek(at) == ' ') spec.sign = text[at++];
  if (peek(at) == '#') {
    spec.alternate = true;
    ++at;
  }
  if (peek(at) == '0') {
    spec.zero = true;
    ++at;
  }
  spec.width = parse_count(budget, text, at);
  if (peek(at) == ',' || peek(at) == '_') spec.grouping = text[at++];
  if (peek(at) == '.') {
    const std::size_t digits = ++at;
    spec.precision = parse_count(budget, text, at);
    if (at == digits) fail("Format specifier missing precision");
  }
  if (at < text.size()) spec.type = text[at++];
  if (at != text.size()) fail("Invalid format specifier '" + std::string(text) + "'");
  return spec;
}

}  // namespace

StrPtr format_value(Budget& budget, const Value& value, std::string_view text) {
  if (text.empty() || value.is_undefined()) return to_str(budget, value);
  Spec spec = parse_spec(budget, text);
  const auto unknown = [&] {
    fail(std::string("Unknown format code '") + spec.type + "' for object of type '" + value.type_name() + "'");
  };
  if (spec.zero && spec.align == '\0' && value.is_number()) spec.align = '=';
  if (spec.zero && spec.fill == ' ') spec.fill = '0';
  StrBuilder out(budget);
  if (value.is_str()) {
    if (spec.type != '\0' && spec.type != 's') unknown();
    if (spec.sign != '-' || spec.align == '=' || spec.grouping != '\0')
      fail("format not allowed for text: " + std::string(text));
    append_field(out, budget, *truncate_chars(budget, value.str_ptr(), spec.precision), spec, '<', 0);
    return out.finish();
  }
  if (!value.is_number()) fail("unsupported format string passed to " + value.type_name() + ".__format__");
  const bool float_type = spec.type != '\0' && std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos;
  std::size_t prefix = 0;
  std::string body;
  if (value.is_integer() && !float_type) {
    if (spec.type == 'c') {
      const Int128 cp = value.as_int();
      if (cp < 0 || cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF)) fail("%c arg not a character");
      append_utf8(body, static_cast<char32_t>(cp));
    } else {
      if (spec.type != '\0' && std::string_view("bdoxXn").find(spec.type) == std::string_view::npos) unknown();
      if (spec.precision) fail("Precision not allowed in integer format specifier");
      body = integer_body(spec, value.as_int(), prefix);
    }
  } else {
    if (spec.type != '\0' && !float_type && spec.type != 'n') unknown();
    body = float_body(budget, spec, value.as_double(), prefix);
  }
  append_field(out, budget, *make_str(std::move(body)), spec, '>', prefix);
  return out.finish();
}

// ------------------------------------------------------------------------------------------------------------ "%s" % x

namespace {

class PercentFormatter {
 public:
  PercentFormatter(Budget& budget, const Str& format, const Value& values)
      : budget_(budget), format_(format), values_(values), out_(budget) {}

  StrPtr run() {
    const std::string& text = format_.text;
    for (;;) {
      const std::size_t percent = std::min(text.find('%', at_), text.size());
      out_.append(format_, at_, percent);
      if (percent == text.size()) break;
      at_ = percent + 1;
      conversion();
    }
    const bool all_used = values_.is(Kind::kTuple)
                              ? used_ >= values_.as_list().items.size()
                              : used_ > 0 || values_.is_dict() || values_.is_undefined() || values_.is(Kind::kList);
    if (!all_used) fail("not all arguments converted during string formatting");
    return out_.finish(format_.markup);
  }

 private:
  char peek() const { return at_ < format_.text.size() ? format_.text[at_] : '\0'; }

  Value next_value() {
    if (values_.is(Kind::kTuple)) {
      if (used_ >= values_.as_list().items.size()) fail("not enough arguments for format string");
      return values_.as_list().items[used_++];
    }
    if (used_++ > 0) fail("not enough arguments for format string");
    return values_;
  }

  std::int64_t count() {
    if (peek() != '*') return parse_count(budget_, format_.text, at_);
    ++at_;
    const std::int64_t given = as_index(next_value(), "*");
    budget_.check_string(static_cast<std::size_t>(std::abs(std::max(given, -INT64_MAX))));
    return given;
  }

  void conversion() {
    budget_.step();
    std::optional<Value> keyed;
    if (peek() == '(') keyed = key();
    Spec spec;
    spec.align = '>';
    for (;; ++at_) {
      if (peek() == '-') {
        spec.align = '<';
      } else if (peek() == '+' || (peek() == ' ' && spec.sign != '+')) {
        spec.sign = peek();
      } else if (peek() == '#') {
        spec.alternate = true;
      } else if (peek() == '0') {
        spec.zero = true;
      } else if (peek() != ' ') {
        break;
      }
    }
    spec.width = count();
    if (spec.width < 0) {
      spec.align = '<';
      spec.width = -spec.width;
    }
    if (peek() == '.') {
      ++at_;
      spec.precision = std::max<std::int64_t>(0, count());
    }
    while (peek() == 'h' || peek() == 'l' || peek() == 'L') ++at_;
    if (at_ >= format_.text.size()) fail("incomplete format");
    spec.type = format_.text[at_++];
    if (spec.type == '%') return out_.append(format_, at_ - 1, at_);
    convert(spec, keyed ? *keyed : next_value());
  }

  Value key() {
    const std::size_t begin = at_ + 1;
    int open = 1;
    for (++at_; at_ < format_.text.size() && open > 0; ++at_) {
      open += format_.text[at_] == '(' ? 1 : format_.text[at_] == ')' ? -1 : 0;
    }
    if (open > 0) fail("incomplete format key");
    if (!values_.is_dict()) fail("format requires a mapping");
    const std::string name = format_.text.substr(begin, at_ - 1 - begin);
    const Value* found = values_.as_dict().find(name);
    if (found == nullptr) fail("the mapping to format has no key '" + name + "'");
    return *found;
  }

  void convert(Spec spec, const Value& value) {
    switch (spec.type) {
      case 's':
      case 'r':
      case 'a': {
        const StrPtr text = spec.type == 's' ? to_str(budget_, value) : repr(budget_, value);
        return append_field(out_, budget_, *truncate_chars(budget_, text, spec.precision), spec, '>', 0);
      }
      case 'c': {
        if (value.is_str() && value.as_str().chars == 1)
          return append_field(out_, budget_, value.as_str(), spec, '>', 0);
        if (!value.is_integer()) fail("%c requires int or char");
        return append_field(out_, budget_, *format_value(budget_, value, "c"), spec, '>', 0);
      }
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o':
        return integer(spec, value);
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        return real(spec, value);
      default:
        fail(std::string("unsupported format character '") + spec.type + "'");
    }
  }

  // Zeros instead of blanks go behind the sign.
  static void use_zeros(Spec& spec) {
    if (!spec.zero || spec.align == '<') return;
    spec.align = '=';
    spec.fill = '0';
  }

  void integer(Spec spec, const Value& value) {
    require_defined(value);
    const bool decimal = spec.type == 'd' || spec.type == 'i' || spec.type == 'u';
    Int128 number = 0;
    if (value.is_integer()) {
      number = value.as_int();
    } else if (decimal && value.is(Kind::kFloat)) {
      const double whole = std::trunc(value.as_double());
      if (!(std::abs(whole) < 0x1p63)) fail("this number does not fit %d");
      number = static_cast<Int128>(whole);
    } else {
      fail(std::string("%") + spec.type + " format: " + (decimal ? "a real number" : "an integer") +
           " is required, not " + value.type_name());
    }
    std::size_t prefix = 0;
    std::string body = integer_body(spec, number, prefix);
    if (spec.precision) {
      const std::size_t digits = body.size() - prefix;
      budget_.check_string(static_cast<std::size_t>(*spec.precision));
      if (digits < static_cast<std::size_t>(*spec.precision)) {
        body.insert(prefix, static_cast<std::size_t>(*spec.precision) - digits, '0');
      }
    }
    use_zeros(spec);
    append_field(out_, budget_, *make_str(std::move(body)), spec, '>', prefix);
  }

  void real(Spec spec, const Value& value) {
    require_defined(value);
    if (!value.is_number()) fail("must be real number, not " + value.type_name());
    std::size_t prefix = 0;
    std::string body = float_body(budget_, spec, value.as_double(), prefix);
    use_zeros(spec);
    append_field(out_, budget_, *make_str(std::move(body)), spec, '>', prefix);
  }

  Budget& budget_;
  const Str& format_;
  const Value& values_;
  StrBuilder out_;
  std::size_t at_ = 0;
  std::size_t used_ = 0;
};

// --------------------------------------------------------------------------------------------------------- "{}".format

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& interpreter, const CallArgs& args) : interpreter_(interpreter), args_(args) {}

  void run(StrBuilder& out, const Str& format, std::size_t begin, std::size_t end, int depth) {
    const std::string& text = format.text;
    for (std::size_t at = begin; at < end;) {
      const std::size_t brace = std::min(text.find_first_of("{}", at), end);
      out.append(format, at, brace);
      if (brace == end) return;
      if (brace + 1 < end && text[brace + 1] == text[brace]) {
        out.append(format, brace, brace + 1);
        at = brace + 2;
        continue;
      }
      if (text[brace] == '}') fail("Single '}' encountered in format string");
      std::size_t close = brace + 1;
      for (int open = 1; close < end; ++close) {
        open += text[close] == '{' ? 1 : text[close] == '}' ? -1 : 0;
        if (open == 0) break;
      }
      if (close >= end) fail("expected '}' before end of string");
      if (depth == 0) fail("Max string recursion exceeded");
      field(out, format, brace + 1, close, depth);
      at = close + 1;
    }
  }

 private:
  void field(StrBuilder& out, const Str& format, std::size_t begin, std::size_t end, int depth) {
    Budget& budget = interpreter_.budget();
    budget.step();
    const std::string_view text = std::string_view(format.text).substr(0, end);
    std::size_t name_end = begin;
    for (bool in_index = false; name_end < end; ++name_end) {
      const char c = text[name_end];
      in_index = c == '[' || (in_index && c != ']');
      if (!in_index && (c == ':' || c == '!')) break;
    }
    Value value = look_up(text.substr(begin, name_end - begin));
    std::size_t at = name_end;
    if (at < end && text[at] == '!') {
      const char conversion = at + 1 < end ? text[at + 1] : '\0';
      if (conversion != 's' && conversion != 'r' && conversion != 'a') fail("bad conversion in format string");
      value = Value::str(conversion == 's' ? to_str(budget, value) : repr(budget, value));
      at += 2;
      if (at < end && text[at] != ':') fail("expected ':' after conversion specifier");
    }
    StrBuilder spec(budget);
    if (at < end) run(spec, format, at + 1, end, depth - 1);
    out.append(*format_value(budget, value, spec.text()));
  }

  Value look_up(std::string_view name) {
    const std::size_t first_end = std::min(name.find_first_of(".["), name.size());
    Value value = argument(name.substr(0, first_end));
    for (std::size_t at = first_end; at < name.size();) {
      if (name[at] == '.') {
        const std::size_t end = std::min(name.find_first_of(".[", at + 1), name.size());
        value = get_attribute(interpreter_, value, name.substr(at + 1, end - at - 1));
        at = end;
      } else if (name[at] == '[') {
        const std::size_t end = name.find(']', at);
        if (end == std::string_view::npos) fail("Missing ']' in format string");
        const std::string_view key = name.substr(at + 1, end - at - 1);
        const auto index = number(key);
        value = get_item(interpreter_, value, index ? Value::integer(*index) : Value::str(std::string(key)));
        at = end + 1;
      } else {
        fail("Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return value;
  }

  static std::optional<std::int64_t> number(std::string_view text) {
    if (text.empty() || text.size() > 15) return std::nullopt;
    std::int64_t value = 0;
    for (const char c : text) {
      if (c < '0' || c > '9') return std::nullopt;
      value = value * 10 + (c - '0');
    }
    return value;
  }

  Value argument(std::string_view name) {
    const auto index = number(name);
    if (name.empty() || index) {
      if (name.empty() ? explicit_ : automatic_ > 0) {
        fail("cannot switch between manual field specification and automatic field numbering");
      }
      explicit_ = explicit_ || !name.empty();
      const std::size_t i = name.empty() ? automatic_++ : static_cast<std::size_t>(*index);
      if (i >= args_.positional.size()) {
        fail("Replacement index " + std::to_string(i) + " out of range for positional args tuple");
      }
      return args_.positional[i];
    }
    for (const auto& [key, value] : args_.named) {
      interpreter_.budget().step();
      if (key->text == name) return value;
    }
    fail("format() has no argument '" + std::string(name) + "'");
  }

  Interpreter& interpreter_;
  const CallArgs& args_;
  std::size_t automatic_ = 0;
  bool explicit_ = false;
};

}  // namespace

StrPtr percent_format(Budget& budget, const Str& format, const Value& values) {
  return PercentFormatter(budget, format, values).run();
}

StrPtr str_format(Interpreter& interpreter, const Str& format, const CallArgs& args) {
  StrBuilder out(interpreter.budget());
  BraceFormatter(interpreter, args).run(out, format, 0, format.text.size(), 2);
  return out.finish(format.markup);
}

}  // namespace penstock::jinja
