#include "text/jinja/print.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "text/jinja/unicode.h"

namespace penstock::jinja {

std::string float_repr(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, std::abs(d), std::chars_format::scientific).ptr;
  const std::string shortest(buffer, end);  // d.ddde±xx, fewest digits that read back as the same number
  const std::size_t e = shortest.find('e');
  std::string digits = shortest.substr(0, e);
  std::erase(digits, '.');
  int exponent = 0;
  const char* exponent_text = shortest.data() + e + 1;
  std::from_chars(exponent_text + (*exponent_text == '+' ? 1 : 0), shortest.data() + shortest.size(), exponent);

  std::string out = std::signbit(d) ? "-" : "";
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (count > 1) out += "." + digits.substr(1);
    out += exponent < 0 ? "e-" : "e+";
    const int magnitude = std::abs(exponent);
    if (magnitude < 10) out += '0';
    return out + std::to_string(magnitude);
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1)
    return out + digits + std::string(static_cast<std::size_t>(exponent + 1 - count), '0') + ".0";
  return out + digits.substr(0, static_cast<std::size_t>(exponent + 1)) + "." +
         digits.substr(static_cast<std::size_t>(exponent + 1));
}

std::string integer_text(Int128 i) {
  std::string digits;
  const bool negative = i < 0;
  auto rest = negative ? -static_cast<unsigned __int128>(i) : static_cast<unsigned __int128>(i);
  do {
    digits.insert(digits.begin(), static_cast<char>('0' + static_cast<int>(rest % 10)));
    rest /= 10;
  } while (rest != 0);
  return negative ? "-" + digits : digits;
}

namespace {

std::string hex(char32_t value, int digits) {
  char buffer[16];
  std::snprintf(buffer, sizeof buffer, "%0*x", digits, static_cast<unsigned>(value));
  return buffer;
}

void append_repr(StrBuilder& out, Budget& budget, const Value& value);

void append_str_repr(StrBuilder& out, const Str& s) {
  const bool has_single = s.text.find('\'') != std::string::npos;
  const char quote = has_single && s.text.find('"') == std::string::npos ? '"' : '\'';
  if (s.markup) out.append("Markup(");
  out.append(std::string_view(&quote, 1));
  UserCursor user(s);
  for (std::size_t at = 0; at < s.text.size();) {
    const auto [cp, bytes] = decode_utf8(s.text, at);
    const bool mine = user.at(at);
    if (cp == static_cast<char32_t>(quote) || cp == '\\') {
      out.append("\\", mine);
      out.append_char(cp, mine);
    } else if (cp == '\n' || cp == '\r' || cp == '\t') {
      out.append(cp == '\n' ? "\\n" : cp == '\r' ? "\\r" : "\\t", mine);
    } else if (is_printable(cp)) {
      out.append(s, at, at + bytes);
    } else {
      out.append(cp < 0x100 ? "\\x" + hex(cp, 2) : cp < 0x10000 ? "\\u" + hex(cp, 4) : "\\U" + hex(cp, 8), mine);
    }
    at += bytes;
  }
  out.append(std::string_view(&quote, 1));
  if (s.markup) out.append(")");
}

void append_items(StrBuilder& out, Budget& budget, const Value& sequence) {
  Iterator it(budget, sequence);
  bool first = true;
  for (Value item; it.next(item); first = false) {
    if (!first) out.append(", ");
    append_repr(out, budget, item);
  }
}

void append_dict_repr(StrBuilder& out, Budget& budget, const Dict& dict) {
  out.append("{");
  bool first = true;
  for (const auto& [key, item] : dict.entries) {
    if (!first) out.append(", ");
    first = false;
    append_repr(out, budget, key);
    out.append(": ");
    append_repr(out, budget, item);
  }
  out.append("}");
}

void append_repr(StrBuilder& out, Budget& budget, const Value& value) {
  const NestingGuard guard(budget);
  budget.step();
  switch (value.kind()) {
    case Kind::kMissing:
      return out.append("missing");
    case Kind::kUndefined:
      return out.append("Undefined");
    case Kind::kNone:
      return out.append("None");
    case Kind::kBool:
      return out.append(value.as_bool() ? "True" : "False");
    case Kind::kInt:
    case Kind::kUInt:
      return out.append(integer_text(value.as_int()));
    case Kind::kFloat:
      return out.append(float_repr(value.as_double()));
    case Kind::kStr:
      return append_str_repr(out, value.as_str());
    case Kind::kList:
    case Kind::kTuple: {
      const bool tuple = value.is(Kind::kTuple);
      out.append(tuple ? "(" : "[");
      append_items(out, budget, value);
      if (tuple && value.as_list().items.size() == 1) out.append(",");
      return out.append(tuple ? ")" : "]");
    }
    case Kind::kDict:
      return append_dict_repr(out, budget, value.as_dict());
    case Kind::kView:
      out.append(value.type_name() + "([");
      append_items(out, budget, value);
      return out.append("])");
    case Kind::kRange: {
      const Range& r = value.as<Range>();
      const std::string step = r.step == 1 ? "" : ", " + std::to_string(r.step);
      return out.append("range(" + std::to_string(r.start) + ", " + std::to_string(r.stop) + step + ")");
    }
    case Kind::kNamespace:
      out.append("<Namespace ");
      append_dict_repr(out, budget, value.as<Namespace>().attributes);
      return out.append(">");
    case Kind::kGenerator:
      return out.append(value.as<Generator>().repr);
    case Kind::kCallable:
      return out.append(value.as<Callable>().repr());
  }
}

// json.dumps, written straight into the builder.
class JsonWriter {
 public:
  JsonWriter(StrBuilder& out, Budget& budget, const JsonOptions& options)
      : out_(out), budget_(budget), options_(options) {}

