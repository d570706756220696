// Admission, slots and preemption; plans are made in scheduler_plan.cc.
#include "engine/scheduler.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace penstock {
namespace {

// A waiting request asks the tree again what it would share after this many plans.
constexpr std::int64_t kHintPlans = 16;

// Who goes on when memory is short: the higher priority, then the older.
bool comes_before(const Sequence& a, const Sequence& b) {
  return std::pair(-std::int64_t{a.request.priority}, a.id) < std::pair(-std::int64_t{b.request.priority}, b.id);
}

// Blocks that a cache hit may cover: the last token is always computed, for its logits.
std::int32_t blocks_to_match(const Sequence& sequence) {
  return (static_cast<std::int32_t>(sequence.tokens.size()) - (sequence.sampling == 0 ? 1 : 0)) / kBlockTokens;
}

}  // namespace

StepSize step_size(const SchedulerLimits& limits) {
  return {limits.prefill_tokens + limits.max_running, limits.max_running + limits.score_rows};
}

Scheduler::Scheduler(const SchedulerLimits& limits, PrefixCache& prefix)
    : limits_(limits), prefix_(prefix), store_(prefix.store()) {
  CHECK(limits.max_running >= 1 && limits.prefill_tokens >= 1);
  CHECK(limits.track_interval >= kBlockTokens && limits.track_interval % kBlockTokens == 0);
  CHECK(store_.states().total() >= limits.max_running);
  running_.reserve(static_cast<std::size_t>(limits.max_running));
  growing_.reserve(static_cast<std::size_t>(limits.max_running));
  readers_.assign(static_cast<std::size_t>(store_.states().end()), 0);
}

Scheduler::~Scheduler() {
  while (remove_oldest() != nullptr) {
  }
}

// ---- states ----

bool Scheduler::needs_state(const Sequence& sequence) const {
  return !windowed() || sequence.most_read() >= kBlockTokens;
}

void Scheduler::hold(std::int32_t slot) {
  if (slot != 0 && readers_[static_cast<std::size_t>(slot)]++ == 0) ++bases_;
}

void Scheduler::unhold(std::int32_t slot) {
  if (slot != 0 && --readers_[static_cast<std::size_t>(slot)] == 0) --bases_;
}

void Scheduler::move_base(Sequence& sequence, std::int32_t slot) {
  unhold(sequence.base);
  sequence.base = slot;
  hold(slot);
}

bool Scheduler::fill_reserve(std::int32_t count) {
  while (static_cast<std::int32_t>(reserve_.size()) < count) {
    const std::int32_t state = prefix_.acquire_state();
    if (state == 0) return false;
    reserve_.push_back(state);
  }
  return true;
}

void Scheduler::trim_reserve() {
  while (static_cast<std::int32_t>(reserve_.size()) > std::max(owed(), 0)) {
    store_.states().release(reserve_.back());
    reserve_.pop_back();
  }
}

// ---- admission ----

std::int64_t Scheduler::expected_pages(const Sequence& sequence) const {
  return pages_for(std::min(sequence.most_read(), std::int64_t{sequence.length()} + limits_.growth_tokens));
}

bool Scheduler::fits(Sequence& sequence) {
  if (static_cast<std::int32_t>(running_.size()) >= limits_.max_running) return false;
  if (running_.empty()) return true;  // whatever it needs is free or evictable
  if (uses_cache(sequence) && sequence.hint_plan + kHintPlans <= plan_count_) {
    sequence.hint_plan = plan_count_;
    sequence.hint_held =
        prefix_.match(sequence.tokens, sequence.request.cache_salt, blocks_to_match(sequence)).held_blocks;
  }
  SlotPool& pages = store_.kv_pages();
  SlotPool& states = store_.states();
  const std::int32_t held_states = states.held() + (needs_state(sequence) ? 1 : 0);
  if (held_states > states.total()) return false;
  const std::int64_t slabs = store_.arena().total() - (held_states + states.per_slab() - 1) / states.per_slab();
  const std::int64_t capacity = std::min<std::int64_t>(slabs * pages.per_slab(), pages.total());
  std::int64_t growth = expected_pages(sequence) - sequence.hint_held;
  for (const auto& other : running_) {
    growth += std::max<std::int64_t>(expected_pages(*other) - static_cast<std::int64_t>(other->pages.size()), 0);
  }
  return pages.held() + growth <= capacity;
}

