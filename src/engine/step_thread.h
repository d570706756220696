// A thread that runs one step at a time, so that the engine's own can plan the next one meanwhile (contract O3).
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace penstock {

class StepThread {
 public:
  StepThread() : thread_([this] { loop(); }) {}
  ~StepThread() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  StepThread(const StepThread&) = delete;
  StepThread& operator=(const StepThread&) = delete;

  // `step` must not throw. Not while another one runs.
  void start(std::function<void()> step) {
    {
      const std::lock_guard lock(mutex_);
      step_ = std::move(step);
    }
    changed_.notify_all();
  }
  // Until the step that was started last has ended.
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return step_ == nullptr; });
  }

 private:
  void loop() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return stopping_ || step_ != nullptr; });
      if (step_ == nullptr) return;
      lock.unlock();
      step_();
      lock.lock();
      step_ = nullptr;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> step_;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace penstock
