#include "text/pretokenizer.h"

#include <gtest/gtest.h>

#include "text/tokenizer_test_util.h"

namespace penstock {
namespace {

std::vector<std::string> split(const std::vector<SplitRule>& rules, std::string_view text) {
  auto pretokenizer = Pretokenizer::compile(rules);
  if (!pretokenizer.ok()) return {"error: " + pretokenizer.status().message()};
  Pretokenizer::Scratch scratch(text.size());
  std::vector<Pretokenizer::Piece> pieces;
  const Status status = pretokenizer->split(text, scratch, pieces);
  if (!status.ok()) return {"error: " + status.message()};
  std::vector<std::string> result;
  for (const auto& piece : pieces) result.emplace_back(text.substr(piece.begin, piece.end - piece.begin));
  return result;
}

using Pieces = std::vector<std::string>;

TEST(Pretokenizer, SplitsAsQwenDoes) {
  const std::vector<SplitRule> rules = {{kQwenSplit}};
  EXPECT_EQ(split(rules, ""), Pieces{});
  EXPECT_EQ(split(rules, "Hello, world!  x"), (Pieces{"Hello", ",", " world", "!", " ", " x"}));
  EXPECT_EQ(split(rules, "I'M 12"), (Pieces{"I", "'M", " ", "1", "2"}));
  EXPECT_EQ(split(rules, "a\n \nb"), (Pieces{"a", "\n \n", "b"}));
  EXPECT_EQ(split(rules, "नमस्ते"), (Pieces{"नमस्ते"}));
  EXPECT_EQ(split(rules, "x\u180Ey"), (Pieces{"x", "\u180Ey"}));  // no white space, though \s of PCRE2 takes it
}

TEST(Pretokenizer, RulesApplyToThePiecesOfTheRuleBefore) {
  EXPECT_EQ(split({{"[0-9]"}, {"[a-c]+"}}, "xab1bcx"), (Pieces{"x", "ab", "1", "bc", "x"}));
  EXPECT_EQ(split({{"-"}, {"(?<=-)x"}}, "-x"), (Pieces{"-", "x"}));  // a piece does not see what is beside it
  EXPECT_EQ(split({{"a.c", true}}, "xa.cabc"), (Pieces{"x", "a.c", "abc"}));
  EXPECT_EQ(split({}, "all of it"), (Pieces{"all of it"}));
}

TEST(Pretokenizer, EmptyMatchesCut) {
  EXPECT_EQ(split({{"(?=b)"}}, "abéb"), (Pieces{"a", "bé", "b"}));
  EXPECT_EQ(split({{"x*"}}, "aéxxb"), (Pieces{"a", "é", "xx", "b"}));
}

TEST(Pretokenizer, TranslatesWhatMeansTheSame) {
  const auto translated = [](std::string_view pattern) {
    const auto result = translate_split_pattern(pattern);
    return result.ok() ? *result : "error: " + result.status().message();
  };
  EXPECT_EQ(translated(R"([^\s\p{L}]+\S\d{1,3})"), R"([^\p{White_Space}\p{L}]+\P{White_Space}\p{Nd}{1,3})");
  EXPECT_EQ(translated(R"(\p{Han}|\P{Lu}|\u4e00\x{1F600}\x41)"), R"(\p{sc:Han}|\P{Lu}|\x{4e00}\x{1F600}\x{41})");
  EXPECT_EQ(translated(R"((?i)a|(?>b)(?<!c)(?!d)\.\-[\]\\])"), R"((?i)a|(?>b)(?<!c)(?!d)\.\-[\]\\])");
}

TEST(Pretokenizer, RefusesWhatMayMeanSomethingElse) {
  for (const char* pattern : {R"(\w+)",
                              R"(\bx)",
                              R"(\h)",
                              R"(^a)",
                              R"(a$)",
                              R"([[:alpha:]])",
                              R"([a&&b])",
                              R"([]a])",
                              R"(a{2}+)",
                              R"(a{2}?)",
                              R"(a{,3})",
                              R"(a{1001})",
                              R"(a{99999999999999999999})",
                              R"({)",
                              R"((?<name>a))",
                              R"((?P<n>a))",
                              R"((?1))",
                              R"((?R))",
                              R"((?#c))",
                              R"((*UTF)a)",
                              R"((*COMMIT))",
                              R"(a(?i)b)",
                              R"(\1)",
                              R"(\K)",
                              R"(\Q)",
                              R"(\p{Greek_Extended})",
                              R"(\pL)",
                              R"(\p{L)",
                              R"(\x{110000000})",
                              R"(\xZZ)",
                              R"(\xE9)",
                              R"(\u12)",
                              R"([a)",
                              R"(\)",
                              R"((?i:ss))",
                              ""}) {
    const auto result = translate_split_pattern(pattern);
    ASSERT_FALSE(result.ok()) << pattern;
    EXPECT_EQ(result.status().code(), StatusCode::kUnsupported) << pattern;
  }
  EXPECT_FALSE(translate_split_pattern(std::string(5000, 'a')).ok());
}

TEST(Pretokenizer, RefusesWhatIsNoPattern) {
  for (const std::string& pattern : {std::string("(a"), std::string("a)"), std::string("*a"), std::string("[z-a]"),
                                     std::string(200, '(') + std::string(200, ')'), std::string("(?<=a+)b"),
                                     std::string("((((a{1000}){1000}){1000}){1000})")}) {
    const auto result = Pretokenizer::compile({{"ok"}, {pattern}});
    ASSERT_FALSE(result.ok()) << pattern;
    EXPECT_EQ(result.status().code(), StatusCode::kUnsupported);
    EXPECT_EQ(result.status().message().substr(0, 7), "split 1") << result.status().message();
  }
}

// A pattern from a file must neither hang nor eat the stack, whatever the text.
TEST(Pretokenizer, RunawayPatternsGiveUp) {
  const std::string text(200'000, 'a');
  for (const char* pattern : {"(?:a+)+[bc]", "(?:a|aa)+[bc]", "a*a*a*a*\\p{N}", "(?:a|a)*(?:a|a)*[bc]"}) {
    const auto start = std::chrono::steady_clock::now();
    const Pieces pieces = split({{pattern}}, text);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60)) << pattern;
    ASSERT_EQ(pieces.size(), 1U) << pattern;
    EXPECT_EQ(pieces[0].substr(0, 36), "error: the tokeniser's split pattern") << pieces[0].substr(0, 200);
  }
}

TEST(Pretokenizer, DeepNestingNeedsNoStack) {
  const std::string text = std::string(100'000, 'a') + "c";
  const Pieces pieces = split({{"(?:(?:a|b)(?:a|b)?)*c"}}, text);
  ASSERT_EQ(pieces.size(), 1U);
  EXPECT_TRUE(pieces[0] == text || pieces[0].starts_with("error: the tokeniser's split pattern"));
}

}  // namespace
}  // namespace penstock
