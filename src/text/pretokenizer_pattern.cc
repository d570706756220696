// Oniguruma's dialect and PCRE2's agree on most of what tokenizers use, and differ silently on the rest: \h is a
// hexadecimal digit in one and a blank in the other, \s differs in U+180E, \w in marks, ^ and $ in where they match,
// \p{Han} in script extensions. So every construct is either known to mean the same, rewritten, or refused.
#include <algorithm>
#include <array>
#include <cctype>
#include <string>
#include <string_view>

#include "text/pretokenizer.h"

namespace penstock {
namespace {

constexpr std::size_t kMaxPatternBytes = 4096;
constexpr int kMaxRepeat = 1000;

constexpr std::array<std::string_view, 38> kCategories = {
    "C",  "Cc", "Cf", "Cn", "Co", "Cs", "L",  "Ll", "Lm", "Lo", "Lt", "Lu", "M",  "Mc", "Me", "Mn", "N",  "Nd", "Nl",
    "No", "P",  "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S",  "Sc", "Sk", "Sm", "So", "Z",  "Zl", "Zp", "Zs", "Any"};
constexpr std::array<std::string_view, 16> kScripts = {
    "Arabic", "Armenian", "Bengali",  "Cyrillic", "Devanagari", "Georgian", "Greek",  "Han",
    "Hangul", "Hebrew",   "Hiragana", "Katakana", "Latin",      "Tamil",    "Telugu", "Thai"};
constexpr std::array<std::string_view, 7> kGroups = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
// Letters that Oniguruma also folds as one character (ß, ﬀ, ﬁ, ﬂ, ﬆ) where case does not count; PCRE2 does not.
constexpr std::array<std::string_view, 5> kFoldedPairs = {"ss", "ff", "fi", "fl", "st"};

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  Expected<std::string> run() {
    if (in_.empty()) return unsupported("the pattern is empty");
    if (in_.size() > kMaxPatternBytes)
      return unsupported("the pattern is " + std::to_string(in_.size()) + " bytes long; at most " +
                         std::to_string(kMaxPatternBytes) + " are allowed");
    PENSTOCK_RETURN_IF_ERROR(check_folding());
    while (at_ < in_.size()) PENSTOCK_RETURN_IF_ERROR(in_class_ ? step_in_class() : step());
    if (in_class_) return refuse(in_.size(), "an unclosed [");
    return std::move(out_);
  }

 private:
  Status refuse(std::size_t offset, std::string_view what) const {
    return unsupported("the pattern has " + std::string(what) + " at byte " + std::to_string(offset) +
                       ", which this build does not take");
  }

  Status check_folding() const {
    if (in_.find("(?i") == std::string_view::npos) return {};
    for (std::size_t i = 0; i + 1 < in_.size(); ++i) {
      const std::array<char, 2> pair = {static_cast<char>(std::tolower(static_cast<unsigned char>(in_[i]))),
                                        static_cast<char>(std::tolower(static_cast<unsigned char>(in_[i + 1])))};
      if (std::find(kFoldedPairs.begin(), kFoldedPairs.end(), std::string_view(pair.data(), 2)) != kFoldedPairs.end())
        return refuse(i, "letters that fold to one character, with (?i)");
    }
    return {};
  }

  void copy(std::size_t bytes) {
    out_.append(in_, at_, bytes);
    at_ += bytes;
  }

  Status step() {
    switch (in_[at_]) {
      case '\\':
        return escape();
      case '(':
        return group();
      case '{':
        return repeat();
      case '^':
      case '$':
        return refuse(at_, "an anchor (^ or $)");
      case '[':
        in_class_ = true;
        copy(1);
        if (at_ < in_.size() && in_[at_] == '^') copy(1);
        if (at_ < in_.size() && in_[at_] == ']') return refuse(at_, "an empty [] or an unescaped ] in a class");
        return {};
      default:
        copy(1);
        return {};
    }
  }

  Status step_in_class() {
    if (in_[at_] == '\\') return escape();
    if (in_[at_] == '[') return refuse(at_, "a [ inside a class");
    if (in_.substr(at_, 2) == "&&") return refuse(at_, "a class intersection (&&)");
    if (in_[at_] == ']') in_class_ = false;
    copy(1);
    return {};
  }

