#include "checkpoint/safetensors.h"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <optional>
#include <string_view>
#include <utility>

#include "base/mmap.h"
#include "checkpoint/text_util.h"

namespace penstock {
namespace {

constexpr std::size_t kLengthBytes = 8;                 // the header's length, u64 little-endian
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr std::size_t kMaxJsonDepth = 8;                // a header needs 3: file, tensor, shape

constexpr std::array kDTypes = {DType::kF32, DType::kF16, DType::kBF16, DType::kF64,  DType::kI8,     DType::kI16,
                                DType::kI32, DType::kI64, DType::kU8,   DType::kBool, DType::kF8E4M3, DType::kF8E5M2};
// Of the format, but nothing here reads them.
constexpr std::array<std::string_view, 9> kOtherDTypes = {"U16",     "U32",     "U64",     "C64",        "F4",
                                                          "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ"};

std::optional<DType> dtype_from(std::string_view name) {
  for (const DType dtype : kDTypes) {
    if (name == to_string(dtype)) return dtype;
  }
  return std::nullopt;
}

// Where a tensor's bytes lie, relative to the end of the header.
struct Extent {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::string_view name;  // key of the entry, which stays where it is
};

class Parser {
 public:
  explicit Parser(std::span<const std::byte> bytes) : bytes_(bytes) {}

  Status parse(std::unordered_map<std::string, SafetensorsEntry>* entries);

 private:
  Status find_header();
  Status add_metadata(const simdjson::dom::element& value) const;
  Status add_tensor(std::string_view name, const simdjson::dom::element& value,
                    std::unordered_map<std::string, SafetensorsEntry>* entries);
  Status read_dtype(std::string_view name, const simdjson::dom::element& value, SafetensorsEntry* entry) const;
  Status read_shape(std::string_view name, const simdjson::dom::element& value, SafetensorsEntry* entry) const;
  Status read_offsets(std::string_view name, const simdjson::dom::element& value, Extent* extent) const;
  Status check_layout();

