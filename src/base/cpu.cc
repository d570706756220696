#include "base/cpu.h"

#include <cpuid.h>

#include <array>
#include <cstring>

#include "base/thread_pool.h"

namespace penstock {
namespace {

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
  return r;
}

bool bit(unsigned value, int index) {
  return ((value >> index) & 1U) != 0;
}

// The register state the operating system saves on a context switch: without it the instructions fault.
unsigned enabled_state() {
  unsigned low = 0;
  unsigned high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

std::string brand_string() {
  if (cpuid(0x80000000U, 0).eax < 0x80000004U) return "unknown";
  std::array<char, 49> text{};
  for (unsigned i = 0; i < 3; ++i) {
    const Registers r = cpuid(0x80000002U + i, 0);
    const std::array<unsigned, 4> words = {r.eax, r.ebx, r.ecx, r.edx};
    std::memcpy(text.data() + std::size_t{16} * i, words.data(), 16);
  }
  std::string name(text.data());
  const auto first = name.find_first_not_of(' ');
  const auto last = name.find_last_not_of(' ');
  return first == std::string::npos ? "unknown" : name.substr(first, last - first + 1);
}

}  // namespace

CpuFeatures detect_cpu() {
  CpuFeatures features;
  features.name = brand_string();
  features.cores = usable_cores();
  if (cpuid(0, 0).eax < 7) return features;
  const Registers one = cpuid(1, 0);
  const Registers seven = cpuid(7, 0);
  if (!bit(one.ecx, 27)) return features;  // OSXSAVE
  const unsigned state = enabled_state();
  const bool ymm_state = (state & 0x6U) == 0x6U;
  const bool zmm_state = (state & 0xE6U) == 0xE6U;
  features.avx2 = ymm_state && bit(one.ecx, 12) && bit(one.ecx, 29) && bit(seven.ebx, 5);
  features.avx512 = features.avx2 && zmm_state && bit(seven.ebx, 16) && bit(seven.ebx, 17) && bit(seven.ebx, 30) &&
                    bit(seven.ebx, 31);
  features.avx512_bf16 = features.avx512 && seven.eax >= 1 && bit(cpuid(7, 1).eax, 5);
  return features;
}

}  // namespace penstock