  Status group() {
    const std::string_view rest = in_.substr(at_);
    if (rest.size() > 1 && rest[1] == '*') return refuse(at_, "a verb (*…)");
    if (rest.size() < 2 || rest[1] != '?') {
      copy(1);
      return {};
    }
    if (at_ == 0 && rest.starts_with("(?i)")) {  // elsewhere the two differ in how far it reaches
      copy(4);
      return {};
    }
    for (const std::string_view known : kGroups) {
      if (!rest.starts_with(known)) continue;
      copy(known.size());
      return {};
    }
    return refuse(at_, "the group " + std::string(rest.substr(0, 4)));
  }

  // {n}, {n,} or {n,m}. What may follow them, + or ?, means different things in the two dialects.
  Status repeat() {
    std::size_t i = at_ + 1;
    int numbers = 0;
    while (i < in_.size() && std::isdigit(static_cast<unsigned char>(in_[i])) != 0) {
      int value = 0;
      for (; i < in_.size() && std::isdigit(static_cast<unsigned char>(in_[i])) != 0; ++i) {
        value = value * 10 + (in_[i] - '0');
        if (value > kMaxRepeat) return refuse(at_, "a repeat of more than " + std::to_string(kMaxRepeat));
      }
      if (++numbers == 2 || i == in_.size() || in_[i] != ',') break;
      ++i;
    }
    if (numbers == 0 || i == in_.size() || in_[i] != '}')
      return refuse(at_, "a { that is no repeat {n}, {n,} or {n,m}");
    ++i;
    if (i < in_.size() && (in_[i] == '+' || in_[i] == '?')) return refuse(i, "a + or ? after a repeat {…}");
    copy(i - at_);
    return {};
  }

  Status escape() {
    const std::size_t start = at_;
    if (at_ + 1 == in_.size()) return refuse(start, "a single \\ at its end");
    const char c = in_[at_ + 1];
    if (c == 'p' || c == 'P') return property();
    if (c == 'x' || c == 'u') return code_point();
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) {  // punctuation for itself
      copy(2);
      return {};
    }
    switch (c) {
      case 'r':
      case 'n':
      case 't':
      case 'f':
      case 'e':
      case 'a':
        copy(2);
        return {};
      case 's':
        out_ += "\\p{White_Space}";
        break;
      case 'S':
        out_ += "\\P{White_Space}";
        break;
      case 'd':
        out_ += "\\p{Nd}";
        break;
      case 'D':
        out_ += "\\P{Nd}";
        break;
      default:
        return refuse(start, std::string("the escape \\") + c);
    }
    at_ += 2;
    return {};
  }

  Status property() {
    const std::size_t start = at_;
    const std::size_t close = in_.find('}', at_);
    if (at_ + 2 >= in_.size() || in_[at_ + 2] != '{' || close == std::string_view::npos)
      return refuse(start, "a \\p without {name}");
    const std::string_view name = in_.substr(at_ + 3, close - at_ - 3);
    const bool script = std::find(kScripts.begin(), kScripts.end(), name) != kScripts.end();
    if (!script && std::find(kCategories.begin(), kCategories.end(), name) == kCategories.end())
      return refuse(start, "the property \\p{" + std::string(name) + "}");
    out_.append(in_, at_, 3);
    if (script) out_ += "sc:";  // without it PCRE2 looks at script extensions
    out_ += name;
    out_ += '}';
    at_ = close + 1;
    return {};
  }

  // \x{H…} and \uHHHH. \xHH is a byte in Oniguruma, so only ASCII values mean a character there.
  Status code_point() {
    const std::size_t start = at_;
    std::size_t i = at_ + 2;
    std::size_t digits = in_[at_ + 1] == 'u' ? 4 : 2;
    const bool braces = in_[at_ + 1] == 'x' && i < in_.size() && in_[i] == '{';
    if (braces) {
      const std::size_t close = in_.find('}', i);
      digits = close == std::string_view::npos ? 0 : close - i - 1;
      ++i;
    }
    const std::string_view hex = in_.substr(i, digits);
    const bool all_hex = std::all_of(hex.begin(), hex.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
    if (digits == 0 || digits > 6 || hex.size() != digits || !all_hex) return refuse(start, "a malformed \\x or \\u");
    if (digits == 2 && !braces && hex[0] > '7') return refuse(start, "a byte \\xHH above 7F");
    out_ += "\\x{" + std::string(hex) + "}";
    at_ = i + digits + (braces ? 1 : 0);
    return {};
  }

  std::string_view in_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

Expected<std::string> translate_split_pattern(std::string_view pattern) {
  return Translator(pattern).run();
}

}  // namespace penstock
