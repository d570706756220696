// Answers in OpenAI's shapes: whole ones and the chunks of streams.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/request.h"
#include "text/tokenizer.h"

namespace penstock::openai {

struct Usage {
  std::int64_t prompt_tokens = 0, output_tokens = 0, cached_tokens = 0;
};

// One choice as it grows. A stream drops text and log probabilities once they are sent.
struct Choice {
  std::string text;
  std::vector<TokenLogprob> logprobs;
  std::vector<std::int64_t> text_offsets;  // of each logprobs entry, in characters
  std::int64_t next_offset = 0;
  std::int64_t tokens = 0;
  bool begun = false;  // its first chunk is written
  FinishReason finish = FinishReason::kNone;
  std::string stop_reason;
  std::int32_t prompt_tokens = 0, cached_tokens = 0;  // known at the end

  void add_logprob(TokenLogprob logprob, const Tokenizer& tokenizer, bool skip_special);
};

// The fields every chunk of an answer shares, and the answer's pieces. "data: …\n\n" each.
class Formatter {
 public:
  Formatter(bool chat, std::string id, std::int64_t created, const std::string& model, const Tokenizer& tokenizer);

  // A delta with the choice's text and log probabilities, which are then dropped.
  void append_delta(std::string& out, std::size_t index, Choice& choice, const std::string& usage) const;
  void append_role(std::string& out, std::size_t index, const std::string& usage) const;  // chat only
  void append_finish(std::string& out, std::size_t index, const Choice& choice, const std::string& usage) const;
  void append_usage(std::string& out, const Usage& usage) const;
  std::string response(const std::vector<Choice>& choices, const Usage& usage) const;

 private:
  void begin_chunk(std::string& out, std::size_t index) const;
  void append_logprobs(std::string& out, const Choice& choice) const;
  void append_chat_logprobs(std::string& out, const Choice& choice) const;
  void append_completion_logprobs(std::string& out, const Choice& choice) const;
  void append_end_fields(std::string& out, const Choice& choice) const;

  bool chat_;
  const Tokenizer& tokenizer_;
  std::string chunk_prefix_;     // data: {"id":…,"model":…,"choices":[
  std::string response_prefix_;  // the same of a whole answer
};

std::string usage_json(const Usage& usage);

}  // namespace penstock::openai
