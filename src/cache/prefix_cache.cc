#include "cache/prefix_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace penstock {
namespace {

std::uint64_t mix(std::uint64_t h) {
  h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9U;
  h = (h ^ (h >> 27)) * 0x94D049BB133111EBU;
  return h ^ (h >> 31);
}

constexpr std::size_t kBlock = kBlockTokens;

std::span<const std::int32_t> block_of(std::span<const std::int32_t> tokens, std::int32_t block) {
  return tokens.subspan(static_cast<std::size_t>(block) * kBlock, kBlock);
}

}  // namespace

PrefixCache::PrefixCache(CacheStore& store, bool enabled) : store_(store), enabled_(enabled) {
  with_snapshot_.assign(static_cast<std::size_t>(store.states().end()), nullptr);
}

PrefixCache::~PrefixCache() {
  flush();
}

PrefixCache::Node* PrefixCache::root(const std::string& salt, bool create) {
  const auto it = roots_.find(salt);
  if (it != roots_.end()) return it->second.get();
  if (!create) return nullptr;
  auto node = std::make_unique<Node>();
  node->id = next_id_++;
  return roots_.emplace(salt, std::move(node)).first->second.get();
}

std::uint64_t PrefixCache::key_of(const Node& parent, std::span<const std::int32_t> block) {
  std::uint64_t h = mix(parent.id * 0x9E3779B97F4A7C15U);
  for (std::size_t i = 0; i < kBlock; i += 2) {
    const auto low = static_cast<std::uint32_t>(block[i]);
    const auto high = static_cast<std::uint32_t>(block[i + 1]);
    h = mix(h ^ (low | std::uint64_t{high} << 32)) + 0x9E3779B97F4A7C15U;
  }
  return h;
}

PrefixCache::Node* PrefixCache::child(const Node& parent, std::span<const std::int32_t> block) const {
  const auto it = nodes_.find(key_of(parent, block));
  if (it == nodes_.end()) return nullptr;
  Node* node = it->second.get();
  // Equal hashes are no proof.
  if (node->parent != &parent || !std::equal(block.begin(), block.end(), node->tokens.begin())) return nullptr;
  return node;
}

PrefixCache::Node* PrefixCache::add_child(Node& parent, std::span<const std::int32_t> block, std::int32_t page) {
  auto node = std::make_unique<Node>();
  node->id = next_id_++;
  node->key = key_of(parent, block);
  node->parent = &parent;
  node->depth = parent.depth + 1;
  node->page = page;
  std::copy(block.begin(), block.end(), node->tokens.begin());
  Node* added = node.get();
  if (!nodes_.emplace(node->key, std::move(node)).second) return nullptr;
  store_.kv_pages().retain(page);
  store_.kv_pages().set_cached(page, true);
  ++parent.children;
  return added;
}

void PrefixCache::replace_page(Node& node, std::int32_t page) {
  SlotPool& pages = store_.kv_pages();
  pages.set_cached(node.page, false);
  pages.release(node.page);
  pages.retain(page);
  pages.set_cached(page, true);
  node.page = page;
}

// Deeper pages go first: a page without those before it is of no use.
void PrefixCache::place_page(Node& node) {
  by_page_use_.erase(node.page_place);
  node.page_place = {clock_, std::numeric_limits<std::int32_t>::max() - node.depth, 0, node.id};
  by_page_use_.emplace(node.page_place, &node);
}

// Interior snapshots go before leaves, then those that take the fewest tokens to compute again.
void PrefixCache::place_snapshot(Node& node) {
  by_snapshot_use_.erase(node.snapshot_place);
  const Node* before = node.parent;
  while (before->parent != nullptr && before->snapshot == 0) before = before->parent;
  node.snapshot_place = {clock_, node.children == 0 ? 1 : 0, node.depth - before->depth, node.id};
  by_snapshot_use_.emplace(node.snapshot_place, &node);
}

void PrefixCache::take_snapshot_from(Node& node) {
  by_snapshot_use_.erase(node.snapshot_place);
  with_snapshot_[static_cast<std::size_t>(node.snapshot)] = nullptr;
  store_.states().set_cached(node.snapshot, false);
  store_.states().release(node.snapshot);
  node.snapshot = 0;
}

void PrefixCache::remove(Node& node) {
  CHECK(node.children == 0);
  if (node.snapshot != 0) take_snapshot_from(node);
  by_page_use_.erase(node.page_place);
  store_.kv_pages().set_cached(node.page, false);
  store_.kv_pages().release(node.page);
  Node* parent = node.parent;
  --parent->children;
  nodes_.erase(node.key);  // destroys the node
  if (parent->parent != nullptr || parent->children > 0) return;
  std::erase_if(roots_, [&](const auto& entry) { return entry.second.get() == parent; });
}

