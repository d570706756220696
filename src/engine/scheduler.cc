#include "engine/scheduler.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace penstock {
namespace {

// Output tokens that admission leaves room for in every running request, beside what it has already. Requests that ask
// for no more than this are never preempted; those that ask for "as much as fits" do not block the pool either.
constexpr std::int64_t kGrowthTokens = 1024;

// Pages the sequence will hold after kGrowthTokens more tokens.
std::int64_t expected_pages(const Sequence& sequence) {
  const auto tokens = static_cast<std::int64_t>(sequence.tokens.size());
  return pages_for(std::min(sequence.most_read(), tokens + kGrowthTokens));
}

bool decodes(const Sequence& sequence) {
  return sequence.pending() == 1 || (sequence.scoring() && sequence.position >= sequence.prompt_tokens);
}

}  // namespace

StepSize step_size(const SchedulerLimits& limits) {
  return {limits.prefill_tokens + limits.max_running, limits.max_running + limits.score_rows};
}

Scheduler::Scheduler(const SchedulerLimits& limits, CacheStore& cache) : limits_(limits), cache_(cache) {
  CHECK(limits.max_running >= 1 && limits.prefill_tokens >= 1);
  CHECK(cache.states().total() >= limits.max_running);
  const auto slices = static_cast<std::size_t>(limits.max_running);
  running_.reserve(slices);
  growing_.reserve(slices);
  plan_.slices.reserve(slices);
  plan_.items.reserve(slices);
  // Every slice reaches at most one boundary more than its length has blocks.
  folds_.reserve(2 * slices + static_cast<std::size_t>(limits.prefill_tokens / kBlockTokens) + 1);
}

Scheduler::~Scheduler() {
  for (const auto& sequence : running_) release_slots(*sequence);
}

bool Scheduler::fits(const Sequence& sequence) const {
  if (static_cast<std::int32_t>(running_.size()) >= limits_.max_running) return false;
  const std::int64_t needed = pages_for(static_cast<std::int64_t>(sequence.tokens.size()));
  const std::int64_t free = cache_.kv_pages().available();
  if (running_.empty()) return needed <= free;
  std::int64_t growth = std::max(expected_pages(sequence), needed);
  for (const auto& other : running_) {
    growth += std::max<std::int64_t>(expected_pages(*other) - static_cast<std::int64_t>(other->pages.size()), 0);
  }
  return growth <= free;
}

void Scheduler::admit() {
  while (std::unique_ptr<Sequence> next = waiting_.pop([this](const Sequence& s) { return fits(s); })) {
    Sequence& sequence = *next;
    sequence.preempted = false;
    sequence.passes = 0;
    const std::int32_t pages = pages_for(static_cast<std::int64_t>(sequence.tokens.size()));
    sequence.pages.reserve(static_cast<std::size_t>(pages_for(sequence.most_read())));
    for (std::int32_t i = 0; i < pages; ++i) sequence.pages.push_back(cache_.kv_pages().acquire());
    CHECK(sequence.pages.back() != 0);
    sequence.state = cache_.states().acquire();
    CHECK(sequence.state != 0);
    if (cache_.has_windows()) {
      sequence.window = cache_.windows().acquire();
      CHECK(sequence.window != 0);
    }
    running_.push_back(std::move(next));
  }
}

void Scheduler::release_slots(Sequence& sequence) {
  for (const std::int32_t page : sequence.pages) cache_.kv_pages().release(page);
  sequence.pages.clear();
  if (sequence.state != 0) cache_.states().release(sequence.state);
  if (sequence.window != 0) cache_.windows().release(sequence.window);
  sequence.state = sequence.window = 0;
}

void Scheduler::preempt(Sequence& sequence) {
  const auto it = std::find_if(running_.begin(), running_.end(), [&](const auto& s) { return s.get() == &sequence; });
  CHECK(it != running_.end());
  std::unique_ptr<Sequence> taken = std::move(*it);
  running_.erase(it);
  release_slots(*taken);
  taken->position = 0;
  taken->preempted = true;
  ++preempted_;
  waiting_.push(std::move(taken));
}

void Scheduler::grow_pages() {
  growing_.clear();
  for (const auto& sequence : running_) {
    if (pages_for(static_cast<std::int64_t>(sequence->tokens.size())) >
        static_cast<std::int32_t>(sequence->pages.size())) {
      growing_.push_back(sequence.get());
    }
  }
  std::sort(growing_.begin(), growing_.end(), [](const Sequence* a, const Sequence* b) { return a->id < b->id; });
  // The oldest come first and only the youngest lose, so the oldest always goes on.
  for (std::size_t i = 0; i < growing_.size(); ++i) {
    Sequence* sequence = growing_[i];
    std::int32_t page = cache_.kv_pages().acquire();
    while (page == 0) {
      const auto youngest = std::max_element(running_.begin(), running_.end(),
                                             [](const auto& a, const auto& b) { return a->id < b->id; });
      Sequence* victim = youngest->get();
      std::erase(growing_, victim);
      preempt(*victim);
      if (victim == sequence) return;  // it was the youngest of all: nobody after it grows either
      page = cache_.kv_pages().acquire();
    }
    sequence->pages.push_back(page);
  }
}

