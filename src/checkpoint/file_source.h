// Weights of the files of a model directory, each tensor checked for type and shape when it is asked for.
#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include "checkpoint/tensor_index.h"
#include "checkpoint/weight_source.h"

namespace penstock {

class FileSource final : public WeightSource {
 public:
  // Both must outlive this; the views handed out live as long as the index.
  FileSource(const TensorIndex& index, const ModelConfig& config) : index_(index), config_(config) {}

  bool has(const std::string& name) const override;
  bool has_mtp() const override;
  bool interleaved_gdn() const override { return config_.family == ModelFamily::kQwen3Next; }
  MatrixView matrix(const std::string& name, std::int64_t rows, std::int64_t cols) override;
  std::vector<MatrixView> matrices(const std::string& name, std::int64_t count, std::int64_t rows,
                                   std::int64_t cols) override;
  std::vector<float> vector(const std::string& name, std::span<const std::int64_t> shape, VectorKind kind) override;

  // After everything has been asked for: a text tensor nobody wanted, or one of unknown name, is refused.
  Status check_all_used() const;

 private:
  // Null after an error: missing, misshapen, or of a type that is no weight's.
  const IndexedTensor* take(const std::string& name, std::span<const std::int64_t> shape);

  const TensorIndex& index_;
  const ModelConfig& config_;
  std::unordered_set<const IndexedTensor*> used_;
};

}  // namespace penstock
