// What a client asks of the engine, and what comes back.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "penstock/sampling.h"
#include "penstock/status.h"

namespace penstock {

using RequestId = std::uint64_t;

struct Request {
  std::vector<std::int32_t> prompt;  // token ids, at least one
  SamplingParams sampling;
  std::int32_t max_tokens = -1;              // output tokens; -1: as many as the context has room for
  std::vector<std::int32_t> stop_token_ids;  // end the answer, beside the model's own end tokens
  std::vector<std::string> stop;             // end the answer before the first of these in its text
  bool include_stop_in_output = false;       // keep the stop string or stop token in the text
  bool ignore_eos = false;                   // the model's end tokens are ordinary tokens
  bool skip_special_tokens = true;           // leave special tokens out of the text
  std::int32_t logprobs = -1;                // -1: none; N >= 0: the chosen token's and the N best, N <= 20
  std::int32_t priority = 0;                 // higher runs first
  std::string cache_salt;                    // requests share cached prefixes only with those of the same salt

  // Scoring (penstock score): feed `forced` after the prompt instead of sampling, one decode step a token, and
  // report the logits of every position.
  bool return_logits = false;
  std::vector<std::int32_t> forced;
};

enum class FinishReason : std::uint8_t { kNone, kStop, kLength, kCancelled, kError };
const char* to_string(FinishReason reason);  // "stop", "length", "cancelled", "error"

struct TokenLogprob {
  std::int32_t token = 0;
  float logprob = 0;                                // natural logarithm, of the model's distribution at temperature 1
  std::vector<std::pair<std::int32_t, float>> top;  // the N best (id, logprob), best first
};

// One token of one request, or its end. In every step the engine hands out all events of the step together.
struct Event {
  RequestId request = 0;
  std::int32_t token = -1;                // -1: no token in this event (the end alone)
  std::string text;                       // text that became certain with this token: whole UTF-8 characters, no
                                          // part of a stop string; may be empty
  std::unique_ptr<TokenLogprob> logprob;  // if asked for
  FinishReason finish = FinishReason::kNone;
  std::string stop_reason;         // the stop string that ended it, if one did
  Status status;                   // why, when finish is kError
  std::int32_t prompt_tokens = 0;  // set in the last event
  std::int32_t output_tokens = 0;  // set in the last event
  std::int32_t cached_tokens = 0;  // set in the last event: prompt tokens taken from the prefix cache
};

}  // namespace penstock
