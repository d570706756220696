// AVX-512 without bf16 instructions: weights are widened, inputs stay fp32.
#include "ops/cpu/avx512/simd.h"

#include "ops/cpu/kernels-inl.h"

#include "ops/cpu/avx512/linear-inl.h"

namespace penstock {

const KernelTable& avx512_kernels() {
  static const KernelTable table = make_table("avx512", 12, linear_bf16<FmaPair>, linear_f32);
  return table;
}

}  // namespace penstock