  std::span<const std::byte> bytes_;
  std::string_view header_;
  std::span<const std::byte> data_;
  std::vector<Extent> extents_;
};

Status Parser::find_header() {
  if (bytes_.size() < kLengthBytes) {
    return corrupt("too short to be a safetensors file: " + std::to_string(bytes_.size()) + " bytes");
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) {
    length |= static_cast<std::uint64_t>(std::to_integer<unsigned char>(bytes_[i])) << (8 * i);
  }
  if (length > kMaxHeaderBytes) {
    return corrupt("the header claims " + std::to_string(length) + " bytes; at most " +
                   std::to_string(kMaxHeaderBytes) + " are allowed. Is this a safetensors file?");
  }
  const std::size_t rest = bytes_.size() - kLengthBytes;
  if (length > rest) {
    return corrupt("the header claims " + std::to_string(length) + " bytes, but only " + std::to_string(rest) +
                   " follow: the file is truncated");
  }
  header_ = {reinterpret_cast<const char*>(bytes_.data()) + kLengthBytes, static_cast<std::size_t>(length)};
  data_ = bytes_.subspan(kLengthBytes + static_cast<std::size_t>(length));
  if (header_.empty() || header_.front() != '{') return corrupt("the header is not a JSON object");
  return {};
}

Status Parser::add_metadata(const simdjson::dom::element& value) const {
  if (!value.is_object()) return corrupt("__metadata__ is not an object");
  for (const auto field : simdjson::dom::object(value)) {
    if (!field.value.is_string()) return corrupt("__metadata__ " + in_quotes(field.key) + " is not a string");
  }
  return {};
}

Status Parser::read_dtype(std::string_view name, const simdjson::dom::element& value, SafetensorsEntry* entry) const {
  std::string_view text;
  if (value.get_string().get(text) != simdjson::SUCCESS) {
    return corrupt("tensor " + in_quotes(name) + ": dtype is not a string");
  }
  const std::optional<DType> dtype = dtype_from(text);
  if (!dtype) {
    const bool other = std::find(kOtherDTypes.begin(), kOtherDTypes.end(), text) != kOtherDTypes.end();
    const std::string message = "tensor " + in_quotes(name) + ": dtype " + in_quotes(text);
    return other ? unsupported(message + " is not supported") : corrupt(message + " is unknown");
  }
  entry->dtype = *dtype;
  return {};
}

Status Parser::read_shape(std::string_view name, const simdjson::dom::element& value, SafetensorsEntry* entry) const {
  if (!value.is_array()) return corrupt("tensor " + in_quotes(name) + ": shape is not an array");
  for (const simdjson::dom::element size : simdjson::dom::array(value)) {
    std::int64_t number = 0;
    if (size.get_int64().get(number) != simdjson::SUCCESS || number < 0) {
      return corrupt("tensor " + in_quotes(name) + ": shape holds something that is not a non-negative integer");
    }
    entry->shape.push_back(number);
  }
  return {};
}

Status Parser::read_offsets(std::string_view name, const simdjson::dom::element& value, Extent* extent) const {
  const Status bad = corrupt("tensor " + in_quotes(name) + ": data_offsets is not a pair of non-negative integers");
  if (!value.is_array()) return bad;
  const simdjson::dom::array array(value);
  if (array.size() != 2) return bad;
  if (array.at(0).get_uint64().get(extent->begin) != simdjson::SUCCESS ||
      array.at(1).get_uint64().get(extent->end) != simdjson::SUCCESS) {
    return bad;
  }
  std::string range = "[";  // appended: GCC 12 sees a false overlap in "[" + a temporary (its bug 105651)
  range.append(std::to_string(extent->begin)).append(", ").append(std::to_string(extent->end)).append("]");
  if (extent->begin > extent->end) {
    return corrupt("tensor " + in_quotes(name) + ": data_offsets " + range + " end before they begin");
  }
  if (extent->end > data_.size()) {
    return corrupt("tensor " + in_quotes(name) + ": data_offsets " + range + " lie outside the " +
                   std::to_string(data_.size()) + " bytes of data: the file is truncated or the header is wrong");
  }
  return {};
}

Status Parser::add_tensor(std::string_view name, const simdjson::dom::element& value,
                          std::unordered_map<std::string, SafetensorsEntry>* entries) {
  if (!value.is_object()) return corrupt("tensor " + in_quotes(name) + " is not described by an object");
  SafetensorsEntry entry;
  Extent extent;
  int dtypes = 0;
  int shapes = 0;
  int offsets = 0;
  for (const auto field : simdjson::dom::object(value)) {
    if (field.key == "dtype") {
      ++dtypes;
      PENSTOCK_RETURN_IF_ERROR(read_dtype(name, field.value, &entry));
    } else if (field.key == "shape") {
      if (++shapes == 1) PENSTOCK_RETURN_IF_ERROR(read_shape(name, field.value, &entry));
    } else if (field.key == "data_offsets") {
      ++offsets;
      PENSTOCK_RETURN_IF_ERROR(read_offsets(name, field.value, &extent));
    }
  }
  if (dtypes != 1 || shapes != 1 || offsets != 1) {
    return corrupt("tensor " + in_quotes(name) + " needs dtype, shape and data_offsets, each once");
  }

  std::uint64_t size_bytes = dtype_bytes(entry.dtype);
  for (const std::int64_t size : entry.shape) {
    if (__builtin_mul_overflow(size_bytes, static_cast<std::uint64_t>(size), &size_bytes)) {
      return corrupt("tensor " + in_quotes(name) + ": shape " + shape_text(entry.shape) + " overflows");
    }
  }
  if (size_bytes != extent.end - extent.begin) {
    return corrupt("tensor " + in_quotes(name) + ": " + to_string(entry.dtype) + " " + shape_text(entry.shape) +
                   " needs " + std::to_string(size_bytes) + " bytes, data_offsets give " +
                   std::to_string(extent.end - extent.begin));
  }
  entry.data = data_.subspan(static_cast<std::size_t>(extent.begin), static_cast<std::size_t>(size_bytes));
  const auto [at, added] = entries->emplace(std::string(name), std::move(entry));
  if (!added) return corrupt("tensor " + in_quotes(name) + " appears twice in the header");
  extent.name = at->first;
  extents_.push_back(extent);
  return {};
}

// The format wants the tensors to cover the data exactly, in whatever order: neither overlaps nor holes.
Status Parser::check_layout() {
  std::sort(extents_.begin(), extents_.end(),
            [](const Extent& a, const Extent& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });
  std::uint64_t covered = 0;
  std::string_view previous;
  for (const Extent& extent : extents_) {
    if (extent.begin < covered) {
      return corrupt("tensors " + in_quotes(previous) + " and " + in_quotes(extent.name) + " overlap");
    }
    if (extent.begin > covered) {
      return corrupt("a hole of " + std::to_string(extent.begin - covered) + " bytes before tensor " +
                     in_quotes(extent.name));
    }
    covered = extent.end;
    previous = extent.name;
  }
  if (covered != data_.size()) {
    return corrupt(std::to_string(data_.size() - covered) + " bytes after the last tensor belong to none");
  }
  return {};
}

Status Parser::parse(std::unordered_map<std::string, SafetensorsEntry>* entries) {
  PENSTOCK_RETURN_IF_ERROR(find_header());
  simdjson::dom::parser parser;
  if (parser.allocate(header_.size(), kMaxJsonDepth) != simdjson::SUCCESS) {
    return resource_exhausted("no memory to parse a header of " + std::to_string(header_.size()) + " bytes");
  }
  simdjson::dom::element root;
  const simdjson::padded_string padded(header_);  // the parser reads past the end
  if (const auto error = parser.parse(padded).get(root); error != simdjson::SUCCESS) {
    return corrupt(std::string("the header is not valid JSON: ") + simdjson::error_message(error));
  }
  if (!root.is_object()) return corrupt("the header is not a JSON object");

  bool metadata = false;
  for (const auto field : simdjson::dom::object(root)) {
    if (field.key == "__metadata__") {
      if (metadata) return corrupt("__metadata__ appears twice in the header");
      metadata = true;
      PENSTOCK_RETURN_IF_ERROR(add_metadata(field.value));
    } else {
      PENSTOCK_RETURN_IF_ERROR(add_tensor(field.key, field.value, entries));
    }
  }
  return check_layout();
}

class ParsedFile final : public SafetensorsFile {
 public:
  ParsedFile(std::unique_ptr<MappedFile> mapping, std::unordered_map<std::string, SafetensorsEntry> entries)
      : mapping_(std::move(mapping)), entries_(std::move(entries)) {}

