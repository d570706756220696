// All tensors of a model directory under their canonical names, wherever they lie.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors.h"
#include "penstock/status.h"

namespace penstock {

enum class TensorRole : std::uint8_t {
  kText,     // of the language model or its draft layer
  kSkipped,  // vision, and rotary frequencies, which follow from the configuration
  kUnknown,
};

// `model.language_model.layers.0.x`, `model.layers.0.x` -> `layers.0.x`; `model.mtp.x` -> `mtp.x`;
// `model.lm_head.x` -> `lm_head.x`. What is skipped keeps its name, an unknown name gets a question mark in front.
TensorRole classify_tensor(const std::string& disk_name, std::string* canonical);

struct IndexedTensor {
  const SafetensorsEntry* entry = nullptr;
  std::string disk_name;
  std::string file;  // name within the directory
  TensorRole role = TensorRole::kText;
};

class TensorIndex {
 public:
  // model.safetensors.index.json and its shards, or model.safetensors; and other *.safetensors files of the directory
  // that hold weights of the model (a draft layer is often kept apart).
  // kNotFound: no weights, or a shard is missing; kCorrupt: a tensor that the index promises is not there, or is there
  // twice; kInvalidArgument: a shard's name is no plain file name.
  static Expected<TensorIndex> open(const std::filesystem::path& dir);

  const std::unordered_map<std::string, IndexedTensor>& tensors() const { return tensors_; }
  // kUnsupported with the method, where tensors stand that go with quantised weights.
  Status check_not_quantized() const;
  // A canonical name as this directory would spell it, for messages.
  std::string spelled(const std::string& canonical) const;

 private:
  Status open_shards(const std::filesystem::path& dir, const std::filesystem::path& index_path);
  Status open_strays(const std::filesystem::path& dir);
  Status open_file(const std::filesystem::path& dir, const std::string& name);
  Status add_file(std::unique_ptr<SafetensorsFile> file, const std::string& name);

  std::unordered_map<std::string, std::unique_ptr<SafetensorsFile>> files_;  // by name
  std::unordered_map<std::string, IndexedTensor> tensors_;                   // by canonical name
  bool nested_names_ = false;
};

}  // namespace penstock
