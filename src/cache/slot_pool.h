// Equal-sized slots with reference counts. Slots are cut from slabs of an arena, so that pools of different slots share
// memory (contract S6). The metadata belongs to the engine's thread (contract O1): nothing here locks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "penstock/status.h"

namespace penstock {

// Memory the system hands out page by page as it is first written; unmapped at the end.
class LazyMemory {
 public:
  static Expected<LazyMemory> map(std::size_t bytes, const std::string& what);
  LazyMemory() = default;
  LazyMemory(LazyMemory&& other) noexcept;
  LazyMemory& operator=(LazyMemory&& other) noexcept;
  ~LazyMemory();

  std::byte* data() const { return data_; }
  // Gives [begin, end) back to the system; it reads as zeros and is taken again when written.
  void give_back(std::size_t begin_bytes, std::size_t end_bytes);

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Slabs 1 … slabs; slab 0 is reserved, so that slot 0 of every pool is.
class SlabArena {
 public:
  static Expected<std::unique_ptr<SlabArena>> create(const std::string& name, std::int32_t slabs,
                                                     std::size_t slab_bytes);

  std::int32_t take();  // 0: none is free
  void give_back(std::int32_t slab);

  std::int32_t total() const { return total_; }
  std::int32_t available() const { return static_cast<std::int32_t>(free_.size()); }
  std::byte* base() const { return memory_.data(); }  // 64-byte aligned; slab i at base + i × slab_bytes
  std::size_t slab_bytes() const { return slab_bytes_; }
  bool is_taken(std::int32_t slab) const { return taken_[static_cast<std::size_t>(slab)]; }

  // Keeps `keep_bytes` of the memory of free slabs and gives the rest of it back to the system.
  void trim(std::size_t keep_bytes);

 private:
  SlabArena(std::int32_t slabs, std::size_t slab_bytes, LazyMemory memory);

  std::int32_t total_;
  std::size_t slab_bytes_;
  LazyMemory memory_;
  std::vector<std::int32_t> free_;  // a stack: the slab freed last is taken first, its memory is warm
  std::vector<bool> taken_, warm_;  // [total + 1]; warm: was taken since the last trim
};

class SlotPool {
 public:
  // per_slab: slots in a slab of the arena, which must outlive this. most: slots given out at a time.
  SlotPool(std::string name, SlabArena& arena, std::int32_t per_slab, std::int32_t most);

  // For tests: acquire() gives nothing when this says true. Empty: never.
  void refuse_when(std::function<bool()> refuse) { refuse_ = std::move(refuse); }

  // A slot with one reference, or 0 when none is free. Nothing is zeroed. Takes a new slab only when all of its own are
  // full, and the lowest of those that are not, so that slabs become free again.
  std::int32_t acquire();
  void retain(std::int32_t slot);
  void release(std::int32_t slot);  // at zero references the slot is free
  std::int32_t references(std::int32_t slot) const;

  // Marks one of the references as the prefix cache's.
  void set_cached(std::int32_t slot, bool cached);
  bool is_cached(std::int32_t slot) const { return cached_[index(slot)]; }
  // Held by the prefix cache and nobody else: can be evicted.
  bool only_cached(std::int32_t slot) const { return is_cached(slot) && references(slot) == 1; }

  std::int32_t total() const { return total_; }  // the most there can be
  std::int32_t available() const;                // while no other pool takes slabs
  std::int32_t used() const { return used_; }
  std::int32_t cached() const { return only_cached_; }  // of those, held by the prefix cache alone
  std::int32_t held() const { return used_ - only_cached_; }
  std::int32_t per_slab() const { return per_slab_; }
  std::int32_t slabs() const { return slabs_; }                                       // taken from the arena
  std::int32_t end() const { return static_cast<std::int32_t>(references_.size()); }  // above every slot
  std::byte* base() const { return arena_.base(); }  // slot i at base + i × slot_bytes
  std::size_t slot_bytes() const { return arena_.slab_bytes() / static_cast<std::size_t>(per_slab_); }

  // expected[i], i < end(): the references that slot i should have, by those who hold them. Empty when all is well.
  Status check(std::span<const std::int32_t> expected) const;

 private:
  std::size_t index(std::int32_t slot) const;
  std::int32_t& free_in_slab(std::int32_t slot) { return free_in_[static_cast<std::size_t>(slot / per_slab_)]; }

  std::string name_;
  SlabArena& arena_;
  std::int32_t per_slab_, total_;
  std::int32_t used_ = 0, only_cached_ = 0, slabs_ = 0;
  std::vector<std::int32_t> references_;  // [(slabs + 1) · per_slab]
  std::vector<bool> cached_;              // [(slabs + 1) · per_slab]
  std::vector<std::int32_t> free_in_;     // [slabs + 1] free slots of the slabs this pool has
  std::set<std::int32_t> partial_;        // slabs it has that are not full
  std::function<bool()> refuse_;
};

}  // namespace penstock
