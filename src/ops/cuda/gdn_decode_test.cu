// Decode kernels of Gated DeltaNet against a recurrence in double precision, token after token.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

#include "base/dtype.h"
#include "ops/cuda/device_buffer.cuh"
#include "ops/cuda/gdn_common.cuh"

namespace penstock::cuda {
namespace {

struct Form {
  const char* name;
  bool reference;
  int split;
};
constexpr Form kForms[] = {
    {"reference", true, 1}, {"recurrent", false, 1}, {"recurrent/2", false, 2}, {"recurrent/4", false, 4}};

// A layer's constants and what some requests bring, on the host.
struct Case {
  Case(int key_heads_in, int value_heads_in, int tokens_in, int requests_in, unsigned seed)
      : key_heads(key_heads_in), value_heads(value_heads_in), tokens(tokens_in), requests(requests_in) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::size_t n, float scale, float shift) {
      std::vector<float> v(n);
      for (float& x : v) x = shift + scale * normal(random);
      return v;
    };
    conv_weights = fill(static_cast<std::size_t>(4 * channels()), 0.4F, 0);
    dt_bias = fill(static_cast<std::size_t>(value_heads), 1, 0);
    norm_weight = fill(kHead, 0.1F, 1);
    neg_exp_a_log = fill(static_cast<std::size_t>(value_heads), 0.5F, -1);
    for (float& a : neg_exp_a_log) a = -std::exp(a);
    x.resize(static_cast<std::size_t>(tokens) * static_cast<std::size_t>(requests * width()));
    for (std::uint16_t& v : x) v = penstock::float_to_bf16(normal(random));
  }
  int channels() const { return (2 * key_heads + value_heads) * kHead; }
  int width() const { return channels() + value_heads * kHead + 2 * value_heads; }
  const std::uint16_t* row(int token, int request) const {
    return x.data() + static_cast<std::size_t>(token * requests + request) * static_cast<std::size_t>(width());
  }

  // [tokens][value_heads·128] of one request, from the zero state.
  std::vector<double> expected(int request) const {
    std::vector<double> out;
    std::vector<double> state(static_cast<std::size_t>(value_heads) * kHead * kHead, 0.0);
    for (int t = 0; t < tokens; ++t) {
      std::vector<double> u(static_cast<std::size_t>(channels()));
      for (int c = 0; c < channels(); ++c) {
        double sum = 0;
        for (int j = std::max(0, 3 - t); j < 4; ++j) {
          sum += conv_weights[static_cast<std::size_t>(j * channels() + c)] *
                 penstock::bf16_to_float(row(t - 3 + j, request)[c]);
        }
        u[static_cast<std::size_t>(c)] = sum / (1 + std::exp(-sum));
      }
      for (int h = 0; h < value_heads; ++h) step_head(t, request, h, u, state, out);
    }
    return out;
  }

  void step_head(int t, int request, int h, const std::vector<double>& u, std::vector<double>& state,
                 std::vector<double>& out) const {
    const int key_head = h / (value_heads / key_heads);
    const double* q = u.data() + key_head * kHead;
    const double* k = u.data() + (key_heads + key_head) * kHead;
    const double* v = u.data() + (2 * key_heads + h) * kHead;
    double qq = 0, kk = 0;
    for (int i = 0; i < kHead; ++i) {
      qq += q[i] * q[i];
      kk += k[i] * k[i];
    }
    const double q_scale = 1 / std::sqrt(qq + 1e-6) / std::sqrt(128.0), k_scale = 1 / std::sqrt(kk + 1e-6);
    const std::uint16_t* rest = row(t, request) + channels();
    const double beta =
        1 / (1 + std::exp(-static_cast<double>(penstock::bf16_to_float(rest[value_heads * kHead + h]))));
    const double a =
        penstock::bf16_to_float(rest[value_heads * kHead + value_heads + h]) + dt_bias[static_cast<std::size_t>(h)];
    const double decay = std::exp(neg_exp_a_log[static_cast<std::size_t>(h)] * (a > 20 ? a : std::log1p(std::exp(a))));
    double o[kHead], squares = 0;
    for (int column = 0; column < kHead; ++column) {
      double* s = state.data() + static_cast<std::size_t>(h) * kHead * kHead + column;
      double p = 0;
      for (int i = 0; i < kHead; ++i) p += s[i * kHead] * k[i] * k_scale;
      const double d = beta * (v[column] - decay * p);
      o[column] = 0;
      for (int i = 0; i < kHead; ++i) {
        s[i * kHead] = decay * s[i * kHead] + k[i] * k_scale * d;
        o[column] += s[i * kHead] * q[i] * q_scale;
      }
      squares += o[column] * o[column];
    }
    for (int column = 0; column < kHead; ++column) {
      const double z = penstock::bf16_to_float(rest[h * kHead + column]);
      out.push_back(o[column] / std::sqrt(squares / kHead + 1e-6) * norm_weight[static_cast<std::size_t>(column)] * z /
                    (1 + std::exp(-z)));
    }
  }

