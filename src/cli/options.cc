#include "cli/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>
#include <system_error>
#include <utility>

#include "ops/cache_layout.h"

namespace penstock::cli {
namespace {

constexpr std::int64_t kMaxInt32 = 2'147'483'647;
constexpr std::int64_t kMaxThreads = 1024;

// The first long name of "-t,--threads,--other": what messages and environment variables use.
std::string main_name(const std::string& names) {
  const std::size_t begin = names.find("--");
  if (begin == std::string::npos) return names;
  return names.substr(begin, names.find(',', begin) - begin);
}

std::string list_words(const std::vector<Choice>& words) {
  std::string list;
  for (const Choice& choice : words) {
    if (choice.meaning == choice.word) continue;
    if (!list.empty()) list += ", ";
    list += choice.word;
    if (!choice.meaning.empty()) list += fmt::format(" (means {})", choice.meaning);
  }
  return list;
}

}  // namespace

Expected<std::int64_t> parse_integer(std::string_view text, std::int64_t low, std::int64_t high) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = end == text.data() + text.size() && !text.empty();
  if (error == std::errc::invalid_argument || !whole) {
    return invalid_argument(fmt::format("'{}' is not a whole number from {} to {}", text, low, high));
  }
  if (error != std::errc() || value < low || value > high) {
    return invalid_argument(
        fmt::format("{} is out of range: a whole number from {} to {} is allowed", text, low, high));
  }
  return value;
}

Expected<std::uint64_t> parse_unsigned(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) {
    return invalid_argument(fmt::format("'{}' is not a whole number from 0 to 18446744073709551615", text));
  }
  return value;
}

Expected<double> parse_real(std::string_view text, double low, double high, bool low_included) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string range = low_included ? fmt::format("a number from {} to {} is allowed", low, high)
                                         : fmt::format("a number above {}, at most {}, is allowed", low, high);
  if (error != std::errc() || end != text.data() + text.size() || text.empty() || !std::isfinite(value)) {
    return invalid_argument(fmt::format("'{}' is not a number: {}", text, range));
  }
  if (value < low || value > high || (!low_included && value == low)) {
    return invalid_argument(fmt::format("{} is out of range: {}", text, range));
  }
  return value;
}

Expected<std::int64_t> parse_size(std::string_view text) {
  const Status wrong = invalid_argument(fmt::format(
      "'{}' is not a size: bytes, or a number with K, M, G or T (powers of 1,024), as in 4G or 1.5G", text));
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  if (error != std::errc() || !(value > 0)) return wrong;
  if (unit.ends_with("iB")) {
    unit.remove_suffix(2);
  } else if (unit.ends_with('B')) {
    unit.remove_suffix(1);
  }
  constexpr std::string_view kUnits = "KMGT";
  if (unit.size() > 1) return wrong;
  if (unit.size() == 1) {
    const std::size_t power = kUnits.find(static_cast<char>(unit[0] & ~0x20));
    if (power == std::string_view::npos) return wrong;
    value = std::ldexp(value, 10 * static_cast<int>(power + 1));
  }
  if (value < 1 || value >= 0x1p62) return wrong;
  return static_cast<std::int64_t>(value);
}

CLI::Option* add_parsed(CLI::App& app, const std::string& names, const std::string& type, const std::string& help,
                        const std::function<Status(const std::string&)>& parse) {
  const std::string name = main_name(names);
  CLI::Option* option = app.add_option_function<std::string>(
      names,
      [name, parse](const std::string& text) {
        const Status status = parse(text);
        if (!status.ok()) throw CLI::ValidationError(name, status.message());
      },
      help);
  // A later value replaces an earlier one, so that scripts can append to somebody's arguments.
  return option->type_name(type)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)->allow_extra_args(false);
}

CLI::Option* add_seed(CLI::App& app, const std::string& names, std::uint64_t& value, const std::string& help) {
  return add_parsed(app, names, "N", help, [&value](const std::string& text) -> Status {
    PENSTOCK_ASSIGN_OR_RETURN(value, parse_unsigned(text));
    return {};
  });
}

