// Damaged model directories and the error that each must give. Used by the unit test and, through make_corrupt, by the
// tests of the program.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "model_dir.h"

namespace penstock::damage {

struct Case {
  const char* name;     // of the directory
  const char* base;     // folder of tests/golden/data that is damaged
  const char* code;     // of the error, as penstock::to_string spells it
  std::string message;  // what it must mention
  std::function<void(ModelDir&)> damage;
};

inline void PrintTo(const Case& item, std::ostream* out) {
  *out << item.name;
}  // for GoogleTest

inline const char* const kDense = "dense-r2";
inline const char* const kNested = "nested-r1";
inline const char* const kEach = "moe-each-r2";
inline const char* const kPacked = "moe-packed-r2";
inline const char* const kNext = "next-r2";
inline const char* const kConfig = "config.json";
inline const char* const kWeights = "model.safetensors";
inline const char* const kIndex = "model.safetensors.index.json";
inline const char* const kShard1 = "model-00001-of-00002.safetensors";
inline const char* const kShard2 = "model-00002-of-00002.safetensors";

// config.json with one member set.
inline std::function<void(ModelDir&)> set(const std::string& key, Json value) {
  return [key, value](ModelDir& m) { m.config([&](Json& c) { c[key] = value; }); };
}
inline std::function<void(ModelDir&)> unset(const std::string& key) {
  return [key](ModelDir& m) { m.config([&](Json& c) { c.erase(key); }); };
}
inline std::function<void(ModelDir&)> set_text(const std::string& file, std::string text) {
  return [file, text](ModelDir& m) {
    m.remove(file);
    m.files[file] = text;
  };
}
// One member of one tensor's entry in the header.
inline std::function<void(ModelDir&)> entry(const std::string& tensor, const std::string& member, Json value) {
  return [=](ModelDir& m) { m.header([&](Json& h) { h.at(tensor)[member] = value; }); };
}
inline std::function<void(ModelDir&)> reshape(const std::string& tensor, std::vector<std::int64_t> shape) {
  return [=](ModelDir& m) { m.tensor(tensor, [&](Tensor& t) { t.shape = shape; }); };
}
inline std::function<void(ModelDir&)> drop(const std::string& tensor) {
  return [=](ModelDir& m) { m.remove_tensor(tensor); };
}
inline std::function<void(ModelDir&)> add(const std::string& tensor, Tensor value) {
  return [=](ModelDir& m) { m.add_tensor(tensor, value); };
}
// The last element of a tensor replaced by these bits.
inline std::function<void(ModelDir&)> poke(const std::string& tensor, std::string bits) {
  return [=](ModelDir& m) {
    m.tensor(tensor, [&](Tensor& t) { t.bytes.replace(t.bytes.size() - bits.size(), bits.size(), bits); });
  };
}

inline const std::string kBf16Nan("\xC0\x7F", 2);
inline const std::string kF32Inf("\x00\x00\x80\x7F", 4);

inline std::vector<Case> config_file_cases() {
  return {
      {"config_missing", kDense, "not_found", "no config.json", [](ModelDir& m) { m.remove(kConfig); }},
      {"config_empty", kDense, "corrupt", "config.json: not valid JSON", set_text(kConfig, "")},
      {"config_cut", kDense, "corrupt", "config.json",
       [](ModelDir& m) { m.files[kConfig].resize(m.files[kConfig].size() / 2); }},
      {"config_list", kDense, "invalid_argument", "must hold an object", set_text(kConfig, "[]")},
      {"config_nan", kDense, "corrupt", "'rms_norm_eps'", set_text(kConfig, R"({"rms_norm_eps": NaN})")},
      {"config_huge_number", kDense, "corrupt", "'rope_theta' is a number too large",
       set_text(kConfig, R"({"rope_theta": 1e999})")},
      {"config_twice", kDense, "corrupt", "'hidden_size' is given twice",
       set_text(kConfig, R"({"hidden_size": 64, "hidden_size": 128})")},
      {"config_deep", kDense, "corrupt", "nested deeper", set_text(kConfig, "{\"a\":" + std::string(1000000, '['))},
      {"config_bytes", kDense, "corrupt", "config.json", set_text(kConfig, "{\"a\": \"\xFF\xFE\"}")},
      {"config_folder", kDense, "invalid_argument", "not a regular file",
       [](ModelDir& m) {
         m.remove(kConfig);
         m.folders.emplace_back(kConfig);
       }},
      {"generation_broken", kDense, "corrupt", "generation_config.json", set_text("generation_config.json", "{")},
      {"generation_temperature", kDense, "invalid_argument", "temperature",
       set_text("generation_config.json", R"({"temperature": -0.5})")},
      {"generation_eos", kDense, "invalid_argument", "eos_token_id[0]",
       set_text("generation_config.json", R"({"eos_token_id": ["</s>"]})")},
  };
}

inline std::vector<Case> config_value_cases() {
  return {
      {"type_missing", kDense, "invalid_argument", "model_type is missing", unset("model_type")},
      {"type_number", kDense, "invalid_argument", "model_type must be a string", set("model_type", 3.5)},
      {"type_later", kDense, "unsupported", "'qwen4_exp' is a known hybrid model", set("model_type", "qwen4_exp")},
      {"type_kda", kDense, "unsupported", "'kimi_linear' is a known hybrid model", set("model_type", "kimi_linear")},
      {"type_plain", kDense, "unsupported", "Gated DeltaNet hybrids", set("model_type", "llama")},
      {"type_unknown", kDense, "unsupported", "'gdn_9000' is unknown", set("model_type", "gdn_9000")},
      {"text_config_list", kNested, "invalid_argument", "text_config must be an object",
       set("text_config", Json::array())},
      {"vocab_zero", kDense, "invalid_argument", "vocab_size", set("vocab_size", 0)},
      {"vocab_missing", kDense, "invalid_argument", "vocab_size is missing", unset("vocab_size")},
      {"hidden_negative", kDense, "invalid_argument", "hidden_size", set("hidden_size", -64)},
      {"hidden_string", kDense, "invalid_argument", "hidden_size", set("hidden_size", "64")},
      {"hidden_float", kDense, "invalid_argument", "hidden_size", set("hidden_size", 64.5)},
      {"hidden_huge", kDense, "invalid_argument", "hidden_size", set("hidden_size", 9223372036854775807)},
      {"layers_huge", kDense, "invalid_argument", "num_hidden_layers", set("num_hidden_layers", 2147483647)},
      {"layers_disagree", kDense, "invalid_argument", "layer_types has 4 entries", set("num_hidden_layers", 5)},
      {"layer_type_unknown", kDense, "unsupported", "layer_types[1]",
       [](ModelDir& m) { m.config([](Json& c) { c["layer_types"][1] = "sliding_attention"; }); }},
      {"heads_ratio", kDense, "invalid_argument", "num_key_value_heads", set("num_key_value_heads", 3)},
      {"head_dim_odd", kDense, "invalid_argument", "head_dim", set("head_dim", 255)},
      {"value_heads_ratio", kDense, "invalid_argument", "linear_num_value_heads", set("linear_num_value_heads", 3)},
      {"linear_dim", kDense, "unsupported", "linear_key_head_dim", set("linear_key_head_dim", 100)},
      {"conv_kernel", kDense, "unsupported", "linear_conv_kernel_dim", set("linear_conv_kernel_dim", 8)},
      {"hidden_act", kDense, "unsupported", "hidden_act", set("hidden_act", "gelu")},
      {"attention_bias", kDense, "unsupported", "attention_bias", set("attention_bias", true)},
      {"no_output_gate", kDense, "unsupported", "attn_output_gate", set("attn_output_gate", false)},
      {"gate_type", kDense, "unsupported", "output_gate_type", set("output_gate_type", "relu")},
      {"eps_zero", kDense, "invalid_argument", "rms_norm_eps", set("rms_norm_eps", 0.0)},
      {"rope_missing", kDense, "invalid_argument", "rope_theta is missing", unset("rope_parameters")},
      {"rope_yarn", kDense, "unsupported", "'yarn'",
       [](ModelDir& m) { m.config([](Json& c) { c["rope_parameters"]["rope_type"] = "yarn"; }); }},
      {"rope_partial", kDense, "invalid_argument", "partial_rotary_factor",
       [](ModelDir& m) { m.config([](Json& c) { c["rope_parameters"]["partial_rotary_factor"] = 2; }); }},
      {"eos_range", kDense, "invalid_argument", "eos_token_id", set("eos_token_id", 256)},
      {"mtp_many", kDense, "unsupported", "mtp_num_hidden_layers", set("mtp_num_hidden_layers", 3)},
      {"dense_experts", kDense, "invalid_argument", "num_experts", set("num_experts", 4)},
      {"experts_zero", kEach, "invalid_argument", "num_experts", set("num_experts", 0)},
      {"experts_chosen", kEach, "invalid_argument", "num_experts_per_tok", set("num_experts_per_tok", 9)},
      {"sparse_step", kNext, "unsupported", "decoder_sparse_step", set("decoder_sparse_step", 2)},
      {"mlp_only", kNext, "unsupported", "mlp_only_layers", set("mlp_only_layers", Json::array({0}))},
      {"quantised_config", kDense, "unsupported", "'awq' (4 bits)",
       set("quantization_config", {{"quant_method", "awq"}, {"bits", 4}})},
      {"quantised_text_config", kNested, "unsupported", "text_config.quantization_config",
       [](ModelDir& m) {
         m.config([](Json& c) { c["text_config"]["quantization_config"] = {{"quant_method", "fp8"}}; });
       }},
      {"quantised_modelopt", kDense, "unsupported", "ModelOpt with 'NVFP4'",
       set_text("hf_quant_config.json", R"({"quantization": {"quant_algo": "NVFP4"}})")},
  };
}

inline std::vector<Case> file_cases() {
  const std::string norm = "model.norm.weight";
  const std::string embed = "model.embed_tokens.weight";
  return {
      {"weights_missing", kDense, "not_found", "no weights", [](ModelDir& m) { m.remove(kWeights); }},
      {"weights_gguf", kDense, "not_found", "'model.gguf'",
       [](ModelDir& m) {
         m.remove(kWeights);
         m.files["model.gguf"] = "GGUF";
       }},
      {"weights_folder", kDense, "invalid_argument", "not a regular file",
       [](ModelDir& m) {
         m.remove(kWeights);
         m.folders.emplace_back(kWeights);
       }},
      {"weights_empty", kDense, "corrupt", "too short", set_text(kWeights, "")},
      {"weights_seven_bytes", kDense, "corrupt", "too short", set_text(kWeights, "1234567")},
      {"weights_lfs_pointer", kDense, "corrupt", "Is this a safetensors file?",
       set_text(kWeights, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1678848\n")},
      {"header_length_max", kDense, "corrupt", "header claims",
       [](ModelDir& m) { m.bytes().replace(0, 8, std::string(8, '\xFF')); }},
      {"header_length_file", kDense, "corrupt", "truncated", [](ModelDir& m) { m.bytes().resize(1000); }},
      {"header_zero", kDense, "corrupt", "not a JSON object",
       [](ModelDir& m) { m.bytes().replace(0, 8, std::string(8, '\0')); }},
      {"header_short", kDense, "corrupt", "not valid JSON", [](ModelDir& m) { m.bytes()[0] ^= 0x10; }},
      {"header_garbage", kDense, "corrupt", "not valid JSON", [](ModelDir& m) { m.bytes()[2000] = '\x01'; }},
      {"header_list", kDense, "corrupt", "not a JSON object", set_text(kWeights, frame("[]", ""))},
      {"header_deep", kDense, "corrupt", "not valid JSON",
       set_text(kWeights, frame("{\"a\":" + std::string(99999, '['), ""))},
      {"header_empty_model", kDense, "not_found", embed, set_text(kWeights, frame("{}", ""))},
      {"metadata_number", kDense, "corrupt", "__metadata__ 'step'",
       [](ModelDir& m) { m.header([](Json& h) { h["__metadata__"]["step"] = 3; }); }},
      {"name_twice", kDense, "corrupt", "'model.norm.weight' appears twice",
       [](ModelDir& m) {
         std::string& file = m.bytes();
         const std::uint64_t length = header_length(file);
         const std::string first = R"({"model.norm.weight":{"dtype":"BF16","shape":[0],"data_offsets":[0,0]},)";
         file = frame(first + file.substr(9, length - 1), file.substr(8 + length));
       }},
      {"data_cut", kDense, "corrupt", "truncated", [](ModelDir& m) { m.bytes().resize(m.bytes().size() - 100); }},
      {"data_longer", kDense, "corrupt", "after the last tensor", [](ModelDir& m) { m.bytes() += "more"; }},
      {"entry_number", kDense, "corrupt", norm,
       [](ModelDir& m) { m.header([](Json& h) { h["model.norm.weight"] = 1; }); }},
      {"entry_incomplete", kDense, "corrupt", norm,
       [](ModelDir& m) { m.header([](Json& h) { h["model.norm.weight"].erase("shape"); }); }},
      {"dtype_unknown", kDense, "corrupt", "dtype 'BF17'", entry(norm, "dtype", "BF17")},
      {"dtype_later", kDense, "unsupported", "dtype 'F8_E8M0'", entry(norm, "dtype", "F8_E8M0")},
      {"dtype_number", kDense, "corrupt", "dtype is not a string", entry(norm, "dtype", 16)},
      {"shape_negative", kDense, "corrupt", "shape holds", entry(norm, "shape", {-64})},
      {"shape_float", kDense, "corrupt", "shape holds", entry(norm, "shape", {64.0})},
      {"shape_overflow", kDense, "corrupt", "overflows", entry(norm, "shape", {4294967296, 4294967296, 64})},
      {"shape_wraps_to_size", kDense, "corrupt", "overflows", entry(norm, "shape", {std::int64_t{1} << 62, 4, 64})},
      {"shape_size", kDense, "corrupt", "needs 126 bytes", entry(norm, "shape", {63})},
      {"offsets_reversed", kDense, "corrupt", "end before they begin", entry(norm, "data_offsets", {128, 0})},
      {"offsets_outside", kDense, "corrupt", "outside", entry(norm, "data_offsets", {1000000000, 1000000128})},
      {"offsets_wrap", kDense, "corrupt", norm,
       entry(norm, "data_offsets", {18446744073709551488ULL, 18446744073709551615ULL})},
      {"offsets_negative", kDense, "corrupt", "pair of non-negative", entry(norm, "data_offsets", {-128, 0})},
      {"offsets_three", kDense, "corrupt", "pair of non-negative", entry(norm, "data_offsets", {0, 64, 128})},
      {"overlap", kDense, "corrupt", "overlap", entry(norm, "data_offsets", {1584, 1712})},
      {"hole", kDense, "corrupt", "a hole of 128 bytes",
       [](ModelDir& m) { m.header([](Json& h) { h.erase("model.norm.weight"); }); }},
  };
}

inline std::vector<Case> tensor_cases() {
  const std::string gdn = "model.layers.0.linear_attn.";
  const std::string attention = "model.layers.3.self_attn.";
  const Tensor small = {"BF16", {4}, std::string(8, '\0')};
  const Tensor scale = {"F32", {1, 1}, std::string(4, '\0')};
  return {
      {"no_embedding", kDense, "not_found", "'model.embed_tokens.weight' is missing",
       drop("model.embed_tokens.weight")},
      {"no_final_norm", kDense, "not_found", "'model.norm.weight' is missing", drop("model.norm.weight")},
      {"no_projection", kDense, "not_found", gdn + "in_proj_z.weight' is missing", drop(gdn + "in_proj_z.weight")},
      {"no_a_log", kDense, "not_found", gdn + "A_log' is missing", drop(gdn + "A_log")},
      {"no_q_norm", kDense, "not_found", attention + "q_norm.weight' is missing", drop(attention + "q_norm.weight")},
      {"no_nested_tensor", kNested, "not_found", "'model.language_model.layers.1.mlp.up_proj.weight' is missing",
       drop("model.language_model.layers.1.mlp.up_proj.weight")},
      {"no_draft_norm", kDense, "not_found", "'mtp.norm.weight' is missing", drop("mtp.norm.weight")},
      {"no_interleaved", kNext, "not_found", gdn + "in_proj_ba.weight' is missing", drop(gdn + "in_proj_ba.weight")},
      {"no_expert", kEach, "not_found", "'model.layers.2.mlp.experts.7.up_proj.weight' is missing",
       [](ModelDir& m) {
         m.remove_tensor("model.layers.2.mlp.experts.7.up_proj.weight", kShard2);
         m.edit_json(kIndex, [](Json& i) { i["weight_map"].erase("model.layers.2.mlp.experts.7.up_proj.weight"); });
       }},
      {"unknown_tensor", kDense, "unsupported", "'model.layers.0.linear_attn.conv1d.bias'",
       add(gdn + "conv1d.bias", small)},
      {"unknown_bias", kDense, "unsupported", attention + "q_proj.bias'", add(attention + "q_proj.bias", small)},
      {"unknown_prefix", kDense, "unsupported", "'transformer.wte.weight'", add("transformer.wte.weight", small)},
      {"extra_layer", kDense, "unsupported", "which has 4 layers", add("model.layers.4.input_layernorm.weight", small)},
      {"extra_expert", kPacked, "unsupported", "experts.0.gate_proj.weight'",
       add("model.language_model.layers.0.mlp.experts.0.gate_proj.weight", small)},
      {"odd_names", kDense, "unsupported", "\\x0a\\x1b[31m", add("a\n\x1b[31m" + std::string(1000, 'x'), small)},
      {"same_weight_twice", kDense, "corrupt", "the same weight under two names",
       add("model.language_model.norm.weight", small)},
      {"transposed", kDense, "corrupt", "has shape [64, 1024], but config.json implies [1024, 64]",
       reshape(gdn + "in_proj_qkv.weight", {64, 1024})},
      {"conv_layout", kDense, "corrupt", gdn + "conv1d.weight' in model.safetensors has shape [1024, 4, 1]",
       reshape(gdn + "conv1d.weight", {1024, 4, 1})},
      {"vector_as_matrix", kDense, "corrupt", "has shape [1, 64]", reshape("model.norm.weight", {1, 64})},
      {"config_of_another", kDense, "corrupt", "mlp.gate_proj.weight' in model.safetensors has shape [128, 64], but",
       set("intermediate_size", 256)},
      {"vocab_of_another", kDense, "corrupt", "'model.embed_tokens.weight'", set("vocab_size", 512)},
      {"packed_transposed", kPacked, "corrupt", "experts.down_proj'",
       reshape("model.language_model.layers.0.mlp.experts.down_proj", {8, 32, 64})},
      {"interleaved_rows", kNext, "corrupt", "in_proj_qkvz.weight'", set("linear_num_value_heads", 8)},
      {"dtype_int", kDense, "unsupported", "is of type I16",
       [gdn](ModelDir& m) { m.tensor(gdn + "out_proj.weight", [](Tensor& t) { t.dtype = "I16"; }); }},
      {"dtype_double", kDense, "unsupported", "is of type F64",
       [gdn](ModelDir& m) {
         m.tensor(gdn + "A_log", [](Tensor& t) {
           t.dtype = "F64";
           t.bytes += t.bytes;
         });
       }},
      {"dtype_fp8", kDense, "unsupported", "is of type F8_E4M3",
       [](ModelDir& m) {
         m.tensor("lm_head.weight", [](Tensor& t) {
           t.dtype = "F8_E4M3";
           t.bytes.resize(t.bytes.size() / 2);
         });
       }},
      {"norm_nan", kDense, "corrupt", "'model.norm.weight' in model.safetensors holds NaN at element 63",
       poke("model.norm.weight", kBf16Nan)},
      {"a_log_infinite", kDense, "corrupt", "A_log' in model.safetensors holds an infinity",
       poke(gdn + "A_log", kF32Inf)},
      {"dt_bias_nan", kDense, "corrupt", "dt_bias' in model.safetensors holds NaN", poke(gdn + "dt_bias", kBf16Nan)},
      {"conv_nan", kDense, "corrupt", "conv1d.weight' in model.safetensors holds NaN",
       poke(gdn + "conv1d.weight", kBf16Nan)},
      {"companion_fp8", kDense, "unsupported", "FP8 with block scales", add(gdn + "out_proj.weight_scale_inv", scale)},
      {"companion_nvfp4", kDense, "unsupported", "NVFP4 (ModelOpt)", add(gdn + "out_proj.weight_scale_2", scale)},
      {"companion_ct", kDense, "unsupported", "NVFP4 (compressed-tensors)",
       add(gdn + "out_proj.weight_global_scale", scale)},
      {"companion_packed", kDense, "unsupported", "compressed-tensors packed",
       add(gdn + "out_proj.weight_packed", scale)},
      {"companion_gptq", kDense, "unsupported", "GPTQ", add(gdn + "out_proj.g_idx", scale)},
      {"companion_awq", kDense, "unsupported", "AWQ", add(gdn + "out_proj.qweight", scale)},
  };
}

inline std::function<void(ModelDir&)> map_to(const std::string& shard) {
  return [=](ModelDir& m) { m.edit_json(kIndex, [&](Json& i) { i["weight_map"]["lm_head.weight"] = shard; }); };
}

inline std::vector<Case> shard_cases() {
  return {
      {"shard_missing", kEach, "not_found", "shard 'model-00002-of-00002.safetensors' is missing",
       [](ModelDir& m) { m.remove(kShard2); }},
      {"shard_cut", kEach, "corrupt", kShard2, [](ModelDir& m) { m.bytes(kShard2).resize(500000); }},
      {"shard_folder", kEach, "invalid_argument", "not a regular file",
       [](ModelDir& m) {
         m.remove(kShard2);
         m.folders.emplace_back(kShard2);
       }},
      {"shard_parent", kEach, "invalid_argument", "'../model.safetensors'", map_to("../model.safetensors")},
      {"shard_absolute", kEach, "invalid_argument", "'/etc/passwd'", map_to("/etc/passwd")},
      {"shard_subfolder", kEach, "invalid_argument", "'sub/x.safetensors'", map_to("sub/x.safetensors")},
      {"shard_dots", kEach, "invalid_argument", "'..'", map_to("..")},
      {"shard_nameless", kEach, "invalid_argument", "''", map_to("")},
      {"shard_nul", kEach, "invalid_argument", "\\x00", map_to(std::string("a\0.safetensors", 14))},
      {"shard_pickle", kEach, "unsupported", "'pytorch_model.bin'", map_to("pytorch_model.bin")},
      {"index_lies", kEach, "corrupt", "'model.layers.9.x' is said to be in model-00001-of-00002.safetensors",
       [](ModelDir& m) { m.edit_json(kIndex, [](Json& i) { i["weight_map"]["model.layers.9.x"] = kShard1; }); }},
      {"index_wrong_shard", kEach, "corrupt", "'lm_head.weight' is said to be in model-00002", map_to(kShard2)},
      {"index_broken", kEach, "corrupt", kIndex, set_text(kIndex, "{\"weight_map\": {")},
      {"index_no_map", kEach, "corrupt", "weight_map must be an object", set_text(kIndex, "{}")},
      {"index_empty_map", kEach, "corrupt", "weight_map is empty", set_text(kIndex, R"({"weight_map": {}})")},
      {"index_number", kEach, "corrupt", "'lm_head.weight' must be a file name",
       set_text(kIndex, R"({"weight_map": {"lm_head.weight": 1}})")},
      {"index_twice", kEach, "corrupt", "is given twice",
       set_text(kIndex, R"({"weight_map": {"a": "model.safetensors", "a": "model.safetensors"}})")},
      {"tensor_in_two_shards", kEach, "corrupt", "'lm_head.weight' is both in",
       [](ModelDir& m) {
         m.add_tensor("lm_head.weight", {"BF16", {256, 64}, std::string(32768, '\0')}, kShard2);
       }},
      {"stray_copy", kEach, "corrupt", "is both in",
       [](ModelDir& m) { m.files["model-copy.safetensors"] = m.bytes(kShard1); }},
      {"stray_broken", kDense, "corrupt", "mtp.safetensors", set_text("mtp.safetensors", "????????????")},
      {"stray_unknown", kDense, "unsupported", "'model.layers.0.extra' in extra.safetensors",
       set_text("extra.safetensors", format_tensors({{"model.layers.0.extra", {"BF16", {1}, std::string(2, '\0')}}}))},
  };
}

inline std::vector<Case> all_cases() {
  std::vector<Case> out;
  for (auto group : {config_file_cases, config_value_cases, file_cases, tensor_cases, shard_cases}) {
    for (Case& item : group()) out.push_back(std::move(item));
  }
  return out;
}

}  // namespace penstock::damage
