// The engine's logic on a model that notices every wrong page, slot, position and fold.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/testing/core_harness.h"

namespace penstock::testing {
namespace {

using ::testing::HasSubstr;

class Backends : public ::testing::TestWithParam<Mode> {
 protected:
  CoreHarness::Options options() const {
    CoreHarness::Options result;
    result.model.backend = GetParam().backend;
    result.prefix_cache = GetParam().prefix_cache;
    result.strategy = GetParam().strategy;
    result.overlap = GetParam().overlap;
    result.track_interval = 128;
    return result;
  }
};
INSTANTIATE_TEST_SUITE_P(Core, Backends, ::testing::ValuesIn(all_modes()), mode_name);

TEST_P(Backends, AnswersAreTheModels) {
  for (const std::int32_t chunk : {1, 7, 64, 128, 1000, -1}) {
    SCOPED_TRACE(chunk);
    CoreHarness::Options o = options();
    o.prefill = chunk;
    CoreHarness harness(o);
    std::map<RequestId, std::vector<std::int32_t>> expected;
    for (const std::int32_t prompt : {1, 2, 63, 64, 65, 127, 128, 200, 500, 1}) {
      for (const std::int32_t output : {1, 2, 64, 130}) {
        const auto tokens = some_tokens(prompt, static_cast<std::uint64_t>(prompt * 1000 + output));
        const RequestId id = harness.add(greedy_request(tokens, output));
        expected[id] = expected_greedy(o.model, tokens, output);
      }
    }
    harness.run();
    for (const auto& [id, tokens] : expected) {
      EXPECT_EQ(harness.answers[id].tokens, tokens);
      EXPECT_EQ(harness.answers[id].last.finish, FinishReason::kLength);
      EXPECT_EQ(harness.answers[id].last.output_tokens, static_cast<std::int32_t>(tokens.size()));
    }
    if (chunk != 1) {  // prompts that come in token by token are never many at a time
      EXPECT_EQ(harness.log.most_slices, 8);
    }
  }
}

TEST_P(Backends, SampledAnswersDoNotDependOnCompany) {
  CoreHarness::Options o = options();
  o.running = 32;
  const auto request = [](std::uint64_t i) {
    Request r;
    r.prompt = some_tokens(static_cast<std::int32_t>(1 + i * 13 % 150), i);
    r.max_tokens = static_cast<std::int32_t>(20 + i * 7 % 90);
    r.sampling.seed = i;
    r.sampling.top_p = i % 2 == 0 ? 0.9F : 1.0F;
    r.sampling.top_k = i % 3 == 0 ? 50 : 0;
    r.sampling.repetition_penalty = i % 4 == 0 ? 1.2F : 1.0F;
    r.sampling.frequency_penalty = i % 5 == 0 ? 0.5F : 0.0F;
    r.logprobs = 3;
    return r;
  };
  CoreHarness together(o);
  for (std::uint64_t i = 0; i < 32; ++i) together.add(request(i));
  together.run();
  for (std::uint64_t i = 0; i < 32; ++i) {
    CoreHarness::Options alone_options = options();
    alone_options.prefill = 64;
    CoreHarness alone(alone_options);
    alone.add(request(i));
    alone.run();
    EXPECT_EQ(alone.answers[1].tokens, together.answers[i + 1].tokens);
    ASSERT_EQ(alone.answers[1].logprobs.size(), together.answers[i + 1].logprobs.size());
    for (std::size_t t = 0; t < alone.answers[1].logprobs.size(); ++t) {
      EXPECT_EQ(alone.answers[1].logprobs[t].top, together.answers[i + 1].logprobs[t].top);
    }
  }
}

TEST_P(Backends, PromptsAndDecodeShareSteps) {
  CoreHarness::Options o = options();
  o.prefill = 90;
  CoreHarness harness(o);
  const RequestId stream = harness.add(greedy_request(some_tokens(10, 1), 60));
  harness.step();
  harness.add(greedy_request(some_tokens(1000, 2), 5));
  harness.add(greedy_request(some_tokens(70, 3), 5));
  for (int i = 0; i < 5; ++i) harness.step();
  // The stream got a token in every step, whatever the prompts did.
  // (One step late with overlap.)
  EXPECT_EQ(harness.answers[stream].tokens.size(), o.overlap ? 5U : 6U);
  harness.run();
  EXPECT_GT(harness.log.mixed_steps, 9);
  EXPECT_GT(harness.log.many_prompts_steps, 0);
  EXPECT_LE(harness.log.most_rows, 90 + 8);
}

TEST_P(Backends, PreemptedAnswersAreUnchanged) {
  // Eight requests of up to 3,700 tokens want more than 400 pages; there are 64.
  CoreHarness::Options o = options();
  o.pages = 64;
  CoreHarness harness(o);
  std::map<RequestId, std::vector<std::int32_t>> expected;
  for (std::uint64_t i = 0; i < 12; ++i) {
    const auto tokens = some_tokens(static_cast<std::int32_t>(30 + 11 * i), i);
    const auto length = static_cast<std::int32_t>(2500 + 100 * i);
    const RequestId id = harness.add(greedy_request(tokens, length));
    expected[id] = expected_greedy(o.model, tokens, length);
  }
  harness.run();
  EXPECT_GT(harness.core->scheduler().counters().preempted, 0);
  for (const auto& [id, tokens] : expected) EXPECT_EQ(harness.answers[id].tokens, tokens);
}

TEST_P(Backends, ScoringReportsEveryPosition) {
  CoreHarness::Options o = options();
  o.prefill = 96;
  CoreHarness harness(o);
  harness.add(greedy_request(some_tokens(20, 5), 300));  // company
  const auto tokens = some_tokens(333, 6);
  std::vector<RequestId> ids;
  for (const std::size_t decode_from : {1U, 63U, 64U, 65U, 100U, 333U}) {
    Request request;
    request.prompt.assign(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(decode_from));
    request.forced.assign(tokens.begin() + static_cast<std::ptrdiff_t>(decode_from), tokens.end());
    request.return_logits = true;
    ids.push_back(harness.add(std::move(request)));
  }
  harness.run();
  std::uint64_t h = kEmptyHash;
  std::vector<float> row(300);
  for (std::int32_t position = 0; position < 333; ++position) {
    h = extend(h, tokens[static_cast<std::size_t>(position)]);
    hashed_logits(h, 0, position, row);
    for (const RequestId id : ids) ASSERT_EQ(harness.answers[id].logits[position], row) << position;
  }
  for (const RequestId id : ids) {
    const Answer& answer = harness.answers[id];
    EXPECT_TRUE(answer.ascending);
    EXPECT_TRUE(answer.tokens.empty());
    EXPECT_EQ(answer.logits.size(), 333U);
    EXPECT_EQ(answer.last.finish, FinishReason::kLength);
    EXPECT_EQ(answer.last.prompt_tokens + answer.last.output_tokens, 333);
  }
}

TEST(Core, ScoringSurvivesPreemption) {
  CoreHarness::Options o;
  o.pages = 64;
  o.running = 3;
  o.prefill = 64;
  CoreHarness harness(o);
  // The elder grows past what was left for it when the other is among its forced tokens.
  harness.add(greedy_request(some_tokens(900, 1), 3000));
  Request request;
  request.prompt = some_tokens(700, 9);
  request.forced = some_tokens(1400, 10);
  request.return_logits = true;
  const RequestId id = harness.add(std::move(request));
  harness.run();
  EXPECT_EQ(harness.core->scheduler().counters().preempted, 1);
  EXPECT_TRUE(harness.answers[id].ascending);
  EXPECT_EQ(harness.answers[id].logits.size(), 2100U);
}

TEST(Core, AsManyAsTheContextHasRoomFor) {
  CoreHarness::Options o;
  o.model.context = 300;
  CoreHarness harness(o);
  const RequestId a = harness.add(greedy_request(some_tokens(50, 1), -1));
  const RequestId b = harness.add(greedy_request(some_tokens(299, 2), -1));
  harness.run();
  EXPECT_EQ(harness.answers[a].tokens.size(), 250U);
  EXPECT_EQ(harness.answers[b].tokens.size(), 1U);
  EXPECT_EQ(harness.answers[a].last.finish, FinishReason::kLength);
}

// Logits that make the text "…" repeat: after any token, the next byte of `text` by position.
FillLogits spells(std::vector<std::int32_t> script, std::int32_t prompt) {
  return [script = std::move(script), prompt](std::uint64_t, std::int32_t, std::int32_t position,
                                              std::span<float> logits) {
    std::fill(logits.begin(), logits.end(), 0.0F);
    const auto i = static_cast<std::size_t>(position + 1 - prompt);
    logits[static_cast<std::size_t>(script[i % script.size()])] = 10;
  };
}

std::vector<std::int32_t> bytes_of(std::string_view text) {
  std::vector<std::int32_t> ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

struct Spelled {
  std::string text, stop_reason;
  std::vector<std::int32_t> tokens;
  FinishReason finish;
};

Spelled spell(std::vector<std::int32_t> script, Request request, std::vector<std::int32_t> eos = {},
              bool with_text = true) {
  CoreHarness::Options o;
  o.model.eos = std::move(eos);
  o.model.fill = spells(std::move(script), 4);
  o.with_text = with_text;
  CoreHarness harness(o);
  request.prompt = some_tokens(4, 1);
  request.sampling.temperature = 0;
  const RequestId id = harness.add(std::move(request));
  harness.run();
  Answer& answer = harness.answers[id];
  return {answer.text, answer.last.stop_reason, answer.tokens, answer.last.finish};
}

TEST(Stops, EndTokensEndTheAnswer) {
  auto script = bytes_of("hello");
  script.push_back(290);
  Request request;
  request.max_tokens = 20;
  Spelled result = spell(script, request, {290});
  EXPECT_EQ(result.text, "hello");
  EXPECT_EQ(result.tokens.size(), 6U);
  EXPECT_EQ(result.tokens.back(), 290);
  EXPECT_EQ(result.finish, FinishReason::kStop);

  request.ignore_eos = true;
  result = spell(script, request, {290});
  EXPECT_EQ(result.text, "hellohellohellohe");
  EXPECT_EQ(result.finish, FinishReason::kLength);

  request.skip_special_tokens = false;
  EXPECT_EQ(spell(script, request, {290}).text, "hello<290>hello<290>hello<290>he");

  request.stop_token_ids = {'l'};
  result = spell(script, request, {290});
  EXPECT_EQ(result.text, "he");
  EXPECT_EQ(result.finish, FinishReason::kStop);
  request.include_stop_in_output = true;
  EXPECT_EQ(spell(script, request, {290}).text, "hel");
  EXPECT_EQ(spell(script, request, {290}, false).text, "");
}

TEST(Stops, StopStringsAcrossTokens) {
  Request request;
  request.max_tokens = 60;
  request.stop = {"END", "o wor"};
  Spelled result = spell(bytes_of("hello world EN END"), request);
  EXPECT_EQ(result.text, "hell");
  EXPECT_EQ(result.stop_reason, "o wor");
  EXPECT_EQ(result.tokens.size(), 9U);
  EXPECT_EQ(result.finish, FinishReason::kStop);

  request.stop = {"END"};
  result = spell(bytes_of("hello world EN END"), request);
  EXPECT_EQ(result.text, "hello world EN ");
  EXPECT_EQ(result.stop_reason, "END");

  request.include_stop_in_output = true;
  EXPECT_EQ(spell(bytes_of("hello world EN END"), request).text, "hello world EN END");
}

TEST(Stops, HeldBackTextComesAtTheEnd) {
  Request request;
  request.max_tokens = 5;
  request.stop = {"lo there"};
  Spelled result = spell(bytes_of("hello"), request);
  EXPECT_EQ(result.text, "hello");
  EXPECT_EQ(result.finish, FinishReason::kLength);
  // The same before an end token.
  auto script = bytes_of("hello");
  script.push_back(290);
  request.max_tokens = 50;
  result = spell(script, request, {290});
  EXPECT_EQ(result.text, "hello");
  EXPECT_EQ(result.finish, FinishReason::kStop);
  EXPECT_EQ(result.stop_reason, "");
  // Half a character at the end is the replacement character.
  request.max_tokens = 2;
  request.stop.clear();
  EXPECT_EQ(spell({'a', 0xC3, 0xA9}, request).text, "a\xEF\xBF\xBD");
  request.max_tokens = 3;
  EXPECT_EQ(spell({'a', 0xC3, 0xA9}, request).text, "a\xC3\xA9");
}

TEST(Core, BadLogitsFailOneRequest) {
  CoreHarness::Options o;
  o.model.fill = [](std::uint64_t hash, std::int32_t token, std::int32_t position, std::span<float> logits) {
    hashed_logits(hash, token, position, logits);
    if (token == 299) logits[17] = std::numeric_limits<float>::quiet_NaN();
  };
  CoreHarness harness(o);
  const RequestId good = harness.add(greedy_request(some_tokens(40, 1, 200), 30));
  auto poisoned = some_tokens(40, 2, 200);
  poisoned.push_back(299);
  const RequestId bad = harness.add(greedy_request(poisoned, 30));
  Request scoring;
  scoring.prompt = poisoned;
  scoring.return_logits = true;
  const RequestId bad_score = harness.add(std::move(scoring));
  harness.run();
  EXPECT_EQ(harness.answers[bad].last.finish, FinishReason::kError);
  EXPECT_THAT(harness.answers[bad].last.status.message(), HasSubstr("NaN or infinite after position 40"));
  EXPECT_EQ(harness.answers[bad_score].last.finish, FinishReason::kError);
  EXPECT_EQ(harness.answers[bad_score].logits.size(), 40U);
  EXPECT_NE(harness.answers[good].last.finish, FinishReason::kError);
  EXPECT_EQ(harness.core->counters().failed, 2);
}

TEST(Core, CancelInEveryPhase) {
  CoreHarness::Options o;
  o.running = 2;
  o.prefill = 64;
  CoreHarness harness(o);
  const RequestId decoding = harness.add(greedy_request(some_tokens(10, 1), 500));
  const RequestId prefilling = harness.add(greedy_request(some_tokens(1000, 2), 500));
  const RequestId waiting = harness.add(greedy_request(some_tokens(10, 3), 5));
  const RequestId stays = harness.add(greedy_request(some_tokens(10, 4), 5));
  harness.step();
  harness.step();
  EXPECT_GT(harness.answers[decoding].tokens.size(), 0U);
  harness.cancel(waiting);
  harness.cancel(prefilling);
  harness.step();
  harness.cancel(decoding);
  harness.cancel(decoding);
  harness.cancel(999);
  harness.run();
  for (const RequestId id : {decoding, prefilling, waiting}) {
    EXPECT_EQ(harness.answers[id].last.finish, FinishReason::kCancelled);
  }
  EXPECT_EQ(harness.answers[decoding].last.output_tokens, static_cast<int>(harness.answers[decoding].tokens.size()));
  EXPECT_EQ(harness.answers[stays].last.finish, FinishReason::kLength);
  EXPECT_EQ(harness.core->counters().cancelled, 3);
}

TEST(Core, FirstComeFirstServedWithPriority) {
  CoreHarness::Options o;
  o.running = 1;
  CoreHarness harness(o);
  const auto add = [&](std::int32_t priority) {
    Request request = greedy_request(some_tokens(5, 1), 1);
    request.priority = priority;
    return harness.add(std::move(request));
  };
  const RequestId a = add(0), b = add(0), c = add(5), d = add(-1), e = add(5);
  harness.run();
  EXPECT_EQ(harness.first_tokens, (std::vector<RequestId>{c, e, a, b, d}));
}

TEST(Core, NobodyIsPassedForEver) {
  CoreHarness::Options o;
  o.running = 1;
  CoreHarness harness(o);
  Request low = greedy_request(some_tokens(5, 1), 1);
  low.priority = -5;
  const RequestId id = harness.add(std::move(low));
  int steps = 0;
  while (!harness.answers[id].ended() && steps < 1000) {
    harness.add(greedy_request(some_tokens(5, 2), 1));
    harness.step();
    ++steps;
  }
  EXPECT_EQ(steps, WaitingQueue::kMaxPasses + 1);
  harness.run();
}

TEST(Core, ALongPromptIsNotStarvedByShortOnes) {
  CoreHarness::Options o;
  o.running = 8;
  o.pages = 64;
  CoreHarness harness(o);
  harness.add(greedy_request(some_tokens(200, 1), 4));
  harness.step();
  const RequestId longest = harness.add(greedy_request(some_tokens(4000, 2), 3));
  int steps = 0;
  while (harness.answers[longest].tokens.empty() && steps < 2000) {
    harness.add(greedy_request(some_tokens(100, 3), 4));
    harness.step();
    ++steps;
  }
  EXPECT_LT(steps, 2000);
  // Those that fit beside it did pass while they could.
  EXPECT_GT(harness.first_tokens.size(), 3U);
  harness.run();
}

TEST(Core, PromptsPrefillInOrderOfArrival) {
  CoreHarness::Options o;
  o.prefill = 64;
  CoreHarness harness(o);
  std::vector<RequestId> ids;
  for (std::uint64_t i = 0; i < 8; ++i) ids.push_back(harness.add(greedy_request(some_tokens(150, i), 3)));
  harness.run();
  EXPECT_EQ(harness.first_tokens, ids);
}

TEST(Core, EndAllEndsEverything) {
  CoreHarness::Options o;
  o.running = 3;
  CoreHarness harness(o);
  for (std::uint64_t i = 0; i < 7; ++i) harness.add(greedy_request(some_tokens(10, i), 100));
  harness.step();
  std::vector<Event> events;
  harness.core->end_all(Status(StatusCode::kCancelled, "stopping"), events);
  EXPECT_EQ(events.size(), 7U);
  for (const Event& event : events) EXPECT_EQ(event.finish, FinishReason::kCancelled);
  EXPECT_TRUE(harness.core->idle());
  harness.expect_all_free();
}

}  // namespace
}  // namespace penstock::testing
