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

void LazyMemory::give_back(std::size_t begin_bytes, std::size_t end_bytes) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t begin = (begin_bytes + page - 1) / page * page;
  const std::size_t end = std::min(end_bytes, bytes_) / page * page;
  if (begin < end) (void)madvise(data_ + begin, end - begin, MADV_DONTNEED);
}

Expected<std::unique_ptr<SlabArena>> SlabArena::create(const std::string& name, std::int32_t slabs,
                                                       std::size_t slab_bytes) {
  CHECK(slabs >= 0 && slab_bytes % 64 == 0);
  const auto count = static_cast<std::size_t>(slabs) + 1;
  if (slab_bytes != 0 && count > std::numeric_limits<std::size_t>::max() / 2 / slab_bytes) {
    return resource_exhausted(
        fmt::format("{} slabs of {} bytes for {} are more than this machine can address", slabs, slab_bytes, name));
  }
  PENSTOCK_ASSIGN_OR_RETURN(LazyMemory memory, LazyMemory::map(count * slab_bytes, name));
  return std::unique_ptr<SlabArena>(new SlabArena(slabs, slab_bytes, std::move(memory)));
}

SlabArena::SlabArena(std::int32_t slabs, std::size_t slab_bytes, LazyMemory memory)
    : total_(slabs), slab_bytes_(slab_bytes), memory_(std::move(memory)) {
  taken_.assign(static_cast<std::size_t>(slabs) + 1, false);
  warm_.assign(static_cast<std::size_t>(slabs) + 1, false);
  free_.reserve(static_cast<std::size_t>(slabs));
  for (std::int32_t slab = slabs; slab >= 1; --slab) free_.push_back(slab);
}

std::int32_t SlabArena::take() {
  if (free_.empty()) return 0;
  const std::int32_t slab = free_.back();
  free_.pop_back();
  taken_[static_cast<std::size_t>(slab)] = warm_[static_cast<std::size_t>(slab)] = true;
  return slab;
}

void SlabArena::give_back(std::int32_t slab) {
  CHECK(slab >= 1 && slab <= total_ && is_taken(slab));
  taken_[static_cast<std::size_t>(slab)] = false;
  free_.push_back(slab);
}

void SlabArena::trim(std::size_t keep_bytes) {
  // From the top of the stack down: what stays is what is taken next.
  std::size_t kept = 0;
  for (auto it = free_.rbegin(); it != free_.rend(); ++it) {
    const auto slab = static_cast<std::size_t>(*it);
    if (!warm_[slab]) continue;
    kept += slab_bytes_;
    if (kept <= keep_bytes) continue;
    memory_.give_back(slab * slab_bytes_, (slab + 1) * slab_bytes_);
    warm_[slab] = false;
  }
}

SlotPool::SlotPool(std::string name, SlabArena& arena, std::int32_t per_slab, std::int32_t most)
    : name_(std::move(name)), arena_(arena), per_slab_(per_slab) {
  CHECK(per_slab >= 1 && most >= 0);
  const auto slabs = static_cast<std::size_t>(arena.total()) + 1;
  total_ = static_cast<std::int32_t>(std::min<std::int64_t>(most, std::int64_t{arena.total()} * per_slab));
  references_.assign(slabs * static_cast<std::size_t>(per_slab), 0);
  cached_.assign(references_.size(), false);
  free_in_.assign(slabs, 0);
}

std::size_t SlotPool::index(std::int32_t slot) const {
  CHECK(slot >= per_slab_ && slot < end());
  return static_cast<std::size_t>(slot);
}

std::int32_t SlotPool::available() const {
  std::int64_t free = std::int64_t{arena_.available()} * per_slab_;
  for (const std::int32_t slab : partial_) free += free_in_[static_cast<std::size_t>(slab)];
  return static_cast<std::int32_t>(std::min<std::int64_t>(free, total_ - used_));
}

std::int32_t SlotPool::acquire() {
  if (used_ >= total_ || (refuse_ && refuse_())) return 0;
  if (partial_.empty()) {
    const std::int32_t slab = arena_.take();
    if (slab == 0) return 0;
    free_in_[static_cast<std::size_t>(slab)] = per_slab_;
    ++slabs_;
    partial_.insert(slab);
  }
  std::int32_t slot = *partial_.begin() * per_slab_;
  while (references_[static_cast<std::size_t>(slot)] != 0) ++slot;
  references_[index(slot)] = 1;
  ++used_;
  if (--free_in_slab(slot) == 0) partial_.erase(partial_.begin());
  return slot;
}

void SlotPool::retain(std::int32_t slot) {
  CHECK(references(slot) > 0);
  if (only_cached(slot)) --only_cached_;
  ++references_[index(slot)];
}

void SlotPool::release(std::int32_t slot) {
  CHECK(references(slot) > 0);
  if (--references_[index(slot)] > 0) {
    if (only_cached(slot)) ++only_cached_;
    return;
  }
  CHECK(!is_cached(slot));
  --used_;
  const std::int32_t slab = slot / per_slab_;
  if (++free_in_slab(slot) < per_slab_) {
    partial_.insert(slab);
    return;
  }
  partial_.erase(slab);
  free_in_slab(slot) = 0;
  --slabs_;
  arena_.give_back(slab);
}

void SlotPool::set_cached(std::int32_t slot, bool cached) {
  CHECK(references(slot) > 0 && is_cached(slot) != cached);
  if (only_cached(slot)) --only_cached_;
  cached_[index(slot)] = cached;
  if (only_cached(slot)) ++only_cached_;
}

std::int32_t SlotPool::references(std::int32_t slot) const {
  return references_[index(slot)];
}

Status SlotPool::check(std::span<const std::int32_t> expected) const {
  CHECK(expected.size() == references_.size());
  std::int32_t used = 0, only = 0;
  std::vector<std::int32_t> used_in(free_in_.size(), 0);
  for (std::int32_t slot = per_slab_; slot < end(); ++slot) {
    const auto i = static_cast<std::size_t>(slot);
    if (references_[i] != expected[i]) {
      return internal_error(fmt::format("{}: slot {} has {} references, its holders are {} ({} of {} slots in use)",
                                        name_, slot, references_[i], expected[i], used_, total_));
    }
    if (references_[i] == 0) continue;
    ++used;
    only += only_cached(slot);
    ++used_in[static_cast<std::size_t>(slot / per_slab_)];
  }
  if (used != used_ || only != only_cached_) {
    return internal_error(fmt::format("{}: {} slots are in use and {} cached alone, the pool counts {} and {}", name_,
                                      used, only, used_, only_cached_));
  }
  for (std::int32_t slab = 1; slab <= arena_.total(); ++slab) {
    const auto i = static_cast<std::size_t>(slab);
    const bool partly = used_in[i] > 0 && used_in[i] < per_slab_;
    if (partly != partial_.contains(slab) || (used_in[i] > 0 && !arena_.is_taken(slab)) ||
        free_in_[i] != (used_in[i] > 0 ? per_slab_ - used_in[i] : 0)) {
      return internal_error(fmt::format("{}: slab {} has {} of {} slots in use, the pool counts {} free", name_, slab,
                                        used_in[i], per_slab_, free_in_[i]));
    }
  }
  return {};
}

}  // namespace penstock
