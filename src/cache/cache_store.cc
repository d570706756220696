#include "cache/cache_store.h"

#include <fmt/format.h>

#include <algorithm>

namespace penstock {

Expected<std::unique_ptr<CacheStore>> CacheStore::create(const CacheLayout& layout, const MemoryPlan& plan) {
  std::unique_ptr<CacheStore> store(new CacheStore(layout));
  PENSTOCK_ASSIGN_OR_RETURN(store->arena_, SlabArena::create("KV pages and states", plan.slabs, layout.slab_bytes));
  PENSTOCK_ASSIGN_OR_RETURN(store->window_arena_,
                            SlabArena::create("windows", plan.windows, std::max<std::size_t>(layout.window_bytes, 64)));
  store->kv_pages_ = std::make_unique<SlotPool>("KV pages", *store->arena_, layout.pages_per_slab, plan.kv_pages);
  store->states_ = std::make_unique<SlotPool>("states", *store->arena_, layout.states_per_slab, plan.states);
  store->windows_ = std::make_unique<SlotPool>("windows", *store->window_arena_, 1, plan.windows);
  return store;
}

void CacheStore::trim(std::size_t keep_bytes) {
  arena_->trim(keep_bytes);
  window_arena_->trim(keep_bytes);
}

Status CacheStore::check_slabs() const {
  const std::int32_t taken = arena_->total() - arena_->available();
  const std::int32_t owned = kv_pages_->slabs() + states_->slabs();
  if (taken == owned) return {};
  return internal_error(fmt::format("{} slabs are taken, pages and states have {}", taken, owned));
}

}  // namespace penstock
