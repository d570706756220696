#include "checkpoint/tensor_index.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "checkpoint/config_fields.h"
#include "checkpoint/json_value.h"
#include "checkpoint/text_util.h"

namespace penstock {
namespace {

constexpr std::int64_t kMaxIndexBytes = std::int64_t{100} << 20;
constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

// Tensors that go with quantised weights, the telling ones first.
constexpr std::array<std::pair<std::string_view, std::string_view>, 14> kCompanions = {{
    {".weight_scale_inv", "FP8 with block scales"},
    {".weight_scale_2", "NVFP4 (ModelOpt)"},
    {".weight_global_scale", "NVFP4 (compressed-tensors)"},
    {".g_idx", "GPTQ"},
    {".qweight", "AWQ or GPTQ"},
    {".qzeros", "AWQ or GPTQ"},
    {".weight_packed", "compressed-tensors packed integers"},
    {".weight_shape", "compressed-tensors packed integers"},
    {".weight_scale", "FP8 with scales per tensor or channel"},
    {".weight_zero_point", "compressed-tensors integers"},
    {".weight.absmax", "bitsandbytes"},
    {".SCB", "bitsandbytes"},
    {"_scales", "MXFP4"},
    {".scales", "MLX or GPTQ"},
}};

// A shard must lie in the directory itself. Links are followed: downloads are often links into a cache.
Status check_shard_name(const std::string& name) {
  const bool plain = !name.empty() && name != "." && name != ".." && std::none_of(name.begin(), name.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return c == '/' || c == '\\' || byte < 0x20 || byte == 0x7F;
  });
  if (!plain) {
    return invalid_argument("the shard name " + in_quotes(name) +
                            " is not a plain file name; shards must lie beside the index");
  }
  if (!name.ends_with(".safetensors")) {
    return unsupported("the shard " + in_quotes(name) + " is not a .safetensors file");
  }
  return {};
}

Status no_weights(const std::filesystem::path& dir) {
  std::string found;
  std::error_code error;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    const std::string extension = it->path().extension().string();
    for (const char* other : {".gguf", ".bin", ".pt", ".pth", ".safetensors"}) {
      if (extension == other) found = it->path().filename().string();
    }
  }
  return not_found("no weights in " + dir.string() + ": neither " + kSingleFile + " nor " + kIndexFile +
                   (found.empty() ? "" : " (there is " + in_quotes(found) + ", which cannot be read alone)"));
}

bool is_there(const std::filesystem::path& path) {
  std::error_code error;  // an unreadable directory shows when the file is opened
  return std::filesystem::exists(std::filesystem::symlink_status(path, error));
}

}  // namespace

TensorRole classify_tensor(const std::string& disk_name, std::string* canonical) {
  *canonical = disk_name;
  const std::string_view name = disk_name;
  if (name.starts_with("model.visual.") || name.starts_with("visual.")) return TensorRole::kSkipped;
  if (name.ends_with("rotary_emb.inv_freq")) return TensorRole::kSkipped;
  if (name.starts_with("mtp.") || name.starts_with("lm_head.")) return TensorRole::kText;

  constexpr std::string_view kOuter = "model.";
  constexpr std::string_view kNested = "model.language_model.";
  *canonical = "?" + disk_name;  // never taken for a canonical name
  if (!name.starts_with(kOuter)) return TensorRole::kUnknown;
  const bool nested = name.starts_with(kNested);
  const std::string_view rest = name.substr(nested ? kNested.size() : kOuter.size());
  const bool trunk = rest.starts_with("layers.") || rest.starts_with("embed_tokens.") || rest.starts_with("norm.");
  if (!trunk && (nested || !(rest.starts_with("mtp.") || rest.starts_with("lm_head.")))) return TensorRole::kUnknown;
  *canonical = rest;
  return TensorRole::kText;
}

Status TensorIndex::add_file(std::unique_ptr<SafetensorsFile> file, const std::string& name) {
  std::vector<const std::pair<const std::string, SafetensorsEntry>*> entries;
  for (const auto& item : file->entries()) entries.push_back(&item);
  std::sort(entries.begin(), entries.end(), [](const auto* a, const auto* b) { return a->first < b->first; });
  for (const auto* item : entries) {
    IndexedTensor tensor = {&item->second, item->first, name, TensorRole::kText};
    std::string canonical;
    tensor.role = classify_tensor(tensor.disk_name, &canonical);
    nested_names_ = nested_names_ || tensor.disk_name.starts_with("model.language_model.");
    const auto [at, added] = tensors_.emplace(canonical, tensor);
    if (added) continue;
    const IndexedTensor& other = at->second;
    if (other.disk_name == tensor.disk_name) {
      return corrupt("tensor " + in_quotes(tensor.disk_name) + " is both in " + other.file + " and in " + name +
                     "; remove one of the files");
    }
    return corrupt("tensors " + in_quotes(other.disk_name) + " in " + other.file + " and " +
                   in_quotes(tensor.disk_name) + " in " + name + " are the same weight under two names");
  }
  files_.emplace(name, std::move(file));
  return {};
}

