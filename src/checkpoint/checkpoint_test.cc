#include "checkpoint/checkpoint.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <string>

#include "checkpoint/safetensors.h"
#include "checkpoint/tensor_index.h"

namespace penstock {
namespace {

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(PENSTOCK_SOURCE_DIR) / "tests/golden/data" / name;
}

std::unique_ptr<Checkpoint> load(const std::filesystem::path& dir) {
  auto checkpoint = Checkpoint::open(dir, {});
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
}

// The bytes of row `row`, wherever its segment lies.
std::string row_bytes(const MatrixView& view, std::int64_t row) {
  const std::int64_t width = view.cols * static_cast<std::int64_t>(dtype_bytes(view.dtype));
  for (const RowSegment& segment : view.segments) {
    if (row < segment.rows) {
      return {reinterpret_cast<const char*>(segment.data) + row * width, static_cast<std::size_t>(width)};
    }
    row -= segment.rows;
  }
  return "no such row";
}

std::string all_bytes(const MatrixView& view) {
  std::string out;
  for (std::int64_t row = 0; row < view.rows; ++row) out += row_bytes(view, row);
  return out;
}

float element(const MatrixView& view, std::int64_t row, std::int64_t col) {
  EXPECT_EQ(view.dtype, DType::kBF16);
  const std::string bytes = row_bytes(view, row);
  bf16_t bits = 0;
  std::memcpy(&bits, bytes.data() + col * 2, sizeof(bits));
  return bf16_to_float(bits);
}

std::int64_t segment_rows(const MatrixView& view) {
  std::int64_t rows = 0;
  for (const RowSegment& segment : view.segments) rows += segment.rows;
  return rows;
}

void expect_shape(const MatrixView& view, std::int64_t rows, std::int64_t cols) {
  EXPECT_EQ(view.rows, rows);
  EXPECT_EQ(view.cols, cols);
  EXPECT_EQ(segment_rows(view), rows);
}

// Numbers read from the file by an independent program.
TEST(Checkpoint, DenseValues) {
  const auto checkpoint = load(golden("dense-r2"));
  ASSERT_NE(checkpoint, nullptr);
  const HostWeights& w = checkpoint->weights();
  ASSERT_EQ(w.layers.size(), 4U);
  EXPECT_FALSE(w.tied);
  EXPECT_EQ(element(w.embed_tokens, 17, 5), -1.125F);
  EXPECT_EQ(element(w.lm_head, 255, 63), 0.482421875F);
  const GdnHostWeights& gdn = *w.layers[0].gdn;
  EXPECT_EQ(gdn.A_log,
            (std::vector<float>{2.5906364917755127F, 1.5438628196716309F, 2.0279438495635986F, 0.31744980812072754F}));
  EXPECT_EQ(w.layers[2].gdn->dt_bias, (std::vector<float>{-7.28125F, 0.90234375F, -6.09375F, 1.1015625F}));
  EXPECT_EQ(w.layers[1].gdn->conv1d.size(), 4096U);
  EXPECT_EQ(w.layers[1].gdn->conv1d[4 * 1000 + 3], -0.474609375F);
  expect_shape(gdn.in_proj_qkv, 1024, 64);
  expect_shape(gdn.in_proj_z, 512, 64);
  expect_shape(gdn.in_proj_a, 4, 64);
  expect_shape(gdn.out_proj, 64, 512);
  EXPECT_EQ(w.layers[3].kind, LayerKind::kFullAttention);
  EXPECT_FALSE(w.layers[3].gdn.has_value());
  EXPECT_EQ(element(w.layers[3].attention->q_proj, 1023, 0), -0.095703125F);
  EXPECT_EQ(element(w.layers[2].mlp->down_proj, 10, 100), 0.02294921875F);
  ASSERT_TRUE(w.mtp.has_value());
  expect_shape(w.mtp->fc, 64, 128);
  EXPECT_EQ(element(w.mtp->fc, 63, 127), -0.068359375F);
  EXPECT_EQ(w.mtp->layer.kind, LayerKind::kFullAttention);
  EXPECT_EQ(checkpoint->generation_config().eos_token_ids, std::vector<std::int32_t>{1});
  EXPECT_EQ(checkpoint->generation_config().do_sample, false);
}

TEST(Checkpoint, NestedSkipsVision) {
  const auto checkpoint = load(golden("nested-r1"));
  ASSERT_NE(checkpoint, nullptr);
  EXPECT_TRUE(checkpoint->config().nested);
  const auto& tensors = checkpoint->tensors();
  EXPECT_EQ(tensors.size(), 92U);
  EXPECT_EQ(std::count_if(tensors.begin(), tensors.end(), [](const TensorInfo& t) { return t.skipped; }), 21);
  EXPECT_TRUE(std::is_sorted(tensors.begin(), tensors.end(),
                             [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; }));
  EXPECT_TRUE(checkpoint->weights().mtp.has_value());
  EXPECT_EQ(tensors.front().name, "lm_head.weight");
  EXPECT_EQ(tensors.front().bytes, 256 * 64 * 2);
  EXPECT_EQ(tensors.front().file, "model.safetensors");
}

TEST(Checkpoint, TiedUsesTheEmbeddings) {
  const auto checkpoint = load(golden("tied-r3"));
  ASSERT_NE(checkpoint, nullptr);
  const HostWeights& w = checkpoint->weights();
  EXPECT_TRUE(w.tied);
  EXPECT_EQ(w.lm_head.segments.front().data, w.embed_tokens.segments.front().data);
  EXPECT_FALSE(w.mtp.has_value());
  EXPECT_EQ(checkpoint->config().mtp_num_hidden_layers, 0);
  EXPECT_EQ(w.layers[0].gdn->dt_bias[0], 95.0F);
  expect_shape(w.layers[0].gdn->in_proj_qkv, 2 * 256 + 768, 64);
}

void expect_same(const MlpHostWeights& a, const MlpHostWeights& b) {
  EXPECT_EQ(all_bytes(a.gate_proj), all_bytes(b.gate_proj));
  EXPECT_EQ(all_bytes(a.up_proj), all_bytes(b.up_proj));
  EXPECT_EQ(all_bytes(a.down_proj), all_bytes(b.down_proj));
}

// The two folders hold the same text weights, one expert a tensor in two shards and all experts in one tensor.
TEST(Checkpoint, PackedAndPerExpertAgree) {
  const auto packed = load(golden("moe-packed-r2"));
  const auto each = load(golden("moe-each-r2"));
  ASSERT_TRUE(packed != nullptr && each != nullptr);
  const HostWeights& p = packed->weights();
  const HostWeights& e = each->weights();
  ASSERT_EQ(p.layers.size(), e.layers.size());
  EXPECT_EQ(all_bytes(p.embed_tokens), all_bytes(e.embed_tokens));
  EXPECT_EQ(p.norm, e.norm);
  for (std::size_t i = 0; i < p.layers.size(); ++i) {
    SCOPED_TRACE(i);
    const MoeHostWeights& a = *p.layers[i].moe;
    const MoeHostWeights& b = *e.layers[i].moe;
    ASSERT_EQ(a.experts.size(), 8U);
    ASSERT_EQ(b.experts.size(), 8U);
    for (std::size_t x = 0; x < 8; ++x) expect_same(a.experts[x], b.experts[x]);
    expect_same(a.shared_expert, b.shared_expert);
    EXPECT_EQ(all_bytes(a.router), all_bytes(b.router));
    EXPECT_EQ(all_bytes(a.shared_expert_gate), all_bytes(b.shared_expert_gate));
    EXPECT_EQ(p.layers[i].input_layernorm, e.layers[i].input_layernorm);
  }
  EXPECT_EQ(element(p.layers[1].moe->experts[5].up_proj, 8, 7), -0.0888671875F);  // row 40 of gate and up
  EXPECT_EQ(element(p.layers[1].moe->experts[5].down_proj, 63, 31), 0.10888671875F);
  EXPECT_FALSE(p.mtp.has_value());
  EXPECT_EQ(packed->config().mtp_num_hidden_layers, 0);
  ASSERT_TRUE(e.mtp.has_value());
  EXPECT_EQ(e.mtp->layer.moe->experts.size(), 8U);
}

// Row by row against the interleaved tensors: for each of 2 key heads 128 q, 128 k, 256 v, 256 z; 2 b, 2 a.
TEST(Checkpoint, NextIsDeinterleaved) {
  const auto checkpoint = load(golden("next-r2"));
  const auto file = SafetensorsFile::open(golden("next-r2") / "model.safetensors");
  ASSERT_TRUE(checkpoint != nullptr && file.ok());
  const auto raw = [&](const std::string& name, std::int64_t row) {
    const SafetensorsEntry& entry = (*file)->entries().at(name);
    const auto width = static_cast<std::size_t>(entry.shape.back()) * 2;
    return std::string(reinterpret_cast<const char*>(entry.data.data()) + static_cast<std::size_t>(row) * width, width);
  };
  for (const int layer : {0, 1}) {
    const GdnHostWeights& gdn = *checkpoint->weights().layers[static_cast<std::size_t>(layer)].gdn;
    const std::string prefix = std::string("model.layers.") + std::to_string(layer) + ".linear_attn.";
    expect_shape(gdn.in_proj_qkv, 1024, 64);
    expect_shape(gdn.in_proj_z, 512, 64);
    expect_shape(gdn.in_proj_b, 4, 64);
    expect_shape(gdn.in_proj_a, 4, 64);
    for (std::int64_t i = 0; i < 256; ++i) {
      const std::int64_t group = i / 128 * 768;
      EXPECT_EQ(row_bytes(gdn.in_proj_qkv, i), raw(prefix + "in_proj_qkvz.weight", group + i % 128));
      EXPECT_EQ(row_bytes(gdn.in_proj_qkv, 256 + i), raw(prefix + "in_proj_qkvz.weight", group + 128 + i % 128));
    }
    for (std::int64_t i = 0; i < 512; ++i) {
      const std::int64_t group = i / 256 * 768;
      EXPECT_EQ(row_bytes(gdn.in_proj_qkv, 512 + i), raw(prefix + "in_proj_qkvz.weight", group + 256 + i % 256));
      EXPECT_EQ(row_bytes(gdn.in_proj_z, i), raw(prefix + "in_proj_qkvz.weight", group + 512 + i % 256));
    }
    for (std::int64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(row_bytes(gdn.in_proj_b, i), raw(prefix + "in_proj_ba.weight", i / 2 * 4 + i % 2));
      EXPECT_EQ(row_bytes(gdn.in_proj_a, i), raw(prefix + "in_proj_ba.weight", i / 2 * 4 + 2 + i % 2));
    }
  }
  // Key head 1, column 3, rows 0, 128, 300, 600 of its group; rows 5 and 7 of b and a: by an independent program.
  const GdnHostWeights& gdn = *checkpoint->weights().layers[0].gdn;
  EXPECT_EQ(element(gdn.in_proj_qkv, 128, 3), -0.1923828125F);
  EXPECT_EQ(element(gdn.in_proj_qkv, 256 + 128, 3), -0.0084228515625F);
  EXPECT_EQ(element(gdn.in_proj_qkv, 512 + 256 + 44, 3), 0.00787353515625F);
  EXPECT_EQ(element(gdn.in_proj_z, 256 + 88, 3), 0.18359375F);
  EXPECT_EQ(element(gdn.in_proj_b, 3, 1), -0.2099609375F);
  EXPECT_EQ(element(gdn.in_proj_a, 3, 1), -0.1435546875F);
}

TEST(Checkpoint, BundledModel) {
  const auto checkpoint = load(std::filesystem::path(PENSTOCK_SOURCE_DIR) / "models/gsm-hybrid");
  ASSERT_NE(checkpoint, nullptr);
  EXPECT_TRUE(checkpoint->weights().tied);
  EXPECT_TRUE(checkpoint->weights().mtp.has_value());
  EXPECT_EQ(checkpoint->weights().layers.size(), 8U);
}

TEST(Checkpoint, QuantisedIsRefusedByMethod) {
  for (const auto& [name, part] :
       {std::pair{"dense-fp8", "'fp8' ('e4m3')"}, std::pair{"dense-nvfp4-modelopt", "'modelopt'"}}) {
    const auto checkpoint = Checkpoint::open(golden(name), {});
    ASSERT_FALSE(checkpoint.ok());
    EXPECT_EQ(checkpoint.status().code(), StatusCode::kUnsupported);
    EXPECT_NE(checkpoint.status().message().find(part), std::string::npos) << checkpoint.status().message();
    EXPECT_NE(checkpoint.status().message().find("later"), std::string::npos) << checkpoint.status().message();
  }
}

TEST(TensorNames, Classify) {
  const auto expect = [](const std::string& name, TensorRole role, const std::string& canonical) {
    std::string out;
    EXPECT_EQ(classify_tensor(name, &out), role) << name;
    EXPECT_EQ(out, canonical);
  };
  expect("model.language_model.layers.0.mlp.gate.weight", TensorRole::kText, "layers.0.mlp.gate.weight");
  expect("model.layers.0.mlp.gate.weight", TensorRole::kText, "layers.0.mlp.gate.weight");
  expect("model.language_model.embed_tokens.weight", TensorRole::kText, "embed_tokens.weight");
  expect("model.norm.weight", TensorRole::kText, "norm.weight");
  expect("lm_head.weight", TensorRole::kText, "lm_head.weight");
  expect("model.lm_head.weight", TensorRole::kText, "lm_head.weight");
  expect("mtp.fc.weight", TensorRole::kText, "mtp.fc.weight");
  expect("model.mtp.fc.weight", TensorRole::kText, "mtp.fc.weight");
  expect("model.visual.blocks.0.x", TensorRole::kSkipped, "model.visual.blocks.0.x");
  expect("model.layers.3.self_attn.rotary_emb.inv_freq", TensorRole::kSkipped,
         "model.layers.3.self_attn.rotary_emb.inv_freq");
  expect("layers.0.mlp.gate.weight", TensorRole::kUnknown, "?layers.0.mlp.gate.weight");
  expect("model.audio.x", TensorRole::kUnknown, "?model.audio.x");
}

class DummyTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::path(testing::TempDir()) / (std::string("penstock_dummy_") + std::to_string(::getpid()));
    std::filesystem::create_directory(dir_);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  // A directory with the config.json of a golden folder, and nothing else.
  void use(const std::string& name) {
    std::filesystem::copy_file(golden(name) / "config.json", dir_ / "config.json",
                               std::filesystem::copy_options::overwrite_existing);
  }
  std::unique_ptr<Checkpoint> random(std::uint64_t seed) {
    auto checkpoint = Checkpoint::open(dir_, {LoadFormat::kDummy, seed});
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().message();
    return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
  }

