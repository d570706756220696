#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/system_memory.h"
#include "cache/cache_store.h"
#include "cache/memory_plan.h"
#include "cache/slot_pool.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;

CacheLayout layout_of(std::size_t page, std::size_t state, std::size_t window) {
  CacheLayout layout;
  layout.kv_page_bytes = page;
  layout.state_bytes = state;
  layout.window_bytes = window;
  layout.share_slabs();
  return layout;
}

TEST(CacheLayout, WholeNumbersFillASlab) {
  for (const auto& [page, state] : std::vector<std::pair<std::size_t, std::size_t>>{{1024, 4096},
                                                                                    {4096, 1024},
                                                                                    {64, 64},
                                                                                    {0, 640},
                                                                                    {1572864, 19316736},
                                                                                    {131072, 1198080},
                                                                                    {7 << 16, 9 << 16}}) {
    const CacheLayout layout = layout_of(page, state, 0);
    EXPECT_EQ(layout.kv_page_bytes * static_cast<std::size_t>(layout.pages_per_slab), layout.slab_bytes);
    EXPECT_EQ(layout.state_bytes * static_cast<std::size_t>(layout.states_per_slab), layout.slab_bytes);
    EXPECT_EQ(layout.kv_page_bytes % 64 + layout.state_bytes % 64, 0U);
    EXPECT_GE(layout.kv_page_bytes, page);
    EXPECT_GE(layout.state_bytes, state);
    EXPECT_LE(static_cast<double>(layout.state_bytes), 1.03 * static_cast<double>(state)) << page << " " << state;
    if (page != 0) {
      EXPECT_LE(static_cast<double>(layout.kv_page_bytes), 1.03 * static_cast<double>(page));
    }
    EXPECT_LE(std::min(layout.pages_per_slab, layout.states_per_slab), 4);
  }
}

TEST(MemoryPlan, UsesNoMoreThanRequestsCan) {
  MemoryLimits limits{.memory_bytes = 1 << 30, .model_context = 4096, .prefix_cache = false};
  const auto plan = plan_memory(layout_of(1024, 4096, 512), limits);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  EXPECT_EQ(plan->max_running_requests, 64);
  EXPECT_EQ(plan->context_length, 4096);
  EXPECT_EQ(plan->slabs, 64 + 64 * 64 / 4);
  EXPECT_EQ(plan->windows, 64);
  EXPECT_THAT(plan->text, HasSubstr("up to 64 at a time, of up to 4096 tokens each; no prefix cache"));
  // The prefix cache can use everything.
  limits.prefix_cache = true;
  const auto cached = plan_memory(layout_of(1024, 4096, 512), limits);
  ASSERT_TRUE(cached.ok());
  EXPECT_EQ(cached->max_running_requests, 64);
  EXPECT_EQ(cached->slabs, ((1 << 30) - 64 * 512) / 4096);
}

TEST(MemoryPlan, ShrinksRequestsThenContext) {
  // Room for ten requests of 2,048 tokens (32 pages, 8 slabs) with state and window.
  const std::int64_t each = 9 * 4096 + 512;
  const auto plan =
      plan_memory(layout_of(1024, 4096, 512), {.memory_bytes = 10 * each + 100, .model_context = 1 << 20});
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->max_running_requests, 10);
  EXPECT_EQ(plan->slabs, 90);
  EXPECT_EQ(plan->kv_pages, 89 * 4);
  EXPECT_EQ(plan->states, 89);
  EXPECT_EQ(plan->context_length, 320 * 64);
  EXPECT_LE(plan->arena_bytes + plan->window_bytes, plan->memory_bytes);
}

TEST(MemoryPlan, AskedForContextComesBeforeMoreRequests) {
  const auto plan = plan_memory(layout_of(1024, 40960, 512),
                                {.memory_bytes = 2 << 20, .model_context = 1 << 20, .context_length = 1800 * 64});
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  EXPECT_EQ(plan->context_length, 1800 * 64);
  EXPECT_GE(plan->kv_pages, 1800);
  EXPECT_LT(plan->max_running_requests, 7);
}

