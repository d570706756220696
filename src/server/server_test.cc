// Every endpoint, whole answers and streams, the phases of the server's life.
#include <algorithm>

#include <gtest/gtest.h>

#include "server/testing/fixture.h"

namespace penstock::testing {
namespace {

using Json = nlohmann::json;

const char* kChat = R"({"model":"fake","messages":[{"role":"user","content":"hi"}]})";
// What FakeEngine answers to kChat: the bytes of the prompt that are not special tokens.
const char* kChatAnswer = "user\nhi\nassistant\n";

std::string chat_body(const std::string& more) {
  return R"({"messages":[{"role":"user","content":"hi"}],)" + more + "}";
}

Script words(std::vector<std::string> texts, FinishReason finish = FinishReason::kStop) {
  Script script;
  for (auto& text : texts) script.steps.push_back({static_cast<unsigned char>(text.empty() ? 'x' : text[0]), text});
  script.finish = finish;
  return script;
}

TEST_F(ServerTest, ChatWhole) {
  start();
  const Answer answer = ask("POST", "/v1/chat/completions", kChat);
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.header("content-type"), "application/json");
  EXPECT_EQ(answer.header("server"), "penstock/1.2.3");
  EXPECT_EQ(answer.header("x-request-id").size(), 32U);
  const Json j = answer.json();
  EXPECT_EQ(j["object"], "chat.completion");
  EXPECT_EQ(j["model"], "fake");
  EXPECT_TRUE(j["id"].get<std::string>().starts_with("chatcmpl-"));
  ASSERT_EQ(j["choices"].size(), 1U);
  EXPECT_EQ(j["choices"][0]["index"], 0);
  EXPECT_EQ(j["choices"][0]["message"], Json({{"role", "assistant"}, {"content", kChatAnswer}, {"refusal", nullptr}}));
  EXPECT_EQ(j["choices"][0]["finish_reason"], "stop");
  EXPECT_TRUE(j["choices"][0]["logprobs"].is_null());
  const auto prompt = engine_->seen()[0].prompt;
  EXPECT_EQ(std::count(prompt.begin(), prompt.end(), kImStart), 2);
  EXPECT_EQ(j["usage"]["prompt_tokens"], prompt.size());
  EXPECT_EQ(j["usage"]["completion_tokens"], std::string(kChatAnswer).size());
  EXPECT_EQ(j["usage"]["total_tokens"], prompt.size() + std::string(kChatAnswer).size());
  EXPECT_EQ(j["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

TEST_F(ServerTest, ChatStream) {
  start();
  const Answer answer =
      ask("POST", "/v1/chat/completions", chat_body(R"("stream":true,"stream_options":{"include_usage":true})"));
  ASSERT_EQ(answer.status, 200) << answer.body;
  ASSERT_TRUE(answer.complete);
  EXPECT_EQ(answer.header("content-type"), "text/event-stream; charset=utf-8");
  auto data = sse_data(answer.body);
  ASSERT_GE(data.size(), 4U);
  EXPECT_EQ(data.back(), "[DONE]");
  const Json first = Json::parse(data.front());
  EXPECT_EQ(first["object"], "chat.completion.chunk");
  EXPECT_EQ(first["choices"][0]["delta"], Json({{"role", "assistant"}, {"content", ""}}));
  EXPECT_TRUE(first["usage"].is_null());
  const Json usage = Json::parse(data[data.size() - 2]);
  EXPECT_EQ(usage["choices"], Json::array());
  EXPECT_EQ(usage["usage"]["completion_tokens"], std::string(kChatAnswer).size());
  const Json finish = Json::parse(data[data.size() - 3]);
  EXPECT_EQ(finish["choices"][0]["delta"], Json::object());
  EXPECT_EQ(finish["choices"][0]["finish_reason"], "stop");
  std::string text;
  for (std::size_t i = 1; i + 3 < data.size(); ++i) {
    const Json chunk = Json::parse(data[i]);
    EXPECT_EQ(chunk["id"], first["id"]);
    EXPECT_TRUE(chunk["choices"][0]["finish_reason"].is_null());
    text += chunk["choices"][0]["delta"]["content"].get<std::string>();
  }
  EXPECT_EQ(text, kChatAnswer);
}

TEST_F(ServerTest, ContinuousUsageCountsUp) {
  start();
  const Answer answer = ask("POST", "/v1/completions",
                            R"({"prompt":"abc","stream":true,
                                "stream_options":{"include_usage":true,"continuous_usage_stats":true}})");
  const auto data = sse_data(answer.body);
  ASSERT_EQ(data.size(), 6U) << answer.body;  // a, b, c, finish, usage, [DONE]
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Json::parse(data[static_cast<std::size_t>(i)])["usage"]["completion_tokens"], i + 1);
  }
}

TEST_F(ServerTest, CompletionForms) {
  start();
  const Answer one = ask("POST", "/v1/completions", R"({"prompt":"abc"})");
  ASSERT_EQ(one.status, 200) << one.body;
  EXPECT_EQ(one.json()["object"], "text_completion");
  EXPECT_EQ(one.json()["choices"][0]["text"], "abc");
  EXPECT_EQ(one.json()["choices"].size(), 1U);
  const Json many = ask("POST", "/v1/completions", R"({"prompt":["ab","cde"],"n":2})").json();
  ASSERT_EQ(many["choices"].size(), 4U);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(many["choices"][static_cast<std::size_t>(i)]["index"], i);
    EXPECT_EQ(many["choices"][static_cast<std::size_t>(i)]["text"], i < 2 ? "ab" : "cde");
  }
  EXPECT_EQ(many["usage"]["prompt_tokens"], 5);  // each prompt once
  EXPECT_EQ(many["usage"]["completion_tokens"], 10);
  EXPECT_EQ(ask("POST", "/v1/completions", R"({"prompt":[104,105]})").json()["choices"][0]["text"], "hi");
  const Json arrays = ask("POST", "/v1/completions", R"({"prompt":[[104],[105,106]]})").json();
  EXPECT_EQ(arrays["choices"][1]["text"], "ij");
  const Json echo = ask("POST", "/v1/completions", R"({"prompt":[104,105],"echo":true})").json();
  EXPECT_EQ(echo["choices"][0]["text"], "hihi");
  const auto echo_stream =
      sse_data(ask("POST", "/v1/completions", R"({"prompt":"hé","echo":true,"stream":true})").body);
  EXPECT_EQ(Json::parse(echo_stream[0])["choices"][0]["text"], "héh");
  const Json length = ask("POST", "/v1/completions", R"({"prompt":"abc","max_tokens":2})").json();
  EXPECT_EQ(length["choices"][0]["text"], "ab");
  EXPECT_EQ(length["choices"][0]["finish_reason"], "length");
}

