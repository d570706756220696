// penstock doctor: what this machine has, what will run on it, and what is missing.
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include <cstdint>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/cpu.h"
#include "checkpoint/checkpoint.h"
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/loading.h"
#include "cli/machine.h"
#include "cli/options.h"
#include "cli/version.h"
#include "ops/policy.h"

namespace penstock::cli {
namespace {

using Json = nlohmann::ordered_json;

// Connections of `serve` need a file descriptor each; some dozens go to files and threads.
constexpr std::uint64_t kDescriptorsWanted = 4096;
constexpr std::int64_t kMemoryWanted = std::int64_t{256} << 20;  // the bundled model with a small cache

struct DoctorArguments {
  bool json = false;
  bool quick = false;
};

struct Finding {
  bool fatal = false;  // nothing can run
  std::string text;
};

struct Report {
  std::string system, kernel_release, huge_pages;
  CpuFeatures cpu;
  MemoryInfo memory;
  double read_bandwidth = 0, fma_peak = 0;  // per second; 0: not measured
  GpuReport gpu;
  std::uint64_t open_files = 0, open_files_hard = 0, locked_bytes = 0, address_space = 0;
  std::string bundled_model;  // its folder; empty: not found or not readable
  KernelPlan kernels;
  std::vector<Finding> findings;

  bool can_run() const {
    for (const Finding& finding : findings) {
      if (finding.fatal) return false;
    }
    return true;
  }
};

std::string limit_text(std::uint64_t value) {
  return value == RLIM_INFINITY ? "unlimited" : std::to_string(value);
}

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// "always [madvise] never" -> "madvise"
std::string bracketed(const std::string& text) {
  const std::size_t begin = text.find('[');
  const std::size_t end = text.find(']');
  return begin == std::string::npos || end == std::string::npos ? text : text.substr(begin + 1, end - begin - 1);
}

std::string system_name() {
  std::ifstream file("/etc/os-release");
  constexpr std::string_view kKey = "PRETTY_NAME=";
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(kKey)) continue;
    std::string name = line.substr(kKey.size());
    std::erase(name, '"');
    return name;
  }
  return "unknown system";
}

void read_limits(Report& report) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    report.open_files = limit.rlim_cur;
    report.open_files_hard = limit.rlim_max;
  }
  if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0) report.locked_bytes = limit.rlim_cur;
  if (getrlimit(RLIMIT_AS, &limit) == 0) report.address_space = limit.rlim_cur;
  if (report.open_files < kDescriptorsWanted) {
    report.findings.push_back(
        {false,
         fmt::format("only {} files may be open, so `serve` will take about {} connections "
                     "at a time; raise it with `ulimit -n {}`",
                     report.open_files, report.open_files > 64 ? report.open_files - 64 : 0, kDescriptorsWanted)});
  }
  if (report.address_space != RLIM_INFINITY) {
    report.findings.push_back({false, fmt::format("the address space is limited to {} bytes (ulimit -v): models are "
                                                  "mapped, so that large ones will not load",
                                                  report.address_space)});
  }
}

void check_gpu(Report& report) {
  report.gpu = find_gpus();
  if (report.gpu.gpus.empty() && report.gpu.driver.empty()) return;
  report.findings.push_back({false,
                             "NVIDIA GPUs are not used by this version, which runs on the CPU; the GPU backend "
                             "comes with a later version"});
  if (!report.gpu.problem.empty()) report.findings.push_back({false, "NVIDIA driver: " + report.gpu.problem});
}

void check_model(Report& report) {
  const auto folder = find_model("");
  if (!folder.ok()) {
    report.findings.push_back({false, folder.status().message()});
    return;
  }
  const auto checkpoint = Checkpoint::open(*folder, {});
  if (!checkpoint.ok()) {
    report.findings.push_back({false, "the bundled model cannot be read: " + checkpoint.status().message()});
    return;
  }
  report.bundled_model = folder->string();
  const auto kernels = choose_kernels(report.cpu, (*checkpoint)->config(), {});
  if (kernels.ok()) {
    report.kernels = *kernels;
  } else {
    report.findings.push_back({true, kernels.status().message()});
  }
}

Report examine(bool quick) {
  Report report;
  utsname names{};
  if (uname(&names) == 0) report.kernel_release = fmt::format("{} {} {}", names.sysname, names.release, names.machine);
  report.system = system_name();
  report.cpu = detect_cpu();
  report.memory = read_memory();
  report.huge_pages = bracketed(first_line("/sys/kernel/mm/transparent_hugepage/enabled"));
  if (!report.cpu.avx2) {
    report.findings.push_back({false, "the CPU has no AVX2: everything runs on the reference kernels, which are slow"});
  }
  if (report.memory.available_bytes < kMemoryWanted) {
    report.findings.push_back(
        {true, fmt::format("only {} of memory are available; the bundled model wants {}",
                           human_bytes(report.memory.available_bytes), human_bytes(kMemoryWanted))});
  }
  if (report.huge_pages == "never") {
    report.findings.push_back({false,
                               "transparent huge pages are off, which costs some speed; as root: echo madvise > "
                               "/sys/kernel/mm/transparent_hugepage/enabled"});
  }
  read_limits(report);
  check_gpu(report);
  check_model(report);
  if (!quick) {
    report.read_bandwidth = measure_read_bandwidth(report.cpu.cores);
    report.fma_peak = measure_fma_peak(report.cpu.cores);
  }
  return report;
}

