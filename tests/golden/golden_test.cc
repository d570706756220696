// Levels 3 and 4 of our trust: outputs against the library's (tests/golden/data/README.md), and levels A, B and C of
// docs/numerics.md, bit for bit.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "harness.h"

namespace penstock::golden {
namespace {

constexpr int kLengths[] = {1, 7, 64, 65, 130, 300};
const char* const kFolders[] = {"dense-r2", "nested-r1", "moe-packed-r2", "moe-each-r2", "next-r2", "tied-r3"};

std::vector<std::string> prompt_names(const SafetensorsFile& file) {
  std::vector<std::string> names;
  for (const auto& [key, entry] : file.entries()) {
    if (key.ends_with(".input_ids")) names.push_back(key.substr(0, key.size() - 10));
  }
  std::sort(names.begin(), names.end());
  return names;
}

struct Limits {
  double logit, hidden;
};

constexpr Limits kExact{5e-4, 1e-4};

double worst_difference(const std::vector<float>& got, const std::vector<float>& want) {
  // The golden may hold the last rows only.
  EXPECT_GE(got.size(), want.size());
  double worst = 0;
  const std::size_t skip = got.size() - want.size();
  for (std::size_t i = 0; i < want.size(); ++i) {
    worst = std::max(worst, std::fabs(static_cast<double>(got[skip + i]) - want[i]));
  }
  return worst;
}

std::vector<std::int32_t> greedy(const Model& model, Runner& runner, std::vector<std::int32_t> ids, int count) {
  std::vector<std::int32_t> out;
  const auto vocab = static_cast<std::ptrdiff_t>(model.config().vocab_size);
  for (int i = 0; i < count; ++i) {
    const Result r = runner.run({ids}, {});
    const auto last = r.logits[0].end() - vocab;
    out.push_back(static_cast<std::int32_t>(std::max_element(last, r.logits[0].end()) - last));
    ids.push_back(out.back());
  }
  return out;
}

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, LogitsAndHiddenAgreeWithTheLibrary) {
  const auto dir = data_dir() / GetParam();
  const std::string golden_dir = std::string(GetParam()) == "moe-each-r2" ? "moe-packed-r2" : GetParam();
  auto file = SafetensorsFile::open(data_dir() / golden_dir / "golden.safetensors");
  ASSERT_TRUE(file.ok()) << file.status().message();
  for (const std::string& isa : available_isas()) {
    for (const char* backend : {"window", "recurrent"}) {
      Config setup{.isa = isa, .input = "fp32", .backend = backend};
      const auto model = load(dir, setup);
      ASSERT_NE(model, nullptr);
      const auto names = prompt_names(**file);
      ASSERT_GE(names.size(), std::size(kLengths) - 1);
      std::vector<std::vector<std::int32_t>> prompts;
      for (const auto& name : names) prompts.push_back(tensor<std::int32_t>(**file, name + ".input_ids"));
      Runner runner(*model, static_cast<int>(prompts.size()), 340);
      const Result result = runner.run(prompts, {});
      for (std::size_t i = 0; i < names.size(); ++i) {
        EXPECT_LE(worst_difference(result.logits[i], tensor<float>(**file, names[i] + ".logits")), kExact.logit)
            << setup.name() << " " << names[i];
        EXPECT_LE(worst_difference(result.hidden[i], tensor<float>(**file, names[i] + ".hidden")), kExact.hidden)
            << setup.name() << " " << names[i];
      }
    }
  }
}

// KL(golden || engine) of one position.
double divergence(const float* want, const float* got, std::size_t vocab) {
  const auto log_sum = [vocab](const float* x) {
    const float top = *std::max_element(x, x + vocab);
    double sum = 0;
    for (std::size_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(x[i]) - top);
    return top + std::log(sum);
  };
  const double a = log_sum(want);
  const double b = log_sum(got);
  double kl = 0;
  for (std::size_t i = 0; i < vocab; ++i) kl += std::exp(want[i] - a) * ((want[i] - a) - (got[i] - b));
  return kl;
}

// --linear-input bf16: judged as a bf16 engine, MoE by median and p90 because rounding may swap an expert.
TEST_P(Golden, Bf16InputsStayWithinTheLimitsForBf16) {
  if (!detect_cpu().avx512_bf16) GTEST_SKIP() << "needs avx512_bf16";
  const std::string golden_dir = std::string(GetParam()) == "moe-each-r2" ? "moe-packed-r2" : GetParam();
  auto file = SafetensorsFile::open(data_dir() / golden_dir / "golden.safetensors");
  ASSERT_TRUE(file.ok()) << file.status().message();
  const auto model = load(data_dir() / GetParam(), {.input = "bf16"});
  ASSERT_NE(model, nullptr);
  const auto vocab = static_cast<std::size_t>(model->config().vocab_size);
  std::vector<double> kl;
  double square = 0;
  double worst = 0;
  std::size_t same = 0;
  for (const auto& name : prompt_names(**file)) {
    Runner runner(*model, 1, 340);
    const Result result = runner.run({tensor<std::int32_t>(**file, name + ".input_ids")}, {});
    const auto want = tensor<float>(**file, name + ".logits");
    const float* got = result.logits[0].data() + (result.logits[0].size() - want.size());
    for (std::size_t row = 0; row < want.size(); row += vocab) {
      kl.push_back(divergence(want.data() + row, got + row, vocab));
      const auto best = [vocab](const float* x) { return std::max_element(x, x + vocab) - x; };
      same += best(want.data() + row) == best(got + row) ? 1 : 0;
      for (std::size_t i = row; i < row + vocab; ++i) {
        const double delta = std::fabs(static_cast<double>(got[i]) - want[i]);
        square += delta * delta;
        worst = std::max(worst, delta);
      }
    }
  }
  std::sort(kl.begin(), kl.end());
  const auto n = static_cast<double>(kl.size());
  double mean = 0;
  for (const double x : kl) mean += x / n;
  EXPECT_GE(static_cast<double>(same) / n, 0.95);
  if (model->config().is_moe()) {
    EXPECT_LE(kl[kl.size() / 2], 1.5e-3);
    EXPECT_LE(kl[kl.size() * 9 / 10], 4e-3);
    EXPECT_LE(mean, 2e-2);
  } else {
    EXPECT_LE(std::sqrt(square / (n * static_cast<double>(vocab))), 0.12);
    EXPECT_LE(worst, 1.2);
    EXPECT_LE(mean, 3e-3);
    EXPECT_LE(kl[kl.size() * 99 / 100], 2e-2);
  }
}

TEST_P(Golden, StatesAgreeWithTheLibrary) {
  const std::string golden_dir = std::string(GetParam()) == "moe-each-r2" ? "moe-packed-r2" : GetParam();
  auto file = SafetensorsFile::open(data_dir() / golden_dir / "golden.safetensors");
  ASSERT_TRUE(file.ok()) << file.status().message();
  for (const char* backend : {"window", "recurrent"}) {
    const auto model = load(data_dir() / GetParam(), {.input = "fp32", .backend = backend});
    ASSERT_NE(model, nullptr);
    const ModelConfig& c = model->config();
    const CacheLayout& layout = model->cache_layout();
    const auto dk = static_cast<std::size_t>(c.linear_key_head_dim);
    const auto dv = static_cast<std::size_t>(c.linear_value_head_dim);
    // The window's state is only whole at a block boundary; the recurrent one after every prompt.
    for (const int length : kLengths) {
      if (std::string(backend) == "window" && length % kBlockTokens != 0) continue;
      const std::string p = "p" + std::to_string(length);
      if (!(*file)->entries().contains(p + ".input_ids")) continue;
      Runner runner(*model, 1, 340);
      runner.run({tensor<std::int32_t>(**file, p + ".input_ids")}, {});
      std::size_t gdn = 0;
      for (std::size_t l = 0; l < c.layers.size(); ++l) {
        if (c.layers[l] != LayerKind::kGdn) continue;
        const std::byte* at = runner.pools().states +
                              static_cast<std::size_t>(runner.state_slot(0)) * layout.state_bytes +
                              gdn * layout.state_layer_bytes;
        const auto want = tensor<float>(**file, p + ".state_sum_k." + std::to_string(l));
        double worst = 0;
        double largest = 1e-9;
        for (std::size_t h = 0; h < static_cast<std::size_t>(c.linear_num_value_heads); ++h) {
          const auto* s = reinterpret_cast<const float*>(at + h * layout.state_head_bytes);
          for (std::size_t v = 0; v < dv; ++v) {
            double sum = 0;
            for (std::size_t k = 0; k < dk; ++k) {
              sum += s[k * dv + v];
              largest = std::max(largest, std::fabs(static_cast<double>(s[k * dv + v])));
            }
            worst = std::max(worst, std::fabs(sum - want[h * dv + v]));
          }
        }
        // Sums of 128 entries, each good to 1e-5 of the largest.
        EXPECT_LE(worst, 1e-5 * largest * 12 + 1e-6) << GetParam() << " " << backend << " " << p << " layer " << l;
        ++gdn;
      }
      EXPECT_GT(gdn, 0U);
    }
  }
}

TEST_P(Golden, GreedyContinuationsAreTheLibrarys) {
  const std::string golden_dir = std::string(GetParam()) == "moe-each-r2" ? "moe-packed-r2" : GetParam();
  auto file = SafetensorsFile::open(data_dir() / golden_dir / "golden.safetensors");
  ASSERT_TRUE(file.ok()) << file.status().message();
  const auto model = load(data_dir() / GetParam(), {.input = "fp32"});
  ASSERT_NE(model, nullptr);
  for (const int length : {7, 65}) {
    const std::string p = "p" + std::to_string(length);
    Runner runner(*model, 1, 400);
    EXPECT_EQ(greedy(*model, runner, tensor<std::int32_t>(**file, p + ".input_ids"), 32),
              tensor<std::int32_t>(**file, p + ".greedy"))
        << p;
  }
}

INSTANTIATE_TEST_SUITE_P(Folders, Golden, testing::ValuesIn(kFolders), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(BundledModel, BestLogitsAndGreedyTextAgree) {
  auto file = SafetensorsFile::open(data_dir() / "gsm-hybrid/golden.safetensors");
  ASSERT_TRUE(file.ok()) << file.status().message();
  const auto model = load(bundled_model(), {.input = "fp32"});
  ASSERT_NE(model, nullptr);
  const auto vocab = static_cast<std::size_t>(model->config().vocab_size);
  for (int g = 0; g < 20; ++g) {
    const std::string name = "g" + std::to_string(g);
    const auto ids = tensor<std::int32_t>(**file, name + ".input_ids");
    const auto positions = tensor<std::int32_t>(**file, name + ".positions");
    const auto top_ids = tensor<std::int32_t>(**file, name + ".f32.top_ids");
    const auto top_logits = tensor<float>(**file, name + ".f32.top_logits");
    auto whole = ids;
    const auto continuation = tensor<std::int32_t>(**file, name + ".f32.greedy");
    whole.insert(whole.end(), continuation.begin(), continuation.end());
    Runner runner(*model, 1, static_cast<int>(whole.size()) + 1);
    const Result result = runner.run({whole}, {});
    for (std::size_t i = 0; i < positions.size(); ++i) {
      for (std::size_t j = 0; j < 32; ++j) {
        const std::size_t at =
            static_cast<std::size_t>(positions[i]) * vocab + static_cast<std::size_t>(top_ids[i * 32 + j]);
        EXPECT_NEAR(result.logits[0][at], top_logits[i * 32 + j], 1e-3) << name;
      }
    }
    for (std::size_t i = 0; i < continuation.size(); ++i) {  // teacher-forced: the best token at every step
      const auto row = result.logits[0].begin() + static_cast<std::ptrdiff_t>((ids.size() - 1 + i) * vocab);
      EXPECT_EQ(std::max_element(row, row + static_cast<std::ptrdiff_t>(vocab)) - row, continuation[i])
          << name << " step " << i;
    }
  }
}

// ---- levels A, B, C -------------------------------------------------------------------------------------------------

std::vector<std::vector<std::int32_t>> random_sequences(int count, int vocab, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::vector<std::int32_t>> sequences;
  for (int i = 0; i < count; ++i) {
    std::vector<std::int32_t> ids(i == 0 ? 200 : 1 + random() % 220);
    for (auto& id : ids) id = static_cast<std::int32_t>(random() % static_cast<unsigned>(vocab));
    sequences.push_back(std::move(ids));
  }
  return sequences;
}

void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  if (std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0) return;
  std::size_t different = 0;
  std::size_t first = a.size();
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) {
      first = std::min(first, i);
      ++different;
    }
  }
  ADD_FAILURE() << what << ": " << different << " of " << a.size() << " logits differ, the first at " << first << ": "
                << a[first] << " and " << b[first];
}

