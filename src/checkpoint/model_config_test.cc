#include "checkpoint/model_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <tuple>

namespace penstock {
namespace {

using Json = nlohmann::ordered_json;

Json dense() {
  return Json::parse(R"({
    "architectures": ["Qwen3_5ForCausalLM"], "model_type": "qwen3_5_text", "vocab_size": 248320, "hidden_size": 5120,
    "num_hidden_layers": 8, "num_attention_heads": 24, "num_key_value_heads": 4, "head_dim": 256,
    "hidden_act": "silu", "max_position_embeddings": 262144, "rms_norm_eps": 1e-06, "tie_word_embeddings": false,
    "attention_bias": false, "attn_output_gate": true, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 48,
    "mamba_ssm_dtype": "float32", "eos_token_id": 248044, "mtp_num_hidden_layers": 1, "intermediate_size": 17408,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000000, "partial_rotary_factor": 0.25,
                        "mrope_interleaved": true, "mrope_section": [11, 11, 10]}})");
}

Json nested() {
  Json text = dense();
  text.erase("architectures");
  return {{"architectures", {"Qwen3_5ForConditionalGeneration"}},
          {"model_type", "qwen3_5"},
          {"tie_word_embeddings", true},
          {"text_config", text},
          {"vision_config", {{"depth", 27}}}};
}

Json next() {
  Json out = dense();
  out["model_type"] = "qwen3_next";
  out.erase("rope_parameters");
  out.erase("mtp_num_hidden_layers");
  out.update(Json::parse(R"({"rope_theta": 10000000, "partial_rotary_factor": 0.25, "rope_scaling": null,
    "num_experts": 512, "num_experts_per_tok": 10, "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512, "norm_topk_prob": false, "decoder_sparse_step": 1,
    "mlp_only_layers": []})"));
  return out;
}

ModelConfig good(const Json& json) {
  auto config = parse_model_config(json.dump());
  EXPECT_TRUE(config.ok()) << config.status().message();
  return config.ok() ? *config : ModelConfig{};
}

void expect_error(const std::string& text, StatusCode code, const std::string& part) {
  const auto config = parse_model_config(text);
  ASSERT_FALSE(config.ok()) << "accepted, expected: " << part;
  EXPECT_EQ(config.status().code(), code) << config.status().message();
  EXPECT_NE(config.status().message().find(part), std::string::npos) << config.status().message();
}

TEST(ModelConfig, FlatDense) {
  const ModelConfig c = good(dense());
  EXPECT_EQ(c.family, ModelFamily::kQwen35Dense);
  EXPECT_EQ(c.model_type, "qwen3_5_text");
  EXPECT_EQ(c.architecture, "Qwen3_5ForCausalLM");
  EXPECT_FALSE(c.nested);
  EXPECT_EQ(c.vocab_size, 248320);
  EXPECT_EQ(c.num_layers(), 8);
  EXPECT_EQ(c.count(LayerKind::kFullAttention), 2);  // the published interval of 4
  EXPECT_EQ(c.layers[3], LayerKind::kFullAttention);
  EXPECT_EQ(c.rotary_dim, 64);
  EXPECT_DOUBLE_EQ(c.rope_theta, 1e7);
  EXPECT_FLOAT_EQ(c.rms_norm_eps, 1e-6F);
  EXPECT_EQ(c.conv_channels(), 2 * 2048 + 6144);
  EXPECT_EQ(c.gdn_gate, GateActivation::kSilu);
  EXPECT_EQ(c.mtp_num_hidden_layers, 1);
  EXPECT_EQ(c.eos_token_ids, std::vector<std::int32_t>{248044});
  EXPECT_FALSE(c.is_moe());
  EXPECT_EQ(c.intermediate_size, 17408);
}

TEST(ModelConfig, NestedTakesTheOuterTie) {
  const ModelConfig c = good(nested());
  EXPECT_TRUE(c.nested);
  EXPECT_EQ(c.model_type, "qwen3_5");
  EXPECT_TRUE(c.tie_word_embeddings);
  EXPECT_EQ(c.mtp_num_hidden_layers, 1);
}

TEST(ModelConfig, Qwen3Next) {
  const ModelConfig c = good(next());
  EXPECT_EQ(c.family, ModelFamily::kQwen3Next);
  EXPECT_EQ(c.num_experts, 512);
  EXPECT_EQ(c.num_experts_per_tok, 10);
  EXPECT_FALSE(c.norm_topk_prob);
  EXPECT_EQ(c.mtp_num_hidden_layers, 0);
}