  std::filesystem::path dir_;
};

TEST_F(DummyTest, EveryFamilyAndTheSeed) {
  for (const char* name : {"dense-r2", "nested-r1", "moe-packed-r2", "moe-each-r2", "next-r2", "tied-r3"}) {
    SCOPED_TRACE(name);
    use(name);
    const auto a = random(7);
    const auto b = random(7);
    const auto c = random(8);
    ASSERT_TRUE(a != nullptr && b != nullptr && c != nullptr);
    EXPECT_EQ(a->weights().layers.size(), static_cast<std::size_t>(a->config().num_layers()));
    EXPECT_EQ(all_bytes(a->weights().embed_tokens), all_bytes(b->weights().embed_tokens));
    EXPECT_NE(all_bytes(a->weights().embed_tokens), all_bytes(c->weights().embed_tokens));
    const GdnHostWeights& gdn = *a->weights().layers[0].gdn;
    expect_shape(gdn.in_proj_qkv, a->config().conv_channels(), 64);
    EXPECT_NE(all_bytes(gdn.in_proj_qkv), all_bytes(a->weights().layers[1].gdn->in_proj_qkv));
    EXPECT_EQ(gdn.norm, std::vector<float>(128, 1.0F));
    for (const float x : gdn.A_log) EXPECT_TRUE(x >= 0.0F && x <= 2.8F);
    for (const float x : gdn.dt_bias) EXPECT_TRUE(x > -7.0F && x < -2.0F);
    EXPECT_EQ(a->config().is_moe(), a->weights().layers[0].moe.has_value());
    EXPECT_EQ(a->weights().tied, a->config().tie_word_embeddings);
  }
}

