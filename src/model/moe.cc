// Mixture of experts: rows grouped by expert, every expert's product in one parallel region, each token's sum in
// ascending expert order, the shared expert last (numerics.md 2.5).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "model/step.h"

namespace penstock {
namespace {

// Softmax over all experts, the k largest (lower index wins a tie), in ascending expert order.
void choose_experts(Step& step, std::int64_t row) {
  const ModelConfig& c = step.config;
  const auto experts = static_cast<std::size_t>(c.num_experts);
  const auto k = static_cast<std::size_t>(c.num_experts_per_tok);
  float* p = step.router.data() + row * (c.num_experts + 1);
  const float top = *std::max_element(p, p + experts);
  float sum = 0;
  for (std::size_t e = 0; e < experts; ++e) {
    p[e] = std::exp(p[e] - top);
    sum += p[e];
  }
  std::int32_t* chosen = step.chosen.data() + row * c.num_experts_per_tok;
  float* weight = step.weight.data() + row * c.num_experts_per_tok;
  // Insertion into a short sorted list, best first; a later equal value stays behind.
  std::size_t count = 0;
  for (std::size_t e = 0; e < experts; ++e) {
    const bool full = count == k;
    if (full && !(p[e] > p[chosen[k - 1]])) continue;
    std::size_t at = full ? k - 1 : count++;
    while (at > 0 && p[e] > p[chosen[at - 1]]) {
      chosen[at] = chosen[at - 1];
      --at;
    }
    chosen[at] = static_cast<std::int32_t>(e);
  }
  std::sort(chosen, chosen + k);
  float chosen_sum = 0;
  for (std::size_t i = 0; i < k; ++i) chosen_sum += p[chosen[i]];
  for (std::size_t i = 0; i < k; ++i) weight[i] = p[chosen[i]] / (c.norm_topk_prob ? chosen_sum : sum);
}

// gather: the rows of expert e at [start[e], start[e + 1]); place: where each (row, slot) went.
void group_rows(Step& step) {
  const std::int64_t slots = std::int64_t{step.rows} * step.config.num_experts_per_tok;
  std::fill(step.start.begin(), step.start.end(), 0);
  for (std::int64_t i = 0; i < slots; ++i)
    ++step.start[static_cast<std::size_t>(step.chosen[static_cast<std::size_t>(i)]) + 1];
  for (std::size_t e = 1; e < step.start.size(); ++e) step.start[e] += step.start[e - 1];
  for (std::int64_t i = 0; i < slots; ++i) {
    const auto slot = static_cast<std::size_t>(i);
    const std::int32_t at = step.start[static_cast<std::size_t>(step.chosen[slot])]++;
    step.gather[static_cast<std::size_t>(at)] = static_cast<std::int32_t>(i / step.config.num_experts_per_tok);
    step.place[slot] = at;
  }
  for (std::size_t e = step.start.size() - 1; e > 0; --e) step.start[e] = step.start[e - 1];
  step.start[0] = 0;
}

LinearJob up_job(const Step& step, const MlpWeights& mlp, float* act, std::int32_t rows, const std::int32_t* gather) {
  LinearJob job{};
  job.weights = &mlp.gate_up;
  job.x = step.h.data();
  job.ld_x = step.config.hidden_size;
  job.gather = gather;
  job.y = act;
  job.ld_y = mlp.intermediate;
  job.columns = mlp.intermediate;
  job.rows = rows;
  job.epilogue = Epilogue::kSiluMul;
  return job;
}

LinearJob down_job(const Step& step, const MlpWeights& mlp, const float* act, std::int32_t rows, float* out) {
  LinearJob job{};
  job.weights = &mlp.down;
  job.x = act;
  job.ld_x = mlp.intermediate;
  job.y = out;
  job.ld_y = step.config.hidden_size;
  job.rows = rows;
  return job;
}

void combine(Step& step, std::int64_t row) {
  const ModelConfig& c = step.config;
  const std::int64_t hidden = c.hidden_size;
  float* sum = step.h.data() + row * hidden;  // the normed input is no longer needed
  std::memset(sum, 0, sizeof(float) * static_cast<std::size_t>(hidden));
  for (std::int64_t i = 0; i < c.num_experts_per_tok; ++i) {
    const auto slot = static_cast<std::size_t>(row * c.num_experts_per_tok + i);
    step.kernels.add_scaled(sum, step.expert_out.data() + step.place[slot] * hidden, step.weight[slot], c.hidden_size);
  }
  const float gate =
      1.0F / (1.0F + std::exp(-step.router[static_cast<std::size_t>(row * (c.num_experts + 1) + c.num_experts)]));
  step.kernels.add_scaled(sum, step.shared_out.data() + row * hidden, gate, c.hidden_size);
  step.kernels.add(step.x.data() + row * hidden, sum, c.hidden_size);
}

}  // namespace

void run_moe(Step& step, const MoeWeights& weights) {
  const ModelConfig& c = step.config;
  LinearJob router{};
  router.weights = &weights.router;
  router.x = step.h.data();
  router.ld_x = c.hidden_size;
  router.y = step.router.data();
  router.ld_y = c.num_experts + 1;
  router.rows = step.rows;
  step.exact_linear.run(router);
  step.for_rows(step.rows, [&](std::int64_t row, int) { choose_experts(step, row); });
  group_rows(step);

  const auto for_experts = [&](auto&& make_job) {
    step.jobs.clear();
    for (std::size_t e = 0; e < weights.experts.size(); ++e) {
      const std::int32_t rows = step.start[e + 1] - step.start[e];
      if (rows > 0) step.jobs.push_back(make_job(weights.experts[e], std::int64_t{step.start[e]}, rows));
    }
  };
  for_experts([&](const MlpWeights& mlp, std::int64_t start, std::int32_t rows) {
    return up_job(step, mlp, step.act.data() + start * mlp.intermediate, rows, step.gather.data() + start);
  });
  step.jobs.push_back(up_job(step, weights.shared_expert, step.shared_act.data(), step.rows, nullptr));
  step.linear.run(step.jobs);
  for_experts([&](const MlpWeights& mlp, std::int64_t start, std::int32_t rows) {
    return down_job(step, mlp, step.act.data() + start * mlp.intermediate, rows,
                    step.expert_out.data() + start * c.hidden_size);
  });
  step.jobs.push_back(down_job(step, weights.shared_expert, step.shared_act.data(), step.rows, step.shared_out.data()));
  step.linear.run(step.jobs);
  step.for_rows(step.rows, [&](std::int64_t row, int) { combine(step, row); });
}

}  // namespace penstock
