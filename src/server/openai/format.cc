#include "server/openai/format.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "server/openai/json.h"

namespace penstock::openai {
namespace {

constexpr double kMinLogprob = -9999;  // JSON has no infinity; this is what clients know

void append_logprob_value(std::string& out, float logprob) {
  append_json_number(out, std::isfinite(logprob) ? static_cast<double>(logprob) : kMinLogprob);
}

void append_token(std::string& out, const Tokenizer& tokenizer, std::int32_t token, float logprob) {
  const std::string_view bytes = tokenizer.token_bytes(token);
  out += R"({"token":)";
  append_json_string(out, bytes);
  out += R"(,"logprob":)";
  append_logprob_value(out, logprob);
  out += R"(,"bytes":[)";
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i > 0) out += ',';
    out += std::to_string(static_cast<unsigned char>(bytes[i]));
  }
  out += ']';
}

const char* finish_word(FinishReason finish) {
  return finish == FinishReason::kLength ? "length" : "stop";
}

}  // namespace

void Choice::add_logprob(TokenLogprob logprob, const Tokenizer& tokenizer, bool skip_special) {
  text_offsets.push_back(next_offset);
  if (!skip_special || !tokenizer.is_special(logprob.token)) {
    // Characters begin at bytes that continue none, so parts of characters add up to the right count.
    for (const char c : tokenizer.token_bytes(logprob.token)) {
      if ((static_cast<unsigned char>(c) & 0xC0U) != 0x80U) ++next_offset;
    }
  }
  logprobs.push_back(std::move(logprob));
}

std::string usage_json(const Usage& usage) {
  return R"({"prompt_tokens":)" + std::to_string(usage.prompt_tokens) + R"(,"completion_tokens":)" +
         std::to_string(usage.output_tokens) + R"(,"total_tokens":)" +
         std::to_string(usage.prompt_tokens + usage.output_tokens) + R"(,"prompt_tokens_details":{"cached_tokens":)" +
         std::to_string(usage.cached_tokens) + "}}";
}

Formatter::Formatter(bool chat, std::string id, std::int64_t created, const std::string& model,
                     const Tokenizer& tokenizer)
    : chat_(chat), tokenizer_(tokenizer) {
  std::string common = R"(,"created":)" + std::to_string(created) + R"(,"model":)";
  append_json_string(common, model);
  common += R"(,"choices":[)";
  const std::string start = R"({"id":")" + id + R"(","object":)";
  chunk_prefix_ = "data: " + start + (chat ? R"("chat.completion.chunk")" : R"("text_completion")") + common;
  response_prefix_ = start + (chat ? R"("chat.completion")" : R"("text_completion")") + common;
}

void Formatter::begin_chunk(std::string& out, std::size_t index) const {
  out += chunk_prefix_;
  out += R"({"index":)";
  out += std::to_string(index);
}

void Formatter::append_role(std::string& out, std::size_t index, const std::string& usage) const {
  begin_chunk(out, index);
  out += R"(,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}])";
  out += usage;
  out += "}\n\n";
}

void Formatter::append_delta(std::string& out, std::size_t index, Choice& choice, const std::string& usage) const {
  begin_chunk(out, index);
  out += chat_ ? R"(,"delta":{"content":)" : R"(,"text":)";
  append_json_string(out, choice.text);
  if (chat_) out += '}';
  append_logprobs(out, choice);
  out += R"(,"finish_reason":null}])";
  out += usage;
  out += "}\n\n";
  choice.text.clear();
  choice.logprobs.clear();
  choice.text_offsets.clear();
}

void Formatter::append_end_fields(std::string& out, const Choice& choice) const {
  out += R"(,"finish_reason":")";
  out += finish_word(choice.finish);
  out += R"(","stop_reason":)";
  if (choice.stop_reason.empty()) {
    out += "null";
  } else {
    append_json_string(out, choice.stop_reason);
  }
  out += '}';
}

void Formatter::append_finish(std::string& out, std::size_t index, const Choice& choice,
                              const std::string& usage) const {
  begin_chunk(out, index);
  out += chat_ ? R"(,"delta":{},"logprobs":null)" : R"(,"text":"","logprobs":null)";
  append_end_fields(out, choice);
  out += ']';
  out += usage;
  out += "}\n\n";
}

void Formatter::append_usage(std::string& out, const Usage& usage) const {
  out += chunk_prefix_;
  out += R"(],"usage":)" + usage_json(usage) + "}\n\n";
}

std::string Formatter::response(const std::vector<Choice>& choices, const Usage& usage) const {
  std::string out = response_prefix_;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) out += ',';
    out += R"({"index":)" + std::to_string(i);
    out += chat_ ? R"(,"message":{"role":"assistant","content":)" : R"(,"text":)";
    append_json_string(out, choices[i].text);
    if (chat_) out += R"(,"refusal":null})";
    append_logprobs(out, choices[i]);
    append_end_fields(out, choices[i]);
  }
  out += R"(],"usage":)" + usage_json(usage) + '}';
  return out;
}

void Formatter::append_logprobs(std::string& out, const Choice& choice) const {
  out += R"(,"logprobs":)";
  if (choice.logprobs.empty()) {
    out += "null";
  } else if (chat_) {
    append_chat_logprobs(out, choice);
  } else {
    append_completion_logprobs(out, choice);
  }
}

void Formatter::append_chat_logprobs(std::string& out, const Choice& choice) const {
  out += R"({"content":[)";
  bool first = true;
  for (const TokenLogprob& entry : choice.logprobs) {
    if (!std::exchange(first, false)) out += ',';
    append_token(out, tokenizer_, entry.token, entry.logprob);
    out += R"(,"top_logprobs":[)";
    for (std::size_t i = 0; i < entry.top.size(); ++i) {
      if (i > 0) out += ',';
      append_token(out, tokenizer_, entry.top[i].first, entry.top[i].second);
      out += '}';
    }
    out += "]}";
  }
  out += R"(],"refusal":null})";
}

void Formatter::append_completion_logprobs(std::string& out, const Choice& choice) const {
  std::string tokens;
  std::string values;
  std::string tops;
  std::string offsets;
  for (std::size_t i = 0; i < choice.logprobs.size(); ++i) {
    const TokenLogprob& entry = choice.logprobs[i];
    for (std::string* part : {&tokens, &values, &tops, &offsets}) *part += i > 0 ? "," : "";
    append_json_string(tokens, tokenizer_.token_bytes(entry.token));
    append_logprob_value(values, entry.logprob);
    offsets += std::to_string(choice.text_offsets[i]);
    // The best tokens and the chosen one. Two tokens may look alike (parts of characters): the better one stays.
    auto candidates = entry.top;
    candidates.emplace_back(entry.token, entry.logprob);
    std::vector<std::string> seen;
    for (const auto& [id, logprob] : candidates) {
      std::string key;
      append_json_string(key, tokenizer_.token_bytes(id));
      if (std::find(seen.begin(), seen.end(), key) != seen.end()) continue;
      tops += (seen.empty() ? "{" : ",") + key + ':';
      append_logprob_value(tops, logprob);
      seen.push_back(std::move(key));
    }
    tops += '}';
  }
  out += R"({"tokens":[)" + tokens + R"(],"token_logprobs":[)" + values + R"(],"top_logprobs":[)" + tops +
         R"(],"text_offset":[)" + offsets + "]}";
}

}  // namespace penstock::openai
