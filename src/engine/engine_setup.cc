#include "engine/engine_setup.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/system_memory.h"

namespace penstock {
namespace {

// Prefill without a limit still runs in steps of this many tokens: the activations of a step need memory too, and
// beyond this size a step gains nothing.
constexpr std::int32_t kMaxPrefillTokens = 8192;
// Logits of scored prompts in one step: a row of 248,320 tokens is 1 MB.
constexpr std::int64_t kMaxScoreBytes = std::int64_t{256} << 20;

Status check_options(const EngineOptions& options) {
  if (options.chunked_prefill_size < 1 && options.chunked_prefill_size != -1) {
    return invalid_argument(fmt::format("--chunked-prefill-size {} is out of range: at least 1, or -1 for no limit",
                                        options.chunked_prefill_size));
  }
  if (options.memory_bytes < 0) {
    return invalid_argument(
        fmt::format("--cache-memory {} is negative; 0 takes a share of what is free", options.memory_bytes));
  }
  if (options.memory_bytes == 0 && !(options.mem_fraction > 0 && options.mem_fraction <= 1)) {
    return invalid_argument(
        fmt::format("--mem-fraction-static {} is out of range: above 0, at most 1", options.mem_fraction));
  }
  if (options.track_interval < kBlockTokens || options.track_interval % kBlockTokens != 0) {
    return invalid_argument(fmt::format("--mamba-track-interval {} is out of range: a multiple of 64, at least 64",
                                        options.track_interval));
  }
  if (options.max_queued_requests < 1) {
    return invalid_argument(
        fmt::format("--max-queued-requests {} is out of range: at least 1", options.max_queued_requests));
  }
  if (options.max_queued_tokens < 1) {
    return invalid_argument(
        fmt::format("--max-queued-tokens {} is out of range: at least 1", options.max_queued_tokens));
  }
  return {};
}

}  // namespace

const char* to_string(SchedulerStrategy strategy) {
  switch (strategy) {
    case SchedulerStrategy::kAuto:
      return "auto";
    case SchedulerStrategy::kNoBuffer:
      return "no_buffer";
    case SchedulerStrategy::kExtraBuffer:
      return "extra_buffer";
  }
  return "?";
}

Expected<EngineSetup> plan_engine(const EngineModel& model, const EngineOptions& options, std::int64_t available_bytes,
                                  bool with_logits) {
  PENSTOCK_RETURN_IF_ERROR(check_options(options));
  EngineSetup setup;
  MemoryLimits limits;
  limits.memory_bytes = options.memory_bytes != 0
                            ? options.memory_bytes
                            : static_cast<std::int64_t>(static_cast<double>(available_bytes) * options.mem_fraction);
  limits.model_context = model.max_context;
  limits.context_length = options.context_length;
  limits.max_running_requests = options.max_running_requests;
  limits.max_states = options.max_states;
  limits.state_to_kv_ratio = options.state_to_kv_ratio;
  limits.prefix_cache = options.prefix_cache;
  PENSTOCK_ASSIGN_OR_RETURN(setup.memory, plan_memory(model.layout, limits));

  setup.limits.max_running = setup.memory.max_running_requests;
  setup.limits.prefix_cache = options.prefix_cache;
  setup.limits.out_of_place = options.strategy != SchedulerStrategy::kNoBuffer;
  setup.limits.track_interval = options.track_interval;
  const std::int32_t longest = std::min(setup.memory.context_length, kMaxPrefillTokens);
  // Rows that no prompts could fill would only cost memory.
  const std::int64_t useful = std::int64_t{setup.memory.context_length} * setup.memory.max_running_requests;
  setup.limits.prefill_tokens =
      options.chunked_prefill_size == -1
          ? longest
          : static_cast<std::int32_t>(std::min<std::int64_t>(options.chunked_prefill_size, useful));
  if (with_logits) {
    const std::int64_t rows = kMaxScoreBytes / (std::int64_t{model.vocab_size} * 4);
    setup.limits.score_rows = static_cast<std::int32_t>(std::clamp<std::int64_t>(rows, 1, setup.limits.prefill_tokens));
  }
  setup.text = fmt::format("{}\nstep: up to {} tokens of prompts beside {} that decode", setup.memory.text,
                           setup.limits.prefill_tokens, setup.limits.max_running);
  if (options.prefix_cache) {
    setup.text += setup.limits.out_of_place
                      ? fmt::format("\nprefix cache: extra_buffer, a snapshot every {} tokens", options.track_interval)
                      : "\nprefix cache: no_buffer";
  }
  if (options.memory_bytes == 0) {
    setup.text += fmt::format("\nmemory: {} free, {:.0f} % of it may be used for the cache",
                              format_bytes(available_bytes), options.mem_fraction * 100);
  }
  return setup;
}

}  // namespace penstock
