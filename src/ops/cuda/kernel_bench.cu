#include "ops/cuda/kernel_bench.h"

#include <algorithm>
#include <functional>
#include <random>

#include "base/dtype.h"
#include "ops/cuda/device_buffer.cuh"
#include "ops/cuda/gdn_common.cuh"

namespace penstock::cuda {
namespace {

// Each block reads kWords·2 KiB and writes them back: what rewriting states costs when nothing is computed.
template <int kWords>
__global__ void __launch_bounds__(kHead)
    rewrite(std::byte* states, std::int64_t slot_bytes, const std::int32_t* slots) {
  auto* at = reinterpret_cast<uint4*>(states + slots[blockIdx.y] * slot_bytes) +
             std::int64_t{blockIdx.x} * kWords * kHead + threadIdx.x;
  uint4 words[kWords];
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    words[i] = load_once(at + i * kHead);
  }
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    words[i].x ^= 1;
    __stcs(at + i * kHead, words[i]);
  }
}

template <int kWords>
void launch_rewrite(std::byte* states, std::int64_t slot_bytes, std::int64_t state_bytes, int batch,
                    const std::int32_t* slots, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(state_bytes / (kWords * kHead * 16)), static_cast<unsigned>(batch));
  rewrite<kWords><<<grid, kHead, 0, stream>>>(states, slot_bytes, slots);
}

Status cuda_error(cudaError_t status, const char* what) {
  const std::string text = std::string(what) + ": " + cudaGetErrorString(status);
  return status == cudaErrorMemoryAllocation ? resource_exhausted(text) : internal_error(text);
}

// Median time of a call in µs: `calls` of them in one graph, replayed. call(i) launches on the stream.
Expected<double> time_calls(int calls, const std::function<int(int, cudaStream_t)>& call) {
  constexpr int kReplays = 15;
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaEvent_t begin = nullptr, end = nullptr;
  cudaStreamCreate(&stream);
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
  cudaError_t status = cudaSuccess;
  for (int i = 0; i < calls && status == cudaSuccess; ++i) status = static_cast<cudaError_t>(call(i, stream));
  const cudaError_t captured = cudaStreamEndCapture(stream, &graph);
  if (status == cudaSuccess) status = captured;
  if (status == cudaSuccess) status = cudaGraphInstantiate(&exec, graph, 0);
  std::vector<float> times;
  for (int i = 0; i < kReplays && status == cudaSuccess; ++i) {
    cudaEventRecord(begin, stream);
    cudaGraphLaunch(exec, stream);
    cudaEventRecord(end, stream);
    status = cudaEventSynchronize(end);
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    times.push_back(ms * 1000 / static_cast<float>(calls));
  }
  if (exec != nullptr) cudaGraphExecDestroy(exec);
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaStreamDestroy(stream);
  if (status != cudaSuccess) return cuda_error(status, "timing a kernel");
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// Everything a decode step of one layer reads, filled with random numbers.
struct Layer {
  DeviceBuffer<std::uint16_t> x, out, convs;
  DeviceBuffer<float> conv_weights, neg_exp_a_log, dt_bias, norm_weight;
  DeviceBuffer<std::uint32_t> states;
  DeviceBuffer<std::int32_t> slots, positions;
  GdnDecodeTask task;

  bool ok() const { return x.ok() && out.ok() && convs.ok() && states.ok() && slots.ok() && positions.ok(); }
};

Layer make_layer(const KernelBenchOptions& options, StateType type, int batch, int sets) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto floats = [&](std::size_t count, float scale, float shift) {
    std::vector<float> values(count);
    for (float& value : values) value = shift + scale * normal(random);
    return values;
  };
  const auto halves = [&](std::size_t count, float scale) {
    std::vector<std::uint16_t> values(count);
    for (std::uint16_t& value : values) value = penstock::float_to_bf16(scale * normal(random));
    return values;
  };
  const auto hv = static_cast<std::size_t>(options.value_heads), hk = static_cast<std::size_t>(options.key_heads);
  const std::size_t channels = (2 * hk + hv) * kHead, width = channels + hv * kHead + 2 * hv;
  const std::size_t state_bytes = hv * kHead * kHead * (type == StateType::kF32 ? 4 : 2);
  const auto slots = static_cast<std::size_t>(sets * batch) + 1;

  Layer layer;
  layer.x = DeviceBuffer<std::uint16_t>(halves(static_cast<std::size_t>(batch) * width, 1));
  layer.out = DeviceBuffer<std::uint16_t>(static_cast<std::size_t>(batch) * hv * kHead);
  layer.conv_weights = DeviceBuffer<float>(floats(4 * channels, 0.4F, 0));
  layer.neg_exp_a_log = DeviceBuffer<float>(floats(hv, 0.01F, -0.1F));
  layer.dt_bias = DeviceBuffer<float>(floats(hv, 1, 0));
  layer.norm_weight = DeviceBuffer<float>(floats(kHead, 0.1F, 1));
  layer.convs = DeviceBuffer<std::uint16_t>(slots * 4 * channels);
  layer.states = DeviceBuffer<std::uint32_t>(slots * state_bytes / 4);
  std::vector<std::int32_t> order(slots - 1);
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i) + 1;
  std::shuffle(order.begin(), order.end(), random);
  layer.slots = DeviceBuffer<std::int32_t>(order);
  layer.positions = DeviceBuffer<std::int32_t>(std::vector<std::int32_t>(static_cast<std::size_t>(batch), 777));
  if (!layer.ok()) return layer;
  // Random numbers, not zeros: the same piece again and again will do.
  const std::vector<float> fp32 = floats(std::size_t{1} << 20, 0.1F, 0);
  const std::vector<std::uint16_t> bf16 = halves(std::size_t{1} << 21, 0.1F);
  const void* piece = type == StateType::kF32 ? static_cast<const void*>(fp32.data()) : bf16.data();
  const std::size_t piece_bytes = std::size_t{1} << 22;
  for (std::size_t at = 0; at < slots * state_bytes; at += piece_bytes) {
    cudaMemcpy(reinterpret_cast<std::byte*>(layer.states.get()) + at, piece,
               std::min(piece_bytes, slots * state_bytes - at), cudaMemcpyHostToDevice);
  }
  cudaMemset(layer.convs.get(), 0, slots * 4 * channels * 2);

  GdnDecodeTask& task = layer.task;
  task.batch = batch;
  task.key_heads = options.key_heads;
  task.value_heads = options.value_heads;
  task.x = layer.x.get();
  task.ld_x = static_cast<std::int64_t>(width);
  task.conv_weights = layer.conv_weights.get();
  task.neg_exp_a_log = layer.neg_exp_a_log.get();
  task.dt_bias = layer.dt_bias.get();
  task.norm_weight = layer.norm_weight.get();
  task.state_type = type;
  task.states = reinterpret_cast<std::byte*>(layer.states.get());
  task.slot_bytes = static_cast<std::int64_t>(state_bytes);
  task.convs = reinterpret_cast<std::byte*>(layer.convs.get());
  task.conv_slot_bytes = static_cast<std::int64_t>(4 * channels * 2);
  task.slots = static_cast<std::int32_t>(slots);
  task.position = layer.positions.get();
  task.out = layer.out.get();
  task.ld_out = static_cast<std::int64_t>(hv * kHead);
  return layer;
}

}  // namespace

