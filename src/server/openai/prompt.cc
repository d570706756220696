#include "server/openai/prompt.h"

#include <algorithm>
#include <utility>

namespace penstock::openai {
namespace {

// Where the last message's own text ends in the rendered prompt; templates may trim it.
Expected<std::size_t> end_of_last_message(const std::string& rendered, const Json& message) {
  std::string content;
  const Json& value = message["content"];
  if (value.is_string()) {
    content = value.get<std::string>();
  } else if (value.is_array() && !value.empty()) {
    content = value.back()["text"].get<std::string>();
  }
  const auto first = content.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) {
    return invalid_argument("continue_final_message needs a last message with text to continue");
  }
  auto begin = rendered.rfind(content);
  if (begin == std::string::npos) {
    content = content.substr(first, content.find_last_not_of(" \t\r\n") + 1 - first);
    begin = rendered.rfind(content);
  }
  if (begin == std::string::npos) {
    return invalid_argument(
        "continue_final_message: the chat template does not write the last message's text as it is");
  }
  return begin + content.size();
}

}  // namespace

Expected<EncodedPrompt> encode_chat_prompt(const ServedModel& model, const ChatInput& chat, SpecialTokens special) {
  PENSTOCK_ASSIGN_OR_RETURN(const auto pieces, model.chat_template->render_pieces(chat.input));
  auto [text, plain] = join(pieces);
  if (chat.continue_final_message) {
    PENSTOCK_ASSIGN_OR_RETURN(const std::size_t end, end_of_last_message(text, chat.input.messages.back()));
    text.resize(end);
    std::erase_if(plain, [end](const auto& range) { return range.first >= end; });
    if (!plain.empty()) plain.back().second = std::min(plain.back().second, end);
  }
  if (special == SpecialTokens::kParse) plain.clear();
  PENSTOCK_ASSIGN_OR_RETURN(auto ids, model.tokenizer->encode_with_plain_ranges(text, plain));
  return EncodedPrompt{std::move(text), std::move(ids)};
}

Expected<EncodedPrompt> encode_text_prompt(const ServedModel& model, const PromptInput& input, SpecialTokens special) {
  EncodedPrompt prompt{input.text, input.ids};
  if (!input.is_ids) {
    PENSTOCK_ASSIGN_OR_RETURN(prompt.ids, model.tokenizer->encode(input.text, special));
  }
  return prompt;
}

bool template_takes_parts(const ChatTemplate* chat_template) {
  if (chat_template == nullptr) return false;
  const auto part = [](const char* text) { return Json{{"type", "text"}, {"text", text}}; };
  ChatTemplateInput input;
  input.kwargs = Json::object();
  input.messages = Json::array({Json{{"role", "user"}, {"content", Json::array({part("one"), part("two")})}}});
  const auto rendered = chat_template->render(input);
  // A template that knows only strings fails, writes nothing, or writes the array itself with its keys.
  return rendered.ok() && rendered->find("one") != std::string::npos && rendered->find("two") != std::string::npos &&
         rendered->find("type") == std::string::npos;
}

}  // namespace penstock::openai
