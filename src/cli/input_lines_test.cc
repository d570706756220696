#include "cli/input_lines.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>

namespace penstock::cli {
namespace {

InputFile read(const std::string& text) {
  std::istringstream stream(text);
  return read_input(stream, "in");
}

TEST(InputLines, ReadsTheThreeKindsAndTheirFields) {
  const InputFile file = read(R"({"prompt": "a", "max_tokens": 5, "temperature": 0.5, "seed": 18446744073709551615}
{"messages": [{"role": "user", "content": "b"}], "chat_template_kwargs": {"enable_thinking": false}, "stop": "x"}
{"token_ids": [1, 2], "ignore_eos": true, "logprobs": 0, "stop": ["y", "z"], "stop_token_ids": [], "id": 7})");
  ASSERT_TRUE(file.errors.empty()) << file.errors.front();
  ASSERT_EQ(file.lines.size(), 3U);
  EXPECT_EQ(file.lines[0].prompt, "a");
  EXPECT_EQ(file.lines[0].max_tokens, 5);
  EXPECT_EQ(file.lines[0].sampling.temperature, 0.5F);
  EXPECT_EQ(file.lines[0].sampling.seed, 18446744073709551615U);
  EXPECT_FALSE(file.lines[0].is_chat());
  EXPECT_TRUE(file.lines[1].is_chat());
  EXPECT_EQ(file.lines[1].stop, std::vector<std::string>{"x"});
  EXPECT_EQ(file.lines[2].where, "in:3");
  EXPECT_EQ(file.lines[2].token_ids, (std::vector<std::int32_t>{1, 2}));
  EXPECT_EQ(file.lines[2].logprobs, 0);
  EXPECT_EQ(file.unknown_fields, std::set<std::string>{"id"});
}

TEST(InputLines, EveryWrongLineIsNamedAndWhatIsWrong) {
  const struct {
    const char* line;
    const char* words;
  } kCases[] = {
      {"", "not JSON"},
      {"{", "not JSON"},
      {"[]", "must be a JSON object"},
      {"{}", "needs prompt, messages or token_ids"},
      {R"({"prompt": "a", "token_ids": [1]})", "more than one"},
      {R"({"prompt": 3})", "prompt must be a string"},
      {R"({"messages": []})", "messages must be a list"},
      {R"({"messages": [{"content": "x"}]})", "messages [0]"},
      {R"({"token_ids": []})", "must not be empty"},
      {R"({"token_ids": [1, -1]})", "token_ids [1]: must be a whole number"},
      {R"({"token_ids": [1.5]})", "token_ids [0]"},
      {R"({"token_ids": [99999999999999999999]})", "token_ids [0]"},
      {R"({"prompt": "a", "max_tokens": 0})", "max_tokens must be"},
      {R"({"prompt": "a", "max_tokens": "5"})", "not string"},
      {R"({"prompt": "a", "temperature": -1})", "temperature must be a number from 0 to 100"},
      {R"({"prompt": "a", "top_p": 0})", "top_p must be a number above 0"},
      {R"({"prompt": "a", "seed": -1})", "seed must be"},
      {R"({"prompt": "a", "stop": ""})", "stop must be"},
      {R"({"prompt": "a", "stop": [3]})", "stop must be"},
      {R"({"prompt": "a", "ignore_eos": 1})", "ignore_eos must be"},
      {R"({"prompt": "a", "logprobs": 21})", "logprobs must be"},
      {R"({"prompt": "a", "tools": []})", "go with messages"},
      {"{\"prompt\": \"\xff\"}", "not JSON"},
  };
  for (const auto& test : kCases) {
    const InputFile file = read(std::string("{\"prompt\": \"fine\"}\n") + test.line + "\n");
    ASSERT_FALSE(file.errors.empty()) << test.line;
    EXPECT_TRUE(file.errors[0].starts_with("in:2: ")) << file.errors[0];
    EXPECT_NE(file.errors[0].find(test.words), std::string::npos) << file.errors[0];
    EXPECT_EQ(file.lines.size(), 1U);
  }
}

TEST(InputLines, DeepNestingIsAnErrorAndNotACrash) {
  const std::string deep = R"({"prompt": "a", "x": )" + std::string(200'000, '[') + std::string(200'000, ']') + "}";
  const InputFile file = read(deep);
  ASSERT_EQ(file.errors.size(), 1U);
  EXPECT_NE(file.errors[0].find("nested deeper"), std::string::npos) << file.errors[0];
}

TEST(InputLines, AnEmptyFileIsAnError) {
  EXPECT_EQ(read("").errors.size(), 1U);
}

TEST(InputLines, KwargsMustBeAnObject) {
  EXPECT_TRUE(parse_kwargs(R"({"enable_thinking": false})").ok());
  for (const char* text : {"", "[]", "3", "{"}) EXPECT_FALSE(parse_kwargs(text).ok()) << text;
}

TEST(InputLines, TokenIdsAreCheckedAgainstTheVocabulary) {
  InputLine line;
  line.token_ids = {0, 9};
  EXPECT_TRUE(encode_line(line, nullptr, nullptr, 10).ok());
  EXPECT_FALSE(encode_line(line, nullptr, nullptr, 9).ok());
  InputLine text;
  text.prompt = "a";
  EXPECT_FALSE(encode_line(text, nullptr, nullptr, 10).ok());
}

}  // namespace
}  // namespace penstock::cli
