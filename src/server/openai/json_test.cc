#include "server/openai/json.h"

#include <gtest/gtest.h>

#include <cmath>

namespace penstock::openai {
namespace {

TEST(Utf8, FindsTheFirstBadByte) {
  for (const char* good :
       {"", "abc", "h\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xF4\x8F\xBF\xBF", "\xED\x9F\xBF"}) {
    EXPECT_EQ(invalid_utf8(good), std::nullopt) << good;
  }
  const std::pair<const char*, std::size_t> bad[] = {
      {"a\x80", 1},    {"\xC3", 0},         {"\xC0\x80", 0},         {"\xC1\xBF", 0},         {"\xE0\x80\x80", 0},
      {"\xE2\x82", 0}, {"\xED\xA0\x80", 0}, {"\xF0\x80\x80\x80", 0}, {"\xF4\x90\x80\x80", 0}, {"ab\xF5\x80\x80\x80", 2},
      {"\xFF", 0},     {"\xC3\xA9\xC3(", 2}};
  for (const auto& [text, offset] : bad) EXPECT_EQ(invalid_utf8(text), offset) << text;
}

TEST(Json, StringsAreAlwaysValid) {
  std::string out;
  append_json_string(out, std::string_view("a\"\\\n\r\t\x01\x1f\0z", 10));
  EXPECT_EQ(out, R"("a\"\\\n\r\t\u0001\u001f\u0000z")");
  out.clear();
  append_json_string(out, "\xC3\xA9\xC3|\xFF\xF0\x9F\x98");
  EXPECT_EQ(out, "\"\xC3\xA9\xEF\xBF\xBD|\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  out.clear();
  append_json_string(out, all);
  EXPECT_NO_THROW(Json::parse(out));
}

TEST(Json, NumbersReadBack) {
  for (const double value : {0.0, 1.0, -0.5, static_cast<double>(0.1F), 1e-30, 12345.678, -9999.0}) {
    std::string out;
    append_json_number(out, value);
    EXPECT_EQ(static_cast<float>(Json::parse(out).get<double>()), static_cast<float>(value)) << out;
  }
  std::string out;
  append_json_number(out, static_cast<double>(0.1F));
  append_json_number(out, std::nan(""));
  EXPECT_EQ(out, "0.1null");
}

TEST(Json, LastDuplicateCountsAndOrderStays) {
  const auto json = parse_json(R"({"z":1,"a":2,"z":3})");
  ASSERT_TRUE(json.ok());
  EXPECT_EQ(json->dump(), R"({"z":3,"a":2})");
}

TEST(Json, BoundedBeforeParsing) {
  JsonLimits limits;
  limits.max_depth = 3;
  limits.max_values = 10;
  EXPECT_TRUE(parse_json("[[[1]]]", limits).ok());
  EXPECT_FALSE(parse_json("[[[[1]]]]", limits).ok());
  EXPECT_TRUE(
      parse_json(R"(["[[[[[{{{{{,,,,,,,,,,,,,,","\"[[[[["])", limits).ok());  // brackets in strings do not count
  EXPECT_FALSE(parse_json("[1,1,1,1,1,1,1,1,1,1,1]", limits).ok());
  std::string keys = "{\"0\":0";
  for (int i = 1; i < 20000; ++i) keys += ",\"" + std::to_string(i) + "\":0";
  EXPECT_FALSE(parse_json(keys + "}").ok());  // would cost 200 million comparisons
}

TEST(Json, Integers) {
  EXPECT_EQ(as_integer(Json::parse("5"), 0, 9), 5);
  EXPECT_EQ(as_integer(Json::parse("5.0"), 0, 9), 5);
  EXPECT_EQ(as_integer(Json::parse("-3"), -3, 9), -3);
  for (const char* bad : {"5.5", "10", "-1", "1e300", "18446744073709551615", "true", "\"5\"", "null", "[]"}) {
    EXPECT_EQ(as_integer(Json::parse(bad), 0, 9), std::nullopt) << bad;
  }
}

TEST(Reader, FirstErrorStaysAndNullIsAbsent) {
  const Json object = Json::parse(R"({"a":"x","b":7,"c":null,"d":1})");
  Reader reader(object, "outer.");
  EXPECT_EQ(reader.string("c"), std::nullopt);
  EXPECT_FALSE(reader.failed());
  EXPECT_EQ(reader.number("a", 0, 1), std::nullopt);
  EXPECT_EQ(reader.boolean("b"), std::nullopt);
  ASSERT_TRUE(reader.failed());
  EXPECT_EQ(reader.error()->param, "outer.a");
  EXPECT_EQ(reader.unread(), std::vector<std::string>{"d"});
}

}  // namespace
}  // namespace penstock::openai
