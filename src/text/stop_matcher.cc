#include <algorithm>

#include "text/tokenizer.h"

namespace penstock {

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop) : include_stop_(include_stop) {
  for (std::string& text : stops) {
    if (text.empty()) continue;
    Stop stop{std::move(text), {}, 0};
    stop.fallback.resize(stop.text.size());
    for (std::size_t i = 1, border = 0; i < stop.text.size(); ++i) {
      while (border > 0 && stop.text[i] != stop.text[border]) border = stop.fallback[border - 1];
      if (stop.text[i] == stop.text[border]) ++border;
      stop.fallback[i] = static_cast<std::uint32_t>(border);
    }
    stops_.push_back(std::move(stop));
  }
}

void StopMatcher::advance(Stop& stop, char c) {
  while (stop.matched > 0 && stop.text[stop.matched] != c) stop.matched = stop.fallback[stop.matched - 1];
  if (stop.text[stop.matched] == c) ++stop.matched;
}

StopMatcher::Result StopMatcher::push(std::string_view piece) {
  if (found_) return {{}, found_};
  const std::size_t before = held_.size();
  held_ += piece;
  std::size_t longest = 0;  // of the beginnings of stop strings that end here
  for (std::size_t i = before; i < held_.size(); ++i) {
    const Stop* complete = nullptr;
    longest = 0;
    for (Stop& stop : stops_) {
      advance(stop, held_[i]);
      longest = std::max<std::size_t>(longest, stop.matched);
      if (stop.matched == stop.text.size() && (complete == nullptr || stop.text.size() > complete->text.size()))
        complete = &stop;
    }
    if (complete == nullptr) continue;
    found_ = complete->text;
    std::string text = held_.substr(0, i + 1 - (include_stop_ ? 0 : complete->text.size()));
    held_.clear();
    return {std::move(text), found_};
  }
  if (held_.size() == before) return {};  // an empty piece changes nothing
  std::string text = held_.substr(0, held_.size() - longest);
  held_.erase(0, text.size());
  return {std::move(text), std::nullopt};
}

std::string StopMatcher::finish() {
  for (Stop& stop : stops_) stop.matched = 0;
  return std::exchange(held_, {});
}

}  // namespace penstock
