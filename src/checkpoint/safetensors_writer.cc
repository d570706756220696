#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>
#include <unordered_set>
#include <utility>

#include "checkpoint/safetensors.h"
#include "checkpoint/text_util.h"

namespace penstock {
namespace {

// Data is written behind room for a header of about 8,000 tensors, so that a file of any size is written once. Where
// the room turns out too small, or out of proportion to the data, finish() copies the data behind a header that fits.
constexpr std::int64_t kReservedBytes = std::int64_t{1} << 20;
constexpr std::int64_t kSmallDataBytes = std::int64_t{64} << 20;
constexpr std::size_t kAlignment = 64;  // of the data within the file
constexpr std::size_t kLengthBytes = 8;

std::string error_text(int error) {
  return std::generic_category().message(error);
}

Status write_all(int fd, const void* data, std::size_t size, std::int64_t offset) {
  constexpr std::size_t kMost = std::size_t{1} << 30;  // one call writes less than 2 GiB
  const auto* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::pwrite(fd, bytes, std::min(size, kMost), offset);
    if (written < 0) {
      if (errno == EINTR) continue;
      return internal_error("cannot write: " + error_text(errno));
    }
    bytes += written;
    size -= static_cast<std::size_t>(written);
    offset += written;
  }
  return {};
}

Status copy_all(int from, std::int64_t from_offset, int to, std::int64_t to_offset, std::int64_t size) {
  std::vector<char> buffer(std::size_t{1} << 20);
  while (size > 0) {
    const auto want = static_cast<std::size_t>(std::min<std::int64_t>(size, static_cast<std::int64_t>(buffer.size())));
    const ssize_t got = ::pread(from, buffer.data(), want, from_offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return internal_error("cannot read back: " + (got < 0 ? error_text(errno) : "file too short"));
    PENSTOCK_RETURN_IF_ERROR(write_all(to, buffer.data(), static_cast<std::size_t>(got), to_offset));
    from_offset += got;
    to_offset += got;
    size -= got;
  }
  return {};
}

// A file under a name of its own beside `path`, gone again unless it is given that name.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::filesystem::path& path) : final_(path) {}
  ~TemporaryFile() { discard(); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  int fd() const { return fd_; }

  Status create() {
    for (int attempt = 0; attempt < 1000; ++attempt) {
      name_ = final_;
      name_ += '.' + std::to_string(::getpid()) + '-' + std::to_string(attempt) + ".tmp";
      fd_ = ::open(name_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (fd_ >= 0) return {};
      if (errno != EEXIST) break;
    }
    const int error = errno;
    std::string message = "cannot create " + name_.string() + ": " + error_text(error);
    if (error == ENOENT || error == ENOTDIR) return not_found(std::move(message));
    return invalid_argument(std::move(message));
  }

  Status publish() {
    if (::fsync(fd_) != 0) return internal_error("cannot write: " + error_text(errno));
    if (::rename(name_.c_str(), final_.c_str()) != 0) {
      return internal_error("cannot rename " + name_.string() + ": " + error_text(errno));
    }
    ::close(std::exchange(fd_, -1));
    return {};
  }

  void discard() {
    if (fd_ < 0) return;
    ::close(std::exchange(fd_, -1));
    ::unlink(name_.c_str());
  }

 private:
  std::filesystem::path final_;
  std::filesystem::path name_;
  int fd_ = -1;
};

class Writer final : public SafetensorsWriter {
 public:
  explicit Writer(const std::filesystem::path& path) : path_(path), file_(path) {}

  Status start() { return file_.create(); }

  Status add(const std::string& name, DType dtype, std::vector<std::int64_t> shape,
             std::span<const std::byte> data) override {
    if (file_.fd() < 0) return invalid_argument(path_.string() + ": the file is finished");
    if (name.empty() || name == "__metadata__") return invalid_argument("no tensor may be called " + in_quotes(name));
    std::uint64_t size_bytes = dtype_bytes(dtype);
    for (const std::int64_t size : shape) {
      if (size < 0 || __builtin_mul_overflow(size_bytes, static_cast<std::uint64_t>(size), &size_bytes)) {
        return invalid_argument("tensor " + in_quotes(name) + ": shape " + shape_text(shape) + " is impossible");
      }
    }
    if (size_bytes != data.size()) {
      return invalid_argument("tensor " + in_quotes(name) + ": " + to_string(dtype) + " " + shape_text(shape) +
                              " needs " + std::to_string(size_bytes) + " bytes, " + std::to_string(data.size()) +
                              " were given");
    }
    if (!names_.insert(name).second) return invalid_argument("tensor " + in_quotes(name) + " was added before");

    const std::int64_t end = data_bytes_ + static_cast<std::int64_t>(size_bytes);
    std::string described;
    PENSTOCK_RETURN_IF_ERROR(describe(name, dtype, shape, end, &described));
    const Status status = write_all(file_.fd(), data.data(), data.size(), kReservedBytes + data_bytes_);
    if (!status.ok()) return status.with_context(path_.string());
    header_ += described;
    data_bytes_ = end;
    return {};
  }

  Status finish() override {
    if (file_.fd() < 0) return invalid_argument(path_.string() + ": the file is finished");
    const std::size_t used = kLengthBytes + header_.size() + 1;  // with the closing brace
    const bool fits = used <= static_cast<std::size_t>(kReservedBytes);
    const Status status = fits && data_bytes_ > kSmallDataBytes ? finish_in_place() : finish_by_copy(used);
    return status.with_context(path_.string());
  }

 private:
  // The header's text for a tensor that begins where the data ends now.
  Status describe(const std::string& name, DType dtype, const std::vector<std::int64_t>& shape, std::int64_t end,
                  std::string* out) const {
    try {
      const nlohmann::json key = name;
      const nlohmann::json value = {
          {"dtype", to_string(dtype)}, {"shape", shape}, {"data_offsets", {data_bytes_, end}}};
      out->append(header_.size() > 1 ? "," : "").append(key.dump()).append(":").append(value.dump());
    } catch (const nlohmann::json::exception&) {
      return invalid_argument("tensor name " + in_quotes(name) + " is not valid UTF-8");
    }
    return {};
  }

  // The header padded with spaces to a length that makes `total` bytes in front of the data.
  std::string front(std::size_t total) const {
    const std::uint64_t length = total - kLengthBytes;
    std::string out(kLengthBytes, '\0');
    for (std::size_t i = 0; i < kLengthBytes; ++i) out[i] = static_cast<char>(length >> (8 * i));
    out += header_;
    out += '}';
    out.resize(total, ' ');
    return out;
  }

  Status finish_in_place() {
    const std::string text = front(static_cast<std::size_t>(kReservedBytes));
    PENSTOCK_RETURN_IF_ERROR(write_all(file_.fd(), text.data(), text.size(), 0));
    return file_.publish();
  }

  Status finish_by_copy(std::size_t used) {
    const std::string text = front((used + kAlignment - 1) / kAlignment * kAlignment);
    TemporaryFile copy(path_);
    PENSTOCK_RETURN_IF_ERROR(copy.create());
    PENSTOCK_RETURN_IF_ERROR(write_all(copy.fd(), text.data(), text.size(), 0));
    PENSTOCK_RETURN_IF_ERROR(
        copy_all(file_.fd(), kReservedBytes, copy.fd(), static_cast<std::int64_t>(text.size()), data_bytes_));
    PENSTOCK_RETURN_IF_ERROR(copy.publish());
    file_.discard();
    return {};
  }

  std::filesystem::path path_;
  TemporaryFile file_;
  std::string header_ = "{";
  std::unordered_set<std::string> names_;
  std::int64_t data_bytes_ = 0;
};

}  // namespace

Expected<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::create(const std::filesystem::path& path) {
  auto writer = std::make_unique<Writer>(path);
  PENSTOCK_RETURN_IF_ERROR(writer->start());
  return std::unique_ptr<SafetensorsWriter>(std::move(writer));
}

}  // namespace penstock
