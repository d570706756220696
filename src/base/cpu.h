// What the CPU can do, asked once by cpuid.
#pragma once

#include <cstdint>
#include <string>

namespace penstock {

struct CpuFeatures {
  std::string name;     // brand string
  bool avx2 = false;    // with FMA and F16C
  bool avx512 = false;  // F, BW, DQ, VL
  bool avx512_bf16 = false;
  int cores = 1;  // usable by this process, see usable_cores()
};

CpuFeatures detect_cpu();

}  // namespace penstock
