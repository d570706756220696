// A model ready to run on the CPU: weights packed for the chosen kernels, and the threads that run them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"
#include "ops/cache_layout.h"
#include "ops/policy.h"
#include "penstock/status.h"

namespace penstock {

struct ModelWeights;  // src/model/weights.h

struct ModelOptions {
  int threads = 0;        // 0: one per physical core
  KernelRequest kernels;  // what the user fixed; everything else is chosen by ops/policy
};

class Model {
 public:
  using Progress = std::function<void(double fraction)>;

  // Packs the weights. The checkpoint may be destroyed afterwards.
  static Expected<std::unique_ptr<Model>> create(const Checkpoint& checkpoint, const ModelOptions& options,
                                                 const Progress& progress = {});
  ~Model();

  const ModelConfig& config() const { return config_; }
  const GenerationConfig& generation_config() const { return generation_config_; }
  const CacheLayout& cache_layout() const { return layout_; }
  const KernelPlan& kernels() const { return kernels_; }  // each choice with its reason
  const ModelWeights& weights() const { return *weights_; }
  ThreadPool& pool() const { return *pool_; }
  std::int64_t weight_bytes() const { return weight_bytes_; }  // packed
  std::int64_t parameters() const { return parameters_; }

 private:
  Model();
  ModelConfig config_;
  GenerationConfig generation_config_;
  CacheLayout layout_;
  KernelPlan kernels_;
  std::unique_ptr<ModelWeights> weights_;
  std::unique_ptr<ThreadPool> pool_;
  std::int64_t weight_bytes_ = 0;
  std::int64_t parameters_ = 0;
};

}  // namespace penstock
