// Damaged model directories: each is refused with the error that the table promises, and none ends the process.
#include <gtest/gtest.h>
#include <unistd.h>

#include <set>
#include <string>

#include "checkpoint/checkpoint.h"
#include "corrupt_cases.h"

namespace penstock::damage {
namespace {

fs::path golden(const std::string& name) {
  return fs::path(PENSTOCK_SOURCE_DIR) / "tests/golden/data" / name;
}

class ScratchDir {
 public:
  ScratchDir() : path_(fs::path(testing::TempDir()) / ("penstock_corrupt_" + std::to_string(::getpid()))) {
    fs::remove_all(path_);
  }
  ~ScratchDir() { fs::remove_all(path_); }
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

class CorruptTest : public testing::TestWithParam<Case> {};

TEST_P(CorruptTest, IsRefused) {
  const Case& item = GetParam();
  ModelDir model(golden(item.base));
  item.damage(model);
  const ScratchDir scratch;
  model.write(scratch.path());
  const auto checkpoint = Checkpoint::open(scratch.path(), {});
  ASSERT_FALSE(checkpoint.ok());
  const Status& status = checkpoint.status();
  EXPECT_STREQ(to_string(status.code()), item.code) << status.message();
  EXPECT_NE(status.message().find(item.message), std::string::npos)
      << "expected: " << item.message << "\nbut got:  " << status.message();
  EXPECT_NE(status.message().find(scratch.path().string()), std::string::npos) << status.message();  // says where
  EXPECT_LT(status.message().size(), 1000U) << status.message();
  for (const char c : status.message()) EXPECT_TRUE(c >= 0x20 && c < 0x7F) << status.message();
}

INSTANTIATE_TEST_SUITE_P(All, CorruptTest, testing::ValuesIn(all_cases()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Corrupt, NamesAreDistinctAndMany) {
  std::set<std::string> names;
  for (const Case& item : all_cases()) EXPECT_TRUE(names.insert(item.name).second) << item.name;
  EXPECT_GE(names.size(), 60U);
}

// The table's tools do no damage by themselves.
TEST(Corrupt, UndamagedModelsLoad) {
  for (const char* base : {kDense, kNested, kEach, kPacked, kNext}) {
    SCOPED_TRACE(base);
    ModelDir model(golden(base));
    model.config([](Json&) {});
    for (const char* file : {kWeights, kShard1, kShard2}) {
      if (fs::exists(golden(base) / file)) model.tensors(file, [](TensorFile&) {});
    }
    const ScratchDir scratch;
    model.write(scratch.path());
    const auto checkpoint = Checkpoint::open(scratch.path(), {});
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  }
}

// What looks odd and is fine: the draft layer in a file of its own, files of other kinds, fp16 and fp32 weights, both
// spellings of lm_head and mtp, rotary frequencies, no generation_config.json, data at odd addresses.
TEST(Corrupt, HarmlessVariantsLoad) {
  ModelDir model(golden(kDense));
  TensorFile draft;
  model.tensors(kWeights, [&](TensorFile& all) {
    for (auto& [name, tensor] : all) {
      if (name == "lm_head.weight") name = "model.lm_head.weight";
      if (name.starts_with("mtp.")) draft.emplace_back("model." + name, tensor);
    }
    std::erase_if(all, [](const auto& item) { return item.first.starts_with("mtp."); });
    all.insert(all.begin(), {"model.layers.3.self_attn.rotary_emb.inv_freq", {"U8", {3}, "abc"}});
  });
  model.tensor("model.embed_tokens.weight", [](Tensor& t) { t.dtype = "F16"; });
  model.tensor("model.layers.0.mlp.up_proj.weight", [](Tensor& t) {
    t.dtype = "F32";
    t.bytes += t.bytes;
  });
  model.files["mtp.safetensors"] = format_tensors(draft);
  model.files["other.safetensors"] = format_tensors({{"p1.logits", {"F32", {1}, std::string(4, '\0')}}});
  model.remove("generation_config.json");
  const ScratchDir scratch;
  model.write(scratch.path());
  const auto checkpoint = Checkpoint::open(scratch.path(), {});
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_TRUE((*checkpoint)->weights().mtp.has_value());
  EXPECT_FALSE((*checkpoint)->weights().tied);
  EXPECT_EQ((*checkpoint)->weights().embed_tokens.dtype, DType::kF16);
  EXPECT_EQ((*checkpoint)->weights().layers[0].mlp->up_proj.dtype, DType::kF32);
  EXPECT_EQ((*checkpoint)->generation_config().eos_token_ids, std::vector<std::int32_t>{1});
  bool skipped = false;
  for (const TensorInfo& tensor : (*checkpoint)->tensors()) {
    skipped = skipped || (tensor.name.ends_with("inv_freq") && tensor.skipped);
    EXPECT_NE(tensor.file, "other.safetensors");
  }
  EXPECT_TRUE(skipped);
}

}  // namespace
}  // namespace penstock::damage
