// What the engine needs of a model: steps. The real one wraps model/forward; tests bring their own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "model/forward.h"
#include "ops/cache_layout.h"

namespace penstock {

class Model;

struct StateCopy {
  std::int32_t from = 0, to = 0;  // state slots
};

// One caller at a time; not always the same thread.
class StepRunner {
 public:
  virtual ~StepRunner() = default;
  // As Forward::run: logits [rows, vocab], rows in order of slices and tokens, valid until the next run.
  virtual std::span<const float> run(std::span<const SequenceSlice> slices, const CachePools& pools) = 0;
  // In order, after what was run before.
  virtual void copy_states(std::span<const StateCopy> copies, const CachePools& pools) = 0;
  // Threads the sampler may use between steps; null: the caller's alone.
  virtual ThreadPool* threads() { return nullptr; }
};

struct StepSize {
  std::int32_t max_tokens = 0;  // rows in a step
  std::int32_t max_logits = 0;  // rows of logits in a step
};

// A model as the engine sees it.
struct EngineModel {
  CacheLayout layout;
  std::int32_t vocab_size = 0;
  std::int32_t max_context = 0;  // tokens
  std::vector<std::int32_t> eos_token_ids;
  std::function<std::unique_ptr<StepRunner>(const StepSize&)> make_runner;
};

// `model` must outlive the result and its runners.
EngineModel describe_model(const Model& model);

}  // namespace penstock
