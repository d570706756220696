#include "cli/input_lines.h"

#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <iostream>
#include <limits>
#include <map>
#include <utility>

#include "cli/console.h"

namespace penstock::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kShownErrors = 20;
constexpr std::int64_t kMaxInt32 = std::numeric_limits<std::int32_t>::max();

const char* kind(const Json& value) {
  return value.is_number_float() ? "a fraction" : value.type_name();
}

Expected<std::int64_t> integer(const Json& value, std::int64_t low, std::int64_t high) {
  const bool fits = value.is_number_integer() &&
                    !(value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(kMaxInt32));
  if (!fits || value.get<std::int64_t>() < low || value.get<std::int64_t>() > high) {
    return invalid_argument(fmt::format("must be a whole number from {} to {}, not {}", low, high,
                                        value.is_number() ? value.dump() : kind(value)));
  }
  return value.get<std::int64_t>();
}

Expected<float> real(const Json& value, double low, double high, bool low_included) {
  const double number = value.is_number() ? value.get<double>() : std::nan("");
  if (!(number >= low && number <= high) || (!low_included && number == low)) {
    return invalid_argument(fmt::format("must be a number {} {} to {}, not {}", low_included ? "from" : "above", low,
                                        high, value.is_number() ? value.dump() : kind(value)));
  }
  return static_cast<float>(number);
}

Expected<std::vector<std::int32_t>> ids(const Json& value, bool may_be_empty) {
  if (!value.is_array()) return invalid_argument(fmt::format("must be a list of token ids, not {}", kind(value)));
  if (value.empty() && !may_be_empty) return invalid_argument("must not be empty: at least one token is needed");
  std::vector<std::int32_t> result;
  result.reserve(value.size());
  for (std::size_t i = 0; i < value.size(); ++i) {
    auto id = integer(value[i], 0, kMaxInt32);
    if (!id.ok()) return id.status().with_context(fmt::format("[{}]", i));
    result.push_back(static_cast<std::int32_t>(*id));
  }
  return result;
}

Expected<std::vector<std::string>> strings(const Json& value) {
  std::vector<std::string> result;
  const auto add = [&](const Json& item) {
    if (!item.is_string() || item.get_ref<const std::string&>().empty()) return false;
    result.push_back(item.get<std::string>());
    return true;
  };
  bool fine = value.is_array() || value.is_string();
  if (value.is_array()) {
    for (const Json& item : value) fine = fine && add(item);
  } else {
    fine = fine && add(value);
  }
  if (!fine) return invalid_argument("must be a string or a list of strings, none of them empty");
  return result;
}

// Why `value` is no list of messages, or nothing.
Status check_messages(const Json& value) {
  if (!value.is_array() || value.empty()) return invalid_argument("must be a list of at least one message");
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (!value[i].is_object() || !value[i].contains("role") || !value[i]["role"].is_string()) {
      return invalid_argument(fmt::format("[{}] must be an object with a role and a content", i));
    }
  }
  return {};
}

// Reads one field into the line. Fields that are not known are kUnsupported.
class FieldReader {
 public:
  explicit FieldReader(InputLine& line) : line_(line) {}

  Status read(const std::string& key, const Json& value) {
    const auto reader = readers_.find(key);
    if (reader == readers_.end()) return unsupported("");
    return reader->second(value);
  }

 private:
  template <typename T>
  std::function<Status(const Json&)> number(std::optional<T>& target, std::int64_t low, std::int64_t high) {
    return [&target, low, high](const Json& value) -> Status {
      PENSTOCK_ASSIGN_OR_RETURN(const std::int64_t parsed, integer(value, low, high));
      target = static_cast<T>(parsed);
      return {};
    };
  }
  std::function<Status(const Json&)> fraction(std::optional<float>& target, double low, double high,
                                              bool low_included) {
    return [&target, low, high, low_included](const Json& value) -> Status {
      PENSTOCK_ASSIGN_OR_RETURN(target, real(value, low, high, low_included));
      return {};
    };
  }

