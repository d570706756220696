// Preemption and reuse of prefixes at their edges: cases that were wrong once.
#include <gtest/gtest.h>

#include "engine/testing/core_harness.h"

namespace penstock::testing {
namespace {

// B's last token is on its way when B is preempted for A's next page, and there is room for B again in the same plan:
// what is read of B ends before that token.
TEST(Preemption, WithTheLastTokenOnItsWay) {
  int preempted = 0;
  for (const bool prefix_cache : {false, true}) {
    for (std::int32_t prompt = 57; prompt <= 63; ++prompt) {
      CoreHarness::Options o;
      o.model.context = 640;
      o.model.vocab = 64;
      o.with_text = false;
      o.running = 4;
      o.prefix_cache = prefix_cache;
      o.overlap = true;
      CoreHarness harness(o);
      harness.add(greedy_request(some_tokens(prompt, 1, 64), 100));
      const RequestId b = harness.add(greedy_request(some_tokens(60, 2, 64), 5));
      bool refused = false;
      harness.cache->kv_pages().refuse_when(
          [&] { return harness.core->scheduler().running() == 2 && !std::exchange(refused, true); });
      harness.run();
      EXPECT_EQ(harness.answers[b].tokens, expected_greedy(o.model, some_tokens(60, 2, 64), 5));
      preempted += static_cast<int>(harness.core->scheduler().counters().preempted);
    }
  }
  EXPECT_GT(preempted, 4);
}

// A request that has all the memory to itself needs it all: what it or others left in the cache is no hindrance.
TEST(Preemption, AloneNobodyIsPreemptedAgainAndAgain) {
  for (const GdnBackend backend : {GdnBackend::kWindow, GdnBackend::kRecurrent}) {
    for (const SchedulerStrategy strategy : {SchedulerStrategy::kNoBuffer, SchedulerStrategy::kExtraBuffer}) {
      for (const bool overlap : {false, true}) {
        CoreHarness::Options o;
        o.model.backend = backend;
        o.model.context = 3200;
        o.model.vocab = 64;
        o.model.state_bytes = 256;
        o.with_text = false;
        o.running = 2;
        o.pages = 50;
        o.prefix_cache = true;
        o.overlap = overlap;
        o.strategy = strategy;
        o.track_interval = 128;
        o.growth_tokens = 0;
        CoreHarness harness(o);
        harness.add(greedy_request(some_tokens(10, 1, 64), 1600));
        const RequestId id = harness.add(greedy_request(some_tokens(10, 2, 64), 3100));
        harness.run(3300);
        EXPECT_EQ(harness.answers[id].tokens, expected_greedy(o.model, some_tokens(10, 2, 64), 3100));
        // By the other one, and then perhaps once to get rid of pages that both it and the cache have.
        EXPECT_LE(harness.core->scheduler().counters().preempted, 2);
      }
    }
  }
}

// The recurrent form has no state at the end of a whole-block prompt but the one it leaves there (contract P3).
TEST(PrefixReuse, TheNextTurnHitsTheEndOfAWholeBlockPrompt) {
  for (const GdnBackend backend : {GdnBackend::kWindow, GdnBackend::kRecurrent}) {
    for (const SchedulerStrategy strategy : {SchedulerStrategy::kNoBuffer, SchedulerStrategy::kExtraBuffer}) {
      CoreHarness::Options o;
      o.model.backend = backend;
      o.prefix_cache = true;
      o.strategy = strategy;
      CoreHarness harness(o);
      auto tokens = some_tokens(192, 1);
      const RequestId first = harness.add(greedy_request(tokens, 20));
      harness.run();
      const auto& answer = harness.answers[first].tokens;
      tokens.insert(tokens.end(), answer.begin(), answer.end());
      tokens.push_back(5);
      const RequestId next = harness.add(greedy_request(tokens, 1));
      harness.run();
      EXPECT_EQ(harness.answers[next].last.cached_tokens, 192);
    }
  }
}

}  // namespace
}  // namespace penstock::testing
