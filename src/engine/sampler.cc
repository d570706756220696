#include "engine/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "engine/philox.h"
#include "engine/row_math.h"

namespace penstock {
namespace {

// Up to this many best tokens are picked by a heap and sorted; more go through the histogram.
constexpr std::int32_t kSmallTopK = 1024;
// The histogram covers weights down to e^-32; below lies one bucket.
constexpr std::int32_t kBuckets = 2048;
constexpr float kBucketsPerNat = 64;

struct Candidate {
  std::int32_t key;  // order_key of the value
  std::int32_t token;
};

// Better: larger value, then lower id.
bool better(const Candidate& a, const Candidate& b) {
  return a.key != b.key ? a.key > b.key : a.token < b.token;
}

// The `count` best of the row into `best`, in no order.
void select_best(std::span<const float> row, std::size_t count, std::vector<Candidate>& best) {
  best.clear();
  std::size_t i = 0;
  for (; i < row.size() && best.size() < count; ++i) best.push_back({order_key(row[i]), static_cast<std::int32_t>(i)});
  if (i == row.size()) return;
  std::make_heap(best.begin(), best.end(), better);  // the worst is in front
  for (; i < row.size(); ++i) {
    const std::int32_t key = order_key(row[i]);
    if (key <= best.front().key) continue;  // an equal value at a higher id is worse
    std::pop_heap(best.begin(), best.end(), better);
    best.back() = {key, static_cast<std::int32_t>(i)};
    std::push_heap(best.begin(), best.end(), better);
  }
}

// The first token, by id, whose cumulative weight exceeds `target`; the last with a weight if rounding leaves none.
template <typename Weight>
std::int32_t draw(std::size_t count, double target, Weight&& weight) {
  double sum = 0;
  std::int32_t last = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double w = weight(i);
    if (w <= 0) continue;
    sum += w;
    last = static_cast<std::int32_t>(i);
    if (sum > target) return last;
  }
  return last;
}

}  // namespace

struct SamplerScratch {
  std::vector<float> logits;   // [vocab] after penalties and bias; then log weights, best 0
  std::vector<float> weights;  // [vocab]
  std::vector<Candidate> candidates;
  std::array<double, kBuckets> bucket_weight;
  std::array<std::int32_t, kBuckets> bucket_count;
};

namespace {

void apply_penalties(const SampleJob& job, std::span<float> logits) {
  const SamplingParams& params = *job.params;
  if (needs_counts(params)) {
    CHECK(job.counts != nullptr);
    for (const auto& [token, count] : job.counts->counts()) {
      if (static_cast<std::size_t>(token) >= logits.size()) continue;
      float& x = logits[static_cast<std::size_t>(token)];
      x = x > 0 ? x / params.repetition_penalty : x * params.repetition_penalty;
      if (count.output == 0) continue;
      x -= params.frequency_penalty * static_cast<float>(count.output);
      x -= params.presence_penalty;
    }
  }
  for (const auto& [token, bias] : params.logit_bias) {
    if (static_cast<std::size_t>(token) < logits.size()) logits[static_cast<std::size_t>(token)] += bias;
  }
}

// Least log weight (best: 0) that min-p keeps. Log weights are what the temperature made of the logits.
float min_p_floor(const SamplingParams& params) {
  return params.min_p > 0 ? std::log(params.min_p) : -std::numeric_limits<float>::infinity();
}

// `candidates` hold log weights by token. Sorted, cut by top-p, drawn in order of ids.
std::int32_t draw_small(std::vector<Candidate>& candidates, const SamplingParams& params, double uniform) {
  std::sort(candidates.begin(), candidates.end(), better);
  const auto weight_of = [](const Candidate& c) { return static_cast<double>(exp_negative(from_order_key(c.key))); };
  const float floor = min_p_floor(params);
  std::size_t kept = 0;
  double total = 0;
  while (kept < candidates.size() && (kept == 0 || from_order_key(candidates[kept].key) >= floor)) {
    total += weight_of(candidates[kept++]);
  }
  if (params.top_p < 1) {
    const double wanted = static_cast<double>(params.top_p) * total;
    total = 0;
    std::size_t i = 0;
    while (i < kept && total < wanted) total += weight_of(candidates[i++]);
    kept = std::max<std::size_t>(i, 1);
  }
  candidates.resize(kept);
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  const std::int32_t i = draw(kept, uniform * total, [&](std::size_t j) { return weight_of(candidates[j]); });
  return candidates[static_cast<std::size_t>(i)].token;
}

std::size_t bucket_of(float log_weight) {
  const float scaled = -log_weight * kBucketsPerNat;
  return scaled >= static_cast<float>(kBuckets - 1) ? kBuckets - 1 : static_cast<std::size_t>(scaled);
}

}  // namespace

