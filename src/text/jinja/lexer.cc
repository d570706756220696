#include "text/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>

#include "text/jinja/error.h"
#include "text/jinja/unicode.h"

namespace penstock::jinja {
namespace {

bool is_ascii_digit(char c) {
  return c >= '0' && c <= '9';
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) data();
    push(TokenType::kEof, source_.size());
    return std::move(tokens_);
  }

 private:
  [[noreturn]] static void fail_at(const std::string& message, std::size_t at) {
    throw Error(ErrorKind::kSyntax, message, static_cast<std::uint32_t>(at));
  }

  Token& push(TokenType type, std::size_t at, std::string text = {}) {
    tokens_.push_back({type, static_cast<std::uint32_t>(at), std::move(text)});
    return tokens_.back();
  }

  bool looking_at(std::string_view text, std::size_t at) const { return source_.substr(at).starts_with(text); }

  std::size_t skip_space(std::size_t at) const {
    while (at < source_.size()) {
      const auto [cp, bytes] = decode_utf8(source_, at);
      if (!is_space(cp)) break;
      at += bytes;
    }
    return at;
  }

  // Text up to the next tag, shortened as the tag's sign asks: '-' strips all white space; otherwise a block or comment
  // that is alone on its line so far takes the blanks before it away, unless the sign is '+'.
  void push_data(std::size_t begin, std::size_t end, char sign, bool variable) {
    if (sign == '-') {
      while (end > begin) {
        std::size_t last = end - 1;
        while (last > begin && is_continuation(source_[last])) --last;
        if (!is_space(decode_utf8(source_, last).cp)) break;
        end = last;
      }
    } else if (sign != '+' && !variable) {
      const std::size_t newline = source_.substr(begin, end - begin).rfind('\n');
      const std::size_t line = newline == std::string_view::npos ? begin : begin + newline + 1;
      if ((line > begin || line_starting_) && skip_space(line) >= end) end = line;
    }
    if (end > begin) push(TokenType::kData, begin, std::string(source_.substr(begin, end - begin)));
  }

  char sign_at(std::size_t at) const {
    return at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : '\0';
  }

  void finish_tag(std::size_t end) {
    at_ = end;
    line_starting_ = end > 0 && source_[end - 1] == '\n';
  }

