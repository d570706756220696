#include <gtest/gtest.h>

#include <random>

#include "text/tokenizer.h"

namespace penstock {
namespace {

struct Outcome {
  std::string text;
  std::optional<std::string> stop;
  bool operator==(const Outcome&) const = default;
};

Outcome run(const std::vector<std::string>& stops, const std::vector<std::string>& pieces, bool include = false) {
  StopMatcher matcher(stops, include);
  Outcome outcome;
  for (const std::string& piece : pieces) {
    auto result = matcher.push(piece);
    outcome.text += result.text;
    outcome.stop = result.stop;
    if (result.stop) return outcome;
  }
  outcome.text += matcher.finish();
  return outcome;
}

TEST(StopMatcher, CutsBeforeTheStop) {
  EXPECT_EQ(run({"END"}, {"one END two"}), (Outcome{"one ", "END"}));
  EXPECT_EQ(run({"END"}, {"one E", "N", "D two"}), (Outcome{"one ", "END"}));
  EXPECT_EQ(run({"END"}, {"one E", "N"}), (Outcome{"one EN", std::nullopt}));
  EXPECT_EQ(run({"END"}, {"END"}), (Outcome{"", "END"}));
  EXPECT_EQ(run({}, {"a", "b"}), (Outcome{"ab", std::nullopt}));
  EXPECT_EQ(run({""}, {"a", "b"}), (Outcome{"ab", std::nullopt}));
}

TEST(StopMatcher, KeepsTheStopIfAsked) {
  EXPECT_EQ(run({"END"}, {"one E", "ND two"}, true), (Outcome{"one END", "END"}));
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBeginAStop) {
  StopMatcher matcher({"\n\nQ", "stop"}, false);
  EXPECT_EQ(matcher.push("abc").text, "abc");
  EXPECT_EQ(matcher.push("x\n").text, "x");
  EXPECT_EQ(matcher.push("\n").text, "");
  EXPECT_EQ(matcher.push("\n").text, "\n");  // the first of three no longer can
  EXPECT_EQ(matcher.push("sto").text, "\n\n");
  EXPECT_EQ(matcher.push("").text, "");
  EXPECT_EQ(matcher.push("re").text, "store");
  EXPECT_EQ(matcher.push("s").text, "");
  EXPECT_EQ(matcher.finish(), "s");
}

TEST(StopMatcher, OverlapsWithItself) {
  EXPECT_EQ(run({"aab"}, {"a", "a", "a", "b"}), (Outcome{"a", "aab"}));
  EXPECT_EQ(run({"abab"}, {"ababab"}), (Outcome{"", "abab"}));
  EXPECT_EQ(run({"ababc"}, {"abab", "abc"}), (Outcome{"ab", "ababc"}));
}

TEST(StopMatcher, SeveralStops) {
  EXPECT_EQ(run({"world", "lo"}, {"hello world"}), (Outcome{"hel", "lo"}));
  EXPECT_EQ(run({"bc", "abc"}, {"xabc"}), (Outcome{"x", "abc"}));    // both end there: the longest
  EXPECT_EQ(run({"abcd", "bc"}, {"xabcd"}), (Outcome{"xa", "bc"}));  // complete first
  EXPECT_EQ(run({"ab", "abc"}, {"abc"}), (Outcome{"", "ab"}));
}

TEST(StopMatcher, WholeCharacters) {
  EXPECT_EQ(run({"é!"}, {"caf", "é", "è", "é", "!"}), (Outcome{"caféè", "é!"}));
  EXPECT_EQ(run({"🙂"}, {"a🙃", "🙂"}), (Outcome{"a🙃", "🙂"}));
  StopMatcher matcher({"漢字"}, false);
  EXPECT_EQ(matcher.push("渡").text, "渡");  // shares its first byte with 漢 only
  EXPECT_EQ(matcher.push("漢").text, "");
  EXPECT_EQ(matcher.push("字").stop, "漢字");
}

TEST(StopMatcher, NothingComesAfterTheStop) {
  StopMatcher matcher({"x"}, false);
  EXPECT_EQ(matcher.push("axb").text, "a");
  EXPECT_EQ(matcher.push("more").text, "");
  EXPECT_EQ(matcher.push("more").stop, "x");
  EXPECT_EQ(matcher.finish(), "");
}

// Against the definition, on random stops, texts and cuts; and nothing is held that need not be.
TEST(StopMatcher, DoesNotDependOnPieces) {
  std::mt19937 random(4);
  const auto word = [&random](std::size_t length) {
    std::string text;
    for (std::size_t i = 0; i < length; ++i) text += static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> stops;
    for (std::size_t i = random() % 4; i > 0; --i) stops.push_back(word(1 + random() % 6));
    const std::string text = word(random() % 30);
    Outcome want{text, std::nullopt};
    for (std::size_t end = 1; end <= text.size() && !want.stop; ++end)
      for (const std::string& stop : stops)
        if (std::string_view(text).substr(0, end).ends_with(stop) && (!want.stop || stop.size() > want.stop->size()))
          want = {text.substr(0, end - stop.size()), stop};
    StopMatcher matcher(stops, false);
    Outcome got;
    std::size_t pushed = 0;
    while (pushed < text.size() && !got.stop) {
      const std::size_t size = std::min<std::size_t>(random() % 4, text.size() - pushed);
      const auto result = matcher.push(std::string_view(text).substr(pushed, size));
      pushed += size;
      got.text += result.text;
      got.stop = result.stop;
      if (got.stop) break;
      const std::string_view held = std::string_view(text).substr(got.text.size(), pushed - got.text.size());
      const bool needed =
          std::any_of(stops.begin(), stops.end(), [&](const auto& stop) { return stop.starts_with(held); });
      ASSERT_TRUE(held.empty() || needed) << held;
    }
    if (!got.stop) got.text += matcher.finish();
    ASSERT_EQ(got, want) << text;
  }
}

}  // namespace
}  // namespace penstock
