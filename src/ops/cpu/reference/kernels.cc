// The scalar instance: any x86-64.
#include "ops/cpu/reference/simd.h"

#include "ops/cpu/kernels-inl.h"

namespace penstock {
namespace {

void linear_bf16(const LinearTile& t) {
  for (int p = 0; p < t.panels; ++p) {
    const auto* w =
        reinterpret_cast<const std::uint16_t*>(static_cast<const std::byte*>(t.weights) + p * t.panel_bytes);
    for (int r = 0; r < t.rows; ++r) {
      const auto* x = static_cast<const float*>(t.x[r]);
      for (int c = 0; c < kPanel; ++c) {
        float acc = 0;
        for (int i = 0; i < t.k; ++i) {
          acc = acc + x[i] * bf16_to_float(w[(std::int64_t{i} / 2 * kPanel + c) * 2 + i % 2]);
        }
        t.out[r * kPanel * t.panels + p * kPanel + c] = acc;
      }
    }
  }
}

void linear_f32(const LinearTile& t) {
  for (int p = 0; p < t.panels; ++p) {
    const auto* w = reinterpret_cast<const float*>(static_cast<const std::byte*>(t.weights) + p * t.panel_bytes);
    for (int r = 0; r < t.rows; ++r) {
      const auto* x = static_cast<const float*>(t.x[r]);
      for (int c = 0; c < kPanel; ++c) {
        float acc = 0;
        for (int i = 0; i < t.k; ++i) acc = acc + x[i] * w[std::int64_t{i} * kPanel + c];
        t.out[r * kPanel * t.panels + p * kPanel + c] = acc;
      }
    }
  }
}

}  // namespace

const KernelTable& reference_kernels() {
  static const KernelTable table = make_table("reference", 4, linear_bf16, linear_f32);
  return table;
}

}  // namespace penstock