// The first that only the tree holds and nothing hangs on. What is in use on the way counts as used now.
PrefixCache::Node* PrefixCache::oldest_page() {
  if (store_.kv_pages().cached() == 0) return nullptr;
  ++clock_;
  while (true) {
    Node* node = by_page_use_.begin()->second;
    if (std::get<0>(node->page_place) == clock_) return nullptr;
    if (node->children == 0 && store_.kv_pages().only_cached(node->page)) return node;
    place_page(*node);
  }
}

PrefixCache::Node* PrefixCache::oldest_snapshot() {
  if (store_.states().cached() == 0) return nullptr;
  ++clock_;
  while (true) {
    Node* node = by_snapshot_use_.begin()->second;
    if (store_.states().only_cached(node->snapshot)) return node;
    CHECK(std::get<0>(node->snapshot_place) != clock_);
    place_snapshot(*node);
  }
}

bool PrefixCache::evict_page() {
  Node* node = oldest_page();
  if (node == nullptr) return false;
  if (node->snapshot != 0) ++counters_.snapshots_evicted;
  ++counters_.pages_evicted;
  remove(*node);
  return true;
}

bool PrefixCache::evict_snapshot() {
  Node* node = oldest_snapshot();
  if (node == nullptr) return false;
  ++counters_.snapshots_evicted;
  take_snapshot_from(*node);
  return true;
}

std::int32_t PrefixCache::acquire_page() {
  while (true) {
    const std::int32_t page = store_.kv_pages().acquire();
    if (page != 0) return page;
    // At the pages' own cap a snapshot's memory does not help; else whichever was used longer ago goes.
    const Node* snapshot = store_.kv_pages().used() < store_.kv_pages().total() ? oldest_snapshot() : nullptr;
    const Node* old_page = oldest_page();
    const bool snapshot_first = snapshot != nullptr && (old_page == nullptr || std::get<0>(snapshot->snapshot_place) <
                                                                                   std::get<0>(old_page->page_place));
    if (!(snapshot_first ? evict_snapshot() : evict_page())) return 0;
  }
}

std::int32_t PrefixCache::acquire_state() {
  while (true) {
    const std::int32_t state = store_.states().acquire();
    if (state != 0) return state;
    const bool at_cap = store_.states().used() >= store_.states().total();
    const Node* snapshot = oldest_snapshot();
    const Node* old_page = at_cap ? nullptr : oldest_page();
    const bool page_first = old_page != nullptr && (snapshot == nullptr || std::get<0>(old_page->page_place) <
                                                                               std::get<0>(snapshot->snapshot_place));
    if (!(page_first ? evict_page() : evict_snapshot())) return 0;
  }
}

PrefixMatch PrefixCache::match(std::span<const std::int32_t> tokens, const std::string& salt,
                               std::int32_t most_blocks) {
  PrefixMatch result;
  Node* node = root(salt, false);
  if (node == nullptr) return result;
  ++clock_;
  Node* usable = nullptr;
  std::int32_t held = 0;
  most_blocks = std::min(most_blocks, static_cast<std::int32_t>(tokens.size() / kBlock));
  while (result.kv_blocks < most_blocks) {
    Node* next = child(*node, block_of(tokens, result.kv_blocks));
    if (next == nullptr) break;
    node = next;
    ++result.kv_blocks;
    place_page(*node);
    held += store_.kv_pages().only_cached(node->page) ? 0 : 1;
    if (node->snapshot == 0) continue;
    usable = node;
    result.held_blocks = held;
  }
  if (usable != nullptr) {
    place_snapshot(*usable);
    result.snapshot_blocks = usable->depth;
    result.snapshot = usable->snapshot;
  }
  return result;
}

void PrefixCache::pages_of(std::span<const std::int32_t> tokens, const std::string& salt, std::int32_t blocks,
                           std::vector<std::int32_t>& pages) const {
  if (blocks == 0) return;
  const Node* node = roots_.at(salt).get();
  for (std::int32_t block = 0; block < blocks; ++block) {
    node = child(*node, block_of(tokens, block));
    CHECK(node != nullptr);
    pages.push_back(node->page);
  }
}

