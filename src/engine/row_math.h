// Passes over one row of logits that the sampler is made of. Plain loops that the compiler turns into vector code on
// any x86-64; the order of every sum is fixed.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <span>

namespace penstock {

// Integers in the order of the floats, -0 equal to +0: comparing integers vectorises where comparing floats must mind
// NaN.
inline std::int32_t order_key(float x) {
  const auto bits = std::bit_cast<std::int32_t>(x + 0.0F);
  return bits ^ ((bits >> 31) & 0x7FFFFFFF);
}

inline float from_order_key(std::int32_t key) {
  return std::bit_cast<float>(key ^ ((key >> 31) & 0x7FFFFFFF));
}

struct RowMax {
  std::int32_t index = -1;  // the lowest of the best
  float value = 0;
  bool finite = true;  // no NaN or infinity anywhere; else the others mean nothing
};

inline RowMax row_max(std::span<const float> row) {
  constexpr std::size_t kBlock = 1024;
  std::int32_t best = INT32_MIN;
  std::int32_t largest_bits = 0;  // of |x|: NaN and infinity are the largest
  std::size_t best_block = 0;
  for (std::size_t begin = 0; begin < row.size(); begin += kBlock) {
    const std::size_t end = std::min(begin + kBlock, row.size());
    std::int32_t block_best = INT32_MIN;
    for (std::size_t i = begin; i < end; ++i) {
      block_best = std::max(block_best, order_key(row[i]));
      largest_bits = std::max(largest_bits, std::bit_cast<std::int32_t>(row[i]) & 0x7FFFFFFF);
    }
    if (block_best > best) {
      best = block_best;
      best_block = begin;
    }
  }
  RowMax result;
  result.finite = largest_bits < 0x7F800000;
  for (std::size_t i = best_block; i < row.size(); ++i) {
    if (order_key(row[i]) != best) continue;
    result.index = static_cast<std::int32_t>(i);
    result.value = row[i];
    break;
  }
  return result;
}

// e^x for x <= 0, to about one unit in the last place; 0 below -87. Ours, so that a draw does not change with the C
// library, and so that it vectorises: e^x = 2^n e^r with |r| <= ln2 / 2, e^r by its Taylor series to r^7.
inline float exp_negative(float x) {
  // A mask, not a branch: loops over this vectorise. What is dropped is computed as e^0.
  const std::int32_t keep = -static_cast<std::int32_t>(x >= -87.0F);
  x = std::bit_cast<float>(std::bit_cast<std::int32_t>(x) & keep);
  constexpr float kRound = 12582912.0F;  // 1.5 · 2^23: adding it rounds to an integer
  const float shifted = x * 1.44269504088896341F + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375F) - n * -2.12194440e-4F;  // ln 2 in two parts, the first exact times n
  float p = 1.0F / 5040.0F;
  p = p * r + 1.0F / 720.0F;
  p = p * r + 1.0F / 120.0F;
  p = p * r + 1.0F / 24.0F;
  p = p * r + 1.0F / 6.0F;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  const std::int32_t exponent = (std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(kRound)) << 23;
  return std::bit_cast<float>((std::bit_cast<std::int32_t>(p) + exponent) & keep);
}

// The sum of `row` in double: eight interleaved sums, added pairwise.
inline double sum_row(std::span<const float> row) {
  std::array<double, 8> sums{};
  std::size_t i = 0;
  for (; i + 8 <= row.size(); i += 8) {
    for (std::size_t lane = 0; lane < 8; ++lane) sums[lane] += static_cast<double>(row[i + lane]);
  }
  for (; i < row.size(); ++i) sums[i % 8] += static_cast<double>(row[i]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// Σ e^(x_i − shift), shift >= every x.
inline double sum_exp(std::span<const float> row, float shift) {
  constexpr std::size_t kBlock = 512;
  std::array<float, kBlock> terms;
  double sum = 0;
  for (std::size_t begin = 0; begin < row.size(); begin += kBlock) {
    const std::size_t n = std::min(kBlock, row.size() - begin);
    for (std::size_t i = 0; i < n; ++i) terms[i] = exp_negative(row[begin + i] - shift);
    sum += sum_row(std::span(terms).first(n));
  }
  return sum;
}

}  // namespace penstock
