// Token ids of one answer -> its text, piece by piece, and the point where it ends.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "penstock/request.h"
#include "text/tokenizer.h"

namespace penstock {

class OutputStream {
 public:
  // tokenizer: may be null, then there is no text. eos_token_ids: the model's own.
  OutputStream(const Request& request, const std::vector<std::int32_t>& eos_token_ids, const Tokenizer* tokenizer,
               std::int32_t max_tokens);

  // Takes the next token and fills text, finish and stop_reason of its event. With a finish, everything that was held
  // back is in the text.
  void push(std::int32_t token, Event& event);

  std::int32_t tokens() const { return tokens_; }

 private:
  bool is_end(std::int32_t token) const;
  void finish(FinishReason reason, Event& event);
  bool feed(std::string piece, Event& event);  // true: a stop string was found

  std::vector<std::int32_t> end_tokens_;
  bool include_stop_;
  std::int32_t max_tokens_;
  std::int32_t tokens_ = 0;
  std::optional<Detokenizer> detokenizer_;
  std::optional<StopMatcher> matcher_;  // when there are stop strings
};

}  // namespace penstock
