// Decode with the state rewritten at every token. Loads of the state are issued before anything else, so that the rest
// of the layer's interior runs in their shadow. A head is one block, or split by columns of v over a cluster of 2 or 4
// when there are too few heads to fill the GPU; the sums are the same tree in each form.
#include <cooperative_groups.h>

#include "ops/cuda/gdn_common.cuh"

namespace penstock::cuda {
namespace {

// A thread's part of the state as it is in memory: rows of k, 16 bytes of columns of v each.
template <StateType kType>
struct Packed;

template <>
struct Packed<StateType::kF32> {
  static constexpr int kColumns = 4;  // in 16 bytes
  static constexpr int kLeaf = 8;     // rows summed as one chain: what a thread has in the narrowest form
  __device__ static void unpack(const uint4& raw, float (&s)[kColumns]) {
    s[0] = __uint_as_float(raw.x);
    s[1] = __uint_as_float(raw.y);
    s[2] = __uint_as_float(raw.z);
    s[3] = __uint_as_float(raw.w);
  }
  __device__ static uint4 pack(const float (&s)[kColumns]) {
    return {__float_as_uint(s[0]), __float_as_uint(s[1]), __float_as_uint(s[2]), __float_as_uint(s[3])};
  }
};

template <>
struct Packed<StateType::kBF16> {
  static constexpr int kColumns = 8;
  static constexpr int kLeaf = 4;
  __device__ static void unpack(const uint4& raw, float (&s)[kColumns]) {
    const std::uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      s[2 * i] = __uint_as_float(words[i] << 16);
      s[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000U);
    }
  }
  __device__ static uint4 pack(const float (&s)[kColumns]) {
    std::uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(s[2 * i], s[2 * i + 1]);
      words[i] = *reinterpret_cast<const std::uint32_t*>(&pair);
    }
    return {words[0], words[1], words[2], words[3]};
  }
};

// Sᵀk and Sᵀq over kCount leaves of rows from kFirst on: a chain within a leaf, a balanced tree above.
template <StateType kType, int kFirst, int kCount, int kRows>
__device__ __forceinline__ void subtree(const uint4 (&state)[kRows], const float* key, const float* query,
                                        float (&p)[Packed<kType>::kColumns], float (&q)[Packed<kType>::kColumns]) {
  using P = Packed<kType>;
  if constexpr (kCount == 1) {
#pragma unroll
    for (int c = 0; c < P::kColumns; ++c) p[c] = q[c] = 0;
#pragma unroll
    for (int i = kFirst * P::kLeaf; i < (kFirst + 1) * P::kLeaf; ++i) {
      float s[P::kColumns];
      P::unpack(state[i], s);
#pragma unroll
      for (int c = 0; c < P::kColumns; ++c) {
        p[c] = fmaf(s[c], key[i], p[c]);
        q[c] = fmaf(s[c], query[i], q[c]);
      }
    }
  } else {
    float right_p[P::kColumns], right_q[P::kColumns];
    subtree<kType, kFirst, kCount / 2>(state, key, query, p, q);
    subtree<kType, kFirst + kCount / 2, kCount / 2>(state, key, query, right_p, right_q);
#pragma unroll
    for (int c = 0; c < P::kColumns; ++c) {
      p[c] += right_p[c];
      q[c] += right_q[c];
    }
  }
}

// Clusters, and waiting for the kernel before, came with sm_90; gdn_recurrent_decode() launches no split below that.
template <int kSplit>
__device__ __forceinline__ void tell_cluster(float* value, float x) {
#if __CUDA_ARCH__ >= 900
  auto cluster = cooperative_groups::this_cluster();
#pragma unroll
  for (int block = 0; block < kSplit; ++block) *cluster.map_shared_rank(value, block) = x;
#endif
}

// A block's shared memory may be written by others once it is known to have started, and read after cluster_sync().
__device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_sync() {
#if __CUDA_ARCH__ >= 900
  cooperative_groups::this_cluster().sync();
#endif
}

