// A model for tests of the engine: its "keys and values" are the tokens themselves, its "state" a hash of them, so that
// every page, slot, position and fold the engine gets wrong shows. The logits are a function of all tokens so far.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "engine/engine_core.h"
#include "engine/executor.h"
#include "text/tokenizer.h"

namespace penstock::testing {

inline std::uint64_t mix(std::uint64_t h) {
  h += 0x9E3779B97F4A7C15U;
  h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9U;
  h = (h ^ (h >> 27)) * 0x94D049BB133111EBU;
  return h ^ (h >> 31);
}

constexpr std::uint64_t kEmptyHash = 42;
inline std::uint64_t extend(std::uint64_t h, std::int32_t token) {
  return mix(h ^ static_cast<std::uint64_t>(token));
}

// Fills one row of logits from the hash of all tokens, the last of them and its position.
using FillLogits =
    std::function<void(std::uint64_t hash, std::int32_t token, std::int32_t position, std::span<float> logits)>;

inline void hashed_logits(std::uint64_t hash, std::int32_t, std::int32_t, std::span<float> logits) {
  for (std::size_t v = 0; v < logits.size(); ++v) {
    logits[v] = static_cast<float>(mix(hash ^ (v << 20)) >> 40) * (8.0F / 16777216.0F);
  }
}

// What the fake's trouble is, by the first few words. Shared with the test.
struct FakeLog {
  std::vector<std::string> violations;
  std::atomic<std::int64_t> steps{0};
  std::int32_t most_slices = 0, most_rows = 0, most_logits = 0;
  std::int32_t mixed_steps = 0;         // with prompts and decode rows
  std::int32_t many_prompts_steps = 0;  // with several prompts
  std::function<void()> before_step;    // on the engine's thread
};

class FakeRunner final : public StepRunner {
 public:
  FakeRunner(const CacheLayout& layout, std::int32_t vocab, const StepSize& size, FillLogits fill, FakeLog& log)
      : layout_(layout), vocab_(static_cast<std::size_t>(vocab)), size_(size), fill_(std::move(fill)), log_(log) {
    logits_.resize(static_cast<std::size_t>(size.max_logits) * vocab_);
  }

  std::span<const float> run(std::span<const SequenceSlice> slices, const CachePools& pools) override {
    if (log_.before_step) log_.before_step();
    ++log_.steps;
    std::int32_t rows = 0, decode = 0, prompts = 0;
    used_rows_ = 0;
    expect(!slices.empty(), "an empty step");
    for (const SequenceSlice& slice : slices) {
      const auto n = static_cast<std::int32_t>(slice.tokens.size());
      rows += n;
      (n == 1 ? decode : prompts) += 1;
      run_slice(slice, n, pools);
    }
    expect(rows <= size_.max_tokens, "more rows than the step has");
    expect(used_rows_ <= static_cast<std::size_t>(size_.max_logits), "more logits than the step has");
    log_.most_slices = std::max(log_.most_slices, static_cast<std::int32_t>(slices.size()));
    log_.most_rows = std::max(log_.most_rows, rows);
    log_.most_logits = std::max(log_.most_logits, static_cast<std::int32_t>(used_rows_));
    log_.mixed_steps += decode > 0 && prompts > 0;
    log_.many_prompts_steps += prompts > 1;
    return std::span<const float>(logits_).first(used_rows_ * vocab_);
  }

  void copy_states(std::span<const StateCopy> copies, const CachePools& pools) override {
    for (const StateCopy& copy : copies) *state(pools, copy.to) = *state(pools, copy.from);
  }

 private:
  struct State {
    std::uint64_t hash;
    std::int32_t tokens;
  };

  void expect(bool condition, const char* what) {
    if (!condition && log_.violations.size() < 10) log_.violations.emplace_back(what);
  }
  State* state(const CachePools& pools, std::int32_t slot) const {
    return reinterpret_cast<State*>(pools.states + static_cast<std::size_t>(slot) * layout_.state_bytes);
  }
  static std::int32_t* row(std::byte* base, std::int32_t slot, std::size_t bytes, std::int32_t position) {
    return reinterpret_cast<std::int32_t*>(base + static_cast<std::size_t>(slot) * bytes) + position % kBlockTokens;
  }

