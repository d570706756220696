#include <utility>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace penstock {

JoinedPieces join(const std::vector<RenderedPiece>& pieces) {
  JoinedPieces joined;
  for (const RenderedPiece& piece : pieces) {
    const std::size_t begin = joined.text.size();
    joined.text += piece.text;
    if (piece.from_user && !piece.text.empty()) joined.user.emplace_back(begin, joined.text.size());
  }
  return joined;
}

Expected<std::vector<std::int32_t>> encode_chat(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                                                const ChatTemplateInput& input) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::vector<RenderedPiece> pieces, chat_template.render_pieces(input));
  const JoinedPieces joined = join(pieces);
  return tokenizer.encode_with_plain_ranges(joined.text, joined.user);
}

}  // namespace penstock
