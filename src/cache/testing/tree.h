// A store of small slots, its tree, and someone who computes pages and snapshots for it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "cache/prefix_cache.h"

namespace penstock::testing {

using Ids = std::vector<std::int32_t>;

class Tree {
 public:
  struct Sizes {
    std::int32_t slabs = 64;
    std::int32_t pages = 1 << 20, states = 1 << 20;  // caps
    std::size_t page_bytes = 256, state_bytes = 256;
  };

  explicit Tree(const Sizes& sizes, bool enabled = true) {
    CacheLayout layout;
    layout.kv_page_bytes = sizes.page_bytes;
    layout.state_bytes = sizes.state_bytes;
    layout.share_slabs();
    MemoryPlan plan;
    plan.slabs = sizes.slabs;
    plan.kv_pages = sizes.pages;
    plan.states = sizes.states;
    store = *CacheStore::create(layout, plan);
    cache = std::make_unique<PrefixCache>(*store, enabled);
  }
  Tree() : Tree(Sizes{}) {}

  // Blocks of 64 equal-looking but different tokens, one for each id.
  static Ids tokens(const Ids& blocks) {
    Ids result;
    for (const std::int32_t block : blocks) {
      for (std::int32_t i = 0; i < kBlockTokens; ++i) result.push_back(block * 1000 + i);
    }
    return result;
  }

  Ids acquire_pages(std::size_t count) {
    Ids pages;
    while (pages.size() < count) {
      pages.push_back(cache->acquire_page());
      EXPECT_NE(pages.back(), 0);
    }
    return pages;
  }
  void release_pages(const Ids& pages) {
    for (const std::int32_t page : pages) store->kv_pages().release(page);
  }
  void retain_pages(const Ids& pages) {
    for (const std::int32_t page : pages) store->kv_pages().retain(page);
  }

  // Puts fresh pages for all blocks into the tree, and a snapshot at their end if wanted, and lets go of them. What was
  // inserted and not taken is free again.
  struct Put {
    Ids pages;
    std::int32_t snapshot = 0;
  };
  Put put(const Ids& blocks, bool with_snapshot, const std::string& salt = "") {
    Put result{acquire_pages(blocks.size()), with_snapshot ? cache->acquire_state() : 0};
    cache->insert(tokens(blocks), salt, result.pages, result.snapshot);
    release_pages(result.pages);
    if (result.snapshot != 0) store->states().release(result.snapshot);
    return result;
  }

  PrefixMatch match(const Ids& blocks, const std::string& salt = "") {
    return cache->match(tokens(blocks), salt, static_cast<std::int32_t>(blocks.size()));
  }
  // Blocks that the tree has of these and whether there is a snapshot at their end. Counts as use.
  std::int32_t kv(const Ids& blocks) { return match(blocks).kv_blocks; }
  bool has_snapshot(const Ids& blocks) {
    return match(blocks).snapshot_blocks == static_cast<std::int32_t>(blocks.size());
  }
  Ids pages_of(const Ids& blocks, std::int32_t count, const std::string& salt = "") const {
    Ids pages;
    cache->pages_of(tokens(blocks), salt, count, pages);
    return pages;
  }

  // The tree's accounts, with references that others hold.
  void check(const Ids& held_pages = {}, const Ids& held_states = {}) const {
    Ids pages(static_cast<std::size_t>(store->kv_pages().end()), 0);
    Ids states(static_cast<std::size_t>(store->states().end()), 0);
    for (const std::int32_t page : held_pages) ++pages[static_cast<std::size_t>(page)];
    for (const std::int32_t state : held_states) ++states[static_cast<std::size_t>(state)];
    for (const Status& status : {cache->add_references(pages, states), store->kv_pages().check(pages),
                                 store->states().check(states), store->check_slabs()}) {
      ASSERT_TRUE(status.ok()) << status.message();
    }
  }
  void expect_empty() const {
    EXPECT_EQ(cache->blocks(), 0);
    EXPECT_EQ(store->kv_pages().used() + store->states().used(), 0);
    EXPECT_EQ(store->arena().available(), store->arena().total());
    check();
  }

  std::unique_ptr<CacheStore> store;
  std::unique_ptr<PrefixCache> cache;
};

}  // namespace penstock::testing