  Status read_prompt(const Json& value) {
    if (!value.is_string()) return invalid_argument(fmt::format("must be a string, not {}", kind(value)));
    line_.prompt = value.get<std::string>();
    return {};
  }
  Status read_messages(const Json& value) {
    PENSTOCK_RETURN_IF_ERROR(check_messages(value));
    line_.messages = value;
    return {};
  }
  Status read_tools(const Json& value) {
    if (!value.is_array() && !value.is_null()) return invalid_argument("must be a list");
    line_.tools = value;
    return {};
  }
  Status read_kwargs(const Json& value) {
    if (!value.is_object()) return invalid_argument("must be an object");
    line_.chat_template_kwargs = value;
    return {};
  }
  Status read_seed(const Json& value) {
    if (!value.is_number_integer() || (!value.is_number_unsigned() && value.get<std::int64_t>() < 0)) {
      return invalid_argument("must be a whole number, 0 or more");
    }
    line_.sampling.seed = value.get<std::uint64_t>();
    return {};
  }
  Status read_ignore_eos(const Json& value) {
    if (!value.is_boolean()) return invalid_argument("must be true or false");
    line_.ignore_eos = value.get<bool>();
    return {};
  }

  InputLine& line_;
  const std::map<std::string, std::function<Status(const Json&)>> readers_{
      {"prompt", [this](const Json& value) { return read_prompt(value); }},
      {"messages", [this](const Json& value) { return read_messages(value); }},
      {"token_ids",
       [this](const Json& value) -> Status {
         PENSTOCK_ASSIGN_OR_RETURN(line_.token_ids, ids(value, false));
         return {};
       }},
      {"tools", [this](const Json& value) { return read_tools(value); }},
      {"chat_template_kwargs", [this](const Json& value) { return read_kwargs(value); }},
      {"max_tokens", number(line_.max_tokens, 1, kMaxInt32)},
      {"logprobs", number(line_.logprobs, 0, 20)},
      {"temperature", fraction(line_.sampling.temperature, 0, 100, true)},
      {"top_k", number(line_.sampling.top_k, -1, kMaxInt32)},
      {"top_p", fraction(line_.sampling.top_p, 0, 1, false)},
      {"min_p", fraction(line_.sampling.min_p, 0, 1, true)},
      {"repetition_penalty", fraction(line_.sampling.repetition_penalty, 0, 10, false)},
      {"presence_penalty", fraction(line_.sampling.presence_penalty, -2, 2, true)},
      {"frequency_penalty", fraction(line_.sampling.frequency_penalty, -2, 2, true)},
      {"seed", [this](const Json& value) { return read_seed(value); }},
      {"ignore_eos", [this](const Json& value) { return read_ignore_eos(value); }},
      {"stop",
       [this](const Json& value) -> Status {
         PENSTOCK_ASSIGN_OR_RETURN(line_.stop, strings(value));
         return {};
       }},
      {"stop_token_ids",
       [this](const Json& value) -> Status {
         PENSTOCK_ASSIGN_OR_RETURN(line_.stop_token_ids, ids(value, true));
         return {};
       }},
  };
};

// Copying and printing nest as deep as the value does, so that the depth must have an end.
constexpr int kMaxDepth = 64;

Expected<Json> parse_json(const std::string& text) {
  bool too_deep = false;
  const auto watch = [&](int depth, Json::parse_event_t /*event*/, Json& /*parsed*/) {
    too_deep = too_deep || depth > kMaxDepth;
    return !too_deep;
  };
  try {
    Json value = Json::parse(text, watch);
    if (too_deep) return invalid_argument(fmt::format("nested deeper than {} levels", kMaxDepth));
    return value;
  } catch (const Json::exception& exception) {
    // nlohmann puts its own error number in brackets first.
    const std::string what = exception.what();
    const std::size_t bracket = what.find("] ");
    return invalid_argument("not JSON: " + (bracket == std::string::npos ? what : what.substr(bracket + 2)));
  }
}

