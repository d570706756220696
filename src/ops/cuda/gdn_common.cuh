// What the decode kernels of Gated DeltaNet share: inputs of one head, convolution, gates, norms.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "ops/cuda/gdn.h"

namespace penstock::cuda {

constexpr int kHead = 128;  // keys and values of a head, and threads of a block

__device__ __forceinline__ float bf16_to_float(std::uint16_t bits) {
  return __uint_as_float(std::uint32_t{bits} << 16);
}
__device__ __forceinline__ std::uint16_t float_to_bf16(float x) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
__device__ __forceinline__ float silu(float x) {
  return x / (1.0F + __expf(-x));
}
__device__ __forceinline__ float sigmoid(float x) {
  return 1.0F / (1.0F + __expf(-x));
}

// 16 bytes that nobody reads again soon.
__device__ __forceinline__ uint4 load_once(const uint4* address) {
  uint4 r;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
               : "l"(address));
  return r;
}

// Of the convolution: q, k and v.
__device__ __forceinline__ int channels_of(const GdnDecodeTask& task) {
  return (2 * task.key_heads + task.value_heads) * kHead;
}

// Sum over a warp, the same bits in each lane.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int mask = 16; mask >= 1; mask >>= 1) x += __shfl_xor_sync(~0U, x, mask);
  return x;
}

// Sums over 128 values, a warp has 32: by warps, and after a barrier (0 + 1) + (2 + 3).
__device__ __forceinline__ void put_sum(float x, float* four, int quarter) {
  const float sum = warp_sum(x);
  if (threadIdx.x % 32 == 0) four[quarter] = sum;
}
__device__ __forceinline__ float get_sum(const float* four) {
  return (four[0] + four[1]) + (four[2] + four[3]);
}

// The scales that make q and k of unit length, q's with 128^-1/2.
__device__ __forceinline__ float query_scale(float squares) {
  return rsqrtf(squares + 1e-6F) * 0.08838834764831845F;
}
__device__ __forceinline__ float key_scale(float squares) {
  return rsqrtf(squares + 1e-6F);
}

struct GdnSlots {
  std::int32_t read, write, position;
  bool padding;
};

__device__ __forceinline__ GdnSlots slots_of(const GdnDecodeTask& task, int request) {
  GdnSlots s;
  s.read = task.read_slot[request];
  s.write = task.write_slot[request];
  s.position = task.position[request];
  s.padding = s.read < 0 || s.write < 0 || s.read >= task.slots || s.write >= task.slots || s.write == 0;
  return s;
}

// SiLU of the convolution of one channel; leaves the channel's inputs in the write slot's ring when `keep`.
__device__ __forceinline__ float convolve(const GdnDecodeTask& task, const GdnSlots& slots, int request, int channel,
                                          bool keep) {
  const int channels = channels_of(task);
  const std::uint16_t now = task.x[request * task.ld_x + channel];
  const auto* read = reinterpret_cast<const std::uint16_t*>(task.convs + slots.read * task.conv_slot_bytes) + channel;
  float sum = 0;
  std::uint16_t before[3];
#pragma unroll
  for (int j = 0; j < 3; ++j) {
    const int position = slots.position - 3 + j;
    before[j] = position >= 0 && slots.read != 0 ? read[(position & 3) * channels] : std::uint16_t{0};
    sum = fmaf(task.conv_weights[j * channels + channel], bf16_to_float(before[j]), sum);
  }
  sum = fmaf(task.conv_weights[3 * channels + channel], bf16_to_float(now), sum);
  if (keep) {
    auto* write = reinterpret_cast<std::uint16_t*>(task.convs + slots.write * task.conv_slot_bytes) + channel;
    write[(slots.position & 3) * channels] = now;
    if (slots.write != slots.read) {  // the next token needs two more
      write[((slots.position + 3) & 3) * channels] = before[2];
      write[((slots.position + 2) & 3) * channels] = before[1];
    }
  }
  return silu(sum);
}

struct GdnGates {
  float decay, beta;  // e^g, sigmoid(b)
};

__device__ __forceinline__ GdnGates gates_of(const GdnDecodeTask& task, int request, int head) {
  const int channels = channels_of(task);
  const std::uint16_t* row = task.x + request * task.ld_x + channels + task.value_heads * kHead;
  const float pre = bf16_to_float(row[task.value_heads + head]) + task.dt_bias[head];
  const float softplus = pre > 20.0F ? pre : log1pf(expf(pre));
  return {expf(task.neg_exp_a_log[head] * softplus), 1.0F / (1.0F + expf(-bf16_to_float(row[head])))};
}

// w · o·rsqrt(mean o² + eps) · act(z), one column.
__device__ __forceinline__ void store_gated(const GdnDecodeTask& task, int request, int head, int column, float o,
                                            float mean_square) {
  const int channels = channels_of(task);
  const float z = bf16_to_float(task.x[request * task.ld_x + channels + head * kHead + column]);
  const float gate = task.sigmoid_gate ? sigmoid(z) : silu(z);
  const float y = o * rsqrtf(mean_square + task.norm_eps) * task.norm_weight[column] * gate;
  task.out[request * task.ld_out + head * kHead + column] = float_to_bf16(y);
}

}  // namespace penstock::cuda
