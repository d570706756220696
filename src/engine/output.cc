#include "engine/output.h"

#include <algorithm>
#include <utility>

namespace penstock {

OutputStream::OutputStream(const Request& request, const std::vector<std::int32_t>& eos_token_ids,
                           const Tokenizer* tokenizer, std::int32_t max_tokens)
    : end_tokens_(request.stop_token_ids), include_stop_(request.include_stop_in_output), max_tokens_(max_tokens) {
  if (!request.ignore_eos) end_tokens_.insert(end_tokens_.end(), eos_token_ids.begin(), eos_token_ids.end());
  if (tokenizer != nullptr) detokenizer_.emplace(tokenizer, request.skip_special_tokens);
  if (!request.stop.empty()) matcher_.emplace(request.stop, request.include_stop_in_output);
}

bool OutputStream::is_end(std::int32_t token) const {
  return std::find(end_tokens_.begin(), end_tokens_.end(), token) != end_tokens_.end();
}

bool OutputStream::feed(std::string piece, Event& event) {
  if (!matcher_) {
    event.text += piece;
    return false;
  }
  StopMatcher::Result result = matcher_->push(piece);
  event.text += result.text;
  if (!result.stop) return false;
  event.finish = FinishReason::kStop;
  event.stop_reason = *std::move(result.stop);
  return true;
}

void OutputStream::finish(FinishReason reason, Event& event) {
  // An incomplete character becomes certain only now, and may complete a stop string.
  if (detokenizer_ && feed(detokenizer_->finish(), event)) return;
  if (matcher_) event.text += matcher_->finish();
  event.finish = reason;
}

void OutputStream::push(std::int32_t token, Event& event) {
  ++tokens_;
  event.token = token;
  const bool end = is_end(token);
  if (detokenizer_ && (!end || include_stop_) && feed(detokenizer_->push(token), event)) return;
  if (end) {
    finish(FinishReason::kStop, event);
  } else if (tokens_ >= max_tokens_) {
    finish(FinishReason::kLength, event);
  }
}

}  // namespace penstock
