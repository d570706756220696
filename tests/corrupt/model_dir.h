// A model directory held in memory, to be damaged and written out. Reads and writes safetensors by itself, so that the
// reader under test is not tested against itself.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace penstock::damage {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

[[noreturn]] inline void give_up(const std::string& message) {
  std::cerr << message << '\n';
  std::exit(1);
}

inline std::string read_bytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) give_up("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_bytes(const fs::path& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  if (!out.flush()) give_up("cannot write " + path.string());
}

inline std::uint64_t header_length(const std::string& bytes) {
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  return length;
}

// A file of this header text and these data.
inline std::string frame(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string out(sizeof(length), '\0');
  std::memcpy(out.data(), &length, sizeof(length));
  return out + header + data;
}

struct Tensor {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::string bytes;
};

// Tensors of one file, in the order in which they are written.
using TensorFile = std::vector<std::pair<std::string, Tensor>>;

inline TensorFile parse_tensors(const std::string& bytes) {
  const std::size_t data = 8 + header_length(bytes);
  const Json header = Json::parse(bytes.substr(8, header_length(bytes)));
  TensorFile out;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") continue;
    const auto begin = value["data_offsets"][0].get<std::size_t>();
    const auto end = value["data_offsets"][1].get<std::size_t>();
    out.push_back({name,
                   {value["dtype"].get<std::string>(), value["shape"].get<std::vector<std::int64_t>>(),
                    bytes.substr(data + begin, end - begin)}});
  }
  return out;
}

inline std::string format_tensors(const TensorFile& tensors) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  return frame(header.dump(), data);
}

class ModelDir {
 public:
  explicit ModelDir(const fs::path& source) {
    for (const auto& item : fs::directory_iterator(source)) {
      const std::string name = item.path().filename().string();
      if (name.ends_with(".safetensors") && name.starts_with("model")) {
        links_[name] = fs::canonical(item.path());
      } else if (name.ends_with(".json") && name != "meta.json") {
        files[name] = read_bytes(item.path());
      }
    }
  }

  std::map<std::string, std::string> files;  // by name: the bytes to write
  std::vector<std::string> folders;          // to make in place of files

  void edit_json(const std::string& name, const std::function<void(Json&)>& edit) {
    Json json = Json::parse(files.at(name));
    edit(json);
    files[name] = json.dump(1);
  }
  void config(const std::function<void(Json&)>& edit) { edit_json("config.json", edit); }

  // The bytes of a weight file, which is then written instead of being linked to.
  std::string& bytes(const std::string& name = "model.safetensors") {
    if (const auto link = links_.find(name); link != links_.end()) {
      files[name] = read_bytes(link->second);
      links_.erase(link);
    }
    return files[name];
  }
  void remove(const std::string& name) {
    files.erase(name);
    links_.erase(name);
  }

  void tensors(const std::string& file, const std::function<void(TensorFile&)>& edit) {
    TensorFile all = parse_tensors(bytes(file));
    edit(all);
    files[file] = format_tensors(all);
  }
  // One tensor of model.safetensors.
  void tensor(const std::string& name, const std::function<void(Tensor&)>& edit) {
    tensors("model.safetensors", [&](TensorFile& all) {
      for (auto& [key, value] : all) {
        if (key == name) return edit(value);
      }
      give_up("no tensor " + name);
    });
  }
  void remove_tensor(const std::string& name, const std::string& file = "model.safetensors") {
    tensors(file, [&](TensorFile& all) {
      if (std::erase_if(all, [&](const auto& item) { return item.first == name; }) != 1) give_up("no tensor " + name);
    });
  }
  void add_tensor(const std::string& name, Tensor tensor, const std::string& file = "model.safetensors") {
    tensors(file, [&](TensorFile& all) { all.emplace_back(name, std::move(tensor)); });
  }
  // The JSON header of model.safetensors, the data staying as they are.
  void header(const std::function<void(Json&)>& edit) {
    std::string& file = bytes();
    const std::uint64_t length = header_length(file);
    Json json = Json::parse(file.substr(8, length));
    edit(json);
    file = frame(json.dump(), file.substr(8 + length));
  }

  void write(const fs::path& dir) const {
    fs::create_directories(dir);
    for (const auto& [name, content] : files) write_bytes(dir / name, content);
    for (const auto& [name, target] : links_) fs::create_symlink(target, dir / name);
    for (const std::string& name : folders) fs::create_directory(dir / name);
  }

 private:
  std::map<std::string, fs::path> links_;  // weight files left as they are
};

}  // namespace penstock::damage
