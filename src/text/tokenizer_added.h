// Added tokens: whole strings that are found before anything else is done to the text.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace penstock {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;   // not empty
  bool special = false;  // left out of decoded text on request
};

class AddedTokenMatcher {
 public:
  struct Match {
    std::size_t begin;  // bytes of the text
    std::size_t end;
    std::int32_t id;
  };
  using Range = std::pair<std::size_t, std::size_t>;

  void add(std::string_view content, std::int32_t id);

  // The leftmost matches, of those that begin at the same place the longest, in ascending order, none of which shares a
  // byte with a range of `plain` (ascending, disjoint).
  std::vector<Match> find_all(std::string_view text, std::span<const Range> plain) const;

 private:
  void find_in(std::string_view text, std::size_t begin, std::size_t end, std::vector<Match>& out) const;
  static std::uint64_t edge(std::uint32_t node, char c) {
    return (static_cast<std::uint64_t>(node) << 8) | static_cast<std::uint8_t>(c);
  }

  std::array<bool, 256> starts_{};                          // bytes some token begins with
  std::unordered_map<std::uint64_t, std::uint32_t> edges_;  // trie: (node, byte) -> node; 0 is the root
  std::vector<std::int32_t> ids_ = {-1};                    // [node], -1: no token ends here
};

}  // namespace penstock
