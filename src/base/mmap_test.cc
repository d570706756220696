#include "base/mmap.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <fstream>
#include <string>

namespace penstock {
namespace {

std::filesystem::path scratch(const std::string& name) {
  return std::filesystem::path(testing::TempDir()) / ("penstock_mmap_" + std::to_string(::getpid()) + "_" + name);
}

TEST(MappedFile, ShowsTheBytesOfTheFile) {
  const auto path = scratch("bytes");
  std::ofstream(path, std::ios::binary) << "penstock";
  auto file = MappedFile::open(path);
  ASSERT_TRUE(file.ok()) << file.status().message();
  std::filesystem::remove(path);  // the mapping outlives the name
  (*file)->advise_sequential();
  ASSERT_EQ((*file)->bytes().size(), 8U);
  EXPECT_EQ(std::memcmp((*file)->bytes().data(), "penstock", 8), 0);
}

TEST(MappedFile, EmptyFile) {
  const auto path = scratch("empty");
  std::ofstream(path, std::ios::binary).flush();
  auto file = MappedFile::open(path);
  std::filesystem::remove(path);
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_TRUE((*file)->bytes().empty());
}

TEST(MappedFile, RefusesWhatIsNoFile) {
  EXPECT_EQ(MappedFile::open(scratch("absent")).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(MappedFile::open(testing::TempDir()).status().code(), StatusCode::kInvalidArgument);
  const auto pipe = scratch("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(MappedFile::open(pipe).status().code(), StatusCode::kInvalidArgument);  // and does not wait for a writer
  std::filesystem::remove(pipe);
}

}  // namespace
}  // namespace penstock
