#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <random>
#include <thread>

#include "text/tokenizer_test_util.h"
#include "text/unicode.h"

namespace penstock {
namespace {

using Ids = std::vector<std::int32_t>;
using nlohmann::ordered_json;

const std::filesystem::path kSource = PENSTOCK_SOURCE_DIR;

std::unique_ptr<Tokenizer> load(const std::filesystem::path& dir) {
  auto tokenizer = Tokenizer::load(dir);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

std::unique_ptr<Tokenizer> make(const ordered_json& json) {
  auto tokenizer = Tokenizer::parse(json.dump());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

const Tokenizer& bundled() {
  static const std::unique_ptr<Tokenizer> kTokenizer = load(kSource / "models/gsm-hybrid");
  return *kTokenizer;
}

Ids encode(const Tokenizer& tokenizer, std::string_view text, SpecialTokens special = SpecialTokens::kParse) {
  auto ids = tokenizer.encode(text, special);
  EXPECT_TRUE(ids.ok()) << ids.status().message();
  return ids.ok() ? *ids : Ids{};
}

std::string decode(const Tokenizer& tokenizer, const Ids& ids, bool skip_special = false) {
  auto text = tokenizer.decode(ids, skip_special);
  EXPECT_TRUE(text.ok()) << text.status().message();
  return text.ok() ? *text : "";
}

std::string stream(const Tokenizer& tokenizer, const Ids& ids, bool skip_special = false) {
  Detokenizer detokenizer(&tokenizer, skip_special);
  std::string text;
  for (const std::int32_t id : ids) {
    const std::string piece = detokenizer.push(id);
    EXPECT_EQ(unicode::find_invalid_utf8(piece), std::nullopt);
    text += piece;
  }
  return text + detokenizer.finish();
}

std::vector<ordered_json> read_lines(const std::filesystem::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file.is_open()) << path;
  std::vector<ordered_json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(ordered_json::parse(line));
  return lines;
}

// ---- goldens --------------------------------------------------------------------------------------------------------

struct GoldenCase {
  const char* name;    // of tests/golden/data/tokenizer/<name>.jsonl
  const char* folder;  // in the checkout, or of PENSTOCK_PUBLISHED_TOKENIZERS
  bool published;
};

class TokenizerGolden : public testing::TestWithParam<GoldenCase> {
 protected:
  void SetUp() override {
    std::filesystem::path folder = kSource / GetParam().folder;
    if (GetParam().published) {
      const char* root = std::getenv("PENSTOCK_PUBLISHED_TOKENIZERS");
      if (root == nullptr)
        GTEST_SKIP()
            << "needs a published vocabulary: run `tests/golden/make_published_tokenizers.py FOLDER`, then set "
               "PENSTOCK_PUBLISHED_TOKENIZERS=FOLDER";
      folder = std::filesystem::path(root) / GetParam().folder;
    }
    tokenizer_ = load(folder);
    ASSERT_NE(tokenizer_, nullptr);
  }

  std::vector<ordered_json> lines(const std::string& suffix) const {
    auto lines = read_lines(kSource / "tests/golden/data/tokenizer" / (GetParam().name + suffix + ".jsonl"));
    EXPECT_GT(lines.size(), 200U);
    return lines;
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_P(TokenizerGolden, Strings) {
  for (const ordered_json& line : lines("")) {
    const auto text = line["text"].get<std::string>();
    const auto ids = line["ids"].get<Ids>();
    ASSERT_EQ(encode(*tokenizer_, text), ids) << line["text"];
    const std::string decoded = line.value("decoded", text);
    const std::string skipped = line.value("decoded_skip_special", decoded);
    ASSERT_EQ(decode(*tokenizer_, ids), decoded);
    ASSERT_EQ(decode(*tokenizer_, ids, true), skipped);
    ASSERT_EQ(stream(*tokenizer_, ids), decoded);
    ASSERT_EQ(stream(*tokenizer_, ids, true), skipped);
  }
}

TEST_P(TokenizerGolden, Streams) {
  for (const ordered_json& line : lines("-decode")) {
    const auto ids = line["ids"].get<Ids>();
    const auto decoded = line["decoded"].get<std::string>();
    ASSERT_EQ(decode(*tokenizer_, ids), decoded) << line["ids"];
    ASSERT_EQ(stream(*tokenizer_, ids), decoded) << line["ids"];
    // What the reference's stream shows of valid text at each token, we have shown by then.
    if (decoded.find(unicode::kReplacement) != std::string::npos) continue;
    Detokenizer detokenizer(tokenizer_.get(), false);
    std::string ours;
    std::string theirs;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      ours += detokenizer.push(ids[i]);
      if (line["chunks"][i].is_string()) theirs += line["chunks"][i].get<std::string>();
      ASSERT_TRUE(ours.starts_with(theirs)) << line["ids"] << " at " << i;
    }
  }
}

// What a user writes is never a special token, and comes back as it was (in normal form C).
TEST_P(TokenizerGolden, StringsAsPlainText) {
  const auto specials = tokenizer_->special_token_strings();
  for (const ordered_json& line : lines("")) {
    const auto text = line["text"].get<std::string>();
    const Ids ids = encode(*tokenizer_, text, SpecialTokens::kAsText);
    for (const std::int32_t id : ids)
      ASSERT_EQ(std::count(specials.begin(), specials.end(), tokenizer_->token_bytes(id)), 0) << line["text"];
    std::string buffer;
    ASSERT_EQ(decode(*tokenizer_, ids, true), unicode::nfc(text, buffer));
  }
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, TokenizerGolden,
                         testing::Values(GoldenCase{"gsm-hybrid", "models/gsm-hybrid", false},
                                         GoldenCase{"qwen3.5", "qwen3.5", true}, GoldenCase{"qwen3", "qwen3", true}),
                         [](const auto& test) {
                           std::string name = test.param.name;
                           std::erase_if(name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; });
                           return name;
                         });

// ---- encoding -------------------------------------------------------------------------------------------------------

TEST(Tokenizer, ParsesSpecialTokensOnlyWhenAsked) {
  const auto tokenizer = make(tiny_tokenizer());
  EXPECT_EQ(encode(*tokenizer, "ab<|end|>abc<think>"), (Ids{256, 259, 257, 260}));
  EXPECT_EQ(encode(*tokenizer, "<|end|>", SpecialTokens::kAsText), (Ids{'<', '|', 'e', 'n', 'd', '|', '>'}));
  EXPECT_EQ(encode(*tokenizer, "<think>", SpecialTokens::kAsText).size(), 7U);
  EXPECT_EQ(encode(*tokenizer, "<|END|>").size(), 7U);
  EXPECT_EQ(encode(*tokenizer, "<<|end|><|end"), (Ids{'<', 259, '<', '|', 'e', 'n', 'd'}));
  EXPECT_EQ(encode(*tokenizer, ""), Ids{});
}

TEST(Tokenizer, LongestOfSpecialTokensThatBeginTogether) {
  auto json = tiny_tokenizer();
  auto longer = json["added_tokens"][0];
  longer["id"] = 300;
  longer["content"] = "<|end|><think>!";
  json["added_tokens"].push_back(longer);
  const auto tokenizer = make(json);
  EXPECT_EQ(encode(*tokenizer, "<|end|><think>!"), (Ids{300}));
  EXPECT_EQ(encode(*tokenizer, "<|end|><think>?"), (Ids{259, 260, '?'}));
  // With "!" the user's, the longer one is out, the shorter ones are not.
  const std::pair<std::size_t, std::size_t> range{14, 15};
  EXPECT_EQ(*tokenizer->encode_with_plain_ranges("<|end|><think>!", {&range, 1}), (Ids{259, 260, '!'}));
}

TEST(Tokenizer, RefusesWhatIsNotUtf8) {
  for (const auto& [text, offset] : {std::pair<std::string, std::string>{"ab\x80", "byte 2"},
                                     {"\xC3", "byte 0"},
                                     {"é\xED\xA0\x80", "byte 2"},
                                     {std::string(100, 'a') + "\xFF", "byte 100"}}) {
    const auto ids = bundled().encode(text, SpecialTokens::kParse);
    ASSERT_FALSE(ids.ok());
    EXPECT_EQ(ids.status().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(ids.status().message().find(offset), std::string::npos) << ids.status().message();
  }
}

TEST(Tokenizer, IgnoreMergesTakesWholePieces) {
  auto json = tiny_tokenizer();
  json["model"]["vocab"]["xyz"] = 270;
  json["model"]["vocab"]["end"] = 271;
  EXPECT_EQ(encode(*make(json), "xyz"), (Ids{'x', 'y', 'z'}));
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(encode(*make(json), "xyz abc"), (Ids{270, ' ', 257}));
  // An added token's content is no whole piece for it, though the vocabulary has it too.
  json["added_tokens"][0]["content"] = "end";
  json["added_tokens"][0]["id"] = 271;
  EXPECT_EQ(encode(*make(json), "end", SpecialTokens::kAsText), (Ids{'e', 'n', 'd'}));
  EXPECT_EQ(encode(*make(json), "end", SpecialTokens::kParse), (Ids{271}));
}

TEST(Tokenizer, MergesInBothForms) {
  auto json = tiny_tokenizer();
  json["model"]["merges"] = ordered_json::array({ordered_json::array({"a", "b"}), ordered_json::array({"ab", "c"}),
                                                 ordered_json::array({byte_character(' '), "a"})});
  const auto pairs = make(json);
  const auto strings = make(tiny_tokenizer());
  for (const char* text : {"abc", " abc", "aabbcc", "ab c"}) EXPECT_EQ(encode(*pairs, text), encode(*strings, text));
}

TEST(Tokenizer, WithoutNormaliserTextStaysAsItIs) {
  auto json = tiny_tokenizer();
  EXPECT_EQ(encode(*make(json), "e\u0301"), (Ids{0xC3, 0xA9}));
  json["normalizer"] = nullptr;
  EXPECT_EQ(encode(*make(json), "e\u0301"), (Ids{'e', 0xCC, 0x81}));
  json["normalizer"] = {{"type", "Sequence"}, {"normalizers", ordered_json::array({{{"type", "NFC"}}})}};
  EXPECT_EQ(encode(*make(json), "e\u0301"), (Ids{0xC3, 0xA9}));
}

// ---- plain ranges ---------------------------------------------------------------------------------------------------

// Encodes the concatenation of `parts`, those marked true being a user's.
Ids encode_parts(const Tokenizer& tokenizer, const std::vector<std::pair<std::string, bool>>& parts) {
  std::string text;
  std::vector<std::pair<std::size_t, std::size_t>> plain;
  for (const auto& [part, from_user] : parts) {
    if (from_user) plain.emplace_back(text.size(), text.size() + part.size());
    text += part;
  }
  auto ids = tokenizer.encode_with_plain_ranges(text, plain);
  EXPECT_TRUE(ids.ok()) << ids.status().message();
  return ids.ok() ? *ids : Ids{};
}

TEST(PlainRanges, SpecialStringInside) {
  const auto t = make(tiny_tokenizer());
  EXPECT_EQ(encode_parts(*t, {{"<|end|>", false}, {"a<|end|>", true}, {"<think>", false}}),
            (Ids{259, 'a', '<', '|', 'e', 'n', 'd', '|', '>', 260}));
}

TEST(PlainRanges, SpecialStringBesideARangeIsParsed) {
  const auto t = make(tiny_tokenizer());
  EXPECT_EQ(encode_parts(*t, {{"<|end|>", false}, {"ab", true}, {"<|end|>", false}}), (Ids{259, 256, 259}));
  EXPECT_EQ(encode_parts(*t, {{"<|end|>", false}, {"", true}, {"<|end|>", false}}), (Ids{259, 259}));
}

TEST(PlainRanges, SpecialStringAcrossABorder) {
  const auto t = make(tiny_tokenizer());
  const Ids plain = {'<', '|', 'e', 'n', 'd', '|', '>'};
  for (std::size_t cut = 1; cut < 7; ++cut) {
    const std::string text = "<|end|>";
    EXPECT_EQ(encode_parts(*t, {{text.substr(0, cut), true}, {text.substr(cut), false}}), plain) << cut;
    EXPECT_EQ(encode_parts(*t, {{text.substr(0, cut), false}, {text.substr(cut), true}}), plain) << cut;
    EXPECT_EQ(encode_parts(*t, {{text.substr(0, cut), true}, {text.substr(cut), true}}), plain) << cut;
  }
  EXPECT_EQ(encode_parts(*t, {{"<|e", false}, {"n", true}, {"d|>", false}}), plain);
}

TEST(PlainRanges, MergingAndNormalisingCrossBorders) {
  const auto t = make(tiny_tokenizer());
  EXPECT_EQ(encode_parts(*t, {{"a", false}, {"b", true}, {"c", false}}), (Ids{257}));
  EXPECT_EQ(encode_parts(*t, {{"e", false}, {"\u0301", true}}), (Ids{0xC3, 0xA9}));
}

TEST(PlainRanges, EqualEncodeWhenNoSpecialStringTouchesThem) {
  std::mt19937 random(5);
  const std::vector<std::string> words = {"<|im_start|>", "<think>", "</think>", "user\n", "Tom has",
                                          " 12 eggs",     "é",       "e\u0301",  "\n",     "  ",
                                          "漢",           "'s",      "<|im",     "_end|>", "🙂"};
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::pair<std::string, bool>> parts;
    std::string text;
    for (std::size_t i = random() % 8; i > 0; --i) {
      const std::string& word = words[random() % words.size()];
      const bool special = bundled().token_id(word).has_value();
      parts.emplace_back(word, !special && random() % 2 == 0);
      text += word;
    }
    const Ids all = encode(bundled(), text);
    if (text.find("<|im_end|>") != std::string::npos) continue;  // made of two parts
    ASSERT_EQ(encode_parts(bundled(), parts), all) << text;
  }
}

TEST(PlainRanges, RefusesRangesThatAreNone) {
  using Range = std::pair<std::size_t, std::size_t>;
  for (const std::vector<Range>& ranges :
       {std::vector<Range>{{2, 1}}, std::vector<Range>{{0, 4}}, std::vector<Range>{{1, 2}, {0, 1}},
        std::vector<Range>{{0, 2}, {1, 3}}, std::vector<Range>{{SIZE_MAX, SIZE_MAX}}}) {
    const auto ids = bundled().encode_with_plain_ranges("abc", ranges);
    ASSERT_FALSE(ids.ok());
    EXPECT_EQ(ids.status().code(), StatusCode::kInvalidArgument);
  }
}

// ---- decoding, facts ------------------------------------------------------------------------------------------------

TEST(Tokenizer, DecodeRefusesIdsOutsideTheVocabulary) {
  for (const std::int32_t id : {-1, bundled().size(), INT32_MAX, INT32_MIN}) {
    const Ids ids = {5, id};
    const auto text = bundled().decode(ids, false);
    ASSERT_FALSE(text.ok());
    EXPECT_EQ(text.status().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(text.status().message().find("position 1"), std::string::npos);
    EXPECT_EQ(bundled().token_bytes(id), "");
    EXPECT_FALSE(bundled().is_special(id));
  }
}

TEST(Tokenizer, KnowsItsAddedTokens) {
  const auto t = make(tiny_tokenizer());
  EXPECT_EQ(t->size(), 261);
  EXPECT_EQ(t->token_id("<|end|>"), 259);
  EXPECT_EQ(t->token_id("ab"), std::nullopt);
  EXPECT_TRUE(t->is_special(259));
  EXPECT_FALSE(t->is_special(260));
  EXPECT_EQ(t->token_bytes(259), "<|end|>");
  EXPECT_EQ(t->token_bytes(258), " a");
  EXPECT_EQ(t->token_bytes(0), std::string_view("\0", 1));
  EXPECT_EQ(t->special_token_strings(), (std::vector<std::string>{"<|end|>", "<think>"}));
  EXPECT_EQ(decode(*t, {256, 259, 260}, true), "ab<think>");
  EXPECT_EQ(decode(*t, {0xE2, 259, 0x82, 0xAC}, true), "€");  // as if the skipped one had not been there
  EXPECT_EQ(stream(*t, {0xE2, 259, 0x82, 0xAC}, true), "€");
  EXPECT_EQ(bundled().size(), 4096);
}

TEST(Tokenizer, IdsWithoutATokenGiveNoText) {
  auto json = tiny_tokenizer();
  json["added_tokens"][1]["id"] = 400;
  const auto t = make(json);
  EXPECT_EQ(t->size(), 401);
  EXPECT_EQ(t->token_bytes(300), "");
  EXPECT_EQ(decode(*t, {256, 300, 400}), "ab<think>");
}

// ---- properties, size, threads --------------------------------------------------------------------------------------

std::string random_text(std::mt19937& random, std::size_t characters) {
  struct Range {
    char32_t first;
    char32_t count;
  };
  constexpr std::array<Range, 8> kRanges = {{{0x20, 0x5F},
                                             {0x20, 0x5F},
                                             {U' ', 1},
                                             {0, 0x20},
                                             {0x80, 0x2000},
                                             {0x300, 0x70},
                                             {0x2000, 0xB000},
                                             {0x10000, 0x100000}}};
  std::string text;
  for (std::size_t i = 0; i < characters; ++i) {
    const Range& range = kRanges[random() % kRanges.size()];
    unicode::append_utf8(text, range.first + static_cast<char32_t>(random() % range.count));
  }
  return text;
}

TEST(TokenizerProperty, RandomTextRoundTrips) {
  std::mt19937 random(6);
  for (int round = 0; round < 2000; ++round) {
    const std::string text = random_text(random, random() % 60);
    std::string buffer;
    const std::string normal(unicode::nfc(text, buffer));
    for (const SpecialTokens special : {SpecialTokens::kParse, SpecialTokens::kAsText}) {
      const Ids ids = encode(bundled(), text, special);
      ASSERT_EQ(decode(bundled(), ids), normal);
      ASSERT_EQ(stream(bundled(), ids), normal);
    }
  }
}

TEST(TokenizerProperty, RandomBytesAndIdsAreHandled) {
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    for (std::size_t i = random() % 20; i > 0; --i) bytes += static_cast<char>(random() % 256);
    const auto ids = bundled().encode(bytes, SpecialTokens::kParse);
    ASSERT_EQ(ids.ok(), unicode::find_invalid_utf8(bytes) == std::nullopt);
    Ids any;
    for (std::size_t i = random() % 20; i > 0; --i)
      any.push_back(static_cast<std::int32_t>(random() % static_cast<std::uint32_t>(bundled().size())));
    const bool skip = random() % 2 == 0;
    ASSERT_EQ(stream(bundled(), any, skip), decode(bundled(), any, skip));
    ASSERT_EQ(unicode::find_invalid_utf8(decode(bundled(), any)), std::nullopt);
  }
}

TEST(Tokenizer, LongPiecesTakeNoQuadraticTime) {
  std::mt19937 random(8);
  std::string letters(1 << 20, ' ');
  for (char& c : letters) c = static_cast<char>('a' + random() % 26);
  for (const std::string& text : {std::string(1 << 20, 'a'), std::string(1 << 20, ' '), std::string(1 << 20, '\n'),
                                  std::string(1 << 20, '<'), letters}) {
    const auto start = std::chrono::steady_clock::now();
    const Ids ids = encode(bundled(), text);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10)) << text.substr(0, 10);
    EXPECT_EQ(decode(bundled(), ids), text);
  }
}

TEST(Tokenizer, ThreadsShareOneTokenizer) {
  std::mt19937 random(9);
  std::vector<std::string> texts;
  std::vector<Ids> want;
  for (int i = 0; i < 50; ++i) {
    texts.push_back(random_text(random, 200));
    want.push_back(encode(bundled(), texts.back()));
  }
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (int& count : wrong)
    threads.emplace_back([&] {
      for (int round = 0; round < 5; ++round)
        for (std::size_t i = 0; i < texts.size(); ++i) {
          const auto ids = bundled().encode(texts[i], SpecialTokens::kParse);
          count += !ids.ok() || *ids != want[i] ? 1 : 0;
        }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

}  // namespace
}  // namespace penstock
