// Runs a model's forward pass over token sequences with any chunking and batching, without the engine.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "checkpoint/safetensors.h"
#include "model/forward.h"

namespace penstock::golden {

inline std::filesystem::path data_dir() {
  return std::filesystem::path(PENSTOCK_SOURCE_DIR) / "tests/golden/data";
}
inline std::filesystem::path bundled_model() {
  return std::filesystem::path(PENSTOCK_SOURCE_DIR) / "models/gsm-hybrid";
}

struct Config {
  std::string isa = "auto", input = "auto", backend = "window", state = "auto", kv = "auto";
  int threads = 2;
  std::string name() const {
    return isa + "/" + input + "/" + backend + "/" + state + "/threads " + std::to_string(threads);
  }
};

inline std::unique_ptr<Model> load(const std::filesystem::path& dir, const Config& setup) {
  auto checkpoint = Checkpoint::open(dir, {});
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  if (!checkpoint.ok()) return nullptr;
  ModelOptions options;
  options.threads = setup.threads;
  options.kernels.isa = setup.isa;
  options.kernels.linear_input = setup.input;
  options.kernels.gdn_backend = setup.backend;
  options.kernels.state_dtype = setup.state;
  options.kernels.kv_dtype = setup.kv;
  auto model = Model::create(**checkpoint, options);
  EXPECT_TRUE(model.ok()) << model.status().message();
  return model.ok() ? *std::move(model) : nullptr;
}

// Instruction sets this machine has.
inline std::vector<std::string> available_isas() {
  const CpuFeatures cpu = detect_cpu();
  std::vector<std::string> isas = {"reference"};
  if (cpu.avx2) isas.emplace_back("avx2");
  if (cpu.avx512) isas.emplace_back("avx512");
  if (cpu.avx512_bf16) isas.emplace_back("avx512_bf16");
  return isas;
}

struct Result {
  std::vector<std::vector<float>> logits;  // per sequence, [tokens, vocab]
  std::vector<std::vector<float>> hidden;  // per sequence, [tokens, hidden]
};

struct Plan {
  int chunk = 1 << 20;       // tokens of one sequence in a step
  int decode_from = -1;      // positions from here on one token a step
  int batch = 1 << 20;       // sequences at once
  bool fresh_slots = false;  // fold out of place
};

// Slots of sequence i: pages from a private range, state slots 2i + 1 and 2i + 2, window i + 1.
class Runner {
 public:
  Runner(const Model& model, int sequences, int tokens)
      : model_(model),
        pages_each_((tokens + kBlockTokens) / kBlockTokens),
        forward_(model, max_rows(sequences, tokens), max_rows(sequences, tokens)) {
    const CacheLayout& layout = model.cache_layout();
    const auto n = static_cast<std::size_t>(sequences);
    kv_ = AlignedBuffer((n * static_cast<std::size_t>(pages_each_) + 1) *
                        std::max<std::size_t>(layout.kv_page_bytes, 64));
    states_ = AlignedBuffer((2 * n + 1) * std::max<std::size_t>(layout.state_bytes, 64));
    windows_ = AlignedBuffer((n + 1) * std::max<std::size_t>(layout.window_bytes, 64));
  }

  Result run(const std::vector<std::vector<std::int32_t>>& sequences, const Plan& plan) {
    Result result;
    result.logits.resize(sequences.size());
    result.hidden.resize(sequences.size());
    for (std::size_t first = 0; first < sequences.size(); first += static_cast<std::size_t>(plan.batch)) {
      const std::size_t last = std::min(sequences.size(), first + static_cast<std::size_t>(plan.batch));
      run_group(sequences, first, last, plan, result);
    }
    return result;
  }

  CachePools pools() { return {kv_.data(), states_.data(), windows_.data()}; }
  // The live state slot of a sequence after a run.
  std::int32_t state_slot(std::size_t i) const { return live_[i]; }

 private:
  static int max_rows(int sequences, int tokens) { return std::max(64, sequences * tokens); }

  void run_group(const std::vector<std::vector<std::int32_t>>& sequences, std::size_t first, std::size_t last,
                 const Plan& plan, Result& result) {
    const std::size_t n = sequences.size();
    std::vector<std::int32_t> at(n, 0);
    live_.resize(std::max(live_.size(), n), 0);
    std::fill(live_.begin() + static_cast<std::ptrdiff_t>(first), live_.begin() + static_cast<std::ptrdiff_t>(last), 0);
    for (;;) {
      std::vector<SequenceSlice> slices;
      std::vector<std::size_t> owner;
      std::vector<std::vector<std::int32_t>> pages(n);
      std::vector<std::vector<std::int32_t>> folds(n);
      for (std::size_t i = first; i < last; ++i) {
        const auto total = static_cast<std::int32_t>(sequences[i].size());
        if (at[i] == total) continue;
        std::int32_t take = std::min<std::int32_t>(plan.chunk, total - at[i]);
        if (plan.decode_from >= 0) {
          take = at[i] >= plan.decode_from ? 1 : std::min(take, plan.decode_from - at[i]);
        }
        for (int p = 0; p < pages_each_; ++p) pages[i].push_back(static_cast<std::int32_t>(i) * pages_each_ + p + 1);
        std::int32_t live = live_[i];
        const auto next_slot = [&] {
          const auto even = static_cast<std::int32_t>(2 * i + 1);
          live = plan.fresh_slots && live == even ? even + 1 : even;
          return live;
        };
        if (model_.cache_layout().backend == GdnBackend::kRecurrent) {
          folds[i].push_back(next_slot());
        } else {
          for (std::int32_t b = at[i] / kBlockTokens + 1; b * kBlockTokens <= at[i] + take; ++b)
            folds[i].push_back(next_slot());
        }
        SequenceSlice slice;
        slice.tokens = std::span(sequences[i]).subspan(static_cast<std::size_t>(at[i]), static_cast<std::size_t>(take));
        slice.position = at[i];
        slice.pages = pages[i];
        slice.window = static_cast<std::int32_t>(i) + 1;
        slice.state = live_[i];
        slice.fold_to = folds[i];
        slices.push_back(slice);
        owner.push_back(i);
        live_[i] = live;
      }
      if (slices.empty()) return;
      const auto logits = forward_.run(slices, pools());
      const auto hidden = forward_.hidden();
      const auto vocab = static_cast<std::size_t>(model_.config().vocab_size);
      const auto width = static_cast<std::size_t>(model_.config().hidden_size);
      std::size_t row = 0;
      for (std::size_t s = 0; s < slices.size(); ++s) {
        const std::size_t count = slices[s].tokens.size();
        const auto* from = logits.data() + row * vocab;
        result.logits[owner[s]].insert(result.logits[owner[s]].end(), from, from + count * vocab);
        const auto* h = hidden.data() + row * width;
        result.hidden[owner[s]].insert(result.hidden[owner[s]].end(), h, h + count * width);
        at[owner[s]] += static_cast<std::int32_t>(count);
        row += count;
      }
    }
  }

  const Model& model_;
  int pages_each_;
  Forward forward_;
  AlignedBuffer kv_, states_, windows_;
  std::vector<std::int32_t> live_;
};

// A tensor of a golden file as fp32 or int32.
template <typename T>
std::vector<T> tensor(const SafetensorsFile& file, const std::string& name) {
  const auto it = file.entries().find(name);
  EXPECT_NE(it, file.entries().end()) << name;
  if (it == file.entries().end()) return {};
  std::vector<T> values(it->second.data.size() / sizeof(T));
  std::memcpy(values.data(), it->second.data.data(), it->second.data.size());
  return values;
}

}  // namespace penstock::golden
