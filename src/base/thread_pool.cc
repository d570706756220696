#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"

namespace penstock {
namespace {

// How long a thread spins for the next region before it sleeps. Regions of one step follow each other within
// microseconds; between steps of an idle server nobody should burn a core.
constexpr auto kSpin = std::chrono::microseconds(60);
constexpr int kPausesBetweenClockReads = 64;

void pause() {
  __builtin_ia32_pause();
}

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    }
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

int read_topology(int cpu, const char* name) {
  std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/" + name);
  int value = -1;
  return file >> value ? value : -1;
}

// One CPU per physical core first, then the second hyperthreads.
std::pair<std::vector<int>, int> ordered_cpus() {
  std::vector<int> first;
  std::vector<int> second;
  std::set<std::pair<int, int>> seen;
  for (const int cpu : allowed_cpus()) {
    const int core = read_topology(cpu, "core_id");
    const bool fresh = core < 0 || seen.insert({read_topology(cpu, "physical_package_id"), core}).second;
    (fresh ? first : second).push_back(cpu);
  }
  const int cores = static_cast<int>(first.size());
  first.insert(first.end(), second.begin(), second.end());
  return {first, cores};
}

// CPUs' worth of time a cgroup grants, or a large number.
double cgroup_quota() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (file >> quota >> period && quota != "max" && period > 0) return std::max(1.0, std::stod(quota) / period);
  return 1e9;
}

}  // namespace

int usable_cores() {
  const int cores = ordered_cpus().second;
  return std::max(1, static_cast<int>(std::min<double>(cores, std::floor(cgroup_quota() + 0.5))));
}

struct ThreadPool::Impl {
  // A region is a new value of `epoch`. Tasks are claimed from `next`; the caller waits until every worker has left
  // the region, so that nobody can read the next region's fields with this one's epoch.
  alignas(64) std::atomic<std::uint32_t> epoch{0};
  alignas(64) std::atomic<std::int64_t> next{0};
  alignas(64) std::atomic<std::int32_t> busy{0};
  std::int64_t tasks = 0;
  TaskFunction function = nullptr;
  void* context = nullptr;
  std::atomic<bool> stopping{false};
  std::vector<std::thread> workers;

  void work(int thread) {
    for (;;) {
      const std::int64_t task = next.fetch_add(1, std::memory_order_relaxed);
      if (task >= tasks) return;
      function(context, task, thread);
    }
  }

  std::uint32_t wait_for_epoch(std::uint32_t seen) const {
    const auto start = std::chrono::steady_clock::now();
    for (;;) {
      for (int i = 0; i < kPausesBetweenClockReads; ++i) {
        const std::uint32_t now = epoch.load(std::memory_order_acquire);
        if (now != seen) return now;
        pause();
      }
      if (std::chrono::steady_clock::now() - start > kSpin) epoch.wait(seen, std::memory_order_acquire);
    }
  }

  void run_worker(int thread) {
    std::uint32_t seen = 0;
    for (;;) {
      seen = wait_for_epoch(seen);
      if (stopping.load(std::memory_order_relaxed)) return;
      work(thread);
      busy.fetch_sub(1, std::memory_order_release);
    }
  }
};

ThreadPool::ThreadPool(int threads)
    : threads_(threads > 0 ? threads : usable_cores()), impl_(std::make_unique<Impl>()) {
  const auto [cpus, cores] = ordered_cpus();
  // The caller is thread 0 and stays where its own work takes it.
  for (int i = 1; i < threads_; ++i) {
    impl_->workers.emplace_back([this, i] { impl_->run_worker(i); });
    if (threads_ > 2 && threads_ <= static_cast<int>(cpus.size())) {
      cpu_set_t set;
      CPU_ZERO(&set);
      CPU_SET(cpus[static_cast<std::size_t>(i)], &set);
      // Best effort: an unpinned thread is slower, not wrong.
      (void)pthread_setaffinity_np(impl_->workers.back().native_handle(), sizeof(set), &set);
    }
  }
}

ThreadPool::~ThreadPool() {
  impl_->stopping.store(true, std::memory_order_relaxed);
  impl_->epoch.fetch_add(1, std::memory_order_release);
  impl_->epoch.notify_all();
  for (std::thread& worker : impl_->workers) worker.join();
}

void ThreadPool::run(std::int64_t tasks, TaskFunction function, void* context) {
  if (tasks <= 0) return;
  if (threads_ == 1 || tasks == 1) {
    for (std::int64_t task = 0; task < tasks; ++task) function(context, task, 0);
    return;
  }
  Impl& impl = *impl_;
  impl.tasks = tasks;
  impl.function = function;
  impl.context = context;
  impl.next.store(0, std::memory_order_relaxed);
  impl.busy.store(threads_ - 1, std::memory_order_relaxed);
  impl.epoch.fetch_add(1, std::memory_order_release);
  impl.epoch.notify_all();
  impl.work(0);
  // Workers that are still asleep wake into an empty region: wait for all of them.
  int pauses = 0;
  while (impl.busy.load(std::memory_order_acquire) != 0) {
    pause();
    if (++pauses == 2000) {
      std::this_thread::yield();
      pauses = 0;
    }
  }
}

}  // namespace penstock
