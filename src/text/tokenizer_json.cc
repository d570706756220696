#include "text/tokenizer_json.h"

#include <algorithm>
#include <unordered_map>

#include "base/check.h"

namespace penstock {
namespace tokenizer_json {
namespace {

using simdjson::dom::element;
using simdjson::dom::element_type;

constexpr std::size_t kMaxContent_bytes = 256;  // of an added token: bounds the work at each character of a text

// A part with a "type": null and absent give an empty name.
Expected<std::string_view> type_of(element part, const std::string& where) {
  simdjson::dom::object object;
  if (part.get(object) != simdjson::SUCCESS) return wrong_type(where, "an object or null", part);
  element type;
  if (object.at_key("type").get(type) != simdjson::SUCCESS) return corrupt(where + " has no \"type\"");
  std::string_view name;
  if (type.get(name) != simdjson::SUCCESS) return wrong_type(where + ".type", "a string", type);
  return name;
}

Status unknown_type(const std::string& where, std::string_view type, std::string_view known) {
  return unsupported(where + ": type \"" + std::string(type) + "\" is not supported; known is " + std::string(known));
}

// The elements of `where`, an array, each with its path.
template <typename Body>
Status for_each(element list, const std::string& where, Body&& body) {
  simdjson::dom::array array;
  if (list.get(array) != simdjson::SUCCESS) return wrong_type(where, "an array", list);
  std::size_t i = 0;
  for (const element item : array) PENSTOCK_RETURN_IF_ERROR(body(item, where + "[" + std::to_string(i++) + "]"));
  return {};
}

Status read_added_token(element item, const std::string& where, TokenizerParts& parts) {
  PENSTOCK_ASSIGN_OR_RETURN(
      const Fields fields,
      Fields::read(item, where, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}));
  if (!fields.has("id")) return corrupt(where + " has no \"id\"");
  AddedToken token;
  PENSTOCK_ASSIGN_OR_RETURN(token.id, read_id(fields.get("id"), [&] { return fields.path("id"); }));
  PENSTOCK_ASSIGN_OR_RETURN(const std::string_view content, fields.string("content"));
  if (content.empty()) return corrupt(fields.path("content") + " is empty");
  if (content.size() > kMaxContent_bytes)
    return unsupported(fields.path("content") + " has " + std::to_string(content.size()) + " bytes; at most " +
                       std::to_string(kMaxContent_bytes) + " are allowed");
  token.content = content;
  for (const std::string_view flag : {"single_word", "lstrip", "rstrip"})
    PENSTOCK_RETURN_IF_ERROR(fields.require(flag, false, false));
  PENSTOCK_ASSIGN_OR_RETURN(token.special, fields.boolean("special", false));
  PENSTOCK_RETURN_IF_ERROR(fields.require("normalized", false, !token.special));
  parts.added.push_back(std::move(token));
  return {};
}

Status read_added_tokens(element list, TokenizerParts& parts) {
  std::unordered_map<std::string_view, std::size_t> by_content;
  std::unordered_map<std::int32_t, std::size_t> by_id;
  PENSTOCK_RETURN_IF_ERROR(for_each(list, "added_tokens", [&](element item, const std::string& where) {
    return read_added_token(item, where, parts);
  }));
  for (std::size_t i = 0; i < parts.added.size(); ++i) {
    const AddedToken& token = parts.added[i];
    const std::string where = "added_tokens[" + std::to_string(i) + "]";
    if (const auto [other, is_new] = by_content.emplace(token.content, i); !is_new)
      return corrupt(where + " repeats the content \"" + token.content + "\" of added_tokens[" +
                     std::to_string(other->second) + "]");
    if (const auto [other, is_new] = by_id.emplace(token.id, i); !is_new)
      return corrupt(where + " repeats the id " + std::to_string(token.id) + " of added_tokens[" +
                     std::to_string(other->second) + "]");
  }
  return {};
}

Status read_normalizer(element part, const std::string& where, TokenizerParts& parts) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::string_view type, type_of(part, where));
  if (type == "NFC") {
    parts.nfc = true;
    return Fields::read(part, where, {"type"}).status();
  }
  if (type != "Sequence" || where != "normalizer") return unknown_type(where, type, "NFC");
  PENSTOCK_ASSIGN_OR_RETURN(const Fields fields, Fields::read(part, where, {"type", "normalizers"}));
  if (!fields.has("normalizers")) return corrupt(where + " has no \"normalizers\"");
  return for_each(fields.get("normalizers"), fields.path("normalizers"),
                  [&](element item, const std::string& path) { return read_normalizer(item, path, parts); });
}

