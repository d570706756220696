// What the HTTP layer and the layer above it say to each other. Nothing here knows Boost or OpenAI.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace penstock::http {

using Clock = std::chrono::steady_clock;

// The first line and the headers of a request.
struct RequestHead {
  std::string method;
  std::string path;        // percent-decoded, without the query; empty when the request was not understood
  std::string request_id;  // the client's X-Request-Id if it is a harmless one, else made here
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case

  std::string_view header(std::string_view name) const;  // the first of that name, or ""
};

struct Request {
  RequestHead head;
  std::string body;
  Clock::time_point arrived;  // when all of it was here
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // beside those every response has
};

// Runs a function later on the thread of one event loop. post() is callable from any thread.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual void post(std::function<void()> function) = 0;
};

// One request being answered. Everything but executor() is called on the loop's thread, and once the client is gone
// or the answer complete every call is a no-op.
class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual void respond(Response response) = 0;  // the whole answer

  // Or an answer in pieces: begin_stream (its body is ignored), then write and flush, then end_stream.
  virtual void begin_stream(Response head) = 0;
  virtual void write(std::string_view data) = 0;  // collected until flush(), which sends it as one piece
  virtual void flush() = 0;
  virtual void end_stream() = 0;

  // Called at most once, when the client has left or does not read. Replaces an earlier callback.
  virtual void on_gone(std::function<void()> callback) = 0;
  virtual bool gone() const = 0;
  virtual Executor& executor() = 0;
};

// The layer above. Called on the loops' threads.
class Handler {
 public:
  virtual ~Handler() = default;
  // After the headers: an answer that needs no body (the connection is then closed if there is one), or nothing.
  virtual std::optional<Response> check_head(const RequestHead& head) = 0;
  virtual void handle(Request request, std::shared_ptr<Exchange> exchange) = 0;
  // The answer to what could not be read: 400, 408, 413, 431, 501, 503.
  virtual Response protocol_error(int status, const std::string& message) = 0;
  // Before any response is written: adds headers, counts it.
  virtual void finish_head(const RequestHead& head, Response& response) = 0;
};

const char* reason_phrase(int status);
// X-Request-Id goes back to the client and into logs: 1 to 128 of letters, digits and "-_.:", or it is not taken.
bool is_harmless_id(std::string_view id);
std::string random_id(std::size_t digits);  // hexadecimal
// "/v1/models/a%2Fb?x=1", "http://host/path" -> the path. Nothing for a target that is none of these.
std::optional<std::string> path_of_target(std::string_view target);

}  // namespace penstock::http
