#include "engine/request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "engine/engine_setup.h"
#include "engine/testing/fake_model.h"

namespace penstock {
namespace {

using testing::fake_memory;
using testing::fake_model;
using testing::FakeLog;
using ::testing::HasSubstr;

Request request(std::int32_t prompt = 10, std::int32_t max_tokens = 10) {
  Request r;
  r.prompt.assign(static_cast<std::size_t>(prompt), 5);
  r.max_tokens = max_tokens;
  return r;
}

const RequestLimits kLimits{.vocab_size = 300, .context_length = 100, .has_text = true, .has_logits_sink = true};

TEST(ValidateRequest, NamesTheFieldThatIsWrong) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const struct {
    const char* field;
    std::function<void(Request&)> spoil;
  } cases[] = {
      {"prompt", [](Request& r) { r.prompt.clear(); }},
      {"prompt: token id 300 at position 3", [](Request& r) { r.prompt[3] = 300; }},
      {"prompt: token id -1", [](Request& r) { r.prompt[0] = -1; }},
      {"max_tokens is 0", [](Request& r) { r.max_tokens = 0; }},
      {"max_tokens is -2", [](Request& r) { r.max_tokens = -2; }},
      {"temperature", [](Request& r) { r.sampling.temperature = -0.1F; }},
      {"temperature", [nan](Request& r) { r.sampling.temperature = nan; }},
      {"temperature", [](Request& r) { r.sampling.temperature = 101; }},
      {"top_k", [](Request& r) { r.sampling.top_k = -2; }},
      {"top_p", [](Request& r) { r.sampling.top_p = 0; }},
      {"top_p", [](Request& r) { r.sampling.top_p = 1.01F; }},
      {"min_p", [](Request& r) { r.sampling.min_p = -0.5F; }},
      {"repetition_penalty", [](Request& r) { r.sampling.repetition_penalty = 0; }},
      {"presence_penalty", [](Request& r) { r.sampling.presence_penalty = 2.5F; }},
      {"frequency_penalty", [](Request& r) { r.sampling.frequency_penalty = -2.5F; }},
      {"logit_bias: token id 300",
       [](Request& r) {
         r.sampling.logit_bias = {{300, 1.0F}};
       }},
      {"logit_bias",
       [](Request& r) {
         r.sampling.logit_bias = {{3, 101.0F}};
       }},
      {"logprobs", [](Request& r) { r.logprobs = 21; }},
      {"stop",
       [](Request& r) {
         r.stop = {"x", ""};
       }},
      {"stop", [](Request& r) { r.stop.assign(1025, "x"); }},
      {"stop_token_ids", [](Request& r) { r.stop_token_ids = {300}; }},
      {"forced", [](Request& r) { r.forced = {1}; }},
      {"forced: token id 300", [](Request& r) { r.forced = {300}, r.return_logits = true; }},
  };
  EXPECT_TRUE(validate_request(request(), kLimits).ok());
  for (const auto& c : cases) {
    Request r = request();
    c.spoil(r);
    const Status status = validate_request(r, kLimits);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << c.field;
    EXPECT_THAT(status.message(), HasSubstr(c.field));
  }
}

TEST(ValidateRequest, NeverFitsGivesBothNumbers) {
  EXPECT_TRUE(validate_request(request(90, 10), kLimits).ok());
  const Status status = validate_request(request(90, 11), kLimits);
  EXPECT_THAT(status.message(), HasSubstr("prompt's 90 tokens and max_tokens = 11 can never fit the context of 100"));
  EXPECT_TRUE(validate_request(request(99, -1), kLimits).ok());
  EXPECT_FALSE(validate_request(request(100, -1), kLimits).ok());
  EXPECT_FALSE(validate_request(request(10, std::numeric_limits<std::int32_t>::max()), kLimits).ok());
  Request scoring = request(100, -1);
  scoring.return_logits = true;
  EXPECT_TRUE(validate_request(scoring, kLimits).ok());
  scoring.forced = {1};
  EXPECT_FALSE(validate_request(scoring, kLimits).ok());
}

TEST(ValidateRequest, WhatThisEngineLacks) {
  RequestLimits limits = kLimits;
  limits.has_text = limits.has_logits_sink = false;
  Request r = request();
  r.stop = {"x"};
  EXPECT_THAT(validate_request(r, limits).message(), HasSubstr("tokenizer"));
  r = request();
  r.return_logits = true;
  EXPECT_THAT(validate_request(r, limits).message(), HasSubstr("return_logits"));
}

TEST(FinishReasons, HaveTheirNames) {
  EXPECT_STREQ(to_string(FinishReason::kStop), "stop");
  EXPECT_STREQ(to_string(FinishReason::kLength), "length");
  EXPECT_STREQ(to_string(FinishReason::kCancelled), "cancelled");
  EXPECT_STREQ(to_string(FinishReason::kError), "error");
}

TEST(PlanEngine, SizesOfAStep) {
  FakeLog log;
  const EngineModel model = fake_model({.vocab = 248320, .context = 20000}, log);
  EngineOptions options;
  options.max_running_requests = 10;
  options.chunked_prefill_size = 1000;
  auto setup = plan_engine(model, options, std::int64_t{1} << 30, true);
  ASSERT_TRUE(setup.ok()) << setup.status().message();
  EXPECT_EQ(step_size(setup->limits).max_tokens, 1010);
  EXPECT_EQ(step_size(setup->limits).max_logits, 10 + 270);  // 256 MiB of logits beside one row for each
  setup = plan_engine(model, options, std::int64_t{1} << 30, false);
  EXPECT_EQ(step_size(setup->limits).max_logits, 10);
  options.chunked_prefill_size = -1;
  setup = plan_engine(model, options, std::int64_t{1} << 30, false);
  EXPECT_EQ(setup->limits.prefill_tokens, 8192);
}

TEST(PlanEngine, MemoryIsAShareOfWhatIsFree) {
  FakeLog log;
  const EngineModel model = fake_model({}, log);
  EngineOptions options;
  options.mem_fraction = 0.5;
  const auto setup = plan_engine(model, options, 1'000'000, false);
  ASSERT_TRUE(setup.ok());
  EXPECT_EQ(setup->memory.memory_bytes, 500'000);
  EXPECT_LE(setup->memory.arena_bytes + setup->memory.window_bytes, 500'000);
  EXPECT_GT(setup->memory.arena_bytes + setup->memory.window_bytes, 490'000);
}

TEST(PlanEngine, RefusesOptionsByName) {
  FakeLog log;
  const EngineModel model = fake_model({}, log);
  const struct {
    const char* name;
    std::function<void(EngineOptions&)> spoil;
  } cases[] = {
      {"--chunked-prefill-size", [](EngineOptions& o) { o.chunked_prefill_size = 0; }},
      {"--cache-memory", [](EngineOptions& o) { o.memory_bytes = -1; }},
      {"--mem-fraction-static", [](EngineOptions& o) { o.mem_fraction = 0; }},
      {"--max-queued-requests", [](EngineOptions& o) { o.max_queued_requests = 0; }},
      {"--max-queued-tokens", [](EngineOptions& o) { o.max_queued_tokens = 0; }},
      {"--context-length", [](EngineOptions& o) { o.context_length = 5000; }},
      {"--max-running-requests", [](EngineOptions& o) { o.max_running_requests = -1; }},
      {"--cache-memory", [](EngineOptions& o) { o.memory_bytes = 100; }},
  };
  for (const auto& c : cases) {
    EngineOptions options;
    c.spoil(options);
    const auto setup = plan_engine(model, options, 1 << 30, false);
    ASSERT_FALSE(setup.ok()) << c.name;
    EXPECT_THAT(setup.status().message(), HasSubstr(c.name));
  }
}

}  // namespace
}  // namespace penstock
