#include "engine/executor.h"

#include <algorithm>
#include <cstring>

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
  void copy_states(std::span<const StateCopy> copies, const CachePools& pools) override {
    const std::size_t bytes = model_.cache_layout().state_bytes;
    constexpr std::size_t kPiece = std::size_t{1} << 18;
    const auto pieces = static_cast<std::int64_t>((bytes + kPiece - 1) / kPiece);
    for (const StateCopy& copy : copies) {
      const std::byte* from = pools.states + static_cast<std::size_t>(copy.from) * bytes;
      std::byte* to = pools.states + static_cast<std::size_t>(copy.to) * bytes;
      model_.pool().parallel_for(pieces, [&](std::int64_t piece, int) {
        const std::size_t begin = static_cast<std::size_t>(piece) * kPiece;
        std::memcpy(to + begin, from + begin, std::min(kPiece, bytes - begin));
      });
    }
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
