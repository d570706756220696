// Linear tiles of 512-bit registers: up to 12 rows × 32 columns (24 accumulators).
#pragma once

namespace penstock {
namespace {

// How a pair of k enters: two fused multiply-adds on widened weights.
struct FmaPair {
  using X = float;
  template <int ROWS, int VECTORS>
  static void step(const X* const* x, int i, const __m512i* raw, __m512 (*acc)[VECTORS]) {
    const __m512i odd_mask = _mm512_set1_epi32(static_cast<int>(0xFFFF0000U));
    __m512 b[VECTORS];
    PENSTOCK_UNROLL
    for (int c = 0; c < VECTORS; ++c) b[c] = _mm512_castsi512_ps(_mm512_slli_epi32(raw[c], 16));
    PENSTOCK_UNROLL
    for (int r = 0; r < ROWS; ++r) {
      const __m512 a = _mm512_set1_ps(x[r][i]);
      PENSTOCK_UNROLL
      for (int c = 0; c < VECTORS; ++c) acc[r][c] = _mm512_fmadd_ps(a, b[c], acc[r][c]);
    }
    PENSTOCK_UNROLL
    for (int c = 0; c < VECTORS; ++c) b[c] = _mm512_castsi512_ps(_mm512_and_si512(raw[c], odd_mask));
    PENSTOCK_UNROLL
    for (int r = 0; r < ROWS; ++r) {
      const __m512 a = _mm512_set1_ps(x[r][i + 1]);
      PENSTOCK_UNROLL
      for (int c = 0; c < VECTORS; ++c) acc[r][c] = _mm512_fmadd_ps(a, b[c], acc[r][c]);
    }
  }
};

template <typename Pair, int ROWS, int PANELS>
void tile_bf16(const LinearTile& t) {
  constexpr int kVectors = 2 * PANELS;
  using X = typename Pair::X;
  const X* x[ROWS];
  __m512 acc[ROWS][kVectors];
  PENSTOCK_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    x[r] = static_cast<const X*>(t.x[r]);
    PENSTOCK_UNROLL
    for (int c = 0; c < kVectors; ++c) acc[r][c] = _mm512_setzero_ps();
  }
  const auto* w = static_cast<const std::byte*>(t.weights);
  const int k = t.k;
  for (int i = 0; i < k; i += 2, w += kPanel * 4) {
    __m512i raw[kVectors];
    PENSTOCK_UNROLL
    for (int p = 0; p < PANELS; ++p) {
      const std::byte* row = w + p * t.panel_bytes;
      // Weights of a small batch come from memory whatever its rows: ask early.
      _mm_prefetch(reinterpret_cast<const char*>(row) + 2048, _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(row) + 2112, _MM_HINT_T0);
      raw[2 * p] = _mm512_loadu_si512(row);
      raw[2 * p + 1] = _mm512_loadu_si512(row + 64);
    }
    Pair::template step<ROWS, kVectors>(x, i, raw, acc);
  }
  PENSTOCK_UNROLL
  for (int r = 0; r < ROWS; ++r) {
    PENSTOCK_UNROLL
    for (int c = 0; c < kVectors; ++c) _mm512_storeu_ps(t.out + (r * kVectors + c) * 16, acc[r][c]);
  }
}

template <int ROWS>
void tile_f32(const LinearTile& t) {
  for (int p = 0; p < t.panels; ++p) {
    __m512 acc[ROWS][2];
    PENSTOCK_UNROLL
    for (int r = 0; r < ROWS; ++r) acc[r][0] = acc[r][1] = _mm512_setzero_ps();
    const auto* w = reinterpret_cast<const float*>(static_cast<const std::byte*>(t.weights) + p * t.panel_bytes);
    const int k = t.k;
    for (int i = 0; i < k; ++i, w += kPanel) {
      const __m512 b0 = _mm512_loadu_ps(w);
      const __m512 b1 = _mm512_loadu_ps(w + 16);
      PENSTOCK_UNROLL
      for (int r = 0; r < ROWS; ++r) {
        const __m512 a = _mm512_set1_ps(static_cast<const float*>(t.x[r])[i]);
        acc[r][0] = _mm512_fmadd_ps(a, b0, acc[r][0]);
        acc[r][1] = _mm512_fmadd_ps(a, b1, acc[r][1]);
      }
    }
    PENSTOCK_UNROLL
    for (int r = 0; r < ROWS; ++r) {
      _mm512_storeu_ps(t.out + (r * t.panels + p) * kPanel, acc[r][0]);
      _mm512_storeu_ps(t.out + (r * t.panels + p) * kPanel + 16, acc[r][1]);
    }
  }
}

template <typename Pair>
void linear_bf16(const LinearTile& t) {
  if (t.panels == 2) {
    switch (t.rows) {
      case 1:
        return tile_bf16<Pair, 1, 2>(t);
      case 2:
        return tile_bf16<Pair, 2, 2>(t);
      case 3:
        return tile_bf16<Pair, 3, 2>(t);
      default:
        return tile_bf16<Pair, 4, 2>(t);
    }
  }
  switch (t.rows) {
    case 1:
      return tile_bf16<Pair, 1, 1>(t);
    case 2:
      return tile_bf16<Pair, 2, 1>(t);
    case 3:
      return tile_bf16<Pair, 3, 1>(t);
    case 4:
      return tile_bf16<Pair, 4, 1>(t);
    case 5:
      return tile_bf16<Pair, 5, 1>(t);
    case 6:
      return tile_bf16<Pair, 6, 1>(t);
    case 7:
      return tile_bf16<Pair, 7, 1>(t);
    case 8:
      return tile_bf16<Pair, 8, 1>(t);
    case 9:
      return tile_bf16<Pair, 9, 1>(t);
    case 10:
      return tile_bf16<Pair, 10, 1>(t);
    case 11:
      return tile_bf16<Pair, 11, 1>(t);
    default:
      return tile_bf16<Pair, 12, 1>(t);
  }
}

void linear_f32(const LinearTile& t) {
  switch (t.rows) {
    case 1:
      return tile_f32<1>(t);
    case 2:
      return tile_f32<2>(t);
    case 3:
      return tile_f32<3>(t);
    case 4:
      return tile_f32<4>(t);
    case 5:
      return tile_f32<5>(t);
    case 6:
      return tile_f32<6>(t);
    case 7:
      return tile_f32<7>(t);
    case 8:
      return tile_f32<8>(t);
    case 9:
      return tile_f32<9>(t);
    case 10:
      return tile_f32<10>(t);
    case 11:
      return tile_f32<11>(t);
    default:
      return tile_f32<12>(t);
  }
}

}  // namespace
}  // namespace penstock
