// The axes of the product, and samples of it.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "penstock/engine.h"

namespace penstock::product {

enum class Scenario : std::uint8_t { kCold, kHitAfterPrefill, kHitAfterGeneration, kBranch, kPreempted };

// One cell: an index into each axis.
struct Combination {
  static constexpr std::array<int, 7> kSizes = {3, 2, 3, 5, 3, 2, 2};
  static constexpr int kCount = 3 * 2 * 3 * 5 * 3 * 2 * 2;
  std::array<int, 7> at{};

  static Combination of(int index) {
    Combination combination;
    for (std::size_t axis = kSizes.size(); axis-- > 0; index /= kSizes[axis]) {
      combination.at[axis] = index % kSizes[axis];
    }
    return combination;
  }
  int index() const {
    int index = 0;
    for (std::size_t axis = 0; axis < kSizes.size(); ++axis) index = index * kSizes[axis] + at[axis];
    return index;
  }

  bool cache() const { return at[0] != 2; }
  SchedulerStrategy strategy() const {
    return at[0] == 0 ? SchedulerStrategy::kNoBuffer : SchedulerStrategy::kExtraBuffer;
  }
  const char* backend() const { return at[1] == 0 ? "window" : "recurrent"; }
  const char* state() const { return std::array{"float32", "bfloat16", "int8"}[static_cast<std::size_t>(at[2])]; }
  Scenario scenario() const { return static_cast<Scenario>(at[3]); }
  std::int32_t chunk() const { return std::array{64, 256, 1024}[static_cast<std::size_t>(at[4])]; }
  bool company() const { return at[5] == 1; }
  bool overlap() const { return at[6] == 1; }

  // A name that GoogleTest takes, and that --gtest_filter finds again.
  std::string name() const {
    const std::array scenarios = {"cold", "hit_after_prefill", "hit_after_generation", "branch", "preempted"};
    return std::string(cache() ? to_string(strategy()) : "cache_off") + "_" + backend() + "_" + state() + "_" +
           scenarios[static_cast<std::size_t>(at[3])] + "_chunk" + std::to_string(chunk()) +
           (company() ? "_company" : "_alone") + (overlap() ? "_overlap" : "_in_turn");
  }
};

inline void PrintTo(const Combination& combination, std::ostream* out) {
  *out << combination.name();
}

inline std::vector<Combination> whole_product() {
  std::vector<Combination> all;
  for (int i = 0; i < Combination::kCount; ++i) all.push_back(Combination::of(i));
  return all;
}

using Pair = std::tuple<std::size_t, int, std::size_t, int>;  // axis and value, twice

inline std::set<Pair> pairs_of(const Combination& combination) {
  std::set<Pair> pairs;
  for (std::size_t a = 0; a < combination.at.size(); ++a) {
    for (std::size_t b = a + 1; b < combination.at.size(); ++b) {
      pairs.emplace(a, combination.at[a], b, combination.at[b]);
    }
  }
  return pairs;
}

inline std::set<Pair> all_pairs() {
  std::set<Pair> pairs;
  for (const Combination& combination : whole_product()) pairs.merge(pairs_of(combination));
  return pairs;
}

// A fixed pseudo-random sample in which every pair of values of two axes comes together: first those that bring most
// new pairs, in the shuffled order, then others until there are `most`.
inline std::vector<Combination> sample(std::size_t most, std::uint64_t seed) {
  std::vector<Combination> shuffled = whole_product();
  for (std::size_t i = shuffled.size() - 1; i > 0; --i) {
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    std::swap(shuffled[i], shuffled[(seed >> 33) % (i + 1)]);
  }
  std::vector<Combination> chosen;
  std::set<Pair> missing = all_pairs();
  while (chosen.size() < most) {
    std::size_t best = 0, best_new = 0;
    for (std::size_t i = 0; i < shuffled.size(); ++i) {
      std::size_t fresh = 0;
      for (const Pair& pair : pairs_of(shuffled[i])) fresh += missing.count(pair);
      if (fresh > best_new) {
        best = i;
        best_new = fresh;
      }
    }
    for (const Pair& pair : pairs_of(shuffled[best])) missing.erase(pair);
    chosen.push_back(shuffled[best]);
    shuffled.erase(shuffled.begin() + static_cast<std::ptrdiff_t>(best));
  }
  return chosen;
}

}  // namespace penstock::product
