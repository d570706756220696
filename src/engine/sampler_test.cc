#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "engine/philox.h"
#include "engine/row_math.h"

namespace penstock {
namespace {

std::vector<float> random_row(std::size_t size, std::uint32_t seed, float scale = 3) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> row(size);
  for (float& x : row) x = normal(random);
  return row;
}

SampleResult sample(std::span<const float> row, const SamplingParams& params, std::int32_t position = 0,
                    const TokenCounts* counts = nullptr, std::int32_t logprobs = -1, std::int32_t sampled_vocab = 0) {
  const auto vocab = static_cast<std::int32_t>(row.size());
  Sampler sampler(vocab, sampled_vocab == 0 ? vocab : sampled_vocab, nullptr);
  SampleJob job{row, &params, counts, position, logprobs};
  SampleResult result;
  sampler.run(std::span(&job, 1), std::span(&result, 1));
  return result;
}

// What the header promises, written down the slow way in double: the probability of every token.
std::vector<double> exact_probabilities(std::span<const float> row, const SamplingParams& params,
                                        const std::map<std::int32_t, int>& prompt_and_output = {}) {
  std::vector<double> x(row.begin(), row.end());
  for (const auto& [token, times] : prompt_and_output) {
    double& v = x[static_cast<std::size_t>(token)];
    v = v > 0 ? v / static_cast<double>(params.repetition_penalty) : v * static_cast<double>(params.repetition_penalty);
    v -= static_cast<double>(params.frequency_penalty) * times;
    if (times > 0) v -= static_cast<double>(params.presence_penalty);
  }
  for (const auto& [token, bias] : params.logit_bias) x[static_cast<std::size_t>(token)] += static_cast<double>(bias);
  const double best = *std::max_element(x.begin(), x.end());
  std::vector<double> p(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) p[i] = std::exp((x[i] - best) / static_cast<double>(params.temperature));
  std::vector<std::size_t> order(x.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return x[a] > x[b]; });
  std::size_t kept = 0;
  while (kept < order.size() && p[order[kept]] >= static_cast<double>(params.min_p)) ++kept;
  if (params.top_k > 0) kept = std::min(kept, static_cast<std::size_t>(params.top_k));
  double total = 0;
  for (std::size_t i = 0; i < kept; ++i) total += p[order[i]];
  double cumulative = 0;
  std::vector<double> result(x.size(), 0.0);
  double final_total = 0;
  for (std::size_t i = 0; i < kept; ++i) {
    if (i > 0 && params.top_p < 1 && cumulative >= static_cast<double>(params.top_p) * total) break;
    cumulative += p[order[i]];
    result[order[i]] = p[order[i]];
    final_total += p[order[i]];
  }
  for (double& v : result) v /= final_total;
  return result;
}

// Draws `draws` tokens and compares their counts with the exact probabilities: Pearson's chi-square, tokens with fewer
// than five expected together. The bound is mean + 4.5 standard deviations; seeds are fixed, so it never flickers.
void expect_distribution(std::span<const float> row, const SamplingParams& params, const std::vector<double>& exact,
                         const TokenCounts* counts = nullptr, int draws = 20000) {
  std::vector<int> seen(row.size(), 0);
  SamplingParams p = params;
  const auto vocab = static_cast<std::int32_t>(row.size());
  Sampler sampler(vocab, vocab, nullptr);
  for (int i = 0; i < draws; ++i) {
    p.seed = static_cast<std::uint64_t>(i % 100);
    SampleJob job{row, &p, counts, i / 100, -1};
    SampleResult result;
    sampler.run(std::span(&job, 1), std::span(&result, 1));
    ASSERT_GE(result.token, 0);
    ++seen[static_cast<std::size_t>(result.token)];
  }
  double chi2 = 0, rest_expected = 0, rest_seen = 0;
  int cells = 0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (exact[i] == 0) {
      ASSERT_EQ(seen[i], 0) << "token " << i << " has probability 0";
      continue;
    }
    const double expected = exact[i] * draws;
    if (expected < 5) {
      rest_expected += expected;
      rest_seen += seen[i];
      continue;
    }
    chi2 += (seen[i] - expected) * (seen[i] - expected) / expected;
    ++cells;
  }
  if (rest_expected >= 5) {
    chi2 += (rest_seen - rest_expected) * (rest_seen - rest_expected) / rest_expected;
    ++cells;
  }
  const double freedom = std::max(cells - 1, 1);
  EXPECT_LT(chi2, freedom + 4.5 * std::sqrt(2 * freedom)) << "with " << cells << " cells";
}

