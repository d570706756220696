#include "checkpoint/weight_source.h"

#include <array>
#include <utility>

#include "base/check.h"

namespace penstock {
namespace {

void append_rows(MatrixView& out, const MatrixView& from, std::int64_t first, std::int64_t rows) {
  if (from.segments.empty()) return;  // the source failed
  const MatrixView part = row_range(from, first, rows);
  out.dtype = from.dtype;
  out.cols = from.cols;
  out.rows += rows;
  out.segments.push_back(part.segments.front());
}

class Builder {
 public:
  Builder(const ModelConfig& config, WeightSource& source) : config_(config), source_(source) {}

  HostWeights build() {
    HostWeights out;
    out.embed_tokens = source_.matrix("embed_tokens.weight", config_.vocab_size, hidden());
    out.norm = zero_centred("norm.weight", hidden());
    for (std::size_t i = 0; i < config_.layers.size() && source_.ok(); ++i) {
      out.layers.push_back(layer("layers." + std::to_string(i) + ".", config_.layers[i]));
    }
    out.tied = !source_.has("lm_head.weight");
    out.lm_head = out.tied ? out.embed_tokens : source_.matrix("lm_head.weight", config_.vocab_size, hidden());
    if (source_.ok() && source_.has_mtp()) out.mtp = mtp();
    return out;
  }

 private:
  std::int64_t hidden() const { return config_.hidden_size; }

  std::vector<float> plain_vector(const std::string& name, std::int64_t size, VectorKind kind) {
    return source_.vector(name, std::array{size}, kind);
  }
  std::vector<float> zero_centred(const std::string& name, std::int64_t size) {
    return plain_vector(name, size, VectorKind::kZeroCentredNorm);
  }

  LayerHostWeights layer(const std::string& prefix, LayerKind kind) {
    LayerHostWeights out;
    out.kind = kind;
    out.input_layernorm = zero_centred(prefix + "input_layernorm.weight", hidden());
    out.post_attention_layernorm = zero_centred(prefix + "post_attention_layernorm.weight", hidden());
    if (kind == LayerKind::kGdn) {
      out.gdn = gdn(prefix + "linear_attn.");
    } else {
      out.attention = attention(prefix + "self_attn.");
    }
    if (config_.is_moe()) {
      out.moe = moe(prefix + "mlp.");
    } else {
      out.mlp = mlp(prefix + "mlp.", config_.intermediate_size);
    }
    return out;
  }

  GdnHostWeights gdn(const std::string& prefix) {
    const std::int64_t value_heads = config_.linear_num_value_heads;
    const std::int64_t value_rows = value_heads * config_.linear_value_head_dim;
    const std::int64_t channels = config_.conv_channels();
    GdnHostWeights out;
    if (source_.interleaved_gdn()) {
      read_interleaved(prefix, out);
    } else {
      out.in_proj_qkv = source_.matrix(prefix + "in_proj_qkv.weight", channels, hidden());
      out.in_proj_z = source_.matrix(prefix + "in_proj_z.weight", value_rows, hidden());
      out.in_proj_b = source_.matrix(prefix + "in_proj_b.weight", value_heads, hidden());
      out.in_proj_a = source_.matrix(prefix + "in_proj_a.weight", value_heads, hidden());
    }
    out.out_proj = source_.matrix(prefix + "out_proj.weight", hidden(), value_rows);
    const std::array<std::int64_t, 3> conv_shape = {channels, 1, config_.linear_conv_kernel_dim};
    out.conv1d = source_.vector(prefix + "conv1d.weight", conv_shape, VectorKind::kConv);
    out.A_log = plain_vector(prefix + "A_log", value_heads, VectorKind::kALog);
    out.dt_bias = plain_vector(prefix + "dt_bias", value_heads, VectorKind::kDtBias);
    out.norm = plain_vector(prefix + "norm.weight", config_.linear_value_head_dim, VectorKind::kGdnNorm);
    return out;
  }

  // qwen3_next keeps what belongs to a key head together. in_proj_qkvz: for each key head q, k, v of its r value
  // heads, z of the same; in_proj_ba: b of its r value heads, a of the same.
  void read_interleaved(const std::string& prefix, GdnHostWeights& out) {
    const std::int64_t key_heads = config_.linear_num_key_heads;
    const std::int64_t key_dim = config_.linear_key_head_dim;
    const std::int64_t ratio = config_.linear_num_value_heads / key_heads;
    const std::int64_t value_dim = ratio * config_.linear_value_head_dim;  // of one group
    const std::int64_t group = 2 * key_dim + 2 * value_dim;
    const MatrixView qkvz = source_.matrix(prefix + "in_proj_qkvz.weight", key_heads * group, hidden());
    const MatrixView ba = source_.matrix(prefix + "in_proj_ba.weight", key_heads * 2 * ratio, hidden());
    for (std::int64_t head = 0; head < key_heads; ++head) {
      append_rows(out.in_proj_qkv, qkvz, head * group, key_dim);
      append_rows(out.in_proj_z, qkvz, head * group + 2 * key_dim + value_dim, value_dim);
      append_rows(out.in_proj_b, ba, head * 2 * ratio, ratio);
      append_rows(out.in_proj_a, ba, head * 2 * ratio + ratio, ratio);
    }
    for (std::int64_t head = 0; head < key_heads; ++head) {
      append_rows(out.in_proj_qkv, qkvz, head * group + key_dim, key_dim);
    }
    for (std::int64_t head = 0; head < key_heads; ++head) {
      append_rows(out.in_proj_qkv, qkvz, head * group + 2 * key_dim, value_dim);
    }
  }

