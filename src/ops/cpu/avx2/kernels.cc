// AVX2 + FMA. Without bf16 instructions a weight becomes fp32 by shifts: pairs of k lie side by side in 32 bits, so
// none needs a shuffle, and the FMA units stay the bound (6 rows × 16 columns: 12 accumulators).
#include "ops/cpu/avx2/simd.h"

#include "ops/cpu/kernels-inl.h"

namespace penstock {
namespace {

// Eight columns' weights of an even k (the low halves), and of the k after it (the high halves; two shifts, since a
// mask would take a register).
inline __m256 even_k(const std::byte* w) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)), 16));
}
inline __m256 odd_k(const std::byte* w) {
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_srli_epi32(raw, 16), 16));
}

// ROWS × (8·VECTORS) columns from byte offset `column` (4 bytes a column) of a bf16 panel. Each pair of k is loaded
// twice, once for either half: keeping it would cost the registers that accumulators need (12 + 2 weights + 1 input of
// 16).
template <int ROWS, int VECTORS>
void tile_bf16(const LinearTile& t, const std::byte* panel, int column, float* out, int ld_out) {
  __m256 acc[ROWS][VECTORS];
  PENSTOCK_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    PENSTOCK_UNROLL
    for (int c = 0; c < VECTORS; ++c) acc[r][c] = _mm256_setzero_ps();
  }
  const float* x[ROWS];
  PENSTOCK_UNROLL
  for (int r = 0; r < ROWS; ++r) x[r] = static_cast<const float*>(t.x[r]);
  const std::byte* w = panel + column * 4;
  const int k = t.k;
  for (int i = 0; i < k; i += 2, w += kPanel * 4) {
    // Weights of a small batch come from memory whatever its rows: ask early.
    _mm_prefetch(reinterpret_cast<const char*>(w) + 2048, _MM_HINT_T0);
    if constexpr (VECTORS == 4) _mm_prefetch(reinterpret_cast<const char*>(w) + 2112, _MM_HINT_T0);
    __m256 b[VECTORS];
    PENSTOCK_UNROLL
    for (int c = 0; c < VECTORS; ++c) b[c] = even_k(w + c * 32);
    PENSTOCK_UNROLL
    for (int r = 0; r < ROWS; ++r) {
      const __m256 a = _mm256_broadcast_ss(x[r] + i);
      PENSTOCK_UNROLL
      for (int c = 0; c < VECTORS; ++c) acc[r][c] = _mm256_fmadd_ps(a, b[c], acc[r][c]);
    }
    PENSTOCK_UNROLL
    for (int c = 0; c < VECTORS; ++c) b[c] = odd_k(w + c * 32);
    PENSTOCK_UNROLL
    for (int r = 0; r < ROWS; ++r) {
      const __m256 a = _mm256_broadcast_ss(x[r] + i + 1);
      PENSTOCK_UNROLL
      for (int c = 0; c < VECTORS; ++c) acc[r][c] = _mm256_fmadd_ps(a, b[c], acc[r][c]);
    }
  }
  PENSTOCK_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    PENSTOCK_UNROLL
    for (int c = 0; c < VECTORS; ++c) _mm256_storeu_ps(out + r * ld_out + column + c * 8, acc[r][c]);
  }
}

// One row, two panels side by side: eight chains hide the latency of the multiply-adds.
void row_bf16(const LinearTile& t) {
  __m256 acc[8];
  for (__m256& a : acc) a = _mm256_setzero_ps();
  const auto* x = static_cast<const float*>(t.x[0]);
  const auto* w = static_cast<const std::byte*>(t.weights);
  const int k = t.k;
  for (int i = 0; i < k; i += 2, w += kPanel * 4) {
    const __m256 a = _mm256_broadcast_ss(x + i);
    const __m256 b = _mm256_broadcast_ss(x + i + 1);
    PENSTOCK_UNROLL
    for (int p = 0; p < 2; ++p) {
      const std::byte* row = w + p * t.panel_bytes;
      _mm_prefetch(reinterpret_cast<const char*>(row) + 2048, _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(row) + 2112, _MM_HINT_T0);
      PENSTOCK_UNROLL
      for (int c = 0; c < 4; ++c) {
        acc[p * 4 + c] = _mm256_fmadd_ps(a, even_k(row + c * 32), acc[p * 4 + c]);
        acc[p * 4 + c] = _mm256_fmadd_ps(b, odd_k(row + c * 32), acc[p * 4 + c]);
      }
    }
  }
  PENSTOCK_UNROLL
  for (int c = 0; c < 8; ++c) _mm256_storeu_ps(t.out + c * 8, acc[c]);
}

template <int ROWS, int VECTORS>
void tile_f32(const LinearTile& t, const std::byte* panel, int column, float* out, int ld_out) {
  __m256 acc[ROWS][VECTORS];
  PENSTOCK_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    PENSTOCK_UNROLL
    for (int c = 0; c < VECTORS; ++c) acc[r][c] = _mm256_setzero_ps();
  }
  const auto* w = reinterpret_cast<const float*>(panel) + column;
  const int k = t.k;
  for (int i = 0; i < k; ++i, w += kPanel) {
    __m256 b[VECTORS];
    PENSTOCK_UNROLL
    for (int c = 0; c < VECTORS; ++c) b[c] = _mm256_loadu_ps(w + c * 8);
    PENSTOCK_UNROLL
    for (int r = 0; r < ROWS; ++r) {
      const __m256 a = _mm256_broadcast_ss(static_cast<const float*>(t.x[r]) + i);
      PENSTOCK_UNROLL
      for (int c = 0; c < VECTORS; ++c) acc[r][c] = _mm256_fmadd_ps(a, b[c], acc[r][c]);
    }
  }
  PENSTOCK_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    PENSTOCK_UNROLL
    for (int c = 0; c < VECTORS; ++c) _mm256_storeu_ps(out + r * ld_out + column + c * 8, acc[r][c]);
  }
}

template <int ROWS, bool BF16>
void rows(const LinearTile& t) {
  constexpr int kVectors = ROWS <= 2 ? 4 : 2;
  for (int p = 0; p < t.panels; ++p) {
    const std::byte* panel = static_cast<const std::byte*>(t.weights) + p * t.panel_bytes;
    for (int column = 0; column < kPanel; column += kVectors * 8) {
      if constexpr (BF16) {
        tile_bf16<ROWS, kVectors>(t, panel, column, t.out + p * kPanel, t.panels * kPanel);
      } else {
        tile_f32<ROWS, kVectors>(t, panel, column, t.out + p * kPanel, t.panels * kPanel);
      }
    }
  }
}

template <bool BF16>
void linear(const LinearTile& t) {
  if (BF16 && t.rows == 1 && t.panels == 2) return row_bf16(t);
  switch (t.rows) {
    case 1:
      return rows<1, BF16>(t);
    case 2:
      return rows<2, BF16>(t);
    case 3:
      return rows<3, BF16>(t);
    case 4:
      return rows<4, BF16>(t);
    case 5:
      return rows<5, BF16>(t);
    default:
      return rows<6, BF16>(t);
  }
}

}  // namespace

const KernelTable& avx2_kernels() {
  static const KernelTable table = make_table("avx2", 6, linear<true>, linear<false>);
  return table;
}

}  // namespace penstock