CLI::Option* add_text(CLI::App& app, const std::string& names, std::string& value, const std::string& type,
                      const std::string& help) {
  return add_parsed(app, names, type, help, [&value](const std::string& text) -> Status {
    value = text;
    return {};
  });
}

CLI::Option* add_list(CLI::App& app, const std::string& names, std::vector<std::string>& values,
                      const std::string& type, const std::string& help) {
  return app.add_option(names, values, help)
      ->type_name(type)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
}

CLI::Option* add_choice(CLI::App& app, const std::string& names, std::function<void(const std::string&)> set,
                        std::vector<Choice> words, const std::string& help) {
  std::string type;
  for (const Choice& choice : words) {
    if (choice.meaning.empty()) type += (type.empty() ? "" : "|") + choice.word;
  }
  return add_parsed(
      app, names, type, help, [set = std::move(set), words = std::move(words)](const std::string& text) -> Status {
        const auto found =
            std::find_if(words.begin(), words.end(), [&](const Choice& choice) { return choice.word == text; });
        if (found == words.end()) {
          return invalid_argument(fmt::format("'{}' is not one of {}", text, list_words(words)));
        }
        set(found->meaning.empty() ? found->word : found->meaning);
        return {};
      });
}

CLI::Option* add_flag(CLI::App& app, const std::string& names, bool& value, const std::string& help) {
  return app.add_flag(names, value, help)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

// Not "!--name": what the environment says would then be taken for the opposite.
CLI::Option* add_flag_off(CLI::App& app, const std::string& names, bool& value, const std::string& help) {
  return app
      .add_flag_callback(
          names, [&value] { value = false; }, help)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

namespace {

void set_optional(std::optional<std::string>& target, const std::string& word) {
  if (word == "auto") {
    target.reset();
  } else {
    target = word;
  }
}

void add_kernel_options(CLI::App& app, ModelOptions& options) {
  KernelRequest& kernels = options.kernels;
  add_integer(app, "-t,--threads", options.threads, 0, kMaxThreads, "N", "compute threads; 0: one per physical core")
      ->default_str("0");
  add_choice(
      app, "--cpu-isa", [&](const std::string& word) { set_optional(kernels.isa, word); },
      {{"auto", ""}, {"reference", ""}, {"avx2", ""}, {"avx512", ""}, {"avx512_bf16", ""}},
      "instruction set of the kernels")
      ->default_str("auto");
  add_choice(
      app, "--linear-input", [&](const std::string& word) { set_optional(kernels.linear_input, word); },
      {{"auto", ""}, {"fp32", ""}, {"bf16", ""}},
      "how linear layers see their inputs: as they are, or as one or two bf16 numbers each")
      ->default_str("auto");
  add_choice(
      app, "--linear-attn-backend,--linear-attn-decode-backend",
      [&](const std::string& word) { set_optional(kernels.gdn_backend, word); },
      {{"auto", ""}, {"window", ""}, {"recurrent", ""}, {"flashinfer", ""}, {"triton", ""}, {"reference", ""}},
      "form of the Gated DeltaNet layers: a base state and a window of rows, or one state rewritten at every "
      "token; the last three are other engines' names for recurrent")
      ->default_str("auto");
  add_choice(
      app, "--mamba-ssm-dtype,--mamba-ssm-cache-dtype",
      [&](const std::string& word) { set_optional(kernels.state_dtype, word); },
      {{"auto", ""},
       {"float32", ""},
       {"bfloat16", ""},
       {"int8", ""},
       {"fp32", "float32"},
       {"bf16", "bfloat16"},
       {"float16", "float16"}},  // for the policy to refuse with its reason
      "format of the Gated DeltaNet states between steps")
      ->default_str("auto");
  add_choice(
      app, "--kv-cache-dtype", [&](const std::string& word) { set_optional(kernels.kv_dtype, word); },
      {{"auto", ""}, {"float32", ""}, {"bfloat16", ""}, {"fp32", "float32"}, {"bf16", "bfloat16"}},
      "format of keys and values")
      ->default_str("auto");
  for (CLI::Option* option : app.get_options()) {
    const auto& names = option->get_lnames();
    for (const char* name :
         {"threads", "cpu-isa", "linear-input", "linear-attn-backend", "mamba-ssm-dtype", "kv-cache-dtype"}) {
      if (std::find(names.begin(), names.end(), name) != names.end()) option->group("Kernels");
    }
  }
}

}  // namespace

void add_model_options(CLI::App& app, ModelArguments& arguments, SeedOption seed, const std::string& log_level) {
  add_text(app, "MODEL,--model,--model-path", arguments.model, "FOLDER",
           "folder of the model: config.json, *.safetensors, tokenizer.json; left out: the bundled model")
      ->group("Model");
  add_text(app, "--tokenizer,--tokenizer-path", arguments.tokenizer, "FOLDER",
           "folder of tokenizer.json and the chat template, when it is not the model's")
      ->group("Model");
  add_choice(
      app, "--load-format",
      [&](const std::string& word) {
        arguments.load_format = word == "dummy" ? LoadFormat::kDummy : LoadFormat::kAuto;
      },
      {{"auto", ""}, {"dummy", ""}}, "dummy: random weights; only config.json is read")
      ->default_str("auto")
      ->group("Model");
  add_seed(app, seed == SeedOption::kWeights ? "--seed,--random-seed" : "--random-seed", arguments.random_seed,
           seed == SeedOption::kWeights ? "seed of the random weights of --load-format dummy"
                                        : "seed of the random weights of --load-format dummy; left out: --seed's")
      ->default_str("0")
      ->group("Model");
  add_choice(
      app, "--generation-config,--sampling-defaults",
      [&](const std::string& word) { arguments.use_generation_config = word == "auto"; },
      {{"auto", ""}, {"none", ""}, {"model", "auto"}, {"vllm", "none"}, {"openai", "none"}},
      "auto: sampling defaults come from the model's generation_config.json")
      ->default_str("auto")
      ->group("Model");
  add_kernel_options(app, arguments.model_options);
  arguments.log_level = log_level;
  add_choice(
      app, "--log-level", [&](const std::string& word) { arguments.log_level = word; },
      {{"trace", ""}, {"debug", ""}, {"info", ""}, {"warn", ""}, {"error", ""}, {"off", ""}},
      "what is logged to standard error")
      ->default_str(log_level);
}

namespace {

constexpr const char* kEngineGroup = "Engine";

Expected<std::int32_t> parse_track_interval(std::string_view text) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::int64_t tokens, parse_integer(text, kBlockTokens, kMaxInt32));
  const std::int64_t below = tokens / kBlockTokens * kBlockTokens;
  if (below != tokens) {
    const std::int64_t above = below + kBlockTokens;
    return invalid_argument(
        fmt::format("{} is not a multiple of {}: states exist at the ends of blocks only; take {}{}", tokens,
                    kBlockTokens, below, above <= kMaxInt32 ? fmt::format(" or {}", above) : ""));
  }
  return static_cast<std::int32_t>(tokens);
}

void add_cache_options(CLI::App& app, EngineOptions& options) {
  add_flag_off(app, "--disable-radix-cache", options.prefix_cache,
               "keep nothing of a request for others that begin with the same tokens")
      ->group(kEngineGroup);
  add_choice(
      app, "--mamba-scheduler-strategy,--mamba-radix-cache-strategy",
      [&options](const std::string& word) {
        options.strategy = word == "no_buffer"      ? SchedulerStrategy::kNoBuffer
                           : word == "extra_buffer" ? SchedulerStrategy::kExtraBuffer
                                                    : SchedulerStrategy::kAuto;
      },
      {{"auto", ""}, {"no_buffer", ""}, {"extra_buffer", ""}},
      "how states come into the prefix cache: copied when a prompt or an answer is complete (no_buffer), or given to "
      "it as they are computed, also on the way (extra_buffer, which auto means)")
      ->default_str("auto")
      ->group(kEngineGroup);
  add_parsed(app, "--mamba-track-interval", "TOKENS",
             "extra_buffer: the cache gets a state every so many tokens, a multiple of 64",
             [&options](const std::string& text) -> Status {
               PENSTOCK_ASSIGN_OR_RETURN(options.track_interval, parse_track_interval(text));
               return {};
             })
      ->default_str(std::to_string(options.track_interval))
      ->group(kEngineGroup);
  add_integer(app, "--max-mamba-cache-size", options.max_states, 0, kMaxInt32, "N",
              "states there may be, of running requests and cached ones together; 0: as many as fit")
      ->default_str("0")
      ->group(kEngineGroup);
  add_real(app, "--mamba-full-memory-ratio", options.state_to_kv_ratio, 0, 1e6, "RATIO",
           "caps states and KV pages so that their memory is in this ratio; 0: each may take what the other leaves")
      ->default_str("0")
      ->group(kEngineGroup);
  add_flag(app, "--enable-overlap-schedule,!--disable-overlap-schedule", options.overlap,
           fmt::format("plan the next step while one runs, or do not; left out: {}", options.overlap ? "do" : "do not"))
      ->group(kEngineGroup);
}

}  // namespace

