#include "server/http/http_server.h"

#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <ctime>
#include <thread>
#include <vector>

#include <spdlog/spdlog.h>

#include "server/http/connection.h"

namespace penstock::http {

namespace asio = boost::asio;
using ErrorCode = boost::system::error_code;
using asio::ip::tcp;

Loop::Loop(Shared& shared) : timer_(io) {
  const HttpOptions& o = shared.options;
  const double shortest = std::min({o.header_timeout_s, o.body_timeout_s, o.idle_timeout_s, o.write_timeout_s});
  period_ =
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::clamp(shortest / 4, 0.02, 0.5)));
}

void Loop::post(std::function<void()> function) {
  asio::post(io, std::move(function));
}

void Loop::sweep_later() {
  timer_.expires_after(period_);
  timer_.async_wait([this](ErrorCode error) {
    if (error) return;
    sweep();
    sweep_later();
  });
}

void Loop::sweep() {
  const auto now = Clock::now();
  std::vector<std::shared_ptr<Connection>> late;
  for (Connection* connection : connections) {
    if (connection->late(now)) late.push_back(connection->shared_from_this());
  }
  for (const auto& connection : late) connection->on_deadline(now);
}

void Loop::run() {
  const auto work = asio::make_work_guard(io);
  for (;;) {
    try {
      io.run();
      return;  // stopped
    } catch (const std::exception& e) {
      // Out of memory for one client must not end the others.
      spdlog::error("http: a request handler failed: {}", e.what());
    }
  }
}

const std::string& Loop::http_date() {
  const std::time_t now = std::time(nullptr);
  if (now != date_second_) {
    date_second_ = now;
    std::tm parts{};
    gmtime_r(&now, &parts);
    char text[40];
    const auto length = std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    date_.assign(text, length);
  }
  return date_;
}

namespace {

constexpr int kBacklog = 4096;
constexpr std::int32_t kReservedFiles = 64;  // descriptors the rest of the process needs
constexpr auto kStopTime = std::chrono::seconds(1);

class HttpServerImpl : public HttpServer {
 public:
  HttpServerImpl(HttpOptions options, Handler& handler) : shared_{std::move(options), handler} {
    for (std::int32_t i = 0; i < std::max(1, shared_.options.threads); ++i) {
      loops_.push_back(std::make_unique<Loop>(shared_));
    }
    acceptor_.emplace(loops_[0]->io);
    retry_.emplace(loops_[0]->io);
  }
  ~HttpServerImpl() override { stop(); }

  Status listen();
  void run();
  std::uint16_t port() const override { return port_; }
  std::int64_t connections() const override { return shared_.connections; }
  void close_after_next_response() override { shared_.no_keep_alive = true; }
  void stop() override;

 private:
  Status listen_on(const tcp::endpoint& endpoint);
  void raise_file_limit();
  void accept();
  void on_accept(ErrorCode error, tcp::socket socket, Loop& loop);
  void turn_away(tcp::socket socket);

  Shared shared_;
  std::vector<std::unique_ptr<Loop>> loops_;
  std::optional<tcp::acceptor> acceptor_;
  std::optional<asio::steady_timer> retry_;
  std::vector<std::thread> threads_;
  std::size_t next_loop_ = 0;
  std::uint16_t port_ = 0;
  bool stopped_ = false;
};

Status HttpServerImpl::listen() {
  const HttpOptions& options = shared_.options;
  ErrorCode error;
  tcp::resolver resolver(loops_[0]->io);
  const auto results = resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, error);
  if (error) {
    return invalid_argument("cannot listen on '" + options.host + "': " + error.message() +
                            "; give an address of this machine, such as 127.0.0.1 or 0.0.0.0");
  }
  std::vector<tcp::endpoint> endpoints;
  for (const auto& entry : results) endpoints.push_back(entry.endpoint());
  // "localhost" is often ::1 first; clients that only try IPv4 would then not find us.
  std::stable_partition(endpoints.begin(), endpoints.end(), [](const auto& e) { return e.address().is_v4(); });
  Status status = invalid_argument("cannot listen on '" + options.host + "': it has no address");
  for (const auto& endpoint : endpoints) {
    status = listen_on(endpoint);
    if (status.ok()) break;
  }
  return status;
}

Status HttpServerImpl::listen_on(const tcp::endpoint& endpoint) {
  ErrorCode error;
  acceptor_.emplace(loops_[0]->io);
  acceptor_->open(endpoint.protocol(), error);
  if (!error) acceptor_->set_option(asio::socket_base::reuse_address(true), error);
  if (!error && endpoint.protocol() == tcp::v6()) acceptor_->set_option(asio::ip::v6_only(false), error);
  if (!error) acceptor_->bind(endpoint, error);
  if (!error) acceptor_->listen(kBacklog, error);
  if (!error) port_ = acceptor_->local_endpoint(error).port();
  if (!error) return {};
  const std::string where = "cannot listen on " + shared_.options.host + " port " + std::to_string(endpoint.port());
  if (error == asio::error::address_in_use) {
    return unavailable(where + ": another program uses it; stop that or choose another --port");
  }
  return unavailable(where + ": " + error.message());
}

