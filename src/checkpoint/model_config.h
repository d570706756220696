// config.json and generation_config.json as the model code reads them: flat, checked, every number in range.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/status.h"

namespace penstock {

enum class ModelFamily : std::uint8_t { kQwen35Dense, kQwen35Moe, kQwen3Next };
enum class LayerKind : std::uint8_t { kGdn, kFullAttention };
enum class GateActivation : std::uint8_t { kSilu, kSigmoid };

const char* to_string(ModelFamily family);  // "qwen3_5", "qwen3_5_moe", "qwen3_next"

struct ModelConfig {
  ModelFamily family = ModelFamily::kQwen35Dense;
  std::string model_type;    // as config.json spells it
  std::string architecture;  // architectures[0], may be empty
  bool nested = false;       // text_config inside a multimodal config

  std::int32_t vocab_size = 0;
  std::int32_t hidden_size = 0;
  std::int32_t max_position_embeddings = 0;  // tokens
  float rms_norm_eps = 1e-6F;
  bool tie_word_embeddings = false;  // what config.json says; the checkpoint decides by lm_head's presence
  std::vector<LayerKind> layers;

  // Full attention.
  std::int32_t num_attention_heads = 0;
  std::int32_t num_key_value_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t rotary_dim = 0;  // of head_dim, from partial_rotary_factor; even
  double rope_theta = 10000.0;

  // Gated DeltaNet. Value head h reads key head h / (value heads / key heads).
  std::int32_t linear_num_key_heads = 0;
  std::int32_t linear_num_value_heads = 0;
  std::int32_t linear_key_head_dim = 0;
  std::int32_t linear_value_head_dim = 0;
  std::int32_t linear_conv_kernel_dim = 0;
  GateActivation gdn_gate = GateActivation::kSilu;  // output_gate_type: absent, "swish" or "silu"; "sigmoid"
  std::string mamba_ssm_dtype = "float32";          // the checkpoint's wish

  // Feed-forward: dense when num_experts is 0.
  std::int32_t intermediate_size = 0;
  std::int32_t num_experts = 0;
  std::int32_t num_experts_per_tok = 0;
  std::int32_t moe_intermediate_size = 0;
  std::int32_t shared_expert_intermediate_size = 0;
  bool norm_topk_prob = true;

  std::int32_t mtp_num_hidden_layers = 0;   // 0 or 1; of an opened checkpoint: whether the weights are there
  std::vector<std::int32_t> eos_token_ids;  // of config.json alone

  bool is_moe() const { return num_experts > 0; }
  std::int32_t num_layers() const { return static_cast<std::int32_t>(layers.size()); }
  std::int32_t count(LayerKind kind) const;
  // Channels of the GDN convolution: q | k | v.
  std::int32_t conv_channels() const {
    return 2 * linear_num_key_heads * linear_key_head_dim + linear_num_value_heads * linear_value_head_dim;
  }
};

struct GenerationConfig {
  std::vector<std::int32_t> eos_token_ids;  // generation_config.json's, else config.json's
  std::optional<bool> do_sample;            // false: the default temperature is 0
  std::optional<float> temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<std::int32_t> top_k;
};

// `dir`/config.json. Known families that are not supported, quantised checkpoints and values out of range are refused
// with the field, the value and what is supported.
Expected<ModelConfig> read_model_config(const std::filesystem::path& dir);
Expected<ModelConfig> parse_model_config(std::string_view json);  // for tests and fuzzing

// A missing file is fine: everything is then taken from `config`.
Expected<GenerationConfig> read_generation_config(const std::filesystem::path& dir, const ModelConfig& config);
Expected<GenerationConfig> parse_generation_config(std::string_view json, const ModelConfig& config);

}  // namespace penstock
