// Options that several commands share, and the functions that declare one option of each kind. Every value is parsed
// and range-checked here, once, so that a wrong one is refused before anything is loaded.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/model_config.h"
#include "model/model.h"
#include "penstock/engine.h"
#include "penstock/request.h"
#include "penstock/status.h"

namespace penstock::cli {

// Strict readers: the whole text must be one value. The messages say what was read and what is allowed.
Expected<std::int64_t> parse_integer(std::string_view text, std::int64_t low, std::int64_t high);
Expected<std::uint64_t> parse_unsigned(std::string_view text);
Expected<double> parse_real(std::string_view text, double low, double high, bool low_included = true);
Expected<std::int64_t> parse_size(std::string_view text);  // bytes, or with K, M, G, T (powers of 1,024)

// Throws CLI::ValidationError in CLI11's callback when `parse` refuses the text; main() turns that into exit status 2.
// The last of several values on the command line counts.
CLI::Option* add_parsed(CLI::App& app, const std::string& names, const std::string& type, const std::string& help,
                        const std::function<Status(const std::string&)>& parse);

template <typename T>
CLI::Option* add_integer(CLI::App& app, const std::string& names, T& value, std::int64_t low, std::int64_t high,
                         const std::string& type, const std::string& help) {
  return add_parsed(app, names, type, help, [&value, low, high](const std::string& text) -> Status {
    PENSTOCK_ASSIGN_OR_RETURN(const std::int64_t parsed, parse_integer(text, low, high));
    value = static_cast<T>(parsed);
    return {};
  });
}

template <typename T>
CLI::Option* add_real(CLI::App& app, const std::string& names, T& value, double low, double high,
                      const std::string& type, const std::string& help, bool low_included = true) {
  return add_parsed(app, names, type, help, [&value, low, high, low_included](const std::string& text) -> Status {
    PENSTOCK_ASSIGN_OR_RETURN(const double parsed, parse_real(text, low, high, low_included));
    value = static_cast<T>(parsed);
    return {};
  });
}

CLI::Option* add_seed(CLI::App& app, const std::string& names, std::uint64_t& value, const std::string& help);
CLI::Option* add_text(CLI::App& app, const std::string& names, std::string& value, const std::string& type,
                      const std::string& help);
// May be given several times; one value each.
CLI::Option* add_list(CLI::App& app, const std::string& names, std::vector<std::string>& values,
                      const std::string& type, const std::string& help);
// One of `words`; a word may stand for another, as in {"bf16", "bfloat16"}. Words with a meaning are not in --help.
struct Choice {
  std::string word;
  std::string meaning;  // empty: the word itself
};
CLI::Option* add_choice(CLI::App& app, const std::string& names, std::function<void(const std::string&)> set,
                        std::vector<Choice> words, const std::string& help);
// "--on,!--off": --off sets the opposite, and the last of both counts.
CLI::Option* add_flag(CLI::App& app, const std::string& names, bool& value, const std::string& help);
// Sets `value` to false.
CLI::Option* add_flag_off(CLI::App& app, const std::string& names, bool& value, const std::string& help);

// Which model, how its weights are read, and which kernels run it.
struct ModelArguments {
  std::string model;      // a folder; empty: the bundled model
  std::string tokenizer;  // a folder; empty: the model's
  LoadFormat load_format = LoadFormat::kAuto;
  std::uint64_t random_seed = 0;  // of the weights of LoadFormat::kDummy
  ModelOptions model_options;
  bool use_generation_config = true;  // sampling defaults of generation_config.json
  std::string log_level = "info";
};
enum class SeedOption : std::uint8_t {
  kWeights,   // --seed and --random-seed seed the random weights of --load-format dummy
  kSampling,  // --seed belongs to sampling and, where --random-seed is not given, to random weights too
};
void add_model_options(CLI::App& app, ModelArguments& arguments, SeedOption seed, const std::string& log_level);
// `batch_alias`: one more name of --max-running-requests, or "".
void add_engine_options(CLI::App& app, EngineOptions& options, const std::string& batch_alias = "");
void add_queue_options(CLI::App& app, EngineOptions& options);

// What a user fixed about sampling; the rest comes from generation_config.json or Penstock's defaults.
struct SamplingArguments {
  std::optional<float> temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<std::int32_t> top_k;
  std::optional<std::uint64_t> seed;
};
void add_sampling_options(CLI::App& app, SamplingArguments& arguments);
// `base` with what `fixed` fixes, but for the seed.
SamplingParams apply_sampling(const SamplingArguments& fixed, SamplingParams base);
// `fixed` over the checkpoint's defaults (when `use_defaults`) over SamplingParams' own. The seed is left alone.
SamplingParams resolve_sampling(const SamplingArguments& fixed, const GenerationConfig& defaults, bool use_defaults);

}  // namespace penstock::cli