TEST(Philox, KnownAnswers) {
  // From the Random123 distribution's known-answer file, philox 4x32, 10 rounds.
  const auto zero = philox4x32({0, 0, 0, 0}, {0, 0});
  EXPECT_EQ(zero, (std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const auto ones = philox4x32({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U});
  EXPECT_EQ(ones, (std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(RowMath, ExpIsExpToSevenDigits) {
  for (float x = 0; x > -87; x -= 0.0137F) {
    const double exact = std::exp(static_cast<double>(x));
    ASSERT_NEAR(static_cast<double>(exp_negative(x)) / exact, 1, 3e-7) << x;
  }
  EXPECT_EQ(exp_negative(0), 1.0F);
  EXPECT_EQ(exp_negative(-88), 0.0F);
  EXPECT_EQ(exp_negative(-std::numeric_limits<float>::infinity()), 0.0F);
}

TEST(RowMath, MaxFindsTheFirstOfEquals) {
  std::vector<float> row(5000, -1.0F);
  row[3100] = row[1500] = 2.0F;
  EXPECT_EQ(row_max(row).index, 1500);
  row.assign(4, -0.0F);
  row[2] = 0.0F;
  EXPECT_EQ(row_max(row).index, 0);
  EXPECT_TRUE(row_max(row).finite);
  row[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(row_max(row).finite);
}

TEST(Sampler, GreedyTakesTheLowestOfEquals) {
  SamplingParams params;
  params.temperature = 0;
  std::vector<float> row = random_row(3000, 1);
  row[100] = row[2900] = 50;
  EXPECT_EQ(sample(row, params).token, 100);
  params.top_k = 5;
  params.top_p = 0.1F;
  EXPECT_EQ(sample(row, params).token, 100);
}

TEST(Sampler, PaddingIsNeverChosen) {
  SamplingParams params;
  std::vector<float> row = random_row(400, 2);
  for (std::size_t i = 300; i < 400; ++i) row[i] = 90;
  params.temperature = 0;
  const SampleResult greedy = sample(row, params, 0, nullptr, 20, 300);
  EXPECT_LT(greedy.token, 300);
  for (const auto& [token, logprob] : greedy.logprob->top) EXPECT_LT(token, 300);
  params.temperature = 2;
  params.logit_bias = {{350, 100.0F}};
  for (std::int32_t position = 0; position < 200; ++position) {
    ASSERT_LT(sample(row, params, position, nullptr, -1, 300).token, 300);
  }
}

TEST(Sampler, NotFiniteIsRefused) {
  SamplingParams params;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    for (const std::size_t where : {0U, 77U, 399U}) {
      std::vector<float> row = random_row(400, 3);
      row[where] = bad;
      for (const float temperature : {0.0F, 1.0F}) {
        params.temperature = temperature;
        EXPECT_EQ(sample(row, params, 0, nullptr, 5, 300).token, -1) << bad << " at " << where;
      }
    }
  }
}

TEST(Sampler, DistributionIsExact) {
  const std::vector<float> row = random_row(200, 4);
  SamplingParams params;
  const auto check = [&](const char* what) {
    SCOPED_TRACE(what);
    expect_distribution(row, params, exact_probabilities(row, params));
  };
  check("plain");
  params.temperature = 0.6F;
  check("temperature 0.6");
  params.temperature = 1.7F;
  check("temperature 1.7");
  params.top_p = 0.8F;
  check("top-p");
  params.top_k = 20;
  check("top-k and top-p");
  params.top_p = 1;
  check("top-k");
  params.min_p = 0.1F;
  check("top-k and min-p");
  params.top_k = -1;
  check("min-p");
  params.top_p = 0.9F;
  check("min-p and top-p");
  params = {};
  params.top_p = 1e-6F;
  check("top-p keeps one");
  params = {};
  params.top_k = 1;
  check("top-k keeps one");
}

TEST(Sampler, LargeTopKGoesTheHistogramsWay) {
  const std::vector<float> row = random_row(3000, 5, 1.0F);
  SamplingParams params;
  params.top_k = 1500;
  expect_distribution(row, params, exact_probabilities(row, params), nullptr, 20000);
  params.top_p = 0.7F;
  expect_distribution(row, params, exact_probabilities(row, params), nullptr, 20000);
  params.min_p = 0.02F;
  expect_distribution(row, params, exact_probabilities(row, params), nullptr, 20000);
}

// The set that can be drawn at all, found by the two paths and by definition, with many ties.
TEST(Sampler, CutsKeepTheRightSet) {
  std::mt19937 random(6);
  for (int round = 0; round < 60; ++round) {
    std::vector<float> row(64);
    for (float& x : row) x = static_cast<float>(random() % 7);
    SamplingParams params;
    params.temperature = 3;
    if (round % 2 == 0) params.top_k = static_cast<std::int32_t>(1 + random() % 40);
    if (round % 3 != 0) params.top_p = 0.05F + static_cast<float>(random() % 90) * 0.01F;
    const std::vector<double> exact = exact_probabilities(row, params);
    std::set<std::int32_t> possible, drawn;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      if (exact[i] > 0) possible.insert(static_cast<std::int32_t>(i));
    }
    for (std::int32_t position = 0; position < 3000; ++position) drawn.insert(sample(row, params, position).token);
    for (const std::int32_t token : drawn) ASSERT_TRUE(possible.contains(token)) << "round " << round;
    // A token of probability p is missing from 3,000 draws with e^(-3000 p): 1e-9 at p = 0.007.
    for (const std::int32_t token : possible) {
      if (exact[static_cast<std::size_t>(token)] > 0.007) {
        ASSERT_TRUE(drawn.contains(token)) << "round " << round;
      }
    }
  }
}

TEST(Sampler, PenaltiesAsDefined) {
  const std::vector<float> row = random_row(100, 8);
  SamplingParams params;
  params.repetition_penalty = 1.4F;
  params.presence_penalty = 0.7F;
  params.frequency_penalty = -0.4F;
  params.logit_bias = {{5, 3.0F}, {6, -100.0F}};
  TokenCounts counts;
  std::map<std::int32_t, int> plain;
  const std::vector<std::int32_t> prompt = {1, 2, 3, 3, 50, 51, 52};
  counts.add_prompt(prompt);
  for (const std::int32_t t : prompt) plain[t];
  for (const std::int32_t t : {3, 3, 60, 61, 60, 60, 99}) {
    counts.add_output(t);
    ++plain[t];
  }
  expect_distribution(row, params, exact_probabilities(row, params, plain), &counts);
  // Greedy sees them too.
  const std::vector<double> exact = exact_probabilities(row, params, plain);
  params.temperature = 0;
  EXPECT_EQ(sample(row, params, 0, &counts).token, std::max_element(exact.begin(), exact.end()) - exact.begin());
}

TEST(Sampler, SmallestTemperatureIsGreedy) {
  const std::vector<float> row = random_row(500, 9);
  SamplingParams params;
  params.temperature = 0;
  const std::int32_t best = sample(row, params).token;
  for (const float t : {1e-3F, 1e-30F, 1e-42F}) {
    params.temperature = t;
    for (std::int32_t position = 0; position < 50; ++position) ASSERT_EQ(sample(row, params, position).token, best);
  }
}

TEST(Sampler, AloneOrInABatchOnAnyThreads) {
  constexpr std::int32_t kVocab = 2000;
  std::vector<std::vector<float>> rows;
  std::vector<SamplingParams> params(24);
  for (std::uint32_t i = 0; i < 24; ++i) {
    rows.push_back(random_row(kVocab, 100 + i));
    params[i].temperature = i % 4 == 0 ? 0 : 0.3F + 0.1F * static_cast<float>(i);
    params[i].top_k = i % 3 == 0 ? 40 : 0;
    params[i].top_p = i % 5 == 0 ? 0.9F : 1.0F;
    params[i].seed = i * 77;
  }
  std::vector<SampleJob> jobs;
  for (std::size_t i = 0; i < 24; ++i) {
    jobs.push_back({rows[i], &params[i], nullptr, static_cast<std::int32_t>(i), 5});
  }
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    Sampler sampler(kVocab, kVocab, &pool);
    std::vector<SampleResult> results(24);
    sampler.run(jobs, results);
    for (std::size_t i = 0; i < 24; ++i) {
      const SampleResult alone = sample(rows[i], params[i], static_cast<std::int32_t>(i), nullptr, 5);
      EXPECT_EQ(results[i].token, alone.token);
      EXPECT_EQ(results[i].logprob->logprob, alone.logprob->logprob);
      EXPECT_EQ(results[i].logprob->top, alone.logprob->top);
    }
  }
}

TEST(Sampler, LogprobsAreOfTheRawLogits) {
  std::vector<float> row = random_row(700, 11);
  row[400] = row[20] = row[21];  // ties
  double total = 0;
  for (const float x : row) total += std::exp(static_cast<double>(x));
  SamplingParams params;
  params.temperature = 0.2F;
  params.repetition_penalty = 2;
  params.logit_bias = {{7, 100.0F}};
  TokenCounts counts;
  const SampleResult result = sample(row, params, 3, &counts, 20);
  ASSERT_EQ(result.token, 7);
  EXPECT_NEAR(result.logprob->logprob, static_cast<double>(row[7]) - std::log(total), 1e-5);
  ASSERT_EQ(result.logprob->top.size(), 20U);
  std::vector<std::int32_t> order(row.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return row[static_cast<std::size_t>(a)] > row[static_cast<std::size_t>(b)];
  });
  for (std::size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(result.logprob->top[i].first, order[i]);
    EXPECT_NEAR(result.logprob->top[i].second,
                static_cast<double>(row[static_cast<std::size_t>(order[i])]) - std::log(total), 1e-5);
  }
  EXPECT_TRUE(sample(row, params, 3, &counts, 0).logprob->top.empty());
  EXPECT_EQ(sample(row, params, 3, &counts, -1).logprob, nullptr);
}

}  // namespace
}  // namespace penstock
