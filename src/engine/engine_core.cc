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

EngineCore::EngineCore(const EngineModel& model, const SchedulerLimits& limits, CacheStore& cache, StepRunner& runner,
                       const Tokenizer* tokenizer, LogitsSink logits_sink)
    : eos_token_ids_(model.eos_token_ids),
      vocab_size_(static_cast<std::size_t>(model.vocab_size)),
      runner_(runner),
      cache_(cache),
      tokenizer_(tokenizer),
      logits_sink_(std::move(logits_sink)),
      scheduler_(limits, cache),
      sampler_(model.vocab_size, tokenizer == nullptr ? model.vocab_size : tokenizer->size(), runner.threads()) {
  const auto rows = static_cast<std::size_t>(limits.max_running);
  sampled_.reserve(rows);
  jobs_.reserve(rows);
  results_.resize(rows);
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

void EngineCore::end(RequestId id, const Status& status, std::vector<Event>& events) {
  const std::unique_ptr<Sequence> sequence = scheduler_.remove(id);
  if (sequence == nullptr) return;
  Event& event = events.emplace_back();
  event.request = id;
  event.finish = status.code() == StatusCode::kCancelled ? FinishReason::kCancelled : FinishReason::kError;
  event.status = status;
  fill_end(*sequence, event);
  // Forced tokens that were not read are no output.
  if (sequence->scoring()) event.output_tokens = std::max(sequence->position - sequence->prompt_tokens, 0);
}

void EngineCore::end_all(const Status& status, std::vector<Event>& events) {
  while (const std::unique_ptr<Sequence> sequence = scheduler_.remove_oldest()) {
    Event& event = events.emplace_back();
    event.request = sequence->id;
    event.finish = status.code() == StatusCode::kCancelled ? FinishReason::kCancelled : FinishReason::kError;
    event.status = status;
    fill_end(*sequence, event);
  }
}

bool EngineCore::plan(std::vector<Event>& events) {
  if (scheduler_.idle()) return false;
  plan_ = &scheduler_.plan();
  if (!plan_->empty()) return true;
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

void EngineCore::run(std::vector<Event>& events) {
  const std::span<const float> logits = runner_.run(plan_->slices, cache_.pools());
  scheduler_.commit();
  sampled_.clear();
  jobs_.clear();
  std::size_t row = 0;
  for (const PlannedSlice& item : plan_->items) {
    Sequence& sequence = *item.sequence;
    const std::span<const float> rows =
        logits.subspan(row * vocab_size_, static_cast<std::size_t>(item.logits_rows) * vocab_size_);
    row += static_cast<std::size_t>(item.logits_rows);
    if (!sequence.prompt_counted && sequence.position >= sequence.prompt_tokens) {
      sequence.prompt_counted = true;
      counters_.prompt_tokens += sequence.prompt_tokens;
    }
    if (sequence.scoring()) {
      report_logits(sequence, rows, item.logits_rows, sequence.position - item.logits_rows, events);
    } else if (item.logits_rows > 0) {
      SampleJob job;
      job.logits = rows;
      job.params = &sequence.request.sampling;
      job.counts = &sequence.counts;
      job.position = sequence.position;
      job.logprobs = sequence.request.logprobs;
      jobs_.push_back(job);
      sampled_.push_back(&sequence);
    }
  }
  CHECK(row * vocab_size_ == logits.size());
  sample(events);
}

void EngineCore::sample(std::vector<Event>& events) {
  if (jobs_.empty()) return;
  sampler_.run(jobs_, std::span(results_).first(jobs_.size()));
  for (std::size_t i = 0; i < jobs_.size(); ++i) {
    Sequence& sequence = *sampled_[i];
    if (results_[i].token < 0) {
      end(sequence.id, not_finite(sequence.position - 1), events);
    } else {
      commit_token(sequence, results_[i], events);
    }
  }
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
  scheduler_.remove(sequence.id);
}

void EngineCore::report_logits(Sequence& sequence, std::span<const float> logits, std::int32_t rows,
                               std::int32_t first_position, std::vector<Event>& events) {
  for (std::int32_t i = 0; i < rows; ++i) {
    const std::int32_t position = first_position + i;
    if (position < sequence.next_logits) continue;  // reported before a preemption
    const std::span<const float> row = logits.subspan(static_cast<std::size_t>(i) * vocab_size_, vocab_size_);
    if (!all_finite(row)) {
      end(sequence.id, not_finite(position), events);
      return;
    }
    logits_sink_(sequence.id, position, row);
    sequence.next_logits = position + 1;
    if (position >= sequence.prompt_tokens) ++counters_.output_tokens;
  }
  if (sequence.pending() > 0) return;
  Event& event = events.emplace_back();
  event.request = sequence.id;
  event.finish = FinishReason::kLength;
  fill_end(sequence, event);
  scheduler_.remove(sequence.id);
}

}  // namespace penstock
