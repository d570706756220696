#include "server/http/connection.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <cctype>
#include <cstdio>
#include <utility>

namespace penstock::http {

namespace asio = boost::asio;
namespace beast = boost::beast;

namespace {

constexpr std::size_t kWatchBytes = 1024;          // many streams wait in a read-ahead: keep its buffer small
constexpr std::size_t kMaxPipelinedBytes = 65536;  // requests sent ahead of the current answer
constexpr std::size_t kBodyReadBytes = 65536;      // what Beast asks for at most
constexpr std::size_t kKeepBufferBytes = 8192;     // an idle connection holds no more than this
constexpr auto kLingerTime = std::chrono::seconds(2);
constexpr auto kNever = Clock::time_point::max();

Clock::time_point after(double seconds) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

std::string lower(beast::string_view text) {
  std::string result(text.data(), text.size());
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

}  // namespace

Connection::Connection(asio::ip::tcp::socket socket, Loop& loop, Shared& shared)
    : socket_(std::move(socket)),
      loop_(loop),
      shared_(shared),
      buffer_(static_cast<std::size_t>(shared.options.max_header_bytes) + kMaxPipelinedBytes + kBodyReadBytes) {
  ++shared_.connections;
}

Connection::~Connection() {
  close();
}

void Connection::start() {
  loop_.connections.insert(this);
  if (shared_.stopping) {
    close();
    return;
  }
  idle();
}

void Connection::idle() {
  state_ = State::kIdle;
  read_deadline_ = after(first_request_ ? shared_.options.header_timeout_s : shared_.options.idle_timeout_s);
  if (buffer_.size() == 0) {
    if (buffer_.capacity() > kKeepBufferBytes && !watching_) buffer_.shrink_to_fit();
    watch();
  } else if (watching_) {
    ErrorCode ignored;
    socket_.cancel(ignored);  // a pipelined request is here already; on_watch() goes on with it
  } else {
    read_header();
  }
}

void Connection::watch() {
  if (watching_ || state_ == State::kClosed || buffer_.size() >= kMaxPipelinedBytes) return;
  watching_ = true;
  const std::size_t bytes = state_ == State::kLinger ? kBodyReadBytes : kWatchBytes;
  socket_.async_read_some(buffer_.prepare(bytes), [self = shared_from_this()](ErrorCode error, std::size_t count) {
    self->on_watch(error, count);
  });
}

void Connection::on_watch(ErrorCode error, std::size_t bytes) {
  watching_ = false;
  if (state_ == State::kClosed) return;
  if (error == asio::error::operation_aborted && state_ != State::kLinger) {
    if (state_ == State::kIdle && buffer_.size() > 0) read_header();
    return;
  }
  if (error) {
    input_ended_ = true;
    if (state_ == State::kHandling && final_) return;  // the answer is complete: let it leave
    close();
    return;
  }
  buffer_.commit(bytes);
  if (state_ == State::kIdle) {
    read_header();
    return;
  }
  if (state_ == State::kLinger) buffer_.consume(buffer_.size());
  watch();
}

void Connection::read_header() {
  state_ = State::kHeader;
  timed_out_ = false;
  first_request_ = false;
  read_deadline_ = after(shared_.options.header_timeout_s);
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(shared_.options.max_header_bytes));
  parser_->body_limit(static_cast<std::uint64_t>(shared_.options.max_body_bytes));
  parser_->eager(true);
  beast::http::async_read_header(socket_, buffer_, *parser_,
                                 [self = shared_from_this()](ErrorCode error, std::size_t) { self->on_header(error); });
}

void Connection::take_head() {
  const auto& message = parser_->get();
  head_ = RequestHead();
  head_.method = std::string(message.method_string());
  head_.path = path_of_target(std::string_view(message.target().data(), message.target().size())).value_or("");
  for (const auto& field : message) {
    const auto value = field.value();
    head_.headers.emplace_back(lower(field.name_string()), std::string(value.data(), value.size()));
  }
  const std::string_view id = head_.header("x-request-id");
  head_.request_id = is_harmless_id(id) ? std::string(id) : random_id(32);
  version_ = message.version();
}

void Connection::on_header(ErrorCode error) {
  if (state_ == State::kClosed) return;
  close_after_ = true;  // until we know better
  chunked_ = streaming_ = final_ = false;
  take_head();
  if (error) {
    refuse(error);
    return;
  }
  const auto& message = parser_->get();
  if (version_ != 10 && version_ != 11) return refuse(505, "This server speaks HTTP/1.1 and HTTP/1.0.");
  if (head_.path.empty()) return refuse(400, "The request target is not a path.");
  if (message.find(beast::http::field::transfer_encoding) != message.end() && !parser_->chunked()) {
    return refuse(501, "The only transfer encoding understood is chunked.");
  }
  const bool keep_alive = parser_->keep_alive() && !shared_.no_keep_alive;
  if (auto answer = shared_.handler.check_head(head_)) {
    close_after_ = !keep_alive || !parser_->is_done();
    state_ = State::kHandling;
    read_deadline_ = kNever;
    respond(std::move(*answer));
    return;
  }
  close_after_ = !keep_alive;
  if (parser_->is_done()) {
    dispatch();
    return;
  }
  const std::string expect = lower(message[beast::http::field::expect]);
  if (!expect.empty() && expect != "100-continue") {
    close_after_ = true;
    return refuse(417, "The only expectation understood is 100-continue.");
  }
  state_ = State::kBody;
  read_deadline_ = after(shared_.options.body_timeout_s);
  if (!expect.empty() && buffer_.size() == 0) {
    out_ += "HTTP/1.1 100 Continue\r\n\r\n";
    start_write();
  }
  read_body();
}

void Connection::read_body() {
  beast::http::async_read_some(socket_, buffer_, *parser_,
                               [self = shared_from_this()](ErrorCode error, std::size_t) { self->on_body(error); });
}

void Connection::charge_body(std::int64_t bytes) {
  shared_.body_bytes += bytes - charged_bytes_;
  charged_bytes_ = bytes;
}

void Connection::on_body(ErrorCode error) {
  if (state_ == State::kClosed) return;
  if (error) {
    close_after_ = true;
    charge_body(0);
    refuse(error);
    return;
  }
  if (parser_->is_done()) {
    charge_body(0);
    dispatch();
    return;
  }
  charge_body(static_cast<std::int64_t>(parser_->get().body().size()));
  if (shared_.body_bytes > shared_.options.max_buffered_bodies_bytes) {
    close_after_ = true;
    charge_body(0);
    refuse(503, "Too many large requests are being received at once. Try again later.");
    return;
  }
  read_body();
}

void Connection::dispatch() {
  state_ = State::kHandling;
  timed_out_ = false;
  read_deadline_ = kNever;
  Request request{head_, std::move(parser_->get().body()), Clock::now()};
  parser_.reset();
  exchange_ = std::make_shared<ConnectionExchange>(shared_from_this());
  const auto exchange = exchange_;  // the handler may finish it
  shared_.handler.handle(std::move(request), exchange);
  if (state_ == State::kHandling && !final_) watch();
}

void Connection::refuse(ErrorCode error) {
  namespace bh = beast::http;
  if (error == asio::error::operation_aborted && timed_out_) {
    return refuse(408, state_ == State::kHeader ? "The request's headers did not arrive in time."
                                                : "The request's body did not arrive in time.");
  }
  if (error == bh::error::header_limit || error == bh::error::buffer_overflow) {
    if (state_ == State::kBody) return refuse(400, "The request's body is malformed: a chunk header is too long.");
    return refuse(431, "The request's headers are larger than the limit of " +
                           std::to_string(shared_.options.max_header_bytes) + " bytes.");
  }
  if (error == bh::error::body_limit) {
    return refuse(413, "The request's body is larger than the limit of " +
                           std::to_string(shared_.options.max_body_bytes) + " bytes.");
  }
  if (error == bh::error::bad_version) return refuse(505, "This server speaks HTTP/1.1 and HTTP/1.0.");
  const bool client_left = error == bh::error::end_of_stream || error == bh::error::partial_message;
  if (error.category() == bh::make_error_code(bh::error::bad_method).category() && !client_left) {
    return refuse(400, "The request is not well-formed HTTP: " + error.message() + ".");
  }
  close();  // the client left, or the connection broke: no one to tell
}

void Connection::refuse(int status, const std::string& message) {
  close_after_ = true;
  state_ = State::kHandling;
  read_deadline_ = kNever;
  respond(shared_.handler.protocol_error(status, message));
}

void Connection::append_head(Response& response, bool has_length) {
  shared_.handler.finish_head(head_, response);
  close_after_ = close_after_ || shared_.no_keep_alive;
  out_ += "HTTP/1.1 " + std::to_string(response.status) + ' ' + reason_phrase(response.status) +
          "\r\nServer: " + shared_.options.server_name + "\r\nDate: " + loop_.http_date() +
          "\r\nX-Request-Id: " + head_.request_id;
  for (const auto& [name, value] : response.headers) out_ += "\r\n" + name + ": " + value;
  if (response.status != 204) out_ += "\r\nContent-Type: " + response.content_type;
  if (has_length && response.status != 204) out_ += "\r\nContent-Length: " + std::to_string(response.body.size());
  if (chunked_) out_ += "\r\nTransfer-Encoding: chunked";
  if (close_after_) {
    out_ += "\r\nConnection: close";
  } else if (version_ == 10) {
    out_ += "\r\nConnection: keep-alive";
  }
  out_ += "\r\n\r\n";
}

void Connection::respond(Response response) {
  append_head(response, true);
  if (head_.method != "HEAD" && response.status != 204) out_ += response.body;
  final_ = true;
  start_write();
}

void Connection::begin_stream(Response head) {
  streaming_ = true;
  chunked_ = version_ >= 11;
  if (!chunked_) close_after_ = true;  // the end of the connection is the end of the stream
  append_head(head, false);
}

void Connection::flush() {
  const std::size_t waiting = out_.size() + inflight_.size() - written_;
  if (!piece_.empty()) {
    if (chunked_) {
      char size[20];
      const int digits = std::snprintf(size, sizeof size, "%zx\r\n", piece_.size());
      out_.append(size, static_cast<std::size_t>(digits));
    }
    out_ += piece_;
    if (chunked_) out_ += "\r\n";
    piece_.clear();
  }
  if (waiting > static_cast<std::size_t>(shared_.options.max_stream_buffer_bytes)) {
    // The client does not read. Not from here: the caller is in the middle of something.
    asio::post(loop_.io, [self = shared_from_this()] { self->close(); });
    return;
  }
  start_write();
}

void Connection::end_stream() {
  flush();
  if (chunked_) out_ += "0\r\n\r\n";
  final_ = true;
  start_write();
  if (inflight_.empty()) {
    asio::post(loop_.io, [self = shared_from_this()] {
      if (self->state_ == State::kHandling && self->inflight_.empty()) self->finish_response();
    });
  }
}

void Connection::start_write() {
  if (state_ == State::kClosed || !inflight_.empty() || out_.empty()) return;
  inflight_.swap(out_);
  written_ = 0;
  write_some();
}

void Connection::write_some() {
  write_deadline_ = after(shared_.options.write_timeout_s);  // since the client last took something
  socket_.async_write_some(
      asio::buffer(inflight_.data() + written_, inflight_.size() - written_),
      [self = shared_from_this()](ErrorCode error, std::size_t count) { self->on_write(error, count); });
}

void Connection::on_write(ErrorCode error, std::size_t bytes) {
  if (state_ == State::kClosed) return;
  if (error) {
    if (error == asio::error::operation_aborted) {
      write_some();  // on_deadline() meant the read beside it
    } else {
      close();
    }
    return;
  }
  written_ += bytes;
  if (written_ < inflight_.size()) {
    write_some();
    return;
  }
  inflight_.clear();
  written_ = 0;
  write_deadline_ = kNever;
  if (!out_.empty()) {
    start_write();
  } else if (final_) {
    finish_response();
  }
}

void Connection::finish_response() {
  if (const auto exchange = std::exchange(exchange_, nullptr)) exchange->finish();
  parser_.reset();
  final_ = false;
  if (close_after_ || input_ended_ || shared_.stopping) {
    linger();
  } else {
    idle();
  }
}

void Connection::linger() {
  ErrorCode error;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, error);
  if (error || input_ended_ || shared_.stopping) {
    close();
    return;
  }
  state_ = State::kLinger;
  buffer_.consume(watching_ ? 0 : buffer_.size());
  read_deadline_ = Clock::now() + kLingerTime;
  watch();
}

