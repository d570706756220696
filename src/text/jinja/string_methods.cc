#include <algorithm>
#include <array>

#include "text/jinja/args.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/methods.h"
#include "text/jinja/ops.h"
#include "text/jinja/pyformat.h"
#include "text/jinja/string_ops.h"
#include "text/jinja/unicode.h"

namespace penstock::jinja {
namespace {

using Entry = std::pair<std::string_view, NativeFunction>;

Value list_of(Budget& budget, const std::vector<StrPtr>& parts) {
  std::vector<Value> items;
  items.reserve(parts.size());
  for (const StrPtr& part : parts) items.push_back(Value::str(part));
  return Value::list(budget, std::move(items));
}

template <StrPtr (*Operation)(Budget&, const Str&)>
Value simple(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a("this method", args, {});
  return Value::str(Operation(interpreter.budget(), self.as_str()));
}

template <Side side>
Value strip_method(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a("strip", args, {"chars"}, 0, 1);
  const StrPtr chars = a.given(0) ? a.str(0) : nullptr;
  return Value::str(strip(interpreter.budget(), self.as_str(), chars.get(), side));
}

template <bool from_right>
Value split_method(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a(from_right ? "rsplit" : "split", args, {"sep", "maxsplit"});
  const StrPtr separator = a.given(0) ? a.str(0) : nullptr;
  Budget& budget = interpreter.budget();
  return list_of(budget, split(budget, self.as_str(), separator.get(), a.integer_or(1, -1), from_right));
}

Value splitlines_method(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a("splitlines", args, {"keepends"});
  Budget& budget = interpreter.budget();
  return list_of(budget, split_lines(budget, self.as_str(), a.truthy_or(0, false)));
}

Value replace_method(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a("replace", args, {"old", "new", "count"}, 2, 3);
  return Value::str(replace(interpreter.budget(), self.as_str(), *a.str(0), *a.str(1), a.integer_or(2, -1)));
}

// The part of a string that optional start and end arguments (characters) leave, in bytes. Nothing when start lies
// behind the end: not even the empty text is found there.
struct Window {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool valid = true;
};

Window window_of(const Str& s, const Args& a, std::size_t start_index) {
  const auto size = static_cast<std::int64_t>(s.chars);
  const auto bound = [&](std::size_t i, std::int64_t missing) {
    if (!a.given(i)) return missing;
    const std::int64_t at = a.integer(i);
    return at < 0 ? std::max<std::int64_t>(0, std::max(at, -size) + size) : at;
  };
  const std::int64_t start = bound(start_index, 0);
  const std::int64_t stop = std::min(bound(start_index + 1, size), size);
  if (start > size || start > stop) return {0, 0, false};
  return {s.byte_offset(static_cast<std::size_t>(start)), s.byte_offset(static_cast<std::size_t>(stop)), true};
}

enum class Search : std::uint8_t { kFind, kRFind, kIndex, kRIndex };

template <Search search>
Value find_method_impl(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a("find", args, {"sub", "start", "end"}, 1, 3);
  const Str& s = self.as_str();
  const StrPtr sub = a.str(0);
  interpreter.budget().work(s.text.size());
  const Window window = window_of(s, a, 1);
  const std::string_view part = std::string_view(s.text).substr(window.begin, window.end - window.begin);
  const bool from_right = search == Search::kRFind || search == Search::kRIndex;
  const std::size_t at = !window.valid ? std::string_view::npos
                         : from_right  ? part.rfind(sub->text)
                                       : part.find(sub->text);
  if (at != std::string_view::npos) {
    return Value::integer(count_chars(std::string_view(s.text).substr(0, window.begin + at)));
  }
  if (search == Search::kIndex || search == Search::kRIndex) fail("substring not found");
  return Value::integer(std::int64_t{-1});
}

Value count_method(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a("count", args, {"sub", "start", "end"}, 1, 3);
  const Str& s = self.as_str();
  const StrPtr sub = a.str(0);
  interpreter.budget().work(s.text.size());
  const Window window = window_of(s, a, 1);
  const std::string_view part = std::string_view(s.text).substr(window.begin, window.end - window.begin);
  if (!window.valid) return Value::integer(std::int64_t{0});
  if (sub->text.empty()) return Value::integer(count_chars(part) + 1);
  std::int64_t count = 0;
  for (std::size_t at = part.find(sub->text); at != std::string_view::npos;
       at = part.find(sub->text, at + sub->text.size())) {
    ++count;
  }
  return Value::integer(count);
}

template <bool at_start>
Value affix_method(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const char* name = at_start ? "startswith" : "endswith";
  const Args a(name, args, {at_start ? "prefix" : "suffix", "start", "end"}, 1, 3);
  const Str& s = self.as_str();
  const Window window = window_of(s, a, 1);
  const std::string_view part = std::string_view(s.text).substr(window.begin, window.end - window.begin);
  const auto matches = [&](const Value& affix) {
    require_defined(affix);
    if (!affix.is_str()) {
      fail(std::string(name) + " first arg must be str or a tuple of str, not " + affix.type_name());
    }
    interpreter.budget().step();
    const std::string& text = affix.as_str().text;
    return window.valid && (at_start ? part.starts_with(text) : part.ends_with(text));
  };
  if (!a[0].is(Kind::kTuple)) return Value::boolean(matches(a[0]));
  const auto& affixes = a[0].as_list().items;
  return Value::boolean(std::any_of(affixes.begin(), affixes.end(), matches));
}

template <bool prefix>
Value remove_affix(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a(prefix ? "removeprefix" : "removesuffix", args, {prefix ? "prefix" : "suffix"}, 1, 1);
  const Str& s = self.as_str();
  const std::string& affix = a.str(0)->text;
  const bool found = prefix ? s.text.starts_with(affix) : s.text.ends_with(affix);
  if (!found) return self;
  const std::size_t begin = prefix ? affix.size() : 0;
  return Value::str(substr(interpreter.budget(), s, begin, s.text.size() - (prefix ? 0 : affix.size())));
}

template <bool from_right>
Value partition_method(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a(from_right ? "rpartition" : "partition", args, {"sep"}, 1, 1);
  Budget& budget = interpreter.budget();
  const StrPtr separator = a.str(0);
  const std::vector<StrPtr> parts = split(budget, self.as_str(), separator.get(), 1, from_right);
  const Value empty = Value::str(std::string());
  if (parts.size() == 2) {
    return Value::tuple(budget, {Value::str(parts[0]), Value::str(separator), Value::str(parts[1])});
  }
  return from_right ? Value::tuple(budget, {empty, empty, self}) : Value::tuple(budget, {self, empty, empty});
}

Value join_method(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a("join", args, {"iterable"}, 1, 1);
  StrBuilder out(interpreter.budget());
  Iterator it(interpreter.budget(), a[0]);
  std::size_t i = 0;
  for (Value item; it.next(item); ++i) {
    if (!item.is_str()) {
      fail("sequence item " + std::to_string(i) + ": expected str instance, " + item.type_name() + " found");
    }
    if (i != 0) out.append(self.as_str());
    out.append(item.as_str());
  }
  return Value::str(out.finish(self.as_str().markup));
}

template <Align align>
Value pad_method(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a("this method", args, {"width", "fillchar"}, 1, 2);
  const StrPtr fill = a.has(1) ? a.str(1) : make_str(" ");
  return Value::str(pad(interpreter.budget(), self.as_str(), a.integer(0), *fill, align));
}

Value zfill_method(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a("zfill", args, {"width"}, 1, 1);
  Budget& budget = interpreter.budget();
  const Str& s = self.as_str();
  const bool sign = s.text.starts_with('+') || s.text.starts_with('-');
  const StrPtr digits = substr(budget, s, sign ? 1 : 0, s.text.size());
  const StrPtr padded = pad(budget, *digits, a.integer(0) - (sign ? 1 : 0), *make_str("0"), Align::kRight);
  return Value::str(concat(budget, *substr(budget, s, 0, sign ? 1 : 0), *padded));
}

Value expandtabs_method(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a("expandtabs", args, {"tabsize"});
  const std::int64_t size = a.integer_or(0, 8);
  const Str& s = self.as_str();
  const StrPtr blank = make_str(" ");
  StrBuilder out(interpreter.budget());
  std::int64_t column = 0;
  for (std::size_t at = 0; at < s.text.size();) {
    const auto [cp, bytes] = decode_utf8(s.text, at);
    if (cp == '\t') {
      const std::int64_t width = size > 0 ? size - column % size : 0;
      out.append(*repeat(interpreter.budget(), *blank, width));
      column += width;
    } else {
      out.append(s, at, at + bytes);
      column = cp == '\n' || cp == '\r' ? 0 : column + 1;
    }
    at += bytes;
  }
  return Value::str(out.finish(s.markup));
}

Value format_method(Interpreter& interpreter, const Value& self, CallArgs& args) {
  return Value::str(str_format(interpreter, self.as_str(), args));
}

Value format_map_method(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a("format_map", args, {"mapping"}, 1, 1);
  if (!a[0].is_dict()) fail("format_map() argument must be a mapping, not " + a[0].type_name());
  CallArgs fields;
  for (const auto& [key, value] : a[0].as_dict().entries) {
    if (key.is_str()) fields.named.emplace_back(key.str_ptr(), value);
  }
  return Value::str(str_format(interpreter, self.as_str(), fields));
}

// ------------------------------------------------------------------------------------------------------- str.is…()

template <bool (*Predicate)(char32_t)>
Value all_are(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a("this method", args, {});
  interpreter.budget().work(self.as_str().text.size());
  return Value::boolean(is_all(self.as_str(), Predicate));
}

// islower and isupper: some cased character, and no other-cased one.
template <bool (*Wanted)(char32_t), bool (*Unwanted)(char32_t)>
Value cased_as(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a("this method", args, {});
  const Str& s = self.as_str();
  interpreter.budget().work(s.text.size());
  bool found = false;
  for (std::size_t at = 0; at < s.text.size();) {
    const auto [cp, bytes] = decode_utf8(s.text, at);
    if (Unwanted(cp) || is_title(cp)) return Value::boolean(false);
    found = found || Wanted(cp);
    at += bytes;
  }
  return Value::boolean(found);
}

Value istitle_method(Interpreter& interpreter, const Value& self, CallArgs& args) {
  const Args a("istitle", args, {});
  const Str& s = self.as_str();
  interpreter.budget().work(s.text.size());
  bool in_word = false;
  bool found = false;
  for (std::size_t at = 0; at < s.text.size();) {
    const auto [cp, bytes] = decode_utf8(s.text, at);
    const bool starts = is_upper(cp) || is_title(cp);
    if (starts ? in_word : is_lower(cp) && !in_word) return Value::boolean(false);
    in_word = starts || is_lower(cp);
    found = found || in_word;
    at += bytes;
  }
  return Value::boolean(found);
}

Value isidentifier_method(Interpreter&, const Value& self, CallArgs& args) {
  const Args a("isidentifier", args, {});
  const Str& s = self.as_str();
  return Value::boolean(is_all(s, is_identifier_part) && is_identifier_start(decode_utf8(s.text, 0).cp));
}

bool is_alphanumeric(char32_t cp) {
  return is_alpha(cp) || is_decimal(cp) || is_digit(cp) || is_numeric(cp);
}
bool is_ascii(char32_t cp) {
  return cp < 0x80;
}

template <bool (*Predicate)(char32_t)>
Value all_or_empty(Interpreter& interpreter, const Value& self, CallArgs& args) {
  return self.as_str().text.empty() ? Value::boolean(true) : all_are<Predicate>(interpreter, self, args);
}

constexpr std::array<Entry, 43> kMethods = {{
    {"upper", simple<upper>},
    {"lower", simple<lower>},
    {"capitalize", simple<capitalize>},
    {"swapcase", simple<swapcase>},
    {"title", simple<title>},
    {"strip", strip_method<Side::kBoth>},
    {"lstrip", strip_method<Side::kLeft>},
    {"rstrip", strip_method<Side::kRight>},
    {"split", split_method<false>},
    {"rsplit", split_method<true>},
    {"splitlines", splitlines_method},
    {"replace", replace_method},
    {"find", find_method_impl<Search::kFind>},
    {"rfind", find_method_impl<Search::kRFind>},
    {"index", find_method_impl<Search::kIndex>},
    {"rindex", find_method_impl<Search::kRIndex>},
    {"count", count_method},
    {"startswith", affix_method<true>},
    {"endswith", affix_method<false>},
    {"removeprefix", remove_affix<true>},
    {"removesuffix", remove_affix<false>},
    {"partition", partition_method<false>},
    {"rpartition", partition_method<true>},
    {"join", join_method},
    {"ljust", pad_method<Align::kLeft>},
    {"rjust", pad_method<Align::kRight>},
    {"center", pad_method<Align::kCenter>},
    {"zfill", zfill_method},
    {"expandtabs", expandtabs_method},
    {"format", format_method},
    {"format_map", format_map_method},
    {"isalpha", all_are<is_alpha>},
    {"isdigit", all_are<is_digit>},
    {"isdecimal", all_are<is_decimal>},
    {"isnumeric", all_are<is_numeric>},
    {"isalnum", all_are<is_alphanumeric>},
    {"isspace", all_are<is_space>},
    {"isascii", all_or_empty<is_ascii>},
    {"isprintable", all_or_empty<is_printable>},
    {"islower", cased_as<is_lower, is_upper>},
    {"isupper", cased_as<is_upper, is_lower>},
    {"istitle", istitle_method},
    {"isidentifier", isidentifier_method},
}};

}  // namespace

NativeFunction find_str_method(std::string_view name) {
  const auto* it = std::find_if(kMethods.begin(), kMethods.end(), [name](const Entry& e) { return e.first == name; });
  return it == kMethods.end() ? nullptr : it->second;
}

}  // namespace penstock::jinja
