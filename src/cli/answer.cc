#include "cli/answer.h"

#include <utility>

namespace penstock::cli {
namespace {

using Json = nlohmann::ordered_json;

Json token_json(const Tokenizer* tokenizer, std::int32_t id, float logprob) {
  Json object;
  object["token_id"] = id;
  if (tokenizer != nullptr) object["token"] = std::string(tokenizer->token_bytes(id));
  object["logprob"] = logprob;
  return object;
}

}  // namespace

void Answer::add(Event& event) {
  text += event.text;
  if (event.token >= 0) {
    last_token = Clock::now();
    if (token_ids.empty()) first_token = last_token;
    token_ids.push_back(event.token);
  }
  if (event.logprob != nullptr) logprobs.push_back(std::move(*event.logprob));
  if (event.finish == FinishReason::kNone) return;
  finish = event.finish;
  stop_reason = std::move(event.stop_reason);
  status = std::move(event.status);
  prompt_tokens = event.prompt_tokens;
}

void add_json(const Answer& answer, const Tokenizer* tokenizer, bool with_logprobs, Json& object) {
  if (answer.finish == FinishReason::kError) {
    object["error"] = {{"code", to_string(answer.status.code())}, {"message", answer.status.message()}};
    return;
  }
  object["text"] = tokenizer != nullptr ? Json(answer.text) : Json();
  object["token_ids"] = answer.token_ids;
  object["finish_reason"] = to_string(answer.finish);
  if (!answer.stop_reason.empty()) object["stop_reason"] = answer.stop_reason;
  object["prompt_tokens"] = answer.prompt_tokens;
  if (!with_logprobs) return;
  Json list = Json::array();
  for (const TokenLogprob& entry : answer.logprobs) {
    Json token = token_json(tokenizer, entry.token, entry.logprob);
    token["top"] = Json::array();
    for (const auto& [id, logprob] : entry.top) token["top"].push_back(token_json(tokenizer, id, logprob));
    list.push_back(std::move(token));
  }
  object["logprobs"] = std::move(list);
}

std::string json_line(const Json& object) {
  return object.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) + '\n';
}

}  // namespace penstock::cli
