// Plans: who runs how many tokens, where states are folded to, which of them the prefix cache gets.
#include <algorithm>

#include "base/check.h"
#include "engine/scheduler.h"

namespace penstock {
namespace {

bool decodes(const Sequence& sequence) {
  return sequence.pending() == 1 || (sequence.scoring() && sequence.position >= sequence.prompt_tokens);
}

// The last boundary that a request with the same prompt can go on from.
std::int32_t prompt_blocks(const Sequence& sequence) {
  return (sequence.prompt_tokens - 1) / kBlockTokens;
}

}  // namespace

// ---- snapshots ----

bool Scheduler::wants_snapshot(const Sequence& sequence, std::int32_t blocks) const {
  if (!uses_cache(sequence) || blocks == 0) return false;
  if (blocks == prompt_blocks(sequence) || blocks == sequence.branch_blocks) return true;
  return limits_.out_of_place && blocks * kBlockTokens % limits_.track_interval == 0;
}

// The recurrent form passes a boundary only between two steps, so a step ends where a snapshot is wanted.
std::int32_t Scheduler::tokens_to_snapshot(const Sequence& sequence) const {
  for (std::int32_t blocks = sequence.position / kBlockTokens + 1;
       blocks * kBlockTokens < sequence.position + limits_.prefill_tokens; ++blocks) {
    if (wants_snapshot(sequence, blocks)) return blocks * kBlockTokens - sequence.position;
  }
  return limits_.prefill_tokens;
}

// Where the state that the sequence has now may be folded to: over itself when nobody else has it, else a fresh slot
// (contract S3). The sequence's base is the result afterwards; the reference to the old one is the caller's. 0: someone
// else reads the only slot there is in this very step; the sequence sits this one out.
std::int32_t Scheduler::fold_target(StepPlan& plan, Sequence& sequence) {
  const std::int32_t base = sequence.base;
  SlotPool& states = store_.states();
  if (base != 0 && states.references(base) == 1) return base;
  if (base == 0 || readers_[static_cast<std::size_t>(base)] > 1) {
    CHECK(!reserve_.empty());
    const std::int32_t slot = reserve_.back();
    reserve_.pop_back();
    move_base(sequence, slot);
    return slot;
  }
  const std::int32_t fresh = prefix_.acquire_state();
  if (fresh != 0) {
    move_base(sequence, fresh);
    return fresh;
  }
  // No room: the snapshot does not stay in the cache, or does not get there (contract S4).
  const bool read_now = std::any_of(plan.items.begin(), plan.items.end(),
                                    [&](const PlannedSlice& item) { return item.state == base && item.sequence; });
  if (read_now) {
    ++counters_.sat_out;
    return 0;
  }
  ++counters_.snapshots_written_over;
  prefix_.drop_snapshot(base);
  for (StepPlan& other : plans_) {
    for (Publication& publication : other.publications) {
      if (publication.sequence == nullptr || publication.snapshot != base) continue;
      states.release(base);
      publication = {};
    }
  }
  CHECK(states.references(base) == 1);
  return base;
}

// The sequence's base is about to hold the state after `blocks` blocks, and the cache wants it.
void Scheduler::plan_publication(StepPlan& plan, Sequence& sequence, std::int32_t blocks, bool last_fold,
                                 bool rolling) {
  std::int32_t snapshot = sequence.base;
  if (limits_.out_of_place || !last_fold) {
    store_.states().retain(snapshot);  // the next fold goes elsewhere
  } else {
    snapshot = prefix_.acquire_state();
    if (snapshot == 0) return;
    plan.planned_copies.push_back({{sequence.base, snapshot}, &sequence});
  }
  counters_.branch_snapshots += blocks == sequence.branch_blocks;
  plan.publications.push_back({&sequence, blocks, snapshot, rolling});
}

// ---- slices ----

bool Scheduler::plan_slice(StepPlan& plan, Sequence& sequence, std::int32_t tokens, std::int32_t logits_rows) {
  PlannedSlice item;
  item.sequence = &sequence;
  item.position = sequence.position;
  item.tokens = tokens;
  item.logits_rows = logits_rows;
  item.state = sequence.base;
  item.first_fold = plan.folds.size();
  const std::int32_t end = sequence.position + tokens;
  item.pages = pages_for(end);
  CHECK(static_cast<std::size_t>(item.pages) <= sequence.pages.size());

  const std::int32_t first = sequence.position / kBlockTokens + 1;
  const std::int32_t last = end / kBlockTokens;
  const std::int32_t folds = windowed() ? last - first + 1 : 1;
  for (std::int32_t i = 0; i < folds; ++i) {
    const std::int32_t before = sequence.base;
    const std::int32_t target = fold_target(plan, sequence);
    if (target == 0) {
      CHECK(i == 0);  // a state of this step's own is read by nobody else
      return false;
    }
    if (target != before && before != 0) {
      if (before == item.state) {
        item.leaves_state = true;  // let go at launch: until then the slice can still be dropped
      } else {
        store_.states().release(before);
      }
    }
    plan.folds.push_back(target);
    const std::int32_t blocks = windowed() ? first + i : last;
    if (!windowed() && end % kBlockTokens != 0) continue;
    // The recurrent form has no base at the last boundary to give when a request ends: it leaves one behind as it goes.
    const bool rolling = !windowed() && uses_cache(sequence) && end >= sequence.prompt_tokens;
    if (rolling || wants_snapshot(sequence, blocks)) {
      plan_publication(plan, sequence, blocks, i == folds - 1, rolling && !wants_snapshot(sequence, blocks));
    }
  }
  item.fold_count = plan.folds.size() - item.first_fold;

  if (!sequence.looked_up) {
    sequence.looked_up = true;
    sequence.cached_tokens = sequence.position;
    if (uses_cache(sequence)) {
      counters_.query_tokens += sequence.prompt_tokens;
      counters_.hit_tokens += sequence.position;
    }
  }
  sequence.started = true;
  sequence.position = end;
  if (!sequence.scoring()) sequence.sampling += logits_rows;
  plan.items.push_back(item);
  return true;
}

void Scheduler::plan_prompts(StepPlan& plan) {
  std::int32_t rows = limits_.prefill_tokens;
  std::int32_t score_rows = limits_.score_rows;
  for (const auto& sequence : running_) {
    if (rows == 0) break;
    if (!sequence->runnable() || decodes(*sequence)) continue;
    look_again(*sequence);
    if (!sequence->scoring()) {
      // The last token of an answer may be on its way already, to a request that was preempted: it is not read.
      const auto unread = static_cast<std::int32_t>(
          std::min<std::int64_t>(sequence->pending(), sequence->most_read() - sequence->position));
      std::int32_t tokens = std::min(unread, rows);
      if (!windowed() && uses_cache(*sequence)) tokens = std::min(tokens, tokens_to_snapshot(*sequence));
      if (plan_slice(plan, *sequence, tokens, tokens == sequence->pending() ? 1 : 0)) rows -= tokens;
      continue;
    }
    // Prompt rows of a scoring request all give logits, except those reported before a preemption; its forced tokens
    // are decoded one by one.
    std::int32_t tokens = std::min(sequence->prompt_tokens - sequence->position, rows);
    const std::int32_t silent = std::clamp(sequence->next_logits - sequence->position, 0, tokens);
    const std::int32_t loud = std::min(tokens - silent, score_rows);
    tokens = silent + loud;
    if (tokens == 0) continue;
    if (!plan_slice(plan, *sequence, tokens, loud)) continue;
    rows -= tokens;
    score_rows -= loud;
  }
}

StepPlan& Scheduler::plan() {
  StepPlan& plan = plans_[next_plan_];
  next_plan_ = 1 - next_plan_;
  CHECK(plan.empty() && plan.publications.empty());
  ++plan_count_;
  grow_pages();
  admit();
  for (const auto& sequence : running_) {
    if (sequence->runnable() && decodes(*sequence)) {
      plan_slice(plan, *sequence, 1, 1);
    }
  }
  plan_prompts(plan);
  return plan;
}

// ---- launch and commit ----

void Scheduler::launch(StepPlan& plan) {
  std::erase_if(plan.items, [](const PlannedSlice& item) { return item.sequence == nullptr; });
  std::size_t tokens = 0, pages = 0;
  for (const PlannedSlice& item : plan.items) {
    tokens += static_cast<std::size_t>(item.tokens);
    pages += static_cast<std::size_t>(item.pages);
  }
  // Copies, because a request may leave while the step runs; sized first, because slices point into them.
  plan.token_ids.resize(tokens);
  plan.page_ids.resize(pages);
  std::int32_t* token_ids = plan.token_ids.data();
  std::int32_t* page_ids = plan.page_ids.data();
  for (PlannedSlice& item : plan.items) {
    const Sequence& sequence = *item.sequence;
    CHECK(static_cast<std::size_t>(item.position + item.tokens) <= sequence.tokens.size());
    SequenceSlice& slice = plan.slices.emplace_back();
    slice.tokens = {token_ids, static_cast<std::size_t>(item.tokens)};
    token_ids = std::copy_n(sequence.tokens.data() + item.position, item.tokens, token_ids);
    slice.position = item.position;
    slice.pages = {page_ids, static_cast<std::size_t>(item.pages)};
    page_ids = std::copy_n(sequence.pages.data(), item.pages, page_ids);
    slice.window = sequence.window;
    slice.state = item.state;
    slice.fold_to = std::span<const std::int32_t>(plan.folds).subspan(item.first_fold, item.fold_count);
    slice.logits_from = item.tokens - item.logits_rows;
    if (item.leaves_state) store_.states().release(item.state);
  }
  for (const PlannedCopy& copy : plan.planned_copies) {
    if (copy.sequence != nullptr) plan.copies.push_back(copy.slots);
  }
  plan.launched = true;
}

void Scheduler::commit(StepPlan& plan) {
  for (const PlannedSlice& item : plan.items) {
    if (item.sequence == nullptr || item.preempted) continue;
    item.sequence->committed = item.position + item.tokens;
  }
  for (Publication& publication : plan.publications) {
    if (publication.sequence == nullptr) continue;
    Sequence& sequence = *publication.sequence;
    const auto blocks = static_cast<std::size_t>(publication.blocks);
    const auto tokens = std::span<const std::int32_t>(sequence.tokens);
    const std::string& salt = sequence.request.cache_salt;
    prefix_.insert(tokens.first(blocks * kBlockTokens), salt, std::span(sequence.pages).first(blocks),
                   publication.snapshot);
    store_.states().release(publication.snapshot);
    // The one it left behind before is of little use now, unless someone asked for it there.
    if (sequence.rolling_blocks != 0) {
      prefix_.drop_snapshot_at(tokens.first(static_cast<std::size_t>(sequence.rolling_blocks) * kBlockTokens), salt);
    }
    sequence.rolling_blocks = publication.rolling ? publication.blocks : 0;
    publication = {};
  }
}

}  // namespace penstock
