// The memory of one engine, made from a memory plan: an arena that KV pages and states share, and the windows.
#pragma once

#include <memory>

#include "cache/memory_plan.h"
#include "cache/slot_pool.h"
#include "ops/cache_layout.h"
#include "penstock/status.h"

namespace penstock {

class CacheStore {
 public:
  static Expected<std::unique_ptr<CacheStore>> create(const CacheLayout& layout, const MemoryPlan& plan);

  const CacheLayout& layout() const { return layout_; }
  CachePools pools() const { return {kv_pages_->base(), states_->base(), windows_->base()}; }
  SlotPool& kv_pages() { return *kv_pages_; }
  SlotPool& states() { return *states_; }
  SlotPool& windows() { return *windows_; }
  const SlabArena& arena() const { return *arena_; }
  bool has_windows() const { return layout_.window_bytes > 0; }  // not with the recurrent backend

  // Keeps `keep_bytes` of the free memory of each arena and gives the rest of it back to the system.
  void trim(std::size_t keep_bytes);
  // Every taken slab has an owner.
  Status check_slabs() const;

 private:
  explicit CacheStore(const CacheLayout& layout) : layout_(layout) {}

  CacheLayout layout_;
  std::unique_ptr<SlabArena> arena_, window_arena_;
  std::unique_ptr<SlotPool> kv_pages_, states_, windows_;
};

}  // namespace penstock
