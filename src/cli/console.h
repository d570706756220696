// What every command says to the terminal, and how: errors as one line, notes, progress, sizes for people.
// Answers go to standard output, everything else to standard error.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "penstock/status.h"

namespace penstock::cli {

constexpr int kExitOk = 0;
constexpr int kExitFailure = 1;  // it could not be done
constexpr int kExitUsage = 2;    // the command line or an input file is wrong

// "penstock: error: <message>" on one line, newlines of the message turned into "; ".
void print_error(std::string_view message);
int report(const Status& status);              // prints; kExitFailure
int report_usage(std::string_view message);    // prints; kExitUsage
void print_warning(std::string_view message);  // "penstock: warning: …"
void print_note(std::string_view message);     // "penstock: note: …"

std::string human_bytes(std::int64_t bytes);  // "12.3 MiB"
std::string human_count(std::int64_t count);  // "16.1 M"
std::string grouped(std::int64_t count);      // "1,234,567"
std::string human_seconds(double seconds);    // "12 ms", "1.24 s", "2 min 5 s"

// Standard output, checked: a full disk or a closed pipe is an error like any other.
Status write_stdout(std::string_view text);

// Progress on standard error: a bar on a terminal, else a line every few seconds.
class Progress {
 public:
  explicit Progress(std::string label);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void update(double fraction);  // of [0, 1]
  void finish();                 // takes the bar away

 private:
  std::string label_;
  bool terminal_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  // Seconds since the start or the last lap.
  double lap() {
    const double now = seconds();
    const double lap = now - lap_;
    lap_ = now;
    return lap;
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double lap_ = 0;
};

// Sends the logger to standard error. Levels: trace, debug, info, warn, error, off.
void set_up_logging(const std::string& level);

}  // namespace penstock::cli