// Every error of the line goes to `file.errors`; true when there was none.
bool read_line(const std::string& text, InputLine& line, InputFile& file) {
  const std::size_t errors_before = file.errors.size();
  const auto error = [&](const std::string& message) { file.errors.push_back(line.where + ": " + message); };
  Expected<Json> parsed = parse_json(text);
  if (!parsed.ok()) {
    error(parsed.status().message());
    return false;
  }
  const Json& object = *parsed;
  if (!object.is_object()) {
    error(fmt::format("must be a JSON object, not {}", kind(object)));
    return false;
  }
  FieldReader reader(line);
  for (const auto& [key, value] : object.items()) {
    const Status status = reader.read(key, value);
    if (status.code() == StatusCode::kUnsupported) {
      file.unknown_fields.insert(key);
    } else if (!status.ok()) {
      error(key + " " + status.message());
    }
  }
  const int given = static_cast<int>(object.contains("prompt")) + static_cast<int>(object.contains("messages")) +
                    static_cast<int>(object.contains("token_ids"));
  if (given != 1) {
    error(given == 0 ? "needs prompt, messages or token_ids" : "has more than one of prompt, messages and token_ids");
  }
  if (!object.contains("messages") && (object.contains("tools") || object.contains("chat_template_kwargs"))) {
    error("tools and chat_template_kwargs go with messages");
  }
  return file.errors.size() == errors_before;
}

}  // namespace

InputFile read_input(std::istream& stream, const std::string& label) {
  InputFile file;
  std::string text;
  for (std::int64_t number = 1; std::getline(stream, text); ++number) {
    InputLine line;
    line.where = fmt::format("{}:{}", label, number);
    if (read_line(text, line, file)) file.lines.push_back(std::move(line));
  }
  if (file.lines.empty() && file.errors.empty()) file.errors.push_back(label + ": has no lines");
  return file;
}

Expected<InputFile> read_input_file(const std::string& path) {
  if (path == "-") return read_input(std::cin, "standard input");
  std::ifstream stream(path, std::ios::binary);
  // Opening a folder succeeds; reading from it does not.
  if (!stream || (stream.peek(), stream.bad())) return not_found(fmt::format("cannot read {}", path));
  stream.clear();
  return read_input(stream, path);
}

Expected<std::vector<std::int32_t>> encode_line(const InputLine& line, const Tokenizer* tokenizer,
                                                const ChatTemplate* chat_template, std::int32_t vocab_size) {
  std::vector<std::int32_t> tokens;
  if (line.token_ids.has_value()) {
    tokens = *line.token_ids;
  } else if (tokenizer == nullptr) {
    return not_found("the model has no tokenizer.json: give token_ids, or --tokenizer");
  } else if (line.is_chat()) {
    if (chat_template == nullptr) return not_found("the model has no chat template: give prompt or token_ids");
    ChatTemplateInput input;
    input.messages = line.messages;
    input.tools = line.tools;
    input.kwargs = line.chat_template_kwargs.is_null() ? Json::object() : line.chat_template_kwargs;
    PENSTOCK_ASSIGN_OR_RETURN(tokens, encode_chat(*chat_template, *tokenizer, input));
  } else {
    PENSTOCK_ASSIGN_OR_RETURN(tokens, tokenizer->encode(*line.prompt, SpecialTokens::kParse));
  }
  if (tokens.empty()) return invalid_argument("the prompt is empty: at least one token is needed");
  for (const std::int32_t id : tokens) {
    if (id >= vocab_size) {
      return invalid_argument(fmt::format("token id {} is outside the vocabulary, 0 to {}", id, vocab_size - 1));
    }
  }
  return tokens;
}

int report_input_errors(const std::vector<std::string>& errors) {
  for (std::size_t i = 0; i < errors.size() && i < kShownErrors; ++i) print_error(errors[i]);
  if (errors.size() > kShownErrors) print_error(fmt::format("and {} more", errors.size() - kShownErrors));
  return kExitUsage;
}

Expected<nlohmann::ordered_json> parse_kwargs(const std::string& text) {
  Expected<Json> object = parse_json(text);
  if (!object.ok() || !object->is_object()) {
    return invalid_argument(R"(must be a JSON object, as in {"enable_thinking": false})");
  }
  return object;
}

}  // namespace penstock::cli
