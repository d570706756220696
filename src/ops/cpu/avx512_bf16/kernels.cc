// AVX-512 with vdpbf16ps: a pair of bf16 products added to an fp32 accumulator, twice the products of an FMA.
// Inputs are rounded to bf16. (As a sum of two bf16 they would cost what fp32 costs and be less exact: measured,
// dropped.)
#include "ops/cpu/avx512/simd.h"

#include "ops/cpu/kernels-inl.h"

#include "ops/cpu/avx512/linear-inl.h"

namespace penstock {
namespace {

struct DotPair {
  using X = std::uint16_t;
  template <int ROWS, int VECTORS>
  static void step(const X* const* x, int i, const __m512i* raw, __m512 (*acc)[VECTORS]) {
    PENSTOCK_UNROLL
    for (int r = 0; r < ROWS; ++r) {
      const __m512bh a = pair(x[r] + i);
      PENSTOCK_UNROLL
      for (int c = 0; c < VECTORS; ++c) acc[r][c] = _mm512_dpbf16_ps(acc[r][c], a, reinterpret_cast<__m512bh>(raw[c]));
    }
  }
  static __m512bh pair(const X* x) {
    std::int32_t bits;
    std::memcpy(&bits, x, 4);
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(bits));
  }
};

}  // namespace

const KernelTable& avx512_bf16_kernels() {
  static const KernelTable table = make_table("avx512_bf16", 12, linear_bf16<DotPair>, linear_f32);
  return table;
}

}  // namespace penstock
