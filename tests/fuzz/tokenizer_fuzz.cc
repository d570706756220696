// tokenizer.json and text. The first byte chooses: even, the rest is a tokenizer.json; odd, the rest is text (or, with
// the second bit set, ids) for the bundled tokeniser.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace {

using penstock::Detokenizer;
using penstock::SpecialTokens;
using penstock::Tokenizer;

void check_streaming(const Tokenizer& tokenizer, const std::vector<std::int32_t>& ids, bool skip_special,
                     const std::string& whole) {
  Detokenizer detokenizer(&tokenizer, skip_special);
  std::string streamed;
  for (const std::int32_t id : ids) {
    const std::string piece = detokenizer.push(id);
    CHECK(!penstock::unicode::find_invalid_utf8(piece));
    streamed += piece;
  }
  CHECK(streamed + detokenizer.finish() == whole);
}

void parse_json(std::string_view json) {
  const auto tokenizer = Tokenizer::parse(json);
  if (!tokenizer.ok()) {
    CHECK(!tokenizer.status().message().empty());
    return;
  }
  const auto ids = (*tokenizer)->encode("It's 12 e\u0301ggs,\n  <|im_end|> 漢字🙂", SpecialTokens::kParse);
  if (ids.ok()) {
    const auto text = (*tokenizer)->decode(*ids, false);
    CHECK(text.ok());
    check_streaming(**tokenizer, *ids, false, *text);
  }
}

void round_trip(const Tokenizer& tokenizer, std::string_view text) {
  for (const SpecialTokens special : {SpecialTokens::kParse, SpecialTokens::kAsText}) {
    const auto ids = tokenizer.encode(text, special);
    CHECK(ids.ok() == !penstock::unicode::find_invalid_utf8(text));
    if (!ids.ok()) return;
    std::string buffer;
    const auto decoded = tokenizer.decode(*ids, false);
    CHECK(decoded.ok());
    if (special == SpecialTokens::kAsText) {
      CHECK(*decoded == penstock::unicode::nfc(text, buffer));
      for (const std::int32_t id : *ids) CHECK(!tokenizer.is_special(id));
    }
    check_streaming(tokenizer, *ids, false, *decoded);
  }
  const std::pair<std::size_t, std::size_t> plain{text.size() / 3, text.size() / 2};
  CHECK(tokenizer.encode_with_plain_ranges(text, {&plain, 1}).ok());
}

void decode_ids(const Tokenizer& tokenizer, std::string_view bytes) {
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2)
    ids.push_back(static_cast<std::uint8_t>(bytes[i]) | (static_cast<std::uint8_t>(bytes[i + 1]) & 0x1F) << 8);
  for (const bool skip_special : {false, true}) {
    const auto text = tokenizer.decode(ids, skip_special);
    if (!text.ok()) continue;  // an id outside the vocabulary
    CHECK(!penstock::unicode::find_invalid_utf8(*text));
    check_streaming(tokenizer, ids, skip_special, *text);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto kBundled = Tokenizer::load(PENSTOCK_SOURCE_DIR "/models/gsm-hybrid");
  CHECK(kBundled.ok());
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if ((data[0] & 1) == 0) {
    parse_json(rest);
  } else if ((data[0] & 2) == 0) {
    round_trip(**kBundled, rest);
  } else {
    decode_ids(**kBundled, rest);
  }
  return 0;
}
