// Times of the CUDA kernels beside ceilings measured in the same run: `penstock bench kernels`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "penstock/status.h"

namespace penstock::cuda {

struct KernelBenchOptions {
  std::int32_t key_heads = 16, value_heads = 32;  // of Gated DeltaNet, 128 wide
  std::vector<std::int32_t> batches = {1, 16, 128, 512};
};

struct KernelTime {
  std::string kernel;      // "gdn recurrent"
  std::string shape;       // "fp32 state, batch 128"
  double us = 0;           // median of a launch
  double ceiling_us = 0;   // reading and writing the same bytes of state in place, the fastest of several shapes
  std::int64_t bytes = 0;  // of state, read and written
};

// The GPU that would be used: "NVIDIA H100 80GB HBM3, sm_90, 132 multiprocessors". kUnavailable: there is none, and
// why.
Expected<std::string> device_name();

// One decode step of a layer's interior, per state type, batch and form. Slots rotate, so that states are not in the L2
// cache; many launches in one CUDA graph. kResourceExhausted: not enough memory, says for what.
Expected<std::vector<KernelTime>> bench_gdn_decode(const KernelBenchOptions& options);

}  // namespace penstock::cuda
