// How a budget of bytes is split into windows and slabs for KV pages and states: a pure function, printed at start and
// by `inspect`.
#pragma once

#include <cstdint>
#include <string>

#include "ops/cache_layout.h"
#include "penstock/status.h"

namespace penstock {

struct MemoryLimits {
  std::int64_t memory_bytes = 0;          // the budget, for everything together
  std::int32_t model_context = 0;         // tokens the model was made for
  std::int32_t context_length = 0;        // tokens of prompt and output; 0: model_context as far as memory allows
  std::int32_t max_running_requests = 0;  // 0: chosen
  std::int32_t max_states = 0;            // --max-mamba-cache-size; 0: as many as fit
  double state_to_kv_ratio = 0;           // --mamba-full-memory-ratio r: states get r/(1+r) at most; 0: no caps
  bool prefix_cache = true;               // without it, what running requests cannot use is left alone
};

struct MemoryPlan {
  std::int32_t slabs = 0;  // that pages and states share
  // Slots that can be given out: windows, and the most there can be of pages and of states if the other kind took only
  // what one request needs. The reserved slot 0 of each comes on top and is never touched.
  std::int32_t kv_pages = 0, states = 0, windows = 0;
  std::int32_t context_length = 0;  // tokens; one request of this length always fits
  std::int32_t max_running_requests = 0;
  std::int64_t memory_bytes = 0;                   // the budget
  std::int64_t slab_bytes = 0;                     // of one slab
  std::int64_t arena_bytes = 0, window_bytes = 0;  // of the budget, when everything is in use
  std::string text;                                // a few lines for people
};

// kInvalidArgument and kResourceExhausted name the number to change and a value that works. Without a wish: 64 requests
// at a time, fewer when they would not have room for 2,048 tokens each.
Expected<MemoryPlan> plan_memory(const CacheLayout& layout, const MemoryLimits& limits);

// Pages for `tokens` tokens.
constexpr std::int32_t pages_for(std::int64_t tokens) {
  return static_cast<std::int32_t>((tokens + kBlockTokens - 1) / kBlockTokens);
}

}  // namespace penstock
