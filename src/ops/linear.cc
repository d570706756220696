#include "ops/linear.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace penstock {
namespace {

std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// Rows of x that stay in the second-level cache while panels pass by.
std::int64_t block_rows(const LinearJob& job) {
  constexpr std::int64_t kInputBlockBytes = 384 << 10;
  return std::max<std::int64_t>(kInputBlockBytes / (job.weights->k * 4), 48);
}

struct RowSource {
  const std::byte* data;
  DType dtype;
};

// Pointers to every row of the parts, in order; a null pointer is a row of zeros.
void append_rows(const MatrixView& view, std::vector<RowSource>& rows) {
  const std::int64_t row_bytes = view.cols * static_cast<std::int64_t>(dtype_bytes(view.dtype));
  for (const RowSegment& segment : view.segments) {
    for (std::int64_t i = 0; i < segment.rows; ++i) rows.push_back({segment.data + i * row_bytes, view.dtype});
  }
}

float element(const RowSource& row, std::int64_t i) {
  if (row.dtype == DType::kF32) {
    float value;
    std::memcpy(&value, row.data + i * 4, 4);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, row.data + i * 2, 2);
  return row.dtype == DType::kBF16 ? bf16_to_float(bits) : f16_to_float(bits);
}

PackedMatrix pack(const std::vector<RowSource>& rows, std::int64_t k, ThreadPool& pool) {
  PackedMatrix packed;
  packed.n = static_cast<std::int64_t>(rows.size());
  packed.k = k;
  for (const RowSource& row : rows) {
    if (row.data != nullptr && row.dtype != DType::kBF16) packed.format = WeightFormat::kF32;
  }
  packed.data = AlignedBuffer(static_cast<std::size_t>(packed.panels() * packed.panel_bytes()));
  if (packed.data.data() == nullptr) return packed;
  pool.parallel_for(packed.panels(), [&](std::int64_t panel, int) {
    std::byte* base = packed.data.data() + panel * packed.panel_bytes();
    const std::int64_t last = std::min<std::int64_t>(kPanel, packed.n - panel * kPanel);
    for (std::int64_t c = 0; c < last; ++c) {
      const RowSource& row = rows[static_cast<std::size_t>(panel * kPanel + c)];
      if (row.data == nullptr) continue;
      if (packed.format == WeightFormat::kBF16) {
        for (std::int64_t i = 0; i < k; i += 2) std::memcpy(base + (i / 2 * kPanel + c) * 4, row.data + i * 2, 4);
      } else {
        for (std::int64_t i = 0; i < k; ++i) reinterpret_cast<float*>(base)[i * kPanel + c] = element(row, i);
      }
    }
  });
  return packed;
}

}  // namespace

void PackedMatrix::read_row(std::int64_t i, float* out) const {
  const std::byte* base = data.data() + i / kPanel * panel_bytes();
  const std::int64_t c = i % kPanel;
  if (format == WeightFormat::kF32) {
    for (std::int64_t j = 0; j < k; ++j) out[j] = reinterpret_cast<const float*>(base)[j * kPanel + c];
    return;
  }
  const auto* pairs = reinterpret_cast<const bf16_t*>(base);
  for (std::int64_t j = 0; j < k; ++j) out[j] = bf16_to_float(pairs[(j / 2 * kPanel + c) * 2 + j % 2]);
}

PackedMatrix pack_rows(std::span<const MatrixView* const> parts, ThreadPool& pool) {
  std::vector<RowSource> rows;
  for (const MatrixView* part : parts) append_rows(*part, rows);
  return pack(rows, parts[0]->cols, pool);
}

PackedMatrix pack_interleaved16(const MatrixView& first, const MatrixView& second, ThreadPool& pool) {
  std::vector<RowSource> a;
  std::vector<RowSource> b;
  append_rows(first, a);
  append_rows(second, b);
  std::vector<RowSource> rows;
  const std::size_t groups = (a.size() + 15) / 16;
  for (std::size_t group = 0; group < groups; ++group) {
    for (const std::vector<RowSource>* side : {&a, &b}) {
      for (std::size_t i = group * 16; i < group * 16 + 16; ++i) {
        rows.push_back(i < side->size() ? (*side)[i] : RowSource{nullptr, first.dtype});
      }
    }
  }
  return pack(rows, first.cols, pool);
}

LinearRunner::LinearRunner(const KernelTable& kernels, LinearInput input, ThreadPool& pool,
                           std::int64_t max_input_elements)
    : kernels_(&kernels), input_(input), pool_(&pool), max_input_elements_(max_input_elements) {
  if (input == LinearInput::kBF16) rounded_ = AlignedBuffer(static_cast<std::size_t>(max_input_elements) * 2);
  offsets_.reserve(1024);
  first_task_.reserve(1024);
}

