#include "text/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <random>
#include <tuple>

namespace penstock {
namespace {

struct Table {
  Bpe bpe;
  std::map<std::pair<std::int32_t, std::int32_t>, std::pair<std::size_t, std::int32_t>> merges;  // -> rank, result
};

// The definition, word for word: join the leftmost pair of the lowest rank until none is left.
std::vector<std::int32_t> merge_plainly(const Table& table, std::string_view piece) {
  std::vector<std::int32_t> ids;
  for (const char c : piece) ids.push_back(static_cast<std::uint8_t>(c));
  while (true) {
    std::size_t best_rank = SIZE_MAX;
    std::size_t best = 0;
    std::int32_t result = -1;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto merge = table.merges.find({ids[i], ids[i + 1]});
      if (merge == table.merges.end() || merge->second.first >= best_rank) continue;
      best = i;
      std::tie(best_rank, result) = merge->second;
    }
    if (result < 0) return ids;
    ids[best] = result;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

// Random merges, in an order that need not be one that training would give.
Table random_table(std::mt19937& random, int letters, int count) {
  Table table;
  std::array<std::int32_t, 256> bytes{};
  for (std::size_t b = 0; b < 256; ++b) bytes[b] = static_cast<std::int32_t>(b);
  table.bpe.set_byte_ids(bytes);
  table.bpe.reserve_merges(static_cast<std::size_t>(count));
  std::vector<std::int32_t> ids;
  for (int i = 0; i < letters; ++i) ids.push_back('a' + i);
  std::vector<std::pair<std::int32_t, std::pair<std::int32_t, std::int32_t>>> merges;
  std::map<std::pair<std::int32_t, std::int32_t>, std::int32_t> known;
  for (std::int32_t id = 256; id < 256 + count; ++id) {
    const std::pair pair{ids[random() % ids.size()], ids[random() % ids.size()]};
    if (!known.emplace(pair, id).second) continue;
    merges.emplace_back(id, pair);
    ids.push_back(id);
  }
  std::shuffle(merges.begin(), merges.end(), random);
  for (const auto& [id, pair] : merges) {
    EXPECT_TRUE(table.bpe.add_merge(pair.first, pair.second, id));
    table.merges[pair] = {table.merges.size(), id};
  }
  return table;
}

TEST(Bpe, MergesAsTheDefinitionSays) {
  std::mt19937 random(3);
  Bpe::Scratch scratch;
  for (int round = 0; round < 400; ++round) {
    const int letters = 1 + static_cast<int>(random() % 4);
    const Table table = random_table(random, letters, 1 + static_cast<int>(random() % 40));
    for (const std::size_t length : {1U, 2U, 7U, 39U, 40U, 41U, 42U, 150U}) {  // on both sides of the heap's border
      std::string piece;
      for (std::size_t i = 0; i < length; ++i)
        piece += static_cast<char>('a' + random() % static_cast<std::uint32_t>(letters));
      std::vector<std::int32_t> ids;
      table.bpe.encode(piece, scratch, ids);
      ASSERT_EQ(ids, merge_plainly(table, piece)) << piece;
    }
  }
}

TEST(Bpe, LeftmostOfEqualPairsFirst) {
  Bpe bpe;
  std::array<std::int32_t, 256> bytes{};
  bytes['a'] = 1;
  bpe.set_byte_ids(bytes);
  bpe.reserve_merges(1);
  ASSERT_TRUE(bpe.add_merge(1, 1, 2));
  Bpe::Scratch scratch;
  std::vector<std::int32_t> ids;
  bpe.encode("aaaaa", scratch, ids);
  EXPECT_EQ(ids, (std::vector<std::int32_t>{2, 2, 1}));
  ids.clear();
  bpe.encode(std::string(101, 'a'), scratch, ids);
  ASSERT_EQ(ids.size(), 51U);
  EXPECT_EQ(ids.front(), 2);
  EXPECT_EQ(ids.back(), 1);
}

TEST(Bpe, RefusesAPairTwice) {
  Bpe bpe;
  bpe.reserve_merges(2);
  EXPECT_TRUE(bpe.add_merge(1, 2, 3));
  EXPECT_FALSE(bpe.add_merge(1, 2, 4));
  EXPECT_TRUE(bpe.add_merge(2, 1, 4));
}

TEST(Bpe, WholePiecesWinOverMerges) {
  Bpe bpe;
  std::array<std::int32_t, 256> bytes{};
  for (std::size_t b = 0; b < 256; ++b) bytes[b] = static_cast<std::int32_t>(b);
  bpe.set_byte_ids(bytes);
  for (int i = 0; i < 3000; ++i) bpe.add_whole_piece(std::string("w").append(std::to_string(i)), 1000 + i);
  Bpe::Scratch scratch;
  std::vector<std::int32_t> ids;
  bpe.encode("w0", scratch, ids);
  bpe.encode("w2999", scratch, ids);
  bpe.encode("x", scratch, ids);
  EXPECT_EQ(ids, (std::vector<std::int32_t>{1000, 3999, 'x'}));
}

TEST(Vocabulary, KeepsBytesById) {
  Vocabulary vocabulary;
  vocabulary.add(5, "five");
  vocabulary.add(0, std::string_view("\0", 1));
  EXPECT_EQ(vocabulary.size(), 6);
  EXPECT_EQ(vocabulary.bytes(5), "five");
  EXPECT_EQ(vocabulary.bytes(0), std::string_view("\0", 1));
  EXPECT_FALSE(vocabulary.contains(3));
  for (const std::int32_t id : {-1, 3, 6, INT32_MAX, INT32_MIN}) EXPECT_EQ(vocabulary.bytes(id), "");
}

}  // namespace
}  // namespace penstock
