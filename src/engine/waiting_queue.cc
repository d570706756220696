#include "engine/waiting_queue.h"

#include <algorithm>
#include <tuple>

namespace penstock {
namespace {

bool urgent(const Sequence& s) {
  return s.preempted || s.passes >= WaitingQueue::kMaxPasses;
}

bool before(const std::unique_ptr<Sequence>& a, const std::unique_ptr<Sequence>& b) {
  const auto key = [](const Sequence& s) {
    const bool first = urgent(s);
    return std::tuple(!s.preempted, !first, first ? std::int64_t{0} : -std::int64_t{s.request.priority}, s.id);
  };
  return key(*a) < key(*b);
}

}  // namespace

void WaitingQueue::push(std::unique_ptr<Sequence> sequence) {
  prompt_tokens_ += sequence->prompt_tokens;
  const auto place = std::upper_bound(waiting_.begin(), waiting_.end(), sequence, before);
  waiting_.insert(place, std::move(sequence));
}

std::unique_ptr<Sequence> WaitingQueue::take(std::size_t i) {
  std::unique_ptr<Sequence> sequence = std::move(waiting_[i]);
  waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
  prompt_tokens_ -= sequence->prompt_tokens;
  return sequence;
}

std::unique_ptr<Sequence> WaitingQueue::pop(const std::function<bool(Sequence&)>& fits) {
  std::size_t chosen = 0;
  const std::size_t tries = std::min(waiting_.size(), kLookAhead + 1);
  while (chosen < tries && !fits(*waiting_[chosen])) {
    if (urgent(*waiting_[chosen])) return nullptr;
    ++chosen;
  }
  if (chosen == tries) return nullptr;
  std::unique_ptr<Sequence> sequence = take(chosen);
  bool reorder = false;
  for (std::size_t i = 0; i < waiting_.size(); ++i) {
    Sequence& other = *waiting_[i];
    if (i >= chosen && other.id > sequence->id) continue;
    reorder |= ++other.passes == kMaxPasses;
  }
  if (reorder) std::stable_sort(waiting_.begin(), waiting_.end(), before);
  return sequence;
}

std::unique_ptr<Sequence> WaitingQueue::remove(RequestId id) {
  for (std::size_t i = 0; i < waiting_.size(); ++i) {
    if (waiting_[i]->id == id) return take(i);
  }
  return nullptr;
}

}  // namespace penstock