// Takes over what the cache has for the sequence: pages and base, with references of its own.
void Scheduler::use_match(Sequence& sequence, const PrefixMatch& match) {
  CHECK(sequence.pages.empty() && sequence.base == 0);
  prefix_.pages_of(sequence.tokens, sequence.request.cache_salt, match.snapshot_blocks, sequence.pages);
  for (const std::int32_t page : sequence.pages) store_.kv_pages().retain(page);
  if (match.snapshot != 0) {
    store_.states().retain(match.snapshot);
    move_base(sequence, match.snapshot);
  }
  sequence.position = sequence.committed = match.snapshot_blocks * kBlockTokens;
  // What others computed beyond is computed once more and, since it is wanted again, gets a snapshot (contract P2).
  sequence.branch_blocks = match.kv_blocks > match.snapshot_blocks ? match.kv_blocks : 0;
}

bool Scheduler::take_slots(Sequence& sequence, bool use_cache) {
  sequence.pages.reserve(static_cast<std::size_t>(pages_for(sequence.most_read())));
  needing_ += needs_state(sequence) ? 1 : 0;
  sequence.branch_blocks = 0;
  if (use_cache) {
    sequence.match_version = prefix_.version();
    use_match(sequence, prefix_.match(sequence.tokens, sequence.request.cache_salt, blocks_to_match(sequence)));
  }
  bool enough = fill_reserve(owed());
  if (enough && windowed()) {
    sequence.window = store_.windows().acquire();
    CHECK(sequence.window != 0);
  }
  const auto wanted =
      static_cast<std::size_t>(pages_for(std::min<std::int64_t>(sequence.length(), sequence.most_read())));
  while (enough && sequence.pages.size() < wanted) {
    const std::int32_t page = prefix_.acquire_page();
    enough = page != 0;
    if (enough) sequence.pages.push_back(page);
  }
  if (!enough) release_slots(sequence);
  return enough;
}

void Scheduler::admit() {
  while (std::unique_ptr<Sequence> next = waiting_.pop([this](Sequence& s) {
    return fits(s) && (take_slots(s, uses_cache(s)) || (running_.empty() && take_slots(s, false)));
  })) {
    next->preempted = false;
    next->passes = 0;
    next->started = false;
    running_.push_back(std::move(next));
  }
}

// Before its first step: others may have left more in the cache since it was admitted.
void Scheduler::look_again(Sequence& sequence) {
  if (sequence.started || !uses_cache(sequence) || sequence.match_version == prefix_.version()) return;
  sequence.match_version = prefix_.version();
  const PrefixMatch match = prefix_.match(sequence.tokens, sequence.request.cache_salt, blocks_to_match(sequence));
  if (match.snapshot_blocks * kBlockTokens <= sequence.position) {
    if (match.kv_blocks * kBlockTokens > sequence.position) sequence.branch_blocks = match.kv_blocks;
    return;
  }
  // A state that others read too may have to be left for a new one.
  const bool leaves_own = sequence.base != 0 && readers_[static_cast<std::size_t>(sequence.base)] == 1;
  const bool joins_others = readers_[static_cast<std::size_t>(match.snapshot)] > 0;
  if (leaves_own && joins_others) {
    // Room for it must not be made of what was found: a state that others read may hang on pages that nobody holds.
    std::vector<std::int32_t> found;
    prefix_.pages_of(sequence.tokens, sequence.request.cache_salt, match.snapshot_blocks, found);
    for (const std::int32_t page : found) store_.kv_pages().retain(page);
    const bool enough = fill_reserve(owed() + 1);
    for (const std::int32_t page : found) store_.kv_pages().release(page);
    if (!enough) return;
  }
  store_.states().retain(match.snapshot);
  std::vector<std::int32_t> own = std::move(sequence.pages);
  sequence.pages = {};
  sequence.pages.reserve(own.capacity());
  const std::int32_t base = sequence.base;
  unhold(base);
  sequence.base = 0;
  use_match(sequence, match);
  ++counters_.take_overs;
  store_.states().release(match.snapshot);
  if (base != 0) store_.states().release(base);
  for (std::size_t i = 0; i < own.size(); ++i) {
    if (i < sequence.pages.size()) {
      store_.kv_pages().release(own[i]);
    } else {
      sequence.pages.push_back(own[i]);
    }
  }
  trim_reserve();
}

