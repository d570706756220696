// Every kernel of every instruction set this machine has against the formula in double precision.
#include "ops/kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "base/dtype.h"
#include "ops/linear.h"

namespace penstock {
namespace {

std::vector<const KernelTable*> tables() {
  const CpuFeatures cpu = detect_cpu();
  std::vector<const KernelTable*> result = {&reference_kernels()};
  if (cpu.avx2) result.push_back(&avx2_kernels());
  if (cpu.avx512) result.push_back(&avx512_kernels());
  if (cpu.avx512_bf16) result.push_back(&avx512_bf16_kernels());
  return result;
}

LinearInput input_of(const KernelTable& table) {
  return std::string(table.name) == "avx512_bf16" ? LinearInput::kBF16 : LinearInput::kF32;
}

std::vector<float> normal(std::size_t n, unsigned seed, float scale = 1.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution(0, scale);
  std::vector<float> values(n);
  for (float& v : values) v = distribution(random);
  return values;
}

MatrixView view_of(const std::vector<float>& w, std::int64_t rows, std::int64_t cols) {
  return {DType::kF32, rows, cols, {{reinterpret_cast<const std::byte*>(w.data()), rows}}};
}

struct Bf16Matrix {
  explicit Bf16Matrix(const std::vector<float>& w) {
    for (const float x : w) {
      bits.push_back(float_to_bf16(x));
      values.push_back(bf16_to_float(bits.back()));
    }
  }
  MatrixView view(std::int64_t rows, std::int64_t cols) const {
    return {DType::kBF16, rows, cols, {{reinterpret_cast<const std::byte*>(bits.data()), rows}}};
  }
  std::vector<bf16_t> bits;
  std::vector<float> values;
};

TEST(Linear, AgreesWithDoublePrecisionAndDoesNotDependOnTheBatch) {
  constexpr std::int64_t kN = 77;
  constexpr std::int64_t kK = 130;
  constexpr int kRows = 29;
  const Bf16Matrix bf16(normal(kN * kK, 1));
  const std::vector<float> x = normal(kRows * kK, 2);
  ThreadPool pool(2);
  for (const KernelTable* table : tables()) {
    for (const bool f32 : {false, true}) {
      const std::vector<float>& w = bf16.values;
      const MatrixView view = f32 ? view_of(w, kN, kK) : bf16.view(kN, kK);
      const MatrixView* parts[] = {&view};
      const PackedMatrix packed = pack_rows(parts, pool);
      EXPECT_EQ(packed.format, f32 ? WeightFormat::kF32 : WeightFormat::kBF16);
      LinearRunner runner(*table, input_of(*table), pool, kRows * kK);
      std::vector<float> y(kRows * kN, -1.0F);
      LinearJob job;
      job.weights = &packed;
      job.x = x.data();
      job.ld_x = kK;
      job.y = y.data();
      job.ld_y = kN;
      job.rows = kRows;
      runner.run(job);
      const bool rounded = !f32 && input_of(*table) == LinearInput::kBF16;
      const double tolerance = rounded ? 0.2 : 3e-4;
      for (int r = 0; r < kRows; ++r) {
        for (std::int64_t n = 0; n < kN; ++n) {
          double want = 0;
          for (std::int64_t k = 0; k < kK; ++k) {
            want +=
                static_cast<double>(x[static_cast<std::size_t>(r * kK + k)]) * w[static_cast<std::size_t>(n * kK + k)];
          }
          ASSERT_NEAR(y[static_cast<std::size_t>(r * kN + n)], want, tolerance)
              << table->name << " row " << r << " column " << n;
        }
      }
      for (const int batch : {1, 2, 3, 4, 5, 7, 13}) {  // level A: every tile shape gives the same bits
        std::vector<float> again(kRows * kN);
        for (int r = 0; r < kRows; r += batch) {
          LinearJob part = job;
          part.x = x.data() + r * kK;
          part.y = again.data() + r * kN;
          part.rows = std::min(batch, kRows - r);
          runner.run(part);
        }
        ASSERT_EQ(std::memcmp(again.data(), y.data(), y.size() * 4), 0) << table->name << " batch " << batch;
      }
    }
  }
}

TEST(Linear, InterleavedGateAndUpWithGatheredRows) {
  constexpr std::int64_t kI = 40;  // not a multiple of 16
  constexpr std::int64_t kK = 64;
  const Bf16Matrix gate(normal(kI * kK, 3, 0.2F));
  const Bf16Matrix up(normal(kI * kK, 4, 0.2F));
  const std::vector<float> x = normal(5 * kK, 5);
  const std::int32_t gather[] = {4, 0, 4};
  ThreadPool pool(1);
  const PackedMatrix packed = pack_interleaved16(gate.view(kI, kK), up.view(kI, kK), pool);
  for (const KernelTable* table : tables()) {
    LinearRunner runner(*table, input_of(*table), pool, 5 * kK);
    std::vector<float> y(3 * kI);
    LinearJob job;
    job.weights = &packed;
    job.x = x.data();
    job.ld_x = kK;
    job.gather = gather;
    job.y = y.data();
    job.ld_y = kI;
    job.rows = 3;
    job.epilogue = Epilogue::kSiluMul;
    job.columns = kI;
    runner.run(job);
    for (std::size_t r = 0; r < 3; ++r) {
      for (std::size_t n = 0; n < kI; ++n) {
        double g = 0;
        double u = 0;
        for (std::size_t k = 0; k < kK; ++k) {
          const double value = x[static_cast<std::size_t>(gather[r]) * kK + k];
          g += value * gate.values[n * kK + k];
          u += value * up.values[n * kK + k];
        }
        EXPECT_NEAR(y[r * kI + n], g / (1 + std::exp(-g)) * u, input_of(*table) == LinearInput::kBF16 ? 0.1 : 1e-4)
            << table->name;
      }
    }
  }
}

TEST(Conv, SiluOfFourTapsAndL2Norm) {
  constexpr int kChannels = 32;
  constexpr int kTokens = 5;
  const auto input = normal(kTokens * kChannels, 6);
  const auto history = normal(2 * kChannels, 7);
  const auto weights = normal(4 * kChannels, 8);
  for (const KernelTable* table : tables()) {
    for (const bool norm : {false, true}) {
      std::vector<float> y(kTokens * kChannels);
      ConvTask task{};
      task.input = input.data();
      task.ld_input = kChannels;
      task.history[1] = history.data();  // the sequence began two tokens ago
      task.history[2] = history.data() + kChannels;
      task.weights = weights.data();
      task.ld_weights = kChannels;
      task.output = y.data();
      task.ld_output = kChannels;
      task.tokens = kTokens;
      task.channels = kChannels;
      task.l2_norm = norm;
      task.scale = 0.25F;
      table->conv(task);
      for (int t = 0; t < kTokens; ++t) {
        std::vector<double> want(kChannels);
        double sum = 0;
        for (int c = 0; c < kChannels; ++c) {
          double acc = 0;
          for (int j = 0; j < 4; ++j) {
            const int from = t - 3 + j;
            const double u = from >= 0    ? input[static_cast<std::size_t>(from * kChannels + c)]
                             : from >= -2 ? history[static_cast<std::size_t>((from + 2) * kChannels + c)]
                                          : 0.0;
            acc += u * weights[static_cast<std::size_t>(j * kChannels + c)];
          }
          want[static_cast<std::size_t>(c)] = acc / (1 + std::exp(-acc));
          sum += want[static_cast<std::size_t>(c)] * want[static_cast<std::size_t>(c)];
        }
        for (int c = 0; c < kChannels; ++c) {
          const double scale = norm ? 0.25 / std::sqrt(sum + 1e-6) : 1.0;
          EXPECT_NEAR(y[static_cast<std::size_t>(t * kChannels + c)], want[static_cast<std::size_t>(c)] * scale, 3e-6)
              << table->name;
        }
      }
    }
  }
}

// ---- GDN ------------------------------------------------------------------------------------------------------------

struct GdnData {
  static constexpr int kDk = 32, kDv = 48, kRows = 150;
  GdnData() : q(normal(kRows * kDk, 20)), k(normal(kRows * kDk, 21)), v(normal(kRows * kDv, 22)) {
    std::mt19937 random(23);
    for (int r = 0; r < kRows; ++r) {
      normalise(q, r, 1.0 / std::sqrt(kDk));
      normalise(k, r, 1.0);
      g.push_back(-std::ldexp(1.0F, -static_cast<int>(random() % 8)));
      beta.push_back(0.1F + static_cast<float>(random() % 90) / 100.0F);
    }
  }
  static void normalise(std::vector<float>& x, int row, double scale) {
    double sum = 1e-6;
    for (int i = 0; i < kDk; ++i)
      sum +=
          static_cast<double>(x[static_cast<std::size_t>(row * kDk + i)]) * x[static_cast<std::size_t>(row * kDk + i)];
    for (int i = 0; i < kDk; ++i)
      x[static_cast<std::size_t>(row * kDk + i)] *= static_cast<float>(scale / std::sqrt(sum));
  }
  // The recurrence as the paper writes it, in double precision.
  std::vector<double> outputs() const {
    std::vector<double> s(kDk * kDv, 0.0);
    std::vector<double> out;
    for (std::size_t t = 0; t < kRows; ++t) {
      for (double& x : s) x *= std::exp(static_cast<double>(g[t]));
      std::vector<double> d(kDv);
      for (std::size_t c = 0; c < kDv; ++c) {
        double memory = 0;
        for (std::size_t i = 0; i < kDk; ++i) memory += s[i * kDv + c] * k[t * kDk + i];
        d[c] = beta[t] * (v[t * kDv + c] - memory);
      }
      for (std::size_t c = 0; c < kDv; ++c) {
        double o = 0;
        for (std::size_t i = 0; i < kDk; ++i) {
          s[i * kDv + c] += k[t * kDk + i] * d[c];
          o += s[i * kDv + c] * q[t * kDk + i];
        }
        out.push_back(o);
      }
    }
    return out;
  }
  std::vector<float> q, k, v, g, beta;
};

std::size_t state_bytes(StateDType dtype) {
  const std::size_t n = GdnData::kDk * GdnData::kDv;
  return dtype == StateDType::kF32 ? n * 4 : dtype == StateDType::kBF16 ? n * 2 : n + GdnData::kDv * 4;
}

// Rows [row, row + rows) of the data as both forms take them; `k` are its keys, or those rounded.
void describe(const GdnData& data, const std::vector<float>& k, StateDType dtype, int row, int rows,
              std::vector<float>& out, std::vector<float>& scratch, GdnRows& task) {
  task.state_dtype = dtype;
  task.dk = GdnData::kDk;
  task.dv = GdnData::kDv;
  task.rows = rows;
  task.q = data.q.data() + row * GdnData::kDk;
  task.k = k.data() + row * GdnData::kDk;
  task.v = data.v.data() + row * GdnData::kDv;
  task.ld_q = task.ld_k = GdnData::kDk;
  task.ld_v = GdnData::kDv;
  task.g = data.g.data() + row;
  task.beta = data.beta.data() + row;
  task.ld_gate = 1;
  task.output = out.data() + row * GdnData::kDv;
  task.ld_output = GdnData::kDv;
  task.scratch = scratch.data();
}

// `step` rows a call, folding in place at every 64th row.
std::vector<float> run_window(const KernelTable& table, const GdnData& data, StateDType dtype, int step) {
  constexpr int kDk = GdnData::kDk;
  constexpr int kDv = GdnData::kDv;
  const std::size_t element = dtype == StateDType::kF32 ? 4 : 2;
  std::vector<std::byte> state(state_bytes(dtype));
  std::vector<std::byte> keys(kDk * 64 * element);
  std::vector<std::byte> d(kDv * 64 * element);
  std::vector<float> gate_sum(64);
  std::vector<float> scratch(static_cast<std::size_t>(gdn_scratch_floats(kDk, kDv)));
  std::vector<float> k = data.k;
  if (element == 2) {
    for (float& x : k) x = bf16_to_float(float_to_bf16(x));
  }
  std::vector<float> out(GdnData::kRows * kDv);
  bool folded = false;
  for (int row = 0; row < GdnData::kRows;) {
    const int row0 = row % 64;
    const int rows = std::min({step, 64 - row0, GdnData::kRows - row});
    for (int r = 0; r < rows; ++r) {
      for (int i = 0; i < kDk; ++i) {
        const float value = k[static_cast<std::size_t>((row + r) * kDk + i)];
        if (element == 4) {
          reinterpret_cast<float*>(keys.data())[i * 64 + row0 + r] = value;
        } else {
          reinterpret_cast<bf16_t*>(keys.data())[i * 64 + row0 + r] = float_to_bf16(value);
        }
      }
    }
    GdnWindowTask task{};
    describe(data, k, dtype, row, rows, out, scratch, task);
    task.state = folded ? state.data() : nullptr;
    task.keys = keys.data();
    task.d = d.data();
    task.gate_sum = gate_sum.data();
    task.fold_to = row0 + rows == 64 ? state.data() : nullptr;
    task.row0 = row0;
    table.gdn_window(task);
    folded = folded || task.fold_to != nullptr;
    row += rows;
  }
  return out;
}

std::vector<float> run_recurrent(const KernelTable& table, const GdnData& data, StateDType dtype, int step) {
  constexpr int kDk = GdnData::kDk;
  constexpr int kDv = GdnData::kDv;
  std::vector<std::byte> state(state_bytes(dtype));
  std::vector<float> scratch(static_cast<std::size_t>(gdn_scratch_floats(kDk, kDv)));
  std::vector<float> out(GdnData::kRows * kDv);
  for (int row = 0; row < GdnData::kRows; row += step) {
    GdnRecurrentTask task{};
    describe(data, data.k, dtype, row, std::min(step, GdnData::kRows - row), out, scratch, task);
    task.state = row == 0 ? nullptr : state.data();
    task.state_out = state.data();
    table.gdn_recurrent(task);
  }
  return out;
}

double relative_rms(const std::vector<float>& got, const std::vector<double>& want) {
  double error = 0;
  double size = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    size += want[i] * want[i];
  }
  return std::sqrt(error / size);
}

TEST(Gdn, BothFormsAgreeWithTheRecurrenceInDouble) {
  const GdnData data;
  const std::vector<double> want = data.outputs();
  const struct {
    StateDType dtype;
    double window, recurrent;  // relative rms; about twice the figures of numerics.md
  } limits[] = {{StateDType::kF32, 2e-6, 2e-6}, {StateDType::kBF16, 9e-3, 4e-2}, {StateDType::kI8, 2.5e-2, 1.5e-1}};
  for (const KernelTable* table : tables()) {
    for (const auto& limit : limits) {
      EXPECT_LE(relative_rms(run_window(*table, data, limit.dtype, 64), want), limit.window)
          << table->name << to_string(limit.dtype);
      EXPECT_LE(relative_rms(run_recurrent(*table, data, limit.dtype, 150), want), limit.recurrent)
          << table->name << to_string(limit.dtype);
    }
  }
}

TEST(Gdn, RowsDoNotDependOnHowManyAreComputedTogether) {
  const GdnData data;
  for (const KernelTable* table : tables()) {
    for (const StateDType dtype : {StateDType::kF32, StateDType::kBF16, StateDType::kI8}) {
      const auto window = run_window(*table, data, dtype, 64);
      const auto recurrent = run_recurrent(*table, data, dtype, 150);
      for (const int step : {1, 2, 7, 33}) {
        EXPECT_EQ(run_window(*table, data, dtype, step), window)
            << table->name << " " << to_string(dtype) << " " << step;
        EXPECT_EQ(run_recurrent(*table, data, dtype, step), recurrent)
            << table->name << " " << to_string(dtype) << " " << step;
      }
    }
  }
}

// ---- attention ------------------------------------------------------------------------------------------------------

TEST(Attention, AgreesWithSoftmaxInDouble) {
  constexpr std::size_t kHd = 64;
  constexpr int kTokens = 140;
  const auto k = normal(kTokens * kHd, 30);
  const auto v = normal(kTokens * kHd, 31);
  const auto q = normal(kTokens * kHd, 32, 0.2F);
  const auto gate = normal(kTokens * kHd, 33);
  std::vector<float> pages(4 * 2 * kHd * 64, std::nanf(""));  // what is not written must not be seen
  const std::int32_t page_ids[] = {2, 3, 1};
  for (std::size_t t = 0; t < kTokens; ++t) {
    float* page = pages.data() + static_cast<std::size_t>(page_ids[t / 64]) * 2 * kHd * 64;
    for (std::size_t i = 0; i < kHd; ++i) {
      page[i * 64 + t % 64] = k[t * kHd + i];
      page[kHd * 64 + t % 64 * kHd + i] = v[t * kHd + i];
    }
  }
  for (const KernelTable* table : tables()) {
    std::vector<float> whole(kTokens * kHd);
    std::vector<float> scratch(static_cast<std::size_t>(attention_scratch_floats(kHd)));
    const auto run = [&](std::size_t first, int rows, std::vector<float>& out) {
      const float* q_rows[kMaxAttentionRows];
      const float* gate_rows[kMaxAttentionRows];
      float* out_rows[kMaxAttentionRows];
      std::int32_t position[kMaxAttentionRows];
      for (int r = 0; r < rows; ++r) {
        const std::size_t t = first + static_cast<std::size_t>(r);
        q_rows[r] = q.data() + t * kHd;
        gate_rows[r] = gate.data() + t * kHd;
        out_rows[r] = out.data() + t * kHd;
        position[r] = static_cast<std::int32_t>(t);
      }
      AttentionTask task{};
      task.kv_dtype = KvDType::kF32;
      task.head_dim = kHd;
      task.pages = reinterpret_cast<const std::byte*>(pages.data());
      task.page_bytes = 2 * kHd * 64 * 4;
      task.page_ids = page_ids;
      task.rows = rows;
      task.q = q_rows;
      task.gate = gate_rows;
      task.output = out_rows;
      task.position = position;
      task.scratch = scratch.data();
      table->attention(task);
    };
    for (std::size_t t = 0; t < kTokens; t += 20) run(t, 20, whole);
    for (std::size_t t = 0; t < kTokens; ++t) {
      std::vector<double> p(t + 1);
      double sum = 0;
      for (std::size_t j = 0; j <= t; ++j) {
        double score = 0;
        for (std::size_t i = 0; i < kHd; ++i) score += static_cast<double>(q[t * kHd + i]) * k[j * kHd + i];
        p[j] = std::exp(score);
        sum += p[j];
      }
      for (std::size_t i = 0; i < kHd; ++i) {
        double want = 0;
        for (std::size_t j = 0; j <= t; ++j) want += p[j] / sum * v[j * kHd + i];
        want /= 1 + std::exp(-static_cast<double>(gate[t * kHd + i]));
        ASSERT_NEAR(whole[t * kHd + i], want, 2e-5) << table->name << " token " << t;
      }
    }
    std::vector<float> single(kTokens * kHd);
    for (std::size_t t = 0; t < kTokens; ++t) run(t, 1, single);
    EXPECT_EQ(std::memcmp(single.data(), whole.data(), whole.size() * 4), 0) << table->name;
  }
}

}  // namespace
}  // namespace penstock
