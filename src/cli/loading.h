// From the arguments of a command to a model that can run, with the time each phase took.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "cli/options.h"
#include "model/model.h"
#include "penstock/status.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace penstock::cli {

// The folder of the model: `argument`, or the bundled model when it is empty. The bundled model is looked for in
// PENSTOCK_DEFAULT_MODEL if that is set, else beside the executable (a build: ../../models/gsm-hybrid, an
// installation: ../share/penstock/models/gsm-hybrid). kNotFound lists the places.
Expected<std::filesystem::path> find_model(const std::string& argument);

// What a client calls the model in `folder`: the folder's name.
std::string model_name(const std::filesystem::path& folder);

struct Phase {
  std::string name;
  double seconds = 0;
};

struct LoadedModel {
  std::filesystem::path directory;
  std::string name;                             // model_name(directory)
  std::unique_ptr<Tokenizer> tokenizer;         // null: not asked for, or kOptional and not there
  std::unique_ptr<ChatTemplate> chat_template;  // the same
  std::unique_ptr<Model> model;
  std::vector<Phase> phases;
};

enum class Need : std::uint8_t { kNone, kOptional, kRequired };
struct LoadNeeds {
  Need tokenizer = Need::kRequired;
  Need chat_template = Need::kOptional;
};

// kOptional only forgives a missing file: one that is there and wrong is an error.
Expected<LoadedModel> load_model(const ModelArguments& arguments, const LoadNeeds& needs);

// Model, family, parameters and the kernels with their reasons: lines for people.
std::string describe_model(const LoadedModel& loaded);
std::string describe_kernels(const KernelPlan& plan);
std::string describe_phases(const std::vector<Phase>& phases);

}  // namespace penstock::cli
