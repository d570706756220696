// Full attention of one layer: QK norm, partial rotary embedding, paged keys and values, output gate.
#include <cmath>

#include "base/dtype.h"
#include "model/step.h"

namespace penstock {
namespace {

template <typename Kv>
Kv to_kv(float value) {
  if constexpr (sizeof(Kv) == 4) {
    return value;
  } else {
    return float_to_bf16(value);
  }
}

// Keys [head_dim][64], then values [64][head_dim].
template <typename Kv>
void append_kv(std::byte* head, std::int64_t column, const float* k, const float* v, std::int64_t head_dim) {
  auto* keys = reinterpret_cast<Kv*>(head);
  Kv* values = keys + head_dim * kBlockTokens + column * head_dim;
  for (std::int64_t i = 0; i < head_dim; ++i) keys[i * kBlockTokens + column] = to_kv<Kv>(k[i]);
  for (std::int64_t i = 0; i < head_dim; ++i) values[i] = to_kv<Kv>(v[i]);
}

// Queries to step.conv, the row's keys and values to its page.
void prepare_row(Step& step, const AttentionWeights& weights, std::int64_t layer, std::int64_t row, float* scratch) {
  const ModelConfig& c = step.config;
  const std::int64_t hd = c.head_dim;
  const std::int64_t half = c.rotary_dim / 2;
  float* projection = step.projection.data() + row * step.projection_width;
  HeadNormTask task{};
  task.cosine = step.cosine.data() + row * half;
  task.sine = step.sine.data() + row * half;
  task.head_dim = c.head_dim;
  task.rotary_dim = c.rotary_dim;
  task.eps = c.rms_norm_eps;
  task.scale = 1.0F / std::sqrt(static_cast<float>(c.head_dim));
  task.weight = weights.q_norm.data();
  for (std::int64_t head = 0; head < c.num_attention_heads; ++head) {
    task.x = projection + head * 2 * hd;
    task.y = step.conv.data() + (row * c.num_attention_heads + head) * hd;
    step.kernels.head_norm(task);
  }
  const SequenceSlice& slice = step.slices[static_cast<std::size_t>(step.slice_of[static_cast<std::size_t>(row)])];
  const std::int32_t position = step.position[static_cast<std::size_t>(row)];
  const auto page = static_cast<std::int64_t>(slice.pages[static_cast<std::size_t>(position / kBlockTokens)]);
  std::byte* base = step.pools.kv_pages + page * static_cast<std::int64_t>(step.layout.kv_page_bytes) +
                    layer * static_cast<std::int64_t>(step.layout.kv_layer_bytes);
  task.scale = 1.0F;
  task.weight = weights.k_norm.data();
  task.y = scratch;
  const float* k = projection + 2 * c.num_attention_heads * hd;
  const float* v = k + c.num_key_value_heads * hd;
  for (std::int64_t head = 0; head < c.num_key_value_heads; ++head) {
    task.x = k + head * hd;
    step.kernels.head_norm(task);
    std::byte* to = base + head * static_cast<std::int64_t>(step.layout.kv_head_bytes);
    if (step.layout.kv_dtype == KvDType::kF32) {
      append_kv<float>(to, position % kBlockTokens, scratch, v + head * hd, hd);
    } else {
      append_kv<bf16_t>(to, position % kBlockTokens, scratch, v + head * hd, hd);
    }
  }
}

void plan_tiles(Step& step) {
  const ModelConfig& c = step.config;
  const std::int32_t group = c.num_attention_heads / c.num_key_value_heads;
  const std::int32_t heads = std::min(group, kMaxAttentionRows);
  const std::int32_t tokens = std::max(1, kMaxAttentionRows / heads);
  step.tiles.clear();
  for (std::size_t s = 0; s < step.slices.size(); ++s) {
    const auto n = static_cast<std::int32_t>(step.slices[s].tokens.size());
    // The longest rows first, so that no thread is left with them at the end.
    for (std::int32_t last = n; last > 0; last -= tokens) {
      const std::int32_t first = std::max(0, last - tokens);
      for (std::int32_t kv = 0; kv < c.num_key_value_heads; ++kv) {
        for (std::int32_t head = 0; head < group; head += heads) {
          step.tiles.push_back(
              {static_cast<std::int32_t>(s), kv, first, last - first, head, std::min(heads, group - head)});
        }
      }
    }
  }
}

void attend(Step& step, std::int64_t layer, const AttentionTile& tile, float* scratch) {
  const ModelConfig& c = step.config;
  const std::int64_t hd = c.head_dim;
  const std::int32_t group = c.num_attention_heads / c.num_key_value_heads;
  const SequenceSlice& slice = step.slices[static_cast<std::size_t>(tile.slice)];
  const float* q[kMaxAttentionRows];
  const float* gate[kMaxAttentionRows];
  float* output[kMaxAttentionRows];
  std::int32_t position[kMaxAttentionRows];
  int rows = 0;
  for (std::int32_t token = 0; token < tile.tokens; ++token) {
    const std::int64_t row = step.first_row[static_cast<std::size_t>(tile.slice)] + tile.first_token + token;
    for (std::int32_t i = 0; i < tile.heads; ++i, ++rows) {
      const std::int64_t head = std::int64_t{tile.kv_head} * group + tile.first_head + i;
      q[rows] = step.conv.data() + (row * c.num_attention_heads + head) * hd;
      gate[rows] = step.projection.data() + row * step.projection_width + head * 2 * hd + hd;
      output[rows] = step.mixed.data() + (row * c.num_attention_heads + head) * hd;
      position[rows] = slice.position + tile.first_token + token;
    }
  }
  AttentionTask task{};
  task.kv_dtype = step.layout.kv_dtype;
  task.head_dim = c.head_dim;
  task.pages = step.pools.kv_pages;
  task.page_bytes = static_cast<std::int64_t>(step.layout.kv_page_bytes);
  task.page_offset = layer * static_cast<std::int64_t>(step.layout.kv_layer_bytes) +
                     tile.kv_head * static_cast<std::int64_t>(step.layout.kv_head_bytes);
  task.page_ids = slice.pages.data();
  task.rows = rows;
  task.q = q;
  task.gate = gate;
  task.output = output;
  task.position = position;
  task.scratch = scratch;
  step.kernels.attention(task);
}

}  // namespace

void run_attention(Step& step, const AttentionWeights& weights, std::int32_t attention_layer) {
  const ModelConfig& c = step.config;
  LinearJob in{};
  in.weights = &weights.qkv;
  in.x = step.h.data();
  in.ld_x = c.hidden_size;
  in.y = step.projection.data();
  in.ld_y = step.projection_width;
  in.rows = step.rows;
  step.linear.run(in);

  step.for_rows(step.rows, [&](std::int64_t row, int thread) {
    prepare_row(step, weights, attention_layer, row, step.thread_scratch(thread));
  });
  plan_tiles(step);
  step.model.pool().parallel_for(static_cast<std::int64_t>(step.tiles.size()), [&](std::int64_t task, int thread) {
    attend(step, attention_layer, step.tiles[static_cast<std::size_t>(task)], step.thread_scratch(thread));
  });

  LinearJob out{};
  out.weights = &weights.o_proj;
  out.x = step.mixed.data();
  out.ld_x = std::int64_t{c.num_attention_heads} * c.head_dim;
  out.y = step.x.data();
  out.ld_y = c.hidden_size;
  out.rows = step.rows;
  out.epilogue = Epilogue::kAdd;
  step.linear.run(out);
}

}  // namespace penstock
