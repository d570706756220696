// The operators' inner kernels, one table of function pointers per instruction set. Each function does the work of one
// task; src/ops/*.cc split an operator into tasks over the thread pool. Every output element is one chain of fused
// multiply-adds in ascending order that does not depend on how many rows are computed together (numerics.md 2): that is
// what makes levels A, B and C hold.
//
// All activations are fp32, row-major; `ld` are elements between rows. Pointers do not alias unless said.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cache_layout.h"

// Loops over a kernel's registers: unrolled early enough that the accumulators never touch memory (measured: g++ 12
// otherwise stores every one of them in every iteration).
#define PENSTOCK_UNROLL _Pragma("GCC unroll 16")

namespace penstock {

constexpr int kPanel = 32;        // output columns of a weight panel
constexpr int kMaxTileRows = 12;  // most rows of any linear tile

// A tile of Y = X·Wᵀ: `panels` neighbouring panels of 32 columns, `rows` rows.
struct LinearTile {
  const void* x[kMaxTileRows];  // row r: fp32 [k], or bf16 [k]
  int rows = 0;
  int panels = 1;                 // 1, or 2 when rows <= 4
  const void* weights = nullptr;  // bf16 [panels][k/2][32][2], or fp32 [panels][k][32]
  std::int64_t panel_bytes = 0;
  int k = 0;             // even
  float* out = nullptr;  // [rows][32·panels]
};

// Convolution over tokens of one sequence, channels [0, channels) from the pointers: SiLU(Σ_j w_j u_{t−3+j}).
struct ConvTask {
  const float* input;  // [tokens, ld_input]
  std::int64_t ld_input;
  const float* history[3];  // the three inputs before the first token, oldest first; null: zero
  const float* weights;     // [4][ld_weights]
  std::int64_t ld_weights;
  float* output;  // [tokens, ld_output]
  std::int64_t ld_output;
  int tokens;
  int channels;  // multiple of 16
  // After the convolution: nothing, or x·rsqrt(Σx² + 1e-6)·scale over the channels (one head of q or k).
  bool l2_norm;
  float scale;
  bool round_bf16;  // round the result to bf16 (keys beside a bf16 window)
};

// Rows of one value head: what both forms of Gated DeltaNet read and write.
struct GdnRows {
  StateDType state_dtype;
  int dk, dv;  // multiples of 16
  int rows;
  const float* q;  // [rows, ld_q], normalised and scaled
  const float* k;  // [rows, ld_k], normalised
  const float* v;  // [rows, ld_v]
  std::int64_t ld_q, ld_k, ld_v;
  const float* g;     // [rows, ld_gate] log decay
  const float* beta;  // [rows, ld_gate]
  std::int64_t ld_gate;
  float* output;  // [rows, ld_output]
  std::int64_t ld_output;
  float* scratch;  // gdn_scratch_floats(dk, dv)
};

// Rows [row0, row0 + rows) of one block, window form (numerics.md 3).
struct GdnWindowTask : GdnRows {
  const std::byte* state;  // base snapshot of this head, null: zero
  std::byte* keys;         // window: [dk][64], rows < row0 + rows are there
  std::byte* d;            // window: [64][dv]
  float* gate_sum;         // window: G [64]
  std::byte* fold_to;      // null, or where S1 goes (may be `state`); rows end at 64
  int row0;
  bool same_keys;  // the call before had these keys, k and q: their products are still in scratch
};

// The same rows in recurrent form: the state after the last row goes to state_out (may be `state`).
struct GdnRecurrentTask : GdnRows {
  const std::byte* state;  // null: zero
  std::byte* state_out;
};

// y = w · x·rsqrt(mean x² + eps) · act(z), one head.
struct GatedNormTask {
  float* x;  // [rows, ld_x], in place
  std::int64_t ld_x;
  const float* z;  // [rows, ld_z]
  std::int64_t ld_z;
  const float* weight;  // [n]
  int rows, n;
  float eps;
  bool sigmoid_gate;  // else SiLU
};

// Some query rows of one sequence against one kv head: causal, keys in blocks of 64 on the absolute grid, online
// softmax in ascending order, then the output gate.
struct AttentionTask {
  KvDType kv_dtype;
  int head_dim;            // multiple of 16
  const std::byte* pages;  // pool base
  std::int64_t page_bytes;
  std::int64_t page_offset;      // of this layer and head within a page
  const std::int32_t* page_ids;  // of the sequence, from block 0
  int rows;                      // <= kMaxAttentionRows
  const float* const* q;         // [rows] pointers to [head_dim], normed, rotated, scaled
  const float* const* gate;      // [rows] pointers to [head_dim]
  float* const* output;          // [rows] pointers to [head_dim]
  const std::int32_t* position;  // [rows] ascending
  float* scratch;                // attention_scratch_floats(head_dim)
};
constexpr int kMaxAttentionRows = 24;

// Norm over head_dim with weight, then rotary embedding of the first rotary_dim, times scale.
struct HeadNormTask {
  const float* x;       // [head_dim]
  float* y;             // [head_dim], may be x
  const float* weight;  // [head_dim], 1 + w
  const float* cosine;  // [rotary_dim / 2]
  const float* sine;    // [rotary_dim / 2]
  int head_dim, rotary_dim;
  float eps, scale;
};

struct KernelTable {
  const char* name;
  int tile_rows;  // most rows of linear_*

  void (*linear_bf16)(const LinearTile& tile);                           // bf16 weights
  void (*linear_f32)(const LinearTile& tile);                            // fp32 weights, fp32 inputs
  void (*round_bf16)(const float* x, std::uint16_t* y, std::int64_t n);  // to nearest, ties to even

  void (*rms_norm)(const float* x, const float* weight, float* y, int n, float eps);  // weight is 1 + w
  void (*silu_mul_tile)(const float* tile, int rows, std::int64_t ld_tile, float* y, std::int64_t ld_y, int columns);
  void (*add)(float* y, const float* x, int n);                  // y += x
  void (*add_scaled)(float* y, const float* x, float a, int n);  // y += a·x

  void (*conv)(const ConvTask& task);
  void (*gdn_window)(const GdnWindowTask& task);
  void (*gdn_recurrent)(const GdnRecurrentTask& task);
  void (*gated_norm)(const GatedNormTask& task);
  void (*head_norm)(const HeadNormTask& task);
  void (*attention)(const AttentionTask& task);
};

constexpr std::int64_t gdn_scratch_floats(int dk, int dv) {
  // P and Q, k·k and k·q of 64 rows; a state; coefficients of a fold.
  return std::int64_t{2} * 64 * dv + std::int64_t{2} * 64 * 64 + std::int64_t{dk} * dv + std::int64_t{dk} * 64 +
         4 * 64 + 2 * dv;
}
constexpr std::int64_t attention_scratch_floats(int head_dim) {
  return std::int64_t{kMaxAttentionRows} * (64 + head_dim) + 3 * kMaxAttentionRows;
}

// Tables of instruction sets this build has; the caller has checked the CPU.
const KernelTable& reference_kernels();
const KernelTable& avx2_kernels();
const KernelTable& avx512_kernels();
const KernelTable& avx512_bf16_kernels();  // linear_bf16 reads bf16 inputs

}  // namespace penstock
