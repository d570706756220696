// UTF-8 as the tokeniser needs it: where text is not UTF-8, what stands for it, and Unicode normalisation form C.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::unicode {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Byte offset of the first byte that is not part of a character; overlong forms, surrogates and values above U+10FFFF
// are not characters.
std::optional<std::size_t> find_invalid_utf8(std::string_view bytes);

// Appends `bytes` to `out`, each maximal ill-formed part as one U+FFFD (Unicode 15, section 3.9, "substitution of
// maximal subparts"; what Rust's from_utf8_lossy does). Stops before trailing bytes that could still become a
// character, and returns how many bytes it took: all but at most three.
std::size_t append_lossy(std::string_view bytes, std::string& out);

// `text`, which is UTF-8, in normalisation form C: either `text` itself or a view of `buffer`. n log n at worst, in the
// length of the longest run of combining marks.
std::string_view nfc(std::string_view text, std::string& buffer);

// Appends a code point below U+110000.
void append_utf8(std::string& out, char32_t code_point);

}  // namespace penstock::unicode
