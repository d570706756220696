// The prefix cache under random operations against an oracle: it never finds what was not inserted, and with room for
// everything it finds exactly what was.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <utility>

#include "cache/testing/tree.h"

namespace penstock::testing {
namespace {

using ::testing::Test;

// What was put in, by salt and blocks; what each slot was last written for.
struct Oracle {
  using Key = std::pair<std::string, Ids>;
  std::map<Key, std::int32_t> pages, snapshots;  // as the tree has them, while nothing is evicted
  std::map<std::int32_t, Key> page_content, state_content;

  static Key prefix(const std::string& salt, const Ids& blocks, std::size_t count) {
    return {salt, Ids(blocks.begin(), blocks.begin() + static_cast<std::ptrdiff_t>(count))};
  }
};

class RandomTree {
 public:
  RandomTree(const Tree::Sizes& sizes, bool roomy, unsigned seed) : tree_(sizes), roomy_(roomy), random_(seed) {}

  void run(int operations) {
    for (int i = 0; i < operations && !Test::HasFatalFailure(); ++i) {
      const std::uint32_t what = next(100);
      if (what < 40) {
        insert();
      } else if (what < 80) {
        match();
      } else if (what < 88) {
        let_go();
      } else if (what < 96) {
        drop();
      } else if (what == 96 && next(8) == 0) {
        flush();
      } else {
        squeeze();
      }
      tree_.check(held_pages_, held_states_);
    }
    while (!held_.empty()) let_go();
    evict_all();
  }

  std::int64_t hits = 0, snapshot_hits = 0;
  PrefixCounters counters;  // before the last eviction of everything

 private:
  struct Holder {
    std::string salt;
    Ids blocks, pages;
    std::int32_t snapshot = 0;
  };

  std::uint32_t next(std::uint32_t n) { return static_cast<std::uint32_t>(random_() % n); }

  // Few different blocks at each depth, so that paths are shared and part anywhere.
  Ids random_blocks() {
    Ids blocks(1 + next(6));
    for (std::int32_t& block : blocks) block = static_cast<std::int32_t>(next(3));
    return blocks;
  }
  std::string random_salt() { return next(3) == 0 ? "tenant" : ""; }

  void hold(Holder holder) {
    held_pages_.insert(held_pages_.end(), holder.pages.begin(), holder.pages.end());
    if (holder.snapshot != 0) held_states_.push_back(holder.snapshot);
    held_.push_back(std::move(holder));
  }
  void let_go() {
    if (held_.empty()) return;
    const std::size_t i = next(static_cast<std::uint32_t>(held_.size()));
    for (const std::int32_t page : held_[i].pages) {
      held_pages_.erase(std::find(held_pages_.begin(), held_pages_.end(), page));
      tree_.store->kv_pages().release(page);
    }
    if (const std::int32_t state = held_[i].snapshot; state != 0) {
      held_states_.erase(std::find(held_states_.begin(), held_states_.end(), state));
      tree_.store->states().release(state);
    }
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(i));
  }

