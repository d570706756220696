#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace penstock {
namespace {

TEST(ThreadPool, RunsEveryTaskOnceInManyRegions) {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    std::vector<std::atomic<int>> hits(97);
    for (int region = 0; region < 2000; ++region) {
      pool.parallel_for(97, [&](std::int64_t task, int thread) {
        ASSERT_LT(thread, threads);
        hits[static_cast<std::size_t>(task)].fetch_add(1, std::memory_order_relaxed);
      });
    }
    for (const auto& h : hits) EXPECT_EQ(h.load(), 2000);
  }
}

TEST(ThreadPool, WritesOfARegionAreVisibleAfterIt) {
  ThreadPool pool(3);
  std::vector<int> values(64, 0);
  for (int region = 1; region <= 500; ++region) {
    pool.parallel_for(64, [&](std::int64_t task, int) { values[static_cast<std::size_t>(task)] += 1; });
    for (const int v : values) ASSERT_EQ(v, region);
  }
}

TEST(ThreadPool, SleepsAndWakes) {
  ThreadPool pool(2);
  std::atomic<int> count{0};
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // past the spin
    pool.parallel_for(10, [&](std::int64_t, int) { count.fetch_add(1); });
  }
  EXPECT_EQ(count.load(), 30);
}

TEST(ThreadPool, NoTasksIsNothing) {
  ThreadPool pool(2);
  pool.parallel_for(0, [](std::int64_t, int) { FAIL(); });
}

}  // namespace
}  // namespace penstock
