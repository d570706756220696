// penstock bench kernels: times of the CUDA kernels, beside ceilings measured in the same run.
#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/options.h"
#include "cli/version.h"
#ifdef PENSTOCK_WITH_CUDA
#include "ops/cuda/kernel_bench.h"
#endif

namespace penstock::cli {
namespace {

struct KernelArguments {
  std::int32_t key_heads = 16, value_heads = 32;
  std::vector<std::string> batches;
  bool json = false;
};

#ifdef PENSTOCK_WITH_CUDA

Expected<std::vector<std::int32_t>> parse_batches(const std::vector<std::string>& texts) {
  std::vector<std::int32_t> batches;
  for (const std::string& text : texts) {
    PENSTOCK_ASSIGN_OR_RETURN(const std::int64_t batch, parse_integer(text, 1, 65535));
    batches.push_back(static_cast<std::int32_t>(batch));
  }
  return batches;
}

void print_table(const std::string& device, const std::vector<cuda::KernelTime>& rows) {
  fmt::print("{}\n\n{:<16}{:<24}{:>10}{:>10}{:>12}{:>12}\n", device, "kernel", "shape", "us", "GB/s", "ceiling us",
             "of ceiling");
  for (const cuda::KernelTime& row : rows) {
    fmt::print("{:<16}{:<24}{:>10.2f}{:>10.0f}{:>12.2f}{:>11.1f}%\n", row.kernel, row.shape, row.us,
               static_cast<double>(row.bytes) / row.us / 1e3, row.ceiling_us, 100 * row.ceiling_us / row.us);
  }
  fmt::print(
      "\nA launch does the whole interior of a layer. The ceiling reads and writes the same states in place and does "
      "nothing else.\n");
}

void print_json(const std::string& device, const std::vector<cuda::KernelTime>& rows) {
  nlohmann::ordered_json json;
  json["version"] = version();
  json["device"] = device;
  json["kernels"] = nlohmann::ordered_json::array();
  for (const cuda::KernelTime& row : rows) {
    json["kernels"].push_back({{"kernel", row.kernel},
                               {"shape", row.shape},
                               {"us", row.us},
                               {"ceiling_us", row.ceiling_us},
                               {"state_bytes", row.bytes}});
  }
  fmt::print("{}\n", json.dump(2));
}

int run(const KernelArguments& arguments) {
  const auto device = cuda::device_name();
  if (!device.ok()) return report(device.status());
  cuda::KernelBenchOptions options;
  options.key_heads = arguments.key_heads;
  options.value_heads = arguments.value_heads;
  if (!arguments.batches.empty()) {
    auto batches = parse_batches(arguments.batches);
    if (!batches.ok()) return report(invalid_argument("--batch: " + batches.status().message()));
    options.batches = *std::move(batches);
  }
  const auto rows = cuda::bench_gdn_decode(options);
  if (!rows.ok()) return report(rows.status());
  if (arguments.json) {
    print_json(*device, *rows);
  } else {
    print_table(*device, *rows);
  }
  return kExitOk;
}

#else

int run(const KernelArguments&) {
  return report(unavailable(
      "this penstock was built without CUDA, and only CUDA kernels are timed here: build it where nvcc is installed; "
      "for CPUs see penstock bench offline"));
}

#endif

}  // namespace

Command make_bench_kernels(CLI::App& bench) {
  auto arguments = std::make_shared<KernelArguments>();
  CLI::App* app = bench.add_subcommand("kernels", "times of the CUDA kernels, beside what the GPU's memory allows");
  constexpr const char* kGroup = "Run";
  add_integer(*app, "--key-heads", arguments->key_heads, 1, 1024, "N", "of Gated DeltaNet, 128 wide")
      ->default_str(std::to_string(arguments->key_heads))
      ->group(kGroup);
  add_integer(*app, "--value-heads", arguments->value_heads, 1, 1024, "N", "a multiple of the key heads")
      ->default_str(std::to_string(arguments->value_heads))
      ->group(kGroup);
  add_list(*app, "--batch", arguments->batches, "N", "requests of a step; may be given several times")
      ->default_str("1, 16, 128, 512")
      ->group(kGroup);
  add_flag(*app, "--json", arguments->json, "one JSON object")->group(kGroup);
  return {app, [arguments] {
            if (arguments->value_heads % arguments->key_heads != 0) {
              return report(invalid_argument(fmt::format("--value-heads {} is not a multiple of --key-heads {}",
                                                         arguments->value_heads, arguments->key_heads)));
            }
            return run(*arguments);
          }};
}

}  // namespace penstock::cli
