#include "penstock/engine.h"

#include <fmt/format.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <unordered_set>
#include <utility>

#include "base/check.h"
#include "base/system_memory.h"
#include "cache/cache_store.h"
#include "engine/engine_core.h"
#include "engine/engine_impl.h"
#include "engine/engine_setup.h"
#include "engine/request.h"

namespace penstock {
namespace {

using Clock = std::chrono::steady_clock;

// After this long without work, memory beyond kWarmBytes of each pool goes back to the system.
constexpr std::chrono::seconds kTrimAfter{5};
constexpr std::size_t kWarmBytes = std::size_t{64} << 20;

class EngineImpl final : public Engine {
 public:
  EngineImpl(EngineModel model, EngineSetup setup, std::unique_ptr<CacheStore> cache,
             std::unique_ptr<StepRunner> runner, const Tokenizer* tokenizer, const EngineOptions& options,
             EventSink sink, LogitsSink logits_sink);
  ~EngineImpl() override;

  Expected<RequestId> submit(Request request, const std::function<void(RequestId)>& on_accept) override;
  void cancel(RequestId id) override;
  void drain(double seconds) override;
  void flush_cache() override;
  EngineStats stats() const override;
  std::int32_t context_length() const override { return setup_.memory.context_length; }
  std::int32_t max_running_requests() const override { return setup_.limits.max_running; }
  std::string memory_plan() const override { return setup_.text; }
  Status check_invariants() override;

 private:
  struct Arrival {
    RequestId id;
    Request request;
  };

  // The engine's thread.
  void loop();
  bool take_inbox();  // false: there will be no more work
  void step();
  void publish(double step_seconds, bool stepped);
  void deliver();
  bool overdue() const { return stopping_ && Clock::now() >= deadline_; }

  const EngineModel model_;
  const EngineSetup setup_;
  const EngineOptions options_;
  const RequestLimits limits_;
  std::unique_ptr<CacheStore> cache_;
  std::unique_ptr<StepRunner> runner_;
  EventSink sink_;
  EngineCore core_;               // the engine's thread alone, until it has ended
  std::vector<Event> events_;     // of the current step
  std::vector<Arrival> arrived_;  // taken from the inbox
  std::vector<RequestId> leaving_;
  bool cancel_rest_ = false;

  mutable std::mutex mutex_;
  std::condition_variable wake_;     // for the engine's thread
  std::condition_variable changed_;  // for those who wait for it
  std::vector<Arrival> inbox_;
  std::vector<RequestId> cancels_;
  std::unordered_set<RequestId> accepting_;      // have an id, are not in the inbox yet
  std::unordered_set<RequestId> early_cancels_;  // of those, cancelled already
  std::int64_t accepting_tokens_ = 0, inbox_tokens_ = 0;
  std::int64_t waiting_requests_ = 0, waiting_tokens_ = 0;  // in the scheduler's queue
  RequestId next_id_ = 1;
  bool stopping_ = false, stopped_ = false;
  Clock::time_point deadline_ = Clock::time_point::max();
  EngineStats stats_;
  // What other threads ask of the engine's: done at the start of a step, all of it up to the ticket.
  std::int64_t checks_wanted_ = 0, checks_done_ = 0;
  std::int64_t flushes_wanted_ = 0, flushes_done_ = 0;
  Status check_result_;

