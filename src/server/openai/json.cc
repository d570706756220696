#include "server/openai/json.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace penstock::openai {
namespace {

// Bytes of the UTF-8 sequence at the front of `text`, 0 if it is not one. Surrogates and overlong forms are not.
std::size_t sequence_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto in = [&](std::size_t i, int low, int high) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (first < 0xC2) return 0;
  if (first < 0xE0) return in(1, 0x80, 0xBF) ? 2 : 0;
  if (first < 0xF0) {
    const int low = first == 0xE0 ? 0xA0 : 0x80;
    const int high = first == 0xED ? 0x9F : 0xBF;
    return in(1, low, high) && in(2, 0x80, 0xBF) ? 3 : 0;
  }
  if (first > 0xF4) return 0;
  const int low = first == 0xF0 ? 0x90 : 0x80;
  const int high = first == 0xF4 ? 0x8F : 0xBF;
  return in(1, low, high) && in(2, 0x80, 0xBF) && in(3, 0x80, 0xBF) ? 4 : 0;
}

// Counts what the parser would build, without building it. Wrong syntax is left to the parser.
Status check_shape(std::string_view text, const JsonLimits& limits) {
  std::vector<std::int64_t> members;  // commas seen in each open bracket
  std::int64_t values = 1;
  std::int64_t comparisons = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
      continue;
    }
    switch (c) {
      case '"':
        in_string = true;
        break;
      case '[':
      case '{':
        members.push_back(0);
        ++values;
        if (static_cast<std::int64_t>(members.size()) > limits.max_depth) {
          return invalid_argument("the JSON is nested more than " + std::to_string(limits.max_depth) +
                                  " levels deep, at byte " + std::to_string(i));
        }
        break;
      case ',':
        ++values;
        if (!members.empty()) ++members.back();
        break;
      case ':':
        if (!members.empty()) comparisons += members.back();
        break;
      case ']':
      case '}':
        if (!members.empty()) members.pop_back();
        break;
      default:
        break;
    }
    if (values > limits.max_values) {
      return invalid_argument("the JSON has more than " + std::to_string(limits.max_values) + " values");
    }
    if (comparisons > limits.max_key_comparisons) return invalid_argument("the JSON has objects with too many keys");
  }
  return {};
}

}  // namespace

std::optional<std::size_t> invalid_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = sequence_length(text.substr(i));
    if (length == 0) return i;
    i += length;
  }
  return std::nullopt;
}

Expected<Json> parse_json(std::string_view text, const JsonLimits& limits) {
  if (const auto offset = invalid_utf8(text)) {
    return invalid_argument("the text is not valid UTF-8 at byte " + std::to_string(*offset));
  }
  PENSTOCK_RETURN_IF_ERROR(check_shape(text, limits));
  try {
    return Json::parse(text);
  } catch (const nlohmann::json::exception& e) {
    std::string_view why = e.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: …"
    if (const auto bracket = why.find("] "); why.starts_with('[') && bracket != std::string_view::npos) {
      why.remove_prefix(bracket + 2);
    }
    return invalid_argument("the text is not valid JSON: " + std::string(why));
  }
}

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  std::size_t plain = 0;  // what precedes i and is not yet written
  for (std::size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    const std::size_t length = c < 0x80 ? 1 : sequence_length(text.substr(i));
    if (length > 0 && c >= 0x20 && c != '"' && c != '\\') {
      i += length;
      continue;
    }
    out.append(text, plain, i - plain);
    plain = ++i;
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (c < 0x20) {
          out += c < 0x10 ? "\\u000" : "\\u001";
          out += "0123456789abcdef"[c & 15U];
        } else {
          out += "\xEF\xBF\xBD";
        }
    }
  }
  out.append(text, plain, text.size() - plain);
  out += '"';
}

void append_json_number(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  std::array<char, 32> digits{};
  // As a float where it is one: 0.1F is 0.1, not 0.10000000149011612.
  const auto as_float = static_cast<float>(value);
  const auto result = static_cast<double>(as_float) == value
                          ? std::to_chars(digits.data(), digits.data() + digits.size(), as_float)
                          : std::to_chars(digits.data(), digits.data() + digits.size(), value);
  out.append(digits.data(), result.ptr);
}

const char* type_name(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "an array";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::boolean:
      return "a boolean";
    default:
      return "a number";
  }
}

std::optional<std::int64_t> as_integer(const Json& value, std::int64_t low, std::int64_t high) {
  std::int64_t number = 0;
  if (value.is_number_unsigned()) {
    const auto large = value.get<std::uint64_t>();
    if (large > static_cast<std::uint64_t>(INT64_MAX)) return std::nullopt;
    number = static_cast<std::int64_t>(large);
  } else if (value.is_number_integer()) {
    number = value.get<std::int64_t>();
  } else if (value.is_number_float()) {
    const auto real = value.get<double>();
    if (!(std::abs(real) < 9.0e15) || real != std::floor(real)) return std::nullopt;
    number = static_cast<std::int64_t>(real);
  } else {
    return std::nullopt;
  }
  if (number < low || number > high) return std::nullopt;
  return number;
}

Reader::Reader(const Json& object, std::string prefix) : object_(object), prefix_(std::move(prefix)) {}

void Reader::fail(ApiError error) {
  if (!error_) error_ = std::move(error);
}

const Json* Reader::find(const char* name) {
  read_.emplace_back(name);
  if (error_ || !object_.is_object()) return nullptr;
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

std::optional<bool> Reader::boolean(const char* name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  fail(name, std::string("must be true or false, not ") + type_name(*value));
  return std::nullopt;
}

std::optional<std::int64_t> Reader::integer(const char* name, std::int64_t low, std::int64_t high) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) {
    fail(name, std::string("must be an integer, not ") + type_name(*value));
    return std::nullopt;
  }
  const auto number = as_integer(*value, low, high);
  if (!number) {
    fail(name, "must be an integer between " + std::to_string(low) + " and " + std::to_string(high) + ", got " +
                   value->dump());
  }
  return number;
}

std::optional<float> Reader::number(const char* name, float low, float high, bool low_open) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) {
    fail(name, std::string("must be a number, not ") + type_name(*value));
    return std::nullopt;
  }
  const auto wide = value->get<double>();
  const auto number = static_cast<float>(wide);
  if (std::isfinite(number) && number <= high && (low_open ? number > low : number >= low)) return number;
  std::string range = low_open ? "must be greater than " : "must be at least ";
  append_json_number(range, static_cast<double>(low));
  range += " and at most ";
  append_json_number(range, static_cast<double>(high));
  fail(name, range + ", got " + value->dump());
  return std::nullopt;
}

std::optional<std::string> Reader::string(const char* name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  fail(name, std::string("must be a string, not ") + type_name(*value));
  return std::nullopt;
}

std::vector<std::string> Reader::unread() const {
  std::vector<std::string> names;
  if (!object_.is_object()) return names;
  for (const auto& [name, value] : object_.items()) {
    if (std::find(read_.begin(), read_.end(), name) == read_.end()) names.push_back(name);
  }
  return names;
}

}  // namespace penstock::openai