  AttentionHostWeights attention(const std::string& prefix) {
    const std::int64_t query_rows = std::int64_t{config_.num_attention_heads} * config_.head_dim;
    const std::int64_t key_rows = std::int64_t{config_.num_key_value_heads} * config_.head_dim;
    AttentionHostWeights out;
    out.q_proj = source_.matrix(prefix + "q_proj.weight", 2 * query_rows, hidden());
    out.k_proj = source_.matrix(prefix + "k_proj.weight", key_rows, hidden());
    out.v_proj = source_.matrix(prefix + "v_proj.weight", key_rows, hidden());
    out.o_proj = source_.matrix(prefix + "o_proj.weight", hidden(), query_rows);
    out.q_norm = zero_centred(prefix + "q_norm.weight", config_.head_dim);
    out.k_norm = zero_centred(prefix + "k_norm.weight", config_.head_dim);
    return out;
  }

  MlpHostWeights mlp(const std::string& prefix, std::int64_t width) {
    MlpHostWeights out;
    out.gate_proj = source_.matrix(prefix + "gate_proj.weight", width, hidden());
    out.up_proj = source_.matrix(prefix + "up_proj.weight", width, hidden());
    out.down_proj = source_.matrix(prefix + "down_proj.weight", hidden(), width);
    return out;
  }

  MoeHostWeights moe(const std::string& prefix) {
    MoeHostWeights out;
    out.router = source_.matrix(prefix + "gate.weight", config_.num_experts, hidden());
    if (source_.has(prefix + "experts.gate_up_proj") || source_.has(prefix + "experts.down_proj")) {
      out.experts = packed_experts(prefix + "experts.");
    } else {
      for (std::int32_t e = 0; e < config_.num_experts && source_.ok(); ++e) {
        out.experts.push_back(mlp(prefix + "experts." + std::to_string(e) + ".", config_.moe_intermediate_size));
      }
    }
    out.shared_expert = mlp(prefix + "shared_expert.", config_.shared_expert_intermediate_size);
    out.shared_expert_gate = source_.matrix(prefix + "shared_expert_gate.weight", 1, hidden());
    return out;
  }

  // gate_up_proj [E, 2I, H], gate rows first; down_proj [E, H, I].
  std::vector<MlpHostWeights> packed_experts(const std::string& prefix) {
    const std::int64_t width = config_.moe_intermediate_size;
    const auto gate_up = source_.matrices(prefix + "gate_up_proj", config_.num_experts, 2 * width, hidden());
    const auto down = source_.matrices(prefix + "down_proj", config_.num_experts, hidden(), width);
    std::vector<MlpHostWeights> out;
    if (!source_.ok()) return out;
    for (std::size_t e = 0; e < gate_up.size(); ++e) {
      out.push_back({row_range(gate_up[e], 0, width), row_range(gate_up[e], width, width), down[e]});
    }
    return out;
  }

  MtpHostWeights mtp() {
    MtpHostWeights out;
    out.fc = source_.matrix("mtp.fc.weight", hidden(), 2 * hidden());
    out.pre_fc_norm_embedding = zero_centred("mtp.pre_fc_norm_embedding.weight", hidden());
    out.pre_fc_norm_hidden = zero_centred("mtp.pre_fc_norm_hidden.weight", hidden());
    out.norm = zero_centred("mtp.norm.weight", hidden());
    out.layer = layer("mtp.layers.0.", LayerKind::kFullAttention);
    return out;
  }

  const ModelConfig& config_;
  WeightSource& source_;
};

}  // namespace

MatrixView row_range(const MatrixView& view, std::int64_t first, std::int64_t rows) {
  CHECK(view.segments.size() == 1 && first >= 0 && rows >= 0 && first + rows <= view.rows);
  const std::int64_t row_bytes = view.cols * static_cast<std::int64_t>(dtype_bytes(view.dtype));
  return {view.dtype, rows, view.cols, {{view.segments.front().data + first * row_bytes, rows}}};
}

HostWeights build_weights(const ModelConfig& config, WeightSource& source) {
  return Builder(config, source).build();
}

}  // namespace penstock