void add_engine_options(CLI::App& app, EngineOptions& options, const std::string& batch_alias) {
  constexpr const char* kGroup = kEngineGroup;
  add_integer(app, "--context-length,--max-model-len", options.context_length, 0, kMaxInt32, "TOKENS",
              "prompt and answer together; 0: the model's own, as far as memory allows")
      ->default_str("0")
      ->group(kGroup);
  add_integer(app, "--max-running-requests,--max-num-seqs" + (batch_alias.empty() ? "" : "," + batch_alias),
              options.max_running_requests, 0, 65536, "N", "requests that run together; 0: as many as memory allows")
      ->default_str("0")
      ->group(kGroup);
  add_parsed(app, "--chunked-prefill-size", "TOKENS",
             "prompt tokens computed in a step, best a multiple of 64; -1: whole prompts at once",
             [&options](const std::string& text) -> Status {
               if (text == "-1") {
                 options.chunked_prefill_size = -1;
                 return {};
               }
               PENSTOCK_ASSIGN_OR_RETURN(const std::int64_t parsed, parse_integer(text, 1, 1 << 20));
               options.chunked_prefill_size = static_cast<std::int32_t>(parsed);
               return {};
             })
      ->default_str(std::to_string(options.chunked_prefill_size))
      ->group(kGroup);
  add_real(app, "--mem-fraction-static", options.mem_fraction, 0.01, 0.99, "FRACTION",
           "share of the free memory that caches may take")
      ->default_str(fmt::format("{}", options.mem_fraction))
      ->group(kGroup);
  add_parsed(app, "--cache-memory,--kv-cache-memory-bytes", "SIZE",
             "memory for keys, values and states, as in 4G; takes the place of --mem-fraction-static",
             [&options](const std::string& text) -> Status {
               PENSTOCK_ASSIGN_OR_RETURN(options.memory_bytes, parse_size(text));
               return {};
             })
      ->group(kGroup);
  add_cache_options(app, options);
  add_flag(app, "--debug-invariants", options.debug_invariants, "check the cache's accounts after every step (slow)")
      ->group(kGroup);
}

