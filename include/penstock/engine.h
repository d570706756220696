// The engine: takes requests from any thread, runs them together, reports tokens as they come.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "penstock/request.h"
#include "penstock/status.h"

namespace penstock {

class Model;      // src/model/model.h: weights packed for a backend
class Tokenizer;  // src/text/tokenizer.h

// How states (snapshots) come into the prefix cache (contract T1 to T3).
enum class SchedulerStrategy : std::uint8_t {
  kAuto,         // extra_buffer
  kNoBuffer,     // states are folded in place; the cache gets copies
  kExtraBuffer,  // states that the cache wants are folded out of place and given to it
};
const char* to_string(SchedulerStrategy strategy);  // "auto", "no_buffer", "extra_buffer"

struct EngineOptions {
  std::int32_t context_length = 0;        // tokens of prompt and output; 0: the model's own, as far as memory allows
  std::int32_t max_running_requests = 0;  // 0: from the memory plan
  // Tokens of prefill a step, any number from 1; -1: as many as a step may have.
  std::int32_t chunked_prefill_size = 512;
  std::int64_t memory_bytes = 0;  // for KV pages, states and windows; 0: mem_fraction of what is free
  double mem_fraction = 0.8;
  std::int32_t max_queued_requests = 2048;
  std::int64_t max_queued_tokens = 8'388'608;
  bool debug_invariants = false;  // check the pools after every step

  bool prefix_cache = true;  // keep what requests computed for those that begin with the same tokens
  SchedulerStrategy strategy = SchedulerStrategy::kAuto;
  std::int32_t track_interval = kDefaultTrackInterval;  // extra_buffer: tokens between snapshots; a multiple of 64
  std::int32_t max_states = 0;                          // most states, snapshots included; 0: as many as fit
  double state_to_kv_ratio = 0;  // caps states to r/(1+r) of the cache's memory and KV pages to the rest; 0: no caps
  // Plan the next step while one runs.
  bool overlap = kDefaultOverlap;

  static constexpr std::int32_t kDefaultTrackInterval = 512;
  static constexpr bool kDefaultOverlap = false;
};

// Counters and gauges, read at any time from any thread.
struct EngineStats {
  std::int64_t running = 0, waiting = 0;              // requests now
  std::int64_t prompt_tokens = 0, output_tokens = 0;  // since the start
  std::int64_t finished = 0, cancelled = 0, failed = 0, rejected = 0;
  std::int64_t steps = 0, preempted = 0;
  // Slots held by running requests, and by the prefix cache alone. KV pages and states share one arena: each total is
  // what there could be of a kind if the other took nothing.
  std::int64_t kv_pages_total = 0, kv_pages_used = 0, kv_pages_cached = 0;
  std::int64_t state_slots_total = 0, state_slots_used = 0, state_slots_cached = 0;
  std::int64_t windows_total = 0, windows_used = 0;
  // The prefix cache, since the start: prompt tokens looked up and found, entries made and evicted.
  std::int64_t cache_query_tokens = 0, cache_hit_tokens = 0;
  std::int64_t snapshots_made = 0, snapshots_evicted = 0, pages_evicted = 0;
  double step_seconds = 0;  // in steps since the start
};

// Called on the engine's thread, once a step, with everything that happened in it. Must not block.
using EventSink = std::function<void(std::vector<Event>& events)>;
// Called on the engine's thread for requests with return_logits: fp32 logits [vocab] of one position, valid during
// the call. Positions of one request come in ascending order.
using LogitsSink = std::function<void(RequestId, std::int32_t position, std::span<const float> logits)>;

class Engine {
 public:
  // Plans memory and starts the engine's thread. The tokenizer makes text of ids; it may be null, then events carry
  // no text and stop strings are refused. Model and tokenizer must outlive the engine.
  static Expected<std::unique_ptr<Engine>> create(const Model& model, const Tokenizer* tokenizer, EngineOptions options,
                                                  EventSink sink, LogitsSink logits_sink = {});
  virtual ~Engine() = default;

  // Checks the request against the model and the queue's limits; the id is in every event of it.
  // kInvalidArgument: a field is out of range (named), or prompt + max_tokens can never fit (both numbers given).
  // kResourceExhausted: the queue is full. kUnavailable: stopping.
  // `on_accept` runs before the request can produce its first event, so a caller can register the id.
  virtual Expected<RequestId> submit(Request request, const std::function<void(RequestId)>& on_accept = {}) = 0;

  // Ends a request at the next step; its last event says kCancelled. An unknown id is ignored.
  virtual void cancel(RequestId id) = 0;

  // Takes no more requests, finishes the running and waiting ones within `seconds`, cancels the rest, and stops.
  virtual void drain(double seconds) = 0;

  // Empties the prefix cache; requests that run keep what they use. Waits for the step that runs to end.
  virtual void flush_cache() = 0;

  virtual EngineStats stats() const = 0;
  virtual std::int32_t context_length() const = 0;  // after the memory plan
  virtual std::int32_t max_running_requests() const = 0;
  virtual std::string memory_plan() const = 0;  // a few lines for people

  // At idle: free + cached = total for every pool (contract S7). An error says which pool differs and by how much.
  virtual Status check_invariants() = 0;
};

}  // namespace penstock
