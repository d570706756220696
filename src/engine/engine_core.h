// The engine without its thread: requests in, steps, events out. Everything here runs on one thread (contract O1).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cache/cache_store.h"
#include "engine/executor.h"
#include "engine/request.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "penstock/engine.h"
#include "text/tokenizer.h"

namespace penstock {

struct CoreCounters {
  std::int64_t prompt_tokens = 0, output_tokens = 0;
  std::int64_t finished = 0, cancelled = 0, failed = 0;
};

class EngineCore {
 public:
  // The runner was made for step_size(limits). tokenizer: may be null. All but `model` must outlive this.
  EngineCore(const EngineModel& model, const SchedulerLimits& limits, CacheStore& cache, StepRunner& runner,
             const Tokenizer* tokenizer, LogitsSink logits_sink);

  // A request that validate_request() accepted. Ids ascend.
  void add(RequestId id, Request request, std::int32_t context_length);
  // Ends the request with this status (kCancelled, or what went wrong); an unknown id is ignored.
  void end(RequestId id, const Status& status, std::vector<Event>& events);
  void end_all(const Status& status, std::vector<Event>& events);

  // A step in two halves, so that the engine can publish the queue's length before the long one. False: nothing to run.
  bool plan(std::vector<Event>& events);
  void run(std::vector<Event>& events);

  bool idle() const { return scheduler_.idle(); }
  const Scheduler& scheduler() const { return scheduler_; }
  const CoreCounters& counters() const { return counters_; }

 private:
  void report_logits(Sequence& sequence, std::span<const float> logits, std::int32_t rows, std::int32_t first_position,
                     std::vector<Event>& events);
  void sample(std::vector<Event>& events);
  void commit_token(Sequence& sequence, SampleResult& result, std::vector<Event>& events);
  void fill_end(const Sequence& sequence, Event& event);

  std::vector<std::int32_t> eos_token_ids_;
  std::size_t vocab_size_;
  StepRunner& runner_;
  CacheStore& cache_;
  const Tokenizer* tokenizer_;
  LogitsSink logits_sink_;
  Scheduler scheduler_;
  Sampler sampler_;
  CoreCounters counters_;
  const StepPlan* plan_ = nullptr;

  // Of one step, kept for their memory.
  std::vector<Sequence*> sampled_;
  std::vector<SampleJob> jobs_;
  std::vector<SampleResult> results_;
};

}  // namespace penstock