// kSplit blocks, one cluster, have a head's 128 columns between them.
template <StateType kType, int kSplit>
__global__ void __launch_bounds__(kHead, kSplit == 4                ? 8
                                         : kSplit == 2              ? 5
                                         : kType == StateType::kF32 ? 3
                                                                    : 4)
    recurrent_decode(const __grid_constant__ GdnDecodeTask task) {
  using P = Packed<kType>;
  constexpr int kWidth = kHead / kSplit;          // columns of this block
  constexpr int kLanes = kWidth / P::kColumns;    // threads across them
  constexpr int kGroups = kHead / kLanes;         // of threads, one below the other
  constexpr int kRows = kHead / kGroups;          // of k a thread has
  constexpr int kRowWords = kHead / P::kColumns;  // uint4 in a row of the state
  __shared__ float sums[2][4][kWidth];            // Sᵀk and Sᵀq by warp
  __shared__ float key[kHead], query[kHead], delta[kWidth];
  __shared__ float four[4][4];

  const int part = static_cast<int>(blockIdx.x) % kSplit, head = static_cast<int>(blockIdx.x) / kSplit;
  const int request = static_cast<int>(blockIdx.y);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kLanes, group = thread / kLanes, warp = thread / 32;
  const GdnSlots slots = slots_of(task, request);

  const std::int64_t offset = std::int64_t{head} * kHead * kRowWords + group * kRows * kRowWords + part * kLanes + lane;
  uint4 state[kRows];
  if (!slots.padding && slots.read != 0) {
    const uint4* from = reinterpret_cast<const uint4*>(task.states + slots.read * task.slot_bytes) + offset;
#pragma unroll
    for (int i = 0; i < kRows; ++i) state[i] = load_once(from + i * kRowWords);
  } else {
#pragma unroll
    for (int i = 0; i < kRows; ++i) state[i] = {0, 0, 0, 0};
  }
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();  // x is the kernel's before; the state is not
  cudaTriggerProgrammaticLaunchCompletion();
#endif
  if (slots.padding) {  // the same for the whole cluster
    if (thread < kWidth) task.out[request * task.ld_out + head * kHead + part * kWidth + thread] = 0;
    return;
  }

  if constexpr (kSplit > 1) cluster_arrive();

  // A channel of q and k a thread, in every block of the head; the first block of the first head that has them keeps
  // the inputs. Of v only the block's columns: threads beyond them repeat the first.
  const int ratio = task.value_heads / task.key_heads;
  const int key_head = head / ratio;
  const bool first = head % ratio == 0 && part == 0;
  const int column = part * kWidth + thread % kWidth;
  const float q = convolve(task, slots, request, key_head * kHead + thread, first);
  const float k = convolve(task, slots, request, (task.key_heads + key_head) * kHead + thread, first);
  const float v = convolve(task, slots, request, (2 * task.key_heads + head) * kHead + column, thread < kWidth);
  // The state meets k and q as they are; their lengths come in as factors of the sums.
  query[thread] = q;
  key[thread] = k;
  put_sum(q * q, four[0], warp);
  put_sum(k * k, four[1], warp);
  put_sum(k * q, four[2], warp);
  const GdnGates gates = gates_of(task, request, head);
  __syncthreads();
  const float q_scale = query_scale(get_sum(four[0])), k_scale = key_scale(get_sum(four[1]));
  const float k_dot_q = get_sum(four[2]) * k_scale * q_scale;

  float p[P::kColumns], r[P::kColumns];
  subtree<kType, 0, kRows / P::kLeaf>(state, key + group * kRows, query + group * kRows, p, r);
#pragma unroll
  for (int mask = kLanes; mask < 32; mask *= 2) {  // groups within a warp
#pragma unroll
    for (int c = 0; c < P::kColumns; ++c) {
      p[c] += __shfl_xor_sync(~0U, p[c], mask);
      r[c] += __shfl_xor_sync(~0U, r[c], mask);
    }
  }
  if (thread % 32 < kLanes) {
#pragma unroll
    for (int c = 0; c < P::kColumns; ++c) {
      sums[0][warp][lane * P::kColumns + c] = p[c];
      sums[1][warp][lane * P::kColumns + c] = r[c];
    }
  }
  __syncthreads();

  // One column a thread.
  const int mine = thread % kWidth;
  const float big_p = k_scale * ((sums[0][0][mine] + sums[0][1][mine]) + (sums[0][2][mine] + sums[0][3][mine]));
  const float big_q = q_scale * ((sums[1][0][mine] + sums[1][1][mine]) + (sums[1][2][mine] + sums[1][3][mine]));
  const float d = gates.beta * fmaf(-gates.decay, big_p, v);
  const float o = fmaf(d, k_dot_q, gates.decay * big_q);
  if (thread < kWidth) delta[thread] = k_scale * d;
  // Σ o² of 32 columns each; those of the other blocks come from them.
  const float squares = warp_sum(o * o);
  if constexpr (kSplit > 1) cluster_wait();
  if (thread % 32 == 0 && warp < kWidth / 32) {
    if constexpr (kSplit == 1) {
      four[3][warp] = squares;
    } else {
      tell_cluster<kSplit>(&four[3][part * (kWidth / 32) + warp], squares);
    }
  }
  __syncthreads();

  uint4* to = reinterpret_cast<uint4*>(task.states + slots.write * task.slot_bytes) + offset;
  float dc[P::kColumns];
#pragma unroll
  for (int c = 0; c < P::kColumns; ++c) dc[c] = delta[lane * P::kColumns + c];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    float s[P::kColumns];
    // Unpacked once more: kept from before, the values would take twice the registers.
    asm volatile("" : "+r"(state[i].x), "+r"(state[i].y), "+r"(state[i].z), "+r"(state[i].w));
    P::unpack(state[i], s);
    const float ki = key[group * kRows + i];
#pragma unroll
    for (int c = 0; c < P::kColumns; ++c) s[c] = fmaf(ki, dc[c], gates.decay * s[c]);
    __stcs(to + i * kRowWords, P::pack(s));
  }
  if constexpr (kSplit > 1) cluster_sync();
  if (thread < kWidth) {
    store_gated(task, request, head, column, o, get_sum(four[3]) * (1.0F / kHead));
  }
}

