#include "cli/console.h"

#include <gtest/gtest.h>

#include "cli/help.h"

namespace penstock::cli {
namespace {

TEST(Console, SizesForPeople) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1536), "1.5 KiB");
  EXPECT_EQ(human_bytes(std::int64_t{3} << 30), "3.0 GiB");
  EXPECT_EQ(human_count(999), "999");
  EXPECT_EQ(human_count(16'100'000), "16.1 M");
  EXPECT_EQ(grouped(0), "0");
  EXPECT_EQ(grouped(999), "999");
  EXPECT_EQ(grouped(1000), "1,000");
  EXPECT_EQ(grouped(1234567), "1,234,567");
  EXPECT_EQ(grouped(-123456), "-123,456");
  EXPECT_EQ(human_seconds(0.0123), "12 ms");
  EXPECT_EQ(human_seconds(1.239), "1.24 s");
  EXPECT_EQ(human_seconds(125), "2 min 5 s");
}

TEST(Console, AnErrorIsOneLineWithoutControlCharacters) {
  testing::internal::CaptureStderr();
  print_error("first\nsecond \033[31mred\n");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "penstock: error: first; second ?[31mred\n");
}

TEST(Help, WrapsAtTheWidth) {
  EXPECT_EQ(wrap("aa bb cc", 2, 7), "  aa bb\n  cc\n");
  EXPECT_EQ(wrap("longer-than-the-width x", 0, 5), "longer-than-the-width\nx\n");
}

TEST(Help, EnvironmentVariablesFollowTheFirstLongName) {
  CLI::App app;
  std::string value;
  EXPECT_EQ(environment_name(*app.add_option("-c,--context-length,--max-model-len", value)), "PENSTOCK_CONTEXT_LENGTH");
  EXPECT_EQ(environment_name(*app.add_option("MODEL,--model", value)), "PENSTOCK_MODEL");
}

}  // namespace
}  // namespace penstock::cli
