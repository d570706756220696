// OpenAI's endpoints over an Engine: routes, keys, phases of the server's life.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "server/http/http_server.h"
#include "server/openai/generation.h"
#include "server/worker.h"

namespace penstock::openai {

class Api : public http::Handler {
 public:
  explicit Api(const ServerOptions& options);

  std::optional<http::Response> check_head(const http::RequestHead& head) override;
  void handle(http::Request request, std::shared_ptr<http::Exchange> exchange) override;
  http::Response protocol_error(int status, const std::string& message) override;
  void finish_head(const http::RequestHead& head, http::Response& response) override;

  void serve(const ServedModel& model);
  void fail(const std::string& why);
  void begin_drain() { draining_ = true; }
  void set_http(const http::HttpServer* server) { http_ = server; }  // for its metrics
  EventSink event_sink() { return router_->sink(); }
  void stop_workers() { worker_.stop(); }         // before the loops end
  void release_receivers() { router_->close(); }  // after the loops' threads have ended, before the loops go

 private:
  // Work that may take long: on the worker when `bytes` are many, else here; what it returns runs on the loop.
  using Continuation = std::function<void()>;
  void run(std::size_t bytes, const std::shared_ptr<http::Exchange>& exchange, std::function<Continuation()> job);

  bool authorized(const http::RequestHead& head) const;
  std::optional<ApiError> why_not_ready() const;  // 503 while loading, draining or failed
  std::optional<http::Response> preflight(const http::RequestHead& head) const;
  bool origin_allowed(std::string_view origin) const;
  void dispatch(http::Request request, const std::shared_ptr<http::Exchange>& exchange);
  void generate(http::Request request, const std::shared_ptr<http::Exchange>& exchange, bool chat);
  void answer(http::Request request, const std::shared_ptr<http::Exchange>& exchange,
              http::Response (Api::*endpoint)(const std::string& body) const);
  // For what waits for the engine's step.
  void answer_off_loop(const std::shared_ptr<http::Exchange>& exchange, http::Response (Api::*endpoint)() const);

  // Endpoints with whole answers.
  http::Response health() const;
  http::Response metrics() const;
  http::Response models(const std::string& id) const;
  http::Response tokenize(const std::string& body) const;
  http::Response detokenize(const std::string& body) const;
  http::Response flush_cache() const;
  http::Response invariants() const;

  CallContext context() const { return {service_->model, options_, service_->template_takes_parts}; }
  // The request's JSON object, or the error.
  std::optional<ApiError> parse_body(const std::string& body, Json* object) const;
  std::optional<ApiError> prepare(const std::string& body, bool chat, Call* call,
                                  std::vector<EncodedPrompt>* prompts) const;
  std::optional<ApiError> check_length(const EncodedPrompt& prompt, const std::string& param, const Call& call) const;

  const ServerOptions options_;
  std::unique_ptr<Metrics> metrics_;
  std::shared_ptr<EventRouter> router_;
  std::atomic<const http::HttpServer*> http_{nullptr};

  std::unique_ptr<Service> service_;  // set once, before ready_
  std::atomic<bool> ready_{false};
  std::atomic<bool> draining_{false};
  std::atomic<bool> failed_{false};
  mutable std::mutex failure_mutex_;
  std::string failure_;

  Worker worker_;
};

}  // namespace penstock::openai
