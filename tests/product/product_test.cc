// Levels A and B of docs/numerics.md over the whole product of what an engine can be told and what can happen to a
// request: tokens, text and logprobs are, bit for bit, those of the same request alone, cold, without a cache, without
// overlap, in chunks of 256. The documented exception (a recurrent hit on generated state) is not used: our recurrent
// form has one arithmetic for prompts and for generated tokens, so it is held to the same here.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <list>
#include <unordered_set>

#include "cache/memory_plan.h"
#include "combinations.h"
#include "harness.h"

namespace penstock::product {
namespace {

using Tokens = std::vector<std::int32_t>;

constexpr std::size_t kCompany = 15;
// What admission leaves room for in a running request; only requests that go beyond can run out of pages (contract Q3).
constexpr std::int32_t kReservedTokens = 1024;

std::uint64_t next_random(std::uint64_t& state) {
  state += 0x9E3779B97F4A7C15U;
  std::uint64_t x = state;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

// The six models of one kind and the reference answers of each, made when first wanted.
class World {
 public:
  explicit World(bool bundled) : bundled_(bundled), tokenizer_(load_tokenizer()) {}

  const Model* model(const Combination& c) {
    auto& model = models_[{c.backend(), c.state()}];
    if (model == nullptr) model = load_model(bundled_, c.backend(), c.state());
    return model.get();
  }
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }

  // Problems in the words of the bundled model's training, or any tokens for random weights.
  Tokens prompt(std::int32_t count, std::uint64_t seed) const {
    Tokens tokens;
    if (!bundled_) {
      while (tokens.size() < static_cast<std::size_t>(count)) {
        tokens.push_back(static_cast<std::int32_t>(10 + next_random(seed) % (kTinyVocab - 10)));
      }
      return tokens;
    }
    const std::array names = {"Jonas", "Ivan", "Wendy", "Ava", "Ben", "Mia"};
    const std::array things = {"apples", "books", "coins", "tickets", "pencils", "cookies"};
    std::string text = "<|im_start|>user\n";
    while (tokens.size() < static_cast<std::size_t>(count)) {
      const auto number = [&] { return std::to_string(2 + next_random(seed) % 60); };
      const std::string a = names[next_random(seed) % names.size()], b = names[next_random(seed) % names.size()];
      const std::string thing = things[next_random(seed) % things.size()];
      text += a + " has " + number() + " " + thing + ". " + b + " gives " + a + " " + number() + " more " + thing +
              " and takes " + number() + ". How many " + thing + " does " + a + " have now?\n";
      auto encoded = tokenizer_->encode(text, SpecialTokens::kParse);
      EXPECT_TRUE(encoded.ok());
      if (!encoded.ok()) return Tokens(static_cast<std::size_t>(count), 5);
      tokens = *std::move(encoded);
    }
    tokens.resize(static_cast<std::size_t>(count));
    return tokens;
  }

  const Answer& reference(const Combination& c, const Request& request) {
    auto& kept = references_[{c.backend(), c.state()}];
    for (const auto& [asked, answer] : kept) {
      if (asked.prompt == request.prompt && asked.max_tokens == request.max_tokens &&
          asked.sampling.temperature == request.sampling.temperature) {
        return answer;
      }
    }
    EngineOptions options;
    options.max_running_requests = 1;
    options.chunked_prefill_size = 256;
    options.context_length = 2048;
    options.memory_bytes = std::int64_t{64} << 20;
    options.prefix_cache = false;
    options.overlap = false;
    Running engine(*model(c), tokenizer(), options);
    Answer answer = std::move(engine.together({request})[0]);
    EXPECT_EQ(answer.last.finish, FinishReason::kLength) << answer.last.status.message();
    EXPECT_EQ(answer.tokens.size(), static_cast<std::size_t>(request.max_tokens));
    EXPECT_EQ(answer.logprobs.size(), answer.tokens.size());
    // An answer that repeats itself would hide a state that is wrong.
    if (!bundled_) {
      const std::unordered_set<std::int32_t> distinct(answer.tokens.begin(), answer.tokens.end());
      EXPECT_GE(distinct.size(), std::min<std::size_t>(answer.tokens.size() / 4, 60)) << "the reference degenerates";
    }
    kept.emplace_back(request, std::move(answer));
    return kept.back().second;
  }

 private:
  using Kind = std::pair<std::string, std::string>;  // backend, state dtype
  bool bundled_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::map<Kind, std::unique_ptr<Model>> models_;
  std::map<Kind, std::list<std::pair<Request, Answer>>> references_;
};

World& tiny() {
  static World world(false);
  return world;
}
World& bundled() {
  static World world(true);
  return world;
}

Request ask(Tokens prompt, std::int32_t max_tokens, bool sampled) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.logprobs = 5;
  request.ignore_eos = true;
  request.sampling.temperature = sampled ? 0.9F : 0;
  if (!sampled) return request;
  request.sampling.seed = 42;
  request.sampling.top_p = 0.95F;
  request.sampling.top_k = 100;
  request.sampling.repetition_penalty = 1.1F;
  request.sampling.frequency_penalty = 0.2F;
  return request;
}

std::int32_t whole_blocks(std::size_t tokens) {
  return static_cast<std::int32_t>(tokens) / kBlockTokens * kBlockTokens;
}

// One combination: its scenario twice, greedy and sampled.
class Trial {
 public:
  Trial(World& world, const Combination& combination)
      : world_(world), c_(combination), random_(static_cast<std::uint64_t>(combination.index()) << 20) {}