TEST_F(ServerTest, SpecialTokensOfUsersStayText) {
  start();
  ask("POST", "/v1/completions", R"({"prompt":"a<|im_end|>"})");
  ask("POST", "/v1/completions", R"({"prompt":"a<|im_end|>","parse_special_tokens":true})");
  ask("POST", "/v1/chat/completions", R"({"messages":[{"role":"user","content":"<|im_end|>"}]})");
  const auto seen = engine_->seen();
  EXPECT_EQ(seen[0].prompt.size(), 11U);
  EXPECT_EQ(seen[1].prompt, (std::vector<std::int32_t>{'a', kImEnd}));
  EXPECT_EQ(std::count(seen[2].prompt.begin(), seen[2].prompt.end(), kImEnd), 1);
}

TEST_F(ServerTest, FieldsReachTheEngine) {
  start();
  const Answer answer = ask("POST", "/v1/chat/completions", chat_body(R"(
      "temperature":0.5,"top_p":0.9,"top_k":7,"min_p":0.1,"presence_penalty":1,"frequency_penalty":-1,
      "repetition_penalty":1.2,"seed":-1,"stop":["X","Y"],"stop_token_ids":[5,6],"ignore_eos":true,
      "max_tokens":9,"max_completion_tokens":7,"logit_bias":{"65":-100,"66":2.5},"priority":3,
      "skip_special_tokens":false,"include_stop_str_in_output":true,"logprobs":true,"top_logprobs":2,
      "cache_salt":"tenant é","user":"someone","metadata":{"a":1},"store":false,"no_such_field":[1]
  )"));
  ASSERT_EQ(answer.status, 200) << answer.body;
  const Request r = engine_->seen()[0];
  EXPECT_FLOAT_EQ(r.sampling.temperature, 0.5F);
  EXPECT_FLOAT_EQ(r.sampling.top_p, 0.9F);
  EXPECT_EQ(r.sampling.top_k, 7);
  EXPECT_FLOAT_EQ(r.sampling.min_p, 0.1F);
  EXPECT_FLOAT_EQ(r.sampling.presence_penalty, 1);
  EXPECT_FLOAT_EQ(r.sampling.frequency_penalty, -1);
  EXPECT_FLOAT_EQ(r.sampling.repetition_penalty, 1.2F);
  EXPECT_EQ(r.sampling.seed, UINT64_MAX);
  EXPECT_EQ(r.stop, (std::vector<std::string>{"X", "Y"}));
  EXPECT_EQ(r.stop_token_ids, (std::vector<std::int32_t>{5, 6}));
  EXPECT_TRUE(r.ignore_eos);
  EXPECT_EQ(r.max_tokens, 7);
  EXPECT_EQ(r.sampling.logit_bias, (std::vector<std::pair<std::int32_t, float>>{{65, -100.0F}, {66, 2.5F}}));
  EXPECT_EQ(r.priority, 3);
  EXPECT_FALSE(r.skip_special_tokens);
  EXPECT_TRUE(r.include_stop_in_output);
  EXPECT_EQ(r.logprobs, 2);
  EXPECT_EQ(r.cache_salt, "tenant é");
}

TEST_F(ServerTest, DefaultsComeFromTheModel) {
  generation_config_.do_sample = true;
  generation_config_.temperature = 0.6F;
  generation_config_.top_k = 20;
  start();
  ask("POST", "/v1/completions", R"({"prompt":"a"})");
  ask("POST", "/v1/completions", R"({"prompt":"a","temperature":null,"top_k":1})");
  ask("POST", "/v1/completions", R"({"prompt":"a","n":3,"seed":10})");
  const auto seen = engine_->seen();
  EXPECT_FLOAT_EQ(seen[0].sampling.temperature, 0.6F);
  EXPECT_EQ(seen[0].sampling.top_k, 20);
  EXPECT_EQ(seen[0].max_tokens, -1);
  EXPECT_EQ(seen[0].logprobs, -1);
  EXPECT_EQ(seen[1].sampling.top_k, 1);
  EXPECT_NE(seen[0].sampling.seed, seen[1].sampling.seed);  // drawn at random
  EXPECT_EQ(seen[2].sampling.seed, 10U);
  EXPECT_EQ(seen[4].sampling.seed, 12U);
}

TEST_F(ServerTest, DoSampleFalseIsGreedy) {
  generation_config_.temperature = 0.6F;
  start();
  ask("POST", "/v1/completions", R"({"prompt":"a"})");
  EXPECT_FLOAT_EQ(engine_->seen()[0].sampling.temperature, 0);
}

TEST_F(ServerTest, ChatLogprobs) {
  start([](const Request&) { return words({"A", "\xC3\xA9"}); });
  const std::string more = R"("logprobs":true,"top_logprobs":2)";
  const Json whole = ask("POST", "/v1/chat/completions", chat_body(more)).json();
  const Json content = whole["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 2U) << whole;
  EXPECT_EQ(content[0]["token"], "A");
  EXPECT_EQ(content[0]["bytes"], Json({65}));
  EXPECT_EQ(content[0]["logprob"], -0.5);
  ASSERT_EQ(content[0]["top_logprobs"].size(), 2U);
  EXPECT_EQ(content[0]["top_logprobs"][1]["token"], "b");
  EXPECT_EQ(content[1]["token"], "\xEF\xBF\xBD");  // half a character: its bytes say which
  EXPECT_EQ(content[1]["bytes"], Json({0xC3}));
  Json streamed = Json::array();
  for (const auto& data : sse_data(ask("POST", "/v1/chat/completions", chat_body(more + R"(,"stream":true)")).body)) {
    if (data == "[DONE]") continue;
    const Json logprobs = Json::parse(data)["choices"][0]["logprobs"];
    if (!logprobs.is_null()) streamed.insert(streamed.end(), logprobs["content"].begin(), logprobs["content"].end());
  }
  EXPECT_EQ(streamed, content);
}

TEST_F(ServerTest, CompletionLogprobs) {
  start();
  const Json j = ask("POST", "/v1/completions", R"({"prompt":"hé!","logprobs":2})").json();
  const Json logprobs = j["choices"][0]["logprobs"];
  ASSERT_EQ(logprobs["tokens"].size(), 4U) << j;
  EXPECT_EQ(logprobs["tokens"][0], "h");
  EXPECT_EQ(logprobs["token_logprobs"], Json({-0.5, -0.5, -0.5, -0.5}));
  EXPECT_EQ(logprobs["top_logprobs"][0], Json({{"h", -0.5}, {"b", -1.5}}));
  EXPECT_EQ(logprobs["text_offset"], Json({0, 1, 2, 2}));  // the second half of é begins no character
  const Json none = ask("POST", "/v1/completions", R"({"prompt":"a","logprobs":0})").json();
  EXPECT_EQ(none["choices"][0]["logprobs"]["top_logprobs"][0], Json({{"a", -0.5}}));
}

TEST_F(ServerTest, StopReasonAndCachedTokens) {
  start([](const Request&) {
    Script script = words({"a"});
    script.stop_reason = "END";
    script.cached_tokens = 3;
    return script;
  });
  const Json j = ask("POST", "/v1/completions", R"({"prompt":"abcd"})").json();
  EXPECT_EQ(j["choices"][0]["stop_reason"], "END");
  EXPECT_EQ(j["usage"]["prompt_tokens_details"]["cached_tokens"], 3);
  for (const char* path : {"/v1/completions", "/v1/chat/completions"}) {
    const auto data = sse_data(ask("POST", path,
                                   R"({"prompt":"abcd","messages":[{"role":"user","content":"hi"}],"stream":true,
                                       "stream_options":{"include_usage":true}})")
                                   .body);
    ASSERT_GE(data.size(), 2U);
    EXPECT_EQ(Json::parse(data[data.size() - 2])["usage"]["prompt_tokens_details"]["cached_tokens"], 3) << path;
  }
}

TEST_F(ServerTest, ErrorsOfTheEngine) {
  start([](const Request&) {
    Script script = words({"a", "b"}, FinishReason::kError);
    script.status = internal_error("a kernel broke");
    return script;
  });
  const Answer whole = ask("POST", "/v1/completions", R"({"prompt":"x"})");
  EXPECT_EQ(whole.status, 500);
  EXPECT_EQ(whole.json()["error"]["message"], "a kernel broke");
  const Answer stream = ask("POST", "/v1/completions", R"({"prompt":"x","stream":true})");
  EXPECT_EQ(stream.status, 200);
  ASSERT_TRUE(stream.complete);
  const auto data = sse_data(stream.body);
  ASSERT_EQ(data.size(), 3U);
  EXPECT_EQ(Json::parse(data[2])["error"]["type"], "server_error");
  EXPECT_EQ(stream.body.find("[DONE]"), std::string::npos);
}

TEST_F(ServerTest, RefusalsOfTheEngine) {
  start();
  engine_->set_max_requests(0);
  const Answer full = ask("POST", "/v1/chat/completions", kChat);
  EXPECT_EQ(full.status, 429);
  EXPECT_EQ(full.json()["error"]["code"], "queue_full");
  EXPECT_FALSE(full.header("retry-after").empty());
  engine_->set_refusal(unavailable("stopping"));
  EXPECT_EQ(ask("POST", "/v1/chat/completions", kChat).status, 503);
  engine_->set_refusal(invalid_argument("repetition_penalty is odd"));
  const Answer odd = ask("POST", "/v1/chat/completions", kChat);
  EXPECT_EQ(odd.status, 400);
  EXPECT_EQ(odd.json()["error"]["param"], "repetition_penalty");
}

TEST_F(ServerTest, QueueFullHalfWayCancelsTheRest) {
  start([](const Request&) {
    Script script = words({"a"});
    script.endless = true;
    return script;
  });
  engine_->set_max_requests(2);
  EXPECT_EQ(ask("POST", "/v1/completions", R"({"prompt":"x","n":3})").status, 429);
  EXPECT_TRUE(eventually([&] { return engine_->stats().running == 0; }));
  EXPECT_EQ(engine_->stats().cancelled, 2);
}

TEST_F(ServerTest, PromptsLongerThanTheContext) {
  start();
  engine_->set_context_length(64);
  const std::string text(64, 'a');
  const Answer longer = ask("POST", "/v1/completions", R"({"prompt":")" + text + R"("})");
  EXPECT_EQ(longer.status, 400);
  EXPECT_EQ(longer.json()["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(longer.json()["error"]["param"], "prompt");
  EXPECT_NE(longer.body.find("holds 64 tokens"), std::string::npos) << longer.body;
  EXPECT_NE(longer.body.find("has 64"), std::string::npos);
  const Answer together = ask("POST", "/v1/completions", R"({"prompt":"abcd","max_tokens":61})");
  EXPECT_EQ(together.status, 400);
  EXPECT_EQ(together.json()["error"]["param"], "max_tokens");
  EXPECT_EQ(ask("POST", "/v1/completions", R"({"prompt":"abcd","max_tokens":60})").status, 200);
}

TEST_F(ServerTest, TemplateOptions) {
  start();
  ask("POST", "/v1/chat/completions", chat_body(R"("chat_template_kwargs":{"enable_thinking":false})"));
  ask("POST", "/v1/chat/completions", chat_body(R"("enable_thinking":false)"));
  ask("POST", "/v1/chat/completions",
      R"({"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
      {"role":"assistant","content":" Once "}],"continue_final_message":true})");
  ask("POST", "/v1/chat/completions", R"({"messages":[{"role":"developer","content":"x"},
      {"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"z\":1,\"a\":2}"}}]},
      {"role":"tool","tool_call_id":"1","content":"ok"}],
      "tools":[{"type":"function","function":{"name":"f","parameters":{"z":1,"b":2}}}],"tool_choice":"auto"})");
  const auto seen = engine_->seen();
  ASSERT_EQ(seen.size(), 4U);
  std::vector<std::string> texts;
  for (const auto& request : seen) texts.push_back(*tokenizer_.decode(request.prompt, false));
  EXPECT_TRUE(texts[0].ends_with("assistant\n<think></think>"));
  EXPECT_EQ(texts[1], texts[0]);
  EXPECT_EQ(texts[2], "<|im_start|>user\na\nb<|im_end|>\n<|im_start|>assistant\n Once ");
  EXPECT_TRUE(
      texts[3].starts_with(R"(tools:[{"type":"function","function":{"name":"f","parameters":{"z":1,"b":2}}}])"));
  EXPECT_NE(texts[3].find("<|im_start|>system\nx"), std::string::npos);
  EXPECT_NE(texts[3].find(R"("arguments":{"z":1,"a":2})"), std::string::npos);  // parsed, in the client's order
}

