// A small byte-level tokenizer.json for tests to use and to break.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "text/unicode.h"

namespace penstock {

// The printable character of each byte, as a file writes it.
inline std::string byte_character(int byte) {
  static const std::array<std::string, 256> kCharacters = [] {
    std::array<std::string, 256> characters;
    char32_t spare = 0x100;
    for (std::size_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      unicode::append_utf8(characters[b], printable ? static_cast<char32_t>(b) : spare++);
    }
    return characters;
  }();
  return kCharacters[static_cast<std::size_t>(byte)];
}

inline constexpr const char* kQwenSplit = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|)"
                                          R"( ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Ids 0 to 255 are the bytes; 256 "ab", 257 "abc" and 258 " a" follow; 259 is <|end|> (special), 260 <think> (not
// special).
inline nlohmann::ordered_json tiny_tokenizer() {
  using nlohmann::ordered_json;
  ordered_json vocab = ordered_json::object();
  for (int b = 0; b < 256; ++b) vocab[byte_character(b)] = b;
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  vocab[byte_character(' ') + "a"] = 258;
  const auto added = [](int id, const char* content, bool special) {
    return ordered_json{{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                        {"rstrip", false}, {"normalized", false}, {"special", special}};
  };
  const ordered_json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}};
  const ordered_json split = {
      {"type", "Split"}, {"pattern", {{"Regex", kQwenSplit}}}, {"behavior", "Isolated"}, {"invert", false}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", ordered_json::array({added(259, "<|end|>", true), added(260, "<think>", false)})},
          {"normalizer", {{"type", "NFC"}}},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", ordered_json::array({split, byte_level})}}},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", ""},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", ordered_json::array({"a b", "ab c", byte_character(' ') + " a"})}}}};
}

}  // namespace penstock
