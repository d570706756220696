// The engine on the bundled model: the same bits whatever runs beside it and however a prompt is cut.
#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>

#include "checkpoint/checkpoint.h"
#include "engine/testing/core_harness.h"
#include "model/model.h"
#include "penstock/engine.h"
#include "text/tokenizer.h"

namespace penstock::testing {
namespace {

const std::filesystem::path kModelDir = std::filesystem::path(PENSTOCK_SOURCE_DIR) / "models" / "gsm-hybrid";

// Of the kinds the model was trained on, and the last line of the right answer.
struct Problem {
  const char* question;
  const char* answer;
};
const std::vector<Problem> kProblems = {
    {"Jonas works at a library 8 hours a day for 4 days a week and earns $12 an hour. Every week Jonas spends $30 on "
     "the "
     "bus and food. How many dollars are left at the end of a week?",
     "#### 354"},
    {"Ivan is 12 years old. Wendy is 3 times as old as Ivan. Jonas is 5 years older than Wendy. What is the sum of "
     "their "
     "ages?",
     "#### 89"},
};

class Bundled : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto checkpoint = Checkpoint::open(kModelDir, {});
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
    ModelOptions options;
    options.threads = 2;
    options.kernels.gdn_backend = GetParam();
    auto model = Model::create(**checkpoint, options);
    ASSERT_TRUE(model.ok()) << model.status().message();
    model_ = *std::move(model);
    auto tokenizer = Tokenizer::load(kModelDir);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    tokenizer_ = *std::move(tokenizer);
  }

  // Runs the requests together and returns their answers in order.
  std::vector<Answer> run(const std::vector<Request>& requests, std::int32_t running, std::int32_t chunk) {
    std::mutex mutex;
    std::condition_variable changed;
    std::map<RequestId, Answer> answers;
    std::size_t ended = 0;
    EngineOptions options;
    options.max_running_requests = running;
    options.chunked_prefill_size = chunk;
    options.context_length = 1024;
    options.memory_bytes = std::int64_t{1} << 30;
    options.debug_invariants = true;
    auto engine = Engine::create(
        *model_, tokenizer_.get(), options,
        [&](std::vector<Event>& events) {
          const std::lock_guard lock(mutex);
          for (Event& event : events) {
            answers[event.request].take(event);
            ended += answers[event.request].ended();
          }
          changed.notify_all();
        },
        [&](RequestId id, std::int32_t position, std::span<const float> row) {
          const std::lock_guard lock(mutex);
          answers[id].take_logits(position, row);
        });
    EXPECT_TRUE(engine.ok()) << engine.status().message();
    if (!engine.ok()) return {};
    std::vector<RequestId> ids;
    for (const Request& request : requests) {
      const auto id = (*engine)->submit(request);
      EXPECT_TRUE(id.ok()) << id.status().message();
      ids.push_back(*id);
    }
    std::unique_lock lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(300), [&] { return ended == requests.size(); }));
    std::vector<Answer> result;
    for (const RequestId id : ids) result.push_back(std::move(answers[id]));
    lock.unlock();
    EXPECT_TRUE((*engine)->check_invariants().ok());
    return result;
  }

  Request chat(const std::string& question) const {
    Request request;
    request.prompt = *tokenizer_->encode(
        fmt::format("<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", question), SpecialTokens::kParse);
    request.max_tokens = 120;
    request.sampling.temperature = 0;
    request.logprobs = 2;
    return request;
  }

  std::unique_ptr<Model> model_;
  std::unique_ptr<Tokenizer> tokenizer_;
};
INSTANTIATE_TEST_SUITE_P(Engine, Bundled, ::testing::Values("window", "recurrent"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(Bundled, AloneOrTogetherTheSameBits) {
  std::vector<Request> requests;
  for (std::size_t i = 0; i < 12; ++i) {
    requests.push_back(chat(kProblems[i % kProblems.size()].question));
    if (i < kProblems.size()) continue;
    requests.back().sampling.temperature = 0.8F;
    requests.back().sampling.top_p = 0.95F;
    requests.back().sampling.seed = i;
  }
  const std::vector<Answer> together = run(requests, 12, 1000);
  const std::vector<Answer> alone = run(requests, 1, 64);
  ASSERT_EQ(together.size(), alone.size());
  for (std::size_t i = 0; i < together.size(); ++i) {
    EXPECT_EQ(together[i].text, alone[i].text);
    ASSERT_EQ(together[i].tokens, alone[i].tokens) << i;
    EXPECT_EQ(together[i].last.finish, alone[i].last.finish);
    for (std::size_t t = 0; t < together[i].logprobs.size(); ++t) {
      EXPECT_EQ(together[i].logprobs[t].logprob, alone[i].logprobs[t].logprob);
      EXPECT_EQ(together[i].logprobs[t].top, alone[i].logprobs[t].top);
    }
  }
  for (std::size_t i = 0; i < kProblems.size(); ++i) {
    EXPECT_TRUE(together[i].text.ends_with(kProblems[i].answer)) << together[i].text;
    EXPECT_EQ(together[i].last.finish, FinishReason::kStop);
  }
}

TEST_P(Bundled, ScoringTheSameBitsHoweverCut) {
  std::vector<std::int32_t> tokens;
  for (const Problem& problem : kProblems) {
    const Request request = chat(std::string(problem.question).append(problem.question));
    tokens.insert(tokens.end(), request.prompt.begin(), request.prompt.end());
  }
  ASSERT_GT(tokens.size(), 150U);
  std::vector<Request> requests;
  // The recurrent backend may round differently between prefill and decode; its exception is documented.
  const bool window = std::string(GetParam()) == "window";
  for (const std::size_t decode_from :
       {tokens.size(), std::size_t{1}, std::size_t{63}, std::size_t{64}, std::size_t{100}}) {
    Request request;
    const auto cut = tokens.begin() + static_cast<std::ptrdiff_t>(window ? decode_from : tokens.size());
    request.prompt.assign(tokens.begin(), cut);
    request.forced.assign(cut, tokens.end());
    request.return_logits = true;
    requests.push_back(std::move(request));
  }
  const std::vector<Answer> reference = run({requests[0]}, 1, 64);
  ASSERT_EQ(reference.size(), 1U);
  ASSERT_EQ(reference[0].logits.size(), tokens.size());
  for (const std::int32_t chunk : {64, 100, 1000}) {
    for (const Answer& answer : run(requests, 8, chunk)) {
      EXPECT_TRUE(answer.ascending);
      EXPECT_TRUE(answer.logits == reference[0].logits) << "chunk " << chunk;
    }
  }
}

}  // namespace
}  // namespace penstock::testing