  // A request begins with what the tree has, computes the rest, and leaves it; it stays for a while perhaps.
  void insert() {
    Holder holder{random_salt(), random_blocks(), {}, 0};
    const auto blocks = static_cast<std::int32_t>(holder.blocks.size());
    const Ids tokens = Tree::tokens(holder.blocks);
    if (next(2) == 0) {
      const PrefixMatch match = tree_.cache->match(tokens, holder.salt, blocks);
      tree_.cache->pages_of(tokens, holder.salt, match.kv_blocks, holder.pages);
      tree_.retain_pages(holder.pages);
    }
    while (holder.pages.size() < holder.blocks.size()) {
      const std::int32_t page = tree_.cache->acquire_page();
      if (page == 0) break;
      holder.pages.push_back(page);
      oracle_.page_content[page] = Oracle::prefix(holder.salt, holder.blocks, holder.pages.size());
    }
    if (next(2) == 0) holder.snapshot = tree_.cache->acquire_state();
    holder.blocks.resize(holder.pages.size());
    if (holder.snapshot != 0) {
      oracle_.state_content[holder.snapshot] = {holder.salt, holder.blocks};
      if (!holder.blocks.empty()) oracle_.snapshots.try_emplace({holder.salt, holder.blocks}, holder.snapshot);
    }
    for (std::size_t i = 1; i <= holder.pages.size(); ++i) {
      std::int32_t& page = oracle_.pages[Oracle::prefix(holder.salt, holder.blocks, i)];
      const bool in_use = std::find(held_pages_.begin(), held_pages_.end(), page) != held_pages_.end();
      if (page == 0 || !in_use) page = holder.pages[i - 1];
    }
    tree_.cache->insert(Tree::tokens(holder.blocks), holder.salt, holder.pages, holder.snapshot);
    const bool stays = next(4) == 0 && held_.size() < (roomy_ ? 6U : 2U);
    hold(std::move(holder));
    if (!stays) {
      std::swap(held_.back(), held_[next(static_cast<std::uint32_t>(held_.size()))]);
      let_go();
    }
  }

  void match() {
    const std::string salt = random_salt();
    const Ids blocks = random_blocks();
    const auto most = static_cast<std::int32_t>(next(8));
    const PrefixMatch match = tree_.cache->match(Tree::tokens(blocks), salt, most);
    ASSERT_LE(match.kv_blocks, std::min<std::int32_t>(most, static_cast<std::int32_t>(blocks.size())));
    ASSERT_LE(match.snapshot_blocks, match.kv_blocks);
    ASSERT_EQ(match.snapshot == 0, match.snapshot_blocks == 0);
    Ids pages;
    tree_.cache->pages_of(Tree::tokens(blocks), salt, match.kv_blocks, pages);
    ASSERT_EQ(static_cast<std::int32_t>(pages.size()), match.kv_blocks);
    std::int32_t held = 0;
    for (std::size_t i = 1; i <= pages.size(); ++i) {
      const std::int32_t page = pages[i - 1];
      // Computed for just these tokens and tenant, and not written for others since.
      ASSERT_EQ(oracle_.page_content[page], Oracle::prefix(salt, blocks, i));
      ASSERT_GT(tree_.store->kv_pages().references(page), 0);
      const bool in_use = std::find(held_pages_.begin(), held_pages_.end(), page) != held_pages_.end();
      held += in_use && static_cast<std::int32_t>(i) <= match.snapshot_blocks ? 1 : 0;
    }
    ASSERT_EQ(match.held_blocks, held);
    if (match.snapshot != 0) {
      const auto key = Oracle::prefix(salt, blocks, static_cast<std::size_t>(match.snapshot_blocks));
      ASSERT_EQ(oracle_.state_content[match.snapshot], key);
      ++snapshot_hits;
    }
    hits += match.kv_blocks > 0;
    if (roomy_)
      compare(salt, blocks, std::min<std::size_t>(static_cast<std::size_t>(most), blocks.size()), match, pages);
  }

  // While there is room for everything, the answer is known to the slot.
  void compare(const std::string& salt, const Ids& blocks, std::size_t most, const PrefixMatch& match,
               const Ids& found) {
    std::int32_t snapshot = 0, kv = 0, at = 0;
    for (std::size_t i = 1; i <= most; ++i) {
      const auto key = Oracle::prefix(salt, blocks, i);
      const auto page = oracle_.pages.find(key);
      if (page == oracle_.pages.end()) break;
      kv = static_cast<std::int32_t>(i);
      ASSERT_EQ(found[i - 1], page->second);
      if (!oracle_.snapshots.contains(key)) continue;
      snapshot = oracle_.snapshots[key];
      at = kv;
    }
    ASSERT_EQ(match.kv_blocks, kv);
    ASSERT_EQ(match.snapshot_blocks, at);
    ASSERT_EQ(match.snapshot, snapshot);
  }

