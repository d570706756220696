#include "text/jinja/str.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "text/jinja/unicode.h"

namespace penstock::jinja {

Str::Str(std::string text_in, std::vector<Span> user_in, bool markup_in)
    : text(std::move(text_in)), user(std::move(user_in)), chars(count_chars(text)), markup(markup_in) {}

bool Str::is_user(std::size_t byte) const {
  const auto it =
      std::upper_bound(user.begin(), user.end(), byte, [](std::size_t b, const Span& s) { return b < s.end; });
  return it != user.end() && it->begin <= byte;
}

std::size_t Str::byte_offset(std::size_t index) const {
  if (ascii()) return std::min(index, text.size());
  std::size_t at = 0;
  for (std::size_t i = 0; at < text.size(); ++at) {
    if (is_continuation(text[at])) continue;
    if (i++ == index) return at;
  }
  return text.size();
}

StrPtr make_str(std::string text, bool user) {
  std::vector<Span> spans;
  if (user && !text.empty()) spans.push_back({0, text.size()});
  return std::make_shared<const Str>(std::move(text), std::move(spans), false);
}

void StrBuilder::mark(std::size_t begin, std::size_t end) {
  if (begin == end) return;
  if (!user_.empty() && user_.back().end == begin) {
    user_.back().end = end;
  } else {
    user_.push_back({begin, end});
  }
}

void StrBuilder::append(std::string_view text, bool user) {
  const std::size_t begin = text_.size();
  budget_.check_string(begin + text.size());
  text_.append(text);
  if (user) mark(begin, text_.size());
}

void StrBuilder::append(const Str& text, std::size_t begin, std::size_t end) {
  const std::size_t base = text_.size();
  budget_.check_string(base + (end - begin));
  text_.append(text.text, begin, end - begin);
  if (text.user.empty()) return;
  auto it = std::upper_bound(text.user.begin(), text.user.end(), begin,
                             [](std::size_t b, const Span& s) { return b < s.end; });
  for (; it != text.user.end() && it->begin < end; ++it) {
    mark(base + (std::max(it->begin, begin) - begin), base + (std::min(it->end, end) - begin));
  }
}

void StrBuilder::append_char(char32_t cp, bool user) {
  const std::size_t begin = text_.size();
  append_utf8(text_, cp);
  budget_.check_string(text_.size());
  if (user) mark(begin, text_.size());
}

StrPtr StrBuilder::finish(bool markup) {
  budget_.work(text_.size() + sizeof(Span) * user_.size());
  auto str = std::make_shared<const Str>(std::move(text_), std::move(user_), markup);
  text_.clear();
  user_.clear();
  return str;
}

StrPtr substr(Budget& budget, const Str& text, std::size_t begin, std::size_t end) {
  StrBuilder out(budget);
  out.append(text, begin, std::max(begin, end));
  return out.finish(text.markup);
}

StrPtr concat(Budget& budget, const Str& a, const Str& b) {
  StrBuilder out(budget);
  if (a.markup != b.markup) {
    out.append(*escape_html(budget, a));
    out.append(*escape_html(budget, b));
    return out.finish(true);
  }
  out.append(a);
  out.append(b);
  return out.finish(a.markup);
}

StrPtr repeat(Budget& budget, const Str& text, std::int64_t count) {
  StrBuilder out(budget);
  if (count > 0 && !text.text.empty()) {
    std::size_t bytes = 0;
    if (__builtin_mul_overflow(text.text.size(), static_cast<std::size_t>(count), &bytes)) bytes = SIZE_MAX;
    budget.check_string(bytes);
    budget.step(count);
    for (std::int64_t i = 0; i < count; ++i) out.append(text);
  }
  return out.finish(text.markup);
}

StrPtr escape_html(Budget& budget, const Str& text) {
  StrBuilder out(budget);
  if (text.markup) {
    out.append(text);
    return out.finish(true);
  }
  std::size_t plain = 0;  // start of what needs no escape
  for (std::size_t i = 0; i < text.text.size(); ++i) {
    std::string_view entity;
    switch (text.text[i]) {
      case '&':
        entity = "&amp;";
        break;
      case '<':
        entity = "&lt;";
        break;
      case '>':
        entity = "&gt;";
        break;
      case '\'':
        entity = "&#39;";
        break;
      case '"':
        entity = "&#34;";
        break;
      default:
        continue;
    }
    out.append(text, plain, i);
    out.append(entity, text.is_user(i));
    plain = i + 1;
  }
  out.append(text, plain, text.text.size());
  return out.finish(true);
}

}  // namespace penstock::jinja
