// Listener, event loops and connections. One thread per loop; a connection stays on its loop for life.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "penstock/status.h"
#include "server/http/http.h"

namespace penstock::http {

struct HttpOptions {
  std::string host;
  std::uint16_t port = 0;
  std::int64_t max_body_bytes = 0;
  std::int32_t max_header_bytes = 0;
  double header_timeout_s = 0, body_timeout_s = 0, idle_timeout_s = 0, write_timeout_s = 0;
  std::int32_t max_connections = 0;
  std::int32_t threads = 1;
  std::string server_name;                         // the Server header
  std::int64_t max_stream_buffer_bytes = 1 << 20;  // written to one stream and not yet taken by the client's socket
  std::int64_t max_buffered_bodies_bytes = 0;      // of request bodies being read, all connections together
};

class HttpServer {
 public:
  // Binds, listens and starts the threads. The handler must outlive the server.
  static Expected<std::unique_ptr<HttpServer>> start(HttpOptions options, Handler& handler);
  virtual ~HttpServer() = default;

  virtual std::uint16_t port() const = 0;
  virtual std::int64_t connections() const = 0;  // open now
  virtual void close_after_next_response() = 0;  // no more keep-alive from now on
  // Stops listening; idle connections close now, others when what was written has left, at most a second. Joins.
  virtual void stop() = 0;
};

}  // namespace penstock::http
