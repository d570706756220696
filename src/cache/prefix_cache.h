// What requests computed, kept for those that begin with the same tokens (contract P): a tree over blocks of 64 tokens.
// A node holds the KV page of its block and perhaps a snapshot at its end. The tree is one holder of slots among
// others: what it alone holds is evictable at any time, so running requests never wait for it (contract S4).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "cache/cache_store.h"

namespace penstock {

struct PrefixMatch {
  std::int32_t snapshot_blocks = 0;  // of the deepest usable snapshot: a request can go on from here; 0: none
  std::int32_t kv_blocks = 0;        // whose KV pages are there, >= snapshot_blocks
  std::int32_t snapshot = 0;         // state slot
  std::int32_t held_blocks = 0;      // of snapshot_blocks, those whose pages running requests hold too
};

struct PrefixCounters {
  std::int64_t snapshots_made = 0, snapshots_evicted = 0, pages_evicted = 0;
};

class PrefixCache {
 public:
  // enabled: false keeps nothing and finds nothing, and still gives out slots. `store` must outlive this.
  PrefixCache(CacheStore& store, bool enabled);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  bool enabled() const { return enabled_; }
  CacheStore& store() { return store_; }
  const CacheStore& store() const { return store_; }

  // A slot with one reference, or 0: the least recently used entries go when nothing is free (contract P4).
  std::int32_t acquire_page();
  std::int32_t acquire_state();

  // What is there for the first `most_blocks` blocks of `tokens` under this salt. Takes no references; counts as use.
  PrefixMatch match(std::span<const std::int32_t> tokens, const std::string& salt, std::int32_t most_blocks);
  // The pages of the first `blocks` blocks, as match() found them just before; appended without references.
  void pages_of(std::span<const std::int32_t> tokens, const std::string& salt, std::int32_t blocks,
                std::vector<std::int32_t>& pages) const;

  // Adds the blocks of `tokens` (whole ones) with their pages, and `snapshot` at their end when it is not 0. The tree
  // takes its own references; for what it has already, it takes none, but a page that nobody else holds makes way for
  // the one given here.
  void insert(std::span<const std::int32_t> tokens, const std::string& salt, std::span<const std::int32_t> pages,
              std::int32_t snapshot);
  // Lets a snapshot go; false: the tree does not have it.
  bool drop_snapshot(std::int32_t slot);
  // Lets the snapshot after these tokens (whole blocks) go, if there is one that nobody uses.
  void drop_snapshot_at(std::span<const std::int32_t> tokens, const std::string& salt);
  void flush();

  std::int64_t version() const { return version_; }  // changes when something is added
  const PrefixCounters& counters() const { return counters_; }
  std::int64_t blocks() const { return static_cast<std::int64_t>(nodes_.size()); }

  // Adds the tree's references to `pages` and `states` ([end()] of each pool); an error says where the tree's links,
  // marks or orders are wrong.
  Status add_references(std::span<std::int32_t> pages, std::span<std::int32_t> states) const;

 private:
  // Order of eviction: the first is least recently used; among those used together, see place_page, place_snapshot.
  using Place = std::tuple<std::int64_t, std::int32_t, std::int32_t, std::uint64_t>;
  struct Node {
    std::uint64_t id = 0, key = 0;
    Node* parent = nullptr;
    std::int32_t depth = 0;  // blocks from the root, this one included
    std::int32_t children = 0;
    std::int32_t page = 0, snapshot = 0;  // snapshot 0: none
    Place page_place, snapshot_place;
    std::array<std::int32_t, kBlockTokens> tokens;
  };

  Node* root(const std::string& salt, bool create);
  static std::uint64_t key_of(const Node& parent, std::span<const std::int32_t> block);
  Node* child(const Node& parent, std::span<const std::int32_t> block) const;
  Node* add_child(Node& parent, std::span<const std::int32_t> block, std::int32_t page);  // null: a clash of hashes
  void replace_page(Node& node, std::int32_t page);
  void place_page(Node& node);
  void place_snapshot(Node& node);
  void remove(Node& node);  // a leaf, with its page and snapshot
  void take_snapshot_from(Node& node);
  bool evict_page();
  bool evict_snapshot();
  Node* oldest_page();
  Node* oldest_snapshot();

  CacheStore& store_;
  bool enabled_;
  std::int64_t clock_ = 0, version_ = 0;
  std::uint64_t next_id_ = 1;
  std::map<std::string, std::unique_ptr<Node>> roots_;  // by salt; without page or snapshot
  std::unordered_map<std::uint64_t, std::unique_ptr<Node>> nodes_;
  std::map<Place, Node*> by_page_use_, by_snapshot_use_;
  std::vector<Node*> with_snapshot_;  // [states.end()] by slot
  PrefixCounters counters_;
};

}  // namespace penstock
