// One answer of the engine, put together from its events, and its JSON form.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "penstock/request.h"
#include "penstock/status.h"
#include "text/tokenizer.h"

namespace penstock::cli {

using Clock = std::chrono::steady_clock;

struct Answer {
  std::string text;
  std::vector<std::int32_t> token_ids;
  std::vector<TokenLogprob> logprobs;
  FinishReason finish = FinishReason::kNone;
  std::string stop_reason;
  Status status;
  std::int32_t prompt_tokens = 0;
  Clock::time_point first_token{}, last_token{};  // when their events were seen

  bool done() const { return finish != FinishReason::kNone; }
  void add(Event& event);
};

// text (null without a tokenizer), token_ids, finish_reason, prompt_tokens; logprobs when `with_logprobs`; an error
// instead of them when the request failed. Text that is not UTF-8 has U+FFFD in its place.
void add_json(const Answer& answer, const Tokenizer* tokenizer, bool with_logprobs, nlohmann::ordered_json& object);

// `object` on one line with its newline.
std::string json_line(const nlohmann::ordered_json& object);

}  // namespace penstock::cli
