#include "cli/console.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace penstock::cli {
namespace {

// A bar needs no more than this many pictures a second; a log file wants a line every few seconds.
constexpr auto kBarInterval = std::chrono::milliseconds(50);
constexpr auto kLineInterval = std::chrono::seconds(3);
constexpr int kBarWidth = 30;

std::string one_line(std::string_view message) {
  while (!message.empty() && (message.back() == '\n' || message.back() == ' ')) message.remove_suffix(1);
  std::string line;
  line.reserve(message.size());
  for (const char c : message) {
    if (c == '\n') {
      line += "; ";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      line += '?';  // a file name may hold escape sequences; the terminal must not see them
    } else {
      line += c;
    }
  }
  return line;
}

void print_line(const char* kind, std::string_view message) {
  const std::string line = fmt::format("penstock: {}: {}\n", kind, one_line(message));
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace

void print_error(std::string_view message) {
  print_line("error", message);
}
void print_warning(std::string_view message) {
  print_line("warning", message);
}
void print_note(std::string_view message) {
  print_line("note", message);
}

int report(const Status& status) {
  print_error(status.message().empty() ? to_string(status.code()) : status.message());
  return kExitFailure;
}

int report_usage(std::string_view message) {
  print_error(message);
  return kExitUsage;
}

std::string human_bytes(std::int64_t bytes) {
  constexpr std::array kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (std::abs(value) >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string human_count(std::int64_t count) {
  constexpr std::array kUnits{"", " K", " M", " B", " T"};
  auto value = static_cast<double>(count);
  std::size_t unit = 0;
  while (std::abs(value) >= 1000 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{}", count) : fmt::format("{:.1f}{}", value, kUnits[unit]);
}

std::string grouped(std::int64_t count) {
  const std::string digits = std::to_string(count);
  std::string result;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    const bool boundary = (digits.size() - i) % 3 == 0 && i > 0 && digits[i - 1] != '-';
    if (boundary) result += ',';
    result += digits[i];
  }
  return result;
}

std::string human_seconds(double seconds) {
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", seconds * 1000);
  if (seconds < 60) return fmt::format("{:.2f} s", seconds);
  const auto whole = static_cast<std::int64_t>(seconds);
  return fmt::format("{} min {} s", whole / 60, whole % 60);
}

Status write_stdout(std::string_view text) {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return {};
  return internal_error(fmt::format("cannot write to standard output: {}", std::strerror(errno)));
}

Progress::Progress(std::string label)
    : label_(std::move(label)),
      terminal_(isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()),
      last_(start_) {}

Progress::~Progress() {
  finish();
}

void Progress::update(double fraction) {
  const auto now = std::chrono::steady_clock::now();
  if (now - last_ < (terminal_ ? std::chrono::milliseconds(kBarInterval) : std::chrono::milliseconds(kLineInterval))) {
    return;
  }
  last_ = now;
  fraction = std::clamp(fraction, 0.0, 1.0);
  if (terminal_) {
    const int filled = static_cast<int>(fraction * kBarWidth);
    std::fputs(fmt::format("\r{} [{}{}] {:3.0f} %", label_, std::string(static_cast<std::size_t>(filled), '#'),
                           std::string(static_cast<std::size_t>(kBarWidth - filled), '.'), fraction * 100)
                   .c_str(),
               stderr);
    shown_ = true;
  } else {
    std::fputs(fmt::format("{}: {:.0f} % after {:.0f} s\n", label_, fraction * 100,
                           std::chrono::duration<double>(now - start_).count())
                   .c_str(),
               stderr);
  }
  std::fflush(stderr);
}

void Progress::finish() {
  if (!shown_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  shown_ = false;
}

void set_up_logging(const std::string& level) {
  static const auto kLogger = spdlog::stderr_color_mt("penstock");
  spdlog::set_default_logger(kLogger);
  spdlog::set_pattern("%Y-%m-%d %H:%M:%S.%e %^%l%$ %v");
  spdlog::set_level(spdlog::level::from_str(level));
}

}  // namespace penstock::cli
