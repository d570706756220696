#include "server/server.h"

#include <algorithm>
#include <cmath>

#include "server/http/http_server.h"
#include "server/openai/api.h"

namespace penstock {
namespace {

class ServerImpl : public Server {
 public:
  explicit ServerImpl(const ServerOptions& options) : api_(options) {}
  ~ServerImpl() override { ServerImpl::stop(); }

  Status listen(http::HttpOptions options) {
    PENSTOCK_ASSIGN_OR_RETURN(http_, http::HttpServer::start(std::move(options), api_));
    api_.set_http(http_.get());
    port_ = http_->port();
    return {};
  }

  std::uint16_t port() const override { return port_; }
  EventSink event_sink() override { return api_.event_sink(); }
  void serve(const ServedModel& model) override { api_.serve(model); }
  void fail(const std::string& why) override { api_.fail(why); }

  void begin_drain() override {
    api_.begin_drain();
    if (http_) http_->close_after_next_response();
  }

  void stop() override {
    if (!http_) return;
    api_.stop_workers();
    http_->stop();
    api_.release_receivers();  // they hold connections, which belong to the loops of http_
    http_.reset();
  }

 private:
  openai::Api api_;
  std::unique_ptr<http::HttpServer> http_;
  std::uint16_t port_ = 0;
};

Status check(const ServerOptions& o) {
  if (o.served_model_names.empty()) return invalid_argument("served_model_names: at least one name is needed");
  if (std::any_of(o.api_keys.begin(), o.api_keys.end(), [](const std::string& key) { return key.empty(); })) {
    return invalid_argument("api_keys: an empty key would let everyone in; leave it out or give one");
  }
  if (o.max_body_bytes < 1024) return invalid_argument("max_body_bytes must be at least 1024");
  if (o.max_header_bytes < 512 || o.max_header_bytes > (1 << 20)) {
    return invalid_argument("max_header_bytes must be between 512 and 1048576");
  }
  for (const double seconds : {o.header_timeout_s, o.body_timeout_s, o.idle_timeout_s, o.write_timeout_s}) {
    if (!(seconds > 0 && seconds <= 1e6)) return invalid_argument("timeouts must be above 0 and at most 1e6 seconds");
  }
  if (o.max_connections < 1) return invalid_argument("max_connections must be at least 1");
  if (o.max_n < 1) return invalid_argument("max_n must be at least 1");
  if (o.http_threads < 1 || o.http_threads > 64) return invalid_argument("http_threads must be between 1 and 64");
  return {};
}

// It goes into a header: keep to harmless characters whatever the build says.
std::string server_name(const std::string& version) {
  return http::is_harmless_id(version) ? "penstock/" + version : "penstock";
}

}  // namespace

Expected<std::unique_ptr<Server>> Server::start(const ServerOptions& options) {
  PENSTOCK_RETURN_IF_ERROR(check(options));
  auto server = std::make_unique<ServerImpl>(options);
  http::HttpOptions http;
  http.host = options.host;
  http.port = options.port;
  http.max_body_bytes = options.max_body_bytes;
  http.max_header_bytes = options.max_header_bytes;
  http.header_timeout_s = options.header_timeout_s;
  http.body_timeout_s = options.body_timeout_s;
  http.idle_timeout_s = options.idle_timeout_s;
  http.write_timeout_s = options.write_timeout_s;
  http.max_connections = options.max_connections;
  http.threads = options.http_threads;
  http.server_name = server_name(options.version);
  http.max_buffered_bodies_bytes = std::max<std::int64_t>(256LL << 20, 4 * options.max_body_bytes);
  PENSTOCK_RETURN_IF_ERROR(server->listen(std::move(http)));
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace penstock
