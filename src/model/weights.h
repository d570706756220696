// Weights as the forward pass reads them: linear layers packed and fused, small vectors in fp32.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "ops/linear.h"

namespace penstock {

struct GdnWeights {
  PackedMatrix in_proj;  // rows q | k | v | z | b | a
  PackedMatrix out_proj;
  std::vector<float> conv1d;         // [4][channels], transposed: tap by tap
  std::vector<float> neg_exp_A_log;  // [Hv]: -exp(A_log)
  std::vector<float> dt_bias;        // [Hv]
  std::vector<float> norm;           // [Dv]
};

struct AttentionWeights {
  PackedMatrix qkv;  // rows q and gate per head | k | v
  PackedMatrix o_proj;
  std::vector<float> q_norm, k_norm;  // 1 + w
};

struct MlpWeights {
  PackedMatrix gate_up;  // interleaved by 16
  PackedMatrix down;
  std::int64_t intermediate = 0;
};

struct MoeWeights {
  PackedMatrix router;  // rows: experts, then the shared expert's gate
  std::vector<MlpWeights> experts;
  MlpWeights shared_expert;
};

struct LayerWeights {
  LayerKind kind = LayerKind::kGdn;
  std::vector<float> input_norm, post_attention_norm;  // 1 + w
  std::optional<GdnWeights> gdn;
  std::optional<AttentionWeights> attention;
  std::optional<MlpWeights> mlp;
  std::optional<MoeWeights> moe;
};

struct ModelWeights {
  PackedMatrix lm_head;
  std::optional<PackedMatrix> embed_tokens;  // empty: tied, rows are read from lm_head
  std::vector<float> norm;                   // 1 + w
  std::vector<LayerWeights> layers;
};

}  // namespace penstock
