#include "cli/session.h"

#include <unistd.h>

#include <iterator>
#include <utility>

namespace penstock::cli {

EventSink EventQueue::sink() {
  return [this](std::vector<Event>& events) {
    {
      const std::lock_guard lock(mutex_);
      if (events_.empty()) {
        events_.swap(events);
      } else {
        events_.insert(events_.end(), std::make_move_iterator(events.begin()), std::make_move_iterator(events.end()));
      }
    }
    ready_.notify_one();
  };
}

std::vector<Event> EventQueue::wait(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  ready_.wait_for(lock, timeout, [&] { return !events_.empty(); });
  return std::exchange(events_, {});
}

Interrupt::Interrupt()
    : watcher_([this](int signal, int count) {
        signal_ = signal;
        requested_ = true;
        if (!armed_ || count > 1) _exit(128 + signal);
      }) {}

}  // namespace penstock::cli
