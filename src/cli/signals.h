// SIGINT and SIGTERM, taken by a thread of ours instead of interrupting the others anywhere.
#pragma once

#include <functional>
#include <thread>

namespace penstock::cli {

// Made before any other thread, so that all of them have the signals blocked. Until the object goes, `handler` runs on
// its thread with the signal's number and how many there have been, beginning with 1; it may call _exit().
class SignalWatcher {
 public:
  using Handler = std::function<void(int signal, int count)>;
  explicit SignalWatcher(Handler handler);
  ~SignalWatcher();
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;

 private:
  void watch();

  Handler handler_;
  int signal_fd_ = -1;  // readable when a signal has come
  int wake_fd_ = -1;    // readable when the object goes
  std::thread thread_;
};

}  // namespace penstock::cli
