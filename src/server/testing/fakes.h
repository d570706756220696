// A tokenizer of bytes, a template of three words and an engine that follows a script: for tests of the server alone.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "penstock/engine.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace penstock::testing {

constexpr std::int32_t kImStart = 256;
constexpr std::int32_t kImEnd = 257;
constexpr std::int32_t kVocab = 300;  // ids 258 to 299 have no bytes

// Token id = byte; two special tokens.
class FakeTokenizer : public Tokenizer {
 public:
  Expected<std::vector<std::int32_t>> encode(std::string_view text, SpecialTokens special) const override {
    const std::vector<std::pair<std::size_t, std::size_t>> all = {{0, text.size()}};
    return encode_with_plain_ranges(text, special == SpecialTokens::kAsText ? all : decltype(all)());
  }

  Expected<std::vector<std::int32_t>> encode_with_plain_ranges(
      std::string_view text, std::span<const std::pair<std::size_t, std::size_t>> plain) const override {
    std::vector<std::int32_t> ids;
    for (std::size_t i = 0; i < text.size();) {
      bool special = false;
      for (std::int32_t id = kImStart; id <= kImEnd; ++id) {
        const std::size_t end = i + content(id).size();
        const bool touched = std::any_of(plain.begin(), plain.end(),
                                         [&](const auto& range) { return range.first < end && range.second > i; });
        if (touched || !text.substr(i).starts_with(content(id))) continue;
        ids.push_back(id);
        i = end;
        special = true;
        break;
      }
      if (!special) ids.push_back(static_cast<unsigned char>(text[i++]));
    }
    return ids;
  }

  Expected<std::string> decode(std::span<const std::int32_t> ids, bool skip_special) const override {
    std::string text;
    for (const std::int32_t id : ids) {
      if (id < 0 || id > kImEnd) return invalid_argument("token " + std::to_string(id) + " is not in the vocabulary");
      if (!skip_special || !is_special(id)) text += token_bytes(id);
    }
    return text;
  }

  std::string_view token_bytes(std::int32_t id) const override {
    if (id >= kImStart) return id <= kImEnd ? content(id) : std::string_view();
    return std::string_view(bytes_).substr(static_cast<std::size_t>(id), 1);
  }
  bool is_special(std::int32_t id) const override { return id == kImStart || id == kImEnd; }
  std::optional<std::int32_t> token_id(std::string_view text) const override {
    for (std::int32_t id = kImStart; id <= kImEnd; ++id) {
      if (text == content(id)) return id;
    }
    return std::nullopt;
  }
  std::vector<std::string> special_token_strings() const override {
    return {std::string(content(kImStart)), std::string(content(kImEnd))};
  }
  std::int32_t size() const override { return kImEnd + 1; }

 private:
  static std::string_view content(std::int32_t id) { return id == kImStart ? "<|im_start|>" : "<|im_end|>"; }
  static std::string all_bytes() {
    std::string bytes;
    for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
    return bytes;
  }
  const std::string bytes_ = all_bytes();
};

// <|im_start|>role\ncontent<|im_end|>\n for each message; tools as JSON in front; the user's text marked as such.
class FakeTemplate : public ChatTemplate {
 public:
  explicit FakeTemplate(bool takes_parts = false) : takes_parts_(takes_parts) {}

  Expected<std::string> render(const ChatTemplateInput& input, const TemplateLimits& limits) const override {
    PENSTOCK_ASSIGN_OR_RETURN(const auto pieces, render_pieces(input, limits));
    std::string text;
    for (const auto& piece : pieces) text += piece.text;
    return text;
  }

  Expected<std::vector<RenderedPiece>> render_pieces(const ChatTemplateInput& input,
                                                     const TemplateLimits& /*limits*/) const override {
    std::vector<RenderedPiece> pieces;
    if (input.tools.is_array()) pieces.push_back({"tools:" + input.tools.dump() + "\n", true});
    for (const auto& message : input.messages) {
      pieces.push_back({"<|im_start|>" + message["role"].get<std::string>() + "\n", false});
      const auto& content = message["content"];
      if (content.is_string()) {
        const auto text = content.get<std::string>();
        if (text == "RAISE") return invalid_argument("the template says no");
        pieces.push_back({text, true});
      } else if (takes_parts_) {
        for (const auto& part : content) pieces.push_back({part["text"].get<std::string>(), true});
      } else {
        return invalid_argument("content is not a string");
      }
      if (message.contains("tool_calls")) pieces.push_back({message["tool_calls"].dump(), true});
      pieces.push_back({"<|im_end|>\n", false});
    }
    if (input.add_generation_prompt) {
      pieces.push_back({"<|im_start|>assistant\n", false});
      if (input.kwargs.contains("enable_thinking") && input.kwargs["enable_thinking"] == false) {
        pieces.push_back({"<think></think>", false});
      }
    }
    return pieces;
  }

 private:
  bool takes_parts_;
};

// What the engine does with one request.
struct Script {
  struct Step {
    std::int32_t token = -1;
    std::string text;
  };
  std::vector<Step> steps;  // one an engine step
  FinishReason finish = FinishReason::kStop;
  std::string stop_reason;
  Status status;  // with kError
  std::int32_t cached_tokens = 0;
  bool endless = false;  // repeats its last step until cancelled
};

// Answers a prompt with its own text, byte by byte, cut at max_tokens.
inline Script echo_script(const Request& request) {
  Script script;
  for (const std::int32_t id : request.prompt) {
    if (id >= 256) continue;
    if (request.max_tokens >= 0 && static_cast<std::int32_t>(script.steps.size()) >= request.max_tokens) {
      script.finish = FinishReason::kLength;
      break;
    }
    script.steps.push_back({id, std::string(1, static_cast<char>(id))});
  }
  return script;
}

