#include "cache/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/system_memory.h"

namespace penstock {
namespace {

constexpr std::int32_t kDefaultRunning = 64;       // rows that a CPU's linear layers still gain from together
constexpr std::int32_t kDefaultTokensEach = 2048;  // room that makes a further request at a time worth its state
constexpr std::int64_t kMaxSlots = std::numeric_limits<std::int32_t>::max() / 2;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// What running requests cost: a window each, a state each, pages; states and pages in slabs.
struct Budget {
  Budget(const CacheLayout& layout_in, const MemoryLimits& limits)
      : layout(layout_in),
        bytes(limits.memory_bytes),
        slab(static_cast<std::int64_t>(layout_in.slab_bytes)),
        window(static_cast<std::int64_t>(layout_in.window_bytes)) {}

  std::int64_t slabs(std::int64_t running) const {  // that fit beside the windows
    const std::int64_t most = kMaxSlots / std::max(layout.pages_per_slab, layout.states_per_slab) - 1;
    return std::clamp<std::int64_t>((bytes - running * window) / slab, 0, most);
  }
  std::int64_t state_slabs(std::int64_t running) const { return ceil_div(running, layout.states_per_slab); }
  std::int64_t page_slabs(std::int64_t pages) const { return ceil_div(pages, layout.pages_per_slab); }
  std::int64_t cost(std::int64_t running, std::int64_t pages_each) const {  // bytes
    return running * window + (state_slabs(running) + page_slabs(running * pages_each)) * slab;
  }
  std::int64_t most_running(std::int64_t pages_each) const {
    std::int64_t low = 0, high = kMaxSlots / std::max<std::int64_t>(pages_each, 1);
    while (low < high) {
      const std::int64_t middle = (low + high + 1) / 2;
      if (cost(middle, pages_each) <= bytes) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return low;
  }

  const CacheLayout& layout;
  std::int64_t bytes, slab, window;
};

Status check_limits(const MemoryLimits& limits) {
  if (limits.context_length < 0 || limits.context_length > limits.model_context) {
    return invalid_argument(
        fmt::format("context length {} is out of range: the model takes 1 to {} tokens (max_position_embeddings); "
                    "choose --context-length in that range, or 0 for all that fits in memory",
                    limits.context_length, limits.model_context));
  }
  if (limits.max_running_requests < 0) {
    return invalid_argument(fmt::format("--max-running-requests {} is negative; 0 lets the memory plan choose",
                                        limits.max_running_requests));
  }
  if (limits.max_states < 0) {
    return invalid_argument(
        fmt::format("--max-mamba-cache-size {} is negative; 0 takes as many states as fit", limits.max_states));
  }
  if (!(limits.state_to_kv_ratio >= 0 && limits.state_to_kv_ratio <= 1e6)) {
    return invalid_argument(
        fmt::format("--mamba-full-memory-ratio {} is out of range: above 0, at most 1000000; or 0 for no fixed split",
                    limits.state_to_kv_ratio));
  }
  if (limits.max_states > 0 && limits.max_running_requests > limits.max_states) {
    return invalid_argument(
        fmt::format("{} requests at a time need a state each, but --max-mamba-cache-size allows {}: raise it to {}, or "
                    "lower --max-running-requests to {} or less",
                    limits.max_running_requests, limits.max_states, limits.max_running_requests, limits.max_states));
  }
  return {};
}

// Slots of each kind that a plan of `slabs` may use.
struct Caps {
  std::int64_t pages = 0, states = 0;
};

Caps caps_of(const Budget& budget, const MemoryLimits& limits, std::int64_t slabs) {
  Caps caps{slabs * budget.layout.pages_per_slab, slabs * budget.layout.states_per_slab};
  if (limits.state_to_kv_ratio > 0) {
    const double share = limits.state_to_kv_ratio / (1 + limits.state_to_kv_ratio);
    const auto state_slabs = static_cast<std::int64_t>(share * static_cast<double>(slabs));
    caps.states = state_slabs * budget.layout.states_per_slab;
    caps.pages = (slabs - state_slabs) * budget.layout.pages_per_slab;
  }
  if (limits.max_states > 0) caps.states = std::min<std::int64_t>(caps.states, limits.max_states);
  return caps;
}

// Pages that are left when `running` requests hold their states.
std::int64_t pages_beside(const Budget& budget, const MemoryLimits& limits, std::int64_t running) {
  const std::int64_t slabs = budget.slabs(running);
  const std::int64_t rest = std::max<std::int64_t>(slabs - budget.state_slabs(running), 0);
  return std::min(rest * budget.layout.pages_per_slab, caps_of(budget, limits, slabs).pages);
}

bool has_states(const Budget& budget, const MemoryLimits& limits, std::int64_t running) {
  return caps_of(budget, limits, budget.slabs(running)).states >= running;
}

Expected<std::int32_t> choose_running(const Budget& budget, const MemoryLimits& limits, std::int32_t context) {
  if (limits.max_running_requests != 0) {
    const std::int64_t most = budget.most_running(1);
    if (limits.max_running_requests > most) {
      return resource_exhausted(fmt::format(
          "{} requests at a time need at least {} for states, windows and one block of 64 tokens each, but the cache "
          "has {}: lower --max-running-requests to {} or less, or raise --cache-memory",
          limits.max_running_requests, format_bytes(budget.cost(limits.max_running_requests, 1)),
          format_bytes(budget.bytes), most));
    }
    if (!has_states(budget, limits, limits.max_running_requests)) {
      return resource_exhausted(fmt::format(
          "--mamba-full-memory-ratio {} leaves room for {} states, but {} requests at a time need one "
          "each: raise it, or lower --max-running-requests",
          limits.state_to_kv_ratio, caps_of(budget, limits, budget.slabs(limits.max_running_requests)).states,
          limits.max_running_requests));
    }
    return limits.max_running_requests;
  }
  const std::int32_t pages_each = pages_for(std::min(context, kDefaultTokensEach));
  std::int64_t running = std::clamp<std::int64_t>(budget.most_running(pages_each), 1, kDefaultRunning);
  while (running > 1 && !has_states(budget, limits, running)) --running;
  // A context length that was asked for comes before more requests at a time.
  if (limits.context_length != 0) {
    while (running > 1 && pages_beside(budget, limits, running) < pages_for(context)) --running;
  }
  return static_cast<std::int32_t>(running);
}

std::string describe(const CacheLayout& layout, const MemoryLimits& limits, const MemoryPlan& plan) {
  const auto bytes = [](std::size_t n) { return format_bytes(static_cast<std::int64_t>(n)); };
  std::string text = fmt::format("cache: {} of {} used when full, taken as it is needed\n",
                                 format_bytes(plan.arena_bytes + plan.window_bytes), format_bytes(plan.memory_bytes));
  text += fmt::format("  {:<9} {:>8} x {:>9} = {:>9}  (each {} KV page{} or {} state{})\n", "slabs", plan.slabs,
                      bytes(layout.slab_bytes), format_bytes(plan.arena_bytes), layout.pages_per_slab,
                      layout.pages_per_slab == 1 ? "" : "s", layout.states_per_slab,
                      layout.states_per_slab == 1 ? "" : "s");
  text +=
      fmt::format("  {:<9} {:>8} x {:>9} at most  ({}, {} tokens)\n", "KV pages", plan.kv_pages,
                  bytes(layout.kv_page_bytes), to_string(layout.kv_dtype), std::int64_t{plan.kv_pages} * kBlockTokens);
  text += fmt::format("  {:<9} {:>8} x {:>9} at most  ({})\n", "states", plan.states, bytes(layout.state_bytes),
                      to_string(layout.state_dtype));
  if (plan.windows > 0) {
    text += fmt::format("  {:<9} {:>8} x {:>9} = {:>9}\n", "windows", plan.windows, bytes(layout.window_bytes),
                        format_bytes(plan.window_bytes));
  }
  text += fmt::format("requests: up to {} at a time, of up to {} tokens each{}", plan.max_running_requests,
                      plan.context_length,
                      limits.prefix_cache ? "; what they leave free keeps prefixes" : "; no prefix cache");
  return text;
}

}  // namespace

Expected<MemoryPlan> plan_memory(const CacheLayout& layout, const MemoryLimits& limits) {
  PENSTOCK_RETURN_IF_ERROR(check_limits(limits));
  const Budget budget(layout, limits);
  if (budget.most_running(1) < 1 || !has_states(budget, limits, 1) || pages_beside(budget, limits, 1) < 1) {
    if (budget.most_running(1) >= 1) {
      return resource_exhausted(
          fmt::format("--mamba-full-memory-ratio {} leaves no room for one state and one KV page in {}: choose a ratio "
                      "nearer to 1, or raise --cache-memory",
                      limits.state_to_kv_ratio, format_bytes(limits.memory_bytes)));
    }
    return resource_exhausted(fmt::format(
        "not even one request of one block fits: it needs {} bytes ({} for its state and window, {} for the keys and "
        "values of 64 tokens), but the cache has {} bytes; set --cache-memory to at least {}, free memory, or choose "
        "smaller formats with --mamba-ssm-dtype and --kv-cache-dtype",
        budget.cost(1, 1), budget.slab + budget.window, budget.slab, limits.memory_bytes, budget.cost(1, 1)));
  }

  MemoryPlan plan;
  plan.memory_bytes = limits.memory_bytes;
  plan.context_length = limits.context_length != 0 ? limits.context_length : limits.model_context;
  PENSTOCK_ASSIGN_OR_RETURN(plan.max_running_requests, choose_running(budget, limits, plan.context_length));
  const std::int64_t running = plan.max_running_requests;
  const std::int64_t fit = pages_beside(budget, limits, running);
  if (limits.context_length != 0 && fit < pages_for(limits.context_length)) {
    return resource_exhausted(fmt::format(
        "one request of {} tokens needs {} KV pages ({}), but beside the states and windows of {} requests only {} fit "
        "in {}: lower --context-length to {} or less, or raise --cache-memory",
        limits.context_length, pages_for(limits.context_length),
        format_bytes(pages_for(limits.context_length) * static_cast<std::int64_t>(layout.kv_page_bytes)), running, fit,
        format_bytes(limits.memory_bytes), fit * kBlockTokens));
  }
  plan.context_length = static_cast<std::int32_t>(std::min<std::int64_t>(plan.context_length, fit * kBlockTokens));
  std::int64_t slabs = budget.slabs(running);
  if (!limits.prefix_cache) {
    // More than all requests at their longest could never be used.
    const std::int64_t useful =
        budget.state_slabs(running) + budget.page_slabs(running * pages_for(plan.context_length));
    slabs = std::min(slabs, useful);
  }
  const Caps caps = caps_of(budget, limits, slabs);
  plan.slabs = static_cast<std::int32_t>(slabs);
  plan.slab_bytes = budget.slab;
  plan.kv_pages =
      static_cast<std::int32_t>(std::min(caps.pages, (slabs - budget.state_slabs(1)) * layout.pages_per_slab));
  plan.states = static_cast<std::int32_t>(std::min(caps.states, (slabs - 1) * layout.states_per_slab));
  plan.windows = layout.window_bytes > 0 ? plan.max_running_requests : 0;
  plan.arena_bytes = slabs * budget.slab;
  plan.window_bytes = plan.windows * budget.window;
  plan.text = describe(layout, limits, plan);
  return plan;
}

}  // namespace penstock