Status TensorIndex::open_file(const std::filesystem::path& dir, const std::string& name) {
  PENSTOCK_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file, SafetensorsFile::open(dir / name));
  return add_file(std::move(file), name).with_context(dir.string());
}

Status TensorIndex::open_shards(const std::filesystem::path& dir, const std::filesystem::path& index_path) {
  const std::string label = index_path.string();
  PENSTOCK_ASSIGN_OR_RETURN(const std::string text, read_text_file(index_path, kMaxIndexBytes));
  const Expected<JsonValue> root = parse_json(text);
  if (!root.ok()) return root.status().with_context(label);
  const JsonValue* map = root->find("weight_map");
  if (map == nullptr || !map->is(JsonValue::Kind::kObject)) {
    return corrupt(label + ": weight_map must be an object of tensor names and file names");
  }
  std::set<std::string> shards;  // in order, so that errors do not depend on hashing
  for (const auto& [name, shard] : map->object) {
    if (!shard.is(JsonValue::Kind::kString)) {
      return corrupt(label + ": weight_map " + in_quotes(name) + " must be a file name, but is " + shard.describe());
    }
    shards.insert(shard.string);
  }
  if (shards.empty()) return corrupt(label + ": weight_map is empty");
  for (const std::string& shard : shards) {
    if (const Status status = check_shard_name(shard); !status.ok()) return status.with_context(label);
    const Status status = open_file(dir, shard);
    if (status.code() == StatusCode::kNotFound) {
      return not_found("shard " + in_quotes(shard) + " is missing from " + dir.string() + ", but " + kIndexFile +
                       " needs it: is the download complete?");
    }
    PENSTOCK_RETURN_IF_ERROR(status);
  }
  for (const auto& [name, shard] : map->object) {
    const auto file = files_.find(shard.string);
    if (file == files_.end() || !file->second->entries().contains(name)) {
      return corrupt(label + ": tensor " + in_quotes(name) + " is said to be in " + shard.string + ", but is not");
    }
  }
  return {};
}

Status TensorIndex::open_strays(const std::filesystem::path& dir) {
  std::set<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.ends_with(".safetensors") && !files_.contains(name)) names.insert(name);
  }
  if (error) return invalid_argument("cannot list " + dir.string() + ": " + error.message());
  for (const std::string& name : names) {
    Expected<std::unique_ptr<SafetensorsFile>> file = SafetensorsFile::open(dir / name);
    if (!file.ok()) return file.status().with_context("beside the model's own files");
    const auto& entries = (*file)->entries();
    const bool ours = std::any_of(entries.begin(), entries.end(), [](const auto& item) {
      std::string canonical;
      return classify_tensor(item.first, &canonical) != TensorRole::kUnknown;
    });
    if (ours) PENSTOCK_RETURN_IF_ERROR(add_file(*std::move(file), name).with_context(dir.string()));
  }
  return {};
}

Expected<TensorIndex> TensorIndex::open(const std::filesystem::path& dir) {
  TensorIndex out;
  if (is_there(dir / kIndexFile)) {
    PENSTOCK_RETURN_IF_ERROR(out.open_shards(dir, dir / kIndexFile));
  } else if (is_there(dir / kSingleFile)) {
    PENSTOCK_RETURN_IF_ERROR(out.open_file(dir, kSingleFile));
  } else {
    return no_weights(dir);
  }
  PENSTOCK_RETURN_IF_ERROR(out.open_strays(dir));
  return out;
}

Status TensorIndex::check_not_quantized() const {
  const IndexedTensor* found = nullptr;
  std::size_t best = kCompanions.size();
  for (const auto& [canonical, tensor] : tensors_) {
    if (tensor.role == TensorRole::kSkipped) continue;
    for (std::size_t i = 0; i < kCompanions.size() && i <= best; ++i) {
      if (!canonical.ends_with(kCompanions[i].first)) continue;
      if (i < best || tensor.disk_name < found->disk_name) {
        best = i;
        found = &tensor;
      }
      break;
    }
  }
  if (found == nullptr) return {};
  return unsupported("tensor " + in_quotes(found->disk_name) + " in " + found->file + " shows weights quantised with " +
                     std::string(kCompanions[best].second) + "; " + quantization_advice());
}

std::string TensorIndex::spelled(const std::string& canonical) const {
  if (canonical.starts_with("mtp.") || canonical.starts_with("lm_head.")) return canonical;
  return (nested_names_ ? "model.language_model." : "model.") + canonical;
}

}  // namespace penstock