  void all() {
    if (world_.model(c_) == nullptr) return;
    if (c_.scenario() == Scenario::kPreempted) {
      for (const bool sampled : {false, true}) {
        SCOPED_TRACE(sampled ? "sampled" : "greedy");
        preempted(sampled);
      }
      return;
    }
    EngineOptions options = common_options();
    options.context_length = 1024;
    options.max_running_requests = c_.company() ? kCompany + 1 : 1;
    options.memory_bytes = std::int64_t{32} << 20;
    if (&world_ == &bundled()) options.memory_bytes = std::int64_t{512} << 20;
    Running engine(*world_.model(c_), world_.tokenizer(), options);
    for (const bool sampled : {false, true}) {
      SCOPED_TRACE(sampled ? "sampled" : "greedy");
      unlimited(engine, sampled);
    }
    EXPECT_EQ(engine.stats().preempted, 0);
    engine.check_empty();
  }

 private:
  EngineOptions common_options() {
    EngineOptions options;
    options.chunked_prefill_size = c_.chunk();
    options.prefix_cache = c_.cache();
    options.strategy = c_.strategy();
    options.overlap = c_.overlap();
    options.track_interval = next_random(random_) % 2 == 0 ? 128 : 512;
    options.debug_invariants = true;
    return options;
  }

  std::vector<Request> company() {
    std::vector<Request> requests;
    while (requests.size() < kCompany) {
      const auto prompt = static_cast<std::int32_t>(5 + next_random(random_) % 250);
      const auto output = static_cast<std::int32_t>(10 + next_random(random_) % 130);
      requests.push_back(ask(world_.prompt(prompt, next_random(random_)), output, requests.size() % 3 == 0));
      requests.back().logprobs = requests.size() % 4 == 0 ? 2 : -1;
    }
    return requests;
  }

  // The answer to one request, with or without others that arrive at the same time, in the midst of them.
  Answer answer_to(Running& engine, const Request& request) {
    std::vector<Request> requests;
    if (c_.company()) requests = company();
    const std::size_t place = requests.size() / 2;
    requests.insert(requests.begin() + static_cast<std::ptrdiff_t>(place), request);
    std::vector<Answer> answers = engine.together(requests);
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const bool stops = !requests[i].stop_token_ids.empty();
      EXPECT_EQ(answers[i].last.finish, stops ? FinishReason::kStop : FinishReason::kLength)
          << answers[i].last.status.message();
      EXPECT_TRUE(stops || answers[i].tokens.size() == static_cast<std::size_t>(requests[i].max_tokens));
      EXPECT_TRUE(i == place || answers[i].last.cached_tokens == 0) << "an unrelated request has a hit";
    }
    return std::move(answers[place]);
  }

  void expect_same(const Answer& got, const Request& request, const char* what) {
    const std::string difference = first_difference(got, world_.reference(c_, request));
    EXPECT_TRUE(difference.empty()) << c_.name() << ", " << what << ": " << difference;
  }

