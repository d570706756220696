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
  std::int32_t sampling = 0;   // tokens that planned steps will append: a plan does not know them yet (contract O3)
  std::int32_t position = 0;   // tokens that planned steps have read
  std::int32_t committed = 0;  // of those, in steps that have ended
  bool started = false;        // a step was planned since its admission

  // Slots, held from admission to the end or to preemption. Pages grow with the position.
  std::vector<std::int32_t> pages;
  std::int32_t base = 0;    // state that its next step reads: at the last boundary, or live (recurrent); 0: zero state
  std::int32_t window = 0;  // 0 with the recurrent backend

  // The prefix cache.
  std::int32_t branch_blocks = 0;   // from here on its prompt is new, and the tree has no snapshot there; 0: none
  std::int32_t rolling_blocks = 0;  // recurrent: where generation has left its latest snapshot
  std::int64_t match_version = -1;  // of the tree, at the last look
  std::int32_t hint_held = 0;       // pages that a match would share with running requests, at the last look
  std::int64_t hint_plan = -1000;   // plan of the last look while waiting
  std::int32_t cached_tokens = 0;   // of the prompt, that it did not have to compute
  bool looked_up = false;           // cached_tokens is final

  // Sampling and text; not for scoring.
  TokenCounts counts;
  std::optional<OutputStream> output;

  std::int32_t next_logits = 0;  // scoring: first position whose logits were not reported yet
  bool prompt_counted = false;   // in the statistics
  bool preempted = false;        // waits to go on: first of all, nobody passes it
  std::int32_t passes = 0;       // requests that overtook it while it waited

  bool scoring() const { return request.return_logits; }
  std::int32_t length() const { return static_cast<std::int32_t>(tokens.size()) + sampling; }
  std::int32_t pending() const { return length() - position; }
  // Tokens the model reads of this request at most: the last token of an answer is never read.
  std::int64_t most_read() const { return std::int64_t{prompt_tokens} + (scoring() ? max_tokens : max_tokens - 1); }
  std::int32_t output_tokens() const { return static_cast<std::int32_t>(tokens.size()) - prompt_tokens; }
  // A step can be planned: there is something to read, and it is not the last token of the answer.
  bool runnable() const { return pending() > 0 && position < most_read(); }
};

}  // namespace penstock