TEST(MemoryPlan, CapsHold) {
  const CacheLayout layout = layout_of(1024, 4096, 512);
  MemoryLimits limits{.memory_bytes = 4 << 20, .model_context = 4096, .max_running_requests = 8};
  limits.max_states = 12;
  const auto few = plan_memory(layout, limits);
  ASSERT_TRUE(few.ok()) << few.status().message();
  EXPECT_EQ(few->states, 12);
  EXPECT_EQ(few->kv_pages, (few->slabs - 1) * 4);
  limits.max_states = 0;
  limits.state_to_kv_ratio = 0.25;  // a fifth for states
  const auto split = plan_memory(layout, limits);
  ASSERT_TRUE(split.ok()) << split.status().message();
  EXPECT_EQ(split->states, split->slabs / 5);
  EXPECT_EQ(split->kv_pages, (split->slabs - split->slabs / 5) * 4);
  // Without a wish, no more run than there are states.
  limits.max_running_requests = 0;
  limits.state_to_kv_ratio = 0;
  limits.max_states = 5;
  EXPECT_EQ(plan_memory(layout, limits)->max_running_requests, 5);
}

TEST(MemoryPlan, RefusalsNameTheNumber) {
  const CacheLayout layout = layout_of(1024, 4096, 512);
  constexpr std::int64_t kOne = 2 * 4096 + 512;
  const auto tiny = plan_memory(layout, {.memory_bytes = kOne - 1, .model_context = 4096});
  ASSERT_FALSE(tiny.ok());
  EXPECT_EQ(tiny.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(tiny.status().message(), HasSubstr("--cache-memory to at least 8704"));
  EXPECT_TRUE(plan_memory(layout, {.memory_bytes = kOne, .model_context = 4096}).ok());

  // Seven states and seven pages: nine slabs.
  const auto many =
      plan_memory(layout, {.memory_bytes = 9 * 4096 + 7 * 512, .model_context = 4096, .max_running_requests = 8});
  ASSERT_FALSE(many.ok());
  EXPECT_THAT(many.status().message(), HasSubstr("--max-running-requests to 7 or less"));

  const auto longer =
      plan_memory(layout, {.memory_bytes = 3 * 4096 + 512, .model_context = 4096, .context_length = 513});
  ASSERT_FALSE(longer.ok());
  EXPECT_THAT(longer.status().message(), HasSubstr("--context-length to 512 or less"));

  const auto beyond = plan_memory(layout, {.memory_bytes = 1 << 20, .model_context = 4096, .context_length = 4097});
  ASSERT_FALSE(beyond.ok());
  EXPECT_EQ(beyond.status().code(), StatusCode::kInvalidArgument);

  MemoryLimits limits{.memory_bytes = 1 << 20, .model_context = 4096, .max_running_requests = 9};
  limits.max_states = 8;
  const auto states = plan_memory(layout, limits);
  ASSERT_FALSE(states.ok());
  EXPECT_THAT(states.status().message(), HasSubstr("--max-mamba-cache-size allows 8: raise it to 9"));
  limits.max_states = 0;
  limits.state_to_kv_ratio = 0.01;
  const auto ratio = plan_memory(layout, limits);
  ASSERT_FALSE(ratio.ok());
  EXPECT_THAT(ratio.status().message(), HasSubstr("--mamba-full-memory-ratio 0.01 leaves room for 2 states"));
  limits.state_to_kv_ratio = -1;
  EXPECT_EQ(plan_memory(layout, limits).status().code(), StatusCode::kInvalidArgument);
}

TEST(MemoryPlan, RecurrentBackendHasNoWindows) {
  const auto plan = plan_memory(layout_of(1024, 4096, 0), {.memory_bytes = 1 << 20, .model_context = 256});
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->windows, 0);
  const auto store = CacheStore::create(layout_of(1024, 4096, 0), *plan);
  ASSERT_TRUE(store.ok());
  EXPECT_FALSE((*store)->has_windows());
}

// Pages and states on one arena.
struct Pools {
  Pools(std::int32_t slabs, std::int32_t pages_per_slab, std::int32_t states_per_slab)
      : arena(*SlabArena::create("test", slabs, static_cast<std::size_t>(64 * pages_per_slab * states_per_slab))),
        pages("pages", *arena, pages_per_slab, 1000000),
        states("states", *arena, states_per_slab, 1000000) {}
  std::unique_ptr<SlabArena> arena;
  SlotPool pages, states;
};

