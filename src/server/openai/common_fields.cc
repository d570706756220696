// Fields that chat and completion requests share: model, sampling, stops, streaming.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <random>

#include <spdlog/spdlog.h>

#include "checkpoint/model_config.h"
#include "server/openai/call.h"

namespace penstock::openai {
namespace {

constexpr std::size_t kMaxStops = 16;
constexpr std::size_t kMaxStopBytes = 4096;
constexpr std::size_t kMaxStopTokens = 256;
constexpr std::size_t kMaxBiases = 4096;
constexpr std::size_t kMaxSaltBytes = 512;

// Fields that would change the answer and are not done here: refused rather than ignored.
constexpr const char* kNotSupported[] = {
    "allowed_token_ids",      "bad_words",       "ebnf",        "function_call",      "functions",
    "guided_choice",          "guided_grammar",  "guided_json", "guided_regex",       "json_schema",
    "logits_processors",      "lora_path",       "min_tokens",  "prompt_logprobs",    "regex",
    "return_token_ids",       "structural_tag",  "stop_regex",  "structured_outputs", "return_tokens_as_token_ids",
    "truncate_prompt_tokens", "use_beam_search",
};

bool means_nothing(const Json& value) {
  return (value.is_boolean() && !value.get<bool>()) || (value.is_number() && value.get<double>() == 0) ||
         (value.is_string() && value.get_ref<const std::string&>().empty()) || (value.is_structured() && value.empty());
}

std::uint64_t random_seed() {
  thread_local std::mt19937_64 generator{[] {
    std::random_device device;
    return (static_cast<std::uint64_t>(device()) << 32) | device();
  }()};
  return generator();
}

void set_model_defaults(const ServedModel& model, SamplingParams* sampling) {
  if (!model.use_model_defaults || model.generation_config == nullptr) return;
  const GenerationConfig& defaults = *model.generation_config;
  sampling->temperature = defaults.temperature.value_or(sampling->temperature);
  sampling->top_k = defaults.top_k.value_or(sampling->top_k);
  sampling->top_p = defaults.top_p.value_or(sampling->top_p);
  sampling->min_p = defaults.min_p.value_or(sampling->min_p);
  sampling->repetition_penalty = defaults.repetition_penalty.value_or(sampling->repetition_penalty);
  sampling->presence_penalty = defaults.presence_penalty.value_or(sampling->presence_penalty);
  sampling->frequency_penalty = defaults.frequency_penalty.value_or(sampling->frequency_penalty);
  if (defaults.do_sample.has_value() && !*defaults.do_sample) sampling->temperature = 0;
}

void read_seed(Reader& reader, SamplingParams* sampling) {
  const Json* value = reader.find("seed");
  if (value == nullptr) {
    sampling->seed = random_seed();
    return;
  }
  if (value->is_number_unsigned()) {
    sampling->seed = value->get<std::uint64_t>();
  } else if (const auto seed = as_integer(*value, INT64_MIN, INT64_MAX)) {
    sampling->seed = static_cast<std::uint64_t>(*seed);
  } else {
    reader.fail("seed", std::string("must be an integer of 64 bits, got ") +
                            (value->is_number() ? value->dump() : type_name(*value)));
  }
}

void read_logit_bias(Reader& reader, std::int32_t vocab_size, SamplingParams* sampling) {
  const Json* value = reader.find("logit_bias");
  if (value == nullptr) return;
  if (!value->is_object()) {
    return reader.fail("logit_bias",
                       std::string("must be an object of token ids and biases, not ") + type_name(*value));
  }
  if (value->size() > kMaxBiases) {
    return reader.fail("logit_bias", "may have at most " + std::to_string(kMaxBiases) + " entries");
  }
  for (const auto& [key, bias] : value->items()) {
    std::int32_t id = -1;
    const auto result = std::from_chars(key.data(), key.data() + key.size(), id);
    if (result.ec != std::errc() || result.ptr != key.data() + key.size() || id < 0 || id >= vocab_size) {
      return reader.fail("logit_bias", "has the key '" + key.substr(0, 40) +
                                           "', which is not a token id between 0 and " +
                                           std::to_string(vocab_size - 1));
    }
    const double amount = bias.is_number() ? bias.get<double>() : std::nan("");
    if (!(amount >= -100 && amount <= 100)) {
      return reader.fail("logit_bias", "of token " + key + " must be a number between -100 and 100, got " +
                                           (bias.is_number() ? bias.dump() : type_name(bias)));
    }
    sampling->logit_bias.emplace_back(id, static_cast<float>(amount));
  }
}

void read_sampling(Reader& reader, const ServedModel& model, SamplingParams* sampling) {
  set_model_defaults(model, sampling);
  if (const auto value = reader.number("temperature", 0, 100)) sampling->temperature = *value;
  if (const auto value = reader.integer("top_k", -1, INT32_MAX)) sampling->top_k = static_cast<std::int32_t>(*value);
  if (const auto value = reader.number("top_p", 0, 1, true)) sampling->top_p = *value;
  if (const auto value = reader.number("min_p", 0, 1)) sampling->min_p = *value;
  if (const auto value = reader.number("repetition_penalty", 0, 10, true)) sampling->repetition_penalty = *value;
  if (const auto value = reader.number("presence_penalty", -2, 2)) sampling->presence_penalty = *value;
  if (const auto value = reader.number("frequency_penalty", -2, 2)) sampling->frequency_penalty = *value;
  read_seed(reader, sampling);
  read_logit_bias(reader, model.vocab_size, sampling);
}

void read_stops(Reader& reader, std::int32_t vocab_size, Request* request) {
  if (const Json* value = reader.find("stop")) {
    const Json list = value->is_string() ? Json::array({*value}) : *value;
    if (!list.is_array()) {
      return reader.fail("stop", std::string("must be a string or an array of strings, not ") + type_name(*value));
    }
    if (list.size() > kMaxStops) {
      return reader.fail(
          "stop", "may have at most " + std::to_string(kMaxStops) + " strings, got " + std::to_string(list.size()));
    }
    for (const Json& stop : list) {
      if (!stop.is_string()) return reader.fail("stop", std::string("must hold strings, not ") + type_name(stop));
      auto text = stop.get<std::string>();
      if (text.empty()) return reader.fail("stop", "must not hold an empty string: it would end every answer at once");
      if (text.size() > kMaxStopBytes) {
        return reader.fail("stop", "has a string longer than " + std::to_string(kMaxStopBytes) + " bytes");
      }
      request->stop.push_back(std::move(text));
    }
  }
  if (const Json* value = reader.find("stop_token_ids")) {
    if (!value->is_array() || value->size() > kMaxStopTokens) {
      return reader.fail("stop_token_ids",
                         "must be an array of at most " + std::to_string(kMaxStopTokens) + " token ids");
    }
    if (auto ids = read_token_ids(reader, *value, reader.path("stop_token_ids"), vocab_size)) {
      request->stop_token_ids = std::move(*ids);
    }
  }
}

// An empty salt is refused: a client that wants its cache kept apart, and lost its salt, must not share it with
// everyone.
void read_cache_salt(Reader& reader, Request* request) {
  auto salt = reader.string("cache_salt");
  if (!salt) return;
  if (salt->empty()) return reader.fail("cache_salt", "must not be empty; leave it out to share cached prefixes");
  if (salt->size() > kMaxSaltBytes) {
    return reader.fail("cache_salt", "may have at most " + std::to_string(kMaxSaltBytes) + " bytes, got " +
                                         std::to_string(salt->size()));
  }
  request->cache_salt = *std::move(salt);
}

void read_streaming(Reader& reader, Call* call) {
  call->stream = reader.boolean("stream").value_or(false);
  const Json* value = reader.find("stream_options");
  if (value == nullptr) return;
  if (!value->is_object()) {
    return reader.fail("stream_options", std::string("must be an object, not ") + type_name(*value));
  }
  if (!call->stream) return reader.fail("stream_options", "is only allowed together with stream: true");
  Reader options(*value, "stream_options.");
  call->include_usage = options.boolean("include_usage").value_or(false);
  call->continuous_usage = options.boolean("continuous_usage_stats").value_or(false);
  if (options.failed()) reader.fail(*options.error());
}

}  // namespace

std::optional<std::vector<std::int32_t>> read_token_ids(Reader& reader, const Json& array, const std::string& path,
                                                        std::int32_t vocab_size) {
  std::vector<std::int32_t> ids;
  ids.reserve(array.size());
  for (std::size_t i = 0; i < array.size(); ++i) {
    const auto id = as_integer(array[i], 0, vocab_size - 1);
    if (!id) {
      const std::string where = path + '[' + std::to_string(i) + ']';
      reader.fail(bad_request(where, where + " must be a token id between 0 and " + std::to_string(vocab_size - 1) +
                                         ", got " + (array[i].is_number() ? array[i].dump() : type_name(array[i]))));
      return std::nullopt;
    }
    ids.push_back(static_cast<std::int32_t>(*id));
  }
  return ids;
}

void read_model_name(Reader& reader, const CallContext& context) {
  const auto name = reader.string("model");
  if (!name || name->empty()) return;
  const auto& served = context.options.served_model_names;
  if (std::find(served.begin(), served.end(), *name) != served.end()) return;
  std::string all;
  for (const std::string& known : served) {
    if (!all.empty()) all += ", ";
    all += known;
  }
  reader.fail(
      {404, "The model '" + *name + "' does not exist here. Served: " + all + ".", "model", "model_not_found", 0});
}

void read_common_fields(Reader& reader, const CallContext& context, Call* call) {
  read_model_name(reader, context);
  for (const char* name : kNotSupported) {
    const Json* value = reader.find(name);
    if (value != nullptr && !means_nothing(*value)) {
      reader.fail(not_supported(name, std::string(name) + " is not supported yet; leave it out"));
    }
  }
  if (const Json* format = reader.find("response_format")) {
    const auto type = format->is_object() ? format->value("type", Json()) : Json();
    if (!type.is_string()) {
      reader.fail("response_format", "must be an object with a type");
    } else if (type != "text") {
      reader.fail(not_supported("response_format", "response_format of type '" + type.get<std::string>() +
                                                       "' is not supported yet; only 'text' is"));
    }
  }
  Request& request = call->base;
  read_sampling(reader, context.model, &request.sampling);
  read_stops(reader, context.model.vocab_size, &request);
  read_streaming(reader, call);
  const auto tokens = reader.integer("max_tokens", 1, INT32_MAX);
  const auto completion_tokens = reader.integer("max_completion_tokens", 1, INT32_MAX);
  request.max_tokens = static_cast<std::int32_t>(completion_tokens ? *completion_tokens : tokens.value_or(-1));
  call->n = static_cast<std::int32_t>(reader.integer("n", 1, context.options.max_n).value_or(1));
  if (const auto best_of = reader.integer("best_of", 1, INT32_MAX); best_of && *best_of != call->n) {
    reader.fail(not_supported("best_of", "best_of other than n is not supported; leave it out"));
  }
  request.ignore_eos = reader.boolean("ignore_eos").value_or(false);
  request.skip_special_tokens = reader.boolean("skip_special_tokens").value_or(true);
  request.include_stop_in_output = reader.boolean("include_stop_str_in_output").value_or(false);
  request.priority = static_cast<std::int32_t>(reader.integer("priority", INT32_MIN, INT32_MAX).value_or(0));
  read_cache_salt(reader, &request);
  reader.boolean("add_special_tokens");  // no supported tokenizer adds any
  if (reader.boolean("parse_special_tokens").value_or(false)) call->special = SpecialTokens::kParse;
}

void log_ignored_fields(const Reader& reader) {
  if (!spdlog::should_log(spdlog::level::debug)) return;
  for (const std::string& name : reader.unread()) spdlog::debug("http: ignored the request's field '{}'", name);
}

}  // namespace penstock::openai