TEST(ModelConfig, Qwen35MoeAlwaysRenormalises) {
  Json json = next();
  json["model_type"] = "qwen3_5_moe_text";
  EXPECT_TRUE(good(json).norm_topk_prob);
}

TEST(ModelConfig, Variants) {
  Json json = dense();
  json["layer_types"] = {"full_attention",   "linear_attention", "linear_attention", "linear_attention",
                         "linear_attention", "linear_attention", "linear_attention", "linear_attention"};
  EXPECT_EQ(good(json).layers[0], LayerKind::kFullAttention);
  json.erase("layer_types");
  json["full_attention_interval"] = 2;
  EXPECT_EQ(good(json).count(LayerKind::kFullAttention), 4);
  json["output_gate_type"] = "sigmoid";
  EXPECT_EQ(good(json).gdn_gate, GateActivation::kSigmoid);
  json["output_gate_type"] = "swish";
  EXPECT_EQ(good(json).gdn_gate, GateActivation::kSilu);
  json["eos_token_id"] = {1, 2};
  EXPECT_EQ(good(json).eos_token_ids, (std::vector<std::int32_t>{1, 2}));
  json["eos_token_id"] = nullptr;
  EXPECT_TRUE(good(json).eos_token_ids.empty());
  json.erase("attn_output_gate");
  json["rope_parameters"].erase("partial_rotary_factor");
  EXPECT_EQ(good(json).rotary_dim, 64);
  json["partial_rotary_factor"] = 0.5;
  EXPECT_EQ(good(json).rotary_dim, 128);
  json["rope_parameters"] = nullptr;
  json["rope_theta"] = 5e6;
  json["rope_scaling"] = {{"type", "mrope"}, {"mrope_section", {11, 11, 10}}};
  EXPECT_DOUBLE_EQ(good(json).rope_theta, 5e6);
}

TEST(ModelConfig, RefusesFieldsByName) {
  using Case = std::tuple<std::string, Json, StatusCode, std::string>;
  constexpr auto kBad = StatusCode::kInvalidArgument;
  constexpr auto kNo = StatusCode::kUnsupported;
  const std::vector<Case> cases = {
      {"vocab_size", 0, kBad, "vocab_size must be an integer from 1"},
      {"vocab_size", -5, kBad, "is the number -5"},
      {"vocab_size", 1e3, kBad, "is the number 1000.0"},
      {"vocab_size", 18446744073709551615ULL, kBad, "18446744073709551615"},
      {"vocab_size", "many", kBad, "the string 'many'"},
      {"vocab_size", Json::array({1}), kBad, "is a list"},
      {"hidden_size", 4294967296, kBad, "hidden_size"},
      {"hidden_size", 5121, kNo, "multiple of 8"},
      {"hidden_size", true, kBad, "but is true"},
      {"num_hidden_layers", 1000000, kBad, "num_hidden_layers"},
      {"layer_types", Json::array({"linear_attention"}), kBad, "has 1 entries, but num_hidden_layers is 8"},
      {"layer_types", "linear_attention", kBad, "must be a list"},
      {"full_attention_interval", 0, kBad, "full_attention_interval"},
      {"num_key_value_heads", 5, kBad, "no multiple of num_key_value_heads"},
      {"head_dim", 255, kBad, "must be even"},
      {"hidden_act", "gelu", kNo, "only silu"},
      {"attention_bias", true, kNo, "attention_bias"},
      {"attn_output_gate", false, kNo, "attn_output_gate"},
      {"rms_norm_eps", 0, kBad, "rms_norm_eps"},
      {"rms_norm_eps", "1e-6", kBad, "rms_norm_eps"},
      {"max_position_embeddings", 0, kBad, "max_position_embeddings"},
      {"linear_num_value_heads", 24, kBad, "no multiple of linear_num_key_heads"},
      {"linear_key_head_dim", 100, kNo, "linear_key_head_dim is 100"},
      {"linear_value_head_dim", 1024, kBad, "linear_value_head_dim"},
      {"linear_conv_kernel_dim", 3, kNo, "only 4"},
      {"output_gate_type", "tanh", kNo, "output_gate_type is 'tanh'"},
      {"mamba_ssm_dtype", "float8", kNo, "mamba_ssm_dtype is 'float8'"},
      {"num_experts", 8, kBad, "dense kind"},
      {"mtp_num_hidden_layers", 2, kNo, "at most 1"},
      {"mtp_use_dedicated_embeddings", true, kNo, "mtp_use_dedicated_embeddings"},
      {"eos_token_id", 248320, kBad, "eos_token_id must be"},
      {"eos_token_id", Json::array({1, -1}), kBad, "eos_token_id[1]"},
      {"tie_word_embeddings", "no", kBad, "tie_word_embeddings must be true or false"},
      {"rope_theta", 1e4, kBad, "rope_parameters.rope_theta and rope_theta disagree"},
      {"use_sliding_window", true, kNo, "use_sliding_window"},
      {"quantization_config", {{"quant_method", "fp8"}, {"fmt", "e4m3"}}, kNo, "'fp8' ('e4m3')"},
      {"quantization_config", {{"quant_method", "gptq"}, {"bits", 4}}, kNo, "'gptq' (4 bits)"},
      {"text_config", 3, kBad, "text_config must be an object"},
      {"model_type", 3, kBad, "model_type must be a string"},
  };
  for (const auto& [key, value, code, part] : cases) {
    SCOPED_TRACE(key);
    Json json = dense();
    json[key] = value;
    expect_error(json.dump(), code, part);
  }
  for (const char* key :
       {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "linear_num_key_heads", "linear_num_value_heads", "intermediate_size", "max_position_embeddings"}) {
    Json json = dense();
    json.erase(key);
    expect_error(json.dump(), kBad, std::string(key) + " is missing");
    json[key] = nullptr;
    expect_error(json.dump(), kBad, std::string(key) + " is missing");
  }
}