bool needs_counts(const SamplingParams& params) {
  return params.repetition_penalty != 1 || params.presence_penalty != 0 || params.frequency_penalty != 0;
}

bool all_finite(std::span<const float> values) {
  return row_max(values).finite;
}

namespace {

// top-k and top-p over a whole row without sorting it: a histogram of the weights says in which narrow band of values
// the border lies, and only that band is sorted. On return, tokens that are cut have weight 0.
void cut_tail(std::span<const float> log_weights, std::span<float> weights, const SamplingParams& params,
              SamplerScratch& scratch) {
  // One cut after the other: top-p is over what top-k leaves.
  const auto cut = [&](bool by_count, double limit) {
    scratch.bucket_weight.fill(0);
    scratch.bucket_count.fill(0);
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (weights[i] <= 0) continue;
      const std::size_t b = bucket_of(log_weights[i]);
      scratch.bucket_weight[b] += static_cast<double>(weights[i]);
      ++scratch.bucket_count[b];
    }
    if (!by_count) {  // the share of all that is left
      double total = 0;
      for (const double w : scratch.bucket_weight) total += w;
      limit *= total;
    }
    double reached = 0;
    std::size_t border = 0;
    const auto size_of = [&](std::size_t b) {
      return by_count ? static_cast<double>(scratch.bucket_count[b]) : scratch.bucket_weight[b];
    };
    while (border < kBuckets && reached + size_of(border) < limit) reached += size_of(border++);
    if (border == kBuckets) return;
    scratch.candidates.clear();
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (weights[i] <= 0) continue;
      const std::size_t b = bucket_of(log_weights[i]);
      if (b > border) weights[i] = 0;
      if (b == border) scratch.candidates.push_back({order_key(log_weights[i]), static_cast<std::int32_t>(i)});
    }
    std::sort(scratch.candidates.begin(), scratch.candidates.end(), better);
    for (const Candidate& c : scratch.candidates) {
      float& w = weights[static_cast<std::size_t>(c.token)];
      if (reached >= limit) w = 0;
      reached += by_count ? 1 : static_cast<double>(w);
    }
  };
  if (params.top_k > 0 && static_cast<std::size_t>(params.top_k) < weights.size()) cut(true, params.top_k);
  if (params.top_p < 1) cut(false, static_cast<double>(params.top_p));
}

std::unique_ptr<TokenLogprob> make_logprob(std::span<const float> logits, std::int32_t sampled_vocab,
                                           std::int32_t token, std::int32_t count, std::vector<Candidate>& scratch) {
  auto result = std::make_unique<TokenLogprob>();
  const float best = row_max(logits).value;
  const double log_sum = std::log(sum_exp(logits, best));
  const auto logprob = [&](float x) { return static_cast<float>(static_cast<double>(x) - best - log_sum); };
  result->token = token;
  result->logprob = logprob(logits[static_cast<std::size_t>(token)]);
  if (count > 0) {
    select_best(logits.first(static_cast<std::size_t>(sampled_vocab)), static_cast<std::size_t>(count), scratch);
    std::sort(scratch.begin(), scratch.end(), better);
    for (const Candidate& c : scratch) {
      result->top.emplace_back(c.token, logprob(logits[static_cast<std::size_t>(c.token)]));
    }
  }
  return result;
}

