#include "checkpoint/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <system_error>
#include <utility>

#include "checkpoint/config_fields.h"
#include "checkpoint/json_value.h"
#include "checkpoint/text_util.h"

namespace penstock {
namespace {

constexpr std::int64_t kMaxConfigBytes = std::int64_t{16} << 20;

// Limits that no published model comes near, and that keep every product of sizes below 2^63.
constexpr std::int32_t kMaxVocab = 1 << 24;
constexpr std::int32_t kMaxWidth = 1 << 20;  // of hidden states and feed-forward layers
constexpr std::int32_t kMaxLayers = 1024;
constexpr std::int32_t kMaxHeads = 1024;
constexpr std::int32_t kMaxHeadDim = 1024;
constexpr std::int32_t kMaxLinearHeadDim = 512;
constexpr std::int32_t kMaxExperts = 4096;
constexpr std::int32_t kMaxPositions = 1 << 30;
constexpr std::int32_t kWidthMultiple = 8;  // what vector code may rely on
constexpr std::int32_t kLinearDimMultiple = 16;

constexpr const char* kSupported = "supported are qwen3_5, qwen3_5_text, qwen3_5_moe, qwen3_5_moe_text and qwen3_next";

constexpr std::array<std::pair<std::string_view, ModelFamily>, 5> kFamilies = {{
    {"qwen3_5", ModelFamily::kQwen35Dense},
    {"qwen3_5_text", ModelFamily::kQwen35Dense},
    {"qwen3_5_moe", ModelFamily::kQwen35Moe},
    {"qwen3_5_moe_text", ModelFamily::kQwen35Moe},
    {"qwen3_next", ModelFamily::kQwen3Next},
}};

// Other linear-attention hybrids: known, not done.
constexpr std::array<std::string_view, 15> kLaterFamilies = {
    "qwen4_exp",    "qwen4_exp_text", "kimi_linear",    "kimi_k3",
    "olmo_hybrid",  "glm5_next",      "bailing_moe_v3", "bailing_moe_linear",
    "jet_nemotron", "nemotron_h",     "falcon_h1",      "granitemoehybrid",
    "minimax",      "lfm2",           "zamba2"};

// Common families without linear attention, by the beginning of their model_type.
constexpr std::array<std::string_view, 18> kPlainFamilies = {
    "llama", "qwen2", "qwen3",  "mistral", "mixtral",   "gemma", "phi",   "gpt",   "deepseek",
    "glm",   "olmo",  "cohere", "falcon",  "starcoder", "opt",   "bloom", "mamba", "t5"};

Expected<ModelFamily> family_of(const std::string& model_type) {
  for (const auto& [name, family] : kFamilies) {
    if (model_type == name) return family;
  }
  const std::string subject = "model_type " + in_quotes(model_type);
  if (std::find(kLaterFamilies.begin(), kLaterFamilies.end(), model_type) != kLaterFamilies.end()) {
    return unsupported(subject + " is a known hybrid model, but not supported yet; " + kSupported);
  }
  for (const std::string_view prefix : kPlainFamilies) {
    if (model_type.starts_with(prefix)) {
      return unsupported(subject + " is not supported: this engine serves Gated DeltaNet hybrids; " + kSupported);
    }
  }
  return unsupported(subject + " is unknown; " + kSupported);
}

// Two spellings of one number must agree.
std::optional<double> one_of(const ConfigFields& fields, const std::string& first_name, std::optional<double> first,
                             const std::string& second_name, std::optional<double> second) {
  if (first && second && *first != *second) {
    fields.fail(invalid_argument(first_name + " and " + second_name + " disagree"));
  }
  return first ? first : second;
}

class ConfigParser {
 public:
  explicit ConfigParser(const JsonValue& root) : root_(&root) {}
  Expected<ModelConfig> parse();

 private:
  Status choose_family();
  void read_common(const ConfigFields& text, const ConfigFields& top);
  void read_layers(const ConfigFields& text);
  void read_attention(const ConfigFields& text);
  void read_rope(const ConfigFields& text);
  void check_rope_type(const ConfigFields& rope, const std::string& where) const;
  void read_linear_attention(const ConfigFields& text);
  void read_feed_forward(const ConfigFields& text);
  void read_mtp(const ConfigFields& text);
  std::int32_t width(const ConfigFields& text, std::string_view key) const;

