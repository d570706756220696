// What one rendering may use: steps, bytes of a string, nesting. Every loop a template can lengthen goes through here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "text/chat_template.h"
#include "text/jinja/error.h"

namespace penstock::jinja {

class Budget {
 public:
  explicit Budget(const TemplateLimits& limits)
      : limits_(limits), steps_left_(limits.max_steps), stack_base_(__builtin_frame_address(0)) {}

  void step(std::int64_t count = 1) {
    steps_left_ -= count;
    if (steps_left_ < 0) fail_limit("the template took more than " + std::to_string(limits_.max_steps) + " steps");
  }
  // Copying or scanning text counts as one step in 64 bytes, so that steps also bound the memory touched.
  void work(std::size_t bytes) { step(static_cast<std::int64_t>(bytes / 64)); }

  void check_string(std::size_t size_bytes) const {
    if (size_bytes > static_cast<std::size_t>(limits_.max_output_bytes)) {
      fail_limit("the template made a text longer than " + std::to_string(limits_.max_output_bytes) + " bytes");
    }
  }
  // The size of a list, tuple or dict; its elements are charged as steps by whoever makes them.
  void check_data_depth(std::uint32_t depth) const {
    if (depth > static_cast<std::uint32_t>(limits_.max_depth)) {
      fail_limit("data nested more than " + std::to_string(limits_.max_depth) + " deep");
    }
  }

  // Macro and recursive loop calls.
  void enter_call() {
    if (++calls_ > limits_.max_depth) {
      fail_limit("macros or loops call each other more than " + std::to_string(limits_.max_depth) + " deep");
    }
  }
  void leave_call() { --calls_; }

  // Nested expressions and statements. The count is what templates normally meet; the stack itself is measured as
  // well, since frames are larger in some builds.
  void enter() {
    const auto used = static_cast<const char*>(stack_base_) - static_cast<const char*>(__builtin_frame_address(0));
    if (++nesting_ > std::int64_t{16} * limits_.max_depth || used > kMaxStackBytes || used < -kMaxStackBytes) {
      fail_limit("the template nests too deeply");
    }
  }
  void leave() { --nesting_; }

  const TemplateLimits& limits() const { return limits_; }

 private:
  static constexpr std::ptrdiff_t kMaxStackBytes = 2 << 20;  // threads have 8 MiB

  TemplateLimits limits_;
  std::int64_t steps_left_;
  std::int64_t calls_ = 0;
  std::int64_t nesting_ = 0;
  const void* stack_base_;
};

class NestingGuard {
 public:
  explicit NestingGuard(Budget& budget) : budget_(budget) { budget_.enter(); }
  ~NestingGuard() { budget_.leave(); }
  NestingGuard(const NestingGuard&) = delete;
  NestingGuard& operator=(const NestingGuard&) = delete;

 private:
  Budget& budget_;
};

}  // namespace penstock::jinja
