#include "text/unicode.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <vector>

namespace penstock::unicode {
namespace {

std::string lossy(std::string_view bytes) {
  std::string out;
  if (append_lossy(bytes, out) < bytes.size()) out += kReplacement;
  return out;
}

std::string to_nfc(std::string_view text) {
  std::string buffer;
  return std::string(nfc(text, buffer));
}

TEST(Unicode, FindsTheFirstByteThatIsNotUtf8) {
  EXPECT_EQ(find_invalid_utf8(""), std::nullopt);
  EXPECT_EQ(find_invalid_utf8("aé漢🙂\U0010FFFF\uD7FF\uE000"), std::nullopt);
  EXPECT_EQ(find_invalid_utf8("ab\x80"), 2U);
  EXPECT_EQ(find_invalid_utf8("é\xC3"), 2U);             // cut off
  EXPECT_EQ(find_invalid_utf8("\xC0\x80"), 0U);          // overlong
  EXPECT_EQ(find_invalid_utf8("a\xE0\x9F\xBF"), 1U);     // overlong
  EXPECT_EQ(find_invalid_utf8("a\xED\xA0\x80"), 1U);     // surrogate
  EXPECT_EQ(find_invalid_utf8("\xF4\x90\x80\x80"), 0U);  // above U+10FFFF
  EXPECT_EQ(find_invalid_utf8("\xF5\x80\x80\x80"), 0U);
}

// The examples of the Unicode standard, tables 3-8 to 3-11.
TEST(Unicode, ReplacesMaximalSubparts) {
  const std::string r(kReplacement);
  EXPECT_EQ(lossy("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(lossy("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(lossy("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(lossy("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
  EXPECT_EQ(lossy("x\xF0\x9F\x99"), std::string("x").append(r));
}

TEST(Unicode, LossyStopsBeforeWhatCouldBecomeACharacter) {
  for (const std::string_view text : {"é", "漢", "🙂"})
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      std::string out;
      EXPECT_EQ(append_lossy(std::string("a").append(text, 0, cut), out), 1U);
      EXPECT_EQ(out, "a");
    }
  std::string out;
  EXPECT_EQ(append_lossy("\xE0\x80", out), 2U);  // no character begins so
  EXPECT_EQ(out, std::string(kReplacement) + std::string(kReplacement));
}

// However the bytes are cut, feeding them piece by piece gives the same text.
TEST(Unicode, LossyDoesNotDependOnPieces) {
  std::mt19937 random(1);
  const std::string_view alphabet = "a\x80\x9F\xA0\xBF\xC3\xE0\xE2\xED\xF0\xF4\xFF";
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    for (std::size_t i = random() % 12; i > 0; --i) bytes += alphabet[random() % alphabet.size()];
    std::string out;
    std::string pending;
    for (const char byte : bytes) {
      pending += byte;
      pending.erase(0, append_lossy(pending, out));
      ASSERT_LE(pending.size(), 3U);
    }
    if (!pending.empty()) out += kReplacement;
    ASSERT_EQ(out, lossy(bytes));
    ASSERT_EQ(find_invalid_utf8(out), std::nullopt);
  }
}

TEST(Unicode, NormalFormC) {
  std::string buffer;
  const std::string_view plain = "naïve Straße";
  EXPECT_EQ(nfc(plain, buffer).data(), plain.data());  // not even copied
  EXPECT_EQ(to_nfc("e\u0301"), "é");
  EXPECT_EQ(to_nfc("xe\u0301y 漢e\u0323\u0301字"), "xéy 漢ẹ\u0301字");
  EXPECT_EQ(to_nfc("q\u0307\u0323"), "q\u0323\u0307");  // ordered
  EXPECT_EQ(to_nfc("a\u0315\u0300\u05AE\u0300b"), "à\u05AE\u0300\u0315b");
  EXPECT_EQ(to_nfc("\u212B\u2126"), "ÅΩ");  // singletons
  EXPECT_EQ(to_nfc("\u1100\u1161\u11A8"), "각");
  EXPECT_EQ(to_nfc("가\u11A8"), "각");
  EXPECT_EQ(to_nfc("가\u11A7"), "가\u11A7");    // a vowel, no final consonant
  EXPECT_EQ(to_nfc("\u0958"), "\u0915\u093C");  // a composition exclusion
  EXPECT_EQ(to_nfc("か\u3099"), "が");
  EXPECT_EQ(to_nfc("\u0301"), "\u0301");
  EXPECT_EQ(to_nfc("a\u20D0\u0323"), "\u1EA1\u20D0");
}

// Marks newer than Unicode 9 stay where they are, as in the reference; checked against tokenizers 0.23.3.
TEST(Unicode, NormalFormCIsThatOfUnicode9) {
  EXPECT_EQ(to_nfc("a\u0301\u1ABF"), "á\u1ABF");
  EXPECT_EQ(to_nfc("e\u0301\u1DFA\u0323"), "é\u1DFA\u0323");
  EXPECT_EQ(to_nfc("\U00011935\U00011930"), "\U00011935\U00011930");
  EXPECT_EQ(to_nfc("\U00011938"), "\U00011938");
  EXPECT_EQ(to_nfc("\u1DFA\u0301\u0323"), "\u1DFA\u0323\u0301");
}

TEST(Unicode, LongRunsOfMarksTakeNoQuadraticTime) {
  std::string text = "a";
  for (int i = 0; i < 300'000; ++i) text += "\u0301";
  for (int i = 0; i < 300'000; ++i) text += "\u0323";
  const auto start = std::chrono::steady_clock::now();
  const std::string normal = to_nfc(text);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  EXPECT_EQ(normal.substr(0, 5), "ạ\u0323");
  EXPECT_EQ(normal.substr(normal.size() - 2), "\u0301");
}

TEST(Unicode, NormalisingTwiceChangesNothing) {
  std::mt19937 random(2);
  const std::vector<char32_t> points = {U'a',   U'e',   U'é',   U' ',    0x301,   0x323,   0x307,  0x345,  0x1100,
                                        0x1161, 0x11A8, 0x11A7, 0xAC00,  0x915,   0x93C,   0x4E00, 0x3099, 0x304B,
                                        0x212B, 0x1ABF, 0x1DFA, 0x11930, 0x11935, 0x1D15F, 0x20D0};
  for (int round = 0; round < 5000; ++round) {
    std::string text;
    for (std::size_t i = random() % 10; i > 0; --i) append_utf8(text, points[random() % points.size()]);
    const std::string once = to_nfc(text);
    ASSERT_EQ(find_invalid_utf8(once), std::nullopt);
    ASSERT_EQ(to_nfc(once), once);
  }
}

}  // namespace
}  // namespace penstock::unicode
