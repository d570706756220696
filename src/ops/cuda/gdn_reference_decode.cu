// Decode in the plainest form: a thread owns a column of the state and walks down it.
#include "ops/cuda/gdn_common.cuh"

namespace penstock::cuda {
namespace {

template <typename Element>
__device__ float load(const Element* address);
template <>
__device__ float load(const float* address) {
  return *address;
}
template <>
__device__ float load(const std::uint16_t* address) {
  return bf16_to_float(*address);
}

__device__ void store(float* address, float x) {
  *address = x;
}
__device__ void store(std::uint16_t* address, float x) {
  *address = float_to_bf16(x);
}

template <typename Element>
__global__ void __launch_bounds__(kHead) reference_decode(const __grid_constant__ GdnDecodeTask task) {
  __shared__ float key[kHead], query[kHead];
  __shared__ float four[4][4];
  const int head = static_cast<int>(blockIdx.x), request = static_cast<int>(blockIdx.y);
  const int column = static_cast<int>(threadIdx.x);
  const GdnSlots slots = slots_of(task, request);
  if (slots.padding) {
    task.out[request * task.ld_out + head * kHead + column] = 0;
    return;
  }
  const int ratio = task.value_heads / task.key_heads;
  const int key_head = head / ratio;
  const float q = convolve(task, slots, request, key_head * kHead + column, head % ratio == 0);
  const float k = convolve(task, slots, request, (task.key_heads + key_head) * kHead + column, head % ratio == 0);
  const float v = convolve(task, slots, request, (2 * task.key_heads + head) * kHead + column, true);
  const GdnGates gates = gates_of(task, request, head);
  put_sum(q * q, four[0], column / 32);
  put_sum(k * k, four[1], column / 32);
  __syncthreads();
  query[column] = q * query_scale(get_sum(four[0]));
  key[column] = k * key_scale(get_sum(four[1]));
  __syncthreads();

  const std::int64_t offset = std::int64_t{head} * kHead * kHead + column;
  const auto* from = reinterpret_cast<const Element*>(task.states + slots.read * task.slot_bytes) + offset;
  auto* to = reinterpret_cast<Element*>(task.states + slots.write * task.slot_bytes) + offset;
  float p = 0;
  for (int i = 0; i < kHead && slots.read != 0; ++i) p = fmaf(load(from + i * kHead), key[i], p);
  const float d = gates.beta * fmaf(-gates.decay, p, v);
  float o = 0;
  for (int i = 0; i < kHead; ++i) {
    const float before = slots.read != 0 ? load(from + i * kHead) : 0.0F;
    const float after = fmaf(key[i], d, gates.decay * before);
    o = fmaf(after, query[i], o);
    store(to + i * kHead, after);
  }
  put_sum(o * o, four[2], column / 32);
  __syncthreads();
  store_gated(task, request, head, column, o, get_sum(four[2]) * (1.0F / kHead));
}

}  // namespace

int gdn_reference_decode(const GdnDecodeTask& task, void* stream) {
  if (task.batch == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(task.value_heads), static_cast<unsigned>(task.batch));
  auto* const on = static_cast<cudaStream_t>(stream);
  if (task.state_type == StateType::kF32) {
    reference_decode<float><<<grid, kHead, 0, on>>>(task);
  } else {
    reference_decode<std::uint16_t><<<grid, kHead, 0, on>>>(task);
  }
  return cudaGetLastError();
}

}  // namespace penstock::cuda
