// How the next token is chosen. All ranges are checked once, by validate(), where a request enters.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "penstock/status.h"

namespace penstock {

struct SamplingParams {
  float temperature = 1.0F;         // [0, 100]; 0 is greedy
  std::int32_t top_k = 0;           // 0 or -1: all; else >= 1
  float top_p = 1.0F;               // (0, 1]
  float min_p = 0.0F;               // [0, 1]: drop tokens below min_p × the best probability
  float repetition_penalty = 1.0F;  // (0, 10]: over prompt and output
  float presence_penalty = 0.0F;    // [-2, 2]: over the output
  float frequency_penalty = 0.0F;   // [-2, 2]: over the output
  std::uint64_t seed = 0;           // the random number of a token is f(seed, position), nothing else
  std::vector<std::pair<std::int32_t, float>> logit_bias;  // (token id, added to the logit, [-100, 100])

  // Needs the vocabulary size for the ids of logit_bias. The message names the field and its range.
  Status validate(std::int32_t vocab_size) const;
};

}  // namespace penstock
