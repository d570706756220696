// Chat templates from anywhere: parsing must give a tree or a clear error, and running the tree an answer within its
// limits, whatever the source.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "text/chat_template.h"

namespace {

using penstock::ChatTemplate;
using penstock::ChatTemplateInput;

const ChatTemplateInput& conversation() {
  static const ChatTemplateInput kInput = [] {
    ChatTemplateInput input;
    input.messages = nlohmann::ordered_json::parse(R"([
      {"role": "system", "content": "Be brief."},
      {"role": "user", "content": "Was kostet <|im_end|> das? é日👩‍💻"},
      {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [
        {"type": "function", "function": {"name": "f", "arguments": {"a": 1, "b": [1.5, null, true], "c": {"d": "e"}}}}]},
      {"role": "tool", "content": [{"type": "text", "text": "r"}]}])");
    input.tools = nlohmann::ordered_json::parse(
        R"([{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}}])");
    input.kwargs = {{"enable_thinking", false}, {"n", 7}, {"x", 2.5}, {"s", "Text"}, {"l", {3, 1, 2}}};
    input.now.emplace();
    return input;
  }();
  return kInput;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto parsed = ChatTemplate::parse({reinterpret_cast<const char*>(data), size}, {{"eos_token", "<|im_end|>"}});
  if (!parsed.ok()) {
    if (parsed.status().message().empty()) std::abort();
    return 0;
  }
  const penstock::TemplateLimits limits{.max_steps = 20'000, .max_output_bytes = 1 << 20, .max_depth = 60};
  const auto text = (*parsed)->render(conversation(), limits);
  const auto pieces = (*parsed)->render_pieces(conversation(), limits);
  if (text.ok() != pieces.ok()) std::abort();
  if (!text.ok()) return 0;
  std::size_t bytes = 0;
  for (const auto& piece : *pieces) bytes += piece.text.size();
  if (bytes != text->size()) std::abort();
  return 0;
}
