#include "base/aligned.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>

#include "base/system_memory.h"

namespace penstock {
namespace {

TEST(AlignedBuffer, IsZeroAlignedAndWritable) {
  AlignedBuffer memory(1 << 20);
  ASSERT_NE(memory.data(), nullptr);
  EXPECT_EQ(memory.bytes(), std::size_t{1} << 20);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory.data()) % 64, 0U);
  EXPECT_EQ(memory.data()[12345], std::byte{0});
  memory.data()[(1 << 20) - 1] = std::byte{7};
  AlignedBuffer other = std::move(memory);
  EXPECT_EQ(other.data()[(1 << 20) - 1], std::byte{7});
}

TEST(AlignedBuffer, IsEmptyWhereThereIsNoMemory) {
  const AlignedBuffer memory(static_cast<std::size_t>(INT64_MAX / 2));
  EXPECT_EQ(memory.data(), nullptr);
  EXPECT_EQ(memory.bytes(), 0U);
}

TEST(SystemMemory, TheMachineSaysWhatIsFree) {
  const auto available = available_memory_bytes();
  ASSERT_TRUE(available.ok()) << available.status().message();
  EXPECT_GT(*available, 0);
}

}  // namespace
}  // namespace penstock
