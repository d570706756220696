#include "cache/cache_store.h"

namespace penstock {

Expected<std::unique_ptr<CacheStore>> CacheStore::create(const CacheLayout& layout, const MemoryPlan& plan) {
  std::unique_ptr<CacheStore> store(new CacheStore(layout));
  PENSTOCK_ASSIGN_OR_RETURN(store->kv_pages_, SlotPool::create("KV pages", plan.kv_pages, layout.kv_page_bytes));
  PENSTOCK_ASSIGN_OR_RETURN(store->states_, SlotPool::create("states", plan.states, layout.state_bytes));
  PENSTOCK_ASSIGN_OR_RETURN(store->windows_, SlotPool::create("windows", plan.windows, layout.window_bytes));
  return store;
}

void CacheStore::trim(std::size_t keep_bytes) {
  kv_pages_->trim(keep_bytes);
  states_->trim(keep_bytes);
  windows_->trim(keep_bytes);
}

}  // namespace penstock