TEST_F(ServerTest, PartsGoToTemplatesThatTakeThem) {
  template_ = std::make_unique<FakeTemplate>(true);
  start();
  ask("POST", "/v1/chat/completions",
      R"({"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]})");
  EXPECT_NE(tokenizer_.decode(engine_->seen()[0].prompt, false)->find("user\nab"), std::string::npos);
}

TEST_F(ServerTest, ToolChoiceNoneHidesTheTools) {
  start();
  ask("POST", "/v1/chat/completions",
      chat_body(R"("tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"none")"));
  EXPECT_EQ(tokenizer_.decode(engine_->seen()[0].prompt, false)->find("tools:"), std::string::npos);
}

TEST_F(ServerTest, Models) {
  start();
  const Json list = ask("GET", "/v1/models").json();
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 2U);
  EXPECT_EQ(list["data"][0]["id"], "fake");
  EXPECT_EQ(list["data"][0]["max_model_len"], 4096);
  EXPECT_EQ(list["data"][0]["created"], 1700000000);
  EXPECT_EQ(ask("GET", "/v1/models/fake").json()["id"], "fake");
  EXPECT_EQ(ask("GET", "/v1/models/org/fake-7b").json()["id"], "org/fake-7b");
  EXPECT_EQ(ask("GET", "/v1/models/org%2Ffake-7b").json()["id"], "org/fake-7b");
  EXPECT_EQ(ask("GET", "/v1/models/other").status, 404);
  const Json other = ask("POST", "/v1/chat/completions", chat_body(R"("model":"org/fake-7b")")).json();
  EXPECT_EQ(other["model"], "fake");
}

