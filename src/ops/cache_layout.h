// Sizes of what a request keeps between steps: KV pages, states (snapshots), windows. Pools of such slots belong to
// src/cache; the operators read and write them through CachePools. Slot 0 of every pool is reserved: never given out,
// never written; as a state it means the zero state (contract S1, numerics 2.7).
#pragma once

#include <cstddef>
#include <cstdint>

#include "checkpoint/model_config.h"

namespace penstock {

constexpr std::int32_t kBlockTokens = 64;  // the absolute grid everything sits on
constexpr std::int32_t kConvHistory = 4;   // rows of the window's ring of convolution inputs

enum class StateDType : std::uint8_t { kF32, kBF16, kI8 };
enum class KvDType : std::uint8_t { kF32, kBF16 };
// window: base state + rows, folded every 64 tokens. recurrent: the state is rewritten at every token.
enum class GdnBackend : std::uint8_t { kWindow, kRecurrent };

const char* to_string(StateDType dtype);    // "float32", "bfloat16", "int8"
const char* to_string(KvDType dtype);       // "float32", "bfloat16"
const char* to_string(GdnBackend backend);  // "window", "recurrent"

struct CacheLayout {
  GdnBackend backend = GdnBackend::kWindow;
  StateDType state_dtype = StateDType::kF32;
  KvDType kv_dtype = KvDType::kF32;
  std::int32_t gdn_layers = 0, attention_layers = 0;

  // KV page: per attention layer and kv head, keys [head_dim][64 tokens] then values [64 tokens][head_dim].
  std::size_t kv_head_bytes = 0;   // keys and values of one head
  std::size_t kv_layer_bytes = 0;  // all heads of one layer
  std::size_t kv_page_bytes = 0;

  // State: per GDN layer, value heads of [Dk][Dv] (int8: then fp32 scales [Dv]), then the last three convolution inputs
  // [3][channels] fp32, oldest first.
  std::size_t state_head_bytes = 0;
  std::size_t state_conv_offset = 0;  // within a layer
  std::size_t state_layer_bytes = 0;
  std::size_t state_bytes = 0;

  // Window: per GDN layer, keys per key head [Dk][64] , then per value head d [64][Dv], then G [64] fp32 per value
  // head, then the ring of convolution inputs [4][channels] fp32 (token p at row p mod 4). Rows are fp32 beside an fp32
  // state, else bf16. 0 bytes for the recurrent backend.
  std::size_t window_row_bytes = 4;  // of one element of k and d
  std::size_t window_d_offset = 0, window_g_offset = 0, window_conv_offset = 0;
  std::size_t window_layer_bytes = 0;
  std::size_t window_bytes = 0;

  // KV pages and states come from one arena of equal slabs (contract S6): a slab is cut into pages or into states.
  std::size_t slab_bytes = 0;
  std::int32_t pages_per_slab = 1, states_per_slab = 1;

  static CacheLayout make(const ModelConfig& config, GdnBackend backend, StateDType state_dtype, KvDType kv_dtype);
  // Pads kv_page_bytes and state_bytes until whole numbers of both fill a slab, with the fewest in one that waste at
  // most 3 % (or the least waste there is with up to four of the larger kind).
  void share_slabs();
};

// Slot i of a pool starts at base + i × bytes; every size is a multiple of 64 and every base is 64-byte aligned. Pages
// and states have the same base.
struct CachePools {
  std::byte* kv_pages = nullptr;
  std::byte* states = nullptr;
  std::byte* windows = nullptr;
};

}  // namespace penstock
