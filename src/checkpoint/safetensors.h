// The safetensors file format, read from a mapping and never trusted, and a small writer for `score` and tests.
// Format: u64 little-endian header length, a JSON object name -> {dtype, shape, data_offsets}, then the data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/dtype.h"
#include "penstock/status.h"

namespace penstock {

struct SafetensorsEntry {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;  // within the mapping
};

class SafetensorsFile {
 public:
  // kNotFound, or kCorrupt with the file and what is wrong: header size, JSON, unknown dtype, offsets outside the
  // file, overlapping or leaving holes, shape × dtype unequal to the bytes, overflow, duplicate names.
  static Expected<std::unique_ptr<SafetensorsFile>> open(const std::filesystem::path& path);
  // The same checks on bytes in memory, which must outlive the result (tests, fuzzing).
  static Expected<std::unique_ptr<SafetensorsFile>> parse(std::span<const std::byte> bytes, const std::string& label);
  virtual ~SafetensorsFile() = default;

  virtual const std::unordered_map<std::string, SafetensorsEntry>& entries() const = 0;
};

// Writes fp32 and int32 tensors to a file as they come; the header is placed in front at the end.
class SafetensorsWriter {
 public:
  static Expected<std::unique_ptr<SafetensorsWriter>> create(const std::filesystem::path& path);
  virtual ~SafetensorsWriter() = default;
  virtual Status add(const std::string& name, DType dtype, std::vector<std::int64_t> shape,
                     std::span<const std::byte> data) = 0;
  virtual Status finish() = 0;  // the file appears under its name only now, complete
};

}  // namespace penstock