  const JsonValue* root_;
  const JsonValue* text_ = nullptr;
  Status status_;
  ModelConfig config_;
};

Status ConfigParser::choose_family() {
  Status status;
  const ConfigFields top(*root_, "", &status);
  const JsonValue* nested = top.find("text_config");
  config_.nested = nested != nullptr;
  text_ = nested != nullptr ? nested : root_;
  if (!text_->is(JsonValue::Kind::kObject)) {
    return invalid_argument("text_config must be an object, but is " + text_->describe());
  }
  const std::optional<std::string> outer = top.string("model_type");
  const std::optional<std::string> inner = ConfigFields(*text_, "text_config.", &status).string("model_type");
  PENSTOCK_RETURN_IF_ERROR(status);
  if (!outer && !inner) return invalid_argument(std::string("model_type is missing; ") + kSupported);

  config_.model_type = outer ? *outer : *inner;
  PENSTOCK_ASSIGN_OR_RETURN(config_.family, family_of(config_.model_type));
  if (outer && inner) {
    PENSTOCK_ASSIGN_OR_RETURN(const ModelFamily text_family, family_of(*inner));
    if (text_family != config_.family) {
      return invalid_argument("model_type " + in_quotes(*outer) + " and text_config.model_type " + in_quotes(*inner) +
                              " disagree");
    }
  }
  if (const JsonValue* list = top.find("architectures")) {
    if (!list->is(JsonValue::Kind::kArray)) {
      return invalid_argument("architectures must be a list of names, but is " + list->describe());
    }
    if (!list->array.empty()) config_.architecture = list->array.front().string;
  }
  return {};
}

// Sizes of layers: a multiple of kWidthMultiple.
std::int32_t ConfigParser::width(const ConfigFields& text, std::string_view key) const {
  const std::int32_t value = text.required_integer(key, kWidthMultiple, kMaxWidth);
  if (value % kWidthMultiple != 0) {
    text.fail(unsupported(text.name(key) + " is " + std::to_string(value) + "; it must be a multiple of " +
                          std::to_string(kWidthMultiple)));
  }
  return value;
}

void ConfigParser::read_common(const ConfigFields& text, const ConfigFields& top) {
  config_.vocab_size = text.required_integer("vocab_size", 1, kMaxVocab);
  config_.hidden_size = width(text, "hidden_size");
  config_.max_position_embeddings = text.required_integer("max_position_embeddings", 1, kMaxPositions);
  config_.rms_norm_eps = static_cast<float>(text.number("rms_norm_eps", 1e-12, 1e-1).value_or(1e-6));

  // The outer value counts: that of text_config can be a library's default (models of the nested kind).
  const std::optional<bool> outer = top.boolean("tie_word_embeddings");
  const std::optional<bool> inner = text.boolean("tie_word_embeddings");
  config_.tie_word_embeddings = outer.value_or(inner.value_or(false));

  const std::string activation = text.string("hidden_act").value_or("silu");
  if (activation != "silu") {
    text.fail(unsupported(text.name("hidden_act") + " is " + in_quotes(activation) + "; only silu is supported"));
  }
  const auto inner_ids = text.token_ids("eos_token_id", config_.vocab_size);
  const auto outer_ids = top.token_ids("eos_token_id", config_.vocab_size);
  if (inner_ids) {
    config_.eos_token_ids = *inner_ids;
  } else if (outer_ids) {
    config_.eos_token_ids = *outer_ids;
  }
}

void ConfigParser::read_layers(const ConfigFields& text) {
  const std::int32_t layers = text.required_integer("num_hidden_layers", 1, kMaxLayers);
  const std::int32_t interval = text.integer("full_attention_interval", 1, kMaxLayers).value_or(4);
  const JsonValue* types = text.find("layer_types");
  if (types == nullptr) {
    for (std::int32_t i = 1; i <= layers; ++i) {
      config_.layers.push_back(i % interval == 0 ? LayerKind::kFullAttention : LayerKind::kGdn);
    }
    return;
  }
  if (!types->is(JsonValue::Kind::kArray)) {
    return text.fail(invalid_argument(text.name("layer_types") + " must be a list, but is " + types->describe()));
  }
  if (types->array.size() != static_cast<std::size_t>(layers)) {
    return text.fail(invalid_argument(text.name("layer_types") + " has " + std::to_string(types->array.size()) +
                                      " entries, but num_hidden_layers is " + std::to_string(layers)));
  }
  for (std::size_t i = 0; i < types->array.size(); ++i) {
    const JsonValue& type = types->array[i];
    if (type.is(JsonValue::Kind::kString) && type.string == "linear_attention") {
      config_.layers.push_back(LayerKind::kGdn);
    } else if (type.is(JsonValue::Kind::kString) && type.string == "full_attention") {
      config_.layers.push_back(LayerKind::kFullAttention);
    } else {
      return text.fail(unsupported(text.name("layer_types") + "[" + std::to_string(i) + "] is " + type.describe() +
                                   "; supported are linear_attention and full_attention"));
    }
  }
}

void ConfigParser::read_attention(const ConfigFields& text) {
  config_.num_attention_heads = text.required_integer("num_attention_heads", 1, kMaxHeads);
  config_.num_key_value_heads = text.required_integer("num_key_value_heads", 1, kMaxHeads);
  if (config_.num_attention_heads % config_.num_key_value_heads != 0) {
    text.fail(invalid_argument(text.name("num_attention_heads") + " (" + std::to_string(config_.num_attention_heads) +
                               ") is no multiple of num_key_value_heads (" +
                               std::to_string(config_.num_key_value_heads) + ")"));
  }
  config_.head_dim = text.integer("head_dim", 2, kMaxHeadDim).value_or(256);
  if (config_.head_dim % 2 != 0) {
    text.fail(
        invalid_argument(text.name("head_dim") + " is " + std::to_string(config_.head_dim) + "; it must be even"));
  }
  if (text.boolean("attention_bias").value_or(false)) {
    text.fail(unsupported(text.name("attention_bias") + " is true; projections with a bias are not supported"));
  }
  if (!text.boolean("attn_output_gate").value_or(true)) {
    text.fail(unsupported(text.name("attn_output_gate") + " is false; only gated attention is supported"));
  }
  if (text.boolean("use_sliding_window").value_or(false)) {
    text.fail(unsupported(text.name("use_sliding_window") + " is true; sliding windows are not supported"));
  }
  read_rope(text);
}

void ConfigParser::check_rope_type(const ConfigFields& rope, const std::string& where) const {
  for (const char* key : {"rope_type", "type"}) {
    const std::string type = rope.string(key).value_or("default");
    // "mrope" differs from the default for images only: all three positions of a text token are the same.
    if (type != "default" && type != "mrope") {
      rope.fail(unsupported(where + ": " + key + " is " + in_quotes(type) +
                            "; only the default rotary embedding is supported"));
    }
  }
  if (rope.find("rope_type") == nullptr && rope.find("type") == nullptr && rope.find("factor") != nullptr) {
    rope.fail(unsupported(where + " has a factor but no rope_type; scaled rotary embeddings are not supported"));
  }
}

void ConfigParser::read_rope(const ConfigFields& text) {
  std::optional<double> theta = text.number("rope_theta", 1.0, 1e12);
  std::optional<double> partial = text.number("partial_rotary_factor", 1e-6, 1.0);
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const JsonValue* value = text.find(key);
    if (value == nullptr) continue;
    const std::string where = text.name(key);
    if (!value->is(JsonValue::Kind::kObject)) {
      return text.fail(invalid_argument(where + " must be an object, but is " + value->describe()));
    }
    const ConfigFields rope(*value, where + ".", &status_);
    check_rope_type(rope, where);
    theta = one_of(text, rope.name("rope_theta"), rope.number("rope_theta", 1.0, 1e12), text.name("rope_theta"), theta);
    partial = one_of(text, rope.name("partial_rotary_factor"), rope.number("partial_rotary_factor", 1e-6, 1.0),
                     text.name("partial_rotary_factor"), partial);
  }
  if (!theta) text.fail(invalid_argument(text.name("rope_theta") + " is missing, there and in rope_parameters"));
  config_.rope_theta = theta.value_or(1e7);
  const double rotary = std::floor(config_.head_dim * partial.value_or(0.25));
  config_.rotary_dim = static_cast<std::int32_t>(rotary);
  if (config_.rotary_dim < 2 || config_.rotary_dim % 2 != 0) {
    text.fail(invalid_argument("partial_rotary_factor " + std::to_string(partial.value_or(0.25)) + " of head_dim " +
                               std::to_string(config_.head_dim) + " gives " + std::to_string(config_.rotary_dim) +
                               " rotary dimensions; they must be even and at least 2"));
  }
}

void ConfigParser::read_linear_attention(const ConfigFields& text) {
  config_.linear_num_key_heads = text.required_integer("linear_num_key_heads", 1, kMaxHeads);
  config_.linear_num_value_heads = text.required_integer("linear_num_value_heads", 1, kMaxHeads);
  if (config_.linear_num_value_heads % config_.linear_num_key_heads != 0) {
    text.fail(invalid_argument(
        text.name("linear_num_value_heads") + " (" + std::to_string(config_.linear_num_value_heads) +
        ") is no multiple of linear_num_key_heads (" + std::to_string(config_.linear_num_key_heads) + ")"));
  }
  for (auto [key, field] : {std::pair{"linear_key_head_dim", &config_.linear_key_head_dim},
                            std::pair{"linear_value_head_dim", &config_.linear_value_head_dim}}) {
    *field = text.integer(key, kLinearDimMultiple, kMaxLinearHeadDim).value_or(128);
    if (*field % kLinearDimMultiple != 0) {
      text.fail(unsupported(text.name(key) + " is " + std::to_string(*field) + "; it must be a multiple of " +
                            std::to_string(kLinearDimMultiple)));
    }
  }
  config_.linear_conv_kernel_dim = text.integer("linear_conv_kernel_dim", 1, 1024).value_or(4);
  if (config_.linear_conv_kernel_dim != 4) {
    text.fail(unsupported(text.name("linear_conv_kernel_dim") + " is " +
                          std::to_string(config_.linear_conv_kernel_dim) + "; only 4 is supported"));
  }
  const std::string gate = text.string("output_gate_type").value_or("swish");
  if (gate == "sigmoid") {
    config_.gdn_gate = GateActivation::kSigmoid;
  } else if (gate != "swish" && gate != "silu") {
    text.fail(unsupported(text.name("output_gate_type") + " is " + in_quotes(gate) +
                          "; supported are swish, silu and sigmoid"));
  }
  config_.mamba_ssm_dtype = text.string("mamba_ssm_dtype").value_or("float32");
  constexpr std::array<std::string_view, 3> kStateDTypes = {"float32", "bfloat16", "float16"};
  if (std::find(kStateDTypes.begin(), kStateDTypes.end(), config_.mamba_ssm_dtype) == kStateDTypes.end()) {
    text.fail(unsupported(text.name("mamba_ssm_dtype") + " is " + in_quotes(config_.mamba_ssm_dtype) +
                          "; known are float32, bfloat16 and float16"));
  }
}

void ConfigParser::read_feed_forward(const ConfigFields& text) {
  config_.num_experts = text.integer("num_experts", 0, kMaxExperts).value_or(0);
  if (config_.family == ModelFamily::kQwen35Moe && config_.num_experts == 0) {
    text.fail(invalid_argument(text.name("num_experts") + " is missing or 0, but the model is of the MoE kind"));
  }
  if (config_.family == ModelFamily::kQwen35Dense && config_.num_experts > 0) {
    text.fail(invalid_argument(text.name("num_experts") + " is " + std::to_string(config_.num_experts) +
                               ", but the model is of the dense kind"));
  }
  if (!config_.is_moe()) {
    config_.intermediate_size = width(text, "intermediate_size");
    return;
  }
  config_.num_experts_per_tok = text.required_integer("num_experts_per_tok", 1, config_.num_experts);
  config_.moe_intermediate_size = width(text, "moe_intermediate_size");
  config_.shared_expert_intermediate_size = width(text, "shared_expert_intermediate_size");
  // Qwen3.5 renormalises whatever the file says, Qwen3-Next does as it is told.
  const bool norm_topk = text.boolean("norm_topk_prob").value_or(true);
  config_.norm_topk_prob = config_.family == ModelFamily::kQwen35Moe || norm_topk;
  if (const std::int32_t step = text.integer("decoder_sparse_step", 0, kMaxLayers).value_or(1); step != 1) {
    text.fail(unsupported(text.name("decoder_sparse_step") + " is " + std::to_string(step) +
                          "; only 1 is supported, experts in every layer"));
  }
  const JsonValue* dense_layers = text.find("mlp_only_layers");
  if (dense_layers != nullptr && !(dense_layers->is(JsonValue::Kind::kArray) && dense_layers->array.empty())) {
    text.fail(unsupported(text.name("mlp_only_layers") +
                          " is not an empty list; a mix of dense and expert layers is not supported"));
  }
}

void ConfigParser::read_mtp(const ConfigFields& text) {
  config_.mtp_num_hidden_layers = text.integer("mtp_num_hidden_layers", 0, kMaxLayers).value_or(0);
  if (config_.mtp_num_hidden_layers > 1) {
    text.fail(unsupported(text.name("mtp_num_hidden_layers") + " is " + std::to_string(config_.mtp_num_hidden_layers) +
                          "; at most 1 is supported"));
  }
  if (config_.mtp_num_hidden_layers > 0 && text.boolean("mtp_use_dedicated_embeddings").value_or(false)) {
    text.fail(unsupported(text.name("mtp_use_dedicated_embeddings") +
                          " is true; a draft layer with its own embeddings is not supported"));
  }
}

Expected<ModelConfig> ConfigParser::parse() {
  if (!root_->is(JsonValue::Kind::kObject)) {
    return invalid_argument("the file must hold an object, but holds " + root_->describe());
  }
  PENSTOCK_RETURN_IF_ERROR(choose_family());
  PENSTOCK_RETURN_IF_ERROR(check_not_quantized(*root_, ""));
  PENSTOCK_RETURN_IF_ERROR(check_not_quantized(*text_, "text_config."));
  const ConfigFields top(*root_, "", &status_);
  const ConfigFields text(*text_, config_.nested ? "text_config." : "", &status_);
  read_common(text, top);
  read_layers(text);
  read_attention(text);
  read_linear_attention(text);
  read_feed_forward(text);
  read_mtp(text);
  PENSTOCK_RETURN_IF_ERROR(status_);
  return std::move(config_);
}

Status no_config(const std::filesystem::path& dir) {
  std::error_code error;
  if (!std::filesystem::exists(dir, error)) return not_found("no such model directory: " + dir.string());
  if (!std::filesystem::is_directory(dir, error)) {
    return invalid_argument(dir.string() + " is a file; give the directory that holds config.json and the weights");
  }
  return not_found("no config.json in " + dir.string() + ": is it a model directory of the Hugging Face layout?");
}

}  // namespace

