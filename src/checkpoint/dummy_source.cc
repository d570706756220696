#include "checkpoint/dummy_source.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/system_memory.h"
#include "base/thread_pool.h"

namespace penstock {
namespace {

constexpr std::int64_t kAlignmentBytes = 64;
constexpr std::int64_t kChunk = std::int64_t{1} << 18;  // elements of one task
constexpr const char* kNoFile = "(random)";

// splitmix64 (Steele, Lea, Flood 2014) as a function of a counter.
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}
std::uint64_t random_bits(std::uint64_t key, std::uint64_t counter) {
  return mix(key + (counter + 1) * 0x9E3779B97F4A7C15ULL);
}
// In [0, 1).
double random_unit(std::uint64_t key, std::uint64_t counter) {
  return static_cast<double>(random_bits(key, counter) >> 11) * 0x1p-53;
}

// Uniform values over (-amplitude, amplitude), more of them than bf16 can tell apart in most of that range: a table
// that fits the first-level cache, so that an element costs one load.
constexpr std::size_t kLevels = 4096;
using Table = std::array<bf16_t, kLevels>;

Table uniform_table(float amplitude) {
  Table table{};
  constexpr float kHalf = static_cast<float>(kLevels) / 2;
  for (std::size_t i = 0; i < kLevels; ++i) {
    table[i] = float_to_bf16((static_cast<float>(i) + 0.5F - kHalf) / kHalf * amplitude);
  }
  return table;
}

// Elements [begin, begin + count) of a tensor; begin is a multiple of 4, four elements share 64 random bits.
void fill_chunk(const Table& table, std::uint64_t key, std::int64_t begin, std::int64_t count, bf16_t* out) {
  std::uint64_t counter = static_cast<std::uint64_t>(begin) / 4;
  std::int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const std::uint64_t bits = random_bits(key, counter++);
    out[i] = table[bits % kLevels];
    out[i + 1] = table[(bits >> 16) % kLevels];
    out[i + 2] = table[(bits >> 32) % kLevels];
    out[i + 3] = table[(bits >> 48) % kLevels];
  }
  const std::uint64_t bits = random_bits(key, counter);
  for (int shift = 0; i < count; ++i, shift += 16) out[i] = table[(bits >> shift) % kLevels];
}

float random_value(VectorKind kind, std::uint64_t key, std::uint64_t i) {
  const double u = random_unit(key, i);
  switch (kind) {
    case VectorKind::kZeroCentredNorm:
      return static_cast<float>(0.1 * (u - 0.5));
    case VectorKind::kGdnNorm:
      return 1.0F;
    case VectorKind::kConv:
      return static_cast<float>(u - 0.5);
    case VectorKind::kALog:
      return static_cast<float>(u * std::log(16.0));  // A from 1 to 16
    case VectorKind::kDtBias: {
      // softplus(dt_bias) log-uniform from 0.001 to 0.1.
      const double dt = std::exp(std::log(0.001) + u * (std::log(0.1) - std::log(0.001)));
      return static_cast<float>(dt + std::log(-std::expm1(-dt)));
    }
  }
  return 0.0F;
}

}  // namespace

std::uint64_t DummySource::key_of(const std::string& name) const {
  std::uint64_t hash = 0xCBF29CE484222325ULL;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  return mix(hash ^ mix(seed_ + 0x9E3779B97F4A7C15ULL));
}

void DummySource::record(const std::string& name, DType dtype, std::span<const std::int64_t> shape,
                         std::int64_t size_bytes) {
  if (memory_.data() == nullptr) return;  // only measuring
  const bool plain = name.starts_with("mtp.") || name.starts_with("lm_head.");
  tensors_.push_back({plain ? name : "model." + name, dtype, {shape.begin(), shape.end()}, size_bytes, kNoFile, false});
}

MatrixView DummySource::matrix(const std::string& name, std::int64_t rows, std::int64_t cols) {
  if (!ok()) return {};
  constexpr std::int64_t kMostBytes = std::int64_t{1} << 60;  // far more than any machine has
  const std::int64_t elements = rows * cols;
  const std::int64_t bytes = elements * static_cast<std::int64_t>(sizeof(bf16_t));
  const std::int64_t offset = size_bytes_;
  size_bytes_ += (bytes + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
  if (size_bytes_ > kMostBytes) {
    WeightSource::fail(
        resource_exhausted("random weights of this configuration need more memory than any machine has"));
    return {};
  }
  if (memory_.data() == nullptr) return {DType::kBF16, rows, cols, {{nullptr, rows}}};
  CHECK(size_bytes_ <= static_cast<std::int64_t>(memory_.bytes()));
  record(name, DType::kBF16, std::array{rows, cols}, bytes);
  matrices_.push_back({offset, elements, key_of(name), std::sqrt(3.0F / static_cast<float>(cols))});
  return {DType::kBF16, rows, cols, {{memory_.data() + offset, rows}}};
}

std::vector<MatrixView> DummySource::matrices(const std::string& /*name*/, std::int64_t /*count*/,
                                              std::int64_t /*rows*/, std::int64_t /*cols*/) {
  CHECK_MSG(false, "has() knows no packed tensors");
  return {};
}

std::vector<float> DummySource::vector(const std::string& name, std::span<const std::int64_t> shape, VectorKind kind) {
  if (!ok()) return {};
  std::int64_t size = 1;
  for (const std::int64_t dim : shape) size *= dim;
  record(name, DType::kF32, shape, size * static_cast<std::int64_t>(sizeof(float)));
  std::vector<float> out(static_cast<std::size_t>(size));
  const std::uint64_t key = key_of(name);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = random_value(kind, key, i);
  return out;
}

Status DummySource::allocate() {
  const std::string need = "random weights of this configuration need " + format_bytes(size_bytes_) + " of memory";
  const auto available = available_memory_bytes();
  if (available.ok() && size_bytes_ > *available) {
    return resource_exhausted(need + ", " + format_bytes(*available) + " are available");
  }
  memory_ = AlignedBuffer(static_cast<std::size_t>(size_bytes_));
  if (memory_.data() == nullptr && size_bytes_ > 0)
    return resource_exhausted(need + ", which the system does not give");
  size_bytes_ = 0;
  return {};
}

void DummySource::fill() {
  struct Task {
    const Matrix* matrix;
    const Table* table;
    std::int64_t begin;
  };
  // Matrices of one width share a table; a model has few widths.
  std::vector<std::pair<float, std::unique_ptr<Table>>> tables;
  std::vector<Task> tasks;
  for (const Matrix& matrix : matrices_) {
    auto found = std::find_if(tables.begin(), tables.end(), [&](const auto& t) { return t.first == matrix.amplitude; });
    if (found == tables.end()) {
      tables.emplace_back(matrix.amplitude, std::make_unique<Table>(uniform_table(matrix.amplitude)));
      found = tables.end() - 1;
    }
    for (std::int64_t begin = 0; begin < matrix.elements; begin += kChunk) {
      tasks.push_back({&matrix, found->second.get(), begin});
    }
  }
  ThreadPool pool(0);
  pool.parallel_for(static_cast<std::int64_t>(tasks.size()), [&](std::int64_t i, int /*thread*/) {
    const Task& task = tasks[static_cast<std::size_t>(i)];
    auto* out = reinterpret_cast<bf16_t*>(memory_.data() + task.matrix->offset_bytes) + task.begin;
    fill_chunk(*task.table, task.matrix->key, task.begin, std::min(kChunk, task.matrix->elements - task.begin), out);
  });
}

}  // namespace penstock
