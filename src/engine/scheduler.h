// Which requests run, and what each does in a step. Owns the requests and every slot they hold.
//
// A plan is made for the time after all plans before it, whether or not their steps have ended (contract O3):
// positions, pages and folds do not depend on the tokens that those will sample. Slots that a plan frees may be given
// out in the next one at once, because steps run in order.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cache/prefix_cache.h"
#include "engine/executor.h"
#include "engine/sequence.h"
#include "engine/step_plan.h"
#include "engine/waiting_queue.h"

namespace penstock {

struct SchedulerLimits {
  std::int32_t max_running = 1;
  std::int32_t prefill_tokens = 512;  // rows of prompts in a step; decode rows come on top
  std::int32_t score_rows = 0;        // rows of logits in a step for requests that score, beyond one each
  // Output tokens that admission leaves room for in every running request, beside what it has already. Requests that
  // ask for no more than this are never preempted; those that ask for "as much as fits" do not block the pool either.
  std::int32_t growth_tokens = 1024;

  bool prefix_cache = true;
  bool out_of_place = true;           // extra_buffer; else no_buffer
  std::int32_t track_interval = 512;  // tokens between snapshots of extra_buffer
};

// Rows of logits and tokens that a plan under these limits may have.
StepSize step_size(const SchedulerLimits& limits);

struct SchedulerCounters {
  std::int64_t preempted = 0;
  std::int64_t take_overs = 0;        // admitted requests that found more in the cache before their first step
  std::int64_t branch_snapshots = 0;  // planned where a prompt left what the cache had
  std::int64_t snapshots_written_over = 0, sat_out = 0;  // for want of a state, see fold_target()
  std::int64_t query_tokens = 0, hit_tokens = 0;         // of prompts, at their first step
};

class Scheduler {
 public:
  Scheduler(const SchedulerLimits& limits, PrefixCache& prefix);
  ~Scheduler();

  void add(std::unique_ptr<Sequence> sequence) { waiting_.push(std::move(sequence)); }

  // Admits, gives pages to whoever needs one (preempting the last in line when there is none, contract Q3), and plans.
  // Decode rows always run; prompts share `prefill_tokens` in order of admission. At most one plan may be under way.
  StepPlan& plan();
  // The step is about to run: drops slices of requests that left, and fills in the tokens.
  void launch(StepPlan& plan);
  // The step has ended: what it left is visible to others now. The plan stays until end().
  void commit(StepPlan& plan);
  void end(StepPlan& plan) { plan.clear(); }

  // Takes a request out, wherever it is, and frees its slots; what it has computed goes to the prefix cache. null: not
  // here.
  std::unique_ptr<Sequence> remove(RequestId id);
  std::unique_ptr<Sequence> remove_oldest();  // null: there is none

  bool idle() const { return running_.empty() && waiting_.empty(); }
  std::size_t running() const { return running_.size(); }
  const WaitingQueue& waiting() const { return waiting_; }
  const SchedulerCounters& counters() const { return counters_; }

  // Reference counts are those of requests, plans and the prefix cache, and nothing else is in use (contract S7).
  Status check_invariants() const;

 private:
  void admit();
  bool fits(Sequence& sequence);
  std::int64_t expected_pages(const Sequence& sequence) const;  // that it will hold after growth_tokens more tokens
  bool take_slots(Sequence& sequence, bool use_cache);
  void use_match(Sequence& sequence, const PrefixMatch& match);
  void look_again(Sequence& sequence);
  void grow_pages();
  void preempt(Sequence& sequence);
  void publish(const Sequence& sequence);
  void detach(Sequence& sequence, bool preempted);
  void release_slots(Sequence& sequence);

  bool plan_slice(StepPlan& plan, Sequence& sequence, std::int32_t tokens, std::int32_t logits_rows);
  void plan_prompts(StepPlan& plan);
  std::int32_t fold_target(StepPlan& plan, Sequence& sequence);
  void plan_publication(StepPlan& plan, Sequence& sequence, std::int32_t blocks, bool last_fold, bool rolling);
  bool wants_snapshot(const Sequence& sequence, std::int32_t blocks) const;
  std::int32_t tokens_to_snapshot(const Sequence& sequence) const;
  void move_base(Sequence& sequence, std::int32_t slot);

  bool windowed() const { return store_.has_windows(); }
  bool needs_state(const Sequence& sequence) const;
  bool uses_cache(const Sequence& sequence) const { return prefix_.enabled() && !sequence.scoring(); }
  // States that have to be set aside, see reserve_.
  std::int32_t owed() const { return needing_ - bases_; }
  bool fill_reserve(std::int32_t count);
  void trim_reserve();
  void hold(std::int32_t slot);
  void unhold(std::int32_t slot);

  SchedulerLimits limits_;
  PrefixCache& prefix_;
  CacheStore& store_;
  WaitingQueue waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // in order of admission
  std::vector<Sequence*> growing_;                  // scratch of grow_pages
  StepPlan plans_[2];
  int next_plan_ = 0;
  std::int64_t plan_count_ = 0;
  SchedulerCounters counters_;

  // Every running request that will fold can: with `needing_` such requests that read `bases_` different states between
  // them, needing_ − bases_ states are set aside. Whoever leaves a state that others read, or the zero state, takes
  // one; the last reader of a state writes over it. So n states always let n requests run (contract S5).
  std::vector<std::int32_t> reserve_;
  std::vector<std::int32_t> readers_;  // [states.end()] running requests whose base it is
  std::int32_t needing_ = 0, bases_ = 0;
};

}  // namespace penstock