Json cpu_json(const Report& report) {
  Json json;
  json["name"] = report.cpu.name;
  json["cores"] = report.cpu.cores;
  json["avx2"] = report.cpu.avx2;
  json["avx512"] = report.cpu.avx512;
  json["avx512_bf16"] = report.cpu.avx512_bf16;
  json["isa"] = report.kernels.choices.empty() ? Json() : Json(to_string(report.kernels.isa));
  return json;
}

std::string as_json(const Report& report) {
  Json json;
  json["version"] = version();
  json["can_run"] = report.can_run();
  json["system"] = report.system;
  json["kernel"] = report.kernel_release;
  json["cpu"] = cpu_json(report);
  json["memory"] = {{"total_bytes", report.memory.total_bytes},
                    {"available_bytes", report.memory.available_bytes},
                    {"huge_pages", report.huge_pages}};
  const auto measured = [](double value) { return value > 0 ? Json(value) : Json(); };
  json["measured"] = {{"read_bytes_per_second", measured(report.read_bandwidth)},
                      {"fp32_fma_flops", measured(report.fma_peak)}};
  Json gpus = Json::array();
  for (const GpuInfo& gpu : report.gpu.gpus) {
    gpus.push_back(
        {{"name", gpu.name}, {"memory_bytes", gpu.memory_bytes}, {"compute_capability", gpu.compute_capability}});
  }
  json["nvidia"] = {{"driver", report.gpu.driver}, {"gpus", std::move(gpus)}, {"used", false}};
  const auto limit = [](std::uint64_t value) { return value == RLIM_INFINITY ? Json() : Json(value); };
  json["limits"] = {{"open_files", limit(report.open_files)},
                    {"open_files_hard", limit(report.open_files_hard)},
                    {"locked_bytes", limit(report.locked_bytes)},
                    {"address_space_bytes", limit(report.address_space)}};
  json["bundled_model"] = report.bundled_model.empty() ? Json() : Json(report.bundled_model);
  Json kernels = Json::array();
  for (const KernelChoice& choice : report.kernels.choices) {
    kernels.push_back({{"phase", choice.phase}, {"kernel", choice.kernel}, {"reason", choice.reason}});
  }
  json["kernels"] = std::move(kernels);
  Json findings = Json::array();
  for (const Finding& finding : report.findings) {
    findings.push_back({{"fatal", finding.fatal}, {"message", finding.text}});
  }
  json["findings"] = std::move(findings);
  return json_line(json);
}

std::string gpu_text(const GpuReport& gpu) {
  if (gpu.gpus.empty() && gpu.driver.empty()) return "no NVIDIA driver\n";
  std::string text = fmt::format("NVIDIA driver {}\n", gpu.driver.empty() ? "unknown" : gpu.driver);
  for (const GpuInfo& info : gpu.gpus) {
    text += fmt::format("          {}", info.name);
    if (info.memory_bytes > 0) text += fmt::format(", {}", human_bytes(info.memory_bytes));
    if (info.compute_capability > 0) text += fmt::format(", sm_{}", info.compute_capability);
    text += '\n';
  }
  return text;
}

std::string as_text(const Report& report) {
  std::string text = fmt::format("penstock  {}\nsystem    {}, {}\n", version(), report.system, report.kernel_release);
  const auto have = [](bool yes) { return yes ? "yes" : "no"; };
  text += fmt::format("cpu       {}, {} cores for this process\n          AVX2 {}, AVX-512 {}, AVX-512 BF16 {}\n",
                      report.cpu.name, report.cpu.cores, have(report.cpu.avx2), have(report.cpu.avx512),
                      have(report.cpu.avx512_bf16));
  text += fmt::format("memory    {}, {} available, huge pages {}\n", human_bytes(report.memory.total_bytes),
                      human_bytes(report.memory.available_bytes),
                      report.huge_pages.empty() ? "unknown" : report.huge_pages);
  if (report.read_bandwidth > 0) text += fmt::format("          read at {:.1f} GB/s\n", report.read_bandwidth / 1e9);
  if (report.fma_peak > 0)
    text += fmt::format("          fp32 multiply-adds at {:.0f} GFLOP/s\n", report.fma_peak / 1e9);
  text += "gpu       " + gpu_text(report.gpu);
  text += fmt::format("limits    open files {} (hard {}), locked memory {}, address space {}\n",
                      limit_text(report.open_files), limit_text(report.open_files_hard),
                      limit_text(report.locked_bytes), limit_text(report.address_space));
  text += fmt::format("model     {}\n",
                      report.bundled_model.empty() ? "the bundled model is not there" : report.bundled_model);
  text += describe_kernels(report.kernels);
  for (const Finding& finding : report.findings) {
    text += fmt::format("{}  {}\n", finding.fatal ? "problem " : "note    ", finding.text);
  }
  return text +
         (report.can_run() ? "result    Penstock can run here, on the CPU\n" : "result    Penstock cannot run here\n");
}

}  // namespace

Command make_doctor(CLI::App& parent) {
  auto arguments = std::make_shared<DoctorArguments>();
  CLI::App* app = parent.add_subcommand("doctor", "what this machine has, what will run, what is missing");
  add_flag(*app, "--json", arguments->json, "one JSON object");
  add_flag(*app, "--quick", arguments->quick, "measure nothing");
  return {app, [arguments] {
            const Report report = examine(arguments->quick);
            const Status written = write_stdout(arguments->json ? as_json(report) : as_text(report));
            if (!written.ok()) return cli::report(written);
            return report.can_run() ? kExitOk : kExitFailure;
          }};
}

}  // namespace penstock::cli
