// Norms, activations, rotary embedding and the short convolution. Row lengths are multiples of 16 but for the plain
// vector operations, which finish with single elements.
#pragma once

namespace penstock {
namespace {

void rms_norm(const float* x, const float* weight, float* y, int n, float eps) {
  using S = Simd;
  const int whole = n - n % 16;
  float sum = sum_of_squares(x, whole);
  for (int i = whole; i < n; ++i) sum += x[i] * x[i];
  const float scale = 1.0F / std::sqrt(sum / static_cast<float>(n) + eps);
  const S::V s = S::set1(scale);
  int i = 0;
  for (; i < whole; i += S::kLanes) S::store(y + i, S::mul(S::mul(S::load(x + i), s), S::load(weight + i)));
  for (; i < n; ++i) y[i] = x[i] * scale * weight[i];
}

void add(float* y, const float* x, int n) {
  using S = Simd;
  int i = 0;
  for (; i + S::kLanes <= n; i += S::kLanes) S::store(y + i, S::add(S::load(y + i), S::load(x + i)));
  for (; i < n; ++i) y[i] += x[i];
}

void add_scaled(float* y, const float* x, float a, int n) {
  for (int i = 0; i < n; ++i) y[i] = y[i] + a * x[i];  // not fused: the same in vector and tail
}

void silu_mul_tile(const float* tile, int rows, std::int64_t ld_tile, float* y, std::int64_t ld_y, int columns) {
  using S = Simd;
  alignas(64) float result[16];
  for (int r = 0; r < rows; ++r) {
    const float* gate = tile + r * ld_tile;
    for (int i = 0; i < 16; i += S::kLanes) {
      S::store(result + i, S::mul(silu_lanes(S::load(gate + i)), S::load(gate + 16 + i)));
    }
    for (int i = 0; i < columns; ++i) y[r * ld_y + i] = result[i];
  }
}

void gated_norm(const GatedNormTask& t) {
  using S = Simd;
  for (int r = 0; r < t.rows; ++r) {
    float* x = t.x + r * t.ld_x;
    const float* z = t.z + r * t.ld_z;
    const float scale = 1.0F / std::sqrt(sum_of_squares(x, t.n) / static_cast<float>(t.n) + t.eps);
    const S::V s = S::set1(scale);
    for (int i = 0; i < t.n; i += S::kLanes) {
      const S::V gate = S::load(z + i);
      const S::V normed = S::mul(S::mul(S::load(x + i), s), S::load(t.weight + i));
      S::store(x + i, S::mul(normed, t.sigmoid_gate ? sigmoid_lanes(gate) : silu_lanes(gate)));
    }
  }
}

void head_norm(const HeadNormTask& t) {
  const float norm = 1.0F / std::sqrt(sum_of_squares(t.x, t.head_dim) / static_cast<float>(t.head_dim) + t.eps);
  const int half = t.rotary_dim / 2;
  for (int i = 0; i < half; ++i) {
    const float a = t.x[i] * norm * t.weight[i];
    const float b = t.x[half + i] * norm * t.weight[half + i];
    t.y[i] = (a * t.cosine[i] - b * t.sine[i]) * t.scale;
    t.y[half + i] = (b * t.cosine[i] + a * t.sine[i]) * t.scale;
  }
  for (int i = t.rotary_dim; i < t.head_dim; ++i) t.y[i] = t.x[i] * norm * t.weight[i] * t.scale;
}

inline const float* conv_input(const ConvTask& t, int row) {
  return row >= 0 ? t.input + row * t.ld_input : t.history[3 + row];
}

void conv(const ConvTask& t) {
  using S = Simd;
  for (int r = 0; r < t.tokens; ++r) {
    const float* u[4] = {conv_input(t, r - 3), conv_input(t, r - 2), conv_input(t, r - 1), conv_input(t, r)};
    float* y = t.output + r * t.ld_output;
    for (int c = 0; c < t.channels; c += S::kLanes) {
      S::V acc = S::zero();
      for (int j = 0; j < 4; ++j) {
        if (u[j] != nullptr) acc = S::fma(S::load(t.weights + j * t.ld_weights + c), S::load(u[j] + c), acc);
      }
      S::store(y + c, silu_lanes(acc));
    }
    if (t.l2_norm) {
      const S::V s = S::set1(t.scale / std::sqrt(sum_of_squares(y, t.channels) + 1e-6F));
      for (int c = 0; c < t.channels; c += S::kLanes) S::store(y + c, S::mul(S::load(y + c), s));
    }
    if (t.round_bf16) {
      std::uint16_t rounded[16];
      for (int c = 0; c < t.channels; c += S::kLanes) {
        S::store(rounded, S::load(y + c));
        S::store(y + c, S::load(rounded));
      }
    }
  }
}

void round_bf16(const float* x, std::uint16_t* y, std::int64_t n) {
  using S = Simd;
  std::int64_t i = 0;
  for (; i + S::kLanes <= n; i += S::kLanes) S::store(y + i, S::load(x + i));
  for (; i < n; ++i) y[i] = float_to_bf16(x[i]);
}

}  // namespace
}  // namespace penstock
