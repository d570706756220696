#include "checkpoint/json_value.h"

#include <cstddef>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "checkpoint/text_util.h"

namespace penstock {
namespace {

constexpr std::size_t kMaxDepth = 32;

// Builds a JsonValue from the parser's events. Recursion-free, as the parser is.
class Builder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  JsonValue root;
  Status status;

  bool null() override { return put({}); }
  bool boolean(bool value) override {
    JsonValue out;
    out.kind = JsonValue::Kind::kBool;
    out.boolean = value;
    return put(std::move(out));
  }
  bool number_integer(number_integer_t value) override {
    JsonValue out;
    out.kind = JsonValue::Kind::kInteger;
    out.integer = value;
    out.string = std::to_string(value);
    return put(std::move(out));
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (value <= static_cast<number_unsigned_t>(INT64_MAX)) return number_integer(static_cast<std::int64_t>(value));
    return number_float(static_cast<double>(value), std::to_string(value));
  }
  bool number_float(number_float_t value, const string_t& spelling) override {
    JsonValue out;
    out.kind = JsonValue::Kind::kNumber;
    out.number = value;
    out.string = spelling;
    return put(std::move(out));
  }
  bool string(string_t& value) override {
    JsonValue out;
    out.kind = JsonValue::Kind::kString;
    out.string = std::move(value);
    return put(std::move(out));
  }
  bool binary(binary_t& /*value*/) override { return fail("binary data"); }

  bool start_object(std::size_t /*elements*/) override { return open(JsonValue::Kind::kObject); }
  bool start_array(std::size_t /*elements*/) override { return open(JsonValue::Kind::kArray); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    Level& level = levels_.back();
    const bool fresh = level.names.insert(name).second;
    level.key = std::move(name);
    return fresh || fail("is given twice");
  }

  bool parse_error(std::size_t position, const std::string& token, const nlohmann::detail::exception& error) override {
    if (error.id == 406) return fail("is a number too large: " + in_quotes(token));
    return fail("not valid JSON near byte " + std::to_string(position) + " (" + in_quotes(token) +
                "); numbers must be finite, text quoted, lists without trailing commas");
  }

 private:
  struct Level {
    JsonValue value;
    std::string key;                        // of an object: the member being read
    std::unordered_set<std::string> names;  // of an object: the members so far
  };

  std::string path() const {
    std::string out;
    for (const Level& level : levels_) {
      if (level.value.is(JsonValue::Kind::kArray)) {
        out.append("[").append(std::to_string(level.value.array.size())).append("]");
      } else if (!level.key.empty()) {
        out += (out.empty() ? "" : ".") + level.key;
      }
    }
    return out;
  }

  bool fail(const std::string& what) {
    if (status.ok()) {
      const std::string where = path();
      status = corrupt(where.empty() ? what : in_quotes(where) + " " + what);
    }
    return false;
  }

  bool open(JsonValue::Kind kind) {
    if (levels_.size() >= kMaxDepth) return fail("is nested deeper than " + std::to_string(kMaxDepth) + " levels");
    levels_.emplace_back();
    levels_.back().value.kind = kind;
    return true;
  }

  bool close() {
    JsonValue value = std::move(levels_.back().value);
    levels_.pop_back();
    return put(std::move(value));
  }

  bool put(JsonValue value) {
    if (levels_.empty()) {
      root = std::move(value);
    } else if (levels_.back().value.is(JsonValue::Kind::kArray)) {
      levels_.back().value.array.push_back(std::move(value));
    } else {
      levels_.back().value.object.push_back({std::move(levels_.back().key), std::move(value)});
      levels_.back().key.clear();
    }
    return true;
  }

  std::vector<Level> levels_;
};

}  // namespace

const JsonValue* JsonValue::find(std::string_view key) const {
  for (const auto& [name, value] : object) {
    if (name == key) return &value;
  }
  return nullptr;
}

std::string JsonValue::describe() const {
  switch (kind) {
    case Kind::kNull:
      return "null";
    case Kind::kBool:
      return boolean ? "true" : "false";
    case Kind::kInteger:
    case Kind::kNumber:
      return "the number " + string;
    case Kind::kString:
      return "the string " + in_quotes(string);
    case Kind::kArray:
      return "a list";
    case Kind::kObject:
      return "an object";
  }
  return "?";
}

Expected<JsonValue> parse_json(std::string_view text) {
  Builder builder;
  try {
    const bool done = nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
    if (!builder.status.ok()) return builder.status;
    if (!done) return corrupt("not valid JSON");
  } catch (const std::exception& error) {  // out of memory
    return corrupt(std::string("cannot parse JSON: ") + error.what());
  }
  return std::move(builder.root);
}

}  // namespace penstock
