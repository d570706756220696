// From what a client wrote to token ids.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/openai/call.h"

namespace penstock::openai {

struct EncodedPrompt {
  std::string text;
  std::vector<std::int32_t> ids;
};

// The chat template's text and its ids. Special strings in what users wrote stay text unless `special` is kParse.
Expected<EncodedPrompt> encode_chat_prompt(const ServedModel& model, const ChatInput& chat, SpecialTokens special);

// A text prompt's ids. `text` stays as the client wrote it.
Expected<EncodedPrompt> encode_text_prompt(const ServedModel& model, const PromptInput& prompt, SpecialTokens special);

// Whether the template writes the text parts of a content array, tried once with an array of two.
bool template_takes_parts(const ChatTemplate* chat_template);

}  // namespace penstock::openai
