// Requests that wait to run: higher priority first, then in order of arrival, and nobody is passed for ever (contract
// Q2).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/sequence.h"

namespace penstock {

class WaitingQueue {
 public:
  // Later arrivals, and requests that fit where an earlier one does not, overtake a request at most this often; then it
  // is urgent: it goes before everything that is not, and nobody is admitted over it.
  static constexpr std::int32_t kMaxPasses = 256;
  // How many requests behind one that does not fit are tried.
  static constexpr std::size_t kLookAhead = 16;

  void push(std::unique_ptr<Sequence> sequence);
  // The next request that `fits`, or null. Counts it against those it passes. `fits` may give slots to the one it
  // takes.
  std::unique_ptr<Sequence> pop(const std::function<bool(Sequence&)>& fits);
  std::unique_ptr<Sequence> remove(RequestId id);  // null: not here
  const Sequence* first() const { return waiting_.empty() ? nullptr : waiting_.front().get(); }

  std::size_t size() const { return waiting_.size(); }
  bool empty() const { return waiting_.empty(); }
  std::int64_t prompt_tokens() const { return prompt_tokens_; }

 private:
  std::unique_ptr<Sequence> take(std::size_t i);

  std::vector<std::unique_ptr<Sequence>> waiting_;  // in order of turn
  std::int64_t prompt_tokens_ = 0;
};

}  // namespace penstock
