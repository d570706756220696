#include "checkpoint/config_fields.h"

#include <cmath>
#include <sstream>

#include "base/mmap.h"
#include "checkpoint/text_util.h"

namespace penstock {
namespace {

std::string number_text(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

}  // namespace

const JsonValue* ConfigFields::find(std::string_view key) const {
  const JsonValue* value = object_->find(key);
  return value == nullptr || value->is(JsonValue::Kind::kNull) ? nullptr : value;
}

void ConfigFields::fail(Status status) const {
  if (status_->ok()) *status_ = std::move(status);
}

std::optional<std::int32_t> ConfigFields::to_integer(const JsonValue& value, const std::string& what,
                                                     std::int32_t least, std::int32_t most) const {
  if (value.is(JsonValue::Kind::kInteger) && value.integer >= least && value.integer <= most) {
    return static_cast<std::int32_t>(value.integer);
  }
  fail(invalid_argument(what + " must be an integer from " + std::to_string(least) + " to " + std::to_string(most) +
                        ", but is " + value.describe()));
  return std::nullopt;
}

std::optional<std::int32_t> ConfigFields::integer(std::string_view key, std::int32_t least, std::int32_t most) const {
  const JsonValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  return to_integer(*value, name(key), least, most);
}

std::int32_t ConfigFields::required_integer(std::string_view key, std::int32_t least, std::int32_t most) const {
  if (find(key) == nullptr) fail(invalid_argument(name(key) + " is missing"));
  return integer(key, least, most).value_or(least);
}

std::optional<double> ConfigFields::number(std::string_view key, double least, double most) const {
  const JsonValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  double number = std::nan("");
  if (value->is(JsonValue::Kind::kNumber)) number = value->number;
  if (value->is(JsonValue::Kind::kInteger)) number = static_cast<double>(value->integer);
  if (number >= least && number <= most) return number;
  fail(invalid_argument(name(key) + " must be a number from " + number_text(least) + " to " + number_text(most) +
                        ", but is " + value->describe()));
  return std::nullopt;
}

std::optional<bool> ConfigFields::boolean(std::string_view key) const {
  const JsonValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is(JsonValue::Kind::kBool)) return value->boolean;
  fail(invalid_argument(name(key) + " must be true or false, but is " + value->describe()));
  return std::nullopt;
}

std::optional<std::string> ConfigFields::string(std::string_view key) const {
  const JsonValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is(JsonValue::Kind::kString)) return value->string;
  fail(invalid_argument(name(key) + " must be a string, but is " + value->describe()));
  return std::nullopt;
}

std::optional<std::vector<std::int32_t>> ConfigFields::token_ids(std::string_view key, std::int32_t vocab_size) const {
  constexpr std::size_t kMostIds = 1024;
  const JsonValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  std::vector<std::int32_t> ids;
  if (!value->is(JsonValue::Kind::kArray)) {
    ids.push_back(to_integer(*value, name(key), 0, vocab_size - 1).value_or(0));
    return ids;
  }
  if (value->array.size() > kMostIds) {
    fail(invalid_argument(name(key) + " lists " + std::to_string(value->array.size()) + " ids, at most " +
                          std::to_string(kMostIds) + " are allowed"));
    return ids;
  }
  for (std::size_t i = 0; i < value->array.size(); ++i) {
    const std::string what = name(key) + "[" + std::to_string(i) + "]";
    ids.push_back(to_integer(value->array[i], what, 0, vocab_size - 1).value_or(0));
  }
  return ids;
}

Expected<std::string> read_text_file(const std::filesystem::path& path, std::int64_t max_bytes) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file, MappedFile::open(path));
  const std::span<const std::byte> bytes = file->bytes();
  if (bytes.size() > static_cast<std::size_t>(max_bytes)) {
    return invalid_argument(path.string() + " has " + std::to_string(bytes.size()) + " bytes, at most " +
                            std::to_string(max_bytes) + " are read");
  }
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::string quantization_advice() {
  return "quantised weights come with a later version; use the model's BF16, F16 or F32 checkpoint";
}

namespace {

// "fp8 (e4m3)", "compressed-tensors (nvfp4-pack-quantized)", "modelopt (NVFP4)", "gptq (4 bits)".
std::string method_of(const JsonValue& quantization) {
  std::string method = "an unnamed method";
  if (const JsonValue* value = quantization.find("quant_method"); value != nullptr && !value->string.empty()) {
    method = in_quotes(value->string);
  }
  for (const char* key : {"quant_algo", "format", "fmt"}) {
    const JsonValue* value = quantization.find(key);
    if (value != nullptr && value->is(JsonValue::Kind::kString)) return method + " (" + in_quotes(value->string) + ")";
  }
  for (const char* key : {"bits", "w_bit"}) {
    const JsonValue* value = quantization.find(key);
    if (value != nullptr && value->is(JsonValue::Kind::kInteger)) return method + " (" + value->string + " bits)";
  }
  return method;
}

}  // namespace

Status check_not_quantized(const JsonValue& config, const std::string& prefix) {
  for (const char* key : {"quantization_config", "compression_config"}) {
    const JsonValue* value = config.find(key);
    if (value == nullptr || value->is(JsonValue::Kind::kNull)) continue;
    return unsupported(prefix + key + ": the weights are quantised with " + method_of(*value) + "; " +
                       quantization_advice());
  }
  return {};
}

Status check_no_quantization_file(const std::filesystem::path& dir) {
  constexpr std::int64_t kMaxBytes = std::int64_t{16} << 20;
  const std::filesystem::path path = dir / "hf_quant_config.json";
  const Expected<std::string> text = read_text_file(path, kMaxBytes);
  if (!text.ok()) return text.status().code() == StatusCode::kNotFound ? Status() : text.status();
  const Expected<JsonValue> json = parse_json(*text);
  if (!json.ok()) return json.status().with_context(path.string());
  std::string algorithm = "an unnamed method";
  if (const JsonValue* quantization = json->find("quantization")) {
    const JsonValue* value = quantization->find("quant_algo");
    if (value != nullptr && value->is(JsonValue::Kind::kNull)) return {};  // "not quantised", said at length
    if (value != nullptr && value->is(JsonValue::Kind::kString)) algorithm = in_quotes(value->string);
  }
  return unsupported(path.string() + ": the weights are quantised by ModelOpt with " + algorithm + "; " +
                     quantization_advice());
}

}  // namespace penstock
