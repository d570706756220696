#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <utility>

#include "base/check.h"

namespace penstock {
namespace {

// Up to here a scan over all pairs for each merge is faster than a heap.
constexpr std::size_t kShortPiece_bytes = 40;

}  // namespace

std::uint64_t hash_bytes(std::string_view bytes) {
  constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15ULL;
  std::uint64_t hash = bytes.size() * kMultiplier;
  const auto mix = [&hash](std::uint64_t word) {
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 29;
  };
  while (bytes.size() >= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data(), 8);
    mix(word);
    bytes.remove_prefix(8);
  }
  std::uint64_t word = 0;
  std::memcpy(&word, bytes.data(), bytes.size());
  mix(word);
  hash *= kMultiplier;
  return hash ^ (hash >> 32);
}

void Vocabulary::reserve(std::size_t tokens, std::size_t bytes) {
  spans_.reserve(tokens);
  arena_.reserve(bytes);
}

void Vocabulary::add(std::int32_t id, std::string_view bytes) {
  CHECK(id >= 0);
  const auto index = static_cast<std::size_t>(id);
  if (index >= spans_.size()) spans_.resize(index + 1);
  spans_[index] = {arena_.size(), static_cast<std::uint32_t>(bytes.size()), true};
  arena_ += bytes;
}

std::string_view Vocabulary::bytes(std::int32_t id) const {
  if (!contains(id)) return {};
  const Span& span = spans_[static_cast<std::size_t>(id)];
  return std::string_view(arena_).substr(span.begin, span.length);
}

void Bpe::reserve_merges(std::size_t count) {
  CHECK(merge_count_ == 0);
  merges_.assign(std::bit_ceil(std::max<std::size_t>(count * 2, 4)), Merge{});
}

std::size_t Bpe::slot_of(std::uint64_t pair) const {
  std::size_t slot = first_slot(pair);
  while (merges_[slot].pair != pair && merges_[slot].pair != kNoPair) slot = (slot + 1) & (merges_.size() - 1);
  return slot;
}

bool Bpe::add_merge(std::int32_t left, std::int32_t right, std::int32_t result) {
  CHECK((merge_count_ + 1) * 2 <= merges_.size());
  const std::uint64_t pair = pair_of(left, right);
  Merge& merge = merges_[slot_of(pair)];
  if (merge.pair == pair) return false;
  merge = {pair, static_cast<std::uint32_t>(merge_count_++), result};
  return true;
}

void Bpe::add_whole_piece(std::string_view bytes, std::int32_t id) {
  if (whole_count_ >= whole_.size()) {
    auto old = std::exchange(whole_, {});
    whole_.resize(std::max<std::size_t>(old.size() * 2, 1024));
    for (auto& bucket : old)
      for (auto& entry : bucket) whole_[hash_bytes(entry.first) & (whole_.size() - 1)].push_back(std::move(entry));
  }
  whole_[hash_bytes(bytes) & (whole_.size() - 1)].emplace_back(bytes, id);
  ++whole_count_;
}

const Bpe::Merge& Bpe::find(std::int32_t left, std::int32_t right) const {
  return merges_[slot_of(pair_of(left, right))];  // an empty slot has kNoRank
}

std::int32_t Bpe::find_whole(std::string_view piece) const {
  if (whole_.empty()) return -1;
  for (const auto& [bytes, id] : whole_[hash_bytes(piece) & (whole_.size() - 1)])
    if (bytes == piece) return id;
  return -1;
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& out) const {
  if (piece.empty()) return;
  if (const std::int32_t id = find_whole(piece); id >= 0) {
    out.push_back(id);
  } else if (piece.size() <= kShortPiece_bytes) {
    encode_short(piece, out);
  } else {
    encode_long(piece, scratch, out);
  }
}

void Bpe::encode_short(std::string_view piece, std::vector<std::int32_t>& out) const {
  std::array<std::int32_t, kShortPiece_bytes> ids;     // the symbols so far
  std::array<std::uint32_t, kShortPiece_bytes> ranks;  // ranks[i]: of joining symbols i and i + 1
  std::array<std::int32_t, kShortPiece_bytes> results;
  std::size_t count = piece.size();
  const auto update = [&](std::size_t i) {
    const Merge& merge = find(ids[i], ids[i + 1]);
    ranks[i] = merge.rank;
    results[i] = merge.result;
  };
  for (std::size_t i = 0; i < count; ++i) ids[i] = byte_ids_[static_cast<std::uint8_t>(piece[i])];
  for (std::size_t i = 0; i + 1 < count; ++i) update(i);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i)
      if (ranks[i] < ranks[best]) best = i;
    if (ranks[best] == kNoRank) break;
    ids[best] = results[best];
    for (std::size_t i = best + 1; i + 1 < count; ++i) {
      ids[i] = ids[i + 1];
      ranks[i] = ranks[i + 1];  // the last of these is never read
      results[i] = results[i + 1];
    }
    --count;
    if (best > 0) update(best - 1);
    if (best + 1 < count) update(best);
  }
  out.insert(out.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count));
}

void Bpe::encode_long(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& out) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  const auto count = static_cast<std::int32_t>(piece.size());
  symbols.resize(piece.size());
  heap.clear();
  for (std::int32_t i = 0; i < count; ++i) {
    const auto index = static_cast<std::size_t>(i);
    symbols[index] = {byte_ids_[static_cast<std::uint8_t>(piece[index])], i - 1, i + 1 < count ? i + 1 : -1};
  }
  const auto symbol = [&](std::int32_t i) -> Scratch::Symbol& { return symbols[static_cast<std::size_t>(i)]; };
  // Adds the pair that begins at `left`, if it can merge.
  const auto consider = [&](std::int32_t left) {
    const std::int32_t right = symbol(left).next;
    if (right < 0) return false;
    const std::uint32_t rank = find(symbol(left).id, symbol(right).id).rank;
    if (rank == kNoRank) return false;
    heap.push_back((static_cast<std::uint64_t>(rank) << 32) | static_cast<std::uint32_t>(left));
    return true;
  };
  for (std::int32_t i = 0; i < count; ++i) consider(i);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());

  while (!heap.empty()) {
    const std::uint64_t best = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    const auto left = static_cast<std::int32_t>(best & 0xFFFFFFFFU);
    Scratch::Symbol& merged = symbol(left);
    const std::int32_t right = merged.next;
    if (merged.id < 0 || right < 0) continue;  // stale, as below: merged with another neighbour since
    const Merge& merge = find(merged.id, symbol(right).id);
    if (merge.rank != best >> 32) continue;
    merged.id = merge.result;
    merged.next = symbol(right).next;
    symbol(right).id = -1;
    if (merged.next >= 0) symbol(merged.next).previous = left;
    if (consider(left)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
    if (merged.previous >= 0 && consider(merged.previous)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
  }
  for (std::int32_t i = 0; i >= 0; i = symbol(i).next) out.push_back(symbol(i).id);
}

}  // namespace penstock
