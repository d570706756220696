#include "base/aligned.h"

#include <sys/mman.h>

namespace penstock {

AlignedBuffer::AlignedBuffer(std::size_t bytes) {
  if (bytes == 0) return;
  // A tail of slack: kernels prefetch, and read whole vectors, a little past the end.
  const std::size_t size = bytes + 4096;
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return;
  if (size >= (std::size_t{4} << 20)) (void)madvise(memory, size, MADV_HUGEPAGE);
  data_ = static_cast<std::byte*>(memory);
  bytes_ = bytes;
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) munmap(data_, bytes_ + 4096);
}

}  // namespace penstock
