#include "text/jinja/string_ops.h"

#include <algorithm>
#include <string>

#include "text/jinja/unicode.h"

namespace penstock::jinja {
namespace {

// Start of the character before byte `at`, which is above `begin`.
std::size_t previous(std::string_view s, std::size_t at, std::size_t begin) {
  do {
    --at;
  } while (at > begin && is_continuation(s[at]));
  return at;
}

// A capital sigma at the end of a word becomes a final sigma. `at`: the sigma's offset in `s`.
bool is_final_sigma(std::string_view s, std::size_t at) {
  bool cased_before = false;
  for (std::size_t i = at; i > 0;) {
    i = previous(s, i, 0);
    const char32_t cp = decode_utf8(s, i).cp;
    if (is_case_ignorable(cp)) continue;
    cased_before = is_cased(cp);
    break;
  }
  if (!cased_before) return false;
  for (std::size_t i = at + decode_utf8(s, at).bytes; i < s.size();) {
    const auto [cp, bytes] = decode_utf8(s, i);
    if (!is_case_ignorable(cp)) return !is_cased(cp);
    i += bytes;
  }
  return true;
}

constexpr char32_t kSigma = 0x3A3;

CaseMapping lower_in_context(std::string_view s, std::size_t at, char32_t cp) {
  if (cp == kSigma) return {{is_final_sigma(s, at) ? char32_t{0x3C2} : char32_t{0x3C3}, 0, 0}, 1};
  return to_lower(cp);
}

// Appends s[begin, end) with every character mapped; `map` gets (text of the range, offset in it, character).
template <typename Map>
void append_mapped(StrBuilder& out, const Str& s, std::size_t begin, std::size_t end, Map map) {
  const std::string_view range = std::string_view(s.text).substr(begin, end - begin);
  UserCursor user(s);
  for (std::size_t at = 0; at < range.size();) {
    const auto [cp, bytes] = decode_utf8(range, at);
    const CaseMapping mapped = map(range, at, cp);
    const bool mine = user.at(begin + at);
    if (mapped.size == 1 && mapped.cp[0] == cp) {
      out.append(s, begin + at, begin + at + bytes);
    } else {
      for (std::size_t i = 0; i < mapped.size; ++i) out.append_char(mapped.cp[i], mine);
    }
    at += bytes;
  }
}

const auto kToUpper = [](std::string_view, std::size_t, char32_t cp) { return to_upper(cp); };
const auto kToLower = lower_in_context;

}  // namespace

StrPtr upper(Budget& budget, const Str& s) {
  StrBuilder out(budget);
  append_mapped(out, s, 0, s.text.size(), kToUpper);
  return out.finish(s.markup);
}

StrPtr lower(Budget& budget, const Str& s) {
  StrBuilder out(budget);
  append_mapped(out, s, 0, s.text.size(), kToLower);
  return out.finish(s.markup);
}

StrPtr capitalize(Budget& budget, const Str& s) {
  StrBuilder out(budget);
  append_mapped(out, s, 0, s.text.size(), [](std::string_view range, std::size_t at, char32_t cp) {
    return at == 0 ? to_title(cp) : lower_in_context(range, at, cp);
  });
  return out.finish(s.markup);
}

StrPtr swapcase(Budget& budget, const Str& s) {
  StrBuilder out(budget);
  append_mapped(out, s, 0, s.text.size(), [](std::string_view range, std::size_t at, char32_t cp) {
    if (is_upper(cp)) return lower_in_context(range, at, cp);
    return is_lower(cp) ? to_upper(cp) : CaseMapping{{cp, 0, 0}, 1};
  });
  return out.finish(s.markup);
}

StrPtr title(Budget& budget, const Str& s) {
  StrBuilder out(budget);
  bool in_word = false;
  append_mapped(out, s, 0, s.text.size(), [&](std::string_view range, std::size_t at, char32_t cp) {
    const CaseMapping mapped = in_word ? lower_in_context(range, at, cp) : to_title(cp);
    in_word = is_cased(cp);
    return mapped;
  });
  return out.finish(s.markup);
}

StrPtr title_filter(Budget& budget, const Str& s) {
  const auto separates = [](char32_t cp) {
    return is_space(cp) || cp == '-' || cp == '(' || cp == '{' || cp == '[' || cp == '<';
  };
  StrBuilder out(budget);
  for (std::size_t begin = 0; begin < s.text.size();) {
    const bool separator = separates(decode_utf8(s.text, begin).cp);
    std::size_t end = begin;
    while (end < s.text.size()) {
      const auto [cp, bytes] = decode_utf8(s.text, end);
      if (separates(cp) != separator) break;
      end += bytes;
    }
    const std::size_t first = begin + decode_utf8(s.text, begin).bytes;
    append_mapped(out, s, begin, first, kToUpper);
    append_mapped(out, s, first, end, kToLower);
    begin = end;
  }
  return out.finish();
}

StrPtr strip(Budget& budget, const Str& s, const Str* chars, Side side) {
  std::u32string set;
  for (std::size_t at = 0; chars != nullptr && at < chars->text.size();) {
    const auto [cp, bytes] = decode_utf8(chars->text, at);
    set.push_back(cp);
    at += bytes;
  }
  const auto drop = [&](char32_t cp) {
    if (chars == nullptr) return is_space(cp);
    budget.work(set.size());
    return set.find(cp) != std::u32string::npos;
  };
  std::size_t begin = 0;
  std::size_t end = s.text.size();
  if (side != Side::kRight) {
    while (begin < end) {
      const auto [cp, bytes] = decode_utf8(s.text, begin);
      if (!drop(cp)) break;
      begin += bytes;
    }
  }
  if (side != Side::kLeft) {
    while (end > begin) {
      const std::size_t last = previous(s.text, end, begin);
      if (!drop(decode_utf8(s.text, last).cp)) break;
      end = last;
    }
  }
  return substr(budget, s, begin, end);
}

namespace {

std::vector<StrPtr> split_space(Budget& budget, const Str& s, std::int64_t max_split) {
  std::vector<StrPtr> parts;
  std::size_t at = 0;
  const auto skip = [&](bool space) {
    while (at < s.text.size()) {
      const auto [cp, bytes] = decode_utf8(s.text, at);
      if (is_space(cp) != space) return;
      at += bytes;
    }
  };
  for (skip(true); at < s.text.size(); skip(true)) {
    budget.step();
    const std::size_t begin = at;
    if (max_split >= 0 && static_cast<std::int64_t>(parts.size()) >= max_split) {
      // split(None, n) leaves the rest as it is, trailing white space included.
      parts.push_back(substr(budget, s, begin, s.text.size()));
      return parts;
    }
    skip(false);
    parts.push_back(substr(budget, s, begin, at));
  }
  return parts;
}

std::vector<StrPtr> rsplit_space(Budget& budget, const Str& s, std::int64_t max_split) {
  std::vector<StrPtr> parts;
  std::size_t at = s.text.size();
  const auto skip = [&](bool space) {
    while (at > 0) {
      const std::size_t last = previous(s.text, at, 0);
      if (is_space(decode_utf8(s.text, last).cp) != space) return;
      at = last;
    }
  };
  for (skip(true); at > 0; skip(true)) {
    budget.step();
    const std::size_t end = at;
    if (max_split >= 0 && static_cast<std::int64_t>(parts.size()) >= max_split) {
      parts.push_back(substr(budget, s, 0, end));
      break;
    }
    skip(false);
    parts.push_back(substr(budget, s, at, end));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

std::vector<StrPtr> split(Budget& budget, const Str& s, const Str* separator, std::int64_t max_split, bool from_right) {
  budget.work(s.text.size());
  if (separator == nullptr) return from_right ? rsplit_space(budget, s, max_split) : split_space(budget, s, max_split);
  if (separator->text.empty()) fail("empty separator");
  std::vector<StrPtr> parts;
  const auto full = [&] { return max_split >= 0 && static_cast<std::int64_t>(parts.size()) >= max_split; };
  const std::size_t width = separator->text.size();
  if (from_right) {
    std::size_t end = s.text.size();
    while (!full() && end >= width) {
      budget.step();
      const std::size_t at = s.text.rfind(separator->text, end - width);
      if (at == std::string::npos) break;
      parts.push_back(substr(budget, s, at + width, end));
      end = at;
    }
    parts.push_back(substr(budget, s, 0, end));
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  std::size_t begin = 0;
  while (!full()) {
    budget.step();
    const std::size_t at = s.text.find(separator->text, begin);
    if (at == std::string::npos) break;
    parts.push_back(substr(budget, s, begin, at));
    begin = at + width;
  }
  parts.push_back(substr(budget, s, begin, s.text.size()));
  return parts;
}

std::vector<StrPtr> split_lines(Budget& budget, const Str& s, bool keep_ends) {
  std::vector<StrPtr> lines;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < s.text.size();) {
    const auto [cp, bytes] = decode_utf8(s.text, at);
    const std::size_t line_end = at;
    at += bytes;
    if (!is_line_break(cp)) continue;
    if (cp == '\r' && at < s.text.size() && s.text[at] == '\n') ++at;
    budget.step();
    lines.push_back(substr(budget, s, begin, keep_ends ? at : line_end));
    begin = at;
  }
  if (begin < s.text.size()) lines.push_back(substr(budget, s, begin, s.text.size()));
  return lines;
}

StrPtr replace(Budget& budget, const Str& s, const Str& from, const Str& to, std::int64_t count) {
  StrBuilder out(budget);
  std::size_t begin = 0;
  if (from.text.empty()) {  // between all characters
    for (; count != 0; --count) {
      budget.step();
      out.append(to);
      if (begin == s.text.size()) break;
      const std::size_t end = begin + decode_utf8(s.text, begin).bytes;
      out.append(s, begin, end);
      begin = end;
    }
  } else {
    budget.work(s.text.size());
    for (; count != 0; --count) {
      const std::size_t at = s.text.find(from.text, begin);
      if (at == std::string::npos) break;
      budget.step();
      out.append(s, begin, at);
      out.append(to);
      begin = at + from.text.size();
    }
  }
  out.append(s, begin, s.text.size());
  return out.finish(s.markup);
}

StrPtr pad(Budget& budget, const Str& s, std::int64_t width_chars, const Str& fill, Align align) {
  if (fill.chars != 1) fail("The fill character must be exactly one character long");
  const auto missing = std::max<std::int64_t>(0, width_chars - static_cast<std::int64_t>(s.chars));
  // str.center() puts the odd blank on the left when the width is odd.
  const std::int64_t left = align == Align::kLeft    ? 0
                            : align == Align::kRight ? missing
                                                     : missing / 2 + (missing & width_chars & 1);
  StrBuilder out(budget);
  out.append(*repeat(budget, fill, left));
  out.append(s);
  out.append(*repeat(budget, fill, missing - left));
  return out.finish(s.markup);
}

StrPtr reversed(Budget& budget, const Str& s) {
  StrBuilder out(budget);
  for (std::size_t end = s.text.size(); end > 0;) {
    const std::size_t begin = previous(s.text, end, 0);
    out.append(s, begin, end);
    end = begin;
  }
  return out.finish(s.markup);
}

bool is_all(const Str& s, bool (*predicate)(char32_t)) {
  for (std::size_t at = 0; at < s.text.size();) {
    const auto [cp, bytes] = decode_utf8(s.text, at);
    if (!predicate(cp)) return false;
    at += bytes;
  }
  return !s.text.empty();
}

}  // namespace penstock::jinja
