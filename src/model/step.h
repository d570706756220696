// What the layers of one step share: the rows of the batch and buffers sized once for the largest step.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "model/forward.h"
#include "model/weights.h"
#include "ops/kernel_table.h"

namespace penstock {

struct AttentionTile {  // some rows of one slice against one kv head
  std::int32_t slice, kv_head;
  std::int32_t first_token, tokens;  // within the slice
  std::int32_t first_head, heads;    // within the kv head's group
};

struct Step {
  Step(const Model& model, std::int32_t max_tokens, std::int32_t max_logits);

  // Calls f(row, thread) for every row: on the calling thread when there are few, else on all.
  template <typename F>
  void for_rows(std::int64_t rows, F&& f) {
    constexpr std::int64_t kRows = 4;
    if (rows <= kRows) {
      for (std::int64_t row = 0; row < rows; ++row) f(row, 0);
      return;
    }
    model.pool().parallel_for((rows + kRows - 1) / kRows, [&](std::int64_t task, int thread) {
      const std::int64_t last = std::min(rows, (task + 1) * kRows);
      for (std::int64_t row = task * kRows; row < last; ++row) f(row, thread);
    });
  }

  float* thread_scratch(int thread) { return scratch.data() + thread * scratch_floats; }
  void norm_rows(const std::vector<float>& weight);  // x -> h

  const Model& model;
  const ModelConfig& config;
  const CacheLayout& layout;
  const KernelTable& kernels;
  LinearRunner linear;
  LinearRunner exact_linear;  // fp32 inputs

  // This step.
  std::span<const SequenceSlice> slices;
  CachePools pools;
  std::int32_t rows = 0;
  std::vector<std::int32_t> first_row;  // of each slice
  std::vector<std::int32_t> position;   // [rows]
  std::vector<std::int32_t> slice_of;   // [rows]

  // Buffers; T = max_tokens.
  std::vector<float> x;           // [T, hidden] residual stream
  std::vector<float> h;           // [T, hidden] normed
  std::vector<float> projection;  // [T, projection_width] of the layer's input projections
  std::int64_t projection_width = 0;
  std::vector<float> conv;     // [T, channels] q | k | v after convolution; or rotated queries [T, heads·head_dim]
  std::vector<float> mixed;    // [T, mixed_width] what the mixer gives to its output projection
  std::vector<float> g, beta;  // [T, value heads]
  std::vector<float> act;      // [T, intermediate], or MoE: [T·k, moe_intermediate]
  std::vector<float> cosine, sine;        // [T, rotary_dim / 2]
  std::vector<double> inverse_frequency;  // [rotary_dim / 2]
  std::vector<AttentionTile> tiles;
  // MoE.
  std::vector<float> router;                  // [T, experts + 1]
  std::vector<std::int32_t> chosen;           // [T, k] experts, ascending
  std::vector<float> weight;                  // [T, k]
  std::vector<std::int32_t> gather;           // [T·k] rows, grouped by expert
  std::vector<std::int32_t> place;            // [T, k] where the row's expert output is
  std::vector<std::int32_t> start;            // [experts + 1]
  std::vector<float> expert_out;              // [T·k, hidden]
  std::vector<float> shared_act, shared_out;  // [T, shared], [T, hidden]
  std::vector<LinearJob> jobs;

  std::vector<float> logit_rows;  // [max_logits, hidden]
  AlignedBuffer logits;           // [max_logits, vocab]
  std::int32_t max_tokens, max_logits;

 private:
  std::int64_t scratch_floats;
  std::vector<float> scratch;
};

// Each adds its block's output to step.x.
void run_gdn(Step& step, const GdnWeights& weights, std::int32_t gdn_layer);
void run_attention(Step& step, const AttentionWeights& weights, std::int32_t attention_layer);
void run_mlp(Step& step, const MlpWeights& weights);
void run_moe(Step& step, const MoeWeights& weights);

}  // namespace penstock
