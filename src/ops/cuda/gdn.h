// Gated DeltaNet on CUDA: one decode step of a layer's interior in one launch, from the input projections to what the
// output projection reads: causal convolution, SiLU, L2 norm, gates, recurrence, gated RMSNorm (docs/numerics.md 3).
// Head size 128 in keys and values. Host code includes this without CUDA's headers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock::cuda {

enum class StateType : std::uint8_t { kF32, kBF16 };

// One token of each request. Pointers are to device memory, 16-byte aligned. bf16 is std::uint16_t here.
struct GdnDecodeTask {
  int batch = 0;
  int key_heads = 0, value_heads = 0;  // value_heads is a multiple of key_heads

  // [batch, ld_x] bf16: q [key_heads·128] | k [key_heads·128] | v [value_heads·128] | z [value_heads·128] | b, a
  // [value_heads] each.
  const std::uint16_t* x = nullptr;
  std::int64_t ld_x = 0;
  const float* conv_weights = nullptr;   // [4][channels], channels = (2·key_heads + value_heads)·128
  const float* neg_exp_a_log = nullptr;  // [value_heads] −exp(A_log)
  const float* dt_bias = nullptr;        // [value_heads]
  const float* norm_weight = nullptr;    // [128]
  float norm_eps = 1e-6F;
  bool sigmoid_gate = false;  // else SiLU

  // States: slot s of this layer at states + s·slot_bytes, [value_heads][128 k][128 v]; the last inputs of the
  // convolution at convs + s·conv_slot_bytes, a ring [4][channels] bf16 where token p is at row p mod 4.
  StateType state_type = StateType::kF32;
  std::byte* states = nullptr;
  std::int64_t slot_bytes = 0;
  std::byte* convs = nullptr;
  std::int64_t conv_slot_bytes = 0;
  std::int32_t slots = 0;  // slot ids are below

  // [batch]. read slot 0: the zero state, nothing is read. A negative id, or one from `slots` on, in either: padding:
  // nothing is read or written but `out`, which gets zeros. No two requests write one slot, or read one that another
  // writes.
  const std::int32_t* read_slot = nullptr;
  const std::int32_t* write_slot = nullptr;
  const std::int32_t* position = nullptr;  // of the token, from 0

  int compute_major = 9;  // of the device: 8 for sm_80
  int split = 1;          // blocks a head is split over: 1, 2, 4 (sm_90 and up). The bits are the same.

  std::uint16_t* out = nullptr;  // [batch, ld_out] bf16, value_heads·128 columns
  std::int64_t ld_out = 0;
};

// The state is rewritten at every token. Sums over k: 16 leaves of 8 ascending fused multiply-adds, then a balanced
// tree; nothing depends on the batch (level A). Launches on `stream` (a cudaStream_t) and does not wait. Returns a
// cudaError_t: what the launch said.
int gdn_recurrent_decode(const GdnDecodeTask& task, void* stream);

// The fastest split, by measurement on an H100: four where the heads do not fill the GPU, else one. 1 below sm_90,
// which has no clusters.
int gdn_recurrent_split(int batch, int value_heads, int multiprocessors, int compute_major);

// The same in the plainest form, one thread a column, for any GPU: the oracle of the others. Sums are chains.
int gdn_reference_decode(const GdnDecodeTask& task, void* stream);

}  // namespace penstock::cuda
