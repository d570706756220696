// The engine with its thread: what callers on other threads see.
#include "penstock/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "engine/engine_impl.h"
#include "engine/testing/core_harness.h"

namespace penstock::testing {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

class EngineFixture : public ::testing::Test {
 protected:
  void start(EngineOptions options = {}, FakeModelOptions model = {}) {
    if (options.memory_bytes == 0) options.memory_bytes = 64 << 20;
    options.debug_invariants = true;
    model_options_ = model;
    auto engine = create_engine(
        fake_model(model, log_), &tokenizer_, options,
        [this](std::vector<Event>& events) {
          const std::lock_guard lock(mutex_);
          ++sink_calls_;
          for (Event& event : events) answers_[event.request].take(event);
          changed_.notify_all();
        },
        [this](RequestId id, std::int32_t position, std::span<const float> row) {
          const std::lock_guard lock(mutex_);
          answers_[id].take_logits(position, row);
        });
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    engine_ = *std::move(engine);
  }
  void TearDown() override {
    open_gate();
    engine_.reset();
    for (const std::string& violation : log_.violations) ADD_FAILURE() << violation;
    for (const auto& [id, answer] : answers_) {
      EXPECT_TRUE(answer.ended()) << "request " << id;
      EXPECT_EQ(answer.events_after_end, 0) << "request " << id;
    }
  }

  RequestId submit(Request request) {
    const auto id = engine_->submit(std::move(request));
    EXPECT_TRUE(id.ok()) << id.status().message();
    return id.ok() ? *id : 0;
  }
  // Waits until the predicate on the answer holds, with the lock.
  template <typename Predicate>
  void wait(RequestId id, Predicate&& predicate) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, 30s, [&] { return predicate(answers_[id]); })) << "request " << id;
  }
  void wait_end(RequestId id) {
    wait(id, [](const Answer& a) { return a.ended(); });
  }
  FinishReason finish(RequestId id) {
    const std::lock_guard lock(mutex_);
    return answers_[id].last.finish;
  }

  // Steps wait at the gate while it is closed.
  void close_gate() {
    log_.before_step = [this] {
      std::unique_lock lock(gate_mutex_);
      at_gate_ = true;
      gate_changed_.notify_all();
      gate_changed_.wait(lock, [this] { return gate_open_; });
      at_gate_ = false;
    };
    gate_open_ = false;
  }
  void wait_at_gate() {
    std::unique_lock lock(gate_mutex_);
    ASSERT_TRUE(gate_changed_.wait_for(lock, 30s, [this] { return at_gate_; }));
  }
  void open_gate() {
    const std::lock_guard lock(gate_mutex_);
    gate_open_ = true;
    gate_changed_.notify_all();
  }

  FakeLog log_;
  FakeTokenizer tokenizer_;
  FakeModelOptions model_options_;
  std::mutex mutex_, gate_mutex_;
  std::condition_variable changed_, gate_changed_;
  bool gate_open_ = true, at_gate_ = false;
  std::map<RequestId, Answer> answers_;
  std::int64_t sink_calls_ = 0;
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineFixture, AnswersAndCounts) {
  start();
  const auto prompt = some_tokens(100, 1);
  RequestId accepted = 0;
  const auto id = engine_->submit(greedy_request(prompt, 30), [&](RequestId i) { accepted = i; });
  ASSERT_TRUE(id.ok());
  EXPECT_EQ(accepted, *id);
  wait_end(*id);
  EXPECT_EQ(answers_[*id].tokens, expected_greedy(model_options_, prompt, 30));
  EXPECT_EQ(answers_[*id].last.prompt_tokens, 100);
  EXPECT_EQ(answers_[*id].last.output_tokens, 30);
  const EngineStats stats = engine_->stats();
  EXPECT_EQ(stats.finished, 1);
  EXPECT_EQ(stats.prompt_tokens, 100);
  EXPECT_EQ(stats.output_tokens, 30);
  EXPECT_EQ(stats.steps, 30);
  EXPECT_EQ(stats.running + stats.waiting, 0);
  EXPECT_EQ(stats.kv_pages_used + stats.state_slots_used + stats.windows_used, 0);
  EXPECT_GT(stats.kv_pages_total, 0);
  EXPECT_TRUE(engine_->check_invariants().ok());
  EXPECT_EQ(engine_->context_length(), 4096);
  EXPECT_EQ(engine_->max_running_requests(), 64);
  EXPECT_THAT(engine_->memory_plan(), HasSubstr("KV pages"));
}

TEST_F(EngineFixture, OneSinkCallAStep) {
  start();
  close_gate();
  submit(greedy_request(some_tokens(3, 1), 20));
  wait_at_gate();
  std::vector<RequestId> ids;
  for (std::uint64_t i = 0; i < 10; ++i) ids.push_back(submit(greedy_request(some_tokens(3, i), 20)));
  open_gate();
  for (const RequestId id : ids) wait_end(id);
  EXPECT_EQ(sink_calls_, log_.steps.load());
  EXPECT_EQ(log_.most_slices, 11);
}

