#include <utility>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace penstock {

Expected<std::vector<std::int32_t>> encode_chat(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                                                const ChatTemplateInput& input) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::vector<RenderedPiece> pieces, chat_template.render_pieces(input));
  std::string text;
  std::vector<std::pair<std::size_t, std::size_t>> user;  // byte ranges of `text`
  for (const RenderedPiece& piece : pieces) {
    const std::size_t begin = text.size();
    text += piece.text;
    if (piece.from_user) user.emplace_back(begin, text.size());
  }
  return tokenizer.encode_with_plain_ranges(text, user);
}

}  // namespace penstock
