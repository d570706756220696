// Requests that are wrong, each with the status, the field and the words of its answer.
#include <gtest/gtest.h>

#include "server/testing/fixture.h"

namespace penstock::testing {
namespace {

constexpr const char* kChatPath = "/v1/chat/completions";
constexpr const char* kCompletionPath = "/v1/completions";

struct Bad {
  const char* path;
  std::string body;
  int status;
  const char* param;    // "": null
  const char* message;  // a part of it
};

Bad chat(const std::string& more, const char* param, const char* message, int status = 400) {
  return {kChatPath, R"({"messages":[{"role":"user","content":"hi"}],)" + more + "}", status, param, message};
}

Bad completion(const std::string& more, const char* param, const char* message, int status = 400) {
  return {kCompletionPath, R"({"prompt":"hi",)" + more + "}", status, param, message};
}

Bad message(const std::string& messages, const char* param, const char* words) {
  return {kChatPath, R"({"messages":)" + messages + "}", 400, param, words};
}

Bad prompt(const std::string& value, const char* param, const char* words) {
  return {kCompletionPath, R"({"prompt":)" + value + "}", 400, param, words};
}

std::string repeat(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

std::vector<Bad> bad_bodies() {
  return {
      {kChatPath, "", 400, "", "empty"},
      {kChatPath, "{", 400, "", "not valid JSON"},
      {kChatPath, "[]", 400, "", "must be a JSON object, not an array"},
      {kChatPath, "\"text\"", 400, "", "must be a JSON object, not a string"},
      {kChatPath, "null", 400, "", "must be a JSON object"},
      {kChatPath, "{\"a\":1}}", 400, "", "not valid JSON"},
      {kChatPath, "{\"a\":\"\xff\"}", 400, "", "not valid UTF-8 at byte 6"},
      {kChatPath, "{\"a\":\"\xed\xa0\x80\"}", 400, "", "not valid UTF-8"},
      {kChatPath, R"({"a":"\ud800"})", 400, "", "not valid JSON"},
      {kChatPath, R"({"a":1e999})", 400, "", "not valid JSON"},
      {kChatPath, R"({"temperature":NaN})", 400, "", "not valid JSON"},
      {kChatPath, R"({"a":)" + repeat("[", 100000), 400, "", "nested more than"},
      {kChatPath, R"({"a":)" + repeat("[", 65) + repeat("]", 65) + "}", 400, "", "nested more than 64 levels"},
      {kChatPath, "{\"a\":1,\"b\":\"" + std::string(1, '\x01') + "\"}", 400, "", "not valid JSON"},
  };
}

std::vector<Bad> bad_messages() {
  return {
      {kChatPath, "{}", 400, "messages", "is missing"},
      message("null", "messages", "is missing"),
      message("[]", "messages", "must not be empty"),
      message("\"hi\"", "messages", "must be an array, not a string"),
      message("[1]", "messages[0]", "must be an object, not a number"),
      message("[{}]", "messages[0].role", "must be system"),
      message(R"([{"role":"robot","content":"x"}])", "messages[0].role", "robot"),
      message(R"([{"role":"function","content":"x"}])", "messages[0].role", "function"),
      message(R"([{"role":1,"content":"x"}])", "messages[0].role", "a number"),
      message(R"([{"role":"user"}])", "messages[0].content", "is missing"),
      message(R"([{"role":"user","content":null}])", "messages[0].content", "is missing"),
      message(R"([{"role":"user","content":5}])", "messages[0].content", "must be a string"),
      message(R"([{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:"}}]}])",
              "messages[0].content[0]", "text only"),
      message(R"([{"role":"user","content":[{"text":"x"}]}])", "messages[0].content[0]", "object with a type"),
      message(R"([{"role":"user","content":[{"type":"text"}]}])", "messages[0].content[0].text", "must be a string"),
      message(R"([{"role":"user","content":"x"},{"role":"assistant","tool_calls":{}}])", "messages[1].tool_calls",
              "must be an array"),
      message(R"([{"role":"assistant","tool_calls":[{"id":"1"}]}])", "messages[0].tool_calls[0].function", "name"),
      message(R"([{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{x"}}]}])",
              "messages[0].tool_calls[0].function.arguments", "JSON object written as text"),
      message(R"([{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"[1]"}}]}])",
              "messages[0].tool_calls[0].function.arguments", "JSON object"),
      message(R"([{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":7}}]}])",
              "messages[0].tool_calls[0].function.arguments", "must be JSON text"),
      message(R"([{"role":"user","content":"x","name":7}])", "messages[0].name", "must be a string"),
      message(R"([{"role":"user","content":"RAISE"}])", "messages", "the template says no"),
      chat(R"("continue_final_message":true,"add_generation_prompt":true)", "continue_final_message", "exclude"),
      message(R"([{"role":"assistant","content":""}],"continue_final_message":true)", "messages",
              "needs a last message"),
      chat(R"("chat_template_kwargs":[])", "chat_template_kwargs", "must be an object"),
      chat(R"("chat_template_kwargs":{"messages":[]})", "chat_template_kwargs", "messages"),
      chat(R"("chat_template":"{{ x }}")", "chat_template", "not supported"),
      chat(R"("tools":{})", "tools", "must be an array"),
      chat(R"("tools":[{"type":"retrieval"}])", "tools[0].type", "function"),
      chat(R"("tools":[{"type":"function","function":{}}])", "tools[0].function", "name"),
      chat(R"("tool_choice":"required")", "tool_choice", "not supported yet"),
      chat(R"("tool_choice":{"type":"function","function":{"name":"f"}})", "tool_choice", "not supported yet"),
      chat(R"("tool_choice":"perhaps")", "tool_choice", "must be"),
      chat(R"("enable_thinking":"yes")", "enable_thinking", "true or false"),
      chat(R"("modalities":["audio"])", "modalities", "text only"),
  };
}

