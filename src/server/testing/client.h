// A client of raw sockets for tests: says exactly the bytes it is told to, reads answers one by one.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace penstock::testing {

struct Answer {
  int status = 0;                              // 0: the connection ended or time ran out before a whole answer
  std::map<std::string, std::string> headers;  // lower case
  std::string body;
  bool complete = false;

  nlohmann::json json() const { return nlohmann::json::parse(body, nullptr, false); }
  std::string header(const std::string& name) const {
    const auto it = headers.find(name);
    return it == headers.end() ? "" : it->second;
  }
};

class Client {
 public:
  explicit Client(std::uint16_t port, int receive_buffer_bytes = 0) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer_bytes > 0) {
      ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~Client() { close(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connected() const { return connected_; }
  int fd() const { return fd_; }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  void reset() {  // RST instead of FIN
    const linger now{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close();
  }
  void end_input() { ::shutdown(fd_, SHUT_WR); }

  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }

  static std::string request(const std::string& method, const std::string& path, const std::string& body = {},
                             const std::string& more_headers = {}) {
    std::string text = method + ' ' + path + " HTTP/1.1\r\nHost: test\r\n" + more_headers;
    if (method == "POST" || !body.empty()) {
      text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
      if (more_headers.find("Content-Type") == std::string::npos) text += "Content-Type: application/json\r\n";
    }
    return text + "\r\n" + body;
  }

  Answer ask(const std::string& method, const std::string& path, const std::string& body = {},
             const std::string& more_headers = {}) {
    send(request(method, path, body, more_headers));
    return read_answer(method == "HEAD");
  }

  // Reads what comes until `text` is in it, the connection ends, or time runs out.
  bool read_until(std::string_view text, double seconds = 10) {
    const auto deadline = after(seconds);
    while (received_.find(text) == std::string::npos) {
      if (!read_some(deadline)) return false;
    }
    return true;
  }

  Answer read_answer(bool is_head = false, double seconds = 20) {
    const auto deadline = after(seconds);
    Answer answer;
    std::size_t end = 0;
    while ((end = received_.find("\r\n\r\n")) == std::string::npos) {
      if (!read_some(deadline)) return answer;
    }
    parse_head(received_.substr(0, end), &answer);
    received_.erase(0, end + 4);
    if (is_head || answer.status == 204 || answer.status == 100) {
      answer.complete = true;
    } else if (answer.header("transfer-encoding") == "chunked") {
      read_chunks(deadline, &answer);
    } else if (!answer.header("content-length").empty()) {
      const auto size = static_cast<std::size_t>(std::atoll(answer.header("content-length").c_str()));
      while (received_.size() < size && read_some(deadline)) {
      }
      answer.complete = received_.size() >= size;
      answer.body = received_.substr(0, size);
      received_.erase(0, size);
    } else {
      while (read_some(deadline)) {
      }
      answer.complete = ended_;
      answer.body.swap(received_);
    }
    return answer;
  }

  // True once the server has closed the connection; false when it is still open after `seconds`.
  bool wait_closed(double seconds = 10) {
    const auto deadline = after(seconds);
    while (read_some(deadline)) {
    }
    return ended_;
  }

  const std::string& received() const { return received_; }

 private:
  static std::chrono::steady_clock::time_point after(double seconds) {
    return std::chrono::steady_clock::now() + std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
  }

  bool read_some(std::chrono::steady_clock::time_point deadline) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd waiting{fd_, POLLIN, 0};
    if (ended_ || left.count() <= 0 || ::poll(&waiting, 1, static_cast<int>(left.count())) <= 0) return false;
    char bytes[65536];
    const auto count = ::recv(fd_, bytes, sizeof bytes, 0);
    if (count <= 0) {
      ended_ = true;
      return false;
    }
    received_.append(bytes, static_cast<std::size_t>(count));
    return true;
  }

  static void parse_head(const std::string& head, Answer* answer) {
    answer->status = std::atoi(head.c_str() + head.find(' ') + 1);
    std::size_t line = head.find("\r\n");
    while (line != std::string::npos) {
      const std::size_t next = head.find("\r\n", line + 2);
      const std::string text = head.substr(line + 2, next == std::string::npos ? next : next - line - 2);
      const std::size_t colon = text.find(": ");
      std::string name = text.substr(0, colon);
      for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      answer->headers[name] = colon == std::string::npos ? "" : text.substr(colon + 2);
      line = next;
    }
  }

  void read_chunks(std::chrono::steady_clock::time_point deadline, Answer* answer) {
    for (;;) {
      std::size_t end = 0;
      while ((end = received_.find("\r\n")) == std::string::npos) {
        if (!read_some(deadline)) return;
      }
      const auto size = static_cast<std::size_t>(std::strtoull(received_.c_str(), nullptr, 16));
      while (received_.size() < end + 2 + size + 2) {
        if (!read_some(deadline)) return;
      }
      answer->body += received_.substr(end + 2, size);
      received_.erase(0, end + 2 + size + 2);
      if (size == 0) {
        answer->complete = true;
        return;
      }
    }
  }

  int fd_;
  bool connected_ = false;
  bool ended_ = false;
  std::string received_;
};

// The data of server-sent events, in order; "[DONE]" is one of them.
inline std::vector<std::string> sse_data(const std::string& body) {
  std::vector<std::string> all;
  std::size_t begin = 0;
  while (begin < body.size()) {
    const std::size_t end = body.find("\n\n", begin);
    const std::string event = body.substr(begin, end == std::string::npos ? end : end - begin);
    all.push_back(event.starts_with("data: ") ? event.substr(6) : "not an event: " + event);
    begin = end == std::string::npos ? body.size() : end + 2;
  }
  return all;
}

}  // namespace penstock::testing
