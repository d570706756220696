// JSON of strangers: bounded before it is parsed, and read field by field with errors that name the field.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "penstock/status.h"
#include "server/openai/error.h"

namespace penstock::openai {

using Json = nlohmann::ordered_json;  // templates see keys in the client's order

struct JsonLimits {
  std::int32_t max_depth = 64;
  std::int64_t max_values = 4'000'000;  // 16 bytes each, and a string's own
  // Objects keep their keys in order and are searched from the front: n keys cost n²/2 comparisons.
  std::int64_t max_key_comparisons = 50'000'000;
};

// One object or array or other value. Refused before anything is built: invalid UTF-8 (with its offset), depth and size
// beyond the limits. Duplicate keys: the last counts.
Expected<Json> parse_json(std::string_view text, const JsonLimits& limits = {});

// The offset of the first byte that is not UTF-8, or nothing.
std::optional<std::size_t> invalid_utf8(std::string_view text);

// "text" with its quotes. Bytes that are not UTF-8 become U+FFFD: what leaves the server is always JSON.
void append_json_string(std::string& out, std::string_view text);
void append_json_number(std::string& out, double value);  // shortest form that reads back; not finite: null

const char* type_name(const Json& value);  // "a string", "an object", …

// Reads the fields of one object. The first error stays; after it every read gives nothing. null is the same as absent.
class Reader {
 public:
  // `prefix` goes in front of field names in errors, as "messages[0].".
  explicit Reader(const Json& object, std::string prefix = {});

  const Json* find(const char* name);  // null when absent
  std::optional<bool> boolean(const char* name);
  std::optional<std::int64_t> integer(const char* name, std::int64_t low, std::int64_t high);
  // Compared as float, since that is what is kept. `low_open`: low itself is out of range.
  std::optional<float> number(const char* name, float low, float high, bool low_open = false);
  std::optional<std::string> string(const char* name);

  std::string path(const char* name) const { return prefix_ + name; }
  void fail(ApiError error);
  void fail(const char* name, const std::string& message) { fail(bad_request(path(name), path(name) + ' ' + message)); }
  bool failed() const { return error_.has_value(); }
  const std::optional<ApiError>& error() const { return error_; }
  std::vector<std::string> unread() const;  // fields nobody asked for

 private:
  const Json& object_;
  std::string prefix_;
  std::vector<std::string> read_;
  std::optional<ApiError> error_;
};

// A whole number in range, from 5 and from 5.0; nothing for anything else.
std::optional<std::int64_t> as_integer(const Json& value, std::int64_t low, std::int64_t high);

}  // namespace penstock::openai