struct BitsCase {
  std::string folder;
  Config setup;
};

void check_levels(const std::filesystem::path& dir, const Config& base) {
  const auto model = load(dir, base);
  ASSERT_NE(model, nullptr);
  const auto sequences = random_sequences(8, model->config().vocab_size, 11);
  Runner runner(*model, 8, 240);
  const Result whole = runner.run(sequences, {});
  const auto compare = [&](Runner& r, const Plan& plan, const std::string& what) {
    const Result other = r.run(sequences, plan);
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      expect_same_bits(whole.logits[i], other.logits[i], base.name() + " " + what + " sequence " + std::to_string(i));
    }
  };
  compare(runner, {.batch = 1}, "alone");
  compare(runner, {.batch = 3}, "in threes");
  for (const int chunk : {64, 128, 192, 1000, 17, 100})
    compare(runner, {.chunk = chunk}, "chunk " + std::to_string(chunk));
  for (const int from : {0, 1, 63, 64, 65, 100})
    compare(runner, {.decode_from = from}, "decode from " + std::to_string(from));
  compare(runner, {.chunk = 33, .fresh_slots = true}, "folds out of place");
  for (const int threads : {1, 3}) {
    Config setup = base;
    setup.threads = threads;
    const auto again = load(dir, setup);
    ASSERT_NE(again, nullptr);
    Runner other(*again, 8, 240);
    compare(other, {.chunk = 96, .decode_from = 150}, std::to_string(threads) + " threads");
  }
}

TEST(Levels, EveryInstructionSetAndBackend) {
  for (const std::string& isa : available_isas()) {
    for (const char* backend : {"window", "recurrent"})
      check_levels(data_dir() / "dense-r2", {.isa = isa, .backend = backend});
  }
}

TEST(Levels, EveryStateFormat) {
  for (const char* state : {"bfloat16", "int8"}) {
    for (const char* backend : {"window", "recurrent"}) {
      check_levels(data_dir() / "tied-r3", {.backend = backend, .state = state, .kv = "bfloat16"});
    }
  }
}

TEST(Levels, MixtureOfExperts) {
  for (const char* folder : {"moe-packed-r2", "next-r2"}) check_levels(data_dir() / folder, {});
}

TEST(Levels, Bf16Inputs) {
  if (!detect_cpu().avx512_bf16) GTEST_SKIP() << "needs avx512_bf16";
  check_levels(data_dir() / "dense-r2", {.input = "bf16"});
}

TEST(Levels, BundledModel) {
  check_levels(bundled_model(), {});
}

}  // namespace
}  // namespace penstock::golden