void Scheduler::plan_slice(Sequence& sequence, std::int32_t tokens, std::int32_t logits_rows) {
  SequenceSlice slice;
  slice.tokens = std::span<const std::int32_t>(sequence.tokens)
                     .subspan(static_cast<std::size_t>(sequence.position), static_cast<std::size_t>(tokens));
  slice.position = sequence.position;
  const std::int32_t end = sequence.position + tokens;
  CHECK(static_cast<std::size_t>(pages_for(end)) <= sequence.pages.size());
  slice.pages = std::span<const std::int32_t>(sequence.pages).first(static_cast<std::size_t>(pages_for(end)));
  slice.window = sequence.window;
  // A request folds in place (contract S3): one state slot, not in use before the first fold.
  const bool windowed = cache_.layout().backend == GdnBackend::kWindow;
  const std::int32_t begins = windowed ? sequence.position / kBlockTokens : sequence.position;
  slice.state = begins == 0 ? 0 : sequence.state;
  const std::int32_t folds = windowed ? end / kBlockTokens - begins : 1;
  const std::size_t first = folds_.size();
  CHECK(first + static_cast<std::size_t>(folds) <= folds_.capacity());  // earlier spans must stay where they are
  folds_.insert(folds_.end(), static_cast<std::size_t>(folds), sequence.state);
  slice.fold_to = std::span<const std::int32_t>(folds_).subspan(first);
  slice.logits_from = tokens - logits_rows;
  plan_.slices.push_back(slice);
  plan_.items.push_back({&sequence, tokens, logits_rows});
}

const StepPlan& Scheduler::plan() {
  plan_.slices.clear();
  plan_.items.clear();
  folds_.clear();
  grow_pages();
  admit();
  for (const auto& sequence : running_) {
    if (decodes(*sequence)) plan_slice(*sequence, 1, 1);
  }
  std::int32_t rows = limits_.prefill_tokens;
  std::int32_t score_rows = limits_.score_rows;
  for (const auto& sequence : running_) {
    if (rows == 0) break;
    if (decodes(*sequence)) continue;
    if (!sequence->scoring()) {
      const std::int32_t tokens = std::min(sequence->pending(), rows);
      plan_slice(*sequence, tokens, tokens == sequence->pending() ? 1 : 0);
      rows -= tokens;
      continue;
    }
    // Prompt rows of a scoring request all give logits, except those reported before a preemption; its forced tokens
    // are decoded one by one.
    std::int32_t tokens = std::min(sequence->prompt_tokens - sequence->position, rows);
    const std::int32_t silent = std::clamp(sequence->next_logits - sequence->position, 0, tokens);
    const std::int32_t loud = std::min(tokens - silent, score_rows);
    tokens = silent + loud;
    if (tokens == 0) continue;
    plan_slice(*sequence, tokens, loud);
    rows -= tokens;
    score_rows -= loud;
  }
  return plan_;
}

void Scheduler::commit() {
  for (const PlannedSlice& item : plan_.items) item.sequence->position += item.tokens;
}

std::unique_ptr<Sequence> Scheduler::remove(RequestId id) {
  for (auto it = running_.begin(); it != running_.end(); ++it) {
    if ((*it)->id != id) continue;
    std::unique_ptr<Sequence> sequence = std::move(*it);
    running_.erase(it);
    release_slots(*sequence);
    return sequence;
  }
  return waiting_.remove(id);
}

std::unique_ptr<Sequence> Scheduler::remove_oldest() {
  if (!running_.empty()) {
    const auto oldest =
        std::min_element(running_.begin(), running_.end(), [](const auto& a, const auto& b) { return a->id < b->id; });
    return remove((*oldest)->id);
  }
  return waiting_.pop_any();
}

Status Scheduler::check_invariants() const {
  const auto counts_of = [](const SlotPool& pool) {
    return std::vector<std::int32_t>(static_cast<std::size_t>(pool.total()) + 1, 0);
  };
  auto pages = counts_of(cache_.kv_pages());
  auto states = counts_of(cache_.states());
  auto windows = counts_of(cache_.windows());
  for (const auto& sequence : running_) {
    const auto held = static_cast<std::int32_t>(sequence->pages.size());
    if (held < pages_for(sequence->position) || held > pages_for(sequence->most_read())) {
      return internal_error(
          fmt::format("request {} at position {} holds {} pages", sequence->id, sequence->position, held));
    }
    for (const std::int32_t page : sequence->pages) ++pages[static_cast<std::size_t>(page)];
    ++states[static_cast<std::size_t>(sequence->state)];
    if (cache_.has_windows()) ++windows[static_cast<std::size_t>(sequence->window)];
  }
  PENSTOCK_RETURN_IF_ERROR(cache_.kv_pages().check(pages));
  PENSTOCK_RETURN_IF_ERROR(cache_.states().check(states));
  return cache_.windows().check(windows);
}

}  // namespace penstock
