#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "base/check.h"

namespace penstock::unicode {
namespace {

enum class Kind : std::uint8_t { kWhole, kInvalid, kIncomplete };

struct Sequence {
  std::size_t bytes;
  Kind kind;
};

// The character, or the maximal ill-formed part, at the start of `s`, which is not empty (Unicode table 3-7).
Sequence next_sequence(std::string_view s) {
  const auto at = [s](std::size_t i) { return static_cast<std::uint8_t>(s[i]); };
  const std::uint8_t lead = at(0);
  if (lead < 0x80) return {1, Kind::kWhole};
  if (lead < 0xC2 || lead > 0xF4) return {1, Kind::kInvalid};
  const std::size_t need = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  std::uint8_t low = 0x80;
  std::uint8_t high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (std::size_t i = 1; i < need; ++i) {
    if (i == s.size()) return {i, Kind::kIncomplete};
    if (at(i) < low || at(i) > high) return {i, Kind::kInvalid};
    low = 0x80;
    high = 0xBF;
  }
  return {need, Kind::kWhole};
}

std::size_t ascii_prefix(std::string_view s) {
  std::size_t i = 0;
  while (i < s.size() && static_cast<std::uint8_t>(s[i]) < 0x80) ++i;
  return i;
}

// The code point at `at`, which begins a character of valid UTF-8.
struct CodePoint {
  char32_t value;
  std::size_t bytes;
};
CodePoint decode(std::string_view s, std::size_t at) {
  const auto byte = [s](std::size_t i) { return static_cast<std::uint32_t>(static_cast<std::uint8_t>(s[i])); };
  const std::uint32_t lead = byte(at);
  if (lead < 0x80) return {static_cast<char32_t>(lead), 1};
  std::size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  std::uint32_t value = lead & (0x7FU >> size);
  for (std::size_t i = 1; i < size; ++i) value = (value << 6) | (byte(at + i) & 0x3FU);
  return {static_cast<char32_t>(value), size};
}

// Marks and compositions that Unicode took in after version 9.0, up to 18. The normaliser behind the reference
// tokeniser (tokenizers 0.23, whose unicode-normalization-alignments has the tables of 9.0) knows none of them, and
// neither may we, or the ids would differ; what utf8proc knows depends on its version. Found by comparing its forms D
// with those of Unicode 18 for every code point.
struct CodePointRange {
  char32_t first;
  char32_t last;
};
constexpr std::array<CodePointRange, 71> kUnknownToReference = {
    {{0x5C8, 0x5C9},     {0x7FD, 0x7FD},     {0x897, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
     {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},   {0x1ABF, 0x1AF0},
     {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x105C9, 0x105C9}, {0x105D2, 0x105D2}, {0x105DA, 0x105DA},
     {0x105E4, 0x105E4}, {0x10D24, 0x10D27}, {0x10D69, 0x10D6D}, {0x10EAB, 0x10EAC}, {0x10ECB, 0x10ECF},
     {0x10EF0, 0x10EFB}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070},
     {0x1133B, 0x1133B}, {0x11382, 0x11385}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x11391},
     {0x113B8, 0x113B8}, {0x113BB, 0x113BB}, {0x113C2, 0x113C2}, {0x113C5, 0x113C5}, {0x113C7, 0x113C9},
     {0x113CE, 0x113D0}, {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x11935, 0x11935},
     {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34},
     {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97},
     {0x11F41, 0x11F42}, {0x1611E, 0x16129}, {0x1612F, 0x1612F}, {0x16D63, 0x16D63}, {0x16D67, 0x16D6A},
     {0x16FF0, 0x16FF1}, {0x1D127, 0x1D128}, {0x1D250, 0x1D252}, {0x1D25B, 0x1D25C}, {0x1D25F, 0x1D25F},
     {0x1D280, 0x1D281}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
     {0x1E4EC, 0x1E4EF}, {0x1E5EE, 0x1E5EF}, {0x1E6E3, 0x1E6E3}, {0x1E6E6, 0x1E6E6}, {0x1E6EE, 0x1E6EF},
     {0x1E6F5, 0x1E6F5}}};

bool is_unknown_to_reference(char32_t c) {
  if (c < kUnknownToReference.front().first || (c >= 0x2000 && c < 0xA800)) return false;
  const auto* range = std::lower_bound(kUnknownToReference.begin(), kUnknownToReference.end(), c,
                                       [](const CodePointRange& r, char32_t value) { return r.last < value; });
  return range != kUnknownToReference.end() && range->first <= c;
}

enum class NfcRole : std::uint8_t {
  kActive,  // may change or join what stands before it
  kInert,   // is left alone and joins nothing before it; what follows may join it
  kOpaque,  // is left alone and neither joins nor is joined
};

NfcRole nfc_role(char32_t c) {
  // Only common characters need to be here.
  if (c < 0x300 || (c >= 0x3400 && c < 0xA000) || (c >= 0xAC00 && c < 0xD7A4) || (c >= 0x2010 && c < 0x20D0))
    return NfcRole::kInert;
  // utf8proc 2.8 takes U+11A7, a vowel, for a final consonant.
  return c == 0x11A7 || is_unknown_to_reference(c) ? NfcRole::kOpaque : NfcRole::kActive;
}

void append_normalised(std::string_view run, std::string& out) {
  std::vector<utf8proc_int32_t> points;
  points.reserve(run.size());
  std::array<utf8proc_int32_t, 16> parts{};
  for (std::size_t i = 0; i < run.size();) {
    const CodePoint c = decode(run, i);
    i += c.bytes;
    int boundary_class = 0;
    const auto count = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(c.value), parts.data(), static_cast<utf8proc_ssize_t>(parts.size()),
        static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE), &boundary_class);
    CHECK(count >= 0 && count <= static_cast<utf8proc_ssize_t>(parts.size()));
    points.insert(points.end(), parts.begin(), parts.begin() + count);
  }
  // Canonical order. utf8proc's own ordering takes quadratic time for a long run of marks.
  const auto class_of = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto first = points.begin(); first != points.end();) {
    if (class_of(*first) == 0) {
      ++first;
      continue;
    }
    const auto last = std::find_if(first, points.end(), [&](utf8proc_int32_t c) { return class_of(c) == 0; });
    const auto before = [&](utf8proc_int32_t a, utf8proc_int32_t b) { return class_of(a) < class_of(b); };
    if (!std::is_sorted(first, last, before)) std::stable_sort(first, last, before);
    first = last;
  }
  const auto size = utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                                             static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  CHECK(size >= 0);
  for (utf8proc_ssize_t i = 0; i < size; ++i)
    append_utf8(out, static_cast<char32_t>(points[static_cast<std::size_t>(i)]));
}

}  // namespace