Status read_split(element part, const std::string& where, TokenizerParts& parts) {
  PENSTOCK_ASSIGN_OR_RETURN(const Fields fields, Fields::read(part, where, {"type", "pattern", "behavior", "invert"}));
  PENSTOCK_ASSIGN_OR_RETURN(const std::string_view behavior, fields.string("behavior"));
  if (behavior != "Isolated")
    return unsupported(fields.path("behavior") + " \"" + std::string(behavior) + "\": only Isolated is supported");
  PENSTOCK_RETURN_IF_ERROR(fields.require("invert", false, false));
  if (!fields.has("pattern")) return corrupt(where + " has no \"pattern\"");
  PENSTOCK_ASSIGN_OR_RETURN(const Fields pattern,
                            Fields::read(fields.get("pattern"), fields.path("pattern"), {"Regex", "String"}));
  if (pattern.has("Regex") == pattern.has("String"))
    return corrupt(pattern.where() + " must have either \"Regex\" or \"String\"");
  SplitRule rule;
  rule.literal = pattern.has("String");
  PENSTOCK_ASSIGN_OR_RETURN(rule.pattern, pattern.string(rule.literal ? "String" : "Regex"));
  parts.splits.push_back(std::move(rule));
  return {};
}

// In any of the three places it can stand in. Only as a pre-tokeniser do its settings change ids.
Status read_byte_level(element part, const std::string& where, bool is_pretokenizer) {
  PENSTOCK_ASSIGN_OR_RETURN(const Fields fields,
                            Fields::read(part, where, {"type", "add_prefix_space", "trim_offsets", "use_regex"}));
  for (const std::string_view flag : {"add_prefix_space", "trim_offsets", "use_regex"})
    PENSTOCK_RETURN_IF_ERROR(fields.boolean(flag, true).status());
  if (!is_pretokenizer) return {};
  PENSTOCK_RETURN_IF_ERROR(fields.require("add_prefix_space", false, true));
  return fields.require("use_regex", false, true);
}

Status read_pretokenizer(element part, TokenizerParts& parts) {
  const std::string where = "pre_tokenizer";
  bool byte_level = false;  // has been seen
  const auto read_step = [&](element step, const std::string& path) -> Status {
    PENSTOCK_ASSIGN_OR_RETURN(const std::string_view type, type_of(step, path));
    if (byte_level) return unsupported(path + ": nothing is supported after ByteLevel");
    if (type == "Split") return read_split(step, path, parts);
    if (type != "ByteLevel") return unknown_type(path, type, "Split, ByteLevel");
    byte_level = true;
    return read_byte_level(step, path, true);
  };
  PENSTOCK_ASSIGN_OR_RETURN(const std::string_view type, type_of(part, where));
  if (type == "Sequence") {
    PENSTOCK_ASSIGN_OR_RETURN(const Fields fields, Fields::read(part, where, {"type", "pretokenizers"}));
    if (!fields.has("pretokenizers")) return corrupt(where + " has no \"pretokenizers\"");
    PENSTOCK_RETURN_IF_ERROR(for_each(fields.get("pretokenizers"), fields.path("pretokenizers"), read_step));
  } else {
    PENSTOCK_RETURN_IF_ERROR(read_step(part, where));
  }
  if (!byte_level) return unsupported(where + " has no ByteLevel step: only byte-level tokenisers are supported");
  return {};
}