TEST_F(EngineFixture, BadRequestsAreRefusedAtOnce) {
  start();
  EXPECT_EQ(engine_->submit(Request{}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(engine_->submit(greedy_request(some_tokens(4000, 1), 97)).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(engine_->stats().steps, 0);
}

TEST_F(EngineFixture, TheQueueIsBounded) {
  EngineOptions options;
  options.max_running_requests = 2;
  options.max_queued_requests = 3;
  options.max_queued_tokens = 100;
  start(options);
  close_gate();
  std::vector<RequestId> ids = {submit(greedy_request(some_tokens(10, 1), 5))};
  wait_at_gate();
  EXPECT_EQ(engine_->stats().waiting, 0);
  // A prompt longer than the bound is taken by an empty queue; nothing joins it.
  ids.push_back(submit(greedy_request(some_tokens(500, 2), 5)));
  auto refused = engine_->submit(greedy_request(some_tokens(1, 3), 5));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.status().message(), HasSubstr("1 requests with 500 prompt tokens"));
  engine_->cancel(ids[1]);
  open_gate();
  for (const RequestId id : ids) wait_end(id);
  close_gate();
  ids.push_back(submit(greedy_request(some_tokens(10, 1), 5)));
  wait_at_gate();
  for (int i = 0; i < 3; ++i) ids.push_back(submit(greedy_request(some_tokens(10, 1), 5)));
  EXPECT_EQ(engine_->stats().waiting, 3);
  EXPECT_EQ(engine_->submit(greedy_request(some_tokens(10, 1), 5)).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(engine_->stats().rejected, 2);
  open_gate();
  for (const RequestId id : ids) wait_end(id);
}

TEST_F(EngineFixture, CancelEndsARunningRequest) {
  start();
  const RequestId id = submit(greedy_request(some_tokens(10, 1), 4000));
  wait(id, [](const Answer& a) { return a.tokens.size() > 3; });
  engine_->cancel(id);
  engine_->cancel(12345);
  wait_end(id);
  EXPECT_EQ(finish(id), FinishReason::kCancelled);
  EXPECT_EQ(engine_->stats().cancelled, 1);
}

TEST_F(EngineFixture, CancelBeforeTheRequestIsInCounts) {
  start();
  const auto id = engine_->submit(greedy_request(some_tokens(10, 1), 4000), [&](RequestId i) { engine_->cancel(i); });
  ASSERT_TRUE(id.ok());
  wait_end(*id);
  EXPECT_EQ(finish(*id), FinishReason::kCancelled);
  EXPECT_TRUE(answers_[*id].tokens.empty());
}

TEST_F(EngineFixture, DrainFinishesWhatThereIs) {
  EngineOptions options;
  options.max_running_requests = 2;
  start(options);
  std::vector<RequestId> ids;
  for (std::uint64_t i = 0; i < 6; ++i) ids.push_back(submit(greedy_request(some_tokens(10, i), 50)));
  engine_->drain(60);
  for (const RequestId id : ids) EXPECT_EQ(finish(id), FinishReason::kLength);
  EXPECT_EQ(engine_->submit(greedy_request(some_tokens(10, 1), 5)).status().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(engine_->check_invariants().ok());
  engine_->cancel(ids[0]);
  engine_->drain(0);
}

TEST_F(EngineFixture, DrainCancelsWhatTakesTooLong) {
  EngineOptions options;
  options.max_running_requests = 1;
  start(options);
  log_.before_step = [] { std::this_thread::sleep_for(5ms); };
  const RequestId quick = submit(greedy_request(some_tokens(10, 1), 2));
  const RequestId slow = submit(greedy_request(some_tokens(10, 1), 4000));
  const RequestId waiting = submit(greedy_request(some_tokens(10, 1), 4000));
  const auto begin = std::chrono::steady_clock::now();
  engine_->drain(0.3);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
  EXPECT_EQ(finish(quick), FinishReason::kLength);
  EXPECT_EQ(finish(slow), FinishReason::kCancelled);
  EXPECT_EQ(finish(waiting), FinishReason::kCancelled);
}

TEST_F(EngineFixture, DestructionEndsRequests) {
  EngineOptions options;
  options.max_running_requests = 2;
  start(options);
  std::vector<RequestId> ids;
  for (std::uint64_t i = 0; i < 5; ++i) ids.push_back(submit(greedy_request(some_tokens(10, i), 4000)));
  engine_.reset();
  for (const RequestId id : ids) EXPECT_EQ(finish(id), FinishReason::kCancelled);
}

TEST_F(EngineFixture, DrainFromTheSink) {
  std::atomic<Engine*> handle = nullptr;
  std::atomic<int> ends = 0;
  auto engine = create_engine(fake_model({}, log_), nullptr, {.memory_bytes = 1 << 24},
                              [&](std::vector<Event>& events) {
                                for (const Event& event : events) ends += event.finish != FinishReason::kNone;
                                while (handle.load() == nullptr) std::this_thread::yield();
                                handle.load()->drain(0);
                              },
                              {});
  ASSERT_TRUE(engine.ok());
  handle = engine->get();
  ASSERT_TRUE((*engine)->submit(greedy_request(some_tokens(5, 1), 4000)).ok());
  (*engine)->drain(60);
  EXPECT_EQ(ends.load(), 1);
}

TEST_F(EngineFixture, TooLittleMemoryIsAnError) {
  const auto engine = create_engine(fake_model({}, log_), nullptr, {.memory_bytes = 64}, [](auto&) {}, {});
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.status().code(), StatusCode::kResourceExhausted);
}

TEST_F(EngineFixture, LogitsComeToTheirSink) {
  start();
  Request request;
  request.prompt = some_tokens(70, 1);
  request.forced = some_tokens(5, 2);
  request.return_logits = true;
  const RequestId id = submit(std::move(request));
  wait_end(id);
  EXPECT_EQ(answers_[id].logits.size(), 75U);
  EXPECT_TRUE(answers_[id].ascending);
}

TEST_F(EngineFixture, ManyThreads) {
  EngineOptions options;
  options.max_running_requests = 6;
  options.max_queued_requests = 40;
  options.chunked_prefill_size = 70;
  options.context_length = 3008;
  FakeModelOptions model;
  options.memory_bytes = fake_memory(fake_model(model, log_).layout, 6, 50);
  start(options, model);
  std::atomic<bool> done = false;
  std::mutex expected_mutex;
  std::map<RequestId, std::pair<std::vector<std::int32_t>, std::int32_t>> asked;
  const auto client = [&](std::uint64_t seed) {
    std::uint64_t random = mix(seed);
    const auto next = [&](std::uint64_t n) { return (random = mix(random)) % n; };
    for (int i = 0; i < 60; ++i) {
      auto prompt = some_tokens(static_cast<std::int32_t>(1 + next(200)), random);
      const auto output = static_cast<std::int32_t>(1 + next(next(10) == 0 ? 1500 : 30));
      Request request = greedy_request(prompt, output);
      request.priority = static_cast<std::int32_t>(next(2));
      const auto id = engine_->submit(std::move(request), [&](RequestId accepted) {
        const std::lock_guard lock(expected_mutex);
        asked[accepted] = {prompt, output};
      });
      if (!id.ok()) {
        EXPECT_EQ(id.status().code(), StatusCode::kResourceExhausted);
        std::this_thread::sleep_for(1ms);
        continue;
      }
      if (next(3) == 0) engine_->cancel(*id);
      if (next(4) == 0) wait_end(*id);
    }
  };
  std::vector<std::thread> clients;
  for (std::uint64_t i = 0; i < 6; ++i) clients.emplace_back(client, i);
  std::thread watcher([&] {
    while (!done) {
      const EngineStats stats = engine_->stats();
      EXPECT_LE(stats.running, 6);
      EXPECT_TRUE(engine_->check_invariants().ok());
      std::this_thread::sleep_for(2ms);
    }
  });
  for (std::thread& thread : clients) thread.join();
  engine_->drain(120);
  done = true;
  watcher.join();
  int whole = 0;
  for (const auto& [id, request] : asked) {
    const Answer& answer = answers_[id];
    ASSERT_TRUE(answer.ended());
    EXPECT_EQ(answer.tokens, expected_greedy(model, request.first, static_cast<std::int32_t>(answer.tokens.size())));
    whole += answer.last.finish == FinishReason::kLength;
  }
  EXPECT_GT(whole, 50);
  const EngineStats stats = engine_->stats();
  EXPECT_EQ(stats.finished + stats.cancelled, static_cast<std::int64_t>(asked.size()));
  EXPECT_EQ(stats.kv_pages_used + stats.state_slots_used + stats.windows_used, 0);
}

// Submitting while the engine stops: every request that got an id gets its end, the others are told.
TEST_F(EngineFixture, SubmitAgainstDrain) {
  start();
  std::vector<std::thread> clients;
  std::atomic<int> accepted = 0, refused = 0;
  for (std::uint64_t c = 0; c < 4; ++c) {
    clients.emplace_back([&, c] {
      for (std::uint64_t i = 0; i < 1000; ++i) {
        const auto id = engine_->submit(greedy_request(some_tokens(3, c * 1000 + i), 3), [&](RequestId accepted_id) {
          const std::lock_guard lock(mutex_);
          answers_[accepted_id];
        });
        if (id.ok()) {
          ++accepted;
          continue;
        }
        ++refused;
        if (id.status().code() == StatusCode::kUnavailable) break;
      }
    });
  }
  std::this_thread::sleep_for(5ms);
  engine_->drain(0.005);
  for (std::thread& thread : clients) thread.join();
  EXPECT_EQ(answers_.size(), static_cast<std::size_t>(accepted.load()));
  EXPECT_GE(refused.load(), 0);
}

}  // namespace
}  // namespace penstock::testing
