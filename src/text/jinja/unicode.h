// Characters as Python's str sees them: code points, str.isspace(), full case mappings.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::jinja {

struct Decoded {
  char32_t cp = 0;
  std::size_t bytes = 1;
};

// Decodes the character at s[at]; `at` must be below s.size(). A byte that does not begin a whole character comes back
// alone as U+FFFD.
Decoded decode_utf8(std::string_view s, std::size_t at);
void append_utf8(std::string& out, char32_t cp);
std::size_t count_chars(std::string_view s);
// Byte offset of the first byte that is not UTF-8 (surrogates and overlong forms are not).
std::optional<std::size_t> find_invalid_utf8(std::string_view s);

inline bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U;
}

bool is_space(char32_t cp);       // str.isspace(), which is also what \s matches
bool is_line_break(char32_t cp);  // where str.splitlines() splits
bool is_alpha(char32_t cp);
bool is_digit(char32_t cp);  // str.isdigit()
bool is_decimal(char32_t cp);
bool is_numeric(char32_t cp);
bool is_upper(char32_t cp);
bool is_lower(char32_t cp);
bool is_title(char32_t cp);
bool is_cased(char32_t cp);
bool is_case_ignorable(char32_t cp);
bool is_printable(char32_t cp);
bool is_identifier_start(char32_t cp);
bool is_identifier_part(char32_t cp);

struct CaseMapping {
  std::array<char32_t, 3> cp{};
  std::size_t size = 1;
};
CaseMapping to_upper(char32_t cp);
CaseMapping to_title(char32_t cp);
CaseMapping to_lower(char32_t cp);  // a final sigma needs its context: see lower() in string_ops.cc

}  // namespace penstock::jinja