class FakeEngine : public Engine {
 public:
  using Scripter = std::function<Script(const Request&)>;

  explicit FakeEngine(EventSink sink, Scripter scripter = echo_script,
                      std::chrono::microseconds step_time = std::chrono::microseconds(200))
      : sink_(std::move(sink)), scripter_(std::move(scripter)), step_time_(step_time), thread_([this] { loop(); }) {}
  ~FakeEngine() override { stop(); }

  Expected<RequestId> submit(Request request, const std::function<void(RequestId)>& on_accept) override {
    const std::lock_guard lock(mutex_);
    if (refuse_.has_value()) return *refuse_;
    if (max_requests_ >= 0 && static_cast<std::int64_t>(running_.size()) >= max_requests_) {
      ++stats_.rejected;
      return resource_exhausted("the queue is full: " + std::to_string(max_requests_) + " requests");
    }
    const RequestId id = next_id_++;
    if (on_accept) on_accept(id);
    running_[id] = {scripter_(request), 0, static_cast<std::int32_t>(request.prompt.size()), request.logprobs};
    seen_.push_back(std::move(request));
    wake_.notify_all();
    return id;
  }

  void cancel(RequestId id) override {
    const std::lock_guard lock(mutex_);
    cancelled_.insert(id);
    wake_.notify_all();
  }

  void drain(double) override {}
  void flush_cache() override {
    const std::lock_guard lock(mutex_);
    ++flushes_;
  }
  EngineStats stats() const override {
    const std::lock_guard lock(mutex_);
    EngineStats stats = stats_;
    stats.running = static_cast<std::int64_t>(running_.size());
    return stats;
  }
  std::int32_t context_length() const override { return context_length_; }
  std::int32_t max_running_requests() const override { return 1000; }
  std::string memory_plan() const override { return ""; }
  Status check_invariants() override { return {}; }

  // For tests.
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
  }
  void set_context_length(std::int32_t tokens) { context_length_ = tokens; }
  void set_refusal(std::optional<Status> status) {
    const std::lock_guard lock(mutex_);
    refuse_ = std::move(status);
  }
  void set_max_requests(std::int64_t requests) {
    const std::lock_guard lock(mutex_);
    max_requests_ = requests;
  }
  // Counters and gauges of the cache, for /metrics; the fake's own are added.
  void set_stats(const EngineStats& stats) {
    const std::lock_guard lock(mutex_);
    stats_ = stats;
  }
  int flushes() const {
    const std::lock_guard lock(mutex_);
    return flushes_;
  }
  std::vector<Request> seen() const {
    const std::lock_guard lock(mutex_);
    return seen_;
  }
  // Ends everything as a shutdown does.
  void cancel_all() {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, run] : running_) cancelled_.insert(id);
    wake_.notify_all();
  }

 private:
  struct Run {
    Script script;
    std::size_t next = 0;
    std::int32_t prompt_tokens = 0;
    std::int32_t logprobs = -1;
  };

  void loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return stopping_ || !running_.empty(); });
      if (stopping_) return;
      std::vector<Event> events;
      for (auto it = running_.begin(); it != running_.end();) {
        const bool ended = step(it->first, it->second, &events);
        it = ended ? running_.erase(it) : std::next(it);
      }
      cancelled_.clear();
      lock.unlock();
      sink_(events);
      std::this_thread::sleep_for(step_time_);
      lock.lock();
    }
  }

  bool step(RequestId id, Run& run, std::vector<Event>* events) {
    Event event;
    event.request = id;
    if (cancelled_.contains(id)) {
      event.finish = FinishReason::kCancelled;
      ++stats_.cancelled;
    } else if (run.next < run.script.steps.size()) {
      const auto& now = run.script.steps[run.next];
      event.token = now.token;
      event.text = now.text;
      if (run.logprobs >= 0) {
        event.logprob = std::make_unique<TokenLogprob>();
        event.logprob->token = now.token;
        event.logprob->logprob = -0.5F;
        for (std::int32_t i = 0; i < run.logprobs; ++i) {
          event.logprob->top.emplace_back(i == 0 ? now.token : 'a' + i, -0.5F - static_cast<float>(i));
        }
      }
      ++stats_.output_tokens;
      if (!run.script.endless || run.next + 1 < run.script.steps.size()) ++run.next;
    } else {
      event.finish = run.script.finish;
      event.stop_reason = run.script.stop_reason;
      event.status = run.script.status;
      ++(event.finish == FinishReason::kError ? stats_.failed : stats_.finished);
    }
    if (event.finish == FinishReason::kNone) {
      events->push_back(std::move(event));
      return false;
    }
    event.prompt_tokens = run.prompt_tokens;
    event.output_tokens = static_cast<std::int32_t>(run.next);
    event.cached_tokens = run.script.cached_tokens;
    events->push_back(std::move(event));
    return true;
  }

  const EventSink sink_;
  const Scripter scripter_;
  const std::chrono::microseconds step_time_;
  std::int32_t context_length_ = 4096;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::optional<Status> refuse_;
  std::int64_t max_requests_ = -1;
  RequestId next_id_ = 1;
  std::map<RequestId, Run> running_;
  std::set<RequestId> cancelled_;
  std::vector<Request> seen_;
  EngineStats stats_;
  int flushes_ = 0;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace penstock::testing
