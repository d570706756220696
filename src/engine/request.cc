#include "engine/request.h"

#include <fmt/format.h>

#include <cmath>
#include <span>

namespace penstock {
namespace {

Status check_ids(std::span<const std::int32_t> ids, const char* field, std::int32_t vocab_size) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size) {
      return invalid_argument(fmt::format("{}: token id {} at position {} is not in the vocabulary, 0 to {}", field,
                                          ids[i], i, vocab_size - 1));
    }
  }
  return {};
}

Status check_range(float value, const char* field, float low, float high, bool open_low) {
  const bool above = open_low ? value > low : value >= low;
  if (std::isfinite(value) && above && value <= high) return {};
  return invalid_argument(fmt::format("{} is {}; it must be {} {} and at most {}", field, value,
                                      open_low ? "above" : "at least", low, high));
}

Status check_stops(const Request& request, const RequestLimits& limits) {
  if (request.stop.size() > kMaxStops || request.stop_token_ids.size() > kMaxStops) {
    return invalid_argument(fmt::format("stop has {} strings and stop_token_ids {} ids; at most {} of each",
                                        request.stop.size(), request.stop_token_ids.size(), kMaxStops));
  }
  if (!request.stop.empty() && !limits.has_text) {
    return invalid_argument("stop: stop strings need a tokenizer, and this model has none; use stop_token_ids");
  }
  for (const std::string& stop : request.stop) {
    if (stop.empty()) return invalid_argument("stop: a stop string is empty; leave it out");
  }
  return check_ids(request.stop_token_ids, "stop_token_ids", limits.vocab_size);
}

Status check_scoring(const Request& request, const RequestLimits& limits) {
  if (!request.return_logits && !request.forced.empty()) {
    return invalid_argument("forced: tokens to score are given, but return_logits is not set");
  }
  if (request.return_logits && !limits.has_logits_sink) {
    return invalid_argument("return_logits: this engine was started without a receiver of logits");
  }
  return check_ids(request.forced, "forced", limits.vocab_size);
}

}  // namespace

const char* to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "none";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "unknown";
}

Status SamplingParams::validate(std::int32_t vocab_size) const {
  PENSTOCK_RETURN_IF_ERROR(check_range(temperature, "temperature", 0, 100, false));
  if (top_k < -1) return invalid_argument(fmt::format("top_k is {}; it must be 0 or -1 for all, or positive", top_k));
  PENSTOCK_RETURN_IF_ERROR(check_range(top_p, "top_p", 0, 1, true));
  PENSTOCK_RETURN_IF_ERROR(check_range(min_p, "min_p", 0, 1, false));
  PENSTOCK_RETURN_IF_ERROR(check_range(repetition_penalty, "repetition_penalty", 0, 10, true));
  PENSTOCK_RETURN_IF_ERROR(check_range(presence_penalty, "presence_penalty", -2, 2, false));
  PENSTOCK_RETURN_IF_ERROR(check_range(frequency_penalty, "frequency_penalty", -2, 2, false));
  for (const auto& [token, bias] : logit_bias) {
    if (token < 0 || token >= vocab_size) {
      return invalid_argument(
          fmt::format("logit_bias: token id {} is not in the vocabulary, 0 to {}", token, vocab_size - 1));
    }
    PENSTOCK_RETURN_IF_ERROR(check_range(bias, "logit_bias", -100, 100, false));
  }
  return {};
}

Status validate_request(const Request& request, const RequestLimits& limits) {
  if (request.prompt.empty()) return invalid_argument("prompt: it has no tokens; at least one is needed");
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  if (request.max_tokens != -1 && request.max_tokens < 1) {
    return invalid_argument(
        fmt::format("max_tokens is {}; it must be at least 1, or -1 for as many as the context "
                    "has room for",
                    request.max_tokens));
  }
  const bool scoring = request.return_logits;
  const std::int64_t output =
      scoring ? static_cast<std::int64_t>(request.forced.size()) : std::max<std::int64_t>(request.max_tokens, 1);
  if (prompt + output > limits.context_length) {
    const std::string wish = scoring                  ? fmt::format("{} forced tokens", output)
                             : request.max_tokens < 0 ? std::string("at least one output token")
                                                      : fmt::format("max_tokens = {}", output);
    return invalid_argument(
        fmt::format("the prompt's {} tokens and {} can never fit the context of {} tokens: shorten "
                    "the prompt{}, or start with a larger --context-length",
                    prompt, wish, limits.context_length, request.max_tokens > 1 ? " or lower max_tokens" : ""));
  }
  PENSTOCK_RETURN_IF_ERROR(check_ids(request.prompt, "prompt", limits.vocab_size));
  PENSTOCK_RETURN_IF_ERROR(request.sampling.validate(limits.vocab_size));
  if (request.logprobs < -1 || request.logprobs > kMaxLogprobs) {
    return invalid_argument(
        fmt::format("logprobs is {}; it must be -1 for none, or 0 to {}", request.logprobs, kMaxLogprobs));
  }
  PENSTOCK_RETURN_IF_ERROR(check_stops(request, limits));
  return check_scoring(request, limits);
}

std::int32_t output_limit(const Request& request, std::int32_t context_length) {
  if (request.return_logits) return static_cast<std::int32_t>(request.forced.size());
  if (request.max_tokens > 0) return request.max_tokens;
  return context_length - static_cast<std::int32_t>(request.prompt.size());
}

}  // namespace penstock
