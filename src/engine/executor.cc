#include "engine/executor.h"

#include "model/model.h"

namespace penstock {
namespace {

class ForwardRunner final : public StepRunner {
 public:
  ForwardRunner(const Model& model, const StepSize& size)
      : model_(model), forward_(model, size.max_tokens, size.max_logits) {}

  std::span<const float> run(std::span<const SequenceSlice> slices, const CachePools& pools) override {
    return forward_.run(slices, pools);
  }
  ThreadPool* threads() override { return &model_.pool(); }

 private:
  const Model& model_;
  Forward forward_;
};

}  // namespace

EngineModel describe_model(const Model& model) {
  EngineModel result;
  result.layout = model.cache_layout();
  result.vocab_size = model.config().vocab_size;
  result.max_context = model.config().max_position_embeddings;
  result.eos_token_ids = model.generation_config().eos_token_ids;
  result.make_runner = [&model](const StepSize& size) { return std::make_unique<ForwardRunner>(model, size); };
  return result;
}

}  // namespace penstock
