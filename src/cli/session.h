// An Engine for the commands that ask it themselves: events gathered for one waiting thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "cli/loading.h"
#include "cli/signals.h"
#include "penstock/engine.h"

namespace penstock::cli {

class EventQueue {
 public:
  EventSink sink();  // the queue must outlive the engine
  // The events so far, or those that come within `timeout`; may be empty.
  std::vector<Event> wait(std::chrono::milliseconds timeout);

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::vector<Event> events_;  // guarded by mutex_
};

// For commands that Ctrl-C stops: the first signal sets a flag while work is under way and ends the program before that
// (loading cannot be interrupted otherwise); the second ends it at once.
class Interrupt {
 public:
  Interrupt();
  void arm() { armed_ = true; }
  bool requested() const { return requested_; }
  int exit_status() const { return 128 + signal_; }  // as a shell reports a program ended by the signal

 private:
  std::atomic<bool> armed_ = false;
  std::atomic<bool> requested_ = false;
  std::atomic<int> signal_ = 0;
  SignalWatcher watcher_;
};

// How long a waiting loop sleeps before it looks whether it was interrupted.
constexpr std::chrono::milliseconds kPoll{50};

}  // namespace penstock::cli
