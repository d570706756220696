// Files mapped for reading.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "penstock/status.h"

namespace penstock {

// A regular file, mapped read-only. The file must not shrink while it is mapped.
class MappedFile {
 public:
  // kNotFound: no such file; kInvalidArgument: not a regular file, or no permission. An empty file gives no bytes.
  static Expected<std::unique_ptr<MappedFile>> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_bytes_}; }

  // The pages will be read about once, from front to back: read ahead far, and do not keep what is behind.
  void advise_sequential() const;

 private:
  MappedFile(const std::byte* data, std::size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}

  const std::byte* data_;
  std::size_t size_bytes_;
};

}  // namespace penstock