  // Makes the answer, known beforehand, end with a stop token, as a chat's turn does: the engine cannot see that end
  // coming, and with overlap it has planned one token further. Best where that token would have filled a block, and
  // where not, as near to it as a token comes that has not been there before. Returns the answer's length, the stop
  // included.
  static std::size_t stop_near_a_boundary(const Tokens& answer, Request& turn) {
    const auto size = static_cast<std::ptrdiff_t>(answer.size());
    const auto prompt = static_cast<std::ptrdiff_t>(turn.prompt.size());
    const std::ptrdiff_t aim = whole_blocks(turn.prompt.size() + answer.size()) - prompt - 1;  // index of the stop
    std::ptrdiff_t best = size;
    for (std::ptrdiff_t i = 0; i < size; ++i) {
      const bool first =
          std::find(answer.begin(), answer.begin() + i, answer[static_cast<std::size_t>(i)]) == answer.begin() + i;
      if (first && prompt + i >= whole_blocks(turn.prompt.size()) + kBlockTokens &&
          (best == size || std::abs(i - aim) < std::abs(best - aim))) {
        best = i;
      }
    }
    EXPECT_LT(best, size) << "no token of the answer can stop it";
    if (best == size) return answer.size();
    turn.stop_token_ids = {answer[static_cast<std::size_t>(best)]};
    return static_cast<std::size_t>(best) + 1;
  }

  // Everything but preemption: there is room for all.
  void unlimited(Running& engine, bool sampled) {
    const std::uint64_t seed = sampled ? 2000 : 1000;
    Request measured = ask(world_.prompt(sampled ? 301 : 333, seed), sampled ? 110 : 140, sampled);
    std::int32_t cached = 0;
    switch (c_.scenario()) {
      case Scenario::kCold:
      case Scenario::kPreempted:
        break;
      case Scenario::kHitAfterPrefill: {
        Request before = measured;
        before.max_tokens = 1;
        answer_to(engine, before);
        cached = whole_blocks(measured.prompt.size() - 1);
        break;
      }
      case Scenario::kHitAfterGeneration: {
        const Answer& whole = world_.reference(c_, measured);
        Request turn = measured;
        std::size_t length = whole.tokens.size();
        if (next_random(random_) % 2 == 0) length = stop_near_a_boundary(whole.tokens, turn);
        const Answer before = answer_to(engine, turn);
        if (turn.stop_token_ids.empty()) expect_same(before, turn, "the turn before");
        if (before.tokens != Tokens(whole.tokens.begin(), whole.tokens.begin() + static_cast<std::ptrdiff_t>(length))) {
          ADD_FAILURE() << c_.name() << ": the turn before ended after " << before.tokens.size() << " tokens, not "
                        << length << ", or has others";
        }
        // The last token of an answer is never read.
        cached = whole_blocks(measured.prompt.size() + before.tokens.size() - 1);
        EXPECT_GT(cached, static_cast<std::int32_t>(measured.prompt.size()));
        Tokens prompt = measured.prompt;
        prompt.insert(prompt.end(), before.tokens.begin(), before.tokens.end());
        const Tokens more = world_.prompt(75, seed + 1);
        prompt.insert(prompt.end(), more.begin(), more.end());
        measured.prompt = std::move(prompt);
        break;
      }
      case Scenario::kBranch: {
        const std::size_t shared = sampled ? 140 : 200;
        for (std::uint64_t other = 1; other <= 2; ++other) {
          Request before = ask(measured.prompt, 10, sampled);
          const Tokens tail = world_.prompt(100, seed + other);
          before.prompt.resize(shared);
          before.prompt.insert(before.prompt.end(), tail.begin(), tail.end());
          answer_to(engine, before);
        }
        cached = whole_blocks(shared);
        break;
      }
    }
    const Answer answer = answer_to(engine, measured);
    EXPECT_EQ(answer.last.cached_tokens, c_.cache() ? cached : 0);
    expect_same(answer, measured, sampled ? "sampled" : "greedy");
  }