TEST(ModelConfig, RefusesRope) {
  for (const char* type : {"yarn", "linear", "dynamic", "longrope", "llama3"}) {
    Json json = dense();
    json["rope_parameters"]["rope_type"] = type;
    expect_error(json.dump(), StatusCode::kUnsupported, std::string("rope_type is '") + std::string(type) + "'");
    json = next();
    json["rope_scaling"] = {{"type", type}, {"factor", 4.0}};
    expect_error(json.dump(), StatusCode::kUnsupported,
                 std::string("rope_scaling: type is '") + std::string(type) + "'");
  }
  Json json = dense();
  json["rope_parameters"].erase("rope_theta");
  expect_error(json.dump(), StatusCode::kInvalidArgument, "rope_theta is missing");
  json = dense();
  json["rope_parameters"]["partial_rotary_factor"] = 1.5;
  expect_error(json.dump(), StatusCode::kInvalidArgument, "rope_parameters.partial_rotary_factor");
  json["rope_parameters"]["partial_rotary_factor"] = 0.001;
  expect_error(json.dump(), StatusCode::kInvalidArgument, "rotary dimensions");
  json = next();
  json["rope_scaling"] = {{"factor", 4.0}};
  expect_error(json.dump(), StatusCode::kUnsupported, "has a factor but no rope_type");
}

TEST(ModelConfig, RefusesExperts) {
  using Case = std::tuple<std::string, Json, StatusCode, std::string>;
  const std::vector<Case> cases = {
      {"num_experts_per_tok", 513, StatusCode::kInvalidArgument,
       "num_experts_per_tok must be an integer from 1 to 512"},
      {"decoder_sparse_step", 2, StatusCode::kUnsupported, "decoder_sparse_step"},
      {"mlp_only_layers", Json::array({0}), StatusCode::kUnsupported, "mlp_only_layers"},
      {"moe_intermediate_size", 12, StatusCode::kUnsupported, "moe_intermediate_size"},
  };
  for (const auto& [key, value, code, part] : cases) {
    Json json = next();
    json[key] = value;
    expect_error(json.dump(), code, part);
  }
  Json json = next();
  json["model_type"] = "qwen3_5_moe_text";
  json.erase("num_experts");
  expect_error(json.dump(), StatusCode::kInvalidArgument, "num_experts is missing or 0");
}

TEST(ModelConfig, RefusesFamiliesByName) {
  for (const char* type : {"qwen4_exp", "kimi_linear", "kimi_k3", "olmo_hybrid", "glm5_next", "bailing_moe_v3"}) {
    Json json = dense();
    json["model_type"] = type;
    expect_error(json.dump(), StatusCode::kUnsupported,
                 std::string("'") + std::string(type) +
                     "' is a known hybrid model, but not supported yet; supported are qwen3_5,");
  }
  for (const char* type : {"llama", "qwen2", "qwen3", "qwen3_moe", "mistral", "gemma3"}) {
    Json json = dense();
    json["model_type"] = type;
    expect_error(json.dump(), StatusCode::kUnsupported, "serves Gated DeltaNet hybrids; supported are qwen3_5");
  }
  Json json = dense();
  json["model_type"] = "my_model";
  expect_error(json.dump(), StatusCode::kUnsupported, "'my_model' is unknown");
  json.erase("model_type");
  expect_error(json.dump(), StatusCode::kInvalidArgument, "model_type is missing");
  json = nested();
  json["text_config"]["model_type"] = "qwen3_5_moe_text";
  expect_error(json.dump(), StatusCode::kInvalidArgument, "disagree");
  json = nested();
  json["text_config"]["quantization_config"] = {{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}};
  expect_error(json.dump(), StatusCode::kUnsupported, "text_config.quantization_config");
  json = nested();
  json["text_config"]["hidden_size"] = "x";
  expect_error(json.dump(), StatusCode::kInvalidArgument, "text_config.hidden_size");
}

