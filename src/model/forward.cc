#include "model/forward.h"

#include <cmath>
#include <cstring>

#include "base/check.h"
#include "model/step.h"

namespace penstock {

struct Forward::Impl {
  Impl(const Model& model, std::int32_t max_tokens, std::int32_t max_logits) : step(model, max_tokens, max_logits) {}

  void begin(std::span<const SequenceSlice> slices, const CachePools& pools) {
    step.slices = slices;
    step.pools = pools;
    step.rows = 0;
    step.first_row.clear();
    for (std::size_t s = 0; s < slices.size(); ++s) {
      step.first_row.push_back(step.rows);
      const auto n = static_cast<std::int32_t>(slices[s].tokens.size());
      CHECK(n > 0 && step.rows + n <= step.max_tokens);
      CHECK((slices[s].position + n - 1) / kBlockTokens < static_cast<std::int32_t>(slices[s].pages.size()));
      for (std::int32_t i = 0; i < n; ++i) {
        const auto row = static_cast<std::size_t>(step.rows + i);
        step.position[row] = slices[s].position + i;
        step.slice_of[row] = static_cast<std::int32_t>(s);
      }
      step.rows += n;
    }
  }

  void embed() {
    const ModelWeights& weights = step.model.weights();
    const PackedMatrix& table = weights.embed_tokens ? *weights.embed_tokens : weights.lm_head;
    const std::int64_t half = step.config.rotary_dim / 2;
    step.for_rows(step.rows, [&](std::int64_t row, int) {
      const auto i = static_cast<std::size_t>(row);
      const SequenceSlice& slice = step.slices[static_cast<std::size_t>(step.slice_of[i])];
      const std::int32_t token = slice.tokens[static_cast<std::size_t>(step.position[i] - slice.position)];
      CHECK(token >= 0 && token < step.config.vocab_size);
      table.read_row(token, step.x.data() + row * step.config.hidden_size);
      for (std::int64_t j = 0; j < half; ++j) {
        const double angle = step.position[i] * step.inverse_frequency[static_cast<std::size_t>(j)];
        step.cosine[static_cast<std::size_t>(row * half + j)] = static_cast<float>(std::cos(angle));
        step.sine[static_cast<std::size_t>(row * half + j)] = static_cast<float>(std::sin(angle));
      }
    });
  }

  void run_layers() {
    std::int32_t gdn = 0;
    std::int32_t attention = 0;
    for (const LayerWeights& layer : step.model.weights().layers) {
      step.norm_rows(layer.input_norm);
      if (layer.gdn) {
        run_gdn(step, *layer.gdn, gdn++);
      } else {
        run_attention(step, *layer.attention, attention++);
      }
      step.norm_rows(layer.post_attention_norm);
      if (layer.moe) {
        run_moe(step, *layer.moe);
      } else {
        run_mlp(step, *layer.mlp);
      }
    }
  }

  std::span<const float> run_head() {
    const ModelWeights& weights = step.model.weights();
    const std::int64_t hidden = step.config.hidden_size;
    logit_count = 0;
    for (std::size_t s = 0; s < step.slices.size(); ++s) {
      const auto n = static_cast<std::int32_t>(step.slices[s].tokens.size());
      for (std::int32_t i = step.slices[s].logits_from; i < n; ++i, ++logit_count) {
        CHECK(logit_count < step.max_logits);
        step.kernels.rms_norm(step.x.data() + (step.first_row[s] + i) * hidden, weights.norm.data(),
                              step.logit_rows.data() + logit_count * hidden, step.config.hidden_size,
                              step.config.rms_norm_eps);
      }
    }
    if (logit_count == 0) return {};
    LinearJob job{};
    job.weights = &weights.lm_head;
    job.x = step.logit_rows.data();
    job.ld_x = hidden;
    job.y = step.logits.as<float>();
    job.ld_y = step.config.vocab_size;
    job.rows = logit_count;
    step.linear.run(job);
    return {step.logits.as<float>(),
            static_cast<std::size_t>(logit_count) * static_cast<std::size_t>(step.config.vocab_size)};
  }

  Step step;
  std::int32_t logit_count = 0;
};

Forward::Forward(const Model& model, std::int32_t max_tokens, std::int32_t max_logits)
    : impl_(std::make_unique<Impl>(model, max_tokens, max_logits)) {}
Forward::~Forward() = default;

std::span<const float> Forward::run(std::span<const SequenceSlice> slices, const CachePools& pools) {
  impl_->begin(slices, pools);
  impl_->embed();
  impl_->run_layers();
  return impl_->run_head();
}

std::span<const float> Forward::hidden() const {
  return {impl_->step.logit_rows.data(),
          static_cast<std::size_t>(impl_->logit_count) * static_cast<std::size_t>(impl_->step.config.hidden_size)};
}

}  // namespace penstock