void LinearRunner::round_inputs(std::span<const LinearJob> jobs) {
  std::int64_t total = 0;
  std::int64_t rows = 0;
  for (const LinearJob& job : jobs) {
    offsets_.push_back(total);
    total += job.rows * job.weights->k;
    rows += job.rows;
  }
  if (input_ == LinearInput::kF32) return;
  CHECK(total <= max_input_elements_);
  const auto round_row = [&](std::size_t j, std::int64_t row) {
    const LinearJob& job = jobs[j];
    const std::int64_t k = job.weights->k;
    if (job.weights->format != WeightFormat::kBF16) return;
    const float* x = job.x + (job.gather != nullptr ? job.gather[row] : row) * job.ld_x;
    kernels_->round_bf16(x, rounded_.as<bf16_t>() + offsets_[j] + row * k, k);
  };
  if (rows <= 8) {  // cheaper than starting the threads once more
    for (std::size_t j = 0; j < jobs.size(); ++j) {
      for (std::int64_t row = 0; row < jobs[j].rows; ++row) round_row(j, row);
    }
    return;
  }
  for (std::size_t j = 0; j < jobs.size(); ++j) {
    constexpr std::int64_t kRows = 8;
    pool_->parallel_for(divide_up(jobs[j].rows, kRows), [&](std::int64_t task, int) {
      const std::int64_t last = std::min<std::int64_t>(jobs[j].rows, (task + 1) * kRows);
      for (std::int64_t row = task * kRows; row < last; ++row) round_row(j, row);
    });
  }
}

void LinearRunner::run_tile(const LinearJob& job, std::int64_t input_offset, std::int64_t panel, int panels, int row,
                            int rows) const {
  const PackedMatrix& w = *job.weights;
  const bool bf16_input = w.format == WeightFormat::kBF16 && input_ != LinearInput::kF32;
  alignas(64) float tile[kMaxTileRows * kPanel];  // or 4 rows of 2 panels
  LinearTile t;
  for (int r = 0; r < rows; ++r) {
    if (bf16_input) {
      t.x[r] = rounded_.as<bf16_t>() + input_offset + (row + r) * w.k;
    } else {
      t.x[r] = job.x + (job.gather != nullptr ? job.gather[row + r] : row + r) * job.ld_x;
    }
  }
  t.rows = rows;
  t.panels = panels;
  t.weights = w.data.data() + panel * w.panel_bytes();
  t.panel_bytes = w.panel_bytes();
  t.k = static_cast<int>(w.k);
  t.out = tile;
  (w.format == WeightFormat::kBF16 ? kernels_->linear_bf16 : kernels_->linear_f32)(t);

  const std::int64_t ld_tile = std::int64_t{kPanel} * panels;
  for (int p = 0; p < panels; ++p) {
    if (job.epilogue == Epilogue::kSiluMul) {
      const std::int64_t column = (panel + p) * 16;
      const auto columns = static_cast<int>(std::min<std::int64_t>(16, job.columns - column));
      if (columns > 0) {
        kernels_->silu_mul_tile(tile + p * kPanel, rows, ld_tile, job.y + row * job.ld_y + column, job.ld_y, columns);
      }
      continue;
    }
    const std::int64_t column = (panel + p) * kPanel;
    const auto columns =
        static_cast<int>(std::min<std::int64_t>(kPanel, (job.columns > 0 ? job.columns : w.n) - column));
    for (int r = 0; r < rows && columns > 0; ++r) {
      float* y = job.y + (row + r) * job.ld_y + column;
      const float* from = tile + r * ld_tile + p * kPanel;
      if (job.epilogue == Epilogue::kAdd) {
        kernels_->add(y, from, columns);
      } else {
        std::memcpy(y, from, sizeof(float) * static_cast<std::size_t>(columns));
      }
    }
  }
}

void LinearRunner::run(std::span<const LinearJob> jobs) {
  offsets_.clear();
  first_task_.clear();
  round_inputs(jobs);
  // A task is a run of panels over a block of rows, big enough to be worth claiming, small enough to share out evenly.
  constexpr int kPanelsPerTask = 4;
  std::int64_t tasks = 0;
  for (const LinearJob& job : jobs) {
    first_task_.push_back(tasks);
    tasks += divide_up(job.rows, block_rows(job)) * divide_up(job.weights->panels(), kPanelsPerTask);
  }
  pool_->parallel_for(tasks, [&](std::int64_t task, int) {
    const auto next = std::upper_bound(first_task_.begin(), first_task_.end(), task);
    const auto j = static_cast<std::size_t>(next - first_task_.begin() - 1);
    const LinearJob& job = jobs[j];
    const std::int64_t block = block_rows(job);
    const std::int64_t groups = divide_up(job.weights->panels(), kPanelsPerTask);
    const std::int64_t local = task - first_task_[j];
    const std::int64_t first_row = local / groups * block;
    const std::int64_t last_row = std::min<std::int64_t>(job.rows, first_row + block);
    const std::int64_t first_panel = local % groups * kPanelsPerTask;
    const std::int64_t last_panel = std::min<std::int64_t>(job.weights->panels(), first_panel + kPanelsPerTask);
    // Tiles of even height: 8 rows as 4 + 4 rather than 6 + 2, which would leave the second nearly idle.
    const std::int64_t tile_rows =
        divide_up(last_row - first_row, divide_up(last_row - first_row, kernels_->tile_rows));
    const int step = last_row - first_row <= 4 && kernels_->tile_rows >= 4 ? 2 : 1;
    for (std::int64_t panel = first_panel; panel < last_panel; panel += step) {
      const auto panels = static_cast<int>(std::min<std::int64_t>(step, last_panel - panel));
      for (std::int64_t row = first_row; row < last_row; row += tile_rows) {
        const auto rows = static_cast<int>(std::min<std::int64_t>(tile_rows, last_row - row));
        run_tile(job, offsets_[j], panel, panels, static_cast<int>(row), rows);
      }
    }
  });
}

}  // namespace penstock