void add_queue_options(CLI::App& app, EngineOptions& options) {
  constexpr const char* kGroup = "Limits";
  add_integer(app, "--max-queued-requests,--max-num-queued-reqs", options.max_queued_requests, 1, kMaxInt32, "N",
              "requests waiting; more are answered with 429")
      ->default_str(std::to_string(options.max_queued_requests))
      ->group(kGroup);
  add_integer(app, "--max-queued-tokens,--max-num-queued-tokens", options.max_queued_tokens, 1, 1LL << 40, "TOKENS",
              "prompt tokens of waiting requests; more are answered with 429")
      ->default_str(std::to_string(options.max_queued_tokens))
      ->group(kGroup);
}

namespace {

template <typename T>
CLI::Option* add_optional_real(CLI::App& app, const std::string& names, std::optional<T>& value, double low,
                               double high, const std::string& help, bool low_included = true) {
  return add_parsed(app, names, "X", help,
                    [&value, low, high, low_included](const std::string& text) -> Status {
                      PENSTOCK_ASSIGN_OR_RETURN(const double parsed, parse_real(text, low, high, low_included));
                      value = static_cast<T>(parsed);
                      return {};
                    })
      ->group("Sampling");
}

}  // namespace

void add_sampling_options(CLI::App& app, SamplingArguments& arguments) {
  add_optional_real(app, "--temperature", arguments.temperature, 0, 100, "0: always the most likely token; up to 100");
  add_parsed(app, "--top-k", "N", "only the N most likely tokens; 0: all",
             [&arguments](const std::string& text) -> Status {
               PENSTOCK_ASSIGN_OR_RETURN(const std::int64_t parsed, parse_integer(text, -1, kMaxInt32));
               arguments.top_k = static_cast<std::int32_t>(parsed);
               return {};
             })
      ->group("Sampling");
  add_optional_real(app, "--top-p", arguments.top_p, 0, 1, "only the most likely tokens that add up to X, above 0 to 1",
                    false);
  add_optional_real(app, "--min-p", arguments.min_p, 0, 1,
                    "only tokens of at least X times the best one's probability");
  add_optional_real(app, "--repetition-penalty", arguments.repetition_penalty, 0, 10,
                    "above 1: less of what is in the prompt or the answer; above 0 to 10", false);
  add_optional_real(app, "--presence-penalty", arguments.presence_penalty, -2, 2,
                    "above 0: less of what is in the answer; -2 to 2");
  add_optional_real(app, "--frequency-penalty", arguments.frequency_penalty, -2, 2,
                    "above 0: the less of a token, the more often it is in the answer; -2 to 2");
  add_parsed(app, "--seed", "N",
             "of the random choices; the same seed gives the same answer. Left out: another each time",
             [&arguments](const std::string& text) -> Status {
               PENSTOCK_ASSIGN_OR_RETURN(arguments.seed, parse_unsigned(text));
               return {};
             })
      ->group("Sampling");
}

