#include "cache/slot_pool.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/system_memory.h"

namespace penstock {

Expected<LazyMemory> LazyMemory::map(std::size_t bytes, const std::string& what) {
  LazyMemory memory;
  if (bytes == 0) return memory;
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    return resource_exhausted(
        fmt::format("cannot map {} for {}: {}; lower --cache-memory or raise the process's "
                    "limit of address space (ulimit -v)",
                    format_bytes(static_cast<std::int64_t>(bytes)), what, std::strerror(errno)));
  }
  memory.data_ = static_cast<std::byte*>(address);
  memory.bytes_ = bytes;
  // States and pages are read as long streams: large pages spare the TLB. A refusal only costs speed.
  (void)madvise(address, bytes, MADV_HUGEPAGE);
  return memory;
}

LazyMemory::LazyMemory(LazyMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

LazyMemory& LazyMemory::operator=(LazyMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

LazyMemory::~LazyMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

void LazyMemory::give_back_from(std::size_t begin_bytes) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t begin = (begin_bytes + page - 1) / page * page;
  if (begin < bytes_) (void)madvise(data_ + begin, bytes_ - begin, MADV_DONTNEED);
}

Expected<std::unique_ptr<SlotPool>> SlotPool::create(std::string name, std::int32_t slots, std::size_t slot_bytes) {
  CHECK(slots >= 0 && slot_bytes % 64 == 0);
  const auto count = static_cast<std::size_t>(slots) + 1;
  if (slot_bytes != 0 && count > std::numeric_limits<std::size_t>::max() / 2 / slot_bytes) {
    return resource_exhausted(
        fmt::format("{} slots of {} bytes for {} are more than this machine can address", slots, slot_bytes, name));
  }
  PENSTOCK_ASSIGN_OR_RETURN(LazyMemory memory, LazyMemory::map(count * slot_bytes, name));
  return std::unique_ptr<SlotPool>(new SlotPool(std::move(name), slots, slot_bytes, std::move(memory)));
}

SlotPool::SlotPool(std::string name, std::int32_t slots, std::size_t slot_bytes, LazyMemory memory)
    : name_(std::move(name)), total_(slots), slot_bytes_(slot_bytes), memory_(std::move(memory)) {
  references_.assign(static_cast<std::size_t>(slots) + 1, 0);
  free_.reserve(static_cast<std::size_t>(slots));
  fill_free_list();
}

void SlotPool::fill_free_list() {
  free_.clear();
  for (std::int32_t slot = total_; slot >= 1; --slot) free_.push_back(slot);
}

std::int32_t SlotPool::acquire() {
  if (free_.empty()) return 0;
  const std::int32_t slot = free_.back();
  free_.pop_back();
  references_[static_cast<std::size_t>(slot)] = 1;
  highest_ = std::max(highest_, slot);
  return slot;
}

void SlotPool::retain(std::int32_t slot) {
  CHECK(references(slot) > 0);
  ++references_[static_cast<std::size_t>(slot)];
}

void SlotPool::release(std::int32_t slot) {
  CHECK(references(slot) > 0);
  if (--references_[static_cast<std::size_t>(slot)] == 0) free_.push_back(slot);
}

std::int32_t SlotPool::references(std::int32_t slot) const {
  CHECK(slot >= 1 && slot <= total_);
  return references_[static_cast<std::size_t>(slot)];
}

void SlotPool::trim(std::size_t keep_bytes) {
  if (used() != 0 || (static_cast<std::size_t>(highest_) + 1) * slot_bytes_ <= keep_bytes) return;
  memory_.give_back_from(keep_bytes);
  fill_free_list();
  highest_ = 0;
}

Status SlotPool::check(std::span<const std::int32_t> expected) const {
  CHECK(expected.size() == references_.size());
  std::vector<bool> is_free(references_.size(), false);
  for (const std::int32_t slot : free_) {
    if (slot < 1 || slot > total_ || is_free[static_cast<std::size_t>(slot)]) {
      return internal_error(fmt::format("{}: slot {} is in the free list twice or does not exist", name_, slot));
    }
    is_free[static_cast<std::size_t>(slot)] = true;
  }
  for (std::size_t slot = 1; slot < references_.size(); ++slot) {
    if (references_[slot] != expected[slot]) {
      return internal_error(fmt::format("{}: slot {} has {} references, its holders are {} ({} of {} slots in use)",
                                        name_, slot, references_[slot], expected[slot], used(), total_));
    }
    if (is_free[slot] != (references_[slot] == 0)) {
      return internal_error(fmt::format("{}: slot {} has {} references but is {}", name_, slot, references_[slot],
                                        is_free[slot] ? "free" : "not free"));
    }
  }
  return {};
}

}  // namespace penstock