  void drop() {
    if (next(2) == 0 || held_states_.empty()) {
      const std::string salt = random_salt();
      const Ids blocks = random_blocks();
      const auto it = oracle_.snapshots.find({salt, blocks});
      const bool unused = it != oracle_.snapshots.end() &&
                          std::find(held_states_.begin(), held_states_.end(), it->second) == held_states_.end();
      tree_.cache->drop_snapshot_at(Tree::tokens(blocks), salt);
      if (unused) oracle_.snapshots.erase(it);
    } else {
      const std::int32_t slot = held_states_[next(static_cast<std::uint32_t>(held_states_.size()))];
      const auto it = std::find_if(oracle_.snapshots.begin(), oracle_.snapshots.end(),
                                   [&](const auto& entry) { return entry.second == slot; });
      const bool dropped = tree_.cache->drop_snapshot(slot);
      if (roomy_) {
        ASSERT_EQ(dropped, it != oracle_.snapshots.end());
      }
      if (it != oracle_.snapshots.end()) oracle_.snapshots.erase(it);
    }
  }

  void flush() {
    tree_.cache->flush();
    ASSERT_EQ(tree_.cache->blocks(), 0);
    ASSERT_EQ(tree_.store->kv_pages().cached() + tree_.store->states().cached(), 0);
    oracle_.pages.clear();
    oracle_.snapshots.clear();
  }

  // Slots that are not kept: they only push others out.
  void squeeze() {
    if (roomy_) return;
    const bool page = next(2) == 0;
    const std::int32_t slot = page ? tree_.cache->acquire_page() : tree_.cache->acquire_state();
    if (slot == 0) return;
    (page ? oracle_.page_content : oracle_.state_content).erase(slot);
    (page ? tree_.store->kv_pages() : tree_.store->states()).release(slot);
  }

  // With nothing in use, every slot can be had.
  void evict_all() {
    counters = tree_.cache->counters();
    SlotPool& pages = tree_.store->kv_pages();
    while (const std::int32_t page = tree_.cache->acquire_page()) {
      held_pages_.push_back(page);
      tree_.check(held_pages_, held_states_);
    }
    ASSERT_EQ(pages.used(), pages.total());
    ASSERT_EQ(pages.cached(), 0);
    ASSERT_EQ(tree_.cache->blocks(), 0);
    tree_.release_pages(held_pages_);
    held_pages_.clear();
    tree_.expect_empty();
  }

  Tree tree_;
  bool roomy_;
  std::mt19937 random_;
  Oracle oracle_;
  std::vector<Holder> held_;
  Ids held_pages_, held_states_;  // with repetitions
};

TEST(PrefixCache, RandomOperationsWithRoomAreTheOraclesToTheSlot) {
  RandomTree random({.slabs = 1500}, true, 1);
  random.run(5000);
  EXPECT_GT(random.snapshot_hits, 1000);
  EXPECT_EQ(random.counters.pages_evicted, 0);
}

TEST(PrefixCache, RandomOperationsWithoutRoomFindNothingWrong) {
  unsigned seed = 2;
  for (const Tree::Sizes& sizes : {Tree::Sizes{.slabs = 24}, Tree::Sizes{.slabs = 12, .state_bytes = 64},
                                   Tree::Sizes{.slabs = 14, .page_bytes = 128, .state_bytes = 448},
                                   Tree::Sizes{.slabs = 40, .pages = 14, .states = 5}}) {
    SCOPED_TRACE(seed);
    RandomTree random(sizes, false, seed++);
    random.run(4000);
    EXPECT_GT(random.hits, 500);
    EXPECT_GT(random.snapshot_hits, 50);
    EXPECT_GT(random.counters.pages_evicted, 300);
    EXPECT_GT(random.counters.snapshots_evicted, 100);
  }
}

}  // namespace
}  // namespace penstock::testing