  void write(const Value& value, std::size_t level) {
    const NestingGuard guard(budget_);
    budget_.step();
    switch (value.kind()) {
      case Kind::kNone:
        return out_.append("null");
      case Kind::kBool:
        return out_.append(value.as_bool() ? "true" : "false");
      case Kind::kInt:
      case Kind::kUInt:
        return out_.append(integer_text(value.as_int()));
      case Kind::kFloat:
        return out_.append(number(value.as_double()));
      case Kind::kStr:
        return string(value.as_str());
      case Kind::kList:
      case Kind::kTuple:
        return list(value.as_list().items, level);
      case Kind::kDict:
        return dict(value.as_dict(), level);
      default:
        fail("Object of type " + value.type_name() + " is not JSON serializable");
    }
  }

 private:
  static std::string number(double d) {
    if (std::isnan(d)) return "NaN";
    if (std::isinf(d)) return d < 0 ? "-Infinity" : "Infinity";
    return float_repr(d);
  }

  void line(std::size_t level) {
    if (!options_.indent) return;
    out_.append("\n");
    for (std::size_t i = 0; i < level; ++i) out_.append(*options_.indent);
  }

  void list(const std::vector<Value>& items, std::size_t level) {
    if (items.empty()) return out_.append("[]");
    out_.append("[");
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i != 0) out_.append(options_.item_separator);
      line(level + 1);
      write(items[i], level + 1);
    }
    line(level);
    out_.append("]");
  }

  void key(const Value& key) {
    switch (key.kind()) {
      case Kind::kStr:
        return string(key.as_str());
      case Kind::kBool:
      case Kind::kNone:
      case Kind::kInt:
      case Kind::kUInt:
      case Kind::kFloat:
        out_.append("\"");
        write(key, 0);
        return out_.append("\"");
      default:
        fail("keys must be str, int, float, bool or None, not " + key.type_name());
    }
  }

  void dict(const Dict& dict, std::size_t level) {
    if (dict.entries.empty()) return out_.append("{}");
    std::vector<const std::pair<Value, Value>*> order;
    for (const auto& entry : dict.entries) order.push_back(&entry);
    if (options_.sort_keys) {
      for (const auto* entry : order) {
        if (!entry->first.is_str()) fail("tojson can sort text keys only, not " + entry->first.type_name());
      }
      std::stable_sort(order.begin(), order.end(), [this](const auto* a, const auto* b) {
        budget_.step();
        return a->first.as_str().text < b->first.as_str().text;
      });
    }
    out_.append("{");
    for (std::size_t i = 0; i < order.size(); ++i) {
      if (i != 0) out_.append(options_.item_separator);
      line(level + 1);
      key(order[i]->first);
      out_.append(options_.key_separator);
      write(order[i]->second, level + 1);
    }
    line(level);
    out_.append("}");
  }

  void string(const Str& s) {
    out_.append("\"");
    std::size_t plain = 0;  // start of what needs no escape
    for (std::size_t at = 0; at < s.text.size();) {
      const auto c = static_cast<unsigned char>(s.text[at]);
      if (c >= 0x20 && c != '"' && c != '\\' && (c < 0x7F || !options_.ensure_ascii)) {
        ++at;
        continue;
      }
      const auto [cp, bytes] = decode_utf8(s.text, at);
      out_.append(s, plain, at);
      out_.append(escape(cp), s.is_user(at));
      at += bytes;
      plain = at;
    }
    out_.append(s, plain, s.text.size());
    out_.append("\"");
  }

  static std::string escape(char32_t cp) {
    switch (cp) {
      case '"':
        return "\\\"";
      case '\\':
        return "\\\\";
      case '\n':
        return "\\n";
      case '\r':
        return "\\r";
      case '\t':
        return "\\t";
      case '\f':
        return "\\f";
      case '\b':
        return "\\b";
      case 0x7F:
        return "\x7F";
      default:
        break;
    }
    if (cp < 0x10000) return "\\u" + hex(cp, 4);
    return "\\u" + hex(0xD800 + ((cp - 0x10000) >> 10), 4) + "\\u" + hex(0xDC00 + ((cp - 0x10000) & 0x3FF), 4);
  }

  StrBuilder& out_;
  Budget& budget_;
  const JsonOptions& options_;
};

}  // namespace

void append_str(StrBuilder& out, Budget& budget, const Value& value) {
  if (value.is_str()) return out.append(value.as_str());
  if (!value.is_undefined()) append_repr(out, budget, value);
}

StrPtr to_str(Budget& budget, const Value& value) {
  if (value.is_str()) return value.str_ptr();
  StrBuilder out(budget);
  append_str(out, budget, value);
  return out.finish();
}

StrPtr repr(Budget& budget, const Value& value) {
  StrBuilder out(budget);
  append_repr(out, budget, value);
  return out.finish();
}

StrPtr to_json(Budget& budget, const Value& value, const JsonOptions& options) {
  StrBuilder out(budget);
  JsonWriter(out, budget, options).write(value, 0);
  return out.finish();
}

}  // namespace penstock::jinja
