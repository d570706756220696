// Real models behind Engine::create, with arrivals that are the same in every run.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/model.h"
#include "penstock/engine.h"
#include "text/tokenizer.h"

namespace penstock::product {

inline std::filesystem::path bundled_model() {
  return std::filesystem::path(PENSTOCK_SOURCE_DIR) / "models" / "gsm-hybrid";
}

inline std::unique_ptr<Tokenizer> load_tokenizer() {
  auto tokenizer = Tokenizer::load(bundled_model());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

// Two GDN and two attention layers, head ratio 2 in both, sizes that no SIMD width divides evenly. Tokens are the
// first of the bundled model's vocabulary, so that its tokenizer makes text of them.
inline constexpr std::int32_t kTinyVocab = 600;
inline constexpr const char* kTinyConfig = R"({
  "architectures": ["Qwen3_5ForCausalLM"], "model_type": "qwen3_5_text", "vocab_size": 600, "hidden_size": 64,
  "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 48, "hidden_act": "silu",
  "max_position_embeddings": 4096, "rms_norm_eps": 1e-06, "tie_word_embeddings": false, "attn_output_gate": true,
  "linear_conv_kernel_dim": 4, "linear_key_head_dim": 32, "linear_value_head_dim": 64, "linear_num_key_heads": 2,
  "linear_num_value_heads": 4, "mamba_ssm_dtype": "float32", "eos_token_id": 1, "intermediate_size": 96,
  "rope_parameters": {"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 0.5},
  "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"]
})";

inline std::unique_ptr<Model> load_model(bool bundled, const std::string& backend, const std::string& state) {
  std::filesystem::path dir = bundled_model();
  CheckpointOptions source;
  if (!bundled) {
    dir = std::filesystem::path(::testing::TempDir()) / ("penstock_product_" + std::to_string(::getpid()));
    std::filesystem::create_directories(dir);
    std::ofstream(dir / "config.json") << kTinyConfig;
    source.format = LoadFormat::kDummy;
    source.seed = 4;
  }
  auto checkpoint = Checkpoint::open(dir, source);
  if (!bundled) std::filesystem::remove_all(dir);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  if (!checkpoint.ok()) return nullptr;
  ModelOptions options;
  options.threads = 2;
  options.kernels.gdn_backend = backend;
  options.kernels.state_dtype = state;
  auto model = Model::create(**checkpoint, options);
  EXPECT_TRUE(model.ok()) << model.status().message();
  return model.ok() ? *std::move(model) : nullptr;
}

struct Answer {
  std::vector<std::int32_t> tokens;
  std::vector<std::int64_t> steps;  // of the engine, when each token came
  std::string text;
  std::vector<TokenLogprob> logprobs;
  Event last;
  bool ended() const { return last.finish != FinishReason::kNone; }
};