Status read_root(element root, TokenizerParts& parts) {
  PENSTOCK_ASSIGN_OR_RETURN(const Fields fields,
                            Fields::read(root, "",
                                         {"version", "truncation", "padding", "added_tokens", "normalizer",
                                          "pre_tokenizer", "post_processor", "decoder", "model"}));
  if (fields.has("version")) {
    PENSTOCK_ASSIGN_OR_RETURN(const std::string_view version, fields.string("version"));
    if (version != "1.0") return unsupported("version \"" + std::string(version) + "\": only 1.0 is known");
  }
  for (const std::string_view part : {"truncation", "padding"})
    if (fields.has(part)) return unsupported(std::string(part) + " is not supported; set it to null");
  if (!fields.has("model")) return corrupt("there is no \"model\"");
  PENSTOCK_ASSIGN_OR_RETURN(const std::string_view model, type_of(fields.get("model"), "model"));
  if (model != "BPE") return unknown_type("model", model, "BPE");
  if (fields.has("added_tokens")) PENSTOCK_RETURN_IF_ERROR(read_added_tokens(fields.get("added_tokens"), parts));
  if (fields.has("normalizer"))
    PENSTOCK_RETURN_IF_ERROR(read_normalizer(fields.get("normalizer"), "normalizer", parts));
  if (!fields.has("pre_tokenizer"))
    return unsupported("pre_tokenizer is missing or null: only byte-level tokenisers are supported");
  PENSTOCK_RETURN_IF_ERROR(read_pretokenizer(fields.get("pre_tokenizer"), parts));
  if (!fields.has("decoder")) return unsupported("decoder is missing or null: only ByteLevel is supported");
  for (const std::string_view name : {"post_processor", "decoder"}) {
    if (!fields.has(name)) continue;
    PENSTOCK_ASSIGN_OR_RETURN(const std::string_view type, type_of(fields.get(name), std::string(name)));
    if (type != "ByteLevel") return unknown_type(std::string(name), type, "ByteLevel");
    PENSTOCK_RETURN_IF_ERROR(read_byte_level(fields.get(name), std::string(name), false));
  }
  return read_model(fields.get("model"), parts);
}

}  // namespace

const char* type_name(element value) {
  switch (value.type()) {
    case element_type::ARRAY:
      return "an array";
    case element_type::OBJECT:
      return "an object";
    case element_type::INT64:
    case element_type::UINT64:
      return "an integer";
    case element_type::DOUBLE:
      return "a fraction";
    case element_type::STRING:
      return "a string";
    case element_type::BOOL:
      return "a boolean";
    case element_type::NULL_VALUE:
      return "null";
  }
  return "something else";
}

Status wrong_type(std::string_view where, std::string_view wanted, element got) {
  return corrupt((where.empty() ? "the file" : std::string(where)) + " must be " + std::string(wanted) + ", not " +
                 type_name(got));
}

Expected<Fields> Fields::read(element value, std::string where, std::initializer_list<std::string_view> known) {
  simdjson::dom::object object;
  if (value.get(object) != simdjson::SUCCESS) return wrong_type(where, "an object", value);
  Fields result;
  result.where_ = std::move(where);
  for (const auto& [key, member] : object) {
    const std::string_view name = key;
    if (std::find(known.begin(), known.end(), name) == known.end())
      return unsupported(result.path(name.substr(0, 100)) + " is not a known field");
    for (const auto& [earlier, _] : result.fields_)
      if (earlier == name) return corrupt(result.path(name) + " is given twice");
    result.fields_.emplace_back(name, member);
  }
  return result;
}

bool Fields::has(std::string_view name) const {
  return std::any_of(fields_.begin(), fields_.end(),
                     [name](const auto& field) { return field.first == name && !field.second.is_null(); });
}

element Fields::get(std::string_view name) const {
  for (const auto& [key, value] : fields_)
    if (key == name) return value;
  CHECK_MSG(false, "a field that is not there");
}

Expected<std::string_view> Fields::string(std::string_view name) const {
  if (!has(name)) return corrupt(path(name) + " is missing");
  std::string_view text;
  if (get(name).get(text) != simdjson::SUCCESS) return wrong_type(path(name), "a string", get(name));
  return text;
}

Expected<bool> Fields::boolean(std::string_view name, bool otherwise) const {
  if (!has(name)) return otherwise;
  bool value = false;
  if (get(name).get(value) != simdjson::SUCCESS) return wrong_type(path(name), "true or false", get(name));
  return value;
}

Status Fields::require(std::string_view name, bool only, bool when_absent) const {
  PENSTOCK_ASSIGN_OR_RETURN(const bool value, boolean(name, when_absent));
  if (value == only) return {};
  return unsupported(path(name) + (value ? " true" : " false") + (has(name) ? "" : " (the default)") +
                     " is not supported");
}

}  // namespace tokenizer_json

Expected<TokenizerParts> read_tokenizer_json(const simdjson::padded_string& json) {
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  if (const auto error = parser.parse(json).get(root); error != simdjson::SUCCESS)
    return corrupt(std::string("not valid JSON: ") + simdjson::error_message(error));
  TokenizerParts parts;
  PENSTOCK_RETURN_IF_ERROR(tokenizer_json::read_root(root, parts));
  return parts;
}

}  // namespace penstock