std::vector<Bad> bad_numbers() {
  return {
      chat(R"("temperature":-0.1)", "temperature", "at least 0 and at most 100, got -0.1"),
      chat(R"("temperature":101)", "temperature", "got 101"),
      chat(R"("temperature":1e300)", "temperature", "got 1e+300"),
      chat(R"("temperature":"hot")", "temperature", "must be a number, not a string"),
      chat(R"("temperature":true)", "temperature", "must be a number, not a boolean"),
      chat(R"("top_p":0)", "top_p", "greater than 0"),
      chat(R"("top_p":1e-60)", "top_p", "greater than 0"),
      chat(R"("top_p":1.01)", "top_p", "at most 1"),
      chat(R"("top_k":-2)", "top_k", "between -1"),
      chat(R"("top_k":1.5)", "top_k", "integer"),
      chat(R"("min_p":2)", "min_p", "at most 1"),
      chat(R"("repetition_penalty":0)", "repetition_penalty", "greater than 0"),
      chat(R"("presence_penalty":3)", "presence_penalty", "at most 2"),
      chat(R"("frequency_penalty":-3)", "frequency_penalty", "at least -2"),
      chat(R"("seed":1.5)", "seed", "integer of 64 bits"),
      chat(R"("seed":1e30)", "seed", "integer of 64 bits"),
      chat(R"("max_tokens":0)", "max_tokens", "between 1"),
      chat(R"("max_tokens":-5)", "max_tokens", "got -5"),
      chat(R"("max_tokens":99999999999)", "max_tokens", "between 1"),
      chat(R"("max_tokens":[1])", "max_tokens", "must be an integer, not an array"),
      chat(R"("max_completion_tokens":0)", "max_completion_tokens", "between 1"),
      chat(R"("max_tokens":4090)", "max_tokens", "context holds 4096 tokens"),
      chat(R"("n":0)", "n", "between 1 and 128"),
      chat(R"("n":129)", "n", "got 129"),
      chat(R"("n":1,"best_of":2)", "best_of", "best_of"),
      chat(R"("priority":1e10)", "priority", "integer"),
      chat(R"("logprobs":true,"top_logprobs":21)", "top_logprobs", "between 0 and 20"),
      chat(R"("top_logprobs":2)", "top_logprobs", "logprobs: true"),
      chat(R"("logprobs":5)", "logprobs", "true or false"),
      completion(R"("logprobs":21)", "logprobs", "between 0 and 20"),
      completion(R"("logprobs":true)", "logprobs", "must be an integer"),
      completion(R"("logprobs":1,"echo":true)", "echo", "not supported"),
      chat(R"("logit_bias":[1])", "logit_bias", "must be an object"),
      chat(R"("logit_bias":{"x":1})", "logit_bias", "not a token id"),
      chat(R"("logit_bias":{"300":1})", "logit_bias", "between 0 and 299"),
      chat(R"("logit_bias":{"-1":1})", "logit_bias", "not a token id"),
      chat(R"("logit_bias":{"5":101})", "logit_bias", "between -100 and 100"),
      chat(R"("logit_bias":{"5":"1"})", "logit_bias", "a string"),
  };
}

