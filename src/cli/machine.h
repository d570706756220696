// What the machine is and how fast: for `doctor`, and for the yardsticks beside a benchmark's numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace penstock::cli {

struct MemoryInfo {
  std::int64_t total_bytes = 0;
  std::int64_t available_bytes = 0;  // what this process could still take, a control group's limit counted in
};
MemoryInfo read_memory();

struct GpuInfo {
  std::string name;
  std::int64_t memory_bytes = 0;
  std::int32_t compute_capability = 0;  // 90 for 9.0; 0: not known
};
struct GpuReport {
  std::string driver;  // version; empty: no NVIDIA driver
  std::vector<GpuInfo> gpus;
  std::string problem;  // why the driver's library cannot be used, if so
};
// Asks the driver through /proc and libcuda, which is only loaded if it is there.
GpuReport find_gpus();

// Of the last-level cache; 0: the system does not say. What fits in it is not read from memory again at every step.
std::int64_t last_level_cache_bytes();

// Reading memory with `threads` threads: the best of several passes over a buffer too large for the caches.
double measure_read_bandwidth(int threads);  // bytes a second; 0 when there is not enough memory to measure
// Multiply-adds in fp32 with the widest vectors the CPU has, counted as two operations each.
double measure_fma_peak(int threads);  // operations a second

}  // namespace penstock::cli
