// What is wrong with a tokenizer.json is said with the part's name.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "text/tokenizer.h"
#include "text/tokenizer_test_util.h"

namespace penstock {
namespace {

using nlohmann::ordered_json;

struct Case {
  const char* name;
  std::function<void(ordered_json&)> damage;
  StatusCode code;
  const char* message;  // part of it
};

class MalformedTokenizer : public testing::TestWithParam<Case> {};

TEST_P(MalformedTokenizer, IsRefusedByName) {
  ordered_json json = tiny_tokenizer();
  ASSERT_TRUE(Tokenizer::parse(json.dump()).ok());
  GetParam().damage(json);
  const auto tokenizer = Tokenizer::parse(json.dump());
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_NE(tokenizer.status().message().find(GetParam().message), std::string::npos) << tokenizer.status().message();
  EXPECT_EQ(tokenizer.status().code(), GetParam().code) << tokenizer.status().message();
  EXPECT_EQ(tokenizer.status().message().substr(0, 16), "tokenizer.json: ");
}

constexpr StatusCode kCorrupt = StatusCode::kCorrupt;
constexpr StatusCode kUnsupported = StatusCode::kUnsupported;

ordered_json& split_step(ordered_json& j) {
  return j["pre_tokenizer"]["pretokenizers"][0];
}
ordered_json& byte_level_step(ordered_json& j) {
  return j["pre_tokenizer"]["pretokenizers"][1];
}

INSTANTIATE_TEST_SUITE_P(
    Root, MalformedTokenizer,
    testing::Values(
        Case{"NoObject", [](auto& j) { j = ordered_json::array({1}); }, kCorrupt,
             "the file must be an object, not an array"},
        Case{"Number", [](auto& j) { j = 5; }, kCorrupt, "the file must be an object"},
        Case{"Version", [](auto& j) { j["version"] = "2.0"; }, kUnsupported, "version \"2.0\""},
        Case{"VersionType", [](auto& j) { j["version"] = 1; }, kCorrupt, "version must be a string"},
        Case{"UnknownPart", [](auto& j) { j["sentencizer"] = nullptr; }, kUnsupported,
             "sentencizer is not a known field"},
        Case{"Truncation",
             [](auto& j) {
               j["truncation"] = {{"max_length", 512}};
             },
             kUnsupported, "truncation"},
        Case{"Padding",
             [](auto& j) {
               j["padding"] = {{"strategy", "BatchLongest"}};
             },
             kUnsupported, "padding"},
        Case{"NormalizerType",
             [](auto& j) {
               j["normalizer"] = {{"type", "Lowercase"}};
             },
             kUnsupported, "normalizer: type \"Lowercase\""},
        Case{"NormalizerNoType", [](auto& j) { j["normalizer"] = ordered_json::object(); }, kCorrupt,
             "normalizer has no \"type\""},
        Case{"NormalizerString", [](auto& j) { j["normalizer"] = "NFC"; }, kCorrupt, "normalizer must be an object"},
        Case{"NormalizerSequence",
             [](auto& j) {
               j["normalizer"] = {{"type", "Sequence"}, {"normalizers", ordered_json::array({{{"type", "NFKC"}}})}};
             },
             kUnsupported, "normalizer.normalizers[0]: type \"NFKC\""},
        Case{"PostProcessor",
             [](auto& j) {
               j["post_processor"] = {{"type", "TemplateProcessing"}};
             },
             kUnsupported, "post_processor: type \"TemplateProcessing\""},
        Case{"Decoder",
             [](auto& j) {
               j["decoder"] = {{"type", "Metaspace"}};
             },
             kUnsupported, "decoder: type \"Metaspace\""},
        Case{"NoDecoder", [](auto& j) { j.erase("decoder"); }, kUnsupported, "decoder is missing"},
        Case{"NoModel", [](auto& j) { j.erase("model"); }, kCorrupt, "no \"model\""}),
    [](const auto& test) { return test.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Pretokenizer, MalformedTokenizer,
    testing::Values(
        Case{"None", [](auto& j) { j["pre_tokenizer"] = nullptr; }, kUnsupported, "pre_tokenizer is missing or null"},
        Case{"Type",
             [](auto& j) {
               j["pre_tokenizer"] = {{"type", "Whitespace"}};
             },
             kUnsupported, "pre_tokenizer: type \"Whitespace\""},
        Case{"StepType",
             [](auto& j) {
               split_step(j) = {{"type", "Digits"}};
             },
             kUnsupported, "pre_tokenizer.pretokenizers[0]: type \"Digits\""},
        Case{"StepNoObject", [](auto& j) { split_step(j) = 3; }, kCorrupt, "pretokenizers[0] must be an object"},
        Case{"StepsNoArray", [](auto& j) { j["pre_tokenizer"]["pretokenizers"] = "x"; }, kCorrupt,
             "pretokenizers must be an array"},
        Case{"NoSteps", [](auto& j) { j["pre_tokenizer"].erase("pretokenizers"); }, kCorrupt,
             "has no \"pretokenizers\""},
        Case{"NoByteLevel", [](auto& j) { j["pre_tokenizer"]["pretokenizers"].erase(1); }, kUnsupported,
             "no ByteLevel step"},
        Case{"AfterByteLevel", [](auto& j) { j["pre_tokenizer"]["pretokenizers"].push_back(split_step(j)); },
             kUnsupported, "nothing is supported after ByteLevel"},
        Case{"PrefixSpace", [](auto& j) { byte_level_step(j)["add_prefix_space"] = true; }, kUnsupported,
             "add_prefix_space true"},
        Case{"UseRegex", [](auto& j) { byte_level_step(j).erase("use_regex"); }, kUnsupported,
             "use_regex true (the default)"},
        Case{"FlagType", [](auto& j) { byte_level_step(j)["trim_offsets"] = 1; }, kCorrupt,
             "trim_offsets must be true or false"},
        Case{"Behavior", [](auto& j) { split_step(j)["behavior"] = "Removed"; }, kUnsupported, "behavior \"Removed\""},
        Case{"Invert", [](auto& j) { split_step(j)["invert"] = true; }, kUnsupported, "invert true"},
        Case{"NoPattern", [](auto& j) { split_step(j).erase("pattern"); }, kCorrupt, "has no \"pattern\""},
        Case{"PatternForm", [](auto& j) { split_step(j)["pattern"] = ordered_json::object(); }, kCorrupt,
             "either \"Regex\" or \"String\""},
        Case{"PatternSyntax", [](auto& j) { split_step(j)["pattern"]["Regex"] = "(a"; }, kUnsupported,
             "is no regular expression"},
        Case{"PatternDialect", [](auto& j) { split_step(j)["pattern"]["Regex"] = "\\w+"; }, kUnsupported,
             "the escape \\w"},
        Case{"UnknownField", [](auto& j) { split_step(j)["limit"] = 3; }, kUnsupported, "pretokenizers[0].limit"}),
    [](const auto& test) { return test.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Added, MalformedTokenizer,
    testing::Values(
        Case{"NoArray", [](auto& j) { j["added_tokens"] = ordered_json::object(); }, kCorrupt,
             "added_tokens must be an array"},
        Case{"NoObject", [](auto& j) { j["added_tokens"][1] = "x"; }, kCorrupt, "added_tokens[1] must be an object"},
        Case{"NoId", [](auto& j) { j["added_tokens"][1].erase("id"); }, kCorrupt, "added_tokens[1] has no \"id\""},
        Case{"NoContent", [](auto& j) { j["added_tokens"][1].erase("content"); }, kCorrupt,
             "added_tokens[1].content is missing"},
        Case{"Empty", [](auto& j) { j["added_tokens"][1]["content"] = ""; }, kCorrupt,
             "added_tokens[1].content is empty"},
        Case{"Long", [](auto& j) { j["added_tokens"][1]["content"] = std::string(1000, 'x'); }, kUnsupported,
             "1000 bytes"},
        Case{"NegativeId", [](auto& j) { j["added_tokens"][1]["id"] = -1; }, kCorrupt,
             "added_tokens[1].id is out of range"},
        Case{"HugeId", [](auto& j) { j["added_tokens"][1]["id"] = 2'000'000'000; }, kCorrupt,
             "added_tokens[1].id is out of range"},
        Case{"HugerId", [](auto& j) { j["added_tokens"][1]["id"] = UINT64_MAX; }, kCorrupt,
             "added_tokens[1].id is out of range"},
        Case{"IdFraction", [](auto& j) { j["added_tokens"][1]["id"] = 1.5; }, kCorrupt,
             "must be an integer, not a fraction"},
        Case{"SameId", [](auto& j) { j["added_tokens"][1]["id"] = 259; }, kCorrupt,
             "added_tokens[1] repeats the id 259"},
        Case{"SameContent", [](auto& j) { j["added_tokens"][1]["content"] = "<|end|>"; }, kCorrupt,
             "repeats the content \"<|end|>\""},
        Case{"IdOfAnother", [](auto& j) { j["added_tokens"][1]["id"] = 7; }, kCorrupt,
             "which model.vocab gives to another token"},
        Case{"OtherIdInVocab", [](auto& j) { j["model"]["vocab"]["<think>"] = 300; }, kCorrupt,
             "but in model.vocab 300"},
        Case{"Lstrip", [](auto& j) { j["added_tokens"][1]["lstrip"] = true; }, kUnsupported,
             "added_tokens[1].lstrip true"},
        Case{"Rstrip", [](auto& j) { j["added_tokens"][1]["rstrip"] = true; }, kUnsupported,
             "added_tokens[1].rstrip true"},
        Case{"SingleWord", [](auto& j) { j["added_tokens"][1]["single_word"] = true; }, kUnsupported,
             "single_word true"},
        Case{"Normalized", [](auto& j) { j["added_tokens"][1]["normalized"] = true; }, kUnsupported, "normalized true"},
        Case{"FlagType", [](auto& j) { j["added_tokens"][1]["special"] = "yes"; }, kCorrupt,
             "special must be true or false"}),
    [](const auto& test) { return test.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Model, MalformedTokenizer,
    testing::Values(
        Case{"Type", [](auto& j) { j["model"]["type"] = "Unigram"; }, kUnsupported, "model: type \"Unigram\""},
        Case{"NoType", [](auto& j) { j["model"].erase("type"); }, kCorrupt, "model has no \"type\""},
        Case{"NoObject", [](auto& j) { j["model"] = 1; }, kCorrupt, "model must be an object"},
        Case{"Dropout", [](auto& j) { j["model"]["dropout"] = 0.1; }, kUnsupported, "model.dropout"},
        Case{"DropoutType", [](auto& j) { j["model"]["dropout"] = "no"; }, kCorrupt, "model.dropout must be a number"},
        Case{"Prefix", [](auto& j) { j["model"]["continuing_subword_prefix"] = "##"; }, kUnsupported,
             "continuing_subword_prefix"},
        Case{"Suffix", [](auto& j) { j["model"]["end_of_word_suffix"] = "</w>"; }, kUnsupported, "end_of_word_suffix"},
        Case{"ByteFallback", [](auto& j) { j["model"]["byte_fallback"] = true; }, kUnsupported,
             "model.byte_fallback true"},
        Case{"IgnoreMergesType", [](auto& j) { j["model"]["ignore_merges"] = 0; }, kCorrupt,
             "ignore_merges must be true or false"},
        Case{"UnknownField", [](auto& j) { j["model"]["cache"] = 1; }, kUnsupported,
             "model.cache is not a known field"},
        Case{"NoVocab", [](auto& j) { j["model"].erase("vocab"); }, kCorrupt, "model.vocab is missing"},
        Case{"VocabArray", [](auto& j) { j["model"]["vocab"] = ordered_json::array(); }, kCorrupt,
             "model.vocab must be an object"},
        Case{"VocabEmpty", [](auto& j) { j["model"]["vocab"] = ordered_json::object(); }, kUnsupported,
             "no token for the byte 0"},
        Case{"MissingByte", [](auto& j) { j["model"]["vocab"].erase("A"); }, kUnsupported,
             "no token for the byte 65, written \"A\""},
        Case{"NegativeId", [](auto& j) { j["model"]["vocab"]["ab"] = -5; }, kCorrupt,
             "model.vocab[\"ab\"] is out of range"},
        Case{"HugeId", [](auto& j) { j["model"]["vocab"]["ab"] = 1 << 22; }, kCorrupt,
             "model.vocab[\"ab\"] is out of range"},
        Case{"HugerId", [](auto& j) { j["model"]["vocab"]["ab"] = INT64_MAX; }, kCorrupt,
             "model.vocab[\"ab\"] is out of range"},
        Case{"IdString", [](auto& j) { j["model"]["vocab"]["ab"] = "256"; }, kCorrupt,
             "model.vocab[\"ab\"] must be an integer"},
        Case{"IdNull", [](auto& j) { j["model"]["vocab"]["ab"] = nullptr; }, kCorrupt,
             "model.vocab[\"ab\"] must be an integer"},
        Case{"DuplicateId", [](auto& j) { j["model"]["vocab"]["ab"] = 65; }, kCorrupt,
             "model.vocab[\"ab\"] repeats the id 65"},
        Case{"NoMerges", [](auto& j) { j["model"].erase("merges"); }, kCorrupt, "model.merges is missing"},
        Case{"MergesString", [](auto& j) { j["model"]["merges"] = "a b"; }, kCorrupt, "model.merges must be an array"},
        Case{"MergeNumber", [](auto& j) { j["model"]["merges"][1] = 4; }, kCorrupt, "model.merges[1] must be a string"},
        Case{"MergeMixed",
             [](auto& j) {
               j["model"]["merges"][1] = ordered_json::array({"ab", "c"});
             },
             kCorrupt, "model.merges[1] must be a string, like the first"},
        Case{"MergeMixedToo",
             [](auto& j) {
               j["model"]["merges"][0] = ordered_json::array({"a", "b"});
             },
             kCorrupt, "model.merges[1] must be an array, like the first"},
        Case{"MergeOneWord", [](auto& j) { j["model"]["merges"][1] = "abc"; }, kCorrupt,
             "model.merges[1] must be two tokens"},
        Case{"MergeThreeWords", [](auto& j) { j["model"]["merges"][1] = "a b c"; }, kCorrupt,
             "model.merges[1] must be two tokens"},
        Case{"PairOfThree",
             [](auto& j) {
               j["model"]["merges"] = ordered_json::array({ordered_json::array({"a", "b", "c"})});
             },
             kCorrupt, "model.merges[0] must be an array of two strings"},
        Case{"PairOfOne", [](auto& j) { j["model"]["merges"] = ordered_json::array({ordered_json::array({"a"})}); },
             kCorrupt, "model.merges[0] must be an array of two strings"},
        Case{"PairOfNumbers",
             [](auto& j) {
               j["model"]["merges"] = ordered_json::array({ordered_json::array({1, 2})});
             },
             kCorrupt, "model.merges[0] must be an array of two strings"},
        Case{"MergeUnknownLeft", [](auto& j) { j["model"]["merges"][1] = "zz b"; }, kCorrupt,
             "model.merges[1] names \"zz\""},
        Case{"MergeUnknownRight", [](auto& j) { j["model"]["merges"][1] = "a zz"; }, kCorrupt,
             "model.merges[1] names \"zz\""},
        Case{"MergeUnknownResult", [](auto& j) { j["model"]["merges"][1] = "a c"; }, kCorrupt,
             "model.merges[1] makes \"ac\""},
        Case{"MergeTwice", [](auto& j) { j["model"]["merges"].push_back("a b"); }, kCorrupt, "model.merges[3] repeats"},
        Case{"MergeMakesSpecial",
             [](auto& j) {
               j["added_tokens"][0]["content"] = "ab";
               j["added_tokens"][0]["id"] = 256;
             },
             kUnsupported, "model.merges[0] makes the special token \"ab\""}),
    [](const auto& test) { return test.param.name; });

Status parse_status(std::string_view json) {
  const auto tokenizer = Tokenizer::parse(json);
  return tokenizer.ok() ? Status() : tokenizer.status();
}

TEST(MalformedJson, EveryTruncationIsRefused) {
  const std::string json = tiny_tokenizer().dump();
  for (std::size_t size = 0; size < json.size(); size += size < 64 ? 1 : 37) {
    const Status status = parse_status(std::string_view(json).substr(0, size));
    ASSERT_EQ(status.code(), kCorrupt) << size << ": " << status.message();
    ASSERT_NE(status.message().find("not valid JSON"), std::string::npos);
  }
}

TEST(MalformedJson, TextThatIsNoJson) {
  const std::string json = tiny_tokenizer().dump();
  for (const std::string& bad :
       {std::string(), std::string(" "), std::string("{"), std::string("nul"), std::string(100, '\0'), json + "x",
        json + json, "\xFF" + json, std::string(100'000, '['), std::string("{\"model\": \"\xC3\"}"),
        std::string("{\"model\": \"\\ud800\"}")})
    EXPECT_EQ(parse_status(bad).code(), kCorrupt) << bad.substr(0, 40);
}

TEST(MalformedJson, FieldsGivenTwice) {
  std::string json = tiny_tokenizer().dump();
  const Status root = parse_status("{\"version\":\"1.0\"," + json.substr(1));
  EXPECT_NE(root.message().find("version is given twice"), std::string::npos) << root.message();
  json.replace(json.find("\"ab\":256"), 8, "\"ab\":256,\"ab\":301");
  const Status vocab = parse_status(json);
  EXPECT_NE(vocab.message().find("model.vocab has \"ab\" twice"), std::string::npos) << vocab.message();
  EXPECT_EQ(vocab.code(), kCorrupt);
}

class TokenizerFolder : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              ("penstock_tokenizer_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
};

TEST_F(TokenizerFolder, WithoutTheFile) {
  const auto tokenizer = Tokenizer::load(folder_);
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_EQ(tokenizer.status().code(), StatusCode::kNotFound);
  EXPECT_NE(tokenizer.status().message().find((folder_ / "tokenizer.json").string()), std::string::npos);
  EXPECT_EQ(Tokenizer::load(folder_ / "nowhere").status().code(), StatusCode::kNotFound);
}

TEST_F(TokenizerFolder, FolderInsteadOfTheFile) {
  std::filesystem::create_directory(folder_ / "tokenizer.json");
  EXPECT_EQ(Tokenizer::load(folder_).status().code(), StatusCode::kNotFound);
}

TEST_F(TokenizerFolder, HugeFile) {
  std::ofstream(folder_ / "tokenizer.json") << "{";
  std::filesystem::resize_file(folder_ / "tokenizer.json", 1ULL << 33);  // sparse: takes no room
  const auto tokenizer = Tokenizer::load(folder_);
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_EQ(tokenizer.status().code(), kUnsupported);
  EXPECT_NE(tokenizer.status().message().find("8589934592 bytes"), std::string::npos) << tokenizer.status().message();
}

TEST_F(TokenizerFolder, NamesTheFileInErrors) {
  std::ofstream(folder_ / "tokenizer.json") << "{}";
  const auto tokenizer = Tokenizer::load(folder_);
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_EQ(tokenizer.status().message(), (folder_ / "tokenizer.json").string() + ": there is no \"model\"");
}

}  // namespace
}  // namespace penstock