const char* to_string(ModelFamily family) {
  switch (family) {
    case ModelFamily::kQwen35Dense:
      return "qwen3_5";
    case ModelFamily::kQwen35Moe:
      return "qwen3_5_moe";
    case ModelFamily::kQwen3Next:
      return "qwen3_next";
  }
  return "?";
}

std::int32_t ModelConfig::count(LayerKind kind) const {
  return static_cast<std::int32_t>(std::count(layers.begin(), layers.end(), kind));
}

Expected<ModelConfig> parse_model_config(std::string_view json) {
  PENSTOCK_ASSIGN_OR_RETURN(const JsonValue root, parse_json(json));
  return ConfigParser(root).parse();
}

Expected<ModelConfig> read_model_config(const std::filesystem::path& dir) {
  const std::filesystem::path path = dir / "config.json";
  const Expected<std::string> text = read_text_file(path, kMaxConfigBytes);
  if (!text.ok()) return text.status().code() == StatusCode::kNotFound ? no_config(dir) : text.status();
  Expected<ModelConfig> config = parse_model_config(*text);
  if (!config.ok()) return config.status().with_context(path.string());
  PENSTOCK_RETURN_IF_ERROR(check_no_quantization_file(dir));
  return config;
}

Expected<GenerationConfig> parse_generation_config(std::string_view json, const ModelConfig& config) {
  PENSTOCK_ASSIGN_OR_RETURN(const JsonValue root, parse_json(json));
  if (!root.is(JsonValue::Kind::kObject)) {
    return invalid_argument("the file must hold an object, but holds " + root.describe());
  }
  Status status;
  const ConfigFields fields(root, "", &status);
  const auto number = [&](std::string_view key, double least, double most) -> std::optional<float> {
    const std::optional<double> value = fields.number(key, least, most);
    return value ? std::optional(static_cast<float>(*value)) : std::nullopt;
  };
  // The ranges of SamplingParams: a default that a request could not ask for is no default.
  constexpr double kSmallest = 1e-6;
  GenerationConfig out;
  out.eos_token_ids = fields.token_ids("eos_token_id", config.vocab_size).value_or(config.eos_token_ids);
  out.do_sample = fields.boolean("do_sample");
  out.temperature = number("temperature", 0.0, 100.0);
  out.top_p = number("top_p", kSmallest, 1.0);
  out.min_p = number("min_p", 0.0, 1.0);
  out.repetition_penalty = number("repetition_penalty", kSmallest, 10.0);
  out.presence_penalty = number("presence_penalty", -2.0, 2.0);
  out.frequency_penalty = number("frequency_penalty", -2.0, 2.0);
  out.top_k = fields.integer("top_k", -1, INT32_MAX);
  PENSTOCK_RETURN_IF_ERROR(status);
  return out;
}

Expected<GenerationConfig> read_generation_config(const std::filesystem::path& dir, const ModelConfig& config) {
  const std::filesystem::path path = dir / "generation_config.json";
  const Expected<std::string> text = read_text_file(path, kMaxConfigBytes);
  if (!text.ok()) {
    if (text.status().code() != StatusCode::kNotFound) return text.status();
    GenerationConfig out;
    out.eos_token_ids = config.eos_token_ids;
    return out;
  }
  Expected<GenerationConfig> out = parse_generation_config(*text, config);
  if (!out.ok()) return out.status().with_context(path.string());
  return out;
}

}  // namespace penstock