  void run_slice(const SequenceSlice& slice, std::int32_t n, const CachePools& pools) {
    const bool windowed = layout_.backend == GdnBackend::kWindow;
    const std::int32_t p = slice.position;
    expect(n >= 1 && p >= 0, "a slice without tokens");
    expect(static_cast<std::int32_t>(slice.pages.size()) == (p + n + 63) / 64, "wrong number of pages");
    expect(std::set<std::int32_t>(slice.pages.begin(), slice.pages.end()).size() == slice.pages.size() &&
               std::find(slice.pages.begin(), slice.pages.end(), 0) == slice.pages.end(),
           "a page twice, or the reserved one");
    expect((slice.window != 0) == windowed, "a window where none is wanted, or none");
    const std::int32_t from = windowed ? p / 64 * 64 : p;  // tokens in the base state
    expect((slice.state == 0) == (from == 0), "the zero state, and not at the beginning");
    std::uint64_t h = kEmptyHash;
    if (slice.state != 0) {
      expect(state(pools, slice.state)->tokens == from, "the state of another position");
      h = state(pools, slice.state)->hash;
    }
    for (std::int32_t pos = from; pos < p; ++pos) {
      h = extend(h, *row(pools.windows, slice.window, layout_.window_bytes, pos));
    }
    std::size_t folds = 0;
    for (std::int32_t i = 0; i < n; ++i) {
      const std::int32_t pos = p + i, token = slice.tokens[static_cast<std::size_t>(i)];
      *row(pools.kv_pages, slice.pages[static_cast<std::size_t>(pos / 64)], layout_.kv_page_bytes, pos) = token;
      if (windowed) *row(pools.windows, slice.window, layout_.window_bytes, pos) = token;
      h = extend(h, token);
      if (i >= slice.logits_from) give_logits(slice, h, token, pos, pools);
      if (windowed && (pos + 1) % 64 == 0) fold(slice, folds++, h, pos + 1, pools);
    }
    if (!windowed) fold(slice, folds++, h, p + n, pools);
    expect(folds == slice.fold_to.size(), "wrong number of folds");
  }

  void fold(const SequenceSlice& slice, std::size_t i, std::uint64_t h, std::int32_t tokens, const CachePools& pools) {
    if (i >= slice.fold_to.size() || slice.fold_to[i] == 0) return expect(false, "a fold without a slot");
    *state(pools, slice.fold_to[i]) = {h, tokens};
  }

  void give_logits(const SequenceSlice& slice, std::uint64_t h, std::int32_t token, std::int32_t pos,
                   const CachePools& pools) {
    std::uint64_t from_pages = kEmptyHash;
    for (std::int32_t i = 0; i <= pos; ++i) {
      from_pages = extend(
          from_pages, *row(pools.kv_pages, slice.pages[static_cast<std::size_t>(i / 64)], layout_.kv_page_bytes, i));
    }
    expect(from_pages == h, "pages and state tell different tokens");
    if (used_rows_ < static_cast<std::size_t>(size_.max_logits)) {
      fill_(h, token, pos, std::span<float>(logits_).subspan(used_rows_ * vocab_, vocab_));
    }
    ++used_rows_;
  }

