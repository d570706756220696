// Paged causal attention of up to kMaxAttentionRows query rows against one kv head.
#pragma once

namespace penstock {
namespace {

struct SoftmaxRow {
  float maximum, sum, alpha;
};

// p = e^{s − m} over the first `valid` of 64 scores, zero beyond; updates m, the sum and the factor of what came
// before.
inline void softmax_block(float* s, int valid, SoftmaxRow& row) {
  using S = Simd;
  for (int j = valid; j < 64; ++j) s[j] = -INFINITY;
  S::V top = S::load(s);
  for (int j = S::kLanes; j < 64; j += S::kLanes) top = S::max(top, S::load(s + j));
  const float maximum = std::fmax(row.maximum, S::reduce_max(top));
  row.alpha = row.maximum == -INFINITY ? 0.0F : std::exp(row.maximum - maximum);
  const S::V m = S::set1(maximum);
  S::V sum = S::zero();
  for (int j = 0; j < 64; j += S::kLanes) {
    const S::V p = exp_lanes(S::sub(S::load(s + j), m));
    S::store(s + j, p);
    sum = S::add(sum, p);
  }
  row.sum = row.sum * row.alpha + S::reduce_add(sum);
  row.maximum = maximum;
}

template <typename Kv>
void attention_rows(const AttentionTask& t) {
  using S = Simd;
  const int hd = t.head_dim;
  float* scores = t.scratch;                                 // [rows][64]
  float* o = scores + std::int64_t{kMaxAttentionRows} * 64;  // [rows][head_dim]
  SoftmaxRow state[kMaxAttentionRows];
  float* score_rows[kMaxAttentionRows];
  float* o_rows[kMaxAttentionRows];
  for (int r = 0; r < t.rows; ++r) {
    state[r] = {-INFINITY, 0.0F, 0.0F};
    score_rows[r] = scores + std::int64_t{r} * 64;
    o_rows[r] = o + std::int64_t{r} * hd;
    std::memset(o_rows[r], 0, sizeof(float) * static_cast<std::size_t>(hd));
  }
  const int last_block = t.position[t.rows - 1] / kBlockTokens;
  int first = 0;  // rows before it have seen all their keys
  for (int block = 0; block <= last_block; ++block) {
    while (t.position[first] < block * kBlockTokens) ++first;
    const int rows = t.rows - first;
    const auto* keys = reinterpret_cast<const Kv*>(t.pages + t.page_ids[block] * t.page_bytes + t.page_offset);
    const Kv* values = keys + std::int64_t{hd} * kBlockTokens;
    gemm<false>(t.q + first, keys, kBlockTokens, hd, score_rows + first, rows, kBlockTokens);
    for (int r = first; r < t.rows; ++r) {
      const int valid = t.position[r] - block * kBlockTokens + 1;
      softmax_block(score_rows[r], valid < 64 ? valid : 64, state[r]);
      const S::V alpha = S::set1(state[r].alpha);
      for (int c = 0; c < hd; c += S::kLanes) S::store(o_rows[r] + c, S::mul(S::load(o_rows[r] + c), alpha));
    }
    int r = first;
    for (; r < t.rows && t.position[r] < (block + 1) * kBlockTokens - 1; ++r) {  // the diagonal: each its own length
      gemv<true>(score_rows[r], values, hd, t.position[r] - block * kBlockTokens + 1, o_rows[r], hd);
    }
    gemm<true>(score_rows + r, values, hd, kBlockTokens, o_rows + r, t.rows - r, hd);
  }
  for (int r = 0; r < t.rows; ++r) {
    const S::V inverse = S::set1(1.0F / state[r].sum);
    for (int c = 0; c < hd; c += S::kLanes) {
      const S::V gate = sigmoid_lanes(S::load(t.gate[r] + c));
      S::store(t.output[r] + c, S::mul(S::mul(S::load(o_rows[r] + c), inverse), gate));
    }
  }
}

void attention(const AttentionTask& t) {
  if (t.kv_dtype == KvDType::kF32) {
    attention_rows<float>(t);
  } else {
    attention_rows<std::uint16_t>(t);
  }
}

}  // namespace
}  // namespace penstock
