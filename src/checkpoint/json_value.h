// A small JSON document, strict about what is ambiguous: a key given twice, text after the end, deep nesting. Errors
// name the place by its path, as in `text_config.rope_parameters.rope_theta`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/status.h"

namespace penstock {

struct JsonMember;

struct JsonValue {
  enum class Kind : std::uint8_t { kNull, kBool, kInteger, kNumber, kString, kArray, kObject };

  Kind kind = Kind::kNull;
  bool boolean = false;
  std::int64_t integer = 0;
  double number = 0.0;  // of kNumber; always finite
  std::string string;   // of kString; of numbers the spelling
  std::vector<JsonValue> array;
  std::vector<JsonMember> object;  // in order, keys unique

  bool is(Kind k) const { return kind == k; }
  const JsonValue* find(std::string_view key) const;  // null: no such key, or no object
  std::string describe() const;                       // "the string 'abc'", "the number 1.5", "an object", for messages
};

struct JsonMember {
  std::string name;
  JsonValue value;
};

// kCorrupt with the place and the reason. Integers beyond 64 bits become numbers.
Expected<JsonValue> parse_json(std::string_view text);

}  // namespace penstock
