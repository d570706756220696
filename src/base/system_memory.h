// How much memory this process may still take: the machine's and its control group's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "penstock/status.h"

namespace penstock {

// MemAvailable of a /proc/meminfo, in bytes.
std::optional<std::int64_t> parse_mem_available(std::string_view meminfo);

// What the control groups in force leave: the least of limit - (used - cached files) over the group of this process and
// its parents, v2 or v1. Empty without a limit. `root` is "/" except in tests.
std::optional<std::int64_t> cgroup_available_bytes(const std::filesystem::path& root);

// The smaller of the two. An error when the machine does not say.
Expected<std::int64_t> available_memory_bytes(const std::filesystem::path& root = "/");

// "1.5 GiB", "12.0 MiB", "640 bytes".
std::string format_bytes(std::int64_t bytes);

}  // namespace penstock
