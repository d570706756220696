// Gated DeltaNet of one value head, window form and recurrent form. numerics.md section 3; symbols as there.
#pragma once

namespace penstock {
namespace {

// ---- states in their stored formats -------------------------------------------------------------------------------

inline const float* int8_scales(const std::byte* state, int dk, int dv) {
  return reinterpret_cast<const float*>(state + std::int64_t{dk} * dv);
}

// S [dk][dv] fp32 from the stored state.
void load_state(StateDType dtype, const std::byte* state, int dk, int dv, float* s) {
  using S = Simd;
  const std::int64_t n = std::int64_t{dk} * dv;
  if (dtype == StateDType::kF32) {
    std::memcpy(s, state, static_cast<std::size_t>(n) * 4);
  } else if (dtype == StateDType::kBF16) {
    const auto* from = reinterpret_cast<const std::uint16_t*>(state);
    for (std::int64_t i = 0; i < n; i += S::kLanes) S::store(s + i, S::load(from + i));
  } else {
    const auto* from = reinterpret_cast<const std::int8_t*>(state);
    const float* scale = int8_scales(state, dk, dv);
    for (std::int64_t i = 0; i < dk; ++i) {
      for (int c = 0; c < dv; c += S::kLanes) {
        S::store(s + i * dv + c, S::mul(S::load(from + i * dv + c), S::load(scale + c)));
      }
    }
  }
}

// int8: one scale per v row of Sᵀ (column of S), the largest magnitude at 127.
void store_state(StateDType dtype, const float* s, int dk, int dv, std::byte* state) {
  using S = Simd;
  const std::int64_t n = std::int64_t{dk} * dv;
  if (dtype == StateDType::kF32) {
    std::memcpy(state, s, static_cast<std::size_t>(n) * 4);
  } else if (dtype == StateDType::kBF16) {
    auto* to = reinterpret_cast<std::uint16_t*>(state);
    for (std::int64_t i = 0; i < n; i += S::kLanes) S::store(to + i, S::load(s + i));
  } else {
    auto* to = reinterpret_cast<std::int8_t*>(state);
    float* scale = const_cast<float*>(int8_scales(state, dk, dv));
    for (int c = 0; c < dv; c += S::kLanes) {
      S::V largest = S::zero();
      for (int i = 0; i < dk; ++i) largest = S::max(largest, S::abs(S::load(s + std::int64_t{i} * dv + c)));
      S::store(scale + c, S::div(largest, S::set1(127.0F)));
      const S::V inverse = S::less_or_zero(largest, S::set1(1e-30F), S::div(S::set1(127.0F), largest));
      for (int i = 0; i < dk; ++i) {
        S::store(to + std::int64_t{i} * dv + c, S::mul(S::load(s + std::int64_t{i} * dv + c), inverse));
      }
    }
  }
}

// ---- window form --------------------------------------------------------------------------------------------------

// w_j = e^{G_t − G_j}·a_j for j < n, never as a quotient of exponentials (numerics.md 3).
inline void decay_weights(const float* a, const float* gate_sum, float g_t, float sign, int n, float* w) {
  using S = Simd;
  const S::V top = S::set1(g_t);
  const S::V s = S::set1(sign);
  for (int j = 0; j < n; j += S::kLanes) {  // reads up to a vector past n: buffers hold 64
    const S::V e = exp_lanes(S::sub(top, S::load(gate_sum + j)));
    S::store(w + j, S::mul(S::mul(s, e), S::load(a + j)));
  }
}

template <typename Row>
void window_fold(const GdnWindowTask& t, float* s, float* coefficients) {
  using S = Simd;
  const auto* keys = reinterpret_cast<const Row*>(t.keys);
  const auto* d = reinterpret_cast<const Row*>(t.d);
  const float last = t.gate_sum[63];
  if (t.state != nullptr) {
    load_state(t.state_dtype, t.state, t.dk, t.dv, s);
    const S::V decay = S::set1(std::exp(last));
    const std::int64_t n = std::int64_t{t.dk} * t.dv;
    for (std::int64_t i = 0; i < n; i += S::kLanes) S::store(s + i, S::mul(decay, S::load(s + i)));
  } else {
    std::memset(s, 0, sizeof(float) * static_cast<std::size_t>(t.dk) * static_cast<std::size_t>(t.dv));
  }
  alignas(64) float weight[64];
  alignas(64) float ones[64];
  for (float& x : ones) x = 1.0F;
  decay_weights(ones, t.gate_sum, last, 1.0F, 64, weight);
  const float* x[512];
  float* out[512];
  for (int i = 0; i < t.dk; ++i) {
    float* row = coefficients + std::int64_t{i} * 64;
    for (int j = 0; j < 64; j += S::kLanes) {
      S::store(row + j, S::mul(S::load(weight + j), S::load(keys + std::int64_t{i} * 64 + j)));
    }
    x[i] = row;
    out[i] = s + std::int64_t{i} * t.dv;
  }
  gemm<true>(x, d, t.dv, 64, out, t.dk, t.dv);
  store_state(t.state_dtype, s, t.dk, t.dv, t.fold_to);
}

template <typename Row>
void window_rows(const GdnWindowTask& t) {
  using S = Simd;
  auto* d = reinterpret_cast<Row*>(t.d);
  const auto* keys = reinterpret_cast<const Row*>(t.keys);
  float* p = t.scratch;                                 // [rows][2][dv]: P_t, Q_t
  float* a = p + std::int64_t{2} * 64 * t.dv;           // [rows][2][64]: k_j·k_t, k_j·q_t
  float* s = a + std::int64_t{2} * 64 * 64;             // [dk][dv]
  float* coefficients = s + std::int64_t{t.dk} * t.dv;  // [dk][64]
  float* w = coefficients + std::int64_t{t.dk} * 64;    // [64]
  float* delta = w + 128;                               // [dv]

  const float* x[128];
  float* to_state[128];
  float* to_window[128];
  for (int r = 0; r < t.rows; ++r) {
    x[2 * r] = t.k + r * t.ld_k;
    x[2 * r + 1] = t.q + r * t.ld_q;
    for (int i = 0; i < 2; ++i) {
      to_state[2 * r + i] = p + std::int64_t{2 * r + i} * t.dv;
      to_window[2 * r + i] = a + std::int64_t{2 * r + i} * 64;
    }
  }
  if (t.state == nullptr) {
    std::memset(p, 0, sizeof(float) * 2 * static_cast<std::size_t>(t.rows) * static_cast<std::size_t>(t.dv));
  } else if (t.state_dtype == StateDType::kF32) {
    gemm<false>(x, reinterpret_cast<const float*>(t.state), t.dv, t.dk, to_state, 2 * t.rows, t.dv);
  } else if (t.state_dtype == StateDType::kBF16) {
    gemm<false>(x, reinterpret_cast<const std::uint16_t*>(t.state), t.dv, t.dk, to_state, 2 * t.rows, t.dv);
  } else {
    gemm<false>(x, reinterpret_cast<const std::int8_t*>(t.state), t.dv, t.dk, to_state, 2 * t.rows, t.dv);
    const float* scale = int8_scales(t.state, t.dk, t.dv);
    for (int r = 0; r < 2 * t.rows; ++r) {
      for (int c = 0; c < t.dv; c += S::kLanes) {
        S::store(to_state[r] + c, S::mul(S::load(to_state[r] + c), S::load(scale + c)));
      }
    }
  }
  const int end = t.row0 + t.rows;
  if (!t.same_keys) gemm<false>(x, keys, 64, t.dk, to_window, 2 * t.rows, (end + 15) / 16 * 16);

  for (int r = 0; r < t.rows; ++r) {
    const int row = t.row0 + r;
    const float g = t.g[r * t.ld_gate] + (row > 0 ? t.gate_sum[row - 1] : 0.0F);
    t.gate_sum[row] = g;
    const float decay = std::exp(g);
    const float* v = t.v + r * t.ld_v;
    const S::V minus_decay = S::set1(-decay);
    for (int c = 0; c < t.dv; c += S::kLanes) {
      S::store(delta + c, S::fma(minus_decay, S::load(to_state[2 * r] + c), S::load(v + c)));
    }
    decay_weights(to_window[2 * r], t.gate_sum, g, -1.0F, row, w);
    gemv<true>(w, d, t.dv, row, delta, t.dv);
    const S::V beta = S::set1(t.beta[r * t.ld_gate]);
    Row* d_row = d + std::int64_t{row} * t.dv;
    for (int c = 0; c < t.dv; c += S::kLanes) S::store(d_row + c, S::mul(beta, S::load(delta + c)));

    float* o = t.output + r * t.ld_output;
    const S::V plus_decay = S::set1(decay);
    for (int c = 0; c < t.dv; c += S::kLanes) S::store(o + c, S::mul(plus_decay, S::load(to_state[2 * r + 1] + c)));
    decay_weights(to_window[2 * r + 1], t.gate_sum, g, 1.0F, row + 1, w);
    gemv<true>(w, d, t.dv, row + 1, o, t.dv);
  }
  if (t.fold_to != nullptr) window_fold<Row>(t, s, coefficients);
}

void gdn_window(const GdnWindowTask& t) {
  if (t.state_dtype == StateDType::kF32) {
    window_rows<float>(t);
  } else {
    window_rows<std::uint16_t>(t);
  }
}

// ---- recurrent form -----------------------------------------------------------------------------------------------

// S = e^g S; d = beta (v − Sᵀk); S += k dᵀ; o = Sᵀq.
inline void recurrent_row(const GdnRecurrentTask& t, int r, float* s, float* delta) {
  using S = Simd;
  const float* k = t.k + r * t.ld_k;
  const float* q = t.q + r * t.ld_q;
  const float* v = t.v + r * t.ld_v;
  float* o = t.output + r * t.ld_output;
  const S::V decay = S::set1(std::exp(t.g[r * t.ld_gate]));
  const S::V beta = S::set1(t.beta[r * t.ld_gate]);
  gemv<false>(k, s, t.dv, t.dk, delta, t.dv);
  for (int c = 0; c < t.dv; c += S::kLanes) {
    const S::V memory = S::mul(decay, S::load(delta + c));
    const S::V d = S::mul(beta, S::sub(S::load(v + c), memory));
    S::V out = S::zero();
    for (int i = 0; i < t.dk; ++i) {
      float* cell = s + std::int64_t{i} * t.dv + c;
      const S::V next = S::fma(S::set1(k[i]), d, S::mul(decay, S::load(cell)));
      S::store(cell, next);
      out = S::fma(S::set1(q[i]), next, out);
    }
    S::store(o + c, out);
  }
}

void gdn_recurrent(const GdnRecurrentTask& t) {
  float* s = t.scratch + std::int64_t{2} * 64 * t.dv + std::int64_t{2} * 64 * 64;
  float* delta = t.scratch;
  const bool in_place = t.state_dtype == StateDType::kF32;
  const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(t.dk) * static_cast<std::size_t>(t.dv);
  if (in_place) {
    s = reinterpret_cast<float*>(t.state_out);
    if (t.state == nullptr) {
      std::memset(s, 0, bytes);
    } else if (t.state != t.state_out) {
      std::memcpy(s, t.state, bytes);
    }
  } else if (t.state == nullptr) {
    std::memset(s, 0, bytes);
  } else {
    load_state(t.state_dtype, t.state, t.dk, t.dv, s);
  }
  for (int r = 0; r < t.rows; ++r) {
    recurrent_row(t, r, s, delta);
    if (!in_place) {  // the state passes through its stored format at every token
      store_state(t.state_dtype, s, t.dk, t.dv, t.state_out);
      if (r + 1 < t.rows) load_state(t.state_dtype, t.state_out, t.dk, t.dv, s);
    }
  }
}

}  // namespace
}  // namespace penstock
