// The Gated DeltaNet mixer of one layer (docs/numerics.md section 3).
#include <cmath>
#include <cstring>

#include "base/dtype.h"
#include "model/step.h"

namespace penstock {
namespace {

// Where one slice's state lives in this layer.
struct SliceMemory {
  std::byte* state(std::int32_t slot) const {
    return slot == 0 ? nullptr
                     : step.pools.states + std::int64_t{slot} * static_cast<std::int64_t>(step.layout.state_bytes) +
                           layer * static_cast<std::int64_t>(step.layout.state_layer_bytes);
  }
  std::byte* window() const {
    return step.pools.windows + std::int64_t{slice.window} * static_cast<std::int64_t>(step.layout.window_bytes) +
           layer * static_cast<std::int64_t>(step.layout.window_layer_bytes);
  }
  float* state_conv(std::int32_t slot) const {
    std::byte* base = state(slot);
    return base == nullptr ? nullptr : reinterpret_cast<float*>(base + step.layout.state_conv_offset);
  }
  float* ring(std::int32_t position) const {  // row of the window's ring of convolution inputs
    return reinterpret_cast<float*>(window() + step.layout.window_conv_offset) +
           std::int64_t{position % kConvHistory} * step.config.conv_channels();
  }
  std::int32_t end() const { return slice.position + static_cast<std::int32_t>(slice.tokens.size()); }

