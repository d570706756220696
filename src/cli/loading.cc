#include "cli/loading.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <system_error>

#include "cli/console.h"

namespace penstock::cli {
namespace {

namespace fs = std::filesystem;

bool is_model(const fs::path& folder) {
  std::error_code error;
  return fs::exists(folder / "config.json", error);
}

Expected<fs::path> find_bundled_model() {
  if (const char* fixed = std::getenv("PENSTOCK_DEFAULT_MODEL"); fixed != nullptr && *fixed != '\0') {
    if (is_model(fixed)) return fs::path(fixed);
    return not_found(fmt::format("PENSTOCK_DEFAULT_MODEL names {}, which has no config.json", fixed));
  }
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (error) return internal_error("cannot find out where the program lies (/proc/self/exe); name a MODEL");
  std::string places;
  for (const char* relative : {"../../models/gsm-hybrid", "../share/penstock/models/gsm-hybrid"}) {
    const fs::path place = (program.parent_path() / relative).lexically_normal();
    if (is_model(place)) return place;
    places += fmt::format("{}{}", places.empty() ? "" : " and ", place.string());
  }
  return not_found(
      fmt::format("no MODEL was named and the bundled one is not there: looked for config.json in {}. Name a model's "
                  "folder, or set PENSTOCK_DEFAULT_MODEL",
                  places));
}

template <typename T>
Status load_text_part(Need need, const fs::path& folder, Expected<std::unique_ptr<T>> (*load)(const fs::path&),
                      std::unique_ptr<T>& result) {
  if (need == Need::kNone) return {};
  Expected<std::unique_ptr<T>> part = load(folder);
  if (!part.ok()) {
    return need == Need::kOptional && part.status().code() == StatusCode::kNotFound ? Status() : part.status();
  }
  result = *std::move(part);
  return {};
}

}  // namespace

Expected<fs::path> find_model(const std::string& argument) {
  if (argument.empty()) return find_bundled_model();
  std::error_code error;
  const fs::path folder = argument;
  if (fs::is_directory(folder, error)) {
    if (is_model(folder)) return folder;
    return not_found(fmt::format("{} has no config.json, so it is not a model's folder", argument));
  }
  if (fs::exists(folder, error)) return not_found(fmt::format("{} is a file; name the folder of the model", argument));
  return not_found(fmt::format("there is no folder {}; models are not downloaded, name one on this machine", argument));
}

// The last part of the path that says something: "models/x/" and "models/x/." are both x.
std::string model_name(const fs::path& folder) {
  std::error_code error;
  const fs::path canonical = fs::canonical(folder, error);
  const std::string name = (error ? folder : canonical).filename().string();
  return name.empty() ? "model" : name;
}

Expected<LoadedModel> load_model(const ModelArguments& arguments, const LoadNeeds& needs) {
  LoadedModel loaded;
  Stopwatch watch;
  PENSTOCK_ASSIGN_OR_RETURN(loaded.directory, find_model(arguments.model));
  loaded.name = model_name(loaded.directory);

  CheckpointOptions options;
  options.format = arguments.load_format;
  options.seed = arguments.random_seed;
  PENSTOCK_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::open(loaded.directory, options));
  loaded.phases.push_back({"open checkpoint", watch.lap()});

  const fs::path text_folder = arguments.tokenizer.empty() ? loaded.directory : fs::path(arguments.tokenizer);
  PENSTOCK_RETURN_IF_ERROR(load_text_part(needs.tokenizer, text_folder, &Tokenizer::load, loaded.tokenizer));
  PENSTOCK_RETURN_IF_ERROR(load_text_part(needs.chat_template, text_folder, &ChatTemplate::load, loaded.chat_template));
  const std::int32_t vocab = checkpoint->config().vocab_size;
  if (loaded.tokenizer != nullptr && loaded.tokenizer->size() > vocab) {
    return invalid_argument(fmt::format("the tokenizer of {} has ids up to {}, but the model's vocabulary ends at {}",
                                        text_folder.string(), loaded.tokenizer->size() - 1, vocab - 1));
  }
  loaded.phases.push_back({"tokenizer and template", watch.lap()});

  Progress progress("loading " + loaded.name);
  PENSTOCK_ASSIGN_OR_RETURN(loaded.model, Model::create(*checkpoint, arguments.model_options,
                                                        [&](double fraction) { progress.update(fraction); }));
  progress.finish();
  loaded.phases.push_back({"read and pack weights", watch.lap()});
  return loaded;
}

std::string describe_model(const LoadedModel& loaded) {
  const ModelConfig& config = loaded.model->config();
  return fmt::format(
      "model     {} ({})\n          {}, {} parameters, {} layers ({} Gated DeltaNet, {} full attention){}, "
      "vocabulary {}\n          weights {} packed, {} threads\n",
      loaded.name, loaded.directory.string(), to_string(config.family), human_count(loaded.model->parameters()),
      config.num_layers(), config.count(LayerKind::kGdn), config.count(LayerKind::kFullAttention),
      config.is_moe() ? fmt::format(", {} experts, {} a token", config.num_experts, config.num_experts_per_tok) : "",
      grouped(config.vocab_size), human_bytes(loaded.model->weight_bytes()), loaded.model->pool().threads());
}

std::string describe_kernels(const KernelPlan& plan) {
  std::size_t phase_width = 0;
  std::size_t kernel_width = 0;
  for (const KernelChoice& choice : plan.choices) {
    phase_width = std::max(phase_width, choice.phase.size());
    kernel_width = std::max(kernel_width, choice.kernel.size());
  }
  std::string lines;
  for (const KernelChoice& choice : plan.choices) {
    lines += fmt::format("{}{:<{}}  {:<{}}  {}\n", lines.empty() ? "kernels   " : "          ", choice.phase,
                         phase_width, choice.kernel, kernel_width, choice.reason);
  }
  return lines;
}

std::string describe_phases(const std::vector<Phase>& phases) {
  std::string line = "time      ";
  for (const Phase& phase : phases) {
    line += fmt::format("{}{} {}", &phase == &phases.front() ? "" : ", ", phase.name, human_seconds(phase.seconds));
  }
  return line + '\n';
}

}  // namespace penstock::cli
