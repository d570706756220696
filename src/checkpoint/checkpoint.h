// A model directory opened and checked: configuration, and weights as views of the mapped files in one canonical form,
// whatever the family and layout on disk. Nothing is copied but small vectors; the views live as long as the
// Checkpoint.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "checkpoint/model_config.h"
#include "penstock/status.h"

namespace penstock {

struct RowSegment {
  const std::byte* data = nullptr;  // [rows, cols], row-major, any alignment
  std::int64_t rows = 0;
};

// A linear layer's weight [rows = outputs, cols = inputs] as runs of consecutive rows: one for an ordinary tensor,
// several where rows were interleaved on disk (qwen3_next) or belong to a packed expert tensor.
struct MatrixView {
  DType dtype = DType::kBF16;  // kBF16, kF16 or kF32
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::vector<RowSegment> segments;
};

struct GdnHostWeights {
  MatrixView in_proj_qkv;      // [2·Hk·Dk + Hv·Dv, H]: rows q | k | v
  MatrixView in_proj_z;        // [Hv·Dv, H]
  MatrixView in_proj_b;        // [Hv, H]
  MatrixView in_proj_a;        // [Hv, H]
  MatrixView out_proj;         // [H, Hv·Dv]
  std::vector<float> conv1d;   // [channels, 4], the last tap is the current token
  std::vector<float> A_log;    // [Hv]
  std::vector<float> dt_bias;  // [Hv]
  std::vector<float> norm;     // [Dv], plain
};

struct AttentionHostWeights {
  MatrixView q_proj;                  // [heads·2·head_dim, H]: per head, query rows then gate rows
  MatrixView k_proj, v_proj;          // [kv_heads·head_dim, H]
  MatrixView o_proj;                  // [H, heads·head_dim]
  std::vector<float> q_norm, k_norm;  // [head_dim], zero-centred: the factor is 1 + w
};

struct MlpHostWeights {
  MatrixView gate_proj, up_proj;  // [I, H]
  MatrixView down_proj;           // [H, I]
};

struct MoeHostWeights {
  MatrixView router;                    // [experts, H]
  std::vector<MlpHostWeights> experts;  // views into the packed tensor, or one tensor each
  MlpHostWeights shared_expert;
  MatrixView shared_expert_gate;  // [1, H]
};

struct LayerHostWeights {
  LayerKind kind = LayerKind::kGdn;
  std::vector<float> input_layernorm, post_attention_layernorm;  // [H], zero-centred
  std::optional<GdnHostWeights> gdn;                             // by kind
  std::optional<AttentionHostWeights> attention;
  std::optional<MlpHostWeights> mlp;  // dense, or
  std::optional<MoeHostWeights> moe;
};

struct MtpHostWeights {  // recognised and checked now, run by a later change
  MatrixView fc;         // [H, 2H]: embedding half first
  std::vector<float> pre_fc_norm_embedding, pre_fc_norm_hidden, norm;
  LayerHostWeights layer;
};

struct HostWeights {
  MatrixView embed_tokens;  // [vocab, H]
  MatrixView lm_head;       // [vocab, H]; the same view as embed_tokens when tied
  bool tied = false;
  std::vector<float> norm;  // [H], zero-centred
  std::vector<LayerHostWeights> layers;
  std::optional<MtpHostWeights> mtp;
};

struct TensorInfo {  // for `inspect`
  std::string name;  // as in the file
  DType dtype = DType::kBF16;
  std::vector<std::int64_t> shape;
  std::int64_t bytes = 0;
  std::string file;      // name within the directory
  bool skipped = false;  // vision tensors
};

enum class LoadFormat : std::uint8_t { kAuto, kDummy };

struct CheckpointOptions {
  LoadFormat format = LoadFormat::kAuto;
  std::uint64_t seed = 0;  // of kDummy: only config.json is read, the weights are random and the same for a seed
};

class Checkpoint {
 public:
  // Refused by name: missing, unknown or misshapen text tensors, unsupported dtypes, quantised weights, files that lie
  // about their sizes, shard paths that leave the directory.
  static Expected<std::unique_ptr<Checkpoint>> open(const std::filesystem::path& dir, const CheckpointOptions& options);
  virtual ~Checkpoint() = default;

  virtual const std::filesystem::path& directory() const = 0;
  virtual const ModelConfig& config() const = 0;
  virtual const GenerationConfig& generation_config() const = 0;
  virtual const HostWeights& weights() const = 0;
  virtual const std::vector<TensorInfo>& tensors() const = 0;
};

}  // namespace penstock
