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
  return layout;
}

TEST(MemoryPlan, UsesNoMoreThanRequestsCan) {
  const auto plan = plan_memory(layout_of(1024, 4096, 512), {.memory_bytes = 1 << 30, .model_context = 4096});
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  EXPECT_EQ(plan->max_running_requests, 64);
  EXPECT_EQ(plan->context_length, 4096);
  EXPECT_EQ(plan->kv_pages, 64 * 64);
  EXPECT_EQ(plan->states, 64);
  EXPECT_EQ(plan->windows, 64);
  EXPECT_THAT(plan->text, HasSubstr("up to 64 at a time, of up to 4096 tokens each"));
}

TEST(MemoryPlan, ShrinksRequestsThenContext) {
  // Room for ten requests of 2,048 tokens (32 pages) with state and window.
  const std::int64_t each = 32 * 1024 + 4096 + 512;
  const auto plan =
      plan_memory(layout_of(1024, 4096, 512), {.memory_bytes = 10 * each + 100, .model_context = 1 << 20});
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->max_running_requests, 10);
  EXPECT_EQ(plan->kv_pages, 320);
  EXPECT_EQ(plan->context_length, 320 * 64);
  EXPECT_LE(plan->kv_bytes + plan->state_bytes + plan->window_bytes, plan->memory_bytes);
}

TEST(MemoryPlan, AskedForContextComesBeforeMoreRequests) {
  const auto plan = plan_memory(layout_of(1024, 40960, 512),
                                {.memory_bytes = 2 << 20, .model_context = 1 << 20, .context_length = 1800 * 64});
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  EXPECT_EQ(plan->context_length, 1800 * 64);
  EXPECT_GE(plan->kv_pages, 1800);
  EXPECT_LT(plan->max_running_requests, 7);
}

TEST(MemoryPlan, RefusalsNameTheNumber) {
  const CacheLayout layout = layout_of(1024, 4096, 512);
  const auto tiny = plan_memory(layout, {.memory_bytes = 5631, .model_context = 4096});
  ASSERT_FALSE(tiny.ok());
  EXPECT_EQ(tiny.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(tiny.status().message(), HasSubstr("--cache-memory to at least 5632"));
  EXPECT_TRUE(plan_memory(layout, {.memory_bytes = 5632, .model_context = 4096}).ok());

  const auto many = plan_memory(layout, {.memory_bytes = 5632 * 7, .model_context = 4096, .max_running_requests = 8});
  ASSERT_FALSE(many.ok());
  EXPECT_THAT(many.status().message(), HasSubstr("--max-running-requests to 7 or less"));

  const auto longer = plan_memory(layout, {.memory_bytes = 4608 + 10240, .model_context = 4096, .context_length = 641});
  ASSERT_FALSE(longer.ok());
  EXPECT_THAT(longer.status().message(), HasSubstr("--context-length to 640 or less"));

  const auto beyond = plan_memory(layout, {.memory_bytes = 1 << 20, .model_context = 4096, .context_length = 4097});
  ASSERT_FALSE(beyond.ok());
  EXPECT_EQ(beyond.status().code(), StatusCode::kInvalidArgument);
}

TEST(MemoryPlan, RecurrentBackendHasNoWindows) {
  const auto plan = plan_memory(layout_of(1024, 4096, 0), {.memory_bytes = 1 << 20, .model_context = 256});
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->windows, 0);
  const auto store = CacheStore::create(layout_of(1024, 4096, 0), *plan);
  ASSERT_TRUE(store.ok());
  EXPECT_FALSE((*store)->has_windows());
}

TEST(SlotPool, CountsReferences) {
  auto pool = *SlotPool::create("test", 3, 128);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pool->base()) % 64, 0U);
  const std::int32_t a = pool->acquire(), b = pool->acquire(), c = pool->acquire();
  EXPECT_EQ(a, 1);
  EXPECT_NE(b, c);
  EXPECT_EQ(pool->acquire(), 0);
  pool->retain(b);
  pool->release(b);
  EXPECT_EQ(pool->available(), 0);
  EXPECT_EQ(pool->references(b), 1);
  pool->release(b);
  EXPECT_EQ(pool->available(), 1);
  EXPECT_EQ(pool->acquire(), b);
  EXPECT_TRUE(pool->check(std::vector<std::int32_t>{0, 1, 1, 1}).ok());
  const Status wrong = pool->check(std::vector<std::int32_t>{0, 1, 0, 1});
  EXPECT_THAT(wrong.message(), HasSubstr("slot 2 has 1 references, its holders are 0"));
}

TEST(SlotPool, RandomUseStaysExact) {
  auto pool = *SlotPool::create("test", 17, 64);
  std::vector<std::int32_t> held(18, 0);
  std::mt19937 random(7);
  for (int i = 0; i < 20000; ++i) {
    const std::size_t slot = 1 + random() % 17;
    if (random() % 3 == 0) {
      const std::int32_t got = pool->acquire();
      if (got != 0) {
        ASSERT_EQ(++held[static_cast<std::size_t>(got)], 1);
      }
    } else if (held[slot] > 0) {
      if (random() % 3 == 0) {
        pool->retain(static_cast<std::int32_t>(slot));
        ++held[slot];
      } else {
        pool->release(static_cast<std::int32_t>(slot));
        --held[slot];
      }
    }
    ASSERT_TRUE(pool->check(held).ok());
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

TEST(SlotPool, MemoryIsTakenAsUsedAndGivenBack) {
  constexpr std::size_t kSlot = 4 << 20;
  auto pool = *SlotPool::create("test", 8192, kSlot);  // 32 GiB, more than the machine may have
  const auto resident = [&] { return resident_bytes(pool->base(), 64 * kSlot); };
  EXPECT_EQ(resident(), 0U);
  std::vector<std::int32_t> slots;
  for (int i = 0; i < 8; ++i) {
    slots.push_back(pool->acquire());
    std::memset(pool->base() + static_cast<std::size_t>(slots.back()) * kSlot, 1, kSlot);
  }
  EXPECT_GE(resident(), 8 * kSlot);
  EXPECT_LE(resident(), 9 * kSlot);  // large pages may reach into a neighbour
  pool->trim(kSlot);                 // in use: nothing happens
  EXPECT_GE(resident(), 8 * kSlot);
  for (const std::int32_t slot : slots) pool->release(slot);
  pool->trim(2 * kSlot);
  EXPECT_LE(resident(), 2 * kSlot);
  EXPECT_EQ(pool->base()[kSlot], std::byte{1});      // kept
  EXPECT_EQ(pool->base()[5 * kSlot], std::byte{0});  // given back
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
