// Random weights for a configuration: for measuring speed at sizes nobody wants to download. A value depends on the
// seed, the tensor's name and its index, and on nothing else.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "checkpoint/weight_source.h"

namespace penstock {

// Matrices are bf16, uniform with standard deviation 1/sqrt(cols); zero-centred norms are small, GDN norms 1, and the
// decays those of a fresh Mamba-like layer: time constants from below one token to a thousand.
class DummySource final : public WeightSource {
 public:
  DummySource(const ModelConfig& config, std::uint64_t seed) : config_(config), seed_(seed) {}

  bool has(const std::string& name) const override { return name == "lm_head.weight" && !config_.tie_word_embeddings; }
  bool has_mtp() const override { return config_.mtp_num_hidden_layers > 0; }
  bool interleaved_gdn() const override { return false; }
  MatrixView matrix(const std::string& name, std::int64_t rows, std::int64_t cols) override;
  std::vector<MatrixView> matrices(const std::string& name, std::int64_t count, std::int64_t rows,
                                   std::int64_t cols) override;
  std::vector<float> vector(const std::string& name, std::span<const std::int64_t> shape, VectorKind kind) override;

  // Build once to learn the size; then this, then build again to get views of the memory, then fill().
  // kResourceExhausted, with the numbers, where the machine does not have that much.
  Status allocate();
  void fill();

  std::vector<TensorInfo> take_tensors() { return std::move(tensors_); }
  AlignedBuffer take_memory() { return std::move(memory_); }

 private:
  struct Matrix {
    std::int64_t offset_bytes;
    std::int64_t elements;
    std::uint64_t key;  // of its random numbers
    float amplitude;
  };

  std::uint64_t key_of(const std::string& name) const;
  void record(const std::string& name, DType dtype, std::span<const std::int64_t> shape, std::int64_t size_bytes);

  const ModelConfig& config_;
  std::uint64_t seed_;
  std::int64_t size_bytes_ = 0;
  AlignedBuffer memory_;
  std::vector<Matrix> matrices_;
  std::vector<TensorInfo> tensors_;
};

}  // namespace penstock
