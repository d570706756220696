// Errors that a user, a client or a file can cause. Our own bugs are CHECKs (src/base/check.h), never a Status.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace penstock {

enum class StatusCode : std::uint8_t {
  kOk,
  kInvalidArgument,    // a value is wrong in itself; HTTP 400
  kNotFound,           // a file, tensor or model that should exist does not; HTTP 404
  kUnsupported,        // well formed, but this build does not do it; HTTP 400
  kCorrupt,            // a file contradicts itself
  kResourceExhausted,  // a queue or pool is full now; HTTP 429
  kUnavailable,        // loading, draining or failed; HTTP 503
  kCancelled,          // the client left or asked for it
  kDeadlineExceeded,   // a time limit passed
  kInternal,           // something of ours broke for one request
};

// The name of a code in lower case with underscores, e.g. "invalid_argument".
const char* to_string(StatusCode code);

// A message says what was wrong, where (file, tensor, field), and what to do about it.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

  // The same error with "<context>: " in front, for naming the file or the field on the way up.
  Status with_context(const std::string& context) const;

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

Status invalid_argument(std::string message);
Status not_found(std::string message);
Status unsupported(std::string message);
Status corrupt(std::string message);
Status resource_exhausted(std::string message);
Status unavailable(std::string message);
Status internal_error(std::string message);

// A value or the Status that says why there is none. Reading the wrong one is a bug and ends the process.
template <typename T>
class [[nodiscard]] Expected {
 public:
  Expected(T value) : value_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  Expected(Status status) : value_(std::move(status)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return std::holds_alternative<T>(value_); }
  explicit operator bool() const { return ok(); }

  const Status& status() const {
    static const Status kFine;
    return ok() ? kFine : std::get<Status>(value_);
  }

  T& operator*() & { return std::get<T>(value_); }
  const T& operator*() const& { return std::get<T>(value_); }
  T&& operator*() && { return std::get<T>(std::move(value_)); }
  T* operator->() { return &std::get<T>(value_); }
  const T* operator->() const { return &std::get<T>(value_); }

 private:
  std::variant<T, Status> value_;
};

}  // namespace penstock

// Return the error of an expression that gives a Status.
#define PENSTOCK_RETURN_IF_ERROR(expr)                   \
  do {                                                   \
    ::penstock::Status penstock_status_ = (expr);        \
    if (!penstock_status_.ok()) return penstock_status_; \
  } while (false)

#define PENSTOCK_CONCAT_INNER(a, b) a##b
#define PENSTOCK_CONCAT(a, b) PENSTOCK_CONCAT_INNER(a, b)

// PENSTOCK_ASSIGN_OR_RETURN(auto file, open(path)): declare or assign the value, or return its error.
#define PENSTOCK_ASSIGN_OR_RETURN(lhs, expr) \
  PENSTOCK_ASSIGN_OR_RETURN_IMPL(PENSTOCK_CONCAT(expected_, __LINE__), lhs, expr)
#define PENSTOCK_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                                   \
  if (!tmp.ok()) return tmp.status();                  \
  lhs = *std::move(tmp)
