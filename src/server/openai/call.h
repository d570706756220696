// A chat or completion request, read and checked: what the rest of the server works with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "penstock/request.h"
#include "server/openai/json.h"
#include "server/server.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace penstock::openai {

// What fields are checked against.
struct CallContext {
  const ServedModel& model;
  const ServerOptions& options;
  bool template_takes_parts = false;  // content arrays go to the template as they are; else joined to one string
};

struct PromptInput {
  std::string text;
  std::vector<std::int32_t> ids;  // used instead of the text when is_ids
  bool is_ids = false;
};

// A chat's messages and how to make a prompt of them.
struct ChatInput {
  ChatTemplateInput input;
  bool continue_final_message = false;  // the prompt ends inside the last message
};

struct Call {
  bool chat = false;
  std::int32_t n = 1;  // choices for each prompt; choice i has seed base.sampling.seed + i
  bool stream = false, include_usage = false, continuous_usage = false;
  bool echo = false;
  SpecialTokens special = SpecialTokens::kAsText;  // in text a user wrote
  Request base;                                    // all but the prompt
  std::vector<PromptInput> prompts;                // completions
  ChatInput chat_input;                            // chat
};

std::optional<ApiError> read_chat_call(const Json& body, const CallContext& context, Call* call);
std::optional<ApiError> read_completion_call(const Json& body, const CallContext& context, Call* call);

// Parts of these, for each other and for /tokenize.
void read_model_name(Reader& reader, const CallContext& context);
void read_common_fields(Reader& reader, const CallContext& context, Call* call);
void read_chat_input(Reader& reader, const CallContext& context, ChatInput* chat);
void read_prompts(Reader& reader, const CallContext& context, std::vector<PromptInput>* prompts);
std::optional<std::vector<std::int32_t>> read_token_ids(Reader& reader, const Json& array, const std::string& path,
                                                        std::int32_t vocab_size);
void log_ignored_fields(const Reader& reader);

}  // namespace penstock::openai
