// An EngineCore on the fake model, and what came of its requests.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "engine/engine_core.h"
#include "engine/engine_setup.h"
#include "engine/testing/fake_model.h"

namespace penstock::testing {

// The settings that most tests of the core run under.
struct Mode {
  GdnBackend backend;
  bool prefix_cache;
  SchedulerStrategy strategy;
  bool overlap;
};

inline std::vector<Mode> all_modes() {
  std::vector<Mode> modes;
  for (const GdnBackend backend : {GdnBackend::kWindow, GdnBackend::kRecurrent}) {
    for (const bool overlap : {false, true}) {
      modes.push_back({backend, false, SchedulerStrategy::kAuto, overlap});
      modes.push_back({backend, true, SchedulerStrategy::kNoBuffer, overlap});
      modes.push_back({backend, true, SchedulerStrategy::kExtraBuffer, overlap});
    }
  }
  return modes;
}

inline std::string mode_name(const ::testing::TestParamInfo<Mode>& info) {
  return std::string(to_string(info.param.backend)) + "_" +
         (info.param.prefix_cache ? to_string(info.param.strategy) : "cache_off") +
         (info.param.overlap ? "_overlap" : "");
}

class CoreHarness {
 public:
  struct Options {
    FakeModelOptions model;
    std::int32_t running = 8;
    std::int32_t pages = 0;  // 0: enough for everyone's context
    std::int32_t prefill = 512;
    bool with_text = true;
    bool prefix_cache = false, overlap = false;
    SchedulerStrategy strategy = SchedulerStrategy::kAuto;
    std::int32_t track_interval = 512;
    std::int32_t growth_tokens = -1;  // -1: as it is
    std::int32_t max_states = 0;      // 0: as many as fit
  };

  explicit CoreHarness(const Options& options) : options_(options), model_(fake_model(options.model, log)) {
    EngineOptions engine_options;
    engine_options.max_running_requests = options.running;
    engine_options.chunked_prefill_size = options.prefill;
    engine_options.context_length = options.model.context;
    engine_options.prefix_cache = options.prefix_cache;
    engine_options.strategy = options.strategy;
    engine_options.track_interval = options.track_interval;
    engine_options.max_states = options.max_states;
    const std::int32_t pages = options.pages != 0 ? options.pages : options.running * pages_for(options.model.context);
    engine_options.memory_bytes = fake_memory(model_.layout, options.running, pages);
    auto setup = plan_engine(model_, engine_options, 0, true);
    EXPECT_TRUE(setup.ok()) << setup.status().message();
    setup_ = *std::move(setup);
    if (options.growth_tokens >= 0) setup_.limits.growth_tokens = options.growth_tokens;
    cache = *CacheStore::create(model_.layout, setup_.memory);
    runner_ = model_.make_runner(step_size(setup_.limits));
    core = std::make_unique<EngineCore>(model_, setup_.limits, *cache, *runner_, options.overlap,
                                        options.with_text ? &tokenizer_ : nullptr,
                                        [this](RequestId id, std::int32_t position, std::span<const float> row) {
                                          answers[id].take_logits(position, row);
                                        });
  }

  RequestId add(Request request) {
    const RequestLimits limits{options_.model.vocab, options_.model.context, options_.with_text, true};
    const Status status = validate_request(request, limits);
    EXPECT_TRUE(status.ok()) << status.message();
    core->add(++last_id_, std::move(request), options_.model.context);
    return last_id_;
  }

  // A greedy request; expect_greedy_answers() holds it to the model by its definition.
  RequestId add_greedy(const std::vector<std::int32_t>& prompt, std::int32_t output_tokens) {
    Request request;
    request.prompt = prompt;
    request.max_tokens = output_tokens;
    request.sampling.temperature = 0;
    const RequestId id = add(std::move(request));
    expected_[id] = expected_greedy(options_.model, prompt, output_tokens);
    return id;
  }
  void expect_greedy_answers() {
    for (const auto& [id, tokens] : expected_) EXPECT_EQ(answers[id].tokens, tokens);
  }

  // One step; false when there was nothing to run.
  bool step() {
    std::vector<Event> events;
    const bool planned = core->plan(events);
    const bool ran = planned || core->in_flight();
    core->advance(events);
    take(events);
    const Status status = core->scheduler().check_invariants();
    EXPECT_TRUE(status.ok()) << status.message();
    return ran;
  }
  void cancel(RequestId id) {
    std::vector<Event> events;
    core->end(id, Status(StatusCode::kCancelled, "cancelled"), events);
    take(events);
  }
  // To the end; then every slot must be free and the model content.
  void run(int most_steps = 100000) {
    while (!core->idle() && most_steps-- > 0) step();
    EXPECT_TRUE(core->idle());
    expect_all_free();
    for (const std::string& violation : log.violations) ADD_FAILURE() << violation;
    for (const auto& [id, answer] : answers) EXPECT_EQ(answer.events_after_end, 0);
  }
  // But for what the prefix cache holds (contract S7).
  void expect_all_free() const {
    EXPECT_EQ(cache->kv_pages().held(), 0);
    EXPECT_EQ(cache->states().held(), 0);
    EXPECT_EQ(cache->windows().used(), 0);
  }

  void take(std::vector<Event>& events) {
    for (Event& event : events) {
      Answer& answer = answers[event.request];
      if (answer.tokens.empty() && event.token >= 0) first_tokens.push_back(event.request);
      answer.take(event);
    }
  }

  FakeLog log;
  std::map<RequestId, Answer> answers;
  std::vector<RequestId> first_tokens;  // requests in the order of their first events
  std::unique_ptr<CacheStore> cache;
  std::unique_ptr<EngineCore> core;

 private:
  Options options_;
  FakeTokenizer tokenizer_;
  EngineModel model_;
  EngineSetup setup_;
  std::unique_ptr<StepRunner> runner_;
  RequestId last_id_ = 0;
  std::map<RequestId, std::vector<std::int32_t>> expected_;  // by add_greedy()
};

inline std::vector<std::int32_t> some_tokens(std::int32_t count, std::uint64_t seed, std::int32_t vocab = 300) {
  std::vector<std::int32_t> tokens;
  for (std::int32_t i = 0; i < count; ++i) {
    seed = mix(seed + 1);
    tokens.push_back(static_cast<std::int32_t>(seed % static_cast<std::uint64_t>(vocab)));
  }
  return tokens;
}

inline Request greedy_request(std::vector<std::int32_t> prompt, std::int32_t max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  return request;
}

}  // namespace penstock::testing
