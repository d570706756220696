#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "base/mmap.h"
#include "checkpoint/dummy_source.h"
#include "checkpoint/file_source.h"
#include "checkpoint/tensor_index.h"

namespace penstock {
namespace {

class LoadedCheckpoint final : public Checkpoint {
 public:
  explicit LoadedCheckpoint(std::filesystem::path dir) : dir_(std::move(dir)) {}

  Status load(const CheckpointOptions& options) {
    PENSTOCK_ASSIGN_OR_RETURN(config_, read_model_config(dir_));
    PENSTOCK_ASSIGN_OR_RETURN(generation_config_, read_generation_config(dir_, config_));
    PENSTOCK_RETURN_IF_ERROR(options.format == LoadFormat::kDummy ? make_random(options.seed) : load_files());
    config_.mtp_num_hidden_layers = weights_.mtp ? 1 : 0;  // what there is, whatever config.json says
    std::sort(tensors_.begin(), tensors_.end(),
              [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
    return {};
  }

  const std::filesystem::path& directory() const override { return dir_; }
  const ModelConfig& config() const override { return config_; }
  const GenerationConfig& generation_config() const override { return generation_config_; }
  const HostWeights& weights() const override { return weights_; }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }

 private:
  Status load_files() {
    PENSTOCK_ASSIGN_OR_RETURN(index_, TensorIndex::open(dir_));
    PENSTOCK_RETURN_IF_ERROR(index_.check_not_quantized().with_context(dir_.string()));
    FileSource source(index_, config_);
    weights_ = build_weights(config_, source);
    PENSTOCK_RETURN_IF_ERROR(source.status().with_context(dir_.string()));
    PENSTOCK_RETURN_IF_ERROR(source.check_all_used().with_context(dir_.string()));
    for (const auto& [canonical, tensor] : index_.tensors()) {
      tensors_.push_back({tensor.disk_name, tensor.entry->dtype, tensor.entry->shape,
                          static_cast<std::int64_t>(tensor.entry->data.size()), tensor.file,
                          tensor.role == TensorRole::kSkipped});
    }
    return {};
  }

  Status make_random(std::uint64_t seed) {
    DummySource source(config_, seed);
    (void)build_weights(config_, source);  // for the size alone
    PENSTOCK_RETURN_IF_ERROR(source.status());
    PENSTOCK_RETURN_IF_ERROR(source.allocate());
    weights_ = build_weights(config_, source);
    PENSTOCK_RETURN_IF_ERROR(source.status());
    source.fill();
    tensors_ = source.take_tensors();
    memory_ = source.take_memory();
    return {};
  }

  std::filesystem::path dir_;
  ModelConfig config_;
  GenerationConfig generation_config_;
  TensorIndex index_;     // owns the mappings,
  AlignedBuffer memory_;  // or this the random weights, that the views point into
  HostWeights weights_;
  std::vector<TensorInfo> tensors_;
};

}  // namespace

Expected<std::unique_ptr<Checkpoint>> Checkpoint::open(const std::filesystem::path& dir,
                                                       const CheckpointOptions& options) {
  try {
    auto checkpoint = std::make_unique<LoadedCheckpoint>(dir);
    PENSTOCK_RETURN_IF_ERROR(checkpoint->load(options));
    return std::unique_ptr<Checkpoint>(std::move(checkpoint));
  } catch (const std::exception& error) {  // of the file system or of an allocation
    return internal_error("cannot open " + dir.string() + ": " + error.what());
  }
}

}  // namespace penstock
