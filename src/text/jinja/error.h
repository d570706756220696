// How the template interpreter fails. These exceptions never leave src/text: chat_template.cc turns them into a Status.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace penstock::jinja {

enum class ErrorKind : std::uint8_t {
  kSyntax,   // the template cannot be compiled
  kRuntime,  // a type error, an undefined value, a missing filter …
  kRaised,   // the template called raise_exception(): `what()` is its own text
  kLimit,    // steps, output, depth
};

inline constexpr std::uint32_t kNoPosition = UINT32_MAX;

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message, std::uint32_t at = kNoPosition)
      : std::runtime_error(message), kind_(kind), at_(at) {}

  ErrorKind kind() const { return kind_; }
  std::uint32_t at() const { return at_; }  // byte offset in the source, kNoPosition when not known (yet)
  void set_at(std::uint32_t at) { at_ = at; }

 private:
  ErrorKind kind_;
  std::uint32_t at_;
};

[[noreturn]] inline void fail(const std::string& message) {
  throw Error(ErrorKind::kRuntime, message);
}
[[noreturn]] inline void fail_limit(const std::string& message) {
  throw Error(ErrorKind::kLimit, message);
}

}  // namespace penstock::jinja