SamplingParams apply_sampling(const SamplingArguments& fixed, SamplingParams base) {
  base.temperature = fixed.temperature.value_or(base.temperature);
  base.top_k = fixed.top_k.value_or(base.top_k);
  base.top_p = fixed.top_p.value_or(base.top_p);
  base.min_p = fixed.min_p.value_or(base.min_p);
  base.repetition_penalty = fixed.repetition_penalty.value_or(base.repetition_penalty);
  base.presence_penalty = fixed.presence_penalty.value_or(base.presence_penalty);
  base.frequency_penalty = fixed.frequency_penalty.value_or(base.frequency_penalty);
  return base;
}

SamplingParams resolve_sampling(const SamplingArguments& fixed, const GenerationConfig& defaults, bool use_defaults) {
  SamplingParams params;
  if (use_defaults) {
    params.temperature = defaults.temperature.value_or(params.temperature);
    if (defaults.do_sample.has_value() && !*defaults.do_sample) params.temperature = 0;
    params.top_k = defaults.top_k.value_or(params.top_k);
    params.top_p = defaults.top_p.value_or(params.top_p);
    params.min_p = defaults.min_p.value_or(params.min_p);
    params.repetition_penalty = defaults.repetition_penalty.value_or(params.repetition_penalty);
    params.presence_penalty = defaults.presence_penalty.value_or(params.presence_penalty);
    params.frequency_penalty = defaults.frequency_penalty.value_or(params.frequency_penalty);
  }
  return apply_sampling(fixed, params);
}

}  // namespace penstock::cli