// ---- leaving ----

// What the sequence has computed, in steps that have ended, goes to the cache (contract P3, Q3).
void Scheduler::publish(const Sequence& sequence) {
  if (!uses_cache(sequence) || sequence.pages.empty()) return;
  const std::int32_t blocks = sequence.committed / kBlockTokens;
  // The base is at the last boundary, or live: then only by chance at one.
  const bool on_grid =
      windowed() ? sequence.position / kBlockTokens == blocks : sequence.position == blocks * kBlockTokens;
  prefix_.insert(std::span(sequence.tokens).first(static_cast<std::size_t>(blocks) * kBlockTokens),
                 sequence.request.cache_salt, std::span(sequence.pages).first(static_cast<std::size_t>(blocks)),
                 on_grid && blocks > 0 ? sequence.base : 0);
}

// Takes the sequence out of plans that have not ended. One that was not launched is undone: it never runs.
void Scheduler::detach(Sequence& sequence, bool preempted) {
  for (StepPlan& plan : plans_) {
    for (Publication& publication : plan.publications) {
      if (publication.sequence != &sequence) continue;
      store_.states().release(publication.snapshot);
      publication = {};
    }
    for (PlannedCopy& copy : plan.planned_copies) {
      if (copy.sequence == &sequence) copy = {};
    }
    for (PlannedSlice& item : plan.items) {
      if (item.sequence != &sequence) continue;
      if (plan.launched && preempted) {
        item.preempted = true;
        continue;
      }
      item.sequence = nullptr;
      if (plan.launched) continue;
      if (item.state != sequence.base) {
        const std::int32_t written = sequence.base;
        move_base(sequence, item.state);
        reserve_.push_back(written);  // trimmed when the sequence is gone
      }
      sequence.position = item.position;
    }
  }
}

void Scheduler::release_slots(Sequence& sequence) {
  for (const std::int32_t page : sequence.pages) store_.kv_pages().release(page);
  sequence.pages.clear();
  if (sequence.base != 0) {
    const std::int32_t base = sequence.base;
    move_base(sequence, 0);
    store_.states().release(base);
  }
  if (sequence.window != 0) store_.windows().release(sequence.window);
  sequence.window = 0;
  sequence.position = sequence.committed = 0;
  sequence.rolling_blocks = 0;
  needing_ -= needs_state(sequence) ? 1 : 0;
  trim_reserve();
}

void Scheduler::preempt(Sequence& sequence) {
  const auto it = std::find_if(running_.begin(), running_.end(), [&](const auto& s) { return s.get() == &sequence; });
  CHECK(it != running_.end());
  std::unique_ptr<Sequence> taken = std::move(*it);
  running_.erase(it);
  detach(*taken, true);
  publish(*taken);
  release_slots(*taken);
  taken->preempted = true;
  ++counters_.preempted;
  waiting_.push(std::move(taken));
}

std::unique_ptr<Sequence> Scheduler::remove(RequestId id) {
  for (auto it = running_.begin(); it != running_.end(); ++it) {
    if ((*it)->id != id) continue;
    std::unique_ptr<Sequence> sequence = std::move(*it);
    running_.erase(it);
    detach(*sequence, false);
    publish(*sequence);
    release_slots(*sequence);
    return sequence;
  }
  std::unique_ptr<Sequence> sequence = waiting_.remove(id);
  if (sequence != nullptr) detach(*sequence, false);  // preempted while its step was under way
  return sequence;
}

