// AVX2 + FMA. Without bf16 instructions a weight becomes fp32 by a shift or a mask: pairs of k lie side by side in 32
// bits, so neither needs a shuffle, and the FMA units stay the bound (6 rows × 16 columns: 12 accumulators).
#include "ops/cpu/avx2/simd.h"

#include "ops/cpu/kernels-inl.h"

namespace penstock {
namespace {

// ROWS × (8·VECTORS) columns from byte offset `column` (4 bytes a column) of a bf16 panel.
template <int ROWS, int VECTORS>
void tile_bf16(const LinearTile& t, const std::byte* panel, int column, float* out, int ld_out) {
  __m256 acc[ROWS][VECTORS];
  for (int r = 0; r < ROWS; ++r) {
    for (int c = 0; c < VECTORS; ++c) acc[r][c] = _mm256_setzero_ps();
  }
  const float* x[ROWS];
  for (int r = 0; r < ROWS; ++r) x[r] = static_cast<const float*>(t.x[r]);
  const __m256i odd_mask = _mm256_set1_epi32(static_cast<int>(0xFFFF0000U));
  const std::byte* w = panel + column * 4;
  for (int i = 0; i < t.k; i += 2, w += kPanel * 4) {
    if constexpr (ROWS <= 3) _mm_prefetch(reinterpret_cast<const char*>(w) + 2048, _MM_HINT_T0);
    __m256i raw[VECTORS];
    for (int c = 0; c < VECTORS; ++c) raw[c] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + c * 32));
    __m256 b[VECTORS];
    for (int c = 0; c < VECTORS; ++c) b[c] = _mm256_castsi256_ps(_mm256_slli_epi32(raw[c], 16));
    for (int r = 0; r < ROWS; ++r) {
      const __m256 a = _mm256_broadcast_ss(x[r] + i);
      for (int c = 0; c < VECTORS; ++c) acc[r][c] = _mm256_fmadd_ps(a, b[c], acc[r][c]);
    }
    for (int c = 0; c < VECTORS; ++c) b[c] = _mm256_castsi256_ps(_mm256_and_si256(raw[c], odd_mask));
    for (int r = 0; r < ROWS; ++r) {
      const __m256 a = _mm256_broadcast_ss(x[r] + i + 1);
      for (int c = 0; c < VECTORS; ++c) acc[r][c] = _mm256_fmadd_ps(a, b[c], acc[r][c]);
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    for (int c = 0; c < VECTORS; ++c) _mm256_storeu_ps(out + r * ld_out + column + c * 8, acc[r][c]);
  }
}

template <int ROWS, int VECTORS>
void tile_f32(const LinearTile& t, const std::byte* panel, int column, float* out, int ld_out) {
  __m256 acc[ROWS][VECTORS];
  for (int r = 0; r < ROWS; ++r) {
    for (int c = 0; c < VECTORS; ++c) acc[r][c] = _mm256_setzero_ps();
  }
  const auto* w = reinterpret_cast<const float*>(panel) + column;
  for (int i = 0; i < t.k; ++i, w += kPanel) {
    __m256 b[VECTORS];
    for (int c = 0; c < VECTORS; ++c) b[c] = _mm256_loadu_ps(w + c * 8);
    for (int r = 0; r < ROWS; ++r) {
      const __m256 a = _mm256_broadcast_ss(static_cast<const float*>(t.x[r]) + i);
      for (int c = 0; c < VECTORS; ++c) acc[r][c] = _mm256_fmadd_ps(a, b[c], acc[r][c]);
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    for (int c = 0; c < VECTORS; ++c) _mm256_storeu_ps(out + r * ld_out + column + c * 8, acc[r][c]);
  }
}

template <int ROWS, bool BF16>
void rows(const LinearTile& t) {
  constexpr int kVectors = ROWS <= 3 ? 4 : 2;
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