  std::thread thread_;  // last: it uses everything above
};

EngineImpl::EngineImpl(EngineModel model, EngineSetup setup, std::unique_ptr<CacheStore> cache,
                       std::unique_ptr<StepRunner> runner, const Tokenizer* tokenizer, const EngineOptions& options,
                       EventSink sink, LogitsSink logits_sink)
    : model_(std::move(model)),
      setup_(std::move(setup)),
      options_(options),
      limits_{model_.vocab_size, setup_.memory.context_length, tokenizer != nullptr, logits_sink != nullptr},
      cache_(std::move(cache)),
      runner_(std::move(runner)),
      sink_(std::move(sink)),
      core_(model_, setup_.limits, *cache_, *runner_, options.overlap, tokenizer, std::move(logits_sink)) {
  stats_.kv_pages_total = cache_->kv_pages().total();
  stats_.state_slots_total = cache_->states().total();
  stats_.windows_total = cache_->windows().total();
  thread_ = std::thread([this] { loop(); });
}

EngineImpl::~EngineImpl() {
  drain(0);
  thread_.join();
}

Expected<RequestId> EngineImpl::submit(Request request, const std::function<void(RequestId)>& on_accept) {
  PENSTOCK_RETURN_IF_ERROR(validate_request(request, limits_));
  const auto tokens = static_cast<std::int64_t>(request.prompt.size());
  RequestId id = 0;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return unavailable("the engine is stopping and takes no more requests");
    const std::int64_t requests = waiting_requests_ + static_cast<std::int64_t>(inbox_.size() + accepting_.size());
    const std::int64_t queued_tokens = waiting_tokens_ + inbox_tokens_ + accepting_tokens_;
    // A long prompt alone in the queue is always taken: the bound is on waiting, not on the size of one request.
    if (requests >= options_.max_queued_requests ||
        (requests > 0 && queued_tokens + tokens > options_.max_queued_tokens)) {
      ++stats_.rejected;
      return resource_exhausted(
          fmt::format("the queue is full: {} requests with {} prompt tokens wait (at most {} and {}); try again later",
                      requests, queued_tokens, options_.max_queued_requests, options_.max_queued_tokens));
    }
    id = next_id_++;
    accepting_.insert(id);
    accepting_tokens_ += tokens;
  }
  // Without the lock: the caller may take locks of its own here that it also holds when it calls cancel().
  if (on_accept) on_accept(id);
  {
    const std::lock_guard lock(mutex_);
    accepting_.erase(id);
    accepting_tokens_ -= tokens;
    inbox_tokens_ += tokens;
    inbox_.push_back({id, std::move(request)});
    if (early_cancels_.erase(id) != 0) cancels_.push_back(id);
    wake_.notify_one();  // under the lock: the engine may end and be destroyed as soon as it is free
  }
  return id;
}

void EngineImpl::cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  if (stopped_) return;
  if (accepting_.contains(id)) {
    early_cancels_.insert(id);
    return;
  }
  cancels_.push_back(id);
  wake_.notify_one();
}

void EngineImpl::drain(double seconds) {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  const auto patience = std::chrono::duration<double>(std::min(std::max(seconds, 0.0), 1e8));
  deadline_ = std::min(deadline_, Clock::now() + std::chrono::duration_cast<Clock::duration>(patience));
  wake_.notify_one();
  if (std::this_thread::get_id() == thread_.get_id()) return;  // from a sink: the end comes after it returns
  changed_.wait(lock, [this] { return stopped_; });
}

EngineStats EngineImpl::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.waiting = waiting_requests_ + static_cast<std::int64_t>(inbox_.size() + accepting_.size());
  return stats;
}

Status EngineImpl::check_invariants() {
  std::unique_lock lock(mutex_);
  if (!stopped_ && std::this_thread::get_id() != thread_.get_id()) {
    const std::int64_t ticket = ++checks_wanted_;
    wake_.notify_one();
    changed_.wait(lock, [&] { return stopped_ || checks_done_ >= ticket; });
    if (checks_done_ >= ticket) return check_result_;
  }
  return core_.scheduler().check_invariants();
}

void EngineImpl::flush_cache() {
  std::unique_lock lock(mutex_);
  if (stopped_) return;  // nothing is left
  const std::int64_t ticket = ++flushes_wanted_;
  wake_.notify_one();
  if (std::this_thread::get_id() == thread_.get_id()) return;  // from a sink: done before the next step
  changed_.wait(lock, [&] { return stopped_ || flushes_done_ >= ticket; });
}

void EngineImpl::loop() {
  while (take_inbox()) {
    if (cancel_rest_) core_.end_all(Status(StatusCode::kCancelled, "the engine is stopping"), events_);
    step();
    deliver();
  }
}

// Sleeps until there is something to do, and takes what came from other threads.
bool EngineImpl::take_inbox() {
  std::unique_lock lock(mutex_);
  const auto has_news = [this] {
    return !inbox_.empty() || !cancels_.empty() || stopping_ || checks_wanted_ != checks_done_ ||
           flushes_wanted_ != flushes_done_;
  };
  if (core_.idle() && !has_news() && !wake_.wait_for(lock, kTrimAfter, has_news)) {
    cache_->trim(kWarmBytes);
    wake_.wait(lock, has_news);
  }
  if (flushes_wanted_ != flushes_done_) {
    core_.flush_cache();
    publish(0, false);
    flushes_done_ = flushes_wanted_;
    changed_.notify_all();
  }
  if (checks_wanted_ != checks_done_) {
    check_result_ = core_.scheduler().check_invariants();
    checks_done_ = checks_wanted_;
    changed_.notify_all();
  }
  arrived_.swap(inbox_);
  waiting_requests_ += static_cast<std::int64_t>(arrived_.size());
  waiting_tokens_ += std::exchange(inbox_tokens_, 0);
  leaving_.swap(cancels_);
  cancel_rest_ = overdue();
  if (stopping_ && core_.idle() && arrived_.empty()) {
    // A request that has an id already gets its events: wait for it to come in.
    if (accepting_.empty()) {
      stopped_ = true;
      publish(0, false);
      changed_.notify_all();
      return false;
    }
    wake_.wait(lock, [this] { return !inbox_.empty(); });
  }
  lock.unlock();
  for (Arrival& arrival : arrived_) {
    core_.add(arrival.id, std::move(arrival.request), setup_.memory.context_length);
  }
  arrived_.clear();
  for (const RequestId id : leaving_) core_.end(id, Status(StatusCode::kCancelled, "cancelled"), events_);
  leaving_.clear();
  return true;
}