void Connection::on_deadline(Clock::time_point now) {
  if (now > write_deadline_) {
    close();
    return;
  }
  if (state_ == State::kHeader || state_ == State::kBody) {
    timed_out_ = true;
    // Again at the next sweep: the read may be between two parts just now, where there is nothing to cancel.
    read_deadline_ = now;
    ErrorCode ignored;
    socket_.cancel(ignored);
    return;
  }
  close();
}

void Connection::shut_down() {
  if (state_ != State::kHandling || (inflight_.empty() && out_.empty())) {
    close();
    return;
  }
  close_after_ = true;
  if (!final_) {
    final_ = true;  // cut short: what there is leaves, then the connection closes
    if (const auto exchange = std::exchange(exchange_, nullptr)) exchange->mark_gone();
  }
}

void Connection::close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  read_deadline_ = write_deadline_ = kNever;
  charge_body(0);
  ErrorCode ignored;
  socket_.close(ignored);
  loop_.connections.erase(this);
  --shared_.connections;
  if (const auto exchange = std::exchange(exchange_, nullptr)) exchange->mark_gone();
}

void ConnectionExchange::respond(Response response) {
  callback_ = nullptr;
  if (connection_) std::exchange(connection_, nullptr)->respond(std::move(response));
}

void ConnectionExchange::begin_stream(Response head) {
  if (connection_) connection_->begin_stream(std::move(head));
}

void ConnectionExchange::write(std::string_view data) {
  if (connection_) connection_->write(data);
}

void ConnectionExchange::flush() {
  if (connection_) connection_->flush();
}

void ConnectionExchange::end_stream() {
  callback_ = nullptr;
  if (connection_) std::exchange(connection_, nullptr)->end_stream();
}

void ConnectionExchange::finish() {
  connection_.reset();
  callback_ = nullptr;
}

void ConnectionExchange::mark_gone() {
  gone_ = true;
  connection_.reset();
  if (const auto callback = std::exchange(callback_, nullptr)) callback();
}

}  // namespace penstock::http
