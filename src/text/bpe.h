// Byte-pair merging by rank: the pair whose merge came first in the file is joined first, the leftmost of equals first.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace penstock {

// Raw bytes of every token.
class Vocabulary {
 public:
  void reserve(std::size_t tokens, std::size_t bytes);
  void add(std::int32_t id, std::string_view bytes);  // id >= 0; a second time: replaces
  bool contains(std::int32_t id) const { return id >= 0 && id < size() && spans_[static_cast<std::size_t>(id)].used; }
  std::string_view bytes(std::int32_t id) const;                                  // empty when there is none
  std::int32_t size() const { return static_cast<std::int32_t>(spans_.size()); }  // largest id + 1

 private:
  struct Span {
    std::size_t begin = 0;
    std::uint32_t length = 0;
    bool used = false;
  };
  std::string arena_;
  std::vector<Span> spans_;  // [size()]
};

class Bpe {
 public:
  static constexpr std::uint32_t kNoRank = 0xFFFFFFFFU;

  struct Merge {
    std::uint64_t pair = kNoPair;  // left id in the upper half, right id in the lower
    std::uint32_t rank = kNoRank;
    std::int32_t result = -1;
  };

  struct Scratch {
    struct Symbol {
      std::int32_t id;  // -1: merged into the one before
      std::int32_t previous;
      std::int32_t next;
    };
    std::vector<Symbol> symbols;
    std::vector<std::uint64_t> heap;  // pairs that could merge: rank, then position of the left one
  };

  void reserve_merges(std::size_t count);
  void set_byte_ids(const std::array<std::int32_t, 256>& ids) { byte_ids_ = ids; }
  // Ranks ascend with the calls. False, and nothing changed, when the pair has a rank already.
  bool add_merge(std::int32_t left, std::int32_t right, std::int32_t result);
  void prefetch_merge(std::int32_t left, std::int32_t right) const {
    __builtin_prefetch(&merges_[first_slot(pair_of(left, right))]);
  }
  // Pieces that are one of these tokens as a whole are not merged (tokenizer.json's ignore_merges).
  void add_whole_piece(std::string_view bytes, std::int32_t id);

  // Appends the ids of one piece of text. Thread-safe; `scratch` belongs to one thread. n log n.
  void encode(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& out) const;

 private:
  static constexpr std::uint64_t kNoPair = ~0ULL;
  static std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
    return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
  }
  std::size_t first_slot(std::uint64_t pair) const {
    std::uint64_t hash = pair * 0x9E3779B97F4A7C15ULL;
    hash ^= hash >> 32;
    hash *= 0xD6E8FEB86659FD93ULL;
    return (hash >> 32) & (merges_.size() - 1);
  }
  std::size_t slot_of(std::uint64_t pair) const;
  const Merge& find(std::int32_t left, std::int32_t right) const;
  std::int32_t find_whole(std::string_view piece) const;
  void encode_short(std::string_view piece, std::vector<std::int32_t>& out) const;
  void encode_long(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& out) const;

  std::array<std::int32_t, 256> byte_ids_{};
  std::vector<Merge> merges_ = std::vector<Merge>(4);  // open addressing, a power of two, at most half full
  std::size_t merge_count_ = 0;
  std::vector<std::vector<std::pair<std::string, std::int32_t>>> whole_;  // hash buckets
  std::size_t whole_count_ = 0;
};

// 64 bits that differ in every bit for most strings; for tables inside the process only.
std::uint64_t hash_bytes(std::string_view bytes);

}  // namespace penstock
