#include "cli/config_file.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace penstock::cli {
namespace {

TEST(ConfigFile, ReadsValuesSectionsAndComments) {
  const auto entries = parse_config(
      "# a comment\n\nthreads = 2\nlog_level = \"warn\" # another\r\n[serve]\nport=9000\n"
      "api-key = [\"one\", 'two', three]\nsystem = \"a \\\"b\\\"\\n\"\n",
      "x.toml");
  ASSERT_TRUE(entries.ok()) << entries.status().message();
  ASSERT_EQ(entries->size(), 5U);
  EXPECT_EQ((*entries)[0].key, "threads");
  EXPECT_EQ((*entries)[0].section, "");
  EXPECT_EQ((*entries)[0].values, std::vector<std::string>{"2"});
  EXPECT_EQ((*entries)[1].key, "log-level");
  EXPECT_EQ((*entries)[1].values, std::vector<std::string>{"warn"});
  EXPECT_EQ((*entries)[2].section, "serve");
  EXPECT_EQ((*entries)[2].line, 6);
  EXPECT_EQ((*entries)[3].values, (std::vector<std::string>{"one", "two", "three"}));
  EXPECT_EQ((*entries)[4].values, std::vector<std::string>{"a \"b\"\n"});
}

TEST(ConfigFile, SaysWhereALineIsWrong) {
  for (const char* text : {"\nthreads", "\n= 3", "\n[serve", "\na = \"open", "\na = [1, 2", "\na = [1 2]x",
                           "\na =", "\na = \"x\" y", "\na = \"\\q\"", "\na = [,]"}) {
    const auto entries = parse_config(text, "x.toml");
    ASSERT_FALSE(entries.ok()) << text;
    EXPECT_TRUE(entries.status().message().starts_with("x.toml:2: ")) << entries.status().message();
  }
}

TEST(ConfigFile, AnEmptyListAndAnEmptyFileAreFine) {
  EXPECT_TRUE(parse_config("", "x")->empty());
  EXPECT_TRUE((*parse_config("a = []", "x"))[0].values.empty());
}

}  // namespace
}  // namespace penstock::cli
