// Linear layers on weights packed once: Y = X·Wᵀ, W [n, k].
// Packed: panels of 32 output rows; a bf16 panel is [k/2][32][2] (neighbouring k side by side for vdpbf16ps and for
// widening without shuffles), an fp32 panel [k][32]. Missing rows of the last panel are zero. Accumulation: one fp32
// chain per output, k ascending, whatever the number of rows, threads or tiles. int8 and int4 weights will be further
// formats of PackedMatrix with tiles of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"
#include "ops/kernels.h"
#include "ops/policy.h"

namespace penstock {

enum class WeightFormat : std::uint8_t { kBF16, kF32 };  // fp16 checkpoints become fp32: bf16 would round them

struct PackedMatrix {
  WeightFormat format = WeightFormat::kBF16;
  std::int64_t n = 0, k = 0;
  AlignedBuffer data;

  std::int64_t panels() const { return (n + kPanel - 1) / kPanel; }
  std::int64_t panel_bytes() const { return k * kPanel * (format == WeightFormat::kBF16 ? 2 : 4); }
  // Row i as fp32 [k] (embedding lookup in a tied head).
  void read_row(std::int64_t i, float* out) const;
};

// The parts' rows one after the other. interleave16 (two parts of equal shape): 16 rows of the first, 16 of the second,
// …, so that SiLU(gate)·up finds both in one panel; n is then twice the parts' rows rounded up to 16.
PackedMatrix pack_rows(std::span<const MatrixView* const> parts, ThreadPool& pool);
PackedMatrix pack_interleaved16(const MatrixView& first, const MatrixView& second, ThreadPool& pool);

enum class Epilogue : std::uint8_t {
  kStore,
  kAdd,      // y += x·Wᵀ
  kSiluMul,  // interleaved gate and up: y [rows, n/2] = SiLU(gate)·up
};

struct LinearJob {
  const PackedMatrix* weights = nullptr;
  const float* x = nullptr;  // rows of [k], ld_x apart
  std::int64_t ld_x = 0;
  const std::int32_t* gather = nullptr;  // row r is x + gather[r]·ld_x; null: r
  float* y = nullptr;                    // row r at y + r·ld_y
  std::int64_t ld_y = 0;
  std::int32_t rows = 0;
  Epilogue epilogue = Epilogue::kStore;
  std::int64_t columns = 0;  // of y to write; 0: all
};

// Scratch for bf16 copies of inputs.
class LinearRunner {
 public:
  LinearRunner(const KernelTable& kernels, LinearInput input, ThreadPool& pool, std::int64_t max_input_elements);
  // All jobs in one parallel region. y must not alias x.
  void run(std::span<const LinearJob> jobs);
  void run(const LinearJob& job) { run({&job, 1}); }

 private:
  void round_inputs(std::span<const LinearJob> jobs);
  void run_tile(const LinearJob& job, std::int64_t input_offset, std::int64_t panel, int panels, int row,
                int rows) const;

  const KernelTable* kernels_;
  LinearInput input_;
  ThreadPool* pool_;
  AlignedBuffer rounded_;  // bf16 [Σ rows·k]
  std::int64_t max_input_elements_;
  std::vector<std::int64_t> offsets_;     // of each job's rows in rounded_
  std::vector<std::int64_t> first_task_;  // of each job
};

}  // namespace penstock
