// What one step does, and what it leaves to the prefix cache.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/executor.h"
#include "engine/sequence.h"
#include "model/forward.h"

namespace penstock {

struct PlannedSlice {
  Sequence* sequence = nullptr;  // null: it has left since
  bool samples = false;          // set at launch
  bool preempted = false;        // since: its token still counts, what the step leaves in the cache does not
  std::int32_t position = 0, tokens = 0, logits_rows = 0;
  std::int32_t state = 0;                      // read
  bool leaves_state = false;                   // its reference to `state` is let go at launch
  std::size_t first_fold = 0, fold_count = 0;  // in StepPlan::folds
  std::int32_t pages = 0;
};

// A snapshot that goes to the prefix cache when the step has ended. The plan holds a reference to it.
struct Publication {
  Sequence* sequence = nullptr;  // null: it has left since, the reference is gone
  std::int32_t blocks = 0;
  std::int32_t snapshot = 0;
  bool rolling = false;  // takes the place of the sequence's last rolling one
};

struct PlannedCopy {
  StateCopy slots;
  Sequence* sequence = nullptr;
};

struct StepPlan {
  std::vector<PlannedSlice> items;
  std::vector<Publication> publications;
  std::vector<std::int32_t> folds;
  std::vector<PlannedCopy> planned_copies;

  // Made at launch, when every token is known: slices[i] is of items[i].
  std::vector<SequenceSlice> slices;
  std::vector<StateCopy> copies;  // after the slices have run
  std::vector<std::int32_t> token_ids, page_ids;
  bool launched = false;

  void clear() {
    items.clear();
    publications.clear();
    folds.clear();
    planned_copies.clear();
    slices.clear();
    copies.clear();
    launched = false;
  }
  bool empty() const { return items.empty(); }
};

}  // namespace penstock
