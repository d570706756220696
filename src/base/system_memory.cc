#include "base/system_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <sstream>

namespace penstock {
namespace {

namespace fs = std::filesystem;

std::optional<std::string> read_text(const fs::path& path) {
  std::ifstream in(path);
  if (!in) return std::nullopt;
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// The first number at or after `text`'s leading blanks; none when there is something else ("max").
std::optional<std::int64_t> parse_number(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  return value;
}

std::optional<std::int64_t> read_number(const fs::path& path) {
  const auto text = read_text(path);
  return text ? parse_number(*text) : std::nullopt;
}

// The value of a line "<key> <number>" or "<key>: <number>".
std::optional<std::int64_t> find_field(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.starts_with(key) && line.size() > key.size() && (line[key.size()] == ' ' || line[key.size()] == ':')) {
      line.remove_prefix(key.size() + 1);
      return parse_number(line);
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return std::nullopt;
}

struct GroupFiles {
  const char* limit;
  const char* used;
  const char* cached;  // field of memory.stat that the kernel gives back under pressure
};

std::optional<std::int64_t> group_available(const fs::path& group, const GroupFiles& files) {
  const auto limit = read_number(group / files.limit);
  const auto used = read_number(group / files.used);
  if (!limit || !used) return std::nullopt;
  // v1 spells "no limit" as a number near 2^63.
  if (*limit >= (std::int64_t{1} << 60)) return std::nullopt;
  std::int64_t cached = 0;
  if (const auto stat = read_text(group / "memory.stat")) cached = find_field(*stat, files.cached).value_or(0);
  return std::max<std::int64_t>(0, *limit - std::max<std::int64_t>(0, *used - cached));
}

}  // namespace

std::optional<std::int64_t> parse_mem_available(std::string_view meminfo) {
  const auto kib = find_field(meminfo, "MemAvailable");
  if (!kib || *kib < 0 || *kib > (std::int64_t{1} << 50)) return std::nullopt;
  return *kib * 1024;
}

std::optional<std::int64_t> cgroup_available_bytes(const fs::path& root) {
  const auto groups = read_text(root / "proc/self/cgroup");
  if (!groups) return std::nullopt;
  std::optional<std::int64_t> least;
  std::istringstream lines(*groups);
  for (std::string line; std::getline(lines, line);) {
    // "0::/path" (v2) or "4:memory,cpu:/path" (v1)
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = fmt::format(",{},", line.substr(first + 1, second - first - 1));
    const bool v2 = line.starts_with("0::");
    if (!v2 && controllers.find(",memory,") == std::string::npos) continue;
    const fs::path mount = root / (v2 ? "sys/fs/cgroup" : "sys/fs/cgroup/memory");
    const GroupFiles files = v2 ? GroupFiles{"memory.max", "memory.current", "inactive_file"}
                                : GroupFiles{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
    // Inside a container the path may name a group that its mount does not show; the mount's root is then the group.
    fs::path relative = fs::path(line.substr(second + 1)).relative_path().lexically_normal();
    if (!relative.empty() && *relative.begin() == "..") relative.clear();
    while (true) {
      if (const auto available = group_available(mount / relative, files)) {
        least = std::min(least.value_or(*available), *available);
      }
      if (relative.empty() || relative == ".") break;
      relative = relative.parent_path();
    }
  }
  return least;
}

Expected<std::int64_t> available_memory_bytes(const fs::path& root) {
  constexpr std::int64_t kUnknown = std::numeric_limits<std::int64_t>::max();
  std::int64_t machine = kUnknown;
  if (const auto meminfo = read_text(root / "proc/meminfo")) machine = parse_mem_available(*meminfo).value_or(kUnknown);
  const std::int64_t available = std::min(machine, cgroup_available_bytes(root).value_or(kUnknown));
  if (available == kUnknown) {
    return internal_error(
        "cannot tell how much memory is free: /proc/meminfo has no MemAvailable; give the cache's size with "
        "--cache-memory");
  }
  return available;
}

std::string format_bytes(std::int64_t bytes) {
  constexpr double kKiB = 1024;
  const auto value = static_cast<double>(bytes);
  if (value >= kKiB * kKiB * kKiB) return fmt::format("{:.1f} GiB", value / (kKiB * kKiB * kKiB));
  if (value >= kKiB * kKiB) return fmt::format("{:.1f} MiB", value / (kKiB * kKiB));
  if (value >= kKiB) return fmt::format("{:.1f} KiB", value / kKiB);
  return fmt::format("{} bytes", bytes);
}

}  // namespace penstock