  CacheLayout layout_;
  std::size_t vocab_;
  StepSize size_;
  FillLogits fill_;
  FakeLog& log_;
  std::vector<float> logits_;
  std::size_t used_rows_ = 0;
};

struct FakeModelOptions {
  GdnBackend backend = GdnBackend::kWindow;
  std::int32_t vocab = 300;
  std::int32_t context = 4096;
  std::size_t page_bytes = 256, state_bytes = 64;  // at least these
  std::vector<std::int32_t> eos = {};
  FillLogits fill = hashed_logits;
};

inline EngineModel fake_model(const FakeModelOptions& options, FakeLog& log) {
  EngineModel model;
  model.layout.backend = options.backend;
  model.layout.kv_page_bytes = options.page_bytes;
  model.layout.state_bytes = options.state_bytes;
  model.layout.window_bytes = options.backend == GdnBackend::kWindow ? 256 : 0;
  model.layout.share_slabs();
  model.vocab_size = options.vocab;
  model.max_context = options.context;
  model.eos_token_ids = options.eos;
  model.make_runner = [layout = model.layout, options, &log](const StepSize& size) {
    return std::make_unique<FakeRunner>(layout, options.vocab, size, options.fill, log);
  };
  return model;
}

// Memory for `pages` pages beside `running` requests of the fake model.
inline std::int64_t fake_memory(const CacheLayout& layout, std::int32_t running, std::int32_t pages) {
  return running * static_cast<std::int64_t>(layout.window_bytes) +
         ((running + layout.states_per_slab - 1) / layout.states_per_slab +
          (pages + layout.pages_per_slab - 1) / layout.pages_per_slab) *
             static_cast<std::int64_t>(layout.slab_bytes);
}

// Ids below 256 are that byte; 256 and up are special, "<256>".
class FakeTokenizer final : public Tokenizer {
 public:
  explicit FakeTokenizer(std::int32_t size = 300) {
    for (std::int32_t i = 0; i < size; ++i) {
      bytes_.push_back(i < 256 ? std::string(1, static_cast<char>(i)) : fmt::format("<{}>", i));
    }
  }
  Expected<std::vector<std::int32_t>> encode(std::string_view text, SpecialTokens) const override {
    std::vector<std::int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  Expected<std::vector<std::int32_t>> encode_with_plain_ranges(
      std::string_view text, std::span<const std::pair<std::size_t, std::size_t>>) const override {
    return encode(text, SpecialTokens::kAsText);
  }
  Expected<std::string> decode(std::span<const std::int32_t> ids, bool skip_special) const override {
    std::string text;
    for (const std::int32_t id : ids) {
      if (!skip_special || !is_special(id)) text += token_bytes(id);
    }
    return text;
  }
  std::string_view token_bytes(std::int32_t id) const override { return bytes_[static_cast<std::size_t>(id)]; }
  bool is_special(std::int32_t id) const override { return id >= 256; }
  std::optional<std::int32_t> token_id(std::string_view) const override { return std::nullopt; }
  std::vector<std::string> special_token_strings() const override { return {}; }
  std::int32_t size() const override { return static_cast<std::int32_t>(bytes_.size()); }

 private:
  std::vector<std::string> bytes_;
};

// What came of one request.
struct Answer {
  std::vector<std::int32_t> tokens;
  std::string text;
  std::vector<TokenLogprob> logprobs;
  std::map<std::int32_t, std::vector<float>> logits;  // by position
  bool ascending = true;                              // positions of logits
  std::int32_t events_after_end = 0;
  Event last;  // with a finish, once it has ended
  bool ended() const { return last.finish != FinishReason::kNone; }

  void take(Event& event) {
    if (ended()) ++events_after_end;
    if (event.token >= 0) tokens.push_back(event.token);
    text += event.text;
    if (event.logprob) logprobs.push_back(*event.logprob);
    if (event.finish != FinishReason::kNone) last = std::move(event);
  }
  void take_logits(std::int32_t position, std::span<const float> row) {
    ascending &= logits.empty() || logits.rbegin()->first < position;
    logits[position].assign(row.begin(), row.end());
  }
};

// The greedy answer of the fake model, by its definition.
inline std::vector<std::int32_t> expected_greedy(const FakeModelOptions& options, std::vector<std::int32_t> tokens,
                                                 std::int32_t count) {
  std::uint64_t h = kEmptyHash;
  for (const std::int32_t t : tokens) h = extend(h, t);
  std::vector<std::int32_t> output;
  std::vector<float> row(static_cast<std::size_t>(options.vocab));
  std::int32_t last = tokens.back();
  for (std::int32_t i = 0; i < count; ++i) {
    options.fill(h, last, static_cast<std::int32_t>(tokens.size()) + i - 1, row);
    last = static_cast<std::int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
    output.push_back(last);
    h = extend(h, last);
  }
  return output;
}

}  // namespace penstock::testing
