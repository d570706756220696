// From the engine's thread to the event loops: one message a step and loop, however many requests had news.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "penstock/engine.h"
#include "server/http/http.h"

namespace penstock {

// Gets the events of the engine requests it was added for, on its own loop's thread.
class EventReceiver {
 public:
  virtual ~EventReceiver() = default;
  virtual void on_event(std::int32_t choice, Event& event) = 0;
  virtual void on_step_end() = 0;  // after all of a step's events; perhaps more than once
};

class EventRouter : public std::enable_shared_from_this<EventRouter> {
 public:
  // Until the event with a finish reason has come. `executor` is where the receiver lives.
  void add(RequestId id, std::shared_ptr<EventReceiver> receiver, std::int32_t choice, http::Executor* executor);
  EventSink sink();  // keeps the router alive: the engine may outlast the server
  // Later events are dropped; receivers are released. To be called when the loops' threads have ended.
  void close();

 private:
  struct Target {
    std::shared_ptr<EventReceiver> receiver;
    std::int32_t choice = 0;
    http::Executor* executor = nullptr;
  };
  struct Delivery {
    std::shared_ptr<EventReceiver> receiver;
    std::int32_t choice = 0;
    Event event;
  };

  void dispatch(std::vector<Event>& events);
  static void deliver(std::vector<Delivery>& batch);

  std::mutex mutex_;
  bool closed_ = false;
  std::unordered_map<RequestId, Target> targets_;
};

}  // namespace penstock
