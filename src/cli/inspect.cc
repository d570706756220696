// penstock inspect: what a model is and what it will take, without loading its weights.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/cpu.h"
#include "cache/memory_plan.h"
#include "checkpoint/checkpoint.h"
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/loading.h"
#include "cli/machine.h"
#include "cli/options.h"
#include "ops/cache_layout.h"
#include "ops/policy.h"

namespace penstock::cli {
namespace {

using Json = nlohmann::ordered_json;

struct InspectArguments {
  ModelArguments model;
  EngineOptions engine;
  bool tensors = false, kernels = false, memory = false, json = false;
};

// Everything there is to say, gathered before any of it is printed.
struct Inspection {
  std::filesystem::path directory;
  std::unique_ptr<Checkpoint> checkpoint;
  KernelPlan kernels;
  CacheLayout layout;
  Expected<MemoryPlan> memory = unavailable("");  // an error here is something to show, not the end
  std::int64_t parameters = 0, weight_bytes = 0, skipped_tensors = 0;  // of what runs
  std::int64_t mtp_parameters = 0;                                     // recognised, not loaded by this version

  const ModelConfig& config() const { return checkpoint->config(); }
};

Expected<MemoryPlan> plan(const Inspection& inspection, const EngineOptions& options) {
  MemoryLimits limits;
  limits.model_context = inspection.config().max_position_embeddings;
  limits.context_length = options.context_length;
  limits.max_running_requests = options.max_running_requests;
  limits.max_states = options.max_states;
  limits.state_to_kv_ratio = options.state_to_kv_ratio;
  limits.prefix_cache = options.prefix_cache;
  limits.memory_bytes = options.memory_bytes;
  if (limits.memory_bytes == 0) {
    const std::int64_t free_bytes = read_memory().available_bytes - inspection.weight_bytes;
    if (free_bytes <= 0) {
      return resource_exhausted(fmt::format("the weights take {}, but only {} of memory are available",
                                            human_bytes(inspection.weight_bytes),
                                            human_bytes(read_memory().available_bytes)));
    }
    limits.memory_bytes = static_cast<std::int64_t>(options.mem_fraction * static_cast<double>(free_bytes));
  }
  return plan_memory(inspection.layout, limits);
}

Expected<Inspection> inspect(const InspectArguments& arguments) {
  Inspection result;
  PENSTOCK_ASSIGN_OR_RETURN(result.directory, find_model(arguments.model.model));
  CheckpointOptions options;
  options.format = arguments.model.load_format;
  options.seed = arguments.model.random_seed;
  PENSTOCK_ASSIGN_OR_RETURN(result.checkpoint, Checkpoint::open(result.directory, options));
  PENSTOCK_ASSIGN_OR_RETURN(result.kernels,
                            choose_kernels(detect_cpu(), result.config(), arguments.model.model_options.kernels));
  const KernelPlan& kernels = result.kernels;
  result.layout = CacheLayout::make(result.config(), kernels.gdn_backend, kernels.state_dtype, kernels.kv_dtype);
  for (const TensorInfo& tensor : result.checkpoint->tensors()) {
    if (tensor.skipped) {
      ++result.skipped_tensors;
      continue;
    }
    if (tensor.name.starts_with("mtp.")) {
      result.mtp_parameters += tensor.bytes / static_cast<std::int64_t>(dtype_bytes(tensor.dtype));
      continue;
    }
    result.parameters += tensor.bytes / static_cast<std::int64_t>(dtype_bytes(tensor.dtype));
    result.weight_bytes += tensor.bytes;
  }
  result.memory = plan(result, arguments.engine);
  return result;
}

// As in config.json, in words: "3 linear_attention, 1 full_attention, …" runs would be long, so layers are counted.
Json config_json(const Inspection& inspection) {
  const ModelConfig& c = inspection.config();
  Json json;
  json["family"] = to_string(c.family);
  json["model_type"] = c.model_type;
  json["architecture"] = c.architecture;
  json["layers"] = c.num_layers();
  json["gdn_layers"] = c.count(LayerKind::kGdn);
  json["full_attention_layers"] = c.count(LayerKind::kFullAttention);
  json["hidden_size"] = c.hidden_size;
  json["vocab_size"] = c.vocab_size;
  json["max_position_embeddings"] = c.max_position_embeddings;
  json["tied_embeddings"] = inspection.checkpoint->weights().tied;
  json["attention"] = {{"heads", c.num_attention_heads},
                       {"kv_heads", c.num_key_value_heads},
                       {"head_dim", c.head_dim},
                       {"rotary_dim", c.rotary_dim},
                       {"rope_theta", c.rope_theta}};
  json["gated_deltanet"] = {{"key_heads", c.linear_num_key_heads},
                            {"value_heads", c.linear_num_value_heads},
                            {"key_head_dim", c.linear_key_head_dim},
                            {"value_head_dim", c.linear_value_head_dim},
                            {"conv_kernel", c.linear_conv_kernel_dim},
                            {"output_gate", c.gdn_gate == GateActivation::kSilu ? "silu" : "sigmoid"},
                            {"mamba_ssm_dtype", c.mamba_ssm_dtype}};
  json["intermediate_size"] = c.intermediate_size;
  if (c.is_moe()) {
    json["moe"] = {{"experts", c.num_experts},
                   {"experts_per_token", c.num_experts_per_tok},
                   {"intermediate_size", c.moe_intermediate_size},
                   {"shared_expert_intermediate_size", c.shared_expert_intermediate_size}};
  }
  json["mtp_layers"] = c.mtp_num_hidden_layers;
  json["eos_token_ids"] = inspection.checkpoint->generation_config().eos_token_ids;
  return json;
}

// What the model needs. A slot of the cache has a few bytes more, so that pages and states fill the same slabs.
std::int64_t kv_page_bytes(const CacheLayout& layout) {
  return static_cast<std::int64_t>(layout.kv_layer_bytes) * layout.attention_layers;
}

std::int64_t state_bytes(const CacheLayout& layout) {
  return static_cast<std::int64_t>(layout.state_layer_bytes) * layout.gdn_layers;
}

Json request_json(const CacheLayout& layout) {
  Json json;
  json["block_tokens"] = kBlockTokens;
  json["kv_bytes_per_token"] = kv_page_bytes(layout) / kBlockTokens;
  json["kv_page_bytes"] = kv_page_bytes(layout);
  json["state_bytes"] = state_bytes(layout);
  json["window_bytes"] = layout.window_bytes;
  json["state_dtype"] = to_string(layout.state_dtype);
  json["kv_dtype"] = to_string(layout.kv_dtype);
  return json;
}

Json memory_json(const Expected<MemoryPlan>& memory, const CacheLayout& layout) {
  if (!memory.ok()) return {{"error", memory.status().message()}};
  return {{"memory_bytes", memory->memory_bytes},
          {"context_length", memory->context_length},
          {"max_running_requests", memory->max_running_requests},
          {"slabs", memory->slabs},
          {"slab_bytes", memory->slab_bytes},
          {"kv_pages_per_slab", layout.pages_per_slab},
          {"states_per_slab", layout.states_per_slab},
          {"arena_bytes", memory->arena_bytes},
          {"kv_pages", memory->kv_pages},  // the most there can be of each kind: they share the slabs
          {"states", memory->states},
          {"windows", memory->windows},
          {"window_bytes", memory->window_bytes}};
}

Json tensors_json(const std::vector<TensorInfo>& tensors) {
  Json list = Json::array();
  for (const TensorInfo& tensor : tensors) {
    list.push_back({{"name", tensor.name},
                    {"dtype", to_string(tensor.dtype)},
                    {"shape", tensor.shape},
                    {"bytes", tensor.bytes},
                    {"file", tensor.file},
                    {"skipped", tensor.skipped}});
  }
  return list;
}

std::string all_as_json(const Inspection& inspection, bool with_tensors) {
  Json json;
  json["model"] = inspection.directory.string();
  json["config"] = config_json(inspection);
  json["parameters"] = inspection.parameters;
  json["mtp_parameters"] = inspection.mtp_parameters;
  json["weight_bytes"] = inspection.weight_bytes;
  json["tensor_count"] = inspection.checkpoint->tensors().size();
  json["skipped_tensors"] = inspection.skipped_tensors;
  json["request"] = request_json(inspection.layout);
  json["memory_plan"] = memory_json(inspection.memory, inspection.layout);
  json["kernels"] = Json::array();
  for (const KernelChoice& choice : inspection.kernels.choices) {
    json["kernels"].push_back({{"phase", choice.phase}, {"kernel", choice.kernel}, {"reason", choice.reason}});
  }
  if (with_tensors) json["tensors"] = tensors_json(inspection.checkpoint->tensors());
  return json_line(json);
}

std::string config_text(const Inspection& inspection) {
  const ModelConfig& c = inspection.config();
  std::string text = fmt::format("model     {}\n", inspection.directory.string());
  text += fmt::format("family    {} ({}{})\n", to_string(c.family), c.model_type,
                      c.nested ? ", inside a multimodal model" : "");
  text += fmt::format("size      {} parameters, {} in {} tensors", human_count(inspection.parameters),
                      human_bytes(inspection.weight_bytes), inspection.checkpoint->tensors().size());
  if (inspection.skipped_tensors > 0) text += fmt::format(" ({} of vision skipped)", inspection.skipped_tensors);
  text += fmt::format("\nlayers    {}: {} Gated DeltaNet, {} full attention; hidden {}, vocabulary {}{}\n",
                      c.num_layers(), c.count(LayerKind::kGdn), c.count(LayerKind::kFullAttention), c.hidden_size,
                      grouped(c.vocab_size), inspection.checkpoint->weights().tied ? ", tied embeddings" : "");
  text += fmt::format("          Gated DeltaNet: {} key heads of {}, {} value heads of {}, convolution over {}\n",
                      c.linear_num_key_heads, c.linear_key_head_dim, c.linear_num_value_heads, c.linear_value_head_dim,
                      c.linear_conv_kernel_dim);
  text += fmt::format("          attention: {} heads and {} kv heads of {}, rotary {} at theta {:g}\n",
                      c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.rotary_dim, c.rope_theta);
  if (c.is_moe()) {
    text += fmt::format("          experts: {}, {} a token, of {}; a shared one of {}\n", c.num_experts,
                        c.num_experts_per_tok, c.moe_intermediate_size, c.shared_expert_intermediate_size);
  } else {
    text += fmt::format("          feed-forward: {}\n", c.intermediate_size);
  }
  if (c.mtp_num_hidden_layers > 0) {
    text += fmt::format("          multi-token prediction: {} layer(s), {} parameters, not used by this version\n",
                        c.mtp_num_hidden_layers, human_count(inspection.mtp_parameters));
  }
  return text + fmt::format("context   {} tokens; ends with token {}\n", grouped(c.max_position_embeddings),
                            fmt::join(inspection.checkpoint->generation_config().eos_token_ids, ", "));
}

std::string memory_text(const Inspection& inspection) {
  const CacheLayout& layout = inspection.layout;
  std::string text = fmt::format(
      "request   {} of keys and values a token ({} a page of {} tokens, {})\n          {} of state ({}), {} of "
      "window\n",
      human_bytes(kv_page_bytes(layout) / kBlockTokens), human_bytes(kv_page_bytes(layout)), kBlockTokens,
      to_string(layout.kv_dtype), human_bytes(state_bytes(layout)), to_string(layout.state_dtype),
      human_bytes(static_cast<std::int64_t>(layout.window_bytes)));
  if (!inspection.memory.ok()) return text + fmt::format("memory    {}\n", inspection.memory.status().message());
  return text + inspection.memory->text + '\n';
}

std::string tensors_text(const std::vector<TensorInfo>& tensors) {
  std::size_t width = 0;
  for (const TensorInfo& tensor : tensors) width = std::max(width, tensor.name.size());
  std::string text;
  for (const TensorInfo& tensor : tensors) {
    text += fmt::format("{:<{}}  {:<5} {:<20} {:>10}  {}{}\n", tensor.name, width, to_string(tensor.dtype),
                        fmt::format("[{}]", fmt::join(tensor.shape, ", ")), human_bytes(tensor.bytes), tensor.file,
                        tensor.skipped ? "  (skipped)" : "");
  }
  return text;
}

int run(const InspectArguments& arguments) {
  const Expected<Inspection> inspection = inspect(arguments);
  if (!inspection.ok()) return report(inspection.status());
  std::string text;
  if (arguments.json) {
    text = all_as_json(*inspection, arguments.tensors);
  } else {
    const bool all = !arguments.tensors && !arguments.kernels && !arguments.memory;
    if (all) text += config_text(*inspection);
    if (all || arguments.memory) text += memory_text(*inspection);
    if (all || arguments.kernels) text += describe_kernels(inspection->kernels);
    if (arguments.tensors) text += tensors_text(inspection->checkpoint->tensors());
  }
  const Status written = write_stdout(text);
  return written.ok() ? kExitOk : report(written);
}

}  // namespace

Command make_inspect(CLI::App& parent) {
  auto arguments = std::make_shared<InspectArguments>();
  CLI::App* app = parent.add_subcommand("inspect", "what a model is, and what it will take here");
  add_model_options(*app, arguments->model, SeedOption::kWeights, "warn");
  add_engine_options(*app, arguments->engine);
  constexpr const char* kGroup = "Output";
  add_flag(*app, "--tensors", arguments->tensors, "the tensors of the files: name, type, shape, size")->group(kGroup);
  add_flag(*app, "--kernels", arguments->kernels, "the kernel of each phase, and why it was chosen")->group(kGroup);
  add_flag(*app, "--memory", arguments->memory, "bytes per request and the memory plan")->group(kGroup);
  add_flag(*app, "--json", arguments->json, "everything as one JSON object (the tensors with --tensors)")
      ->group(kGroup);
  return {app, [arguments] {
            set_up_logging(arguments->model.log_level);
            return run(*arguments);
          }};
}

}  // namespace penstock::cli