  void data() {
    const std::size_t begin = at_;
    std::size_t tag = begin;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string_view::npos || tag + 1 >= source_.size()) {
        push(TokenType::kData, begin, std::string(source_.substr(begin)));
        at_ = source_.size();
        return;
      }
      const char kind = source_[tag + 1];
      if (kind == '{' || kind == '%' || kind == '#') break;
    }
    const char kind = source_[tag + 1];
    const char sign = sign_at(tag + 2);
    push_data(begin, tag, sign, kind == '{');
    at_ = tag + 2 + (sign != '\0' ? 1 : 0);
    if (kind == '#') return comment(tag);
    if (kind == '%' && raw(tag)) return;
    push(kind == '{' ? TokenType::kVariableBegin : TokenType::kBlockBegin, tag);
    code(kind == '{');
  }

  void comment(std::size_t tag) {
    const std::size_t close = source_.find("#}", at_);
    if (close == std::string_view::npos) fail_at("Missing end of comment tag", tag);
    const char sign = close > at_ ? sign_at(close - 1) : '\0';
    finish_tag(block_end(close + 2, sign));
  }

  // After "%}" or "#}": what the end tag's sign takes with it.
  std::size_t block_end(std::size_t at, char sign) const {
    if (sign == '-') return skip_space(at);
    if (sign != '+' && at < source_.size() && source_[at] == '\n') return at + 1;  // trim_blocks
    return at;
  }

  // "raw" or "endraw" and the end of its tag, from `at`; the offset behind, with `sign` of the end tag.
  std::optional<std::size_t> word_tag(std::size_t at, std::string_view word, char& sign) const {
    at = skip_space(at);
    if (!looking_at(word, at)) return std::nullopt;
    at = skip_space(at + word.size());
    sign = sign_at(at);
    if (sign != '\0') ++at;
    if (!looking_at("%}", at)) return std::nullopt;
    return at + 2;
  }

  bool raw(std::size_t tag) {
    char sign = '\0';
    const auto open = word_tag(at_, "raw", sign);
    if (!open || sign == '+') return false;
    const std::size_t begin = sign == '-' ? skip_space(*open) : *open;
    line_starting_ = source_[begin - 1] == '\n';
    for (std::size_t at = source_.find("{%", begin); at != std::string_view::npos; at = source_.find("{%", at + 1)) {
      const char begin_sign = sign_at(at + 2);
      char end_sign = '\0';
      const auto close = word_tag(at + 2 + (begin_sign != '\0' ? 1 : 0), "endraw", end_sign);
      if (!close) continue;
      push_data(begin, at, begin_sign, false);
      finish_tag(block_end(*close, end_sign));
      return true;
    }
    fail_at("Missing end of raw directive", tag);
  }

  // Tokens inside {{ }} or {% %}.
  void code(bool variable) {
    std::string open;  // brackets not closed yet: tags do not end inside them
    const std::string_view close = variable ? "}}" : "%}";
    for (;;) {
      at_ = skip_space(at_);
      if (at_ >= source_.size()) return;
      const char sign = source_[at_] == '-' || (source_[at_] == '+' && !variable) ? source_[at_] : '\0';
      const std::size_t end = at_ + (sign != '\0' ? 1 : 0);
      if (open.empty() && looking_at(close, end)) {
        push(variable ? TokenType::kVariableEnd : TokenType::kBlockEnd, at_);
        return finish_tag(variable ? (sign == '-' ? skip_space(end + 2) : end + 2) : block_end(end + 2, sign));
      }
      const char c = source_[at_];
      if (is_ascii_digit(c)) {
        number();
      } else if (c == '\'' || c == '"') {
        string();
      } else if (!name()) {
        operation(open);
      }
    }
  }

  bool name() {
    const auto [first, first_bytes] = decode_utf8(source_, at_);
    if (!is_identifier_start(first)) return false;
    std::size_t end = at_ + first_bytes;
    while (end < source_.size()) {
      const auto [cp, bytes] = decode_utf8(source_, end);
      if (!is_identifier_part(cp)) break;
      end += bytes;
    }
    push(TokenType::kName, at_, std::string(source_.substr(at_, end - at_)));
    at_ = end;
    return true;
  }

  // Digits of a base with single underscores between them; the offset behind.
  template <typename IsDigit>
  std::size_t digits(std::size_t at, IsDigit is_digit_of) const {
    while (at < source_.size()) {
      if (is_digit_of(source_[at])) {
        ++at;
      } else if (source_[at] == '_' && at + 1 < source_.size() && is_digit_of(source_[at + 1])) {
        at += 2;
      } else {
        break;
      }
    }
    return at;
  }

  void number() {
    const std::size_t begin = at_;
    const bool after_dot = begin > 0 && source_[begin - 1] == '.';
    if (!after_dot) {  // "a.0.1" has no float in it
      std::size_t end = digits(begin, is_ascii_digit);
      bool real = false;
      if (end + 1 < source_.size() && source_[end] == '.' && is_ascii_digit(source_[end + 1])) {
        end = digits(end + 1, is_ascii_digit);
        real = true;
      }
      if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
        const std::size_t exponent = end + 1 + (sign_at(end + 1) != '\0' ? 1 : 0);
        if (exponent < source_.size() && is_ascii_digit(source_[exponent])) {
          end = digits(exponent, is_ascii_digit);
          real = true;
        }
      }
      if (real) return push_float(begin, end);
    }
    push_integer(begin);
  }

  std::string without_underscores(std::size_t begin, std::size_t end) const {
    std::string text(source_.substr(begin, end - begin));
    std::erase(text, '_');
    return text;
  }

  void push_float(std::size_t begin, std::size_t end) {
    const std::string text = without_underscores(begin, end);
    double value = 0.0;
    if (std::from_chars(text.data(), text.data() + text.size(), value).ec == std::errc::result_out_of_range) {
      value = std::strtod(text.c_str(), nullptr);  // what Python makes of it: inf or 0
    }
    push(TokenType::kFloat, begin, text).real = value;
    at_ = end;
  }

  void push_integer(std::size_t begin) {
    const char kind =
        begin + 1 < source_.size() && source_[begin] == '0' ? static_cast<char>(source_[begin + 1] | 0x20) : '\0';
    const int base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
    const auto of_base = [base](char c) {
      const int value = is_ascii_digit(c)                        ? c - '0'
                        : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                                 : 99;
      return value < base;
    };
    std::size_t first = begin;
    std::size_t end = begin;
    if (base != 10) {
      first = begin + 2;
      end = digits(first + (first < source_.size() && source_[first] == '_' ? 1 : 0), of_base);
      if (end <= first || !of_base(source_[end - 1])) end = first = begin;  // "0x" alone is the number 0 and a name
    }
    if (base == 10 || end == begin) {
      // A decimal number does not begin with 0, which stands alone.
      end = source_[begin] == '0' ? digits(begin, [](char c) { return c == '0'; }) : digits(begin, is_ascii_digit);
    }
    const std::string text = without_underscores(first, end);
    std::uint64_t value = 0;
    const int read_base = first == begin ? 10 : base;
    if (std::from_chars(text.data(), text.data() + text.size(), value, read_base).ec != std::errc()) {
      fail_at("the integer " + text + " needs more than 64 bits", begin);
    }
    push(TokenType::kInteger, begin, text).integer = value;
    at_ = end;
  }

  void string() {
    const std::size_t begin = at_;
    const char quote = source_[begin];
    std::size_t end = begin + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail_at(std::string("unexpected char '") + quote + "': the text never ends", begin);
    push(TokenType::kString, begin, unescape(begin + 1, end));
    at_ = end + 1;
  }

  char32_t hex_escape(std::size_t& at, std::size_t end, std::size_t count) {
    char32_t cp = 0;
    for (std::size_t i = 0; i < count; ++i, ++at) {
      const char c = at < end ? source_[at] : '\0';
      const char low = static_cast<char>(c | 0x20);
      const int digit = is_ascii_digit(c) ? c - '0' : low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
      if (digit < 0) fail_at("truncated \\x, \\u or \\U escape", at);
      cp = cp * 16 + static_cast<char32_t>(digit);
    }
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF)) fail_at("the escape is no Unicode character", at - count);
    return cp;
  }

  std::string unescape(std::size_t at, std::size_t end) {
    constexpr std::array<std::pair<char, char>, 11> kSimple = {{{'\\', '\\'},
                                                                {'\'', '\''},
                                                                {'"', '"'},
                                                                {'a', '\a'},
                                                                {'b', '\b'},
                                                                {'f', '\f'},
                                                                {'n', '\n'},
                                                                {'r', '\r'},
                                                                {'t', '\t'},
                                                                {'v', '\v'},
                                                                {'\n', '\0'}}};
    std::string out;
    while (at < end) {
      if (source_[at] != '\\') {
        out.push_back(source_[at++]);
        continue;
      }
      const char c = source_[++at];
      const auto* simple = std::find_if(kSimple.begin(), kSimple.end(), [c](const auto& s) { return s.first == c; });
      if (simple != kSimple.end()) {
        if (c != '\n') out.push_back(simple->second);  // a backslash at the end of a line joins lines
        ++at;
      } else if (c == 'x' || c == 'u' || c == 'U') {
        ++at;
        append_utf8(out, hex_escape(at, end, c == 'x' ? 2 : c == 'u' ? 4 : 8));
      } else if (c >= '0' && c <= '7') {
        char32_t cp = 0;
        for (int i = 0; i < 3 && at < end && source_[at] >= '0' && source_[at] <= '7'; ++i, ++at) {
          cp = cp * 8 + static_cast<char32_t>(source_[at] - '0');
        }
        append_utf8(out, cp);
      } else if (c == 'N') {
        fail_at("\\N{name} escapes are not supported: write \\u", at - 1);
      } else {
        out.push_back('\\');  // as Python does with escapes it does not know
      }
    }
    return out;
  }

  void operation(std::string& open) {
    constexpr std::array<std::string_view, 26> kOperators = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                             "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                             ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    const auto* found =
        std::find_if(kOperators.begin(), kOperators.end(), [this](std::string_view op) { return looking_at(op, at_); });
    if (found == kOperators.end()) {
      const std::size_t bytes = decode_utf8(source_, at_).bytes;
      fail_at("unexpected char '" + std::string(source_.substr(at_, bytes)) + "'", at_);
    }
    const char c = found->front();
    if (c == '(' || c == '[' || c == '{') {
      open.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    } else if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) fail_at(std::string("unexpected '") + c + "'", at_);
      if (open.back() != c) fail_at(std::string("unexpected '") + c + "', expected '" + open.back() + "'", at_);
      open.pop_back();
    }
    push(TokenType::kOperator, at_, std::string(*found));
    at_ += found->size();
  }

  std::string_view source_;
  std::size_t at_ = 0;
  bool line_starting_ = true;  // nothing before at_ on its line
  std::vector<Token> tokens_;
};

}  // namespace

Position position_of(std::string_view source, std::size_t at) {
  const std::string_view before = source.substr(0, std::min(at, source.size()));
  const std::size_t newline = before.rfind('\n');
  const std::string_view line = newline == std::string_view::npos ? before : before.substr(newline + 1);
  return {1 + static_cast<std::size_t>(std::count(before.begin(), before.end(), '\n')), 1 + count_chars(line)};
}

std::string normalise_source(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      out.push_back('\n');
    } else {
      out.push_back(source[i]);
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace penstock::jinja
