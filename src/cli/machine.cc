#include "cli/machine.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>
#include <system_error>

#include "base/system_memory.h"

namespace penstock::cli {
namespace {

namespace fs = std::filesystem;

// Bytes of one line of /proc/meminfo, which counts in KiB.
std::int64_t meminfo(const std::string& text, const std::string& key) {
  const std::size_t at = text.find(key + ":");
  if (at == std::string::npos) return 0;
  std::istringstream line(text.substr(at + key.size() + 1, 64));
  std::int64_t kibibytes = 0;
  line >> kibibytes;
  return kibibytes * 1024;
}

std::string read_text(const fs::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// The words after "key:" on its line.
std::string field(const std::string& text, const std::string& key) {
  const std::size_t at = text.find(key + ":");
  if (at == std::string::npos) return {};
  const std::size_t begin = text.find_first_not_of(" \t", at + key.size() + 1);
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find('\n', begin) - begin);
}

// The few functions of the driver's library that are asked here, as cuda.h declares them.
class CudaDriver {
 public:
  CudaDriver() : library_(dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {}
  // The library stays loaded: some versions do not survive being unloaded.

  bool loaded() const { return library_ != nullptr; }

  // Empty, or what went wrong.
  std::string list(std::vector<GpuInfo>& gpus) const {
    const auto init = find<int(unsigned)>("cuInit");
    const auto count = find<int(int*)>("cuDeviceGetCount");
    const auto get = find<int(int*, int)>("cuDeviceGet");
    const auto name = find<int(char*, int, int)>("cuDeviceGetName");
    const auto memory = find<int(std::size_t*, int)>("cuDeviceTotalMem_v2");
    const auto attribute = find<int(int*, int, int)>("cuDeviceGetAttribute");
    if (!init || !count || !get || !name || !memory || !attribute) return "libcuda.so.1 lacks functions of the driver";
    if (const int error = init(0); error != 0) return "cuInit says error " + std::to_string(error);
    int devices = 0;
    if (const int error = count(&devices); error != 0) return "cuDeviceGetCount says error " + std::to_string(error);
    for (int i = 0; i < devices; ++i) {
      int device = 0;
      std::array<char, 256> text{};
      std::size_t bytes = 0;
      int major = 0;
      int minor = 0;
      constexpr int kMajor = 75;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, …_MINOR
      constexpr int kMinor = 76;
      if (get(&device, i) != 0 || name(text.data(), static_cast<int>(text.size() - 1), device) != 0 ||
          memory(&bytes, device) != 0 || attribute(&major, kMajor, device) != 0 ||
          attribute(&minor, kMinor, device) != 0) {
        return "the driver does not describe GPU " + std::to_string(i);
      }
      gpus.push_back({text.data(), static_cast<std::int64_t>(bytes), 10 * major + minor});
    }
    return {};
  }

 private:
  template <typename Function>
  Function* find(const char* symbol) const {
    return reinterpret_cast<Function*>(dlsym(library_, symbol));
  }

  void* library_;
};

}  // namespace

MemoryInfo read_memory() {
  MemoryInfo info;
  const std::string text = read_text("/proc/meminfo");
  info.total_bytes = meminfo(text, "MemTotal");
  const Expected<std::int64_t> available = available_memory_bytes();
  info.available_bytes = available.ok() ? *available : 0;
  return info;
}

std::int64_t last_level_cache_bytes() {
  // The kernel's topology first: sysconf() multiplies on some virtual machines (seen: 320 MiB where 32 are there).
  for (const char* index : {"index3", "index2"}) {
    std::istringstream size(read_text(fs::path("/sys/devices/system/cpu/cpu0/cache") / index / "size"));
    std::int64_t kibibytes = 0;
    char unit = 0;
    if (size >> kibibytes >> unit && unit == 'K') return kibibytes * 1024;
  }
  return std::max<std::int64_t>(sysconf(_SC_LEVEL3_CACHE_SIZE), 0);
}

GpuReport find_gpus() {
  GpuReport report;
  const std::string version = read_text("/proc/driver/nvidia/version");
  // "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5 …": the first word with two dots or one.
  std::istringstream words(version.substr(0, version.find('\n')));
  for (std::string word; report.driver.empty() && words >> word;) {
    if (word.find_first_not_of("0123456789.") == std::string::npos && word.find('.') != std::string::npos) {
      report.driver = word;
    }
  }
  if (report.driver.empty() && !version.empty()) report.driver = "unknown";

  const CudaDriver driver;
  if (driver.loaded()) {
    report.problem = driver.list(report.gpus);
  } else if (!report.driver.empty()) {
    report.problem = "the driver's library libcuda.so.1 is missing";
  }
  if (!report.gpus.empty()) return report;
  std::error_code error;
  for (fs::directory_iterator folder("/proc/driver/nvidia/gpus", error), end; !error && folder != end;
       folder.increment(error)) {
    report.gpus.push_back({field(read_text(folder->path() / "information"), "Model"), 0, 0});
  }
  return report;
}

}  // namespace penstock::cli
