// Equal-sized slots with reference counts in memory that is taken from the system as it is first written. Pages, states
// and windows each have a pool. The metadata belongs to the engine's thread (contract O1): nothing here locks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "penstock/status.h"

namespace penstock {

// Memory the system hands out page by page; unmapped at the end.
class LazyMemory {
 public:
  static Expected<LazyMemory> map(std::size_t bytes, const std::string& what);
  LazyMemory() = default;
  LazyMemory(LazyMemory&& other) noexcept;
  LazyMemory& operator=(LazyMemory&& other) noexcept;
  ~LazyMemory();

  std::byte* data() const { return data_; }
  // Gives [begin_bytes, end) back to the system; it reads as zeros and is taken again when written.
  void give_back_from(std::size_t begin_bytes);

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

class SlotPool {
 public:
  // Slots 1 … slots can be given out; slot 0 is reserved. Nothing is zeroed when a slot is given out again.
  static Expected<std::unique_ptr<SlotPool>> create(std::string name, std::int32_t slots, std::size_t slot_bytes);

  // A slot with one reference, or 0 when none is free.
  std::int32_t acquire();
  void retain(std::int32_t slot);
  void release(std::int32_t slot);  // at zero references the slot is free
  std::int32_t references(std::int32_t slot) const;

  std::int32_t total() const { return total_; }
  std::int32_t available() const { return static_cast<std::int32_t>(free_.size()); }
  std::int32_t used() const { return total() - available(); }
  std::byte* base() const { return memory_.data(); }  // 64-byte aligned; slot i at base + i × slot_bytes
  std::size_t slot_bytes() const { return slot_bytes_; }

  // Gives memory beyond the first `keep_bytes` back to the system. Does nothing unless every slot is free.
  void trim(std::size_t keep_bytes);

  // expected[i]: the references that slot i should have, by those who hold them. Empty when all is well.
  Status check(std::span<const std::int32_t> expected) const;

 private:
  SlotPool(std::string name, std::int32_t slots, std::size_t slot_bytes, LazyMemory memory);
  void fill_free_list();

  std::string name_;
  std::int32_t total_;
  std::size_t slot_bytes_;
  LazyMemory memory_;
  std::vector<std::int32_t> references_;  // [total + 1]
  std::vector<std::int32_t> free_;        // a stack: the slot freed last is given out first, its memory is warm
  std::int32_t highest_ = 0;              // highest slot given out since the last trim
};

}  // namespace penstock