  int key_heads, value_heads, tokens, requests;
  std::vector<float> conv_weights, neg_exp_a_log, dt_bias, norm_weight;
  std::vector<std::uint16_t> x;  // [tokens][requests][width]
};

// Slots as an engine would give them, per token and request.
using SlotPlan = std::function<void(int token, int request, std::int32_t& read, std::int32_t& write)>;

struct Result {
  std::vector<std::uint16_t> out;  // [tokens][requests][value_heads·128]
  std::vector<std::byte> states;
};

int device_major() {
  cudaDeviceProp device = {};
  return cudaGetDeviceProperties(&device, 0) == cudaSuccess ? device.major : 0;
}

Result run(const Case& c, StateType type, const Form& form, std::int32_t slots, std::int64_t slot_bytes,
           const SlotPlan& plan, bool read_states = true) {
  DeviceBuffer<float> conv_weights(c.conv_weights), neg_exp_a_log(c.neg_exp_a_log), dt_bias(c.dt_bias),
      norm_weight(c.norm_weight);
  DeviceBuffer<std::uint16_t> x(c.x);
  const std::size_t out_width = static_cast<std::size_t>(c.value_heads) * kHead;
  const std::vector<std::uint16_t> poison(out_width * static_cast<std::size_t>(c.tokens * c.requests), 0x7FC0);
  DeviceBuffer<std::uint16_t> out(poison);
  const std::int64_t conv_bytes = std::int64_t{4} * c.channels() * 2;
  DeviceBuffer<std::byte> states(static_cast<std::size_t>(slots * slot_bytes)),
      convs(static_cast<std::size_t>(slots * conv_bytes));
  EXPECT_TRUE(states.ok() && convs.ok()) << "not enough GPU memory";
  // NaN everywhere: whoever reads what nobody wrote shows.
  cudaMemset(states.get(), 0xFF, static_cast<std::size_t>(slots * slot_bytes));
  cudaMemset(convs.get(), 0xFF, static_cast<std::size_t>(slots * conv_bytes));
  GdnDecodeTask task;
  task.batch = c.requests;
  task.key_heads = c.key_heads;
  task.value_heads = c.value_heads;
  task.ld_x = c.width();
  task.conv_weights = conv_weights.get();
  task.neg_exp_a_log = neg_exp_a_log.get();
  task.dt_bias = dt_bias.get();
  task.norm_weight = norm_weight.get();
  task.state_type = type;
  task.states = states.get();
  task.slot_bytes = slot_bytes;
  task.convs = convs.get();
  task.conv_slot_bytes = conv_bytes;
  task.slots = slots;
  task.compute_major = device_major();
  task.split = form.split;
  task.ld_out = static_cast<std::int64_t>(out_width);
  for (int t = 0; t < c.tokens; ++t) {
    std::vector<std::int32_t> read(static_cast<std::size_t>(c.requests)), write(read), position(read.size(), t);
    for (int r = 0; r < c.requests; ++r) {
      plan(t, r, read[static_cast<std::size_t>(r)], write[static_cast<std::size_t>(r)]);
    }
    DeviceBuffer<std::int32_t> reads(read), writes(write), positions(position);
    task.x = x.get() + std::size_t(t) * c.x.size() / static_cast<std::size_t>(c.tokens);
    task.out = out.get() + std::size_t(t) * static_cast<std::size_t>(c.requests) * out_width;
    task.read_slot = reads.get();
    task.write_slot = writes.get();
    task.position = positions.get();
    EXPECT_EQ(form.reference ? gdn_reference_decode(task, nullptr) : gdn_recurrent_decode(task, nullptr), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }
  Result result;
  result.out = out.read();
  if (read_states) result.states = states.read();
  return result;
}

double relative_error(const Case& c, const Result& result, int request) {
  const std::vector<double> expected = c.expected(request);
  const std::size_t width = static_cast<std::size_t>(c.value_heads) * kHead;
  double error = 0, norm = 0;
  for (int t = 0; t < c.tokens; ++t) {
    for (std::size_t i = 0; i < width; ++i) {
      const double want = expected[static_cast<std::size_t>(t) * width + i];
      const double got =
          penstock::bf16_to_float(result.out[static_cast<std::size_t>(t * c.requests + request) * width + i]);
      error += (got - want) * (got - want);
      norm += want * want;
    }
  }
  return std::sqrt(error / norm);  // NaN when anything was
}

std::int64_t dense_bytes(const Case& c, StateType type) {
  return std::int64_t{c.value_heads} * kHead * kHead * (type == StateType::kF32 ? 4 : 2);
}

class GdnDecode : public ::testing::TestWithParam<StateType> {
 protected:
  void SetUp() override {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) GTEST_SKIP() << "no NVIDIA GPU here";
    if (device_major() < 9) GTEST_SKIP() << "a split needs sm_90";
  }
  // Errors that bf16 output alone makes are 1.6e-3; a bf16 state adds its rounding at every token.
  double limit() const { return GetParam() == StateType::kF32 ? 3e-3 : 1.2e-2; }
};
INSTANTIATE_TEST_SUITE_P(Cuda, GdnDecode, ::testing::Values(StateType::kF32, StateType::kBF16),
                         [](const auto& info) { return info.param == StateType::kF32 ? "fp32" : "bf16"; });

