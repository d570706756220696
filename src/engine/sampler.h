// From one row of logits to one token. A row's result depends on its logits, its parameters, its own tokens, its seed
// and its position; not on other rows, their number or the threads (numerics.md, level A).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/thread_pool.h"
#include "penstock/request.h"
#include "penstock/sampling.h"

namespace penstock {

// How often each token occurred, for the penalties. Kept only for requests that have one.
class TokenCounts {
 public:
  struct Count {
    std::int32_t output = 0;  // times in the output; 0: in the prompt alone
  };
  void add_prompt(std::span<const std::int32_t> tokens) {
    for (const std::int32_t token : tokens) counts_.try_emplace(token);
  }
  void add_output(std::int32_t token) { ++counts_[token].output; }
  const std::unordered_map<std::int32_t, Count>& counts() const { return counts_; }

 private:
  std::unordered_map<std::int32_t, Count> counts_;
};

bool needs_counts(const SamplingParams& params);

struct SampleJob {
  std::span<const float> logits;  // [vocab] as the model gave them
  const SamplingParams* params = nullptr;
  const TokenCounts* counts = nullptr;  // may be null when needs_counts() is false
  std::int32_t position = 0;            // of the token to be chosen, in its sequence
  std::int32_t logprobs = -1;           // as in Request
};

struct SampleResult {
  std::int32_t token = -1;  // -1: a logit is NaN or infinite
  std::unique_ptr<TokenLogprob> logprob;
};

struct SamplerScratch;  // rows that a thread works in

// The order, as vLLM's: penalties (repetition over prompt and output: positive logits divided, others multiplied; then
// frequency and presence over the output), logit bias, then greedy if the temperature is 0, else temperature, min-p,
// top-k, top-p over what is left, and one draw. Ties go to the lower id everywhere: greedy takes the lowest, top-k and
// top-p keep lower ids first. Logprobs are of the raw logits at temperature 1, before all of that.
class Sampler {
 public:
  // Ids from `sampled_vocab` on are padding of the weights and never chosen. pool: may be null, for one thread.
  Sampler(std::int32_t vocab_size, std::int32_t sampled_vocab, ThreadPool* pool);
  ~Sampler();

  // results[i] for jobs[i], rows in parallel.
  void run(std::span<const SampleJob> jobs, std::span<SampleResult> results);

 private:
  void run_one(const SampleJob& job, SampleResult& result, SamplerScratch& scratch) const;

  std::int32_t vocab_size_, sampled_vocab_;
  ThreadPool* pool_;
  std::vector<std::unique_ptr<SamplerScratch>> scratch_;  // one per thread
};

// True when no value is NaN or infinite.
bool all_finite(std::span<const float> values);

}  // namespace penstock
