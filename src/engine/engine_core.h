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
#include "engine/step_thread.h"
#include "penstock/engine.h"
#include "text/tokenizer.h"

namespace penstock {

struct CoreCounters {
  std::int64_t prompt_tokens = 0, output_tokens = 0;
  std::int64_t finished = 0, cancelled = 0, failed = 0;
};

class EngineCore {
 public:
  // The runner was made for step_size(limits). overlap: steps run on a thread of their own. tokenizer: may be null. All
  // but `model` must outlive this.
  EngineCore(const EngineModel& model, const SchedulerLimits& limits, CacheStore& store, StepRunner& runner,
             bool overlap, const Tokenizer* tokenizer, LogitsSink logits_sink);
  ~EngineCore();

  // A request that validate_request() accepted. Ids ascend.
  void add(RequestId id, Request request, std::int32_t context_length);
  // Ends the request with this status (kCancelled, or what went wrong); an unknown id is ignored.
  void end(RequestId id, const Status& status, std::vector<Event>& events);
  void end_all(const Status& status, std::vector<Event>& events);
  void flush_cache() { prefix_.flush(); }

  // A step in three parts. plan(): false when there is nothing to run; may be called while the step before it runs.
  // start(): after the one before it has finished. finish(): waits, and reports what came of the step.
  bool plan(std::vector<Event>& events);
  void start();
  void finish(std::vector<Event>& events);
  // After plan(): ends the step that runs and starts the one that was planned; without overlap, ends that too. True
  // when a step has ended.
  bool advance(std::vector<Event>& events);
  bool in_flight() const { return running_plan_ != nullptr; }

  bool idle() const { return scheduler_.idle() && !in_flight(); }
  const Scheduler& scheduler() const { return scheduler_; }
  const PrefixCache& prefix() const { return prefix_; }
  const CoreCounters& counters() const { return counters_; }

 private:
  void run();
  void leave(std::unique_ptr<Sequence> sequence);
  void report_logits(const PlannedSlice& item, std::span<const float> logits, std::vector<Event>& events);
  void commit_token(Sequence& sequence, SampleResult& result, std::vector<Event>& events);
  void fail_not_finite(RequestId id, std::int32_t position, std::vector<Event>& events);
  void fill_end(const Sequence& sequence, Event& event);

  std::vector<std::int32_t> eos_token_ids_;
  std::size_t vocab_size_;
  StepRunner& runner_;
  CacheStore& store_;
  const Tokenizer* tokenizer_;
  LogitsSink logits_sink_;
  PrefixCache prefix_;
  Scheduler scheduler_;
  Sampler sampler_;
  CoreCounters counters_;
  StepPlan* next_plan_ = nullptr;                // planned, not started
  StepPlan* running_plan_ = nullptr;             // started, not finished
  std::vector<std::unique_ptr<Sequence>> left_;  // while a step that may read their parameters runs

  // Of one step, kept for their memory.
  std::vector<SampleJob> jobs_;
  std::vector<std::size_t> job_rows_;  // of logits
  std::vector<SampleResult> results_;
  std::span<const float> logits_;

  std::unique_ptr<StepThread> thread_;  // null: steps run in start(). Last: it uses everything above
};

}  // namespace penstock
