#include "cache/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/system_memory.h"

namespace penstock {
namespace {

constexpr std::int32_t kDefaultRunning = 64;       // rows that a CPU's linear layers still gain from together
constexpr std::int32_t kDefaultTokensEach = 2048;  // room that makes a further request at a time worth its state
constexpr std::int64_t kMaxSlots = std::numeric_limits<std::int32_t>::max() - 1;

// Bytes one request holds besides pages, and one page.
struct Costs {
  std::int64_t fixed = 0;
  std::int64_t page = 0;

  // Pages that fit beside `requests` requests' states and windows; a model without attention needs no memory for them.
  std::int64_t pages_beside(std::int64_t budget, std::int64_t requests) const {
    const std::int64_t rest = budget - requests * fixed;
    if (rest < 0) return 0;
    return page == 0 ? kMaxSlots : std::min(rest / page, kMaxSlots);
  }
  std::int64_t max_requests(std::int64_t budget, std::int64_t pages_each) const {
    const std::int64_t each = fixed + pages_each * page;
    return each == 0 ? kMaxSlots : budget / each;
  }
};

Status check_context(const MemoryLimits& limits) {
  if (limits.context_length < 0 || limits.context_length > limits.model_context) {
    return invalid_argument(
        fmt::format("context length {} is out of range: the model takes 1 to {} tokens (max_position_embeddings); "
                    "choose --context-length in that range, or 0 for all that fits in memory",
                    limits.context_length, limits.model_context));
  }
  return {};
}

Expected<std::int32_t> choose_running(const Costs& costs, const MemoryLimits& limits, std::int32_t context) {
  const std::int64_t budget = limits.memory_bytes;
  if (limits.max_running_requests != 0) {
    const std::int64_t most = costs.max_requests(budget, 1);
    if (limits.max_running_requests > most) {
      return resource_exhausted(fmt::format(
          "{} requests at a time need at least {} for states, windows and one block of 64 tokens each, but the cache "
          "has {}: lower --max-running-requests to {} or less, or raise --cache-memory",
          limits.max_running_requests, format_bytes(limits.max_running_requests * (costs.fixed + costs.page)),
          format_bytes(budget), most));
    }
    return limits.max_running_requests;
  }
  const std::int32_t pages_each = pages_for(std::min(context, kDefaultTokensEach));
  std::int64_t running = std::clamp<std::int64_t>(costs.max_requests(budget, pages_each), 1, kDefaultRunning);
  // A context length that was asked for comes before more requests at a time.
  if (limits.context_length != 0) {
    while (running > 1 && costs.pages_beside(budget, running) < pages_for(context)) --running;
  }
  return static_cast<std::int32_t>(running);
}

std::string describe(const CacheLayout& layout, const MemoryPlan& plan) {
  const auto line = [](const char* what, std::int32_t slots, std::size_t bytes, std::int64_t total) {
    return fmt::format("  {:<9} {:>8} x {:>9} = {:>9}", what, slots, format_bytes(static_cast<std::int64_t>(bytes)),
                       format_bytes(total));
  };
  std::string text =
      fmt::format("cache: {} of {} used when full, taken as it is needed\n",
                  format_bytes(plan.kv_bytes + plan.state_bytes + plan.window_bytes), format_bytes(plan.memory_bytes));
  text += line("KV pages", plan.kv_pages, layout.kv_page_bytes, plan.kv_bytes);
  text += fmt::format("  ({}, {} tokens)\n", to_string(layout.kv_dtype), std::int64_t{plan.kv_pages} * kBlockTokens);
  text += line("states", plan.states, layout.state_bytes, plan.state_bytes);
  text += fmt::format("  ({})\n", to_string(layout.state_dtype));
  if (plan.windows > 0) text += line("windows", plan.windows, layout.window_bytes, plan.window_bytes) + "\n";
  text += fmt::format("requests: up to {} at a time, of up to {} tokens each", plan.max_running_requests,
                      plan.context_length);
  return text;
}

}  // namespace

Expected<MemoryPlan> plan_memory(const CacheLayout& layout, const MemoryLimits& limits) {
  PENSTOCK_RETURN_IF_ERROR(check_context(limits));
  if (limits.max_running_requests < 0) {
    return invalid_argument(fmt::format("--max-running-requests {} is negative; 0 lets the memory plan choose",
                                        limits.max_running_requests));
  }
  const Costs costs{static_cast<std::int64_t>(layout.state_bytes + layout.window_bytes),
                    static_cast<std::int64_t>(layout.kv_page_bytes)};
  if (costs.max_requests(limits.memory_bytes, 1) < 1) {
    return resource_exhausted(fmt::format(
        "not even one request of one block fits: it needs {} bytes ({} for its state and window, {} for the keys and "
        "values of 64 tokens), but the cache has {} bytes; set --cache-memory to at least {}, free memory, or choose "
        "smaller formats with --mamba-ssm-dtype and --kv-cache-dtype",
        costs.fixed + costs.page, costs.fixed, costs.page, limits.memory_bytes, costs.fixed + costs.page));
  }

  MemoryPlan plan;
  plan.memory_bytes = limits.memory_bytes;
  plan.context_length = limits.context_length != 0 ? limits.context_length : limits.model_context;
  PENSTOCK_ASSIGN_OR_RETURN(plan.max_running_requests, choose_running(costs, limits, plan.context_length));
  const std::int64_t fit = costs.pages_beside(limits.memory_bytes, plan.max_running_requests);
  if (limits.context_length != 0 && fit < pages_for(limits.context_length)) {
    return resource_exhausted(fmt::format(
        "one request of {} tokens needs {} KV pages ({}), but beside the states and windows of {} requests only {} fit "
        "in {}: lower --context-length to {} or less, or raise --cache-memory",
        limits.context_length, pages_for(limits.context_length),
        format_bytes(pages_for(limits.context_length) * costs.page), plan.max_running_requests, fit,
        format_bytes(limits.memory_bytes), fit * kBlockTokens));
  }
  plan.context_length = static_cast<std::int32_t>(std::min<std::int64_t>(plan.context_length, fit * kBlockTokens));
  // More pages than all requests at their longest could never be used.
  const std::int64_t useful = std::int64_t{plan.max_running_requests} * pages_for(plan.context_length);
  plan.kv_pages = static_cast<std::int32_t>(std::min(fit, useful));
  plan.states = plan.max_running_requests;
  plan.windows = layout.window_bytes > 0 ? plan.max_running_requests : 0;
  plan.kv_bytes = plan.kv_pages * costs.page;
  plan.state_bytes = plan.states * static_cast<std::int64_t>(layout.state_bytes);
  plan.window_bytes = plan.windows * static_cast<std::int64_t>(layout.window_bytes);
  plan.text = describe(layout, plan);
  return plan;
}

}  // namespace penstock
