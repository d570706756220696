#include "cli/options.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace penstock::cli {
namespace {

TEST(ParseInteger, TakesWholeNumbersInRange) {
  EXPECT_EQ(*parse_integer("0", 0, 10), 0);
  EXPECT_EQ(*parse_integer("-3", -5, 10), -3);
  EXPECT_EQ(*parse_integer("010", 0, 10), 10);  // decimal, never octal
}

TEST(ParseInteger, RefusesTheRestWithTheRange) {
  for (const char* text : {"", " ", "x", "1x", "1.5", "0x10", "1e3", "--1", "+1", " 1", "1 "}) {
    const auto result = parse_integer(text, 0, 10);
    ASSERT_FALSE(result.ok()) << text;
    EXPECT_NE(result.status().message().find("from 0 to 10"), std::string::npos) << result.status().message();
  }
  for (const char* text : {"-1", "11", "99999999999999999999999"}) {
    const auto result = parse_integer(text, 0, 10);
    ASSERT_FALSE(result.ok()) << text;
    EXPECT_NE(result.status().message().find("out of range"), std::string::npos) << result.status().message();
  }
}

TEST(ParseUnsigned, CoversAll64Bits) {
  EXPECT_EQ(*parse_unsigned("18446744073709551615"), 18446744073709551615U);
  for (const char* text : {"", "-1", "18446744073709551616", "1.0", "a"})
    EXPECT_FALSE(parse_unsigned(text).ok()) << text;
}

TEST(ParseReal, KnowsOpenAndClosedEnds) {
  EXPECT_DOUBLE_EQ(*parse_real("0", 0, 1), 0);
  EXPECT_DOUBLE_EQ(*parse_real("1", 0, 1), 1);
  EXPECT_DOUBLE_EQ(*parse_real("1e-3", 0, 1), 1e-3);
  EXPECT_FALSE(parse_real("0", 0, 1, /*low_included=*/false).ok());
  for (const char* text : {"", "nan", "inf", "1e999", "0.5x", "1.0001", "-0.1"}) {
    EXPECT_FALSE(parse_real(text, 0, 1).ok()) << text;
  }
}

TEST(ParseSize, TakesBytesAndUnits) {
  EXPECT_EQ(*parse_size("1"), 1);
  EXPECT_EQ(*parse_size("4K"), 4096);
  EXPECT_EQ(*parse_size("1.5g"), 1610612736);
  EXPECT_EQ(*parse_size("2GiB"), std::int64_t{2} << 30);
  EXPECT_EQ(*parse_size("3MB"), std::int64_t{3} << 20);
  for (const char* text : {"", "0", "-1", "G", "1X", "1GG", "1e30", "nan", "0.2"})
    EXPECT_FALSE(parse_size(text).ok()) << text;
}

TEST(Options, TheLastOfSeveralCountsAndListsGather) {
  CLI::App app;
  std::int32_t number = 0;
  std::vector<std::string> list;
  add_integer(app, "--number", number, 0, 100, "N", "");
  add_list(app, "--list", list, "TEXT", "");
  app.parse(R"(--number 3 --list a,b --number 4 --list c)");
  EXPECT_EQ(number, 4);
  EXPECT_EQ(list, (std::vector<std::string>{"a,b", "c"}));
}

TEST(Options, AWrongValueNamesTheOption) {
  CLI::App app;
  std::int32_t number = 0;
  add_integer(app, "-n,--number,--alias", number, 0, 100, "N", "");
  try {
    app.parse("--alias 101");
    FAIL() << "accepted";
  } catch (const CLI::ParseError& error) {
    EXPECT_EQ(std::string(error.what()), "--number: 101 is out of range: a whole number from 0 to 100 is allowed");
  }
}

TEST(Options, ChoicesMayStandForOthers) {
  CLI::App app;
  std::string chosen;
  add_choice(
      app, "--dtype", [&](const std::string& word) { chosen = word; }, {{"bfloat16", ""}, {"bf16", "bfloat16"}}, "");
  app.parse("--dtype bf16");
  EXPECT_EQ(chosen, "bfloat16");
  EXPECT_THROW(app.parse("--dtype fp8"), CLI::ValidationError);
}

TEST(Options, ModelOptionsFillTheKernelRequest) {
  CLI::App app;
  ModelArguments arguments;
  add_model_options(app, arguments, SeedOption::kWeights, "warn");
  app.parse(
      "folder --threads 2 --mamba-ssm-cache-dtype bf16 --linear-attn-decode-backend flashinfer --load-format dummy "
      "--seed 7 --kv-cache-dtype auto --generation-config none");
  EXPECT_EQ(arguments.model, "folder");
  EXPECT_EQ(arguments.model_options.threads, 2);
  EXPECT_EQ(arguments.model_options.kernels.state_dtype, "bfloat16");
  EXPECT_EQ(arguments.model_options.kernels.gdn_backend, "flashinfer");
  EXPECT_FALSE(arguments.model_options.kernels.kv_dtype.has_value());
  EXPECT_EQ(arguments.load_format, LoadFormat::kDummy);
  EXPECT_EQ(arguments.random_seed, 7U);
  EXPECT_FALSE(arguments.use_generation_config);
}

EngineOptions parse_engine(const std::string& line) {
  CLI::App app;
  EngineOptions options;
  add_engine_options(app, options);
  app.parse(line);
  return options;
}

TEST(Options, CacheOptionsFillTheEngineOptions) {
  const EngineOptions ours = parse_engine("");
  EXPECT_TRUE(ours.prefix_cache);
  EXPECT_EQ(ours.strategy, SchedulerStrategy::kAuto);
  EXPECT_EQ(ours.track_interval, EngineOptions::kDefaultTrackInterval);
  EXPECT_EQ(ours.max_states, 0);
  EXPECT_EQ(ours.state_to_kv_ratio, 0);
  EXPECT_EQ(ours.overlap, EngineOptions::kDefaultOverlap);
  const EngineOptions all = parse_engine(
      "--disable-radix-cache --mamba-scheduler-strategy no_buffer --mamba-track-interval 256 --max-mamba-cache-size 40 "
      "--mamba-full-memory-ratio 0.9 --enable-overlap-schedule");
  EXPECT_FALSE(all.prefix_cache);
  EXPECT_EQ(all.strategy, SchedulerStrategy::kNoBuffer);
  EXPECT_EQ(all.track_interval, 256);
  EXPECT_EQ(all.max_states, 40);
  EXPECT_DOUBLE_EQ(all.state_to_kv_ratio, 0.9);
  EXPECT_TRUE(all.overlap);
  EXPECT_EQ(parse_engine("--mamba-radix-cache-strategy extra_buffer").strategy, SchedulerStrategy::kExtraBuffer);
  EXPECT_EQ(parse_engine("--mamba-radix-cache-strategy no_buffer --mamba-scheduler-strategy auto").strategy,
            SchedulerStrategy::kAuto);
  EXPECT_TRUE(parse_engine("--disable-radix-cache=false").prefix_cache);
}

TEST(Options, OfTwoOppositesTheLastCounts) {
  EXPECT_FALSE(parse_engine("--enable-overlap-schedule --disable-overlap-schedule").overlap);
  EXPECT_TRUE(parse_engine("--disable-overlap-schedule --enable-overlap-schedule").overlap);
  EXPECT_TRUE(parse_engine("--disable-overlap-schedule=false").overlap);
}

TEST(Options, WrongCacheOptionsSayWhatIsAllowed) {
  const struct {
    const char *line, *words;
  } table[] = {
      {"--mamba-track-interval 100",
       "--mamba-track-interval: 100 is not a multiple of 64: states exist at the ends of blocks only; take 64 or 128"},
      {"--mamba-track-interval 2147483647", "take 2147483584"},
      {"--mamba-track-interval 0", "0 is out of range: a whole number from 64 to"},
      {"--mamba-track-interval -64", "out of range"},
      {"--mamba-track-interval 64.5", "not a whole number"},
      {"--mamba-scheduler-strategy lazy",
       "--mamba-scheduler-strategy: 'lazy' is not one of auto, no_buffer, extra_buffer"},
      {"--max-mamba-cache-size -1", "--max-mamba-cache-size: -1 is out of range"},
      {"--max-mamba-cache-size many", "not a whole number"},
      {"--mamba-full-memory-ratio -0.5", "--mamba-full-memory-ratio: -0.5 is out of range: a number from 0 to"},
      {"--mamba-full-memory-ratio nan", "not a number"},
  };
  for (const auto& row : table) {
    try {
      parse_engine(row.line);
      FAIL() << row.line << " was accepted";
    } catch (const CLI::ParseError& error) {
      EXPECT_NE(std::string(error.what()).find(row.words), std::string::npos) << row.line << ": " << error.what();
    }
  }
}

TEST(ResolveSampling, FixedOverModelOverOurs) {
  GenerationConfig model;
  model.temperature = 0.6F;
  model.top_k = 20;
  model.do_sample = true;
  SamplingArguments fixed;
  fixed.top_k = 5;
  const SamplingParams params = resolve_sampling(fixed, model, true);
  EXPECT_FLOAT_EQ(params.temperature, 0.6F);
  EXPECT_EQ(params.top_k, 5);
  EXPECT_FLOAT_EQ(params.top_p, 1);
  EXPECT_FLOAT_EQ(resolve_sampling({}, model, false).temperature, 1);
}

TEST(ResolveSampling, DoSampleFalseIsGreedyUnlessATemperatureIsGiven) {
  GenerationConfig model;
  model.temperature = 0.6F;
  model.do_sample = false;
  EXPECT_FLOAT_EQ(resolve_sampling({}, model, true).temperature, 0);
  SamplingArguments fixed;
  fixed.temperature = 0.9F;
  EXPECT_FLOAT_EQ(resolve_sampling(fixed, model, true).temperature, 0.9F);
}

}  // namespace
}  // namespace penstock::cli