template <StateType kType, int kSplit>
int launch(const GdnDecodeTask& task, cudaStream_t stream) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(task.value_heads * kSplit), static_cast<unsigned>(task.batch));
  config.blockDim = dim3(kHead);
  config.stream = stream;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = kSplit;
  attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
  config.attrs = attributes;
  config.numAttrs = task.compute_major < 9 ? 0 : kSplit > 1 ? 2 : 1;
  return cudaLaunchKernelEx(&config, recurrent_decode<kType, kSplit>, task);
}

template <StateType kType>
int launch_split(const GdnDecodeTask& task, int split, cudaStream_t stream) {
  switch (split) {
    case 4:
      return launch<kType, 4>(task, stream);
    case 2:
      return launch<kType, 2>(task, stream);
    default:
      return launch<kType, 1>(task, stream);
  }
}

}  // namespace

int gdn_recurrent_split(int batch, int value_heads, int multiprocessors, int compute_major) {
  return compute_major >= 9 && batch * value_heads * 4 <= multiprocessors ? 4 : 1;
}

int gdn_recurrent_decode(const GdnDecodeTask& task, void* stream) {
  if (task.batch == 0) return cudaSuccess;
  if (task.split > 1 && task.compute_major < 9) return cudaErrorInvalidValue;
  auto* const on = static_cast<cudaStream_t>(stream);
  return task.state_type == StateType::kF32 ? launch_split<StateType::kF32>(task, task.split, on)
                                            : launch_split<StateType::kBF16>(task, task.split, on);
}

}  // namespace penstock::cuda
