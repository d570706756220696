// The checkpoint's own chat template, a Jinja program, run with limits. See docs/templates.md.
#pragma once

#include <cstdint>
#include <ctime>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "penstock/status.h"

namespace penstock {

struct TemplateLimits {
  std::int64_t max_steps = 10'000'000;  // statements and expressions evaluated
  std::int64_t max_output_bytes = 64LL << 20;
  std::int32_t max_depth = 200;  // nesting, calls
};

struct ChatTemplateInput {
  nlohmann::ordered_json messages;    // array of {role, content, …}, at least one
  nlohmann::ordered_json tools;       // array or null
  nlohmann::ordered_json kwargs;      // object: enable_thinking and other variables
  bool add_generation_prompt = true;  // a boolean of that name in kwargs outranks it
  std::optional<std::tm> now;         // what strftime_now shows; the local time when absent
};

// A template's text in pieces, so that special tokens written by a user stay text: `from_user` pieces come out of
// string values (and keys) of the messages, tools and kwargs, through whatever the template did to them; special
// strings in them are not parsed (Tokenizer::encode_with_plain_ranges).
struct RenderedPiece {
  std::string text;
  bool from_user = false;
};

class ChatTemplate {
 public:
  // chat_template.jinja, or tokenizer_config.json's chat_template (string, or the list's "default"), or
  // chat_template.json: the first there is, as transformers looks for them. Special tokens are tokenizer_config.json's.
  // kNotFound when the checkpoint has no template; kInvalidArgument with line and column for a syntax error.
  static Expected<std::unique_ptr<ChatTemplate>> load(const std::filesystem::path& dir);
  // `special_tokens`: object of eos_token and the like, visible to the template as variables.
  static Expected<std::unique_ptr<ChatTemplate>> parse(std::string_view source, nlohmann::ordered_json special_tokens);
  virtual ~ChatTemplate() = default;

  // Thread-safe. kInvalidArgument: the template raised (its own words are the message), used something undefined, or
  // hit a limit.
  virtual Expected<std::string> render(const ChatTemplateInput& input, const TemplateLimits& limits = {}) const = 0;
  virtual Expected<std::vector<RenderedPiece>> render_pieces(const ChatTemplateInput& input,
                                                             const TemplateLimits& limits = {}) const = 0;
};

// Pieces as one text and, in it, the byte ranges [begin, end) that users wrote: what
// Tokenizer::encode_with_plain_ranges takes.
struct JoinedPieces {
  std::string text;
  std::vector<std::pair<std::size_t, std::size_t>> user;
};
JoinedPieces join(const std::vector<RenderedPiece>& pieces);

class Tokenizer;
// Renders and tokenises: what the server does with a chat request. Special tokens in `from_user` pieces stay text, and
// the ids are those of the whole text when the user wrote none.
Expected<std::vector<std::int32_t>> encode_chat(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                                                const ChatTemplateInput& input);

}  // namespace penstock
