// Memory that comes from the kernel directly: files mapped for reading, and large zeroed blocks.
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

// Zeroed private memory, in huge pages where the kernel has them, touched by nobody yet.
class AnonymousMemory {
 public:
  static Expected<std::unique_ptr<AnonymousMemory>> allocate(std::int64_t size_bytes);
  ~AnonymousMemory();
  AnonymousMemory(const AnonymousMemory&) = delete;
  AnonymousMemory& operator=(const AnonymousMemory&) = delete;

  std::byte* data() const { return data_; }
  std::int64_t size_bytes() const { return static_cast<std::int64_t>(size_bytes_); }

 private:
  AnonymousMemory(std::byte* data, std::size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}

  std::byte* data_;
  std::size_t size_bytes_;
};

// Memory that can be had without swapping, as the kernel estimates it; 0 where it does not say.
std::int64_t available_memory_bytes();

}  // namespace penstock
