#include "checkpoint/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <string>

namespace penstock {
namespace {

std::string file_bytes(const std::string& header, std::size_t data_bytes) {
  std::string out(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) out[i] = static_cast<char>(header.size() >> (8 * i));
  out += header;
  for (std::size_t i = 0; i < data_bytes; ++i) out += static_cast<char>(i);
  return out;
}

Expected<std::unique_ptr<SafetensorsFile>> parse(const std::string& bytes) {
  return SafetensorsFile::parse(std::as_bytes(std::span(bytes)), "test");
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

std::filesystem::path scratch(const std::string& name) {
  return std::filesystem::path(testing::TempDir()) /
         (std::string("penstock_st_") + std::to_string(::getpid()) + "_" + name);
}

TEST(Safetensors, ReadsTensorsInAnyOrder) {
  const std::string bytes =
      file_bytes("{\"__metadata__\":{\"format\":\"pt\"}," + tensor("b", "F32", "[2,1]", "[4,12]") + "," +
                     tensor("a", "BF16", "[2]", "[0,4]") + "," + tensor("none", "I64", "[0,7]", "[12,12]") + "," +
                     tensor("scalar", "F8_E4M3", "[]", "[12,13]") + "}   ",
                 13);
  const auto file = parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status().message();
  const auto& entries = (*file)->entries();
  ASSERT_EQ(entries.size(), 4U);
  EXPECT_EQ(entries.at("b").dtype, DType::kF32);
  EXPECT_EQ(entries.at("b").shape, (std::vector<std::int64_t>{2, 1}));
  ASSERT_EQ(entries.at("b").data.size(), 8U);
  EXPECT_EQ(entries.at("b").data[0], std::byte{4});
  EXPECT_EQ(entries.at("a").data[3], std::byte{3});
  EXPECT_TRUE(entries.at("none").data.empty());
  EXPECT_TRUE(entries.at("scalar").shape.empty());
}

struct BadFile {
  std::string bytes;
  std::string message;  // part of it
  StatusCode code = StatusCode::kCorrupt;
};

void expect_bad(const BadFile& bad) {
  const auto file = parse(bad.bytes);
  ASSERT_FALSE(file.ok()) << bad.message;
  EXPECT_EQ(file.status().code(), bad.code) << file.status().message();
  EXPECT_NE(file.status().message().find(bad.message), std::string::npos) << file.status().message();
  EXPECT_TRUE(file.status().message().starts_with("test: ")) << file.status().message();
}

TEST(Safetensors, RefusesBadFrames) {
  expect_bad({"", "too short"});
  expect_bad({"1234567", "too short"});
  expect_bad({std::string(8, '\xFF') + "{}", "at most 100000000"});
  expect_bad({file_bytes("{}", 0).substr(0, 9), "truncated"});
  expect_bad({file_bytes("", 4), "not a JSON object"});
  expect_bad({file_bytes("[]", 0), "not a JSON object"});
  expect_bad({file_bytes(" {}", 0), "not a JSON object"});
  expect_bad({file_bytes("{", 0), "not valid JSON"});
  expect_bad({file_bytes("{} x", 0), "not valid JSON"});
  expect_bad(
      {file_bytes(std::string("{\"a\":") + std::string(100, '[') + std::string(100, ']') + "}", 0), "not valid JSON"});
  expect_bad({file_bytes("{\"\xC3\x28\":1}", 0), "not valid JSON"});  // not UTF-8
  expect_bad({file_bytes("{}", 1), "1 bytes after the last tensor"});
}

TEST(Safetensors, RefusesBadEntries) {
  expect_bad({file_bytes("{\"a\":3}", 0), "'a' is not described by an object"});
  expect_bad({file_bytes("{\"a\":{\"dtype\":\"F32\",\"shape\":[0]}}", 0), "needs dtype, shape and data_offsets"});
  expect_bad({file_bytes("{\"__metadata__\":{\"n\":1}}", 0), "__metadata__ 'n' is not a string"});
  expect_bad({file_bytes("{\"__metadata__\":[]}", 0), "__metadata__ is not an object"});
  expect_bad({file_bytes("{" + tensor("a", "F31", "[1]", "[0,4]") + "}", 4), "dtype 'F31' is unknown"});
  expect_bad(
      {file_bytes("{" + tensor("a", "U32", "[1]", "[0,4]") + "}", 4), "dtype 'U32' is not", StatusCode::kUnsupported});
  expect_bad({file_bytes("{" + tensor("a", "F32", "[-1]", "[0,4]") + "}", 4), "non-negative"});
  expect_bad({file_bytes("{" + tensor("a", "F32", "[1.0]", "[0,4]") + "}", 4), "non-negative"});
  expect_bad({file_bytes("{" + tensor("a", "F32", "[\"1\"]", "[0,4]") + "}", 4), "non-negative"});
  expect_bad({file_bytes("{" + tensor("a", "F32", "7", "[0,4]") + "}", 4), "shape is not an array"});
  expect_bad({file_bytes("{" + tensor("a", "F32", "[4611686018427387904,4]", "[0,4]") + "}", 4), "overflows"});
  expect_bad({file_bytes("{" + tensor("a", "F32", "[99999999999999999999999]", "[0,4]") + "}", 4), "JSON"});
  expect_bad({file_bytes("{" + tensor("a", "F32", "[2]", "[0,4]") + "}", 4), "needs 8 bytes, data_offsets give 4"});
  expect_bad({file_bytes("{" + tensor("a", "F32", "[1]", "[0,4,8]") + "}", 4), "pair"});
  expect_bad({file_bytes("{" + tensor("a", "F32", "[1]", "[-4,0]") + "}", 4), "pair"});
  expect_bad({file_bytes("{" + tensor("a", "F32", "[1]", "[4,0]") + "}", 4), "end before they begin"});
  expect_bad({file_bytes("{" + tensor("a", "F32", "[2]", "[0,8]") + "}", 4), "outside the 4 bytes"});
}

TEST(Safetensors, RefusesOverlapsHolesAndDuplicates) {
  const std::string a = tensor("a", "F32", "[2]", "[0,8]");
  expect_bad({file_bytes("{" + a + "," + a + "}", 8), "'a' appears twice"});
  expect_bad({file_bytes("{" + a + "," + tensor("b", "F32", "[1]", "[4,8]") + "}", 8), "'a' and 'b' overlap"});
  expect_bad({file_bytes("{" + a + "," + tensor("b", "F32", "[1]", "[9,13]") + "}", 13), "a hole of 1 bytes before"});
  expect_bad({file_bytes("{" + tensor("b", "F32", "[1]", "[4,8]") + "}", 8), "a hole of 4 bytes before"});
  expect_bad({file_bytes("{" + a + "}", 12), "4 bytes after the last tensor"});
  expect_bad(
      {file_bytes("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1), "each once"});
  expect_bad({file_bytes("{\"__metadata__\":{},\"__metadata__\":{}}", 0), "appears twice"});
}

TEST(Safetensors, LongAndOddNamesStayReadable) {
  const auto file = parse(file_bytes(std::string("{\"") + std::string(5000, 'n') + "\\u0000\\n\":1}", 0));
  ASSERT_FALSE(file.ok());
  EXPECT_LT(file.status().message().size(), 400U);
  EXPECT_NE(file.status().message().find("\\x00\\x0a"), std::string::npos);
}

TEST(Safetensors, ReadsLargeHeadersQuickly) {
  std::string header = "{";
  constexpr int kTensors = 100'000;  // about 10 MB
  for (int i = 0; i < kTensors; ++i) {
    if (i > 0) header += ',';
    const std::string begin = std::to_string(i);
    const std::string end = std::to_string(i + 1);
    std::string offsets = "[";
    offsets.append(begin).append(",").append(end).append("]");
    header += tensor("model.language_model.layers.7.mlp.experts." + begin + ".gate_proj.weight", "U8", "[1]", offsets);
  }
  const std::string bytes = file_bytes(header + "}", kTensors);
  EXPECT_GT(bytes.size(), 10'000'000U);
  const auto start = std::chrono::steady_clock::now();
  const auto file = parse(bytes);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ((*file)->entries().size(), static_cast<std::size_t>(kTensors));
  EXPECT_LT(seconds.count(), 30.0);  // a fifth of a second in a release build; quadratic behaviour takes minutes
}

TEST(Safetensors, OpenNamesTheFile) {
  const auto path = scratch("absent.safetensors");
  const auto file = SafetensorsFile::open(path);
  EXPECT_EQ(file.status().code(), StatusCode::kNotFound);
  EXPECT_NE(file.status().message().find("absent.safetensors"), std::string::npos);
}

std::vector<float> floats_of(const SafetensorsEntry& entry) {
  std::vector<float> out(entry.data.size() / sizeof(float));
  std::memcpy(out.data(), entry.data.data(), entry.data.size());
  return out;
}

TEST(SafetensorsWriter, RoundTrip) {
  const auto path = scratch("round.safetensors");
  const std::vector<float> a = {1.5F, -2.0F, 3.25F, 0.0F, 7.0F, 8.0F};
  const std::vector<std::int32_t> b = {1, -2};
  {
    auto writer = SafetensorsWriter::create(path);
    ASSERT_TRUE(writer.ok()) << writer.status().message();
    ASSERT_TRUE((*writer)->add("logits.0", DType::kF32, {2, 3}, std::as_bytes(std::span(a))).ok());
    ASSERT_TRUE((*writer)->add("a \"name\"", DType::kI32, {2}, std::as_bytes(std::span(b))).ok());
    EXPECT_EQ((*writer)->add("logits.0", DType::kI32, {2}, std::as_bytes(std::span(b))).code(),
              StatusCode::kInvalidArgument);  // twice
    EXPECT_EQ((*writer)->add("c", DType::kI32, {3}, std::as_bytes(std::span(b))).code(), StatusCode::kInvalidArgument);
    EXPECT_EQ((*writer)->add("\xFF", DType::kI32, {2}, std::as_bytes(std::span(b))).code(),
              StatusCode::kInvalidArgument);
    EXPECT_FALSE(std::filesystem::exists(path));  // only now:
    ASSERT_TRUE((*writer)->finish().ok());
    EXPECT_FALSE((*writer)->finish().ok());
  }
  EXPECT_LT(std::filesystem::file_size(path), 1000U);  // no room left over in a small file
  const auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ((*file)->entries().size(), 2U);
  EXPECT_EQ((*file)->entries().at("logits.0").shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(floats_of((*file)->entries().at("logits.0")), a);
  EXPECT_EQ((*file)->entries().at("a \"name\"").dtype, DType::kI32);
  std::filesystem::remove(path);
}

TEST(SafetensorsWriter, LargeDataIsWrittenOnceAndManyTensorsAreCopied) {
  for (const int tensors : {5, 20'000}) {  // the second header outgrows the room reserved for it
    const auto path = scratch("large.safetensors");
    const std::vector<float> data(tensors == 5 ? std::size_t{4} << 20 : 16, 0.5F);
    auto writer = SafetensorsWriter::create(path);
    ASSERT_TRUE(writer.ok());
    for (int i = 0; i < tensors; ++i) {
      ASSERT_TRUE((*writer)
                      ->add(std::string("logits.") + std::to_string(i), DType::kF32,
                            {static_cast<std::int64_t>(data.size())}, std::as_bytes(std::span(data)))
                      .ok());
    }
    ASSERT_TRUE((*writer)->finish().ok());
    const auto file = SafetensorsFile::open(path);
    std::filesystem::remove(path);
    ASSERT_TRUE(file.ok()) << file.status().message();
    EXPECT_EQ((*file)->entries().size(), static_cast<std::size_t>(tensors));
    EXPECT_EQ(floats_of((*file)->entries().at(std::string("logits.") + std::to_string(tensors - 1))), data);
  }
}

TEST(SafetensorsWriter, LeavesNothingBehindWhenAbandoned) {
  const auto dir = scratch("abandoned");
  std::filesystem::create_directory(dir);
  {
    auto writer = SafetensorsWriter::create(dir / "x.safetensors");
    ASSERT_TRUE(writer.ok());
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir));
  std::filesystem::remove(dir);
  EXPECT_EQ(SafetensorsWriter::create(dir / "gone" / "x.safetensors").status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace penstock
