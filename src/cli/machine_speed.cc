// The two yardsticks: how fast memory can be read, how fast the vector units multiply and add.
#include <immintrin.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/cpu.h"
#include "cli/machine.h"

namespace penstock::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kBufferBytes = std::size_t{512} << 20;  // beyond the last-level caches of what runs this on a CPU
constexpr int kReadPasses = 6;
constexpr int kFmaPasses = 4;
constexpr int kFmaRounds = 4'000'000;  // about 15 ms a pass
constexpr int kChains = 12;            // independent sums: latency (4 cycles) × units (2), and some to spare

// Runs `work(thread)` on all threads `passes` times, each pass between two barriers; seconds of the fastest.
double best_pass(int threads, int passes, const std::function<void(int thread)>& work) {
  std::barrier gate(threads);
  double best = 1e30;
  const auto run = [&](int thread) {
    for (int pass = 0; pass < passes; ++pass) {
      gate.arrive_and_wait();
      const auto start = Clock::now();
      work(thread);
      gate.arrive_and_wait();
      if (thread == 0) best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
    }
  };
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
  run(0);
  for (std::thread& other : others) other.join();
  return best;
}

// Results go through memory the compiler cannot see through, or it would remove the loops.
void keep(float value) {
  asm volatile("" : : "x"(value) : "memory");
}

__attribute__((target("avx2"))) void read_avx2(const float* data, std::size_t count) {
  __m256 sum[8] = {};
  for (std::size_t i = 0; i + 64 <= count; i += 64) {
    for (std::size_t j = 0; j < 8; ++j) sum[j] = _mm256_xor_ps(sum[j], _mm256_load_ps(data + i + 8 * j));
  }
  for (std::size_t j = 1; j < 8; ++j) sum[0] = _mm256_xor_ps(sum[0], sum[j]);
  keep(_mm256_cvtss_f32(sum[0]));
}

void read_sse2(const float* data, std::size_t count) {
  __m128 sum[8] = {};
  for (std::size_t i = 0; i + 32 <= count; i += 32) {
    for (std::size_t j = 0; j < 8; ++j) sum[j] = _mm_xor_ps(sum[j], _mm_load_ps(data + i + 4 * j));
  }
  for (std::size_t j = 1; j < 8; ++j) sum[0] = _mm_xor_ps(sum[0], sum[j]);
  keep(_mm_cvtss_f32(sum[0]));
}

// Vector types of the compiler are kept apart per function: each is only compiled for what it needs.
__attribute__((target("avx512f"))) void fma_avx512(float factor) {
  const __m512 a = _mm512_set1_ps(factor);
  __m512 sum[kChains];
  for (auto& s : sum) s = _mm512_set1_ps(factor);
  for (int round = 0; round < kFmaRounds; ++round) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) sum[j] = _mm512_fmadd_ps(sum[j], a, a);
  }
  for (auto& s : sum) keep(_mm512_cvtss_f32(s));
}

__attribute__((target("avx2,fma"))) void fma_avx2(float factor) {
  const __m256 a = _mm256_set1_ps(factor);
  __m256 sum[kChains];
  for (auto& s : sum) s = _mm256_set1_ps(factor);
  for (int round = 0; round < kFmaRounds; ++round) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) sum[j] = _mm256_fmadd_ps(sum[j], a, a);
  }
  for (auto& s : sum) keep(_mm256_cvtss_f32(s));
}

void multiply_add_sse2(float factor) {
  const __m128 a = _mm_set1_ps(factor);
  __m128 sum[kChains];
  for (auto& s : sum) s = _mm_set1_ps(factor);
  for (int round = 0; round < kFmaRounds; ++round) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) sum[j] = _mm_add_ps(_mm_mul_ps(sum[j], a), a);
  }
  for (auto& s : sum) keep(_mm_cvtss_f32(s));
}

}  // namespace

double measure_read_bandwidth(int threads) {
  if (read_memory().available_bytes < static_cast<std::int64_t>(2 * kBufferBytes)) return 0;
  const bool avx2 = detect_cpu().avx2;
  constexpr std::size_t kAlignment = std::size_t{2} << 20;  // of huge pages
  const std::unique_ptr<void, decltype(&std::free)> buffer(std::aligned_alloc(kAlignment, kBufferBytes), &std::free);
  if (buffer == nullptr) return 0;
  auto* data = static_cast<float*>(buffer.get());
  // A multiple of 64 floats each, so that every part is aligned and whole.
  const std::size_t part = kBufferBytes / sizeof(float) / static_cast<std::size_t>(threads) / 64 * 64;
  const auto touch = [&](int thread) { std::fill_n(data + part * static_cast<std::size_t>(thread), part, 1.0F); };
  best_pass(threads, 1, touch);
  const double seconds = best_pass(threads, kReadPasses, [&](int thread) {
    const float* begin = data + part * static_cast<std::size_t>(thread);
    avx2 ? read_avx2(begin, part) : read_sse2(begin, part);
  });
  return static_cast<double>(part * sizeof(float)) * threads / seconds;
}

double measure_fma_peak(int threads) {
  const CpuFeatures cpu = detect_cpu();
  const int lanes = cpu.avx512 ? 16 : cpu.avx2 ? 8 : 4;
  const double seconds = best_pass(threads, kFmaPasses, [&](int thread) {
    // Not known at compile time, and small enough that the sums converge instead of overflowing.
    const float factor = 0.5F + 1e-3F * static_cast<float>(thread);
    if (cpu.avx512) {
      fma_avx512(factor);
    } else if (cpu.avx2) {
      fma_avx2(factor);
    } else {
      multiply_add_sse2(factor);
    }
  });
  return 2.0 * lanes * kChains * kFmaRounds * threads / seconds;
}

}  // namespace penstock::cli
