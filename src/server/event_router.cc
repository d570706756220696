#include "server/event_router.h"

#include <exception>
#include <utility>

#include <spdlog/spdlog.h>

namespace penstock {

void EventRouter::add(RequestId id, std::shared_ptr<EventReceiver> receiver, std::int32_t choice,
                      http::Executor* executor) {
  const std::lock_guard lock(mutex_);
  if (!closed_) targets_[id] = {std::move(receiver), choice, executor};
}

EventSink EventRouter::sink() {
  return [self = shared_from_this()](std::vector<Event>& events) { self->dispatch(events); };
}

void EventRouter::close() {
  std::unordered_map<RequestId, Target> released;  // destroyed after the lock: a receiver's end may do anything
  const std::lock_guard lock(mutex_);
  closed_ = true;
  released.swap(targets_);
}

void EventRouter::dispatch(std::vector<Event>& events) {
  // As good as always one loop: a list of pairs is enough.
  std::vector<std::pair<http::Executor*, std::shared_ptr<std::vector<Delivery>>>> batches;
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  for (Event& event : events) {
    const auto it = targets_.find(event.request);
    if (it == targets_.end()) continue;
    Target& target = it->second;
    std::vector<Delivery>* batch = nullptr;
    for (const auto& [executor, deliveries] : batches) {
      if (executor == target.executor) batch = deliveries.get();
    }
    if (batch == nullptr) {
      batches.emplace_back(target.executor, std::make_shared<std::vector<Delivery>>());
      batch = batches.back().second.get();
      batch->reserve(events.size());
    }
    const bool last = event.finish != FinishReason::kNone;
    batch->push_back({last ? std::move(target.receiver) : target.receiver, target.choice, std::move(event)});
    if (last) targets_.erase(it);
  }
  // Under the lock, so that close() cannot end the loops in between.
  for (auto& [executor, deliveries] : batches) {
    executor->post([batch = std::move(deliveries)] { deliver(*batch); });
  }
}

void EventRouter::deliver(std::vector<Delivery>& batch) {
  // One receiver's failure (memory, say) is not the others'.
  const auto guarded = [](const auto& call) {
    try {
      call();
    } catch (const std::exception& e) {
      spdlog::error("http: an answer could not be written: {}", e.what());
    }
  };
  for (Delivery& d : batch) guarded([&] { d.receiver->on_event(d.choice, d.event); });
  for (const Delivery& d : batch) guarded([&] { d.receiver->on_step_end(); });
}

}  // namespace penstock