inline bool same_bits(float a, float b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

// Where two answers first differ in tokens, logprobs or text; empty: nowhere.
inline std::string first_difference(const Answer& got, const Answer& want) {
  const auto at = [&](std::size_t i, const std::string& what, const auto& a, const auto& b) {
    std::ostringstream out;
    out.precision(9);
    out << "first difference at output token " << i << " of " << want.tokens.size() << " (position "
        << static_cast<std::size_t>(want.last.prompt_tokens) + i << "), " << what << ": got " << a << ", reference "
        << b;
    return out.str();
  };
  for (std::size_t i = 0; i < std::min(got.tokens.size(), want.tokens.size()); ++i) {
    if (i >= got.logprobs.size() || i >= want.logprobs.size()) {
      return at(i, "number of logprobs", got.logprobs.size(), want.logprobs.size());
    }
    // Logprobs first: they differ before tokens do.
    const TokenLogprob& a = got.logprobs[i];
    const TokenLogprob& b = want.logprobs[i];
    if (a.top.size() != b.top.size()) return at(i, "number of top logprobs", a.top.size(), b.top.size());
    for (std::size_t k = 0; k < a.top.size(); ++k) {
      const std::string place = "top " + std::to_string(k);
      if (a.top[k].first != b.top[k].first) return at(i, place + " token", a.top[k].first, b.top[k].first);
      if (!same_bits(a.top[k].second, b.top[k].second)) {
        return at(i, place + " logprob", a.top[k].second, b.top[k].second);
      }
    }
    if (got.tokens[i] != want.tokens[i]) return at(i, "token", got.tokens[i], want.tokens[i]);
    if (a.token != b.token) return at(i, "token of the logprob", a.token, b.token);
    if (!same_bits(a.logprob, b.logprob)) return at(i, "logprob", a.logprob, b.logprob);
  }
  if (got.tokens.size() != want.tokens.size()) {
    return at(std::min(got.tokens.size(), want.tokens.size()), "number of tokens", got.tokens.size(),
              want.tokens.size());
  }
  if (got.text != want.text) return "the tokens agree, the text does not";
  if (got.last.finish != want.last.finish)
    return at(want.tokens.size(), "finish", to_string(got.last.finish), to_string(want.last.finish));
  return {};
}

class Running {
 public:
  Running(const Model& model, const Tokenizer* tokenizer, const EngineOptions& options) {
    auto engine = Engine::create(model, tokenizer, options, [this](std::vector<Event>& events) { take(events); });
    EXPECT_TRUE(engine.ok()) << engine.status().message();
    if (engine.ok()) engine_ = *std::move(engine);
  }

  // Runs the requests together and returns their answers in order. They arrive between the same two steps, whatever the
  // machine does: an opener of one token runs first, and its end submits them from the engine's own thread.
  std::vector<Answer> together(const std::vector<Request>& requests) {
    if (engine_ == nullptr) return std::vector<Answer>(requests.size());
    Request opener;
    opener.prompt = {5};
    opener.max_tokens = 1;
    opener.ignore_eos = true;
    std::unique_lock lock(mutex_);
    answers_.clear();
    arriving_ = requests;
    ids_.clear();
    ended_ = 0;
    opener_ = 0;
    lock.unlock();
    const auto accepted = engine_->submit(opener, [this](RequestId id) {
      const std::lock_guard guard(mutex_);
      opener_ = id;
    });
    EXPECT_TRUE(accepted.ok()) << accepted.status().message();
    lock.lock();
    const auto patience = std::chrono::seconds(std::getenv("PENSTOCK_SANITIZED") != nullptr ? 600 : 120);
    const bool finished =
        changed_.wait_for(lock, patience, [&] { return ids_.size() == requests.size() && ended_ == requests.size(); });
    std::vector<Answer> result(requests.size());
    for (std::size_t i = 0; i < ids_.size(); ++i) result[i] = std::move(answers_[ids_[i]]);
    lock.unlock();
    EXPECT_TRUE(finished) << "the requests did not end in time";
    check_idle();
    return result;
  }

  EngineStats stats() const { return engine_ == nullptr ? EngineStats{} : engine_->stats(); }

  // Contract S7, with the cache full and with it empty.
  void check_empty() {
    if (engine_ == nullptr) return;
    check_idle();
    const EngineStats stats = engine_->stats();
    EXPECT_EQ(stats.failed + stats.cancelled + stats.rejected, 0);
    engine_->flush_cache();
    check_idle();
    EXPECT_EQ(engine_->stats().kv_pages_cached, 0);
    EXPECT_EQ(engine_->stats().state_slots_cached, 0);
  }

 private:
  void check_idle() {
    const Status status = engine_->check_invariants();
    EXPECT_TRUE(status.ok()) << status.message();
    const EngineStats stats = engine_->stats();
    EXPECT_EQ(stats.kv_pages_used, 0);
    EXPECT_EQ(stats.state_slots_used, 0);
    EXPECT_EQ(stats.windows_used, 0);
    EXPECT_EQ(stats.running + stats.waiting, 0);
  }

  void take(std::vector<Event>& events) {
    const std::int64_t step = engine_->stats().steps;
    const std::lock_guard lock(mutex_);
    bool open = false;
    for (Event& event : events) {
      if (event.request == opener_) {
        open |= event.finish != FinishReason::kNone;
        continue;
      }
      Answer& answer = answers_[event.request];
      EXPECT_FALSE(answer.ended()) << "an event after the end";
      if (event.token >= 0) {
        answer.tokens.push_back(event.token);
        answer.steps.push_back(step);
      }
      answer.text += event.text;
      if (event.logprob) answer.logprobs.push_back(*event.logprob);
      if (event.finish == FinishReason::kNone) continue;
      answer.last = std::move(event);
      ++ended_;
    }
    if (open) {
      for (const Request& request : arriving_) {
        const auto id = engine_->submit(request);
        EXPECT_TRUE(id.ok()) << id.status().message();
        ids_.push_back(id.ok() ? *id : 0);
      }
    }
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, Answer> answers_;
  std::vector<Request> arriving_;
  std::vector<RequestId> ids_;
  std::size_t ended_ = 0;
  RequestId opener_ = 0;
  std::unique_ptr<Engine> engine_;  // last: its thread uses everything above
};

}  // namespace penstock::product
