// One lane: the portable instance of the kernels, and what the vector instances are tested against.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/dtype.h"

namespace penstock {
namespace {

struct Simd {
  using V = float;
  static constexpr int kLanes = 1;
  static V zero() { return 0; }
  static V set1(float x) { return x; }
  static V load(const float* p) { return *p; }
  static V load(const std::uint16_t* p) { return bf16_to_float(*p); }
  static V load(const std::int8_t* p) { return static_cast<float>(*p); }
  static void store(float* p, V v) { *p = v; }
  static void store(std::uint16_t* p, V v) { *p = float_to_bf16(v); }
  static void store(std::int8_t* p, V v) { *p = static_cast<std::int8_t>(std::nearbyint(v)); }
  static V fma(V a, V b, V c) { return a * b + c; }
  static V add(V a, V b) { return a + b; }
  static V sub(V a, V b) { return a - b; }
  static V mul(V a, V b) { return a * b; }
  static V div(V a, V b) { return a / b; }
  static V max(V a, V b) { return a > b ? a : b; }
  static V min(V a, V b) { return a < b ? a : b; }
  static V abs(V a) { return std::fabs(a); }
  static V round(V a) { return std::nearbyint(a); }
  // 2^n for a whole n in [-126, 127].
  static V pow2(V n) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(static_cast<std::int32_t>(n) + 127) << 23);
  }
  static V less_or_zero(V a, V limit, V value) { return a < limit ? 0.0F : value; }  // a < limit ? 0 : value
  static float reduce_add(V a) { return a; }
  static float reduce_max(V a) { return a; }
};

}  // namespace
}  // namespace penstock