std::optional<std::size_t> find_invalid_utf8(std::string_view bytes) {
  for (std::size_t i = 0; i < bytes.size();) {
    i += ascii_prefix(bytes.substr(i));
    if (i == bytes.size()) break;
    const Sequence sequence = next_sequence(bytes.substr(i));
    if (sequence.kind != Kind::kWhole) return i;
    i += sequence.bytes;
  }
  return std::nullopt;
}

std::size_t append_lossy(std::string_view bytes, std::string& out) {
  std::size_t i = 0;
  while (i < bytes.size()) {
    const std::size_t ascii = ascii_prefix(bytes.substr(i));
    out.append(bytes, i, ascii);
    i += ascii;
    if (i == bytes.size()) break;
    const Sequence sequence = next_sequence(bytes.substr(i));
    if (sequence.kind == Kind::kIncomplete) break;
    if (sequence.kind == Kind::kWhole) {
      out.append(bytes, i, sequence.bytes);
    } else {
      out += kReplacement;
    }
    i += sequence.bytes;
  }
  return i;
}

std::string_view nfc(std::string_view text, std::string& buffer) {
  // Characters from U+0300 on begin with a byte of 0xCC or more.
  if (std::none_of(text.begin(), text.end(), [](char c) { return static_cast<std::uint8_t>(c) >= 0xCC; })) return text;
  buffer.clear();
  buffer.reserve(text.size());
  std::size_t copied = 0;     // text before here is in the buffer
  std::size_t run_begin = 0;  // where what the current character may join begins
  bool active = false;        // the run has an active character
  for (std::size_t i = 0; i <= text.size();) {
    const CodePoint c = i == text.size() ? CodePoint{0, 1} : decode(text, i);
    const NfcRole role = nfc_role(c.value);
    if (role == NfcRole::kActive) {
      active = true;
    } else {
      if (active) {
        buffer.append(text, copied, run_begin - copied);
        append_normalised(text.substr(run_begin, i - run_begin), buffer);
        copied = i;
        active = false;
      }
      run_begin = role == NfcRole::kOpaque ? i + c.bytes : i;
    }
    i += c.bytes;
  }
  buffer.append(text, copied);
  return buffer;
}

void append_utf8(std::string& out, char32_t code_point) {
  const auto c = static_cast<std::uint32_t>(code_point);
  const auto push = [&out](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    push(c);
  } else if (c < 0x800) {
    push(0xC0U | (c >> 6));
    push(0x80U | (c & 0x3FU));
  } else if (c < 0x10000) {
    push(0xE0U | (c >> 12));
    push(0x80U | ((c >> 6) & 0x3FU));
    push(0x80U | (c & 0x3FU));
  } else {
    push(0xF0U | (c >> 18));
    push(0x80U | ((c >> 12) & 0x3FU));
    push(0x80U | ((c >> 6) & 0x3FU));
    push(0x80U | (c & 0x3FU));
  }
}

}  // namespace penstock::unicode
