// Checks that need the model, where a request enters the engine.
#pragma once

#include <cstdint>

#include "penstock/request.h"

namespace penstock {

struct RequestLimits {
  std::int32_t vocab_size = 0;      // of the model, ids below it can be fed
  std::int32_t context_length = 0;  // tokens of prompt and output
  bool has_text = false;            // a tokenizer is there: stop strings work
  bool has_logits_sink = false;
};

constexpr std::int32_t kMaxLogprobs = 20;
constexpr std::size_t kMaxStops = 1024;  // stop strings, stop tokens: they are compared with every token

// kInvalidArgument: names the field, its value and its range, or the two numbers of a request that can never fit.
Status validate_request(const Request& request, const RequestLimits& limits);

// Output tokens the request may have: max_tokens, or what the context has room for. For scoring: the forced tokens.
std::int32_t output_limit(const Request& request, std::int32_t context_length);

}  // namespace penstock
