// The table for a plan.
#pragma once

#include "ops/kernels.h"
#include "ops/policy.h"

namespace penstock {

inline const KernelTable& kernel_table(const KernelPlan& plan) {
  switch (plan.isa) {
    case Isa::kReference: return reference_kernels();
    case Isa::kAvx2: return avx2_kernels();
    case Isa::kAvx512: return avx512_kernels();
    case Isa::kAvx512Bf16: break;
  }
  switch (plan.linear_input) {
    case LinearInput::kBF16: return avx512_bf16_kernels();
    case LinearInput::kBF16x2: return avx512_bf16x2_kernels();
    case LinearInput::kF32: break;
  }
  return avx512_kernels();
}

}  // namespace penstock
