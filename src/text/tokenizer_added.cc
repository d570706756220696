#include "text/tokenizer_added.h"

namespace penstock {

void AddedTokenMatcher::add(std::string_view content, std::int32_t id) {
  std::uint32_t node = 0;
  for (const char c : content) {
    const auto [position, is_new] = edges_.try_emplace(edge(node, c), static_cast<std::uint32_t>(ids_.size()));
    if (is_new) ids_.push_back(-1);
    node = position->second;
  }
  if (!content.empty()) starts_[static_cast<std::uint8_t>(content[0])] = true;
  ids_[node] = id;
}

void AddedTokenMatcher::find_in(std::string_view text, std::size_t begin, std::size_t end,
                                std::vector<Match>& out) const {
  for (std::size_t at = begin; at < end;) {
    if (!starts_[static_cast<std::uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    Match longest{at, at, -1};
    std::uint32_t node = 0;
    for (std::size_t i = at; i < end; ++i) {
      const auto next = edges_.find(edge(node, text[i]));
      if (next == edges_.end()) break;
      node = next->second;
      if (ids_[node] >= 0) longest = {at, i + 1, ids_[node]};
    }
    if (longest.id >= 0) {
      out.push_back(longest);
      at = longest.end;
    } else {
      ++at;
    }
  }
}

std::vector<AddedTokenMatcher::Match> AddedTokenMatcher::find_all(std::string_view text,
                                                                  std::span<const Range> plain) const {
  std::vector<Match> matches;
  std::size_t begin = 0;
  for (const auto& [plain_begin, plain_end] : plain) {
    if (plain_begin == plain_end) continue;  // has no byte to share
    find_in(text, begin, plain_begin, matches);
    begin = plain_end;
  }
  find_in(text, begin, text.size(), matches);
  return matches;
}

}  // namespace penstock
