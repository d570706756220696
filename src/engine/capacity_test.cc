// How many requests run at once with how many states, and that everything completes when far more is queued (contract
// S5, Q3).
#include <gtest/gtest.h>

#include "engine/testing/core_harness.h"

namespace penstock::testing {
namespace {

class Capacity : public ::testing::TestWithParam<GdnBackend> {};
INSTANTIATE_TEST_SUITE_P(Engine, Capacity, ::testing::Values(GdnBackend::kWindow, GdnBackend::kRecurrent),
                         [](const auto& info) { return std::string(to_string(info.param)); });

// Eight states: eight requests at a time from the first step to the last, whether or not they share prefixes, and ten
// times as many in the queue.
TEST_P(Capacity, AsManyRequestsAsStates) {
  for (const SchedulerStrategy strategy : {SchedulerStrategy::kNoBuffer, SchedulerStrategy::kExtraBuffer}) {
    for (const bool shared : {false, true}) {
      CoreHarness::Options o;
      o.model.backend = GetParam();
      o.running = o.max_states = 8;
      o.prefix_cache = true;
      o.strategy = strategy;
      o.track_interval = 64;
      CoreHarness harness(o);
      for (std::uint64_t i = 0; i < 80; ++i) {
        std::vector<std::int32_t> tokens = some_tokens(200, shared ? 1 : 100 + i);
        for (const std::int32_t token : some_tokens(30, i)) tokens.push_back(token);
        harness.add_greedy(tokens, 150);
      }
      int full_steps = 0, steps = 0;
      while (!harness.core->idle()) {
        const bool queued = !harness.core->scheduler().waiting().empty();
        harness.step();
        ++steps;
        // After admission: the queue is not empty, so nobody else fits.
        if (queued && !harness.core->scheduler().waiting().empty()) {
          EXPECT_LE(harness.cache->states().used(), 8);
          full_steps += harness.core->scheduler().running() == 8;
        }
      }
      harness.run();
      EXPECT_EQ(harness.log.most_slices, 8);
      EXPECT_GT(full_steps, steps / 2);
      EXPECT_EQ(harness.core->scheduler().counters().preempted, 0);
      harness.expect_greedy_answers();
    }
  }
}

// Ten times more than fits, in memory for little more than two long requests: all complete, nobody is starved.
TEST_P(Capacity, TenTimesMoreThanFits) {
  for (const bool overlap : {false, true}) {
    CoreHarness::Options o;
    o.model.backend = GetParam();
    o.model.context = 2048;
    o.running = 16;
    o.pages = 72;
    o.prefix_cache = true;
    o.overlap = overlap;
    o.prefill = 128;
    CoreHarness harness(o);
    for (std::uint64_t i = 0; i < 40; ++i) {
      const auto prompt = static_cast<std::int32_t>(20 + i * 37 % 700),
                 output = static_cast<std::int32_t>(1200 - i * 29);
      harness.add_greedy(some_tokens(prompt, i), output);
    }
    harness.run();
    EXPECT_GT(harness.core->scheduler().counters().preempted, 0);
    harness.expect_greedy_answers();
  }
}

}  // namespace
}  // namespace penstock::testing
