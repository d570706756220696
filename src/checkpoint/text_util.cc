#include "checkpoint/text_util.h"

namespace penstock {

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kLongest = 160;  // characters shown of a name
  constexpr std::size_t kTail = 40;
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "'";
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.size() > kLongest && i == kLongest - kTail) {
      out += "...";
      i = text.size() - kTail;
    }
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x20 || c >= 0x7F) {
      out += "\\x";
      out += kHex[c >> 4];
      out += kHex[c & 15U];
    } else {
      out += text[i];
    }
  }
  out += "'";
  return out;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  constexpr std::size_t kMost = 8;  // dimensions shown
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size() && i <= kMost; ++i) {
    if (i > 0) out += ", ";
    out += i < kMost ? std::to_string(shape[i]) : std::string("...");
  }
  return out + "]";
}

}  // namespace penstock
