// The tree by itself: what it finds, what it lets go and in which order.
#include "cache/prefix_cache.h"

#include <gtest/gtest.h>

#include "cache/testing/tree.h"

namespace penstock::testing {
namespace {

TEST(PrefixCache, FindsWhatWasInserted) {
  Tree tree;
  EXPECT_EQ(tree.match({1, 2, 3}).kv_blocks, 0);
  const Tree::Put put = tree.put({1, 2, 3}, true);
  tree.check();
  const PrefixMatch match = tree.match({1, 2, 3, 4});
  EXPECT_EQ(match.kv_blocks, 3);
  EXPECT_EQ(match.snapshot_blocks, 3);
  EXPECT_EQ(match.snapshot, put.snapshot);
  EXPECT_EQ(match.held_blocks, 0);
  EXPECT_EQ(tree.pages_of({1, 2, 3, 4}, 3), put.pages);
  EXPECT_EQ(tree.store->kv_pages().cached(), 3);
  EXPECT_EQ(tree.store->kv_pages().held(), 0);
  EXPECT_EQ(tree.store->states().cached(), 1);

  // Other first blocks, the same blocks elsewhere, blocks in another order.
  EXPECT_EQ(tree.match({2, 3}).kv_blocks, 0);
  EXPECT_EQ(tree.match({2, 1, 3}).kv_blocks, 0);
  EXPECT_EQ(tree.match({1, 3}).kv_blocks, 1);
  // One token is enough to be different, at either end.
  Ids tokens = Tree::tokens({1, 2, 3});
  tokens[127] += 1;
  EXPECT_EQ(tree.cache->match(tokens, "", 3).kv_blocks, 1);
  tokens[0] += 1;
  EXPECT_EQ(tree.cache->match(tokens, "", 3).kv_blocks, 0);
}

TEST(PrefixCache, LooksNoFurtherThanAsked) {
  Tree tree;
  tree.put({1}, true);
  tree.put({1, 2, 3}, true);
  const Ids tokens = Tree::tokens({1, 2, 3});
  const PrefixMatch two = tree.cache->match(tokens, "", 2);
  EXPECT_EQ(two.kv_blocks, 2);
  EXPECT_EQ(two.snapshot_blocks, 1);
  EXPECT_EQ(tree.cache->match(tokens, "", 0).kv_blocks, 0);
  // A block that is not whole is no block.
  const std::span<const std::int32_t> most(tokens.data(), tokens.size() - 1);
  EXPECT_EQ(tree.cache->match(most, "", 3).kv_blocks, 2);
  EXPECT_EQ(tree.cache->match(most, "", 100).kv_blocks, 2);
}

TEST(PrefixCache, SaltsKeepTenantsApart) {
  Tree tree;
  const Tree::Put plain = tree.put({1, 2}, true);
  EXPECT_EQ(tree.match({1, 2}, "a").kv_blocks, 0);
  const Tree::Put salted = tree.put({1, 2}, true, "a");
  EXPECT_EQ(tree.cache->blocks(), 4);
  EXPECT_EQ(tree.match({1, 2}, "a").snapshot, salted.snapshot);
  EXPECT_EQ(tree.match({1, 2}, "").snapshot, plain.snapshot);
  EXPECT_EQ(tree.match({1, 2}, "b").kv_blocks, 0);
  EXPECT_EQ(tree.pages_of({1, 2}, 2, "a"), salted.pages);
  EXPECT_EQ(tree.pages_of({1, 2}, 2), plain.pages);
  tree.cache->drop_snapshot_at(Tree::tokens({1, 2}), "a");
  EXPECT_EQ(tree.match({1, 2}, "a").snapshot_blocks, 0);
  EXPECT_EQ(tree.match({1, 2}, "").snapshot_blocks, 2);
  tree.check();
}

TEST(PrefixCache, BranchesShowMoreKeysThanSnapshots) {
  Tree tree;
  tree.put({1, 2}, true);
  tree.put({1, 2, 3, 4, 5}, true);
  // The other prompt leaves the first one after block 4: keys up to there, a snapshot only after block 2 (contract P2).
  const PrefixMatch match = tree.match({1, 2, 3, 4, 9});
  EXPECT_EQ(match.kv_blocks, 4);
  EXPECT_EQ(match.snapshot_blocks, 2);
  const Tree::Put branch = tree.put({1, 2, 3, 4}, true);
  EXPECT_EQ(tree.match({1, 2, 3, 4, 9}).snapshot, branch.snapshot);
  // Its pages were there already: the tree did not take the new ones.
  EXPECT_EQ(tree.cache->blocks(), 5);
  EXPECT_EQ(tree.store->kv_pages().used(), 5);
  EXPECT_EQ(tree.cache->counters().snapshots_made, 3);
  tree.check();
}

TEST(PrefixCache, EqualInsertionsAreKeptOnce) {
  Tree tree;
  const Tree::Put first = tree.put({1, 2}, true);
  const std::int64_t version = tree.cache->version();
  tree.store->kv_pages().retain(first.pages[0]);
  const Tree::Put second = tree.put({1, 2, 3}, false);
  EXPECT_NE(tree.cache->version(), version);
  tree.put({1, 2}, true);
  EXPECT_EQ(tree.match({1, 2, 3}).snapshot, first.snapshot);
  EXPECT_EQ(tree.store->kv_pages().used(), 3);
  EXPECT_EQ(tree.store->states().used(), 1);
  EXPECT_EQ(tree.cache->counters().snapshots_made, 1);
  // Someone uses the first page; the others' room went to whoever came last.
  EXPECT_EQ(tree.pages_of({1, 2, 3}, 3)[0], first.pages[0]);
  tree.check({first.pages[0]});
  tree.store->kv_pages().release(first.pages[0]);
}

// Else what hangs on an unused page keeps it while what hangs on it is in use, and memory holds the same block twice.
TEST(PrefixCache, APageInUseTakesThePlaceOfAnUnusedOne) {
  Tree tree({.slabs = 5});
  tree.put({1, 2}, true);
  const Ids own = tree.acquire_pages(3);
  EXPECT_EQ(tree.cache->blocks(), 1);
  tree.cache->insert(Tree::tokens({1, 2, 3}), "", own, 0);
  EXPECT_EQ(tree.pages_of({1, 2, 3}, 3), own);
  EXPECT_EQ(tree.store->kv_pages().used(), 3);
  EXPECT_EQ(tree.store->kv_pages().cached(), 0);
  tree.check(own);
  const Ids rest = tree.acquire_pages(2);
  tree.release_pages(own);
  tree.release_pages(rest);
  tree.check();
}

TEST(PrefixCache, HeldBlocksAreThoseOfRunningRequests) {
  Tree tree;
  tree.put({1, 2, 3, 4}, false);
  tree.put({1, 2, 3}, true);
  const Ids pages = tree.pages_of({1, 2, 3, 4}, 4);
  const Ids held{pages[0], pages[1], pages[3]};  // the last is beyond the snapshot: of no use
  tree.retain_pages(held);
  EXPECT_EQ(tree.match({1, 2, 3, 4}).held_blocks, 2);
  EXPECT_EQ(tree.match({1, 2}).held_blocks, 0);
  tree.check(held);
  tree.release_pages(held);
}

TEST(PrefixCache, DisabledKeepsNothingAndGivesSlots) {
  Tree tree({.slabs = 4}, false);
  tree.put({1, 2}, true);
  tree.expect_empty();
  EXPECT_EQ(tree.match({1, 2}).kv_blocks, 0);
  const Ids pages = tree.acquire_pages(4);
  EXPECT_EQ(tree.cache->acquire_page(), 0);
  EXPECT_EQ(tree.cache->acquire_state(), 0);
  tree.release_pages(pages);
}

// ---- eviction ----

TEST(PrefixCache, EvictsPagesLeastRecentlyUsedFirst) {
  Tree tree({.slabs = 6});
  tree.put({1, 2}, false);
  tree.put({3, 4}, false);
  tree.put({5, 6}, false);
  EXPECT_EQ(tree.kv({1, 2}), 2);  // used again
  Ids held = tree.acquire_pages(1);
  EXPECT_EQ(tree.cache->counters().pages_evicted, 1);
  tree.check(held);
  // The deeper of the oldest pair went, then the other; the blocks of a chain are never left without those before.
  EXPECT_EQ(tree.cache->blocks(), 5);
  held.push_back(tree.cache->acquire_page());
  tree.check(held);
  EXPECT_EQ(tree.kv({3, 4}), 0);
  EXPECT_EQ(tree.kv({5, 6}), 2);
  EXPECT_EQ(tree.kv({1, 2}), 2);
  // 5, 6 were used before 1, 2 just now.
  held.push_back(tree.cache->acquire_page());
  EXPECT_EQ(tree.kv({5, 6}), 1);
  EXPECT_EQ(tree.kv({1, 2}), 2);
  tree.release_pages(held);
}

TEST(PrefixCache, EvictsDeeperPagesFirst) {
  Tree tree({.slabs = 6});
  tree.put({1, 2, 3, 4, 5, 6}, false);
  Ids held;
  for (std::int32_t left = 5; left >= 0; --left) {
    held.push_back(tree.cache->acquire_page());
    tree.check(held);
    EXPECT_EQ(tree.cache->blocks(), left);
    EXPECT_EQ(tree.kv({1, 2, 3, 4, 5, 6}), left);
  }
  EXPECT_EQ(tree.cache->acquire_page(), 0);
  tree.release_pages(held);
  tree.expect_empty();
}

TEST(PrefixCache, APrefixStaysWhileSomethingHangsOnIt) {
  Tree tree({.slabs = 3});
  tree.put({1, 2}, false);
  tree.put({1, 3}, false);
  EXPECT_EQ(tree.cache->match(Tree::tokens({1}), "", 1).kv_blocks, 1);
  Ids held = tree.acquire_pages(1);
  EXPECT_EQ(tree.kv({1, 2}), 1);
  EXPECT_EQ(tree.kv({1, 3}), 2);
  held.push_back(tree.cache->acquire_page());
  EXPECT_EQ(tree.kv({1, 3}), 1);
  held.push_back(tree.cache->acquire_page());
  tree.release_pages(held);
  tree.expect_empty();
}

TEST(PrefixCache, EvictsSnapshotsLeastRecentlyUsedFirst) {
  Tree tree({.slabs = 64, .states = 3});
  tree.put({1, 2}, true);
  tree.put({3}, true);
  tree.put({4}, true);
  EXPECT_TRUE(tree.has_snapshot({1, 2}));
  Ids held{tree.cache->acquire_state()};
  EXPECT_EQ(tree.cache->counters().snapshots_evicted, 1);
  tree.check({}, held);
  EXPECT_FALSE(tree.has_snapshot({3}));
  EXPECT_EQ(tree.kv({3}), 1);  // pages are another matter
  EXPECT_TRUE(tree.has_snapshot({1, 2}));
  held.push_back(tree.cache->acquire_state());
  EXPECT_FALSE(tree.has_snapshot({4}));
  held.push_back(tree.cache->acquire_state());
  EXPECT_FALSE(tree.has_snapshot({1, 2}));
  EXPECT_EQ(tree.cache->acquire_state(), 0);
  EXPECT_EQ(tree.cache->counters().pages_evicted, 0);
  tree.check({}, held);
  for (const std::int32_t state : held) tree.store->states().release(state);
}

// Snapshots that count as used at the same time: those in use when room was looked for.
TEST(PrefixCache, InteriorSnapshotsGoBeforeLeavesThenTheCheapestToRecompute) {
  Tree tree({.slabs = 64, .states = 6});
  Ids snapshots;
  const auto put = [&](const Ids& blocks) { snapshots.push_back(tree.put(blocks, true).snapshot); };
  put({1, 2, 3, 4});                              // leaf, 4 blocks after the root
  put({5, 6});                                    // leaf, 2 blocks
  put({7, 8, 9});                                 // interior, 3 blocks
  put({7, 8, 9, 10});                             // leaf, 1 block after the one before
  put({11, 12, 13, 14, 15});                      // interior, 5 blocks
  put({11, 12, 13, 14, 15, 16, 17, 18, 19, 20});  // leaf, 5 blocks
  for (const std::int32_t snapshot : snapshots) tree.store->states().retain(snapshot);
  EXPECT_EQ(tree.cache->acquire_state(), 0);  // all are in use
  // One that can go makes the tree look at the others.
  const auto let_go = [&](std::size_t i) { tree.store->states().release(snapshots[i]); };
  const std::vector<Ids> blocks{
      {1, 2, 3, 4}, {5, 6}, {7, 8, 9}, {7, 8, 9, 10}, {11, 12, 13, 14, 15}, {11, 12, 13, 14, 15, 16, 17, 18, 19, 20}};
  let_go(5);
  Ids held{tree.cache->acquire_state()};
  EXPECT_NE(held[0], 0);
  for (const std::size_t i : {0U, 1U, 2U, 3U, 4U}) let_go(i);
  // The order of the rest, seen without using them.
  for (const std::size_t i : {2U, 4U, 3U, 1U, 0U}) {
    const std::int64_t evicted = tree.cache->counters().snapshots_evicted;
    held.push_back(tree.cache->acquire_state());
    EXPECT_EQ(held.back(), snapshots[i]) << "snapshot " << i;
    EXPECT_EQ(tree.cache->counters().snapshots_evicted, evicted + 1);
    tree.check({}, held);
  }
  for (const std::int32_t state : held) tree.store->states().release(state);
}

TEST(PrefixCache, WhatRequestsHoldIsNeverEvicted) {
  Tree tree({.slabs = 6});
  const Tree::Put pinned = tree.put({1, 2}, true);  // 2 pages, 1 state
  tree.put({3, 4}, true);
  tree.retain_pages(pinned.pages);
  tree.store->states().retain(pinned.snapshot);
  Ids held = tree.acquire_pages(3);
  EXPECT_EQ(tree.cache->acquire_page(), 0);
  EXPECT_EQ(tree.cache->acquire_state(), 0);
  Ids pages = held;
  pages.insert(pages.end(), pinned.pages.begin(), pinned.pages.end());
  tree.check(pages, {pinned.snapshot});
  EXPECT_EQ(tree.kv({3, 4}), 0);
  EXPECT_EQ(tree.match({1, 2}).snapshot, pinned.snapshot);
  EXPECT_EQ(tree.pages_of({1, 2}, 2), pinned.pages);
  // Let go, it can.
  tree.store->states().release(pinned.snapshot);
  EXPECT_EQ(tree.cache->acquire_page(), pinned.snapshot);  // slots of one size: the same memory
  tree.store->kv_pages().release(pinned.snapshot);
  tree.release_pages(pinned.pages);
  tree.release_pages(held);
}

TEST(PrefixCache, APinnedPageKeepsThoseBeforeIt) {
  Tree tree({.slabs = 4});
  const Tree::Put put = tree.put({1, 2, 3}, false);
  tree.store->kv_pages().retain(put.pages[1]);
  Ids held = tree.acquire_pages(2);
  EXPECT_EQ(tree.cache->acquire_page(), 0);  // block 1 is evictable by its references, but block 2 hangs on it
  EXPECT_EQ(tree.kv({1, 2, 3}), 2);
  tree.store->kv_pages().release(put.pages[1]);
  held.push_back(tree.cache->acquire_page());
  EXPECT_EQ(tree.kv({1, 2, 3}), 1);
  tree.release_pages(held);
}

TEST(PrefixCache, EvictingAPageLetsItsSnapshotGo) {
  Tree tree({.slabs = 8, .pages = 2});
  const Tree::Put put = tree.put({1, 2}, true);
  const Ids held = tree.acquire_pages(1);
  EXPECT_EQ(tree.cache->counters().pages_evicted, 1);
  EXPECT_EQ(tree.cache->counters().snapshots_evicted, 1);
  EXPECT_EQ(tree.store->states().used(), 0);
  tree.check(held);
  EXPECT_FALSE(tree.cache->drop_snapshot(put.snapshot));
  tree.release_pages(held);

  // Someone who still reads the snapshot keeps it.
  const Tree::Put again = tree.put({1, 2}, true);
  tree.store->states().retain(again.snapshot);
  const Ids more = tree.acquire_pages(2);
  EXPECT_EQ(tree.store->states().references(again.snapshot), 1);
  EXPECT_FALSE(tree.store->states().is_cached(again.snapshot));
  tree.check(more, {again.snapshot});
  tree.store->states().release(again.snapshot);
  tree.release_pages(more);
}

TEST(PrefixCache, PagesAndSnapshotsMakeRoomForEachOther) {
  // A slab is four states or one page.
  Tree tree({.slabs = 4, .page_bytes = 256, .state_bytes = 64});
  tree.put({1}, false);
  tree.put({1, 2}, true);
  tree.put({1, 2, 3}, true);  // three pages, two snapshots in one slab
  // The oldest are the snapshots of {1, 2} and then of the rest: both must go before their slab can be a page.
  EXPECT_EQ(tree.kv({1, 2, 3}), 3);
  Ids held = tree.acquire_pages(1);
  EXPECT_EQ(tree.store->kv_pages().held(), 1);
  tree.check(held);
  while (const std::int32_t page = tree.cache->acquire_page()) held.push_back(page);
  EXPECT_EQ(held.size(), 4U);
  EXPECT_EQ(tree.cache->blocks(), 0);
  tree.release_pages(held);
  // And the other way round.
  tree.put({1, 2, 3, 4}, false);
  Ids states;
  while (const std::int32_t state = tree.cache->acquire_state()) states.push_back(state);
  EXPECT_EQ(states.size(), 16U);
  EXPECT_EQ(tree.cache->blocks(), 0);
  for (const std::int32_t state : states) tree.store->states().release(state);
  tree.expect_empty();
}

TEST(PrefixCache, DropSnapshot) {
  Tree tree;
  const Tree::Put put = tree.put({1, 2}, true);
  EXPECT_TRUE(tree.cache->drop_snapshot(put.snapshot));
  EXPECT_FALSE(tree.cache->drop_snapshot(put.snapshot));
  EXPECT_EQ(tree.kv({1, 2}), 2);
  EXPECT_FALSE(tree.has_snapshot({1, 2}));
  EXPECT_EQ(tree.store->states().used(), 0);

  // By place: only what nobody uses, and only what is there.
  const Tree::Put again = tree.put({1, 2}, true);
  tree.store->states().retain(again.snapshot);
  tree.cache->drop_snapshot_at(Tree::tokens({1, 2}), "");
  EXPECT_TRUE(tree.has_snapshot({1, 2}));
  tree.store->states().release(again.snapshot);
  tree.cache->drop_snapshot_at(Tree::tokens({1}), "");
  tree.cache->drop_snapshot_at(Tree::tokens({1, 2, 3}), "");
  tree.cache->drop_snapshot_at(Tree::tokens({1, 2}), "x");
  EXPECT_TRUE(tree.has_snapshot({1, 2}));
  tree.cache->drop_snapshot_at(Tree::tokens({1, 2}), "");
  EXPECT_FALSE(tree.has_snapshot({1, 2}));
  tree.check();
}

TEST(PrefixCache, FlushWhileRequestsHoldReferences) {
  Tree tree({.slabs = 8});
  const Tree::Put put = tree.put({1, 2}, true);
  tree.put({3, 4}, true, "a");
  tree.retain_pages(put.pages);
  tree.store->states().retain(put.snapshot);
  tree.cache->flush();
  EXPECT_EQ(tree.cache->blocks(), 0);
  EXPECT_EQ(tree.kv({1, 2}), 0);
  EXPECT_EQ(tree.match({3, 4}, "a").kv_blocks, 0);
  EXPECT_EQ(tree.store->kv_pages().used(), 2);
  EXPECT_EQ(tree.store->kv_pages().cached(), 0);
  EXPECT_EQ(tree.store->states().held(), 1);
  tree.check(put.pages, {put.snapshot});
  // Their holders may put them back.
  tree.cache->insert(Tree::tokens({1, 2}), "", put.pages, put.snapshot);
  EXPECT_EQ(tree.match({1, 2}).snapshot, put.snapshot);
  tree.release_pages(put.pages);
  tree.store->states().release(put.snapshot);
  tree.check();
  tree.cache->flush();
  tree.cache->flush();
  tree.expect_empty();
}

// ---- hashes ----

std::uint64_t mix(std::uint64_t h) {
  h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9U;
  h = (h ^ (h >> 27)) * 0x94D049BB133111EBU;
  return h ^ (h >> 31);
}

// The tree's hash of a block but for its last two tokens. The mixing is a bijection, so that two blocks clash when the
// last two tokens make up for the difference.
std::uint64_t hash_before_last(std::uint64_t parent_id, const Ids& block) {
  std::uint64_t h = mix(parent_id * 0x9E3779B97F4A7C15U);
  for (std::size_t i = 0; i + 2 < static_cast<std::size_t>(kBlockTokens); i += 2) {
    const auto low = static_cast<std::uint32_t>(block[i]);
    const auto high = static_cast<std::uint32_t>(block[i + 1]);
    h = mix(h ^ (low | std::uint64_t{high} << 32)) + 0x9E3779B97F4A7C15U;
  }
  return h;
}

TEST(PrefixCache, EqualHashesAreNotTrusted) {
  Tree tree;
  const Ids a = Tree::tokens({1});
  Ids b = Tree::tokens({2});
  constexpr std::uint64_t kFirstId = 1;  // of the root that the first insertion makes
  const std::uint64_t last =
      (static_cast<std::uint32_t>(a[62]) | std::uint64_t{static_cast<std::uint32_t>(a[63])} << 32) ^
      hash_before_last(kFirstId, a) ^ hash_before_last(kFirstId, b);
  b[62] = static_cast<std::int32_t>(static_cast<std::uint32_t>(last));
  b[63] = static_cast<std::int32_t>(last >> 32);

  const Ids pages = tree.acquire_pages(3);
  const std::int32_t snapshot = tree.cache->acquire_state();
  tree.cache->insert(a, "", std::span(pages).first(1), 0);
  EXPECT_EQ(tree.cache->match(b, "", 1).kv_blocks, 0);
  // There is no room for a block of the same hash: it is not kept, nor what follows it.
  Ids longer = b;
  longer.insert(longer.end(), a.begin(), a.end());
  tree.cache->insert(longer, "", std::span(pages).subspan(1, 2), snapshot);
  ASSERT_EQ(tree.cache->blocks(), 1) << "the blocks of this test no longer clash: has the hash changed?";
  EXPECT_EQ(tree.cache->match(b, "", 1).kv_blocks, 0);
  EXPECT_EQ(tree.cache->match(longer, "", 2).kv_blocks, 0);
  EXPECT_EQ(tree.cache->match(a, "", 1).kv_blocks, 1);
  tree.check(pages, {snapshot});
  tree.cache->drop_snapshot_at(longer, "");
  tree.release_pages(pages);
  tree.store->states().release(snapshot);
  tree.check();
}

}  // namespace
}  // namespace penstock::testing