// Temperature, the cuts and the draw. `logits` become log weights: (x − best) / temperature, the best 0.
std::int32_t draw_token(std::span<float> logits, float best, const SampleJob& job, SamplerScratch& scratch) {
  const SamplingParams& params = *job.params;
  const double uniform = philox_uniform(params.seed, static_cast<std::uint32_t>(job.position), 0);
  // 0 stays 0 however small the temperature is; the others fall to -inf and weigh nothing.
  for (float& x : logits) x = (x - best) / params.temperature;
  const bool few = params.top_k > 0 && params.top_k <= kSmallTopK;
  if (few) {
    select_best(logits, static_cast<std::size_t>(params.top_k), scratch.candidates);
    return draw_small(scratch.candidates, params, uniform);
  }
  const std::span<float> weights(scratch.weights.data(), logits.size());
  const float floor = min_p_floor(params);
  for (std::size_t i = 0; i < logits.size(); ++i) weights[i] = exp_negative(logits[i]);
  if (params.min_p > 0) {
    for (std::size_t i = 0; i < logits.size(); ++i) weights[i] = logits[i] >= floor ? weights[i] : 0.0F;
  }
  cut_tail(logits, weights, params, scratch);
  const double total = sum_row(weights);
  return draw(weights.size(), uniform * total, [&](std::size_t i) { return static_cast<double>(weights[i]); });
}

}  // namespace

Sampler::Sampler(std::int32_t vocab_size, std::int32_t sampled_vocab, ThreadPool* pool)
    : vocab_size_(vocab_size), sampled_vocab_(std::min(sampled_vocab, vocab_size)), pool_(pool) {
  CHECK(sampled_vocab_ > 0);
  const int threads = pool == nullptr ? 1 : pool->threads();
  for (int i = 0; i < threads; ++i) {
    auto scratch = std::make_unique<SamplerScratch>();
    scratch->logits.resize(static_cast<std::size_t>(vocab_size));
    scratch->weights.resize(static_cast<std::size_t>(vocab_size));
    scratch->candidates.reserve(kSmallTopK);
    scratch_.push_back(std::move(scratch));
  }
}

Sampler::~Sampler() = default;

void Sampler::run(std::span<const SampleJob> jobs, std::span<SampleResult> results) {
  CHECK(jobs.size() == results.size());
  if (pool_ == nullptr || jobs.size() < 2) {
    for (std::size_t i = 0; i < jobs.size(); ++i) run_one(jobs[i], results[i], *scratch_[0]);
    return;
  }
  pool_->parallel_for(static_cast<std::int64_t>(jobs.size()), [&](std::int64_t task, int thread) {
    const auto i = static_cast<std::size_t>(task);
    run_one(jobs[i], results[i], *scratch_[static_cast<std::size_t>(thread)]);
  });
}

void Sampler::run_one(const SampleJob& job, SampleResult& result, SamplerScratch& scratch) const {
  CHECK(job.logits.size() == static_cast<std::size_t>(vocab_size_));
  const auto count = static_cast<std::size_t>(sampled_vocab_);
  const SamplingParams& params = *job.params;
  result = {};
  RowMax best = row_max(job.logits.first(count));
  if (!best.finite || !all_finite(job.logits.subspan(count))) return;
  const bool changed = needs_counts(params) || !params.logit_bias.empty();
  if (changed || params.temperature > 0) {
    const std::span<float> logits(scratch.logits.data(), count);
    std::copy_n(job.logits.begin(), count, logits.begin());
    if (changed) {
      apply_penalties(job, logits);
      best = row_max(logits);
      if (!best.finite) return;
    }
    result.token = params.temperature > 0 ? draw_token(logits, best.value, job, scratch) : best.index;
  } else {
    result.token = best.index;
  }
  if (job.logprobs >= 0) {
    result.logprob = make_logprob(job.logits, sampled_vocab_, result.token, job.logprobs, scratch.candidates);
  }
}

}  // namespace penstock