void PrefixCache::insert(std::span<const std::int32_t> tokens, const std::string& salt,
                         std::span<const std::int32_t> pages, std::int32_t snapshot) {
  CHECK(tokens.size() % kBlock == 0 && pages.size() == tokens.size() / kBlock);
  if (!enabled_ || pages.empty()) return;
  ++clock_;
  ++version_;
  Node* node = root(salt, true);
  for (std::size_t block = 0; block < pages.size(); ++block) {
    const auto content = block_of(tokens, static_cast<std::int32_t>(block));
    Node* next = child(*node, content);
    if (next == nullptr) {
      next = add_child(*node, content, pages[block]);
    } else if (next->page != pages[block] && store_.kv_pages().only_cached(next->page)) {
      // Two pages of the same content, one of them in use: the other one only takes room, and could not be evicted
      // while something in use hangs on it.
      replace_page(*next, pages[block]);
    }
    if (next == nullptr) {
      if (node->parent == nullptr && node->children == 0) roots_.erase(salt);
      return;
    }
    node = next;
    place_page(*node);
  }
  if (snapshot == 0) return;
  if (node->snapshot == 0) {
    store_.states().retain(snapshot);
    store_.states().set_cached(snapshot, true);
    node->snapshot = snapshot;
    with_snapshot_[static_cast<std::size_t>(snapshot)] = node;
    ++counters_.snapshots_made;
  }
  place_snapshot(*node);
}

bool PrefixCache::drop_snapshot(std::int32_t slot) {
  Node* node = with_snapshot_[static_cast<std::size_t>(slot)];
  if (node == nullptr) return false;
  ++counters_.snapshots_evicted;
  take_snapshot_from(*node);
  return true;
}

void PrefixCache::drop_snapshot_at(std::span<const std::int32_t> tokens, const std::string& salt) {
  Node* node = root(salt, false);
  for (std::int32_t block = 0; node != nullptr && block < static_cast<std::int32_t>(tokens.size() / kBlock); ++block) {
    node = child(*node, block_of(tokens, block));
  }
  if (node == nullptr || node->snapshot == 0 || !store_.states().only_cached(node->snapshot)) return;
  ++counters_.snapshots_evicted;
  take_snapshot_from(*node);
}

void PrefixCache::flush() {
  // Deepest first, so that each is a leaf when its turn comes.
  std::vector<Node*> all;
  all.reserve(nodes_.size());
  for (const auto& [key, node] : nodes_) all.push_back(node.get());
  std::sort(all.begin(), all.end(), [](const Node* a, const Node* b) { return a->depth > b->depth; });
  for (Node* node : all) remove(*node);
  CHECK(roots_.empty());
}

Status PrefixCache::add_references(std::span<std::int32_t> pages, std::span<std::int32_t> states) const {
  const auto wrong = [](const Node& node, const char* what) {
    return internal_error(fmt::format("prefix cache: block {} at depth {}: {}", node.id, node.depth, what));
  };
  std::unordered_map<const Node*, std::int32_t> children;
  std::size_t snapshots = 0;
  for (const auto& [key, node] : nodes_) {
    ++pages[static_cast<std::size_t>(node->page)];
    ++children[node->parent];
    if (node->key != key || node->key != key_of(*node->parent, node->tokens)) return wrong(*node, "wrong key");
    if (node->depth != node->parent->depth + 1) return wrong(*node, "wrong depth");
    if (!store_.kv_pages().is_cached(node->page)) return wrong(*node, "its page is not marked");
    const auto page_entry = by_page_use_.find(node->page_place);
    if (page_entry == by_page_use_.end() || page_entry->second != node.get()) return wrong(*node, "page order");
    if (node->snapshot == 0) continue;
    ++snapshots;
    ++states[static_cast<std::size_t>(node->snapshot)];
    if (!store_.states().is_cached(node->snapshot)) return wrong(*node, "its snapshot is not marked");
    if (with_snapshot_[static_cast<std::size_t>(node->snapshot)] != node.get()) return wrong(*node, "snapshot index");
    const auto entry = by_snapshot_use_.find(node->snapshot_place);
    if (entry == by_snapshot_use_.end() || entry->second != node.get()) return wrong(*node, "snapshot order");
  }
  for (const auto& [key, node] : nodes_) {
    if (node->children != children[node.get()]) return wrong(*node, "wrong number of children");
  }
  for (const auto& [salt, node] : roots_) {
    if (node->children != children[node.get()] || node->children == 0) return wrong(*node, "root without children");
  }
  if (by_page_use_.size() != nodes_.size() || by_snapshot_use_.size() != snapshots) {
    return internal_error("prefix cache: an order of use has entries that no block has");
  }
  const auto marked = static_cast<std::size_t>(
      std::count_if(with_snapshot_.begin(), with_snapshot_.end(), [](const Node* node) { return node != nullptr; }));
  return marked == snapshots ? Status() : internal_error("prefix cache: an index entry without a snapshot");
}

}  // namespace penstock