TEST(SlotPool, CountsReferences) {
  Pools p(3, 1, 1);
  SlotPool& pool = p.pages;
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pool.base()) % 64, 0U);
  const std::int32_t a = pool.acquire(), b = pool.acquire(), c = pool.acquire();
  EXPECT_EQ(a, 1);
  EXPECT_NE(b, c);
  EXPECT_EQ(pool.acquire(), 0);
  pool.retain(b);
  pool.release(b);
  EXPECT_EQ(pool.available(), 0);
  EXPECT_EQ(pool.references(b), 1);
  pool.release(b);
  EXPECT_EQ(pool.available(), 1);
  EXPECT_EQ(pool.acquire(), b);
  EXPECT_TRUE(pool.check(std::vector<std::int32_t>{0, 1, 1, 1}).ok());
  const Status wrong = pool.check(std::vector<std::int32_t>{0, 1, 0, 1});
  EXPECT_THAT(wrong.message(), HasSubstr("slot 2 has 1 references, its holders are 0"));
}

TEST(SlotPool, NeitherKindStarvesWhileTheOtherHasRoom) {
  Pools p(6, 4, 1);
  std::vector<std::int32_t> pages, states;
  while (const std::int32_t page = p.pages.acquire()) pages.push_back(page);
  EXPECT_EQ(pages.size(), 24U);
  EXPECT_EQ(p.states.acquire(), 0);
  for (int i = 0; i < 4; ++i) p.pages.release(pages[static_cast<std::size_t>(i)]);  // a whole slab
  EXPECT_EQ(p.states.available(), 1);
  states.push_back(p.states.acquire());
  EXPECT_NE(states.back(), 0);
  EXPECT_EQ(p.pages.acquire(), 0);
  // Partly empty slabs are filled before new ones are taken.
  p.pages.release(pages[5]);
  p.pages.release(pages[9]);
  EXPECT_EQ(p.states.available(), 0);
  EXPECT_EQ(p.pages.acquire(), pages[5]);
  EXPECT_EQ(p.pages.acquire(), pages[9]);
}

TEST(SlotPool, KnowsWhatOnlyTheCacheHolds) {
  Pools p(4, 2, 1);
  const std::int32_t page = p.pages.acquire();
  p.pages.set_cached(page, true);
  EXPECT_EQ(p.pages.cached(), 1);
  p.pages.retain(page);
  EXPECT_EQ(p.pages.cached(), 0);
  EXPECT_EQ(p.pages.held(), 1);
  p.pages.release(page);
  EXPECT_TRUE(p.pages.only_cached(page));
  p.pages.set_cached(page, false);
  EXPECT_EQ(p.pages.cached(), 0);
  p.pages.release(page);
  EXPECT_EQ(p.arena->available(), 4);
}

TEST(SlotPool, RandomUseStaysExact) {
  for (const auto& [pages_per_slab, states_per_slab] : {std::pair{1, 1}, {5, 1}, {1, 3}, {7, 2}}) {
    Pools p(9, pages_per_slab, states_per_slab);
    std::vector<std::int32_t> page_refs(static_cast<std::size_t>(p.pages.end()), 0);
    std::vector<std::int32_t> state_refs(static_cast<std::size_t>(p.states.end()), 0);
    std::mt19937 random(7);
    for (int i = 0; i < 20000; ++i) {
      const bool is_page = random() % 2 == 0;
      SlotPool& pool = is_page ? p.pages : p.states;
      std::vector<std::int32_t>& held = is_page ? page_refs : state_refs;
      const std::size_t slot = random() % held.size();
      if (random() % 3 == 0) {
        const bool expected = pool.available() > 0;
        const std::int32_t got = pool.acquire();
        ASSERT_EQ(got != 0, expected);
        if (got != 0) {
          ASSERT_EQ(++held[static_cast<std::size_t>(got)], 1);
        }
      } else if (held[slot] > 0) {
        if (random() % 3 == 0) {
          pool.retain(static_cast<std::int32_t>(slot));
          ++held[slot];
        } else {
          pool.release(static_cast<std::int32_t>(slot));
          --held[slot];
        }
      }
      ASSERT_TRUE(p.pages.check(page_refs).ok()) << p.pages.check(page_refs).message();
      ASSERT_TRUE(p.states.check(state_refs).ok());
      ASSERT_EQ(p.pages.slabs() + p.states.slabs() + p.arena->available(), 9);
    }
  }
}