TEST_P(GdnDecode, IsTheRecurrence) {
  for (const auto& [key_heads, value_heads] : {std::pair{1, 1}, {2, 4}, {1, 3}, {2, 16}}) {
    const Case c(key_heads, value_heads, 12, 3, 1);
    for (const Form& form : kForms) {
      const Result result =
          run(c, GetParam(), form, 5, dense_bytes(c, GetParam()), [](int t, int r, auto& read, auto& write) {
            read = t == 0 ? 0 : r + 1;
            write = r + 1;
          });
      for (int r = 0; r < 3; ++r) EXPECT_LT(relative_error(c, result, r), limit()) << form.name << " " << value_heads;
    }
  }
}

// Read and write slots that differ, states that move between slots, and the same bits whichever way (contract S8).
TEST_P(GdnDecode, SlotsDoNotMatter) {
  const Case c(2, 4, 10, 3, 2);
  std::vector<std::uint16_t> first;
  for (const Form& form : kForms) {
    const auto stay =
        run(c, GetParam(), form, 8, dense_bytes(c, GetParam()), [](int t, int r, auto& read, auto& write) {
          read = t == 0 ? 0 : r + 1;
          write = r + 1;
        });
    const auto move =
        run(c, GetParam(), form, 8, dense_bytes(c, GetParam()), [](int t, int r, auto& read, auto& write) {
          read = t == 0 ? 0 : 1 + 2 * r + (t + 1) % 2;
          write = 1 + 2 * r + t % 2;
        });
    EXPECT_EQ(stay.out, move.out) << form.name;
    if (form.reference) continue;  // another order of sums
    if (first.empty()) first = stay.out;
    EXPECT_EQ(stay.out, first) << form.name;  // however a head is split
  }
}

// Numerics level A: a request alone, and among others at another place.
TEST_P(GdnDecode, BatchDoesNotMatter) {
  const Case many(2, 4, 6, 37, 3);
  Case one(2, 4, 6, 1, 3);
  const std::size_t width = static_cast<std::size_t>(one.width());
  for (int t = 0; t < 6; ++t)
    std::copy_n(many.row(t, 29), width, one.x.begin() + static_cast<std::ptrdiff_t>(t * width));
  for (const Form& form : kForms) {
    const auto in_place = [](int t, int r, auto& read, auto& write) {
      read = t == 0 ? 0 : r + 1;
      write = r + 1;
    };
    const Result alone = run(one, GetParam(), form, 2, dense_bytes(one, GetParam()), in_place);
    const Result among = run(many, GetParam(), form, 38, dense_bytes(many, GetParam()), in_place);
    for (int t = 0; t < 6; ++t) {
      for (std::size_t i = 0; i < 512; ++i) {
        ASSERT_EQ(alone.out[static_cast<std::size_t>(t) * 512 + i],
                  among.out[static_cast<std::size_t>(t * 37 + 29) * 512 + i])
            << form.name << " token " << t << " column " << i;
      }
    }
  }
}

// Padding: zeros out, and not a byte of the pool touched.
TEST_P(GdnDecode, PaddingTouchesNothing) {
  const Case c(2, 4, 1, 6, 4);
  constexpr std::int32_t kBad[][2] = {{-1, -1}, {2, -5}, {-7, 2}, {4, 2}, {2, 1 << 30}, {2, 0}};
  for (const Form& form : kForms) {
    const Result result =
        run(c, GetParam(), form, 4, dense_bytes(c, GetParam()), [&](int, int r, auto& read, auto& write) {
          read = kBad[r][0];
          write = kBad[r][1];
        });
    for (const std::uint16_t value : result.out) ASSERT_EQ(value, 0) << form.name;
    for (const std::byte byte : result.states) ASSERT_EQ(byte, std::byte{0xFF}) << form.name;
  }
}

// Slots far beyond 4,096 in a strided pool: offsets of more than 32 bits.
TEST_P(GdnDecode, SlotsBeyond32Bits) {
  const Case c(1, 2, 5, 2, 5);
  constexpr std::int32_t kSlots = 5000;
  constexpr std::int64_t kStride = 1 << 20;
  for (const Form& form : kForms) {
    const auto far = [](int t, int r, auto& read, auto& write) {
      read = t == 0 ? 0 : kSlots - 1 - r;
      write = kSlots - 1 - r;
    };
    const auto near = [](int t, int r, auto& read, auto& write) {
      read = t == 0 ? 0 : 1 + r;
      write = 1 + r;
    };
    const Result high = run(c, GetParam(), form, kSlots, kStride, far, false);
    const Result low = run(c, GetParam(), form, 3, dense_bytes(c, GetParam()), near, false);
    EXPECT_EQ(high.out, low.out) << form.name;
  }
}

}  // namespace
}  // namespace penstock::cuda
