#include "model/step.h"

#include <cmath>

namespace penstock {
namespace {

std::int64_t max_linear_inputs(const ModelConfig& c, std::int64_t tokens) {
  const std::int64_t mixer = std::max<std::int64_t>(std::int64_t{c.linear_num_value_heads} * c.linear_value_head_dim,
                                                    std::int64_t{c.num_attention_heads} * c.head_dim);
  const std::int64_t dense = std::max<std::int64_t>({mixer, c.hidden_size, c.intermediate_size});
  const std::int64_t experts = std::int64_t{c.num_experts_per_tok} * std::max(c.hidden_size, c.moe_intermediate_size) +
                               std::max(c.hidden_size, c.shared_expert_intermediate_size);
  return tokens * std::max(dense, c.is_moe() ? experts : 0);
}

}  // namespace

Step::Step(const Model& model_in, std::int32_t max_tokens_in, std::int32_t max_logits_in)
    : model(model_in),
      config(model_in.config()),
      layout(model_in.cache_layout()),
      kernels(kernel_table(model_in.kernels())),
      linear(kernels, model_in.kernels().linear_input, model_in.pool(),
             max_linear_inputs(config, std::max(max_tokens_in, max_logits_in))),
      exact_linear(exact_kernel_table(model_in.kernels()), LinearInput::kF32, model_in.pool(), 0),
      max_tokens(max_tokens_in),
      max_logits(max_logits_in) {
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  const std::int64_t t = max_tokens;
  const std::int64_t value_width = std::int64_t{config.linear_num_value_heads} * config.linear_value_head_dim;
  const std::int64_t query_width = std::int64_t{config.num_attention_heads} * config.head_dim;
  const std::int64_t gdn_width = config.conv_channels() + value_width + 2 * std::int64_t{config.linear_num_value_heads};
  const std::int64_t attention_width = 2 * query_width + 2 * std::int64_t{config.num_key_value_heads} * config.head_dim;
  projection_width = std::max(gdn_width, attention_width);
  position.resize(size(t));
  slice_of.resize(size(t));
  first_row.reserve(size(t));
  x.resize(size(t * config.hidden_size));
  h.resize(size(t * config.hidden_size));
  projection.resize(size(t * projection_width));
  conv.resize(size(t * std::max<std::int64_t>(config.conv_channels(), query_width)));
  mixed.resize(size(t * std::max(value_width, query_width)));
  g.resize(size(t * config.linear_num_value_heads));
  beta.resize(size(t * config.linear_num_value_heads));
  const std::int64_t half = config.rotary_dim / 2;
  cosine.resize(size(t * half));
  sine.resize(size(t * half));
  for (std::int64_t j = 0; j < half; ++j) {
    inverse_frequency.push_back(std::pow(config.rope_theta, -2.0 * static_cast<double>(j) / config.rotary_dim));
  }
  tiles.reserve(size(t * config.num_attention_heads));
  if (config.is_moe()) {
    const std::int64_t slots = t * config.num_experts_per_tok;
    act.resize(size(slots * config.moe_intermediate_size));
    router.resize(size(t * (config.num_experts + 1)));
    chosen.resize(size(slots));
    weight.resize(size(slots));
    gather.resize(size(slots));
    place.resize(size(slots));
    start.resize(size(config.num_experts + 1));
    expert_out.resize(size(slots * config.hidden_size));
    shared_act.resize(size(t * config.shared_expert_intermediate_size));
    shared_out.resize(size(t * config.hidden_size));
    jobs.reserve(size(config.num_experts + 1));
  } else {
    act.resize(size(t * config.intermediate_size));
  }
  logit_rows.resize(size(std::int64_t{max_logits} * config.hidden_size));
  logits = AlignedBuffer(size(std::int64_t{max_logits} * config.vocab_size * 4));
  scratch_floats = std::max(gdn_scratch_floats(config.linear_key_head_dim, config.linear_value_head_dim),
                            attention_scratch_floats(config.head_dim));
  scratch_floats = (scratch_floats + 1023) / 1024 * 1024;
  scratch.resize(size(scratch_floats * model.pool().threads()));
}

void Step::norm_rows(const std::vector<float>& norm_weight) {
  const std::int64_t hidden = config.hidden_size;
  for_rows(rows, [&](std::int64_t row, int) {
    kernels.rms_norm(x.data() + row * hidden, norm_weight.data(), h.data() + row * hidden, config.hidden_size,
                     config.rms_norm_eps);
  });
}

}  // namespace penstock
