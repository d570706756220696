// Any bytes as a safetensors file: an error or tensors whose bytes lie within the file, never a crash.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using penstock::SafetensorsFile;
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto file = SafetensorsFile::parse(bytes, "fuzz");
  if (!file.ok()) {
    CHECK(!file.status().message().empty());
    return 0;
  }
  std::size_t covered = 0;
  for (const auto& [name, entry] : (*file)->entries()) {
    std::size_t elements = 1;
    for (const std::int64_t dim : entry.shape) elements *= static_cast<std::size_t>(dim);
    CHECK(entry.data.size() == elements * penstock::dtype_bytes(entry.dtype));
    if (entry.data.empty()) continue;
    CHECK(entry.data.data() >= bytes.data() && entry.data.data() + entry.data.size() <= bytes.data() + bytes.size());
    covered += entry.data.size();
    volatile std::byte touched = entry.data.front() ^ entry.data.back();
    (void)touched;
  }
  CHECK(covered <= size);
  return 0;
}
