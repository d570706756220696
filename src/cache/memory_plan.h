// How a budget of bytes is split into KV pages, states and windows: a pure function, printed at start and by `inspect`.
#pragma once

#include <cstdint>
#include <string>

#include "ops/cache_layout.h"
#include "penstock/status.h"

namespace penstock {

struct MemoryLimits {
  std::int64_t memory_bytes = 0;          // the budget, for all pools together
  std::int32_t model_context = 0;         // tokens the model was made for
  std::int32_t context_length = 0;        // tokens of prompt and output; 0: model_context as far as memory allows
  std::int32_t max_running_requests = 0;  // 0: chosen
};

struct MemoryPlan {
  // Slots that can be given out; the reserved slot 0 of each pool comes on top and is never touched.
  std::int32_t kv_pages = 0, states = 0, windows = 0;
  std::int32_t context_length = 0;  // tokens; one request of this length always fits the pages
  std::int32_t max_running_requests = 0;
  std::int64_t memory_bytes = 0;                                 // the budget
  std::int64_t kv_bytes = 0, state_bytes = 0, window_bytes = 0;  // of it, when every slot is in use
  std::string text;                                              // a few lines for people
};

// kInvalidArgument and kResourceExhausted name the number to change and a value that works. Without a wish: 64 requests
// at a time, fewer when they would not have room for 2,048 tokens each.
Expected<MemoryPlan> plan_memory(const CacheLayout& layout, const MemoryLimits& limits);

// Pages for `tokens` tokens.
constexpr std::int32_t pages_for(std::int64_t tokens) {
  return static_cast<std::int32_t>((tokens + kBlockTokens - 1) / kBlockTokens);
}

}  // namespace penstock
