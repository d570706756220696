// Compute threads that split one operator after another: a fork-join pool with short spins between regions.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace penstock {

class ThreadPool {
 public:
  // `threads` >= 1, the caller of run() included; 0: one per physical core this process may run on.
  // Threads are pinned, one a core, where there are more than two and no more than cores. On two cores the caller, its
  // one helper and the server's thread share what there is: the system places them.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Calls body(task, thread) for every task in [0, tasks), tasks handed out in ascending order to whoever is free, and
  // returns when all are done. Results must not depend on which thread ran a task. Not reentrant; one caller at a time.
  template <typename Body>
  void parallel_for(std::int64_t tasks, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run(
        tasks, [](void* context, std::int64_t task, int thread) { (*static_cast<Plain*>(context))(task, thread); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using TaskFunction = void (*)(void* context, std::int64_t task, int thread);
  void run(std::int64_t tasks, TaskFunction function, void* context);

  struct Impl;
  int threads_;
  std::unique_ptr<Impl> impl_;
};

// Cores this process may use (affinity mask, cgroup quota), counting hyperthreads of one core once.
int usable_cores();

}  // namespace penstock
