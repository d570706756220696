// tokenizer.json: byte-level BPE as the Qwen family uses it. Text -> ids exactly as the checkpoint's own tokenizer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "penstock/status.h"

namespace penstock {

enum class SpecialTokens : std::uint8_t {
  kParse,   // special strings in the text become special tokens: for text our own templates produced
  kAsText,  // they are ordinary characters: for text a user wrote
};

class Tokenizer {
 public:
  // Reads `dir`/tokenizer.json. kUnsupported names the part (model type, pre-tokeniser, normaliser) that is not known.
  static Expected<std::unique_ptr<Tokenizer>> load(const std::filesystem::path& dir);
  static Expected<std::unique_ptr<Tokenizer>> parse(std::string_view json);
  virtual ~Tokenizer() = default;

  // Thread-safe. Invalid UTF-8 is kInvalidArgument with the byte offset; so is a text the pre-tokeniser's pattern would
  // take too long for.
  virtual Expected<std::vector<std::int32_t>> encode(std::string_view text, SpecialTokens special) const = 0;

  // Special strings are parsed except where they would touch one of `plain`, byte ranges [begin, end) of `text` in
  // ascending order, disjoint: for a rendered template that has a user's text in it. To touch is to share a byte, so a
  // special string may stand right beside a range. Ordinary merging crosses the borders, so the ids are those of
  // encode(text, kParse) when no special string touches a range.
  virtual Expected<std::vector<std::int32_t>> encode_with_plain_ranges(
      std::string_view text, std::span<const std::pair<std::size_t, std::size_t>> plain) const = 0;

  // The whole text of `ids`; each maximal ill-formed part of its bytes becomes one U+FFFD. Ids below 0 or from size()
  // on are refused; ids between that have no token give no text.
  virtual Expected<std::string> decode(std::span<const std::int32_t> ids, bool skip_special) const = 0;

  // Raw bytes of one token (an added token's content as it is); empty for an id that has none. For Detokenizer,
  // logprobs.
  virtual std::string_view token_bytes(std::int32_t id) const = 0;
  virtual bool is_special(std::int32_t id) const = 0;                                // left out by skip_special
  virtual std::optional<std::int32_t> token_id(std::string_view content) const = 0;  // added tokens
  // What kParse looks for: the contents of all added tokens, also of those (like <think>) that decode() never skips.
  virtual std::vector<std::string> special_token_strings() const = 0;
  virtual std::int32_t size() const = 0;  // largest id + 1
};

// Ids of one answer -> text as it becomes certain: whole UTF-8 characters only. Joined, the pieces and finish() are
// what decode() gives.
class Detokenizer {
 public:
  Detokenizer(const Tokenizer* tokenizer, bool skip_special) : tokenizer_(tokenizer), skip_special_(skip_special) {}
  std::string push(std::int32_t id);  // may be empty while a character is incomplete
  std::string finish();               // what is left, incomplete bytes as U+FFFD

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::string pending_;  // bytes of an incomplete character
};

// Looks for stop strings in text that arrives in pieces; holds back what could be the beginning of one. The result does
// not depend on where the pieces are cut: the stop string that is complete first ends the text, of several that end at
// the same byte the longest.
class StopMatcher {
 public:
  // Empty strings match nothing; requests that have them are refused before. With include_stop the stop string itself
  // stays in the output.
  StopMatcher(std::vector<std::string> stops, bool include_stop);
  struct Result {
    std::string text;                 // safe to show
    std::optional<std::string> stop;  // found: the text ends here, and whatever is pushed later is dropped
  };
  Result push(std::string_view piece);
  std::string finish();  // what was held back

 private:
  struct Stop {
    std::string text;
    std::vector<std::uint32_t> fallback;  // [i]: length of the longest border of text[0, i], Knuth-Morris-Pratt
    std::uint32_t matched = 0;            // bytes of `text` that the pushed text ends with
  };
  static void advance(Stop& stop, char c);

  std::vector<Stop> stops_;
  bool include_stop_;
  std::string held_;
  std::optional<std::string> found_;
};

}  // namespace penstock