std::vector<Bad> bad_fields() {
  return {
      chat(R"("model":"gpt-5")", "model", "does not exist", 404),
      chat(R"("model":7)", "model", "must be a string"),
      chat(R"("stream":"yes")", "stream", "true or false"),
      chat(R"("stream":1)", "stream", "true or false"),
      chat(R"("stream_options":{"include_usage":true})", "stream_options", "stream: true"),
      chat(R"("stream":true,"stream_options":7)", "stream_options", "must be an object"),
      chat(R"("stream":true,"stream_options":{"include_usage":1})", "stream_options.include_usage", "true or false"),
      chat(R"("stop":7)", "stop", "must be a string or an array"),
      chat(R"("stop":[1])", "stop", "must hold strings"),
      chat(R"("stop":"")", "stop", "empty string"),
      chat(R"("stop":["a","b","c","d","e","f","g","h","i","j","k","l","m","n","o","p","q"])", "stop", "at most 16"),
      chat(R"("stop":")" + std::string(5000, 'x') + "\"", "stop", "longer than"),
      chat(R"("stop_token_ids":[300])", "stop_token_ids[0]", "between 0 and 299"),
      chat(R"("stop_token_ids":5)", "stop_token_ids", "array"),
      chat(R"("ignore_eos":1)", "ignore_eos", "true or false"),
      chat(R"("skip_special_tokens":"no")", "skip_special_tokens", "true or false"),
      chat(R"("cache_salt":"")", "cache_salt", "must not be empty"),
      chat(R"("cache_salt":7)", "cache_salt", "must be a string"),
      chat(R"("cache_salt":["a"])", "cache_salt", "must be a string"),
      chat(R"("cache_salt":")" + std::string(513, 'x') + "\"", "cache_salt", "at most 512 bytes, got 513"),
      completion(R"("cache_salt":")" + repeat("\xC3\xA9", 257) + "\"", "cache_salt", "got 514"),
      completion(R"("cache_salt":"")", "cache_salt", "must not be empty"),
      chat(R"("response_format":{"type":"json_object"})", "response_format", "not supported yet"),
      chat(R"("response_format":"json")", "response_format", "must be an object"),
      chat(R"("guided_json":{"type":"object"})", "guided_json", "not supported yet"),
      chat(R"("min_tokens":5)", "min_tokens", "not supported yet"),
      completion(R"("suffix":"x")", "suffix", "not supported"),
      {kCompletionPath, "{}", 400, "prompt", "is missing"},
      prompt("\"\"", "prompt", "no tokens"),
      prompt("[]", "prompt", "must not be empty"),
      prompt("{}", "prompt", "not an object"),
      prompt("7", "prompt", "not a number"),
      prompt("[\"a\",7]", "prompt[1]", "a number"),
      prompt("[[1],\"a\"]", "prompt[1]", "a string"),
      prompt("[1,\"a\"]", "prompt[1]", "a string"),
      prompt("[1,300]", "prompt[1]", "between 0 and 299, got 300"),
      prompt("[-1]", "prompt[0]", "got -1"),
      prompt("[1.5]", "prompt[0]", "got 1.5"),
      prompt("[[]]", "prompt", "no tokens"),
      prompt("[true]", "prompt[0]", "a boolean"),
      prompt("[\"a\",\"\"]", "prompt[1]", "no tokens"),
      {"/tokenize", "{}", 400, "prompt", "is missing"},
      {"/tokenize", R"({"prompt":[1]})", 400, "prompt", "must be a string"},
      {"/tokenize", R"({"prompt":"a","messages":[{"role":"user","content":"x"}]})", 400, "prompt", "exclude"},
      {"/tokenize", R"({"prompt":"a","parse_special_tokens":2})", 400, "parse_special_tokens", "true or false"},
      {"/tokenize", R"({"model":"x","prompt":"a"})", 404, "model", "does not exist"},
      {"/detokenize", "{}", 400, "tokens", "is missing"},
      {"/detokenize", R"({"tokens":"a"})", 400, "tokens", "array"},
      {"/detokenize", R"({"tokens":[300]})", 400, "tokens[0]", "between 0 and 299"},
      {"/detokenize", R"({"tokens":[299]})", 400, "tokens", "not in the vocabulary"},
  };
}

