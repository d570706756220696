// The table for a plan.
#pragma once

#include "ops/kernels.h"
#include "ops/policy.h"

namespace penstock {

inline const KernelTable& kernel_table(const KernelPlan& plan) {
  switch (plan.isa) {
    case Isa::kReference:
      return reference_kernels();
    case Isa::kAvx2:
      return avx2_kernels();
    case Isa::kAvx512:
      return avx512_kernels();
    case Isa::kAvx512Bf16:
      break;
  }
  return plan.linear_input == LinearInput::kBF16 ? avx512_bf16_kernels() : avx512_kernels();
}

// For products that decide something, like the choice of experts: inputs stay fp32 whatever the plan.
inline const KernelTable& exact_kernel_table(const KernelPlan& plan) {
  return plan.isa == Isa::kAvx512Bf16 ? avx512_kernels() : kernel_table(plan);
}

}  // namespace penstock
