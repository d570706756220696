#include "ops/cache_layout.h"

namespace penstock {
namespace {

std::size_t round_up(std::size_t bytes) {
  return (bytes + 63) / 64 * 64;
}
std::size_t size(std::int32_t n) {
  return static_cast<std::size_t>(n);
}

}  // namespace

const char* to_string(StateDType dtype) {
  switch (dtype) {
    case StateDType::kF32:
      return "float32";
    case StateDType::kBF16:
      return "bfloat16";
    case StateDType::kI8:
      return "int8";
  }
  return "?";
}

const char* to_string(KvDType dtype) {
  return dtype == KvDType::kF32 ? "float32" : "bfloat16";
}
const char* to_string(GdnBackend backend) {
  return backend == GdnBackend::kWindow ? "window" : "recurrent";
}

CacheLayout CacheLayout::make(const ModelConfig& config, GdnBackend backend, StateDType state_dtype, KvDType kv_dtype) {
  CacheLayout layout;
  layout.backend = backend;
  layout.state_dtype = state_dtype;
  layout.kv_dtype = kv_dtype;
  layout.gdn_layers = config.count(LayerKind::kGdn);
  layout.attention_layers = config.count(LayerKind::kFullAttention);

  const std::size_t kv_element = kv_dtype == KvDType::kF32 ? 4 : 2;
  layout.kv_head_bytes = round_up(2 * size(config.head_dim) * kBlockTokens * kv_element);
  layout.kv_layer_bytes = layout.kv_head_bytes * size(config.num_key_value_heads);
  layout.kv_page_bytes = layout.kv_layer_bytes * size(layout.attention_layers);

  const std::size_t dk = size(config.linear_key_head_dim);
  const std::size_t dv = size(config.linear_value_head_dim);
  const std::size_t hk = size(config.linear_num_key_heads);
  const std::size_t hv = size(config.linear_num_value_heads);
  const std::size_t channels = size(config.conv_channels());
  switch (state_dtype) {
    case StateDType::kF32:
      layout.state_head_bytes = dk * dv * 4;
      break;
    case StateDType::kBF16:
      layout.state_head_bytes = dk * dv * 2;
      break;
    case StateDType::kI8:
      layout.state_head_bytes = dk * dv + dv * 4;
      break;
  }
  layout.state_head_bytes = round_up(layout.state_head_bytes);
  layout.state_conv_offset = layout.state_head_bytes * hv;
  layout.state_layer_bytes = round_up(layout.state_conv_offset + 3 * channels * 4);
  layout.state_bytes = layout.state_layer_bytes * size(layout.gdn_layers);

  if (backend == GdnBackend::kWindow) {
    layout.window_row_bytes = state_dtype == StateDType::kF32 ? 4 : 2;
    layout.window_d_offset = hk * dk * kBlockTokens * layout.window_row_bytes;
    layout.window_g_offset = layout.window_d_offset + hv * dv * kBlockTokens * layout.window_row_bytes;
    layout.window_conv_offset = layout.window_g_offset + hv * kBlockTokens * 4;
    layout.window_layer_bytes = round_up(layout.window_conv_offset + size(kConvHistory) * channels * 4);
    layout.window_bytes = layout.window_layer_bytes * size(layout.gdn_layers);
  }
  return layout;
}

}  // namespace penstock
