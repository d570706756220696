// Members of a JSON object read as numbers of known range. The first thing wrong is kept; later reads do nothing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/json_value.h"
#include "penstock/status.h"

namespace penstock {

class ConfigFields {
 public:
  // `prefix` goes before a member's name in messages: "text_config.". Object and status must outlive this.
  ConfigFields(const JsonValue& object, std::string prefix, Status* status)
      : object_(&object), prefix_(std::move(prefix)), status_(status) {}

  // null where the member is absent or null, which mean the same.
  const JsonValue* find(std::string_view key) const;
  std::string name(std::string_view key) const { return prefix_ + std::string(key); }
  void fail(Status status) const;

  std::optional<std::int32_t> integer(std::string_view key, std::int32_t least, std::int32_t most) const;
  std::int32_t required_integer(std::string_view key, std::int32_t least, std::int32_t most) const;
  std::optional<double> number(std::string_view key, double least, double most) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string> string(std::string_view key) const;
  // A token id, or a list of them, each in [0, vocab_size); nothing where absent or null.
  std::optional<std::vector<std::int32_t>> token_ids(std::string_view key, std::int32_t vocab_size) const;

 private:
  std::optional<std::int32_t> to_integer(const JsonValue& value, const std::string& what, std::int32_t least,
                                         std::int32_t most) const;

  const JsonValue* object_;
  std::string prefix_;
  Status* status_;
};

// The whole of a small text file.
Expected<std::string> read_text_file(const std::filesystem::path& path, std::int64_t max_bytes);

// kUnsupported if `config` (config.json, or its text_config) has a quantization_config, naming the method.
Status check_not_quantized(const JsonValue& config, const std::string& prefix);
// The same for ModelOpt's hf_quant_config.json, if `dir` has one.
Status check_no_quantization_file(const std::filesystem::path& dir);
// What to say after the method.
std::string quantization_advice();

}  // namespace penstock