std::unique_ptr<Sequence> Scheduler::remove_oldest() {
  if (!running_.empty()) {
    const auto oldest =
        std::min_element(running_.begin(), running_.end(), [](const auto& a, const auto& b) { return a->id < b->id; });
    return remove((*oldest)->id);
  }
  const Sequence* first = waiting_.first();
  return first == nullptr ? nullptr : remove(first->id);
}

// Pages for the next step, for the first in line first; only the last in line lose theirs, so the first always goes on.
void Scheduler::grow_pages() {
  const auto wanted = [](const Sequence& s) { return static_cast<std::size_t>(pages_for(s.length())); };
  growing_.clear();
  for (const auto& sequence : running_) {
    if (sequence->runnable() && wanted(*sequence) > sequence->pages.size()) growing_.push_back(sequence.get());
  }
  std::sort(growing_.begin(), growing_.end(),
            [](const Sequence* a, const Sequence* b) { return comes_before(*a, *b); });
  for (std::size_t i = 0; i < growing_.size(); ++i) {
    Sequence* sequence = growing_[i];
    std::int32_t page = prefix_.acquire_page();
    while (page == 0) {
      const auto last = std::max_element(running_.begin(), running_.end(),
                                         [](const auto& a, const auto& b) { return comes_before(*a, *b); });
      Sequence* victim = last->get();
      std::erase(growing_, victim);
      preempt(*victim);
      if (victim == sequence) return;  // it was the last of all: nobody after it grows
      page = prefix_.acquire_page();
    }
    sequence->pages.push_back(page);
  }
}

Status Scheduler::check_invariants() const {
  const auto counts_of = [](const SlotPool& pool) {
    return std::vector<std::int32_t>(static_cast<std::size_t>(pool.end()), 0);
  };
  auto pages = counts_of(store_.kv_pages());
  auto states = counts_of(store_.states());
  auto windows = counts_of(store_.windows());
  PENSTOCK_RETURN_IF_ERROR(prefix_.add_references(pages, states));
  std::int32_t needing = 0;
  std::vector<std::int32_t> readers(readers_.size(), 0);
  for (const auto& sequence : running_) {
    const auto held = static_cast<std::int32_t>(sequence->pages.size());
    if (held < pages_for(sequence->position) || held > pages_for(sequence->most_read())) {
      return internal_error(
          fmt::format("request {} at position {} holds {} pages", sequence->id, sequence->position, held));
    }
    for (const std::int32_t page : sequence->pages) ++pages[static_cast<std::size_t>(page)];
    if (sequence->base != 0) {
      ++states[static_cast<std::size_t>(sequence->base)];
      ++readers[static_cast<std::size_t>(sequence->base)];
    }
    needing += needs_state(*sequence) ? 1 : 0;
    if (windowed()) ++windows[static_cast<std::size_t>(sequence->window)];
  }
  for (const std::int32_t state : reserve_) ++states[static_cast<std::size_t>(state)];
  for (const StepPlan& plan : plans_) {
    for (const Publication& publication : plan.publications) {
      if (publication.sequence != nullptr) ++states[static_cast<std::size_t>(publication.snapshot)];
    }
    if (plan.launched) continue;
    for (const PlannedSlice& item : plan.items) {
      if (item.sequence != nullptr && item.leaves_state) ++states[static_cast<std::size_t>(item.state)];
    }
  }
  const auto bases = std::count_if(readers.begin(), readers.end(), [](std::int32_t n) { return n > 0; });
  if (needing != needing_ || bases != bases_ || readers != readers_ ||
      static_cast<std::int32_t>(reserve_.size()) != std::max(owed(), 0)) {
    return internal_error(fmt::format("{} requests that fold read {} states and {} are set aside; counted {} and {}",
                                      needing, bases, reserve_.size(), needing_, bases_));
  }
  PENSTOCK_RETURN_IF_ERROR(store_.kv_pages().check(pages));
  PENSTOCK_RETURN_IF_ERROR(store_.states().check(states));
  PENSTOCK_RETURN_IF_ERROR(store_.windows().check(windows));
  return store_.check_slabs();
}

}  // namespace penstock
