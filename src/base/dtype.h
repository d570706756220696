// Number formats of tensors, and the scalar conversions everything else is measured by.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace penstock {

enum class DType : std::uint8_t { kF32, kF16, kBF16, kF64, kI8, kI16, kI32, kI64, kU8, kBool, kF8E4M3, kF8E5M2 };

constexpr std::size_t dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
    case DType::kI16:
      return 2;
    default:
      return 1;
  }
}

const char* to_string(DType dtype);  // as safetensors spells it: "F32", "BF16", "F8_E4M3", …

using bf16_t = std::uint16_t;  // the bits of a bfloat16

inline float bf16_to_float(bf16_t x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x) << 16);
}

// Round to nearest, ties to even; NaN stays NaN.
inline bf16_t float_to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<bf16_t>((bits >> 16) | 0x40U);
  return static_cast<bf16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

float f16_to_float(std::uint16_t x);

}  // namespace penstock
