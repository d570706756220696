#include "ops/cache_layout.h"

#include <algorithm>
#include <numeric>

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
  layout.share_slabs();
  return layout;
}

void CacheLayout::share_slabs() {
  // A model without attention still has pages, of nothing.
  const std::size_t page = std::max<std::size_t>(kv_page_bytes, 64);
  const std::size_t state = std::max<std::size_t>(state_bytes, 64);
  const std::size_t large = std::max(page, state);
  const std::size_t small = std::min(page, state);
  double least_waste = 0;
  std::size_t best_large = 0, best_small = 0;
  for (std::size_t n = 1; n <= 4; ++n) {
    for (const std::size_t m : {n * large / small, n * large / small + 1}) {
      const std::size_t unit = 64 * std::lcm(n, m);
      const std::size_t slab = (std::max(n * large, m * small) + unit - 1) / unit * unit;
      const double waste = std::max(static_cast<double>(slab) / static_cast<double>(n * large),
                                    static_cast<double>(slab) / static_cast<double>(m * small)) -
                           1;
      if (best_large == 0 || (least_waste > 0.03 && waste < least_waste)) {
        least_waste = waste;
        best_large = n;
        best_small = m;
        slab_bytes = slab;
      }
    }
  }
  pages_per_slab = static_cast<std::int32_t>(page >= state ? best_large : best_small);
  states_per_slab = static_cast<std::int32_t>(page >= state ? best_small : best_large);
  kv_page_bytes = slab_bytes / static_cast<std::size_t>(pages_per_slab);
  state_bytes = slab_bytes / static_cast<std::size_t>(states_per_slab);
}

}  // namespace penstock