void HttpServerImpl::raise_file_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) getrlimit(RLIMIT_NOFILE, &limit);
  }
  const auto files = static_cast<std::int64_t>(std::min<rlim_t>(limit.rlim_cur, 1U << 30));
  const auto room = static_cast<std::int32_t>(std::max<std::int64_t>(files - kReservedFiles, 1));
  if (shared_.options.max_connections > room) {
    spdlog::warn("http: at most {} connections instead of {}: this process may open only {} files (ulimit -n)", room,
                 shared_.options.max_connections, files);
    shared_.options.max_connections = room;
  }
}

void HttpServerImpl::run() {
  raise_file_limit();
  for (const auto& loop : loops_) loop->sweep_later();
  accept();
  for (const auto& loop : loops_) threads_.emplace_back([l = loop.get()] { l->run(); });
}

void HttpServerImpl::accept() {
  Loop& loop = *loops_[next_loop_];
  next_loop_ = (next_loop_ + 1) % loops_.size();
  acceptor_->async_accept(
      loop.io, [this, &loop](ErrorCode error, tcp::socket socket) { on_accept(error, std::move(socket), loop); });
}

void HttpServerImpl::on_accept(ErrorCode error, tcp::socket socket, Loop& loop) {
  if (error == asio::error::operation_aborted || !acceptor_->is_open()) return;
  if (error) {
    // Mostly out of descriptors: the client waits in the backlog until a connection closes.
    spdlog::warn("http: cannot accept a connection: {}", error.message());
    retry_->expires_after(std::chrono::milliseconds(50));
    retry_->async_wait([this](ErrorCode aborted) {
      if (!aborted && acceptor_->is_open()) accept();
    });
    return;
  }
  ErrorCode ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  socket.non_blocking(true, ignored);
  if (shared_.connections >= shared_.options.max_connections) {
    turn_away(std::move(socket));
  } else {
    auto connection = std::make_shared<Connection>(std::move(socket), loop, shared_);
    asio::post(loop.io, [connection = std::move(connection)] { connection->start(); });
  }
  accept();
}

void HttpServerImpl::turn_away(tcp::socket socket) {
  Response response = shared_.handler.protocol_error(
      503, "All " + std::to_string(shared_.options.max_connections) + " connections are in use. Try again later.");
  shared_.handler.finish_head(RequestHead(), response);
  const std::string text = "HTTP/1.1 503 Service Unavailable\r\nServer: " + shared_.options.server_name +
                           "\r\nRetry-After: 1\r\nContent-Type: application/json\r\nContent-Length: " +
                           std::to_string(response.body.size()) + "\r\nConnection: close\r\n\r\n" + response.body;
  ErrorCode ignored;
  socket.write_some(asio::buffer(text), ignored);
  socket.shutdown(tcp::socket::shutdown_send, ignored);
  std::vector<char> unread(4096);
  socket.read_some(asio::buffer(unread), ignored);  // a request that is here already would turn the close into a reset
}

void HttpServerImpl::stop() {
  if (stopped_) return;
  stopped_ = true;
  shared_.stopping = true;
  if (!threads_.empty()) {
    asio::post(loops_[0]->io, [this] {
      ErrorCode ignored;
      acceptor_->close(ignored);
      retry_->cancel();
    });
    for (const auto& loop : loops_) {
      asio::post(loop->io, [l = loop.get()] {
        std::vector<std::shared_ptr<Connection>> all;
        for (Connection* connection : l->connections) all.push_back(connection->shared_from_this());
        for (const auto& connection : all) connection->shut_down();
      });
    }
    const auto deadline = Clock::now() + kStopTime;
    while (shared_.connections > 0 && Clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  for (const auto& loop : loops_) loop->io.stop();
  for (auto& thread : threads_) thread.join();
  threads_.clear();
}

}  // namespace

Expected<std::unique_ptr<HttpServer>> HttpServer::start(HttpOptions options, Handler& handler) {
  try {
    auto server = std::make_unique<HttpServerImpl>(std::move(options), handler);
    PENSTOCK_RETURN_IF_ERROR(server->listen());
    server->run();
    return std::unique_ptr<HttpServer>(std::move(server));
  } catch (const std::exception& e) {
    return internal_error(std::string("cannot start the HTTP server: ") + e.what());
  }
}

}  // namespace penstock::http