  const std::unordered_map<std::string, SafetensorsEntry>& entries() const override { return entries_; }

 private:
  std::unique_ptr<MappedFile> mapping_;  // null: the bytes are the caller's
  std::unordered_map<std::string, SafetensorsEntry> entries_;
};

Expected<std::unique_ptr<SafetensorsFile>> parse_file(std::span<const std::byte> bytes, const std::string& label,
                                                      std::unique_ptr<MappedFile> mapping) {
  std::unordered_map<std::string, SafetensorsEntry> entries;
  try {
    const Status status = Parser(bytes).parse(&entries);
    if (!status.ok()) return status.with_context(label);
  } catch (const std::exception& error) {  // of simdjson or of an allocation
    return corrupt(label + ": cannot read the header: " + error.what());
  }
  return std::unique_ptr<SafetensorsFile>(std::make_unique<ParsedFile>(std::move(mapping), std::move(entries)));
}

}  // namespace

Expected<std::unique_ptr<SafetensorsFile>> SafetensorsFile::open(const std::filesystem::path& path) {
  PENSTOCK_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> mapping, MappedFile::open(path));
  const std::span<const std::byte> bytes = mapping->bytes();
  mapping->advise_sequential();
  return parse_file(bytes, path.string(), std::move(mapping));
}

Expected<std::unique_ptr<SafetensorsFile>> SafetensorsFile::parse(std::span<const std::byte> bytes,
                                                                  const std::string& label) {
  return parse_file(bytes, label, nullptr);
}

}  // namespace penstock
