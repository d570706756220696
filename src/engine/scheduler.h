// Which requests run, and what each does in a step. Owns the requests and every slot they hold. A plan is made before
// the step runs and reserves all it needs; commit() makes it visible (contract O2).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cache/cache_store.h"
#include "engine/executor.h"
#include "engine/sequence.h"
#include "engine/waiting_queue.h"
#include "model/forward.h"

namespace penstock {

struct SchedulerLimits {
  std::int32_t max_running = 1;
  std::int32_t prefill_tokens = 512;  // rows of prompts in a step; decode rows come on top
  std::int32_t score_rows = 0;        // rows of logits in a step for requests that score, beyond one each
};

// Rows of logits and tokens that a plan under these limits may have.
StepSize step_size(const SchedulerLimits& limits);

struct PlannedSlice {
  Sequence* sequence = nullptr;
  std::int32_t tokens = 0;
  std::int32_t logits_rows = 0;
};

struct StepPlan {
  std::vector<SequenceSlice> slices;  // what the model runs
  std::vector<PlannedSlice> items;    // the same slices, whose they are
  bool empty() const { return slices.empty(); }
};

class Scheduler {
 public:
  Scheduler(const SchedulerLimits& limits, CacheStore& cache);
  ~Scheduler();

  void add(std::unique_ptr<Sequence> sequence) { waiting_.push(std::move(sequence)); }

  // Admits, gives pages to whoever needs one (preempting the youngest when there is none, contract Q3), and plans.
  // Decode rows always run; prompts share `prefill_tokens` in order of admission. Valid until the next call.
  const StepPlan& plan();
  // The planned tokens are in the cache now.
  void commit();

  // Takes a request out, wherever it is, and frees its slots; null: not here.
  std::unique_ptr<Sequence> remove(RequestId id);
  std::unique_ptr<Sequence> remove_oldest();  // null: there is none

  bool idle() const { return running_.empty() && waiting_.empty(); }
  std::size_t running() const { return running_.size(); }
  const WaitingQueue& waiting() const { return waiting_; }
  std::int64_t preempted() const { return preempted_; }

  // Reference counts are those of the running requests, and nothing else is in use (contract S7).
  Status check_invariants() const;

 private:
  void admit();
  bool fits(const Sequence& sequence) const;
  void grow_pages();
  void preempt(Sequence& sequence);
  void release_slots(Sequence& sequence);
  void plan_slice(Sequence& sequence, std::int32_t tokens, std::int32_t logits_rows);

  SchedulerLimits limits_;
  CacheStore& cache_;
  WaitingQueue waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // in order of admission
  std::vector<Sequence*> growing_;                  // scratch of grow_pages
  StepPlan plan_;
  std::vector<std::int32_t> folds_;  // fold_to of the plan's slices
  std::int64_t preempted_ = 0;
};

}  // namespace penstock
