// Text that remembers where it came from: which of its bytes a user wrote. Every operation on strings keeps that, byte
// by byte, so that the rendered prompt can be tokenised without a user's text turning into special tokens.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/budget.h"

namespace penstock::jinja {

struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool operator==(const Span&) const = default;
};

struct Object {
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;
};

struct Str final : Object {
  Str(std::string text_in, std::vector<Span> user_in, bool markup_in);

  std::string text;        // UTF-8
  std::vector<Span> user;  // byte ranges a user wrote: ascending, disjoint, not touching one another
  std::size_t chars;       // code points
  bool markup;             // made by the `safe` or `escape` filter: `+` escapes what it is joined to

  bool ascii() const { return chars == text.size(); }
  bool is_user(std::size_t byte) const;
  // Byte offset of a code point; `index` may be `chars`.
  std::size_t byte_offset(std::size_t index) const;
};
using StrPtr = std::shared_ptr<const Str>;

StrPtr make_str(std::string text, bool user = false);

class StrBuilder {
 public:
  explicit StrBuilder(Budget& budget) : budget_(budget) {}

  void append(std::string_view text, bool user = false);
  void append(const Str& text) { append(text, 0, text.text.size()); }
  void append(const Str& text, std::size_t begin, std::size_t end);  // bytes [begin, end)
  void append_char(char32_t cp, bool user);

  std::size_t size() const { return text_.size(); }
  const std::string& text() const { return text_; }
  const std::vector<Span>& user() const { return user_; }
  StrPtr finish(bool markup = false);  // charges the budget and leaves the builder empty

 private:
  void mark(std::size_t begin, std::size_t end);

  Budget& budget_;
  std::string text_;
  std::vector<Span> user_;
};

// Walks through the user spans of a string in step with its bytes.
class UserCursor {
 public:
  explicit UserCursor(const Str& text) : spans_(text.user) {}
  bool at(std::size_t byte) {  // `byte` must not go backwards
    while (next_ < spans_.size() && spans_[next_].end <= byte) ++next_;
    return next_ < spans_.size() && spans_[next_].begin <= byte;
  }

 private:
  const std::vector<Span>& spans_;
  std::size_t next_ = 0;
};

StrPtr substr(Budget& budget, const Str& text, std::size_t begin, std::size_t end);  // bytes
StrPtr concat(Budget& budget, const Str& a, const Str& b);
StrPtr repeat(Budget& budget, const Str& text, std::int64_t count);
StrPtr escape_html(Budget& budget, const Str& text);  // the result is markup; markup comes back as it is

}  // namespace penstock::jinja
