// One client connection: reads requests, writes answers, minds the clock. Included by the two files that know Boost.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>

#include "server/http/http.h"
#include "server/http/http_server.h"

namespace penstock::http {

class Connection;

// What all connections of a server share.
struct Shared {
  HttpOptions options;
  Handler& handler;
  std::atomic<std::int64_t> connections{0};
  std::atomic<std::int64_t> body_bytes{0};  // of bodies being read
  std::atomic<bool> no_keep_alive{false};
  std::atomic<bool> stopping{false};
};

// One thread's io_context and its connections. Deadlines are fields of the connections, looked at a few times a second:
// a timer for each write would cost more than the write.
class Loop : public Executor {
 public:
  explicit Loop(Shared& shared);
  void post(std::function<void()> function) override;
  void sweep_later();
  void run();  // the thread's body
  const std::string& http_date();

  std::unordered_set<Connection*> connections;  // outlives io, whose end may destroy the last of them
  boost::asio::io_context io{1};

 private:
  void sweep();

  Clock::duration period_;
  boost::asio::steady_timer timer_;
  std::int64_t date_second_ = -1;
  std::string date_;
};

class ConnectionExchange;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::ip::tcp::socket socket, Loop& loop, Shared& shared);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void start();
  bool late(Clock::time_point now) const { return now > read_deadline_ || now > write_deadline_; }
  void on_deadline(Clock::time_point now);
  void shut_down();  // the server stops: close now, or when what was written has left

  // For ConnectionExchange.
  void respond(Response response);
  void begin_stream(Response head);
  void write(std::string_view data) { piece_ += data; }
  void flush();
  void end_stream();
  Loop& loop() { return loop_; }

 private:
  enum class State : std::uint8_t { kIdle, kHeader, kBody, kHandling, kLinger, kClosed };
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  using ErrorCode = boost::system::error_code;

  void idle();
  void watch();  // reads ahead: the next request, or the news that the client has left
  void on_watch(ErrorCode error, std::size_t bytes);
  void read_header();
  void on_header(ErrorCode error);
  void take_head();
  void read_body();
  void on_body(ErrorCode error);
  void dispatch();
  void refuse(ErrorCode error);  // what could not be read
  void refuse(int status, const std::string& message);
  void append_head(Response& response, bool has_length);
  void start_write();
  void write_some();
  void on_write(ErrorCode error, std::size_t bytes);
  void finish_response();
  void linger();  // closes once the client has: closing with unread input would take the answer from it
  void close();
  void charge_body(std::int64_t bytes);

  boost::asio::ip::tcp::socket socket_;
  Loop& loop_;
  Shared& shared_;
  State state_ = State::kIdle;
  bool first_request_ = true;
  bool watching_ = false;     // a read-ahead is under way
  bool timed_out_ = false;    // on_deadline() cancelled a read
  bool input_ended_ = false;  // the client will send no more
  bool close_after_ = false;  // this answer is the last
  bool final_ = false;        // the whole answer is in out_ or gone
  bool chunked_ = false;
  bool streaming_ = false;
  unsigned version_ = 11;
  Clock::time_point read_deadline_ = Clock::time_point::max();
  Clock::time_point write_deadline_ = Clock::time_point::max();
  std::int64_t charged_bytes_ = 0;

  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  RequestHead head_;
  std::shared_ptr<ConnectionExchange> exchange_;

  std::string piece_;     // of a stream, until flush()
  std::string out_;       // to be written next
  std::string inflight_;  // being written
  std::size_t written_ = 0;
};

// Stands between the layer above and the connection, so that a late call cannot reach the next request's answer.
class ConnectionExchange : public Exchange {
 public:
  explicit ConnectionExchange(std::shared_ptr<Connection> connection)
      : loop_(connection->loop()), connection_(std::move(connection)) {}

  void respond(Response response) override;
  void begin_stream(Response head) override;
  void write(std::string_view data) override;
  void flush() override;
  void end_stream() override;
  void on_gone(std::function<void()> callback) override { callback_ = std::move(callback); }
  bool gone() const override { return gone_; }
  Executor& executor() override { return loop_; }

  void finish();     // the answer has left
  void mark_gone();  // the client has

 private:
  Loop& loop_;
  std::shared_ptr<Connection> connection_;  // null once done or gone
  std::function<void()> callback_;
  bool gone_ = false;
};

}  // namespace penstock::http
