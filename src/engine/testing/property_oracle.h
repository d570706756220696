// For the property test: random engines, what requests were asked, and the answers they should get.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/testing/core_harness.h"

namespace penstock::testing {

// What happened, to see that the test does what it says.
struct Counts {
  std::int64_t finished = 0, stopped = 0, cancelled = 0, failed = 0, no_step = 0, scored = 0, sampled = 0;
  std::int64_t preempted = 0, pages_evicted = 0, snapshots_evicted = 0, hits = 0, branches = 0, take_overs = 0;
  std::int64_t refused = 0, written_over = 0, sat_out = 0, flushes = 0, idle = 0, probes = 0;

  std::string text() const {
    return fmt::format(
        "{} finished ({} stopped early, {} sampled), {} scored, {} cancelled, {} failed, {} without a step; {} hits, "
        "{} preempted, {} pages and {} snapshots evicted, {} branches, {} take-overs, {} acquisitions refused, {} "
        "snapshots written over, {} sat out, {} flushes, {} times idle, {} probes",
        finished, stopped, sampled, scored, cancelled, failed, no_step, hits, preempted, pages_evicted,
        snapshots_evicted, branches, take_overs, refused, written_over, sat_out, flushes, idle, probes);
  }
};

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(mix(seed)) {}
  std::uint64_t operator()(std::uint64_t n) { return (state_ = mix(state_)) % n; }
  std::int32_t between(std::int32_t low, std::int32_t high) {  // both included
    return low + static_cast<std::int32_t>((*this)(static_cast<std::uint64_t>(high - low + 1)));
  }
  bool chance(std::uint64_t percent) { return (*this)(100) < percent; }
  template <typename T>
  const T& of(const std::vector<T>& values) {
    return values[(*this)(values.size())];
  }

 private:
  std::uint64_t state_;
};

// A crowd: many requests of one family at a time, in small steps and with hardly any room, so that they share, overtake
// and take from each other what they can.
struct Scene {
  CoreHarness::Options options;
  bool crowd = false;
};

inline Scene random_scene(const Mode& mode, Random& random) {
  CoreHarness::Options o;
  o.model.backend = mode.backend;
  o.model.vocab = 64;
  o.model.eos = {0, 1};
  o.model.context = random.of<std::int32_t>({448, 960, 960, 1600});
  o.model.state_bytes = random.of<std::size_t>({64, 256, 448, 1024});
  o.with_text = false;
  o.prefix_cache = mode.prefix_cache;
  o.strategy = mode.strategy;
  o.overlap = mode.overlap;
  o.running = random.between(1, 6);
  const std::int32_t one = pages_for(o.model.context);
  o.pages = one + random.between(0, random.chance(70) ? one : o.running * one);
  o.prefill = random.chance(4) ? 1 : random.of<std::int32_t>({17, 64, 90, 90, 256, -1});
  o.track_interval = random.of<std::int32_t>({64, 128, 256});
  o.growth_tokens = random.of<std::int32_t>({0, 0, 64, 256, 1024});
  const bool caps = random.chance(40);
  o.max_states = caps ? o.running + random.between(0, 4) : 0;
  if (!random.chance(50)) return {o, false};
  o.model.context = 448;
  o.running = random.between(4, 6);
  o.max_states = caps ? o.running + random.between(0, 2) : 0;
  o.pages = 7 + random.between(0, 7);
  o.prefill = random.of<std::int32_t>({17, 64});
  o.track_interval = 64;
  if (random.chance(50)) o.model.state_bytes = 256;
  return {o, true};
}

// What the oracle knows of a request.
struct Asked {
  Request request;  // with its prompt
  std::int32_t limit = 0;
  std::int64_t first_token_at = -1;
  bool may_fail = false;  // an error was asked for
  bool cancelled = false;
  std::size_t seen = 0;             // tokens of the answer that are in `hash`
  std::uint64_t hash = kEmptyHash;  // of prompt and answer as far as seen
};

// The answer by the definition of the model and of sampling: each token alone, from the hash of all before it.
class Expected {
 public:
  explicit Expected(const FakeModelOptions& options)
      : options_(options),
        sampler_(options.vocab, options.vocab, nullptr),
        row_(static_cast<std::size_t>(options.vocab)) {}

  std::vector<std::int32_t> answer(const Request& request, std::size_t most) {
    std::uint64_t h = kEmptyHash;
    for (const std::int32_t token : request.prompt) h = extend(h, token);
    TokenCounts counts;
    counts.add_prompt(request.prompt);
    auto position = static_cast<std::int32_t>(request.prompt.size());
    std::vector<std::int32_t> tokens;
    while (tokens.size() < most) {
      options_.fill(h, 0, position - 1, row_);
      std::int32_t token = static_cast<std::int32_t>(std::max_element(row_.begin(), row_.end()) - row_.begin());
      if (request.sampling.temperature > 0) token = draw(request, counts, position);
      tokens.push_back(token);
      counts.add_output(token);
      h = extend(h, token);
      ++position;
      if (ends(request, token)) break;
    }
    return tokens;
  }
  bool ends(const Request& request, std::int32_t token) const {
    const auto in = [&](const std::vector<std::int32_t>& ids) {
      return std::find(ids.begin(), ids.end(), token) != ids.end();
    };
    return in(request.stop_token_ids) || (!request.ignore_eos && in(options_.eos));
  }

 private:
  std::int32_t draw(const Request& request, const TokenCounts& counts, std::int32_t position) {
    SampleJob job;
    job.logits = row_;
    job.params = &request.sampling;
    job.counts = &counts;
    job.position = position;
    SampleResult result;
    sampler_.run({&job, 1}, {&result, 1});
    return result.token;
  }

  FakeModelOptions options_;
  Sampler sampler_;
  std::vector<float> row_;
};

}  // namespace penstock::testing