Expected<std::string> device_name() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    return unavailable(std::string("no NVIDIA GPU can be used here: ") +
                       (status == cudaSuccess ? "none was found" : cudaGetErrorString(status)));
  }
  cudaDeviceProp device = {};
  if (const cudaError_t failed = cudaGetDeviceProperties(&device, 0); failed != cudaSuccess) {
    return cuda_error(failed, "asking for the GPU's properties");
  }
  return std::string(device.name) + ", sm_" + std::to_string(device.major) + std::to_string(device.minor) + ", " +
         std::to_string(device.multiProcessorCount) + " multiprocessors";
}

Expected<std::vector<KernelTime>> bench_gdn_decode(const KernelBenchOptions& options) {
  cudaDeviceProp device = {};
  if (const cudaError_t failed = cudaGetDeviceProperties(&device, 0); failed != cudaSuccess) {
    return cuda_error(failed, "asking for the GPU's properties");
  }
  std::vector<KernelTime> rows;
  for (const StateType type : {StateType::kF32, StateType::kBF16}) {
    for (const std::int32_t batch : options.batches) {
      const std::int64_t state_bytes =
          std::int64_t{options.value_heads} * kHead * kHead * (type == StateType::kF32 ? 4 : 2);
      // Half a gigabyte of states before a slot comes back.
      const auto sets =
          static_cast<int>(std::clamp<std::int64_t>((std::int64_t{1} << 29) / (state_bytes * batch) + 1, 2, 256));
      Layer layer = make_layer(options, type, batch, sets);
      const std::string shape =
          std::string(type == StateType::kF32 ? "fp32" : "bf16") + " state, batch " + std::to_string(batch);
      if (!layer.ok()) return resource_exhausted("not enough GPU memory for " + shape + "; leave that batch out");
      const int calls = std::max(50, sets);
      const auto slots_of_call = [&](int i) { return layer.slots.get() + std::int64_t{i % sets} * batch; };

      double ceiling = 0;
      const auto rewriters = {launch_rewrite<2>, launch_rewrite<4>, launch_rewrite<8>, launch_rewrite<16>};
      for (const auto rewriter : rewriters) {
        PENSTOCK_ASSIGN_OR_RETURN(const double us, time_calls(calls, [&](int i, cudaStream_t stream) {
                                    rewriter(layer.task.states, layer.task.slot_bytes, state_bytes, batch,
                                             slots_of_call(i), stream);
                                    return static_cast<int>(cudaGetLastError());
                                  }));
        ceiling = ceiling == 0 ? us : std::min(ceiling, us);
      }
      const auto add = [&](const char* kernel, const std::function<int(const GdnDecodeTask&, void*)>& run) -> Status {
        PENSTOCK_ASSIGN_OR_RETURN(const double us, time_calls(calls, [&](int i, cudaStream_t stream) {
                                    layer.task.read_slot = layer.task.write_slot = slots_of_call(i);
                                    return run(layer.task, stream);
                                  }));
        rows.push_back({kernel, shape, us, ceiling, 2 * state_bytes * batch});
        return {};
      };
      layer.task.compute_major = device.major;
      layer.task.split = gdn_recurrent_split(batch, options.value_heads, device.multiProcessorCount, device.major);
      PENSTOCK_RETURN_IF_ERROR(add("gdn recurrent", gdn_recurrent_decode));
      PENSTOCK_RETURN_IF_ERROR(add("gdn reference", gdn_reference_decode));
    }
  }
  return rows;
}

}  // namespace penstock::cuda
