#include "text/tokenizer.h"
#include "text/unicode.h"

namespace penstock {

std::string Detokenizer::push(std::int32_t id) {
  std::string text;
  if (skip_special_ && tokenizer_->is_special(id)) return text;
  pending_ += tokenizer_->token_bytes(id);
  pending_.erase(0, unicode::append_lossy(pending_, text));
  return text;
}

std::string Detokenizer::finish() {
  if (pending_.empty()) return {};
  pending_.clear();  // one maximal ill-formed part
  return std::string(unicode::kReplacement);
}

}  // namespace penstock
