#include "engine/engine_core.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace penstock {
namespace {

Status not_finite(std::int32_t position) {
  return internal_error(
      fmt::format("the model gave a logit that is NaN or infinite after position {}; the request "
                  "cannot go on",
                  position));
}

}  // namespace

EngineCore::EngineCore(const EngineModel& model, const SchedulerLimits& limits, CacheStore& store, StepRunner& runner,
                       bool overlap, const Tokenizer* tokenizer, LogitsSink logits_sink)
    : eos_token_ids_(model.eos_token_ids),
      vocab_size_(static_cast<std::size_t>(model.vocab_size)),
      runner_(runner),
      store_(store),
      tokenizer_(tokenizer),
      logits_sink_(std::move(logits_sink)),
      prefix_(store, limits.prefix_cache),
      scheduler_(limits, prefix_),
      sampler_(model.vocab_size, tokenizer == nullptr ? model.vocab_size : tokenizer->size(), runner.threads()) {
  const auto rows = static_cast<std::size_t>(limits.max_running);
  job_rows_.reserve(rows);
  jobs_.reserve(rows);
  results_.resize(rows);
  if (overlap) thread_ = std::make_unique<StepThread>();
}

EngineCore::~EngineCore() {
  if (thread_ != nullptr) thread_->wait();
}

void EngineCore::add(RequestId id, Request request, std::int32_t context_length) {
  auto sequence = std::make_unique<Sequence>();
  sequence->id = id;
  sequence->prompt_tokens = static_cast<std::int32_t>(request.prompt.size());
  sequence->max_tokens = output_limit(request, context_length);
  sequence->tokens = std::move(request.prompt);
  sequence->request = std::move(request);
  const Request& kept = sequence->request;
  if (sequence->scoring()) {
    sequence->tokens.insert(sequence->tokens.end(), kept.forced.begin(), kept.forced.end());
  } else {
    if (needs_counts(kept.sampling)) sequence->counts.add_prompt(sequence->tokens);
    sequence->output.emplace(kept, eos_token_ids_, tokenizer_, sequence->max_tokens);
  }
  scheduler_.add(std::move(sequence));
}

void EngineCore::fill_end(const Sequence& sequence, Event& event) {
  event.prompt_tokens = sequence.prompt_tokens;
  event.output_tokens = sequence.output_tokens();
  event.cached_tokens = sequence.cached_tokens;
  switch (event.finish) {
    case FinishReason::kCancelled:
      ++counters_.cancelled;
      break;
    case FinishReason::kError:
      ++counters_.failed;
      break;
    default:
      ++counters_.finished;
  }
}

// A step that runs may still read what a request wants of its tokens.
void EngineCore::leave(std::unique_ptr<Sequence> sequence) {
  if (in_flight()) left_.push_back(std::move(sequence));
}

void EngineCore::end(RequestId id, const Status& status, std::vector<Event>& events) {
  std::unique_ptr<Sequence> sequence = scheduler_.remove(id);
  if (sequence == nullptr) return;
  Event& event = events.emplace_back();
  event.request = id;
  event.finish = status.code() == StatusCode::kCancelled ? FinishReason::kCancelled : FinishReason::kError;
  event.status = status;
  fill_end(*sequence, event);
  // Forced tokens that were not read are no output.
  if (sequence->scoring()) event.output_tokens = std::max(sequence->next_logits - sequence->prompt_tokens, 0);
  leave(std::move(sequence));
}

void EngineCore::end_all(const Status& status, std::vector<Event>& events) {
  while (std::unique_ptr<Sequence> sequence = scheduler_.remove_oldest()) {
    Event& event = events.emplace_back();
    event.request = sequence->id;
    event.finish = status.code() == StatusCode::kCancelled ? FinishReason::kCancelled : FinishReason::kError;
    event.status = status;
    fill_end(*sequence, event);
    leave(std::move(sequence));
  }
}

bool EngineCore::plan(std::vector<Event>& events) {
  if (scheduler_.idle()) return false;
  next_plan_ = &scheduler_.plan();
  if (!next_plan_->empty()) return true;
  scheduler_.end(*next_plan_);
  next_plan_ = nullptr;
  if (in_flight()) return false;  // everyone waits for the step that runs
  // Contract Q4: admission lets any request in when nothing runs, so this is a bug of ours; one request pays, not all.
  const std::unique_ptr<Sequence> oldest = scheduler_.remove_oldest();
  CHECK(oldest != nullptr);
  Event& event = events.emplace_back();
  event.request = oldest->id;
  event.finish = FinishReason::kError;
  event.status = internal_error("the scheduler found no step that this request or any other could make");
  fill_end(*oldest, event);
  return false;
}