// Of [base, base + bytes), what the system has given memory to.
std::size_t resident_bytes(std::byte* base, std::size_t bytes) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> resident((bytes + page - 1) / page);
  EXPECT_EQ(mincore(base, bytes, resident.data()), 0);
  return page * static_cast<std::size_t>(
                    std::count_if(resident.begin(), resident.end(), [](unsigned char c) { return (c & 1) != 0; }));
}

TEST(SlabArena, MemoryIsTakenAsUsedAndGivenBack) {
  constexpr std::size_t kSlab = 4 << 20;
  auto arena = *SlabArena::create("test", 8192, kSlab);  // 32 GiB, more than the machine may have
  const auto resident = [&] { return resident_bytes(arena->base(), 64 * kSlab); };
  EXPECT_EQ(resident(), 0U);
  std::vector<std::int32_t> slabs;
  for (int i = 0; i < 8; ++i) {
    slabs.push_back(arena->take());
    std::memset(arena->base() + static_cast<std::size_t>(slabs.back()) * kSlab, 1, kSlab);
  }
  EXPECT_GE(resident(), 8 * kSlab);
  EXPECT_LE(resident(), 9 * kSlab);  // large pages may reach into a neighbour
  arena->trim(0);                    // in use: nothing happens
  EXPECT_GE(resident(), 8 * kSlab);
  for (std::size_t i = slabs.size(); i > 1; --i) arena->give_back(slabs[i - 1]);
  arena->trim(2 * kSlab);
  EXPECT_LE(resident(), 4 * kSlab);
  EXPECT_EQ(arena->base()[1 * kSlab], std::byte{1});  // in use
  EXPECT_EQ(arena->base()[2 * kSlab], std::byte{1});  // kept
  EXPECT_EQ(arena->base()[5 * kSlab], std::byte{0});  // given back
  EXPECT_EQ(arena->take(), slabs[1]);
}

class FakeRoot {
 public:
  FakeRoot() : path_(std::filesystem::temp_directory_path() / ("penstock_cache_test_" + std::to_string(getpid()))) {
    std::filesystem::remove_all(path_);
  }
  ~FakeRoot() { std::filesystem::remove_all(path_); }
  void write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name) << text;
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

TEST(SystemMemory, TheTightestLimitCounts) {
  FakeRoot root;
  root.write("proc/meminfo", "MemTotal: 100 kB\nMemAvailable:    2048 kB\nMemFree: 1 kB\n");
  EXPECT_EQ(*available_memory_bytes(root.path()), 2048 * 1024);
  root.write("proc/self/cgroup", "0::/a/b\n");
  root.write("sys/fs/cgroup/a/memory.max", "1000000\n");
  root.write("sys/fs/cgroup/a/memory.current", "700000\n");
  root.write("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 200000\n");
  root.write("sys/fs/cgroup/a/b/memory.max", "max\n");
  root.write("sys/fs/cgroup/a/b/memory.current", "5\n");
  EXPECT_EQ(*available_memory_bytes(root.path()), 500000);
}

TEST(SystemMemory, VersionOneGroups) {
  FakeRoot root;
  root.write("proc/meminfo", "MemAvailable: 9000 kB\n");
  root.write("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n");
  root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "4000000\n");
  root.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000000\n");
  EXPECT_EQ(*available_memory_bytes(root.path()), 3000000);
  root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(*available_memory_bytes(root.path()), 9000 * 1024);
}

TEST(SystemMemory, SaysSoWhenNothingIsKnown) {
  FakeRoot root;
  EXPECT_FALSE(available_memory_bytes(root.path()).ok());
  EXPECT_GT(*available_memory_bytes(), 0);
  EXPECT_EQ(format_bytes(1536 << 20), "1.5 GiB");
  EXPECT_EQ(format_bytes(640), "640 bytes");
}

}  // namespace
}  // namespace penstock