// With overlap: plans the next step while one runs, then ends that one and starts the next.
void EngineImpl::step() {
  const bool planned = core_.plan(events_);
  if (!planned && !core_.in_flight()) return;
  {
    const std::lock_guard lock(mutex_);
    publish(0, false);
  }
  const auto begin = Clock::now();
  const bool stepped = core_.advance(events_);
  if (options_.debug_invariants) {
    const Status status = core_.scheduler().check_invariants();
    CHECK_MSG(status.ok(), status.message().c_str());
  }
  const std::lock_guard lock(mutex_);
  publish(std::chrono::duration<double>(Clock::now() - begin).count(), stepped);
}

// What other threads may read. Holds the lock.
void EngineImpl::publish(double step_seconds, bool stepped) {
  const Scheduler& scheduler = core_.scheduler();
  waiting_requests_ = static_cast<std::int64_t>(scheduler.waiting().size());
  waiting_tokens_ = scheduler.waiting().prompt_tokens();
  const CoreCounters& counters = core_.counters();
  stats_.running = static_cast<std::int64_t>(scheduler.running());
  stats_.prompt_tokens = counters.prompt_tokens;
  stats_.output_tokens = counters.output_tokens;
  stats_.finished = counters.finished;
  stats_.cancelled = counters.cancelled;
  stats_.failed = counters.failed;
  stats_.preempted = scheduler.counters().preempted;
  stats_.cache_query_tokens = scheduler.counters().query_tokens;
  stats_.cache_hit_tokens = scheduler.counters().hit_tokens;
  stats_.snapshots_made = core_.prefix().counters().snapshots_made;
  stats_.snapshots_evicted = core_.prefix().counters().snapshots_evicted;
  stats_.pages_evicted = core_.prefix().counters().pages_evicted;
  stats_.kv_pages_used = cache_->kv_pages().held();
  stats_.kv_pages_cached = cache_->kv_pages().cached();
  stats_.state_slots_used = cache_->states().held();
  stats_.state_slots_cached = cache_->states().cached();
  stats_.windows_used = cache_->windows().used();
  if (!stepped) return;
  ++stats_.steps;
  stats_.step_seconds += step_seconds;
}

void EngineImpl::deliver() {
  if (events_.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    publish(0, false);
  }
  sink_(events_);
  events_.clear();
}

}  // namespace

Expected<std::unique_ptr<Engine>> create_engine(EngineModel model, const Tokenizer* tokenizer, EngineOptions options,
                                                EventSink sink, LogitsSink logits_sink) {
  CHECK(sink != nullptr);
  std::int64_t available = 0;
  if (options.memory_bytes == 0) {
    PENSTOCK_ASSIGN_OR_RETURN(available, available_memory_bytes());
  }
  PENSTOCK_ASSIGN_OR_RETURN(EngineSetup setup, plan_engine(model, options, available, logits_sink != nullptr));
  try {
    PENSTOCK_ASSIGN_OR_RETURN(auto cache, CacheStore::create(model.layout, setup.memory));
    auto runner = model.make_runner(step_size(setup.limits));
    return std::unique_ptr<Engine>(std::make_unique<EngineImpl>(std::move(model), std::move(setup), std::move(cache),
                                                                std::move(runner), tokenizer, options, std::move(sink),
                                                                std::move(logits_sink)));
  } catch (const std::bad_alloc&) {
    return resource_exhausted(fmt::format(
        "not enough memory for steps of {} tokens and {} requests at a time; lower --chunked-prefill-size or "
        "--max-running-requests",
        setup.limits.prefill_tokens, setup.limits.max_running));
  } catch (const std::system_error& error) {
    return resource_exhausted(fmt::format("cannot start the engine's thread: {}", error.what()));
  }
}

}  // namespace penstock