TEST_F(ServerTest, TokenizeAndDetokenize) {
  start();
  const Json j = ask("POST", "/tokenize", R"({"prompt":"h<|im_end|>"})").json();
  EXPECT_EQ(j["count"], 11);
  EXPECT_EQ(j["tokens"].size(), 11U);
  EXPECT_EQ(j["text"], "h<|im_end|>");
  EXPECT_EQ(j["max_model_len"], 4096);
  const Json parsed =
      ask("POST", "/tokenize", R"({"prompt":"h<|im_end|>","parse_special_tokens":true,"return_token_strs":true})")
          .json();
  EXPECT_EQ(parsed["tokens"], Json({104, kImEnd}));
  EXPECT_EQ(parsed["token_strs"], Json({"h", "<|im_end|>"}));
  EXPECT_EQ(ask("POST", "/tokenize", R"({"prompt":""})").json()["tokens"], Json::array());
  const Json chat = ask("POST", "/tokenize", R"({"messages":[{"role":"user","content":"hi"}]})").json();
  EXPECT_EQ(chat["text"], "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
  const Json bare =
      ask("POST", "/tokenize", R"({"messages":[{"role":"user","content":"hi"}],"add_generation_prompt":false})").json();
  EXPECT_EQ(bare["text"], "<|im_start|>user\nhi<|im_end|>\n");
  const Json back = ask("POST", "/detokenize", Json{{"tokens", chat["tokens"]}}.dump()).json();
  EXPECT_EQ(back["prompt"], chat["text"]);
  EXPECT_EQ(back["text"], chat["text"]);
}

TEST_F(ServerTest, PhasesOfLife) {
  listen();
  const Answer loading = ask("GET", "/health");
  EXPECT_EQ(loading.status, 503);
  EXPECT_EQ(loading.json()["status"], "loading");
  EXPECT_EQ(ask("GET", "/ping").status, 503);
  EXPECT_EQ(ask("POST", "/v1/chat/completions", kChat).json()["error"]["code"], "loading");
  EXPECT_EQ(ask("GET", "/version").json()["version"], "1.2.3");
  EXPECT_EQ(metric("penstock_ready"), "0");
  engine_ = std::make_unique<FakeEngine>(
      server_->event_sink(),
      [](const Request&) {
        Script script;
        for (int i = 0; i < 40; ++i) script.steps.push_back({'a', "a"});
        return script;
      },
      std::chrono::milliseconds(5));
  serve();
  EXPECT_EQ(ask("GET", "/health").json()["status"], "ok");
  EXPECT_EQ(ask("HEAD", "/health").status, 200);
  EXPECT_EQ(metric("penstock_ready"), "1");
  Client open(server_->port());
  open.send(Client::request("POST", "/v1/completions", R"({"prompt":"x","stream":true})"));
  ASSERT_TRUE(open.read_until("data: "));
  server_->begin_drain();
  EXPECT_EQ(ask("GET", "/health").json()["status"], "draining");
  const Answer late = ask("POST", "/v1/chat/completions", kChat);
  EXPECT_EQ(late.status, 503);
  EXPECT_EQ(late.json()["error"]["code"], "draining");
  EXPECT_FALSE(late.header("retry-after").empty());
  const Answer finished = open.read_answer();  // what was open goes on to its end
  EXPECT_TRUE(finished.complete);
  EXPECT_EQ(sse_data(finished.body).back(), "[DONE]");
}

TEST_F(ServerTest, FailedEngine) {
  start();
  server_->fail("the device is gone");
  const Answer health = ask("GET", "/health");
  EXPECT_EQ(health.status, 503);
  EXPECT_EQ(health.json()["status"], "failed");
  EXPECT_NE(ask("POST", "/v1/chat/completions", kChat).body.find("the device is gone"), std::string::npos);
}

TEST_F(ServerTest, CancelledByTheEngine) {
  start([](const Request&) {
    Script script = words({"a"});
    script.endless = true;
    return script;
  });
  Client whole(server_->port());
  Client stream(server_->port());
  whole.send(Client::request("POST", "/v1/completions", R"({"prompt":"x"})"));
  stream.send(Client::request("POST", "/v1/completions", R"({"prompt":"x","stream":true})"));
  ASSERT_TRUE(stream.read_until("data: "));
  ASSERT_TRUE(eventually([&] { return engine_->stats().running == 2; }));
  engine_->cancel_all();
  EXPECT_EQ(whole.read_answer().status, 503);
  EXPECT_NE(stream.read_answer().body.find(R"("code":"cancelled")"), std::string::npos);
}

TEST_F(ServerTest, ApiKeys) {
  options_.api_keys = {"first-key", "second"};
  start();
  EXPECT_EQ(ask("GET", "/health").status, 200);
  EXPECT_EQ(ask("GET", "/ping").status, 200);
  for (const char* path : {"/v1/models", "/metrics", "/version", "/nowhere"}) {
    const Answer answer = ask("GET", path);
    EXPECT_EQ(answer.status, 401) << path;
    EXPECT_EQ(answer.json()["error"]["code"], "invalid_api_key");
  }
  for (const char* wrong : {"Bearer first-ke", "Bearer first-key1", "Bearer ", "Bearer", "first-key", "Basic first-key",
                            "Bearer secondsecond", "Bearer  x"}) {
    EXPECT_EQ(ask("GET", "/v1/models", "", "Authorization: " + std::string(wrong) + "\r\n").status, 401) << wrong;
  }
  for (const char* right : {"Bearer first-key", "bearer second", "Bearer  second"}) {
    EXPECT_EQ(ask("GET", "/v1/models", "", "Authorization: " + std::string(right) + "\r\n").status, 200) << right;
  }
  EXPECT_EQ(ask("POST", "/v1/chat/completions", kChat).status, 401);
  EXPECT_EQ(ask("POST", "/v1/chat/completions", kChat, "Authorization: Bearer second\r\n").status, 200);
}

TEST_F(ServerTest, Metrics) {
  start();
  ask("POST", "/v1/chat/completions", kChat);
  ask("POST", "/v1/chat/completions", "{");
  ask("GET", "/nowhere");
  EXPECT_EQ(metric(R"(penstock_http_requests_total{endpoint="/v1/chat/completions",status="200"})"), "1");
  EXPECT_EQ(metric(R"(penstock_http_requests_total{endpoint="/v1/chat/completions",status="400"})"), "1");
  EXPECT_EQ(metric(R"(penstock_http_requests_total{endpoint="other",status="404"})"), "1");
  EXPECT_EQ(metric("penstock_time_to_first_token_seconds_count"), "1");
  EXPECT_EQ(metric("penstock_time_per_output_token_seconds_count"), "1");
  EXPECT_EQ(metric("penstock_request_duration_seconds_count"), "1");
  EXPECT_EQ(metric("penstock_generation_tokens_total"), std::to_string(std::string(kChatAnswer).size()));
  EXPECT_TRUE(eventually([&] { return metric("penstock_requests_running") == "0"; }));
  EXPECT_EQ(metric(R"(penstock_requests_ended_total{outcome="finished"})"), "1");
}

TEST_F(ServerTest, Cors) {
  options_.cors_origins = {"https://app.example"};
  start();
  const Answer preflight = ask("OPTIONS", "/v1/chat/completions", "",
                               "Origin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n");
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(preflight.header("access-control-allow-origin"), "https://app.example");
  EXPECT_EQ(ask("GET", "/health", "", "Origin: https://app.example\r\n").header("access-control-allow-origin"),
            "https://app.example");
  EXPECT_EQ(ask("GET", "/health", "", "Origin: https://evil.example\r\n").header("access-control-allow-origin"), "");
}

TEST_F(ServerTest, NoCorsUnlessConfigured) {
  start();
  const Answer preflight = ask("OPTIONS", "/v1/chat/completions", "",
                               "Origin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n");
  EXPECT_EQ(preflight.status, 405);
  EXPECT_EQ(preflight.header("access-control-allow-origin"), "");
}

TEST_F(ServerTest, DebugInvariants) {
  start();
  EXPECT_EQ(ask("GET", "/debug/invariants").status, 404);
  server_->stop();
  options_.debug_endpoints = true;
  listen();
  serve();
  EXPECT_EQ(ask("GET", "/debug/invariants").json()["status"], "ok");
}

TEST_F(ServerTest, OptionsAreChecked) {
  listen();
  ServerOptions same = options_;
  same.port = server_->port();
  const auto taken = Server::start(same);
  ASSERT_FALSE(taken.ok());
  EXPECT_EQ(taken.status().code(), StatusCode::kUnavailable);
  EXPECT_NE(taken.status().message().find("127.0.0.1 port " + std::to_string(same.port)), std::string::npos);
  ServerOptions bad = options_;
  bad.host = "no such host";
  EXPECT_EQ(Server::start(bad).status().code(), StatusCode::kInvalidArgument);
  bad = options_;
  bad.api_keys = {""};
  EXPECT_EQ(Server::start(bad).status().code(), StatusCode::kInvalidArgument);
  bad = options_;
  bad.served_model_names.clear();
  EXPECT_EQ(Server::start(bad).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(ServerTest, LargeRequestsAndSeveralLoops) {
  options_.http_threads = 3;
  start();
  engine_->set_context_length(1 << 20);
  const std::string text(200000, 'q');  // long enough to be tokenised by the worker
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 12; ++i) {
    clients.push_back(std::make_unique<Client>(server_->port()));
    clients.back()->send(Client::request("POST", "/v1/completions",
                                         R"({"prompt":")" + std::to_string(i) + ':' + text + R"(","max_tokens":5})"));
  }
  for (int i = 0; i < 12; ++i) {
    const Answer answer = clients[static_cast<std::size_t>(i)]->read_answer();
    ASSERT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(answer.json()["choices"][0]["text"].get<std::string>(), (std::to_string(i) + ":qqqqq").substr(0, 5));
  }
}

}  // namespace
}  // namespace penstock::testing