void EngineCore::start() {
  CHECK(next_plan_ != nullptr && !in_flight());
  StepPlan& plan = *std::exchange(next_plan_, nullptr);
  scheduler_.launch(plan);
  if (plan.empty()) {  // all of its requests have left
    scheduler_.end(plan);
    return;
  }
  running_plan_ = &plan;
  jobs_.clear();
  job_rows_.clear();
  std::size_t row = 0;
  for (PlannedSlice& item : plan.items) {
    const Sequence& sequence = *item.sequence;
    const std::size_t first_row = row;
    row += static_cast<std::size_t>(item.logits_rows);
    item.samples = !sequence.scoring() && item.logits_rows > 0;
    if (!item.samples) continue;
    SampleJob job;
    job.params = &sequence.request.sampling;
    job.counts = &sequence.counts;
    job.position = item.position + item.tokens;
    job.logprobs = sequence.request.logprobs;
    jobs_.push_back(job);
    job_rows_.push_back(first_row);
  }
  if (thread_ == nullptr) {
    run();
  } else {
    thread_->start([this] { run(); });
  }
}

// The step itself, on whichever thread: reads the plan as it was at launch and touches nothing of the scheduler's.
void EngineCore::run() {
  const StepPlan& plan = *running_plan_;
  logits_ = runner_.run(plan.slices, store_.pools());
  if (!plan.copies.empty()) runner_.copy_states(plan.copies, store_.pools());
  if (jobs_.empty()) return;
  for (std::size_t i = 0; i < jobs_.size(); ++i) {
    jobs_[i].logits = logits_.subspan(job_rows_[i] * vocab_size_, vocab_size_);
  }
  sampler_.run(jobs_, std::span(results_).first(jobs_.size()));
}

void EngineCore::finish(std::vector<Event>& events) {
  CHECK(in_flight());
  if (thread_ != nullptr) thread_->wait();
  StepPlan& plan = *running_plan_;
  scheduler_.commit(plan);
  std::size_t row = 0, job = 0;
  for (const PlannedSlice& item : plan.items) {
    const auto logits_rows = static_cast<std::size_t>(item.logits_rows);
    const std::span<const float> rows = logits_.subspan(row * vocab_size_, logits_rows * vocab_size_);
    row += logits_rows;
    SampleResult* const result = item.samples ? &results_[job++] : nullptr;
    Sequence* const sequence = item.sequence;
    if (sequence == nullptr) continue;  // it has left since the launch
    if (!sequence->prompt_counted && item.position + item.tokens >= sequence->prompt_tokens) {
      sequence->prompt_counted = true;
      counters_.prompt_tokens += sequence->prompt_tokens;
    }
    if (sequence->scoring()) {
      report_logits(item, rows, events);
    } else if (result != nullptr) {
      --sequence->sampling;
      if (result->token < 0) {
        fail_not_finite(sequence->id, item.position + item.tokens - 1, events);
      } else {
        commit_token(*sequence, *result, events);
      }
    }
  }
  CHECK(row * vocab_size_ == logits_.size());
  running_plan_ = nullptr;
  scheduler_.end(plan);
  left_.clear();
}

bool EngineCore::advance(std::vector<Event>& events) {
  bool ended = in_flight();
  if (in_flight()) finish(events);
  if (next_plan_ != nullptr) start();
  if (in_flight() && thread_ == nullptr) {
    finish(events);
    ended = true;
  }
  return ended;
}

// What such a request has left in the cache is not to be trusted, nor what it began with.
void EngineCore::fail_not_finite(RequestId id, std::int32_t position, std::vector<Event>& events) {
  end(id, not_finite(position), events);
  prefix_.flush();
}

void EngineCore::commit_token(Sequence& sequence, SampleResult& result, std::vector<Event>& events) {
  Event& event = events.emplace_back();
  event.request = sequence.id;
  event.logprob = std::move(result.logprob);
  sequence.tokens.push_back(result.token);
  if (needs_counts(sequence.request.sampling)) sequence.counts.add_output(result.token);
  sequence.output->push(result.token, event);
  ++counters_.output_tokens;
  if (event.finish == FinishReason::kNone) return;
  fill_end(sequence, event);
  leave(scheduler_.remove(sequence.id));
}

void EngineCore::report_logits(const PlannedSlice& item, std::span<const float> logits, std::vector<Event>& events) {
  Sequence& sequence = *item.sequence;
  const std::int32_t first = item.position + item.tokens - item.logits_rows;
  for (std::int32_t i = 0; i < item.logits_rows; ++i) {
    const std::int32_t position = first + i;
    if (position < sequence.next_logits) continue;  // reported before a preemption
    const std::span<const float> row = logits.subspan(static_cast<std::size_t>(i) * vocab_size_, vocab_size_);
    if (!all_finite(row)) {
      fail_not_finite(sequence.id, position, events);
      return;
    }
    logits_sink_(sequence.id, position, row);
    sequence.next_logits = position + 1;
    if (position >= sequence.prompt_tokens) ++counters_.output_tokens;
  }
  if (sequence.next_logits < static_cast<std::int32_t>(sequence.tokens.size())) return;
  Event& event = events.emplace_back();
  event.request = sequence.id;
  event.finish = FinishReason::kLength;
  fill_end(sequence, event);
  leave(scheduler_.remove(sequence.id));
}

}  // namespace penstock