TEST(ModelConfig, RefusesWhatIsNoJson) {
  expect_error("", StatusCode::kCorrupt, "not valid JSON");
  expect_error("[1]", StatusCode::kInvalidArgument, "must hold an object");
  expect_error(R"({"rms_norm_eps": NaN})", StatusCode::kCorrupt, "'rms_norm_eps' not valid JSON");
  expect_error(R"({"text_config": {"rope_theta": Infinity}})", StatusCode::kCorrupt, "'text_config.rope_theta'");
  expect_error(R"({"text_config": {"rope_theta": 1e999}})", StatusCode::kCorrupt, "number too large");
  expect_error(R"({"a": 1, "a": 2})", StatusCode::kCorrupt, "'a' is given twice");
  expect_error(R"({"a": 1} {)", StatusCode::kCorrupt, "not valid JSON");
  expect_error(std::string("{\"a\": ") + std::string(100000, '[') + "}", StatusCode::kCorrupt, "nested deeper than 32");
  expect_error("{\"a\": \"\xFF\"}", StatusCode::kCorrupt, "'a' not valid JSON");
}

TEST(GenerationConfig, ReadsAndChecks) {
  const ModelConfig config = good(dense());
  auto g = parse_generation_config(
      R"({"eos_token_id": [248046, 248044], "do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20,
          "repetition_penalty": 1, "presence_penalty": null, "pad_token_id": 248044})",
      config);
  ASSERT_TRUE(g.ok()) << g.status().message();
  EXPECT_EQ(g->eos_token_ids, (std::vector<std::int32_t>{248046, 248044}));
  EXPECT_EQ(g->do_sample, true);
  EXPECT_FLOAT_EQ(*g->temperature, 0.7F);
  EXPECT_EQ(g->top_k, 20);
  EXPECT_FLOAT_EQ(*g->repetition_penalty, 1.0F);
  EXPECT_FALSE(g->presence_penalty.has_value());
  g = parse_generation_config("{}", config);
  ASSERT_TRUE(g.ok());
  EXPECT_EQ(g->eos_token_ids, config.eos_token_ids);
  EXPECT_FALSE(g->do_sample.has_value());

  for (const auto& [text, part] : std::vector<std::pair<std::string, std::string>>{
           {R"({"temperature": -1})", "temperature must be a number from 0 to 100"},
           {R"({"temperature": "hot"})", "temperature"},
           {R"({"temperature": 1e39})", "temperature"},
           {R"({"top_p": 0})", "top_p"},
           {R"({"top_k": -2})", "top_k"},
           {R"({"top_k": 1.5})", "top_k"},
           {R"({"do_sample": 1})", "do_sample"},
           {R"({"eos_token_id": [999999]})", "eos_token_id[0]"},
           {R"({"presence_penalty": 3})", "presence_penalty"},
           {R"([])", "must hold an object"}}) {
    const auto bad = parse_generation_config(text, config);
    ASSERT_FALSE(bad.ok()) << text;
    EXPECT_EQ(bad.status().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(bad.status().message().find(part), std::string::npos) << bad.status().message();
  }
}

TEST(ModelConfig, BundledModel) {
  const std::filesystem::path dir = std::filesystem::path(PENSTOCK_SOURCE_DIR) / "models/gsm-hybrid";
  const auto config = read_model_config(dir);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_TRUE(config->tie_word_embeddings);
  const auto generation = read_generation_config(dir, *config);
  ASSERT_TRUE(generation.ok()) << generation.status().message();
  EXPECT_EQ(generation->eos_token_ids, (std::vector<std::int32_t>{2, 0}));
  EXPECT_EQ(generation->do_sample, false);
}

TEST(ModelConfig, MissingDirectoryAndFile) {
  const std::filesystem::path source = PENSTOCK_SOURCE_DIR;
  EXPECT_EQ(read_model_config(source / "no-such-model").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(read_model_config(source / "src").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(read_model_config(source / "CMakeLists.txt").status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace penstock