TEST_F(DummyTest, DistributionAndDraftLayer) {
  use("dense-r2");
  const auto checkpoint = random(1);
  ASSERT_NE(checkpoint, nullptr);
  const MatrixView& view = checkpoint->weights().layers[0].mlp->down_proj;  // [64, 128]
  double sum = 0;
  double squares = 0;
  for (std::int64_t r = 0; r < view.rows; ++r) {
    for (std::int64_t c = 0; c < view.cols; ++c) {
      const double x = element(view, r, c);
      sum += x;
      squares += x * x;
    }
  }
  const auto n = static_cast<double>(view.rows * view.cols);
  EXPECT_NEAR(sum / n, 0.0, 0.005);
  EXPECT_NEAR(std::sqrt(squares / n), 1.0 / std::sqrt(128.0), 0.002);
  ASSERT_TRUE(checkpoint->weights().mtp.has_value());
  expect_shape(checkpoint->weights().mtp->fc, 64, 128);
  EXPECT_EQ(checkpoint->tensors().size(), 71U);  // as many as the real one has
  EXPECT_EQ(checkpoint->tensors().front().file, "(random)");
  EXPECT_EQ(checkpoint->generation_config().eos_token_ids, std::vector<std::int32_t>{1});
}

TEST_F(DummyTest, TooLargeForTheMachineIsAnError) {
  use("moe-each-r2");
  std::ifstream in(dir_ / "config.json");
  std::string text((std::istreambuf_iterator<char>(in)), {});
  const auto set = [&text](const std::string& key, const std::string& value) {
    const std::size_t at = text.find("\"" + key + "\":");
    ASSERT_NE(at, std::string::npos);
    text.replace(at, text.find(',', at) - at, "\"" + key + "\": " + value);
  };
  set("hidden_size", "1048576");
  set("vocab_size", "16777216");
  std::ofstream(dir_ / "config.json") << text;
  const auto checkpoint = Checkpoint::open(dir_, {LoadFormat::kDummy, 0});
  ASSERT_FALSE(checkpoint.ok());
  EXPECT_EQ(checkpoint.status().code(), StatusCode::kResourceExhausted) << checkpoint.status().message();
  EXPECT_NE(checkpoint.status().message().find("GiB"), std::string::npos) << checkpoint.status().message();
}

}  // namespace
}  // namespace penstock
