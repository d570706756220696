// A request inside the engine: its tokens, how far the model has read them, and the slots it holds.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/output.h"
#include "engine/sampler.h"
#include "penstock/request.h"

namespace penstock {

struct Sequence {
  RequestId id = 0;  // ascending in order of arrival
  Request request;
  std::int32_t prompt_tokens = 0;
  std::int32_t max_tokens = 0;  // of output, or forced tokens when scoring

  // Everything the model has to read: the prompt, then the output (or, from the start, the forced tokens). A step
  // runs tokens[position …]; when none is left, the next token is sampled and appended. So a first prefill, a decode
  // step and the return of a preempted request are the same thing.
  std::vector<std::int32_t> tokens;
  std::int32_t position = 0;  // tokens the cache holds

  // Slots, held from admission to the end or to preemption. Pages grow with the position.
  std::vector<std::int32_t> pages;
  std::int32_t state = 0;
  std::int32_t window = 0;  // 0 with the recurrent backend

  // Sampling and text; not for scoring.
  TokenCounts counts;
  std::optional<OutputStream> output;

  std::int32_t next_logits = 0;  // scoring: first position whose logits were not reported yet
  bool prompt_counted = false;   // in the statistics
  bool preempted = false;        // waits to go on: first of all, nobody passes it
  std::int32_t passes = 0;       // requests that overtook it while it waited

  bool scoring() const { return request.return_logits; }
  std::int32_t pending() const { return static_cast<std::int32_t>(tokens.size()) - position; }
  // Tokens the model reads of this request at most: the last token of an answer is never read.
  std::int64_t most_read() const { return std::int64_t{prompt_tokens} + (scoring() ? max_tokens : max_tokens - 1); }
  std::int32_t output_tokens() const { return static_cast<std::int32_t>(tokens.size()) - prompt_tokens; }
};

}  // namespace penstock
