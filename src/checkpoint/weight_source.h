// Where weights come from, by canonical name (`layers.0.mlp.gate_proj.weight`, `lm_head.weight`, `mtp.fc.weight`),
// and the one place that knows which tensors a model has and how large they are.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/model_config.h"
#include "penstock/status.h"

namespace penstock {

enum class VectorKind : std::uint8_t { kZeroCentredNorm, kGdnNorm, kConv, kALog, kDtBias };

// The first thing wrong is kept in status(); what is returned after that is empty and must not be used.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  virtual bool has(const std::string& name) const = 0;
  virtual bool has_mtp() const = 0;
  // qwen3_next's in_proj_qkvz and in_proj_ba, whose rows are grouped by key head.
  virtual bool interleaved_gdn() const = 0;

  virtual MatrixView matrix(const std::string& name, std::int64_t rows, std::int64_t cols) = 0;
  // A tensor [count, rows, cols].
  virtual std::vector<MatrixView> matrices(const std::string& name, std::int64_t count, std::int64_t rows,
                                           std::int64_t cols) = 0;
  // Finite values of a small tensor, as fp32.
  virtual std::vector<float> vector(const std::string& name, std::span<const std::int64_t> shape, VectorKind kind) = 0;

  const Status& status() const { return status_; }
  bool ok() const { return status_.ok(); }

 protected:
  void fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

 private:
  Status status_;
};

// Rows [first, first + rows) of a view made of one segment.
MatrixView row_range(const MatrixView& view, std::int64_t first, std::int64_t rows);

// Complete only if source.ok() afterwards.
HostWeights build_weights(const ModelConfig& config, WeightSource& source);

}  // namespace penstock
