#include "base/mmap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

namespace penstock {
namespace {

std::string error_text(int error) {
  return std::generic_category().message(error);
}

struct Descriptor {
  int fd;
  explicit Descriptor(int descriptor) : fd(descriptor) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

Expected<std::unique_ptr<MappedFile>> MappedFile::open(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a pipe must not wait for its other end; regular files do not mind.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.fd < 0) {
    const int error = errno;
    std::string message = "cannot open " + path.string() + ": " + error_text(error);
    if (error == ENOENT || error == ENOTDIR) return not_found(std::move(message));
    return invalid_argument(std::move(message));
  }
  struct stat info = {};
  if (::fstat(file.fd, &info) != 0) {
    return invalid_argument("cannot examine " + path.string() + ": " + error_text(errno));
  }
  if (!S_ISREG(info.st_mode)) return invalid_argument(path.string() + " is not a regular file");

  const auto size_bytes = static_cast<std::size_t>(info.st_size);
  if (size_bytes == 0) return std::unique_ptr<MappedFile>(new MappedFile(nullptr, 0));
  void* data = ::mmap(nullptr, size_bytes, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (data == MAP_FAILED) {
    return resource_exhausted("cannot map " + path.string() + " (" + std::to_string(size_bytes) +
                              " bytes): " + error_text(errno));
  }
  return std::unique_ptr<MappedFile>(new MappedFile(static_cast<const std::byte*>(data), size_bytes));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_bytes_);
}

void MappedFile::advise_sequential() const {
  // Advice: a kernel that does not take it changes nothing.
  if (data_ != nullptr) (void)::madvise(const_cast<std::byte*>(data_), size_bytes_, MADV_SEQUENTIAL);
}

}  // namespace penstock
