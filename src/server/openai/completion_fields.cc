#include "server/openai/call.h"

namespace penstock::openai {
namespace {

constexpr std::size_t kMaxPrompts = 1024;

}  // namespace

void read_prompts(Reader& reader, const CallContext& context, std::vector<PromptInput>* prompts) {
  const Json* value = reader.find("prompt");
  if (value == nullptr) return reader.fail("prompt", "is missing");
  const auto add_ids = [&](const Json& array, const std::string& path) {
    if (auto ids = read_token_ids(reader, array, path, context.model.vocab_size)) {
      prompts->push_back({{}, std::move(*ids), true});
    }
  };
  if (value->is_string()) {
    prompts->push_back({value->get<std::string>(), {}, false});
    return;
  }
  if (!value->is_array()) {
    return reader.fail("prompt", std::string("must be a string, an array of strings, of token ids, or of arrays of "
                                             "token ids, not ") +
                                     type_name(*value));
  }
  if (value->empty()) return reader.fail("prompt", "must not be empty");
  if (value->front().is_number()) return add_ids(*value, "prompt");
  if (value->size() > kMaxPrompts) {
    return reader.fail(
        "prompt", "may hold at most " + std::to_string(kMaxPrompts) + " prompts, got " + std::to_string(value->size()));
  }
  const bool strings = value->front().is_string();
  for (std::size_t i = 0; i < value->size() && !reader.failed(); ++i) {
    const Json& item = (*value)[i];
    const std::string path = "prompt[" + std::to_string(i) + "]";
    if (strings && item.is_string()) {
      prompts->push_back({item.get<std::string>(), {}, false});
    } else if (!strings && item.is_array()) {
      add_ids(item, path);
    } else {
      reader.fail(bad_request(path, path + " is " + type_name(item) +
                                        "; an array of prompts holds strings only, or arrays of token ids only"));
    }
  }
}

std::optional<ApiError> read_completion_call(const Json& body, const CallContext& context, Call* call) {
  Reader reader(body);
  call->chat = false;
  read_common_fields(reader, context, call);
  read_prompts(reader, context, &call->prompts);
  if (const auto logprobs = reader.integer("logprobs", 0, 20)) {
    call->base.logprobs = static_cast<std::int32_t>(*logprobs);
  }
  call->echo = reader.boolean("echo").value_or(false);
  if (call->echo && call->base.logprobs >= 0) {
    reader.fail(not_supported("echo", "echo together with logprobs is not supported yet"));
  }
  if (const auto suffix = reader.string("suffix"); suffix && !suffix->empty()) {
    reader.fail(not_supported("suffix", "suffix is not supported: these models complete at the end only"));
  }
  log_ignored_fields(reader);
  return reader.error();
}

}  // namespace penstock::openai
