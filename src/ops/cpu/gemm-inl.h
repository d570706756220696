// Small matrix products out of cache, for the parts of GDN and attention that multiply activations by activations.
// Included once by each instruction set's kernels.cc, after its simd.h.
#pragma once

namespace penstock {
namespace {

// e^x to about 1 ulp for x <= 88; 0 below -87.
inline Simd::V exp_lanes(Simd::V x) {
  using S = Simd;
  const S::V clamped = S::min(S::max(x, S::set1(-87.0F)), S::set1(88.0F));
  const S::V n = S::round(S::mul(clamped, S::set1(1.44269504F)));
  S::V r = S::fma(n, S::set1(-0.693359375F), clamped);  // ln 2 in two parts: the first product is exact
  r = S::fma(n, S::set1(2.12194440e-4F), r);
  S::V p = S::set1(1.9875691500e-4F);
  p = S::fma(p, r, S::set1(1.3981999507e-3F));
  p = S::fma(p, r, S::set1(8.3334519073e-3F));
  p = S::fma(p, r, S::set1(4.1665795894e-2F));
  p = S::fma(p, r, S::set1(1.6666665459e-1F));
  p = S::fma(p, r, S::set1(5.0000001201e-1F));
  p = S::add(S::fma(S::mul(r, r), p, r), S::set1(1.0F));
  return S::less_or_zero(x, S::set1(-87.0F), S::mul(p, S::pow2(n)));
}

inline Simd::V sigmoid_lanes(Simd::V x) {
  return Simd::div(Simd::set1(1.0F), Simd::add(Simd::set1(1.0F), exp_lanes(Simd::sub(Simd::zero(), x))));
}
inline Simd::V silu_lanes(Simd::V x) {
  return Simd::mul(x, sigmoid_lanes(x));
}

// out[r][c] (+)= Σ_k x[r][k]·b[k][c] for ROWS rows and VECTORS vectors of columns, k ascending in one chain.
template <int ROWS, int VECTORS, bool ACCUMULATE, typename B>
inline void gemm_tile(const float* const* x, const B* b, std::int64_t ld_b, int k, float* const* out) {
  using S = Simd;
  S::V acc[ROWS][VECTORS];
  PENSTOCK_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    PENSTOCK_UNROLL
    for (int c = 0; c < VECTORS; ++c) acc[r][c] = ACCUMULATE ? S::load(out[r] + c * S::kLanes) : S::zero();
  }
  for (int i = 0; i < k; ++i) {
    S::V row[VECTORS];
    PENSTOCK_UNROLL
    for (int c = 0; c < VECTORS; ++c) row[c] = S::load(b + i * ld_b + c * S::kLanes);
    PENSTOCK_UNROLL
    for (int r = 0; r < ROWS; ++r) {
      const S::V a = S::set1(x[r][i]);
      PENSTOCK_UNROLL
      for (int c = 0; c < VECTORS; ++c) acc[r][c] = S::fma(a, row[c], acc[r][c]);
    }
  }
  PENSTOCK_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    PENSTOCK_UNROLL
    for (int c = 0; c < VECTORS; ++c) S::store(out[r] + c * S::kLanes, acc[r][c]);
  }
}

template <int ROWS, bool ACCUMULATE, typename B>
inline void gemm_rows(const float* const* x, const B* b, std::int64_t ld_b, int k, float* const* out, int columns) {
  constexpr int kWide = ROWS == 1 ? 8 : (ROWS <= 3 || Simd::kLanes == 16) ? 4 : 2;
  float* at[ROWS];
  int c = 0;
  const auto place = [&] {
    PENSTOCK_UNROLL
    for (int r = 0; r < ROWS; ++r) at[r] = out[r] + c;
  };
  for (; c + kWide * Simd::kLanes <= columns; c += kWide * Simd::kLanes) {
    place();
    gemm_tile<ROWS, kWide, ACCUMULATE>(x, b + c, ld_b, k, at);
  }
  for (; c < columns; c += Simd::kLanes) {
    place();
    gemm_tile<ROWS, 1, ACCUMULATE>(x, b + c, ld_b, k, at);
  }
}

// Any number of rows; columns a multiple of 16. x: [rows] pointers to [k]; b: [k][ld_b]; out: [rows] pointers.
template <bool ACCUMULATE, typename B>
void gemm(const float* const* x, const B* b, std::int64_t ld_b, int k, float* const* out, int rows, int columns) {
  int r = 0;
  for (; r + 6 <= rows; r += 6) gemm_rows<6, ACCUMULATE>(x + r, b, ld_b, k, out + r, columns);
  for (; r + 2 <= rows; r += 2) gemm_rows<2, ACCUMULATE>(x + r, b, ld_b, k, out + r, columns);
  for (; r < rows; ++r) gemm_rows<1, ACCUMULATE>(x + r, b, ld_b, k, out + r, columns);
}

// One row.
template <bool ACCUMULATE, typename B>
void gemv(const float* x, const B* b, std::int64_t ld_b, int k, float* out, int columns) {
  gemm_rows<1, ACCUMULATE>(&x, b, ld_b, k, &out, columns);
}

// Σ f(x_i) in a fixed order: lanes of four accumulators, then a tree. n is a multiple of 16.
template <typename Function>
inline float reduce(int n, Function&& f) {
  using S = Simd;
  S::V acc = S::zero();
  for (int i = 0; i < n; i += S::kLanes) acc = f(i, acc);
  return S::reduce_add(acc);
}

inline float sum_of_squares(const float* x, int n) {
  return reduce(n, [x](int i, Simd::V acc) {
    const Simd::V v = Simd::load(x + i);
    return Simd::fma(v, v, acc);
  });
}

}  // namespace
}  // namespace penstock