class BadRequestTest : public ServerTest {
 protected:
  void check(const std::vector<Bad>& table) {
    start();
    Client client(server_->port());  // one connection: a bad body is no reason to close it
    for (const Bad& bad : table) {
      const std::string what = std::string(bad.path) + ' ' + bad.body.substr(0, 200);
      const Answer answer = client.ask("POST", bad.path, bad.body);
      ASSERT_TRUE(answer.complete) << what;
      EXPECT_EQ(answer.status, bad.status) << what << " -> " << answer.body;
      const auto json = answer.json();
      ASSERT_TRUE(json.is_object() && json.contains("error")) << what << " -> " << answer.body;
      const auto& error = json["error"];
      EXPECT_EQ(error["type"], "invalid_request_error") << what;
      EXPECT_EQ(error["param"].is_null() ? "" : error["param"].get<std::string>(), bad.param) << what << answer.body;
      EXPECT_NE(error["message"].get<std::string>().find(bad.message), std::string::npos) << what << answer.body;
      EXPECT_TRUE(error.contains("code")) << what;
      EXPECT_LT(answer.body.size(), 3000U) << what;
    }
    EXPECT_TRUE(engine_->seen().empty());
    EXPECT_EQ(client.ask("GET", "/health").status, 200);
  }
};

TEST_F(BadRequestTest, Bodies) {
  check(bad_bodies());
}
TEST_F(BadRequestTest, Messages) {
  check(bad_messages());
}
TEST_F(BadRequestTest, Numbers) {
  check(bad_numbers());
}
TEST_F(BadRequestTest, Fields) {
  check(bad_fields());
}

TEST_F(BadRequestTest, LongQuotesAreCut) {
  start();
  const Answer answer = ask("POST", kChatPath, R"({"messages":[{"role":")" + std::string(100000, 'r') + R"("}]})");
  EXPECT_EQ(answer.status, 400);
  EXPECT_LT(answer.body.size(), 3000U);
}

TEST_F(BadRequestTest, NoChatTemplate) {
  template_ = nullptr;
  start();
  const Answer answer = ask("POST", kChatPath, R"({"messages":[{"role":"user","content":"hi"}]})");
  EXPECT_EQ(answer.status, 400);
  EXPECT_NE(answer.body.find("no chat template"), std::string::npos);
}

TEST_F(BadRequestTest, Heads) {
  start();
  struct {
    const char *method, *path, *headers;
    int status;
    const char* message;
  } const table[] = {
      {"GET", "/", "", 404, "There is no '/' here"},
      {"GET", "/v1", "", 404, "/v1"},
      {"POST", "/v1/chat", "", 404, "/v1/chat"},
      {"GET", "/v1/chat/completions", "", 405, "POST"},
      {"PUT", "/v1/chat/completions", "", 405, "PUT"},
      {"DELETE", "/v1/models/fake", "", 405, "GET"},
      {"POST", "/health", "", 405, "GET"},
      {"PUT", "/flush_cache", "", 405, "GET, POST"},
      {"POST", "/v1/completions", "Content-Type: text/plain\r\n", 415, "application/json"},
      {"POST", "/tokenize", "Content-Type: application/x-www-form-urlencoded\r\n", 415, "application/json"},
      {"GET", "/v1/models/nothing", "", 404, "nothing"},
      {"GET", "/%zz", "", 400, "target"},
  };
  for (const auto& row : table) {
    const Answer answer = ask(row.method, row.path, row.status == 415 ? "{}" : "", row.headers);
    EXPECT_EQ(answer.status, row.status) << row.method << ' ' << row.path << ' ' << answer.body;
    EXPECT_NE(answer.body.find(row.message), std::string::npos) << answer.body;
    EXPECT_TRUE(answer.json().contains("error"));
    EXPECT_EQ(answer.header("allow").empty(), row.status != 405);
  }
  for (const char* fine : {"Content-Type: application/json; charset=utf-8\r\n", "Content-Type: Application/JSON\r\n"}) {
    EXPECT_EQ(ask("POST", "/tokenize", R"({"prompt":"a"})", fine).status, 200) << fine;
  }
}

}  // namespace
}  // namespace penstock::testing