  const Step& step;
  const SequenceSlice& slice;
  std::int64_t layer;
};

// sigmoid(b), and −exp(A_log)·softplus(a + dt_bias); softplus is the identity above 20.
void compute_gates(Step& step, const GdnWeights& weights) {
  const std::int64_t hv = step.config.linear_num_value_heads;
  const std::int64_t b_column = step.config.conv_channels() + hv * step.config.linear_value_head_dim;
  step.for_rows(step.rows, [&](std::int64_t row, int) {
    const float* b = step.projection.data() + row * step.projection_width + b_column;
    const float* a = b + hv;
    for (std::int64_t head = 0; head < hv; ++head) {
      const auto i = static_cast<std::size_t>(head);
      step.beta[static_cast<std::size_t>(row * hv + head)] = 1.0F / (1.0F + std::exp(-b[head]));
      const float pre = a[head] + weights.dt_bias[i];
      const float softplus = pre > 20.0F ? pre : std::log1p(std::exp(pre));
      step.g[static_cast<std::size_t>(row * hv + head)] = weights.neg_exp_A_log[i] * softplus;
    }
  });
}

// The three inputs before the slice, for channels from `channel` on; null where the sequence had not begun.
void find_history(const SliceMemory& memory, std::int64_t channel, const float* history[3]) {
  const Step& step = memory.step;
  const std::int32_t position = memory.slice.position;
  const bool from_state = step.layout.backend == GdnBackend::kRecurrent || position % kBlockTokens == 0;
  const float* saved = from_state ? memory.state_conv(memory.slice.state) : nullptr;
  for (std::int32_t i = 0; i < 3; ++i) {
    if (position - 3 + i < 0) {
      history[i] = nullptr;
    } else if (from_state) {
      history[i] = saved == nullptr ? nullptr : saved + std::int64_t{i} * step.config.conv_channels() + channel;
    } else {
      history[i] = memory.ring(position - 3 + i) + channel;
    }
  }
}

// Leaves the inputs that the next tokens, and the next snapshots, will need.
void keep_history(const SliceMemory& memory, const ConvTask& conv, std::int64_t channel) {
  const Step& step = memory.step;
  const std::int32_t begin = memory.slice.position;
  const std::int32_t end = memory.end();
  const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(conv.channels);
  const auto copy = [&](std::int32_t position, float* to) {
    const float* from = position >= begin ? conv.input + (position - begin) * conv.ld_input
                                          : (position < begin - 3 ? nullptr : conv.history[3 + position - begin]);
    if (from == nullptr) {
      std::memset(to, 0, bytes);
    } else if (from != to) {
      std::memmove(to, from, bytes);
    }
  };
  const auto save_rows_before = [&](std::int32_t position, std::int32_t slot) {
    // In place, the rows kept may themselves be history rows of the same slot: oldest first never overtakes.
    for (std::int32_t i = 0; i < 3; ++i) {
      copy(position - 3 + i, memory.state_conv(slot) + std::int64_t{i} * step.config.conv_channels() + channel);
    }
  };
  if (step.layout.backend == GdnBackend::kRecurrent) {
    save_rows_before(end, memory.slice.fold_to[0]);
    return;
  }
  std::size_t fold = 0;
  for (std::int32_t boundary = (begin / kBlockTokens + 1) * kBlockTokens; boundary <= end; boundary += kBlockTokens) {
    save_rows_before(boundary, memory.slice.fold_to[fold++]);
  }
  for (std::int32_t position = std::max(end - kConvHistory, begin - 3); position < end; ++position) {
    if (position >= 0) copy(position, memory.ring(position) + channel);
  }
}

// One head's channels of q, k or v over one slice.
void convolve_head(Step& step, const GdnWeights& weights, std::int64_t layer, std::size_t slice, std::int64_t head) {
  const ModelConfig& c = step.config;
  const std::int64_t hk = c.linear_num_key_heads;
  const SliceMemory memory{step, step.slices[slice], layer};
  const bool is_query = head < hk;
  const bool is_key = !is_query && head < 2 * hk;
  const std::int64_t channel = head < 2 * hk
                                   ? head * c.linear_key_head_dim
                                   : 2 * hk * c.linear_key_head_dim + (head - 2 * hk) * c.linear_value_head_dim;
  const std::int64_t row = step.first_row[slice];
  ConvTask task{};
  task.input = step.projection.data() + row * step.projection_width + channel;
  task.ld_input = step.projection_width;
  find_history(memory, channel, task.history);
  task.weights = weights.conv1d.data() + channel;
  task.ld_weights = c.conv_channels();
  task.output = step.conv.data() + row * c.conv_channels() + channel;
  task.ld_output = c.conv_channels();
  task.tokens = static_cast<int>(memory.slice.tokens.size());
  task.channels = is_query || is_key ? c.linear_key_head_dim : c.linear_value_head_dim;
  task.l2_norm = is_query || is_key;
  task.scale = is_query ? 1.0F / std::sqrt(static_cast<float>(c.linear_key_head_dim)) : 1.0F;
  task.round_bf16 = is_key && step.layout.backend == GdnBackend::kWindow && step.layout.window_row_bytes == 2;
  step.kernels.conv(task);
  keep_history(memory, task, channel);
}

// Keys go into the window column by column, so that k_j·k_t runs over lanes of j.
template <typename Row>
void append_keys(const float* k, std::int64_t ld_k, int rows, int dk, int row0, Row* keys) {
  for (int r = 0; r < rows; ++r) {
    for (int i = 0; i < dk; ++i) {
      const float value = k[r * ld_k + i];
      if constexpr (sizeof(Row) == 4) {
        keys[std::int64_t{i} * kBlockTokens + row0 + r] = value;
      } else {
        keys[std::int64_t{i} * kBlockTokens + row0 + r] = float_to_bf16(value);
      }
    }
  }
}

struct HeadRows {  // pointers of one value head's rows in the step's buffers
  HeadRows(Step& step, std::int64_t row, std::int64_t key_head, std::int64_t value_head) {
    const ModelConfig& c = step.config;
    ld = c.conv_channels();
    const float* base = step.conv.data() + row * ld;
    const std::int64_t keys = std::int64_t{c.linear_num_key_heads} * c.linear_key_head_dim;
    q = base + key_head * c.linear_key_head_dim;
    k = q + keys;
    v = base + 2 * keys + value_head * c.linear_value_head_dim;
    ld_gate = c.linear_num_value_heads;
    g = step.g.data() + row * ld_gate + value_head;
    beta = step.beta.data() + row * ld_gate + value_head;
    ld_output = std::int64_t{c.linear_num_value_heads} * c.linear_value_head_dim;
    output = step.mixed.data() + row * ld_output + value_head * c.linear_value_head_dim;
    z = step.projection.data() + row * step.projection_width + c.conv_channels() + value_head * c.linear_value_head_dim;
  }
  void describe(const Step& step, int rows, float* scratch, GdnRows& task) const {
    task.state_dtype = step.layout.state_dtype;
    task.dk = step.config.linear_key_head_dim;
    task.dv = step.config.linear_value_head_dim;
    task.rows = rows;
    task.q = q;
    task.k = k;
    task.v = v;
    task.ld_q = task.ld_k = task.ld_v = ld;
    task.g = g;
    task.beta = beta;
    task.ld_gate = ld_gate;
    task.output = output;
    task.ld_output = ld_output;
    task.scratch = scratch;
  }
  const float *q, *k, *v, *g, *beta, *z;
  float* output;
  std::int64_t ld, ld_gate, ld_output;
};

// All value heads of one key head over one slice, block by block.
void window_heads(Step& step, std::int64_t layer, std::size_t index, std::int64_t key_head, float* scratch) {
  const ModelConfig& c = step.config;
  const CacheLayout& layout = step.layout;
  const SliceMemory memory{step, step.slices[index], layer};
  const int ratio = c.linear_num_value_heads / c.linear_num_key_heads;
  const std::int64_t key_bytes =
      std::int64_t{c.linear_key_head_dim} * kBlockTokens * static_cast<int>(layout.window_row_bytes);
  const std::int64_t d_bytes =
      std::int64_t{c.linear_value_head_dim} * kBlockTokens * static_cast<int>(layout.window_row_bytes);
  std::byte* window = memory.window();
  std::byte* keys = window + key_head * key_bytes;
  std::int32_t base_slot = memory.slice.state;
  std::size_t fold = 0;
  for (std::int32_t position = memory.slice.position; position < memory.end();) {
    const int row0 = position % kBlockTokens;
    const int rows = std::min<int>(kBlockTokens - row0, memory.end() - position);
    const std::int64_t row = step.first_row[index] + (position - memory.slice.position);
    const std::int32_t fold_slot = row0 + rows == kBlockTokens ? memory.slice.fold_to[fold++] : 0;
    for (int i = 0; i < ratio; ++i) {
      const std::int64_t head = key_head * ratio + i;
      const HeadRows at(step, row, key_head, head);
      if (i == 0) {
        if (layout.window_row_bytes == 4) {
          append_keys(at.k, at.ld, rows, c.linear_key_head_dim, row0, reinterpret_cast<float*>(keys));
        } else {
          append_keys(at.k, at.ld, rows, c.linear_key_head_dim, row0, reinterpret_cast<bf16_t*>(keys));
        }
      }
      const auto of_head = [&](std::int32_t slot) {
        std::byte* base = memory.state(slot);
        return base == nullptr ? nullptr : base + head * static_cast<std::int64_t>(layout.state_head_bytes);
      };
      GdnWindowTask task{};
      at.describe(step, rows, scratch, task);
      task.state = of_head(base_slot);
      task.keys = keys;
      task.d = window + layout.window_d_offset + head * d_bytes;
      task.gate_sum = reinterpret_cast<float*>(window + layout.window_g_offset) + head * kBlockTokens;
      task.fold_to = of_head(fold_slot);
      task.row0 = row0;
      task.same_keys = i > 0;
      step.kernels.gdn_window(task);
    }
    if (fold_slot != 0) base_slot = fold_slot;
    position += rows;
  }
}

void recurrent_head(Step& step, std::int64_t layer, std::size_t index, std::int64_t head, float* scratch) {
  const ModelConfig& c = step.config;
  const SliceMemory memory{step, step.slices[index], layer};
  const std::int64_t offset = head * static_cast<std::int64_t>(step.layout.state_head_bytes);
  const HeadRows at(step, step.first_row[index], head / (c.linear_num_value_heads / c.linear_num_key_heads), head);
  GdnRecurrentTask task{};
  at.describe(step, static_cast<int>(memory.slice.tokens.size()), scratch, task);
  const std::byte* state = memory.state(memory.slice.state);
  task.state = state == nullptr ? nullptr : state + offset;
  task.state_out = memory.state(memory.slice.fold_to[0]) + offset;
  step.kernels.gdn_recurrent(task);
}

void norm_and_gate(Step& step, const GdnWeights& weights, std::size_t index, std::int64_t head) {
  const ModelConfig& c = step.config;
  const HeadRows at(step, step.first_row[index], 0, head);
  GatedNormTask task{};
  task.x = at.output;
  task.ld_x = at.ld_output;
  task.z = at.z;
  task.ld_z = step.projection_width;
  task.weight = weights.norm.data();
  task.rows = static_cast<int>(step.slices[index].tokens.size());
  task.n = c.linear_value_head_dim;
  task.eps = c.rms_norm_eps;
  task.sigmoid_gate = c.gdn_gate == GateActivation::kSigmoid;
  step.kernels.gated_norm(task);
}

}  // namespace

void run_gdn(Step& step, const GdnWeights& weights, std::int32_t gdn_layer) {
  const ModelConfig& c = step.config;
  LinearJob in{};
  in.weights = &weights.in_proj;
  in.x = step.h.data();
  in.ld_x = c.hidden_size;
  in.y = step.projection.data();
  in.ld_y = step.projection_width;
  in.rows = step.rows;
  step.linear.run(in);

  compute_gates(step, weights);
  const auto slices = static_cast<std::int64_t>(step.slices.size());
  const std::int64_t heads = 2 * std::int64_t{c.linear_num_key_heads} + c.linear_num_value_heads;
  ThreadPool& pool = step.model.pool();
  pool.parallel_for(slices * heads, [&](std::int64_t task, int) {
    convolve_head(step, weights, gdn_layer, static_cast<std::size_t>(task / heads), task % heads);
  });

  const bool window = step.layout.backend == GdnBackend::kWindow;
  const std::int64_t ratio = c.linear_num_value_heads / c.linear_num_key_heads;
  const std::int64_t tasks_per_slice = window ? c.linear_num_key_heads : c.linear_num_value_heads;
  pool.parallel_for(slices * tasks_per_slice, [&](std::int64_t task, int thread) {
    const auto slice = static_cast<std::size_t>(task / tasks_per_slice);
    const std::int64_t head = task % tasks_per_slice;
    if (window) {
      window_heads(step, gdn_layer, slice, head, step.thread_scratch(thread));
      for (std::int64_t i = 0; i < ratio; ++i) norm_and_gate(step, weights, slice, head * ratio + i);
    } else {
      recurrent_head(step, gdn_layer, slice, head, step.thread_scratch(thread));
      norm_and_gate(step, weights, slice, head);
    }
  });

  LinearJob out{};
  out.weights = &weights.out_proj;
  out.x = step.mixed.data();
  out.ld_x = std::int64_t{c.linear_num_value_heads} * c.linear_value_head_dim;
  out.y = step.x.data();
  out.ld_y = c.hidden_size;
  out.rows = step.rows;
  out.epilogue = Epilogue::kAdd;
  step.linear.run(out);
}

}  // namespace penstock
