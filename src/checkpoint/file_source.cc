#include "checkpoint/file_source.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

#include "checkpoint/text_util.h"

namespace penstock {
namespace {

std::string where(const IndexedTensor& tensor) {
  return "tensor " + in_quotes(tensor.disk_name) + " in " + tensor.file;
}

float load_float(DType dtype, const std::byte* data, std::size_t i) {
  if (dtype == DType::kF32) {
    float value = 0.0F;
    std::memcpy(&value, data + i * sizeof(value), sizeof(value));
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, data + i * sizeof(bits), sizeof(bits));
  return dtype == DType::kBF16 ? bf16_to_float(bits) : f16_to_float(bits);
}

// The number after "layers.", or -1.
std::int64_t layer_number(const std::string& canonical) {
  constexpr std::string_view kPrefix = "layers.";
  std::int64_t number = -1;
  if (canonical.starts_with(kPrefix)) {
    std::from_chars(canonical.data() + kPrefix.size(), canonical.data() + canonical.size(), number);
  }
  return number;
}

}  // namespace

bool FileSource::has(const std::string& name) const {
  return index_.tensors().contains(name);
}

bool FileSource::has_mtp() const {
  const auto& tensors = index_.tensors();
  return std::any_of(tensors.begin(), tensors.end(), [](const auto& item) { return item.first.starts_with("mtp."); });
}

const IndexedTensor* FileSource::take(const std::string& name, std::span<const std::int64_t> shape) {
  if (!ok()) return nullptr;
  const auto found = index_.tensors().find(name);
  if (found == index_.tensors().end()) {
    fail(not_found("tensor " + in_quotes(index_.spelled(name)) + " is missing; config.json implies it, of shape " +
                   shape_text(shape)));
    return nullptr;
  }
  const IndexedTensor& tensor = found->second;
  const DType dtype = tensor.entry->dtype;
  if (dtype != DType::kBF16 && dtype != DType::kF16 && dtype != DType::kF32) {
    fail(unsupported(where(tensor) + " is of type " + to_string(dtype) + "; weights must be BF16, F16 or F32"));
    return nullptr;
  }
  if (!std::equal(shape.begin(), shape.end(), tensor.entry->shape.begin(), tensor.entry->shape.end())) {
    fail(corrupt(where(tensor) + " has shape " + shape_text(tensor.entry->shape) + ", but config.json implies " +
                 shape_text(shape)));
    return nullptr;
  }
  used_.insert(&tensor);
  return &tensor;
}

MatrixView FileSource::matrix(const std::string& name, std::int64_t rows, std::int64_t cols) {
  const IndexedTensor* tensor = take(name, std::array{rows, cols});
  if (tensor == nullptr) return {};
  return {tensor->entry->dtype, rows, cols, {{tensor->entry->data.data(), rows}}};
}

std::vector<MatrixView> FileSource::matrices(const std::string& name, std::int64_t count, std::int64_t rows,
                                             std::int64_t cols) {
  const IndexedTensor* tensor = take(name, std::array{count, rows, cols});
  if (tensor == nullptr) return {};
  const MatrixView all = {tensor->entry->dtype, count * rows, cols, {{tensor->entry->data.data(), count * rows}}};
  std::vector<MatrixView> out;
  out.reserve(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) out.push_back(row_range(all, i * rows, rows));
  return out;
}

std::vector<float> FileSource::vector(const std::string& name, std::span<const std::int64_t> shape,
                                      VectorKind /*kind*/) {
  const IndexedTensor* tensor = take(name, shape);
  if (tensor == nullptr) return {};
  const SafetensorsEntry& entry = *tensor->entry;
  std::vector<float> out(entry.data.size() / dtype_bytes(entry.dtype));
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = load_float(entry.dtype, entry.data.data(), i);
    if (!std::isfinite(out[i])) {
      fail(corrupt(where(*tensor) + " holds " + (std::isnan(out[i]) ? "NaN" : "an infinity") + " at element " +
                   std::to_string(i)));
      return {};
    }
  }
  return out;
}

Status FileSource::check_all_used() const {
  const IndexedTensor* first = nullptr;
  std::string first_canonical;
  for (const auto& [canonical, tensor] : index_.tensors()) {
    if (tensor.role == TensorRole::kSkipped || used_.contains(&tensor)) continue;
    if (first == nullptr || tensor.disk_name < first->disk_name) {
      first = &tensor;
      first_canonical = canonical;
    }
  }
  if (first == nullptr) return {};
  std::string message = where(*first) + " (" + to_string(first->entry->dtype) + " " + shape_text(first->entry->shape) +
                        ") is unknown: no part of a " + to_string(config_.family) + " model of this configuration";
  if (layer_number(first_canonical) >= config_.num_layers()) {
    message += ", which has " + std::to_string(config_.num_layers()) + " layers";
  }
  return unsupported(std::move(message));
}

}  // namespace penstock
