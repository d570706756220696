// The input of `generate` and `score`: a file of JSON objects, one a line. All lines are checked before any runs.
#pragma once

#include <cstdint>
#include <istream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cli/options.h"
#include "penstock/request.h"
#include "penstock/status.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace penstock::cli {

struct InputLine {
  std::string where;  // "FILE:LINE", for messages
  // One of the three.
  std::optional<std::string> prompt;
  nlohmann::ordered_json messages;  // null when not given
  std::optional<std::vector<std::int32_t>> token_ids;

  nlohmann::ordered_json tools;                 // with messages
  nlohmann::ordered_json chat_template_kwargs;  // with messages

  SamplingArguments sampling;  // what the line fixes
  std::optional<std::int32_t> max_tokens;
  std::optional<std::int32_t> logprobs;
  std::optional<bool> ignore_eos;
  std::optional<std::vector<std::string>> stop;
  std::optional<std::vector<std::int32_t>> stop_token_ids;

  bool is_chat() const { return !messages.is_null(); }
};

struct InputFile {
  std::vector<InputLine> lines;
  std::vector<std::string> errors;       // "FILE:LINE: what is wrong"
  std::set<std::string> unknown_fields;  // ignored, and said so
};

// Blank lines are errors too: line numbers name the results. `label` is the file's name in messages.
InputFile read_input(std::istream& stream, const std::string& label);
// Opens `path`, or standard input for "-".
Expected<InputFile> read_input_file(const std::string& path);

// The token ids of a line. A prompt may contain special tokens; a user's message may not. kInvalidArgument and the rest
// of what the tokenizer and the template say come without `where`.
Expected<std::vector<std::int32_t>> encode_line(const InputLine& line, const Tokenizer* tokenizer,
                                                const ChatTemplate* chat_template, std::int32_t vocab_size);

// Prints up to twenty of `errors`, and how many more there are; kExitUsage.
int report_input_errors(const std::vector<std::string>& errors);

// --chat-template-kwargs: an object.
Expected<nlohmann::ordered_json> parse_kwargs(const std::string& text);

}  // namespace penstock::cli