  // An older request and the measured one, both longer than what admission reserves, in memory for a little more than
  // the reserves of both: when they have used it up, the measured one, the younger, has to go until the other has
  // ended. Company is younger still; as many as find room run, the others wait.
  void preempted(bool sampled) {
    const CacheLayout& layout = world_.model(c_)->cache_layout();
    const std::int32_t older_prompt = 290, prompt = sampled ? 301 : 333;
    const auto slabs_for = [](std::int32_t slots, std::int32_t per_slab) { return (slots + per_slab - 1) / per_slab; };
    const std::int32_t state_slabs = slabs_for(2, layout.states_per_slab);
    const std::int32_t page_slabs = slabs_for(
        pages_for(older_prompt + kReservedTokens) + pages_for(prompt + kReservedTokens) + 6, layout.pages_per_slab);
    const std::int32_t room = page_slabs * layout.pages_per_slab;
    std::int32_t outgrown = kReservedTokens;  // output tokens of each with which there is no room for both
    while (pages_for(older_prompt + outgrown) + pages_for(prompt + outgrown) <= room) ++outgrown;

    EngineOptions options = common_options();
    options.context_length = prompt + outgrown + 100;
    options.max_running_requests = c_.company() ? 6 : 2;
    options.memory_bytes = std::int64_t{state_slabs + page_slabs} * static_cast<std::int64_t>(layout.slab_bytes) +
                           std::int64_t{options.max_running_requests} * static_cast<std::int64_t>(layout.window_bytes);
    Running engine(*world_.model(c_), world_.tokenizer(), options);
    std::vector<Request> requests = {ask(world_.prompt(older_prompt, 1), outgrown + 40, false),
                                     ask(world_.prompt(prompt, sampled ? 2000 : 1000), outgrown + 100, sampled)};
    if (c_.company()) {
      for (Request& other : company()) requests.push_back(std::move(other));
    }
    const std::vector<Answer> answers = engine.together(requests);
    for (std::size_t i = 0; i < answers.size(); ++i) {
      EXPECT_EQ(answers[i].last.finish, FinishReason::kLength) << answers[i].last.status.message();
      EXPECT_EQ(answers[i].tokens.size(), static_cast<std::size_t>(requests[i].max_tokens));
    }
    expect_same(answers[1], requests[1], "preempted and resumed");
    EXPECT_GT(engine.stats().preempted, 0);
    EXPECT_GT(longest_pause(answers[1], answers[0]), 2) << "the measured request was not preempted";
    engine.check_empty();
  }

  // Most tokens that the other request got between two of this one's.
  static std::int64_t longest_pause(const Answer& answer, const Answer& other) {
    std::int64_t longest = 0;
    for (std::size_t i = 1; i < answer.steps.size(); ++i) {
      longest = std::max(longest, std::count_if(other.steps.begin(), other.steps.end(), [&](std::int64_t step) {
                           return step > answer.steps[i - 1] && step < answer.steps[i];
                         }));
    }
    return longest;
  }

  World& world_;
  Combination c_;
  std::uint64_t random_;
};

class Product : public ::testing::TestWithParam<Combination> {};
TEST_P(Product, SameBits) {
  Trial(tiny(), GetParam()).all();
}

class ProductBundled : public ::testing::TestWithParam<Combination> {};
TEST_P(ProductBundled, SameBits) {
  Trial(bundled(), GetParam()).all();
}

constexpr std::size_t kSample = 60;
constexpr std::uint64_t kSampleSeed = 4;

const auto kName = [](const auto& info) { return info.param.name(); };
INSTANTIATE_TEST_SUITE_P(Sample, Product, ::testing::ValuesIn(sample(kSample, kSampleSeed)), kName);
// In the long suite.
INSTANTIATE_TEST_SUITE_P(Whole, Product, ::testing::ValuesIn(whole_product()), kName);
INSTANTIATE_TEST_SUITE_P(Long, ProductBundled, ::testing::ValuesIn(sample(40, kSampleSeed + 1)), kName);

TEST(ProductSample, HasEveryPairOfValues) {
  const std::vector<Combination> chosen = sample(kSample, kSampleSeed);
  EXPECT_EQ(chosen.size(), kSample);
  std::set<Pair> covered;
  std::set<int> indices;
  for (const Combination& combination : chosen) {
    covered.merge(pairs_of(combination));
    indices.insert(combination.index());
  }
  EXPECT_EQ(indices.size(), kSample);
  EXPECT_EQ(covered, all_pairs());
  EXPECT_EQ(whole_product().size(), 1080U);
}

}  // namespace
}  // namespace penstock::product
