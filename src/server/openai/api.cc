#include "server/openai/api.h"

#include <algorithm>
#include <array>
#include <cctype>

#include <spdlog/spdlog.h>

namespace penstock::openai {
namespace {

constexpr std::size_t kLargeBodyBytes = 64 << 10;  // longer requests are read and tokenised off the event loop

enum class Endpoint : std::uint8_t {
  kHealth,
  kMetrics,
  kVersion,
  kModels,
  kModel,
  kChat,
  kCompletions,
  kTokenize,
  kDetokenize,
  kFlushCache,
  kInvariants
};

enum class Methods : std::uint8_t {
  kGet,        // and HEAD
  kPost,       // with a JSON body
  kGetOrPost,  // it does something, and reads no body
};

struct Route {
  std::string_view path;
  Methods methods;
  bool open;  // needs no key
  bool needs_model;
  Endpoint endpoint;
};

constexpr std::array kRoutes = {
    Route{"/health", Methods::kGet, true, false, Endpoint::kHealth},
    Route{"/ping", Methods::kGet, true, false, Endpoint::kHealth},
    Route{"/metrics", Methods::kGet, false, false, Endpoint::kMetrics},
    Route{"/version", Methods::kGet, false, false, Endpoint::kVersion},
    Route{"/v1/models", Methods::kGet, false, true, Endpoint::kModels},
    Route{"/v1/models/", Methods::kGet, false, true, Endpoint::kModel},  // and an id
    Route{"/v1/chat/completions", Methods::kPost, false, true, Endpoint::kChat},
    Route{"/v1/completions", Methods::kPost, false, true, Endpoint::kCompletions},
    Route{"/tokenize", Methods::kPost, false, true, Endpoint::kTokenize},
    Route{"/detokenize", Methods::kPost, false, true, Endpoint::kDetokenize},
    Route{"/flush_cache", Methods::kGetOrPost, false, true, Endpoint::kFlushCache},
    Route{"/debug/invariants", Methods::kGet, false, true, Endpoint::kInvariants},
};

bool takes(Methods methods, std::string_view method) {
  switch (methods) {
    case Methods::kGet:
      return method == "GET" || method == "HEAD";
    case Methods::kPost:
      return method == "POST";
    case Methods::kGetOrPost:
      return method == "GET" || method == "POST";
  }
  return false;
}

const char* allowed(Methods methods) {
  switch (methods) {
    case Methods::kGet:
      return "GET, HEAD";
    case Methods::kPost:
      return "POST";
    case Methods::kGetOrPost:
      return "GET, POST";
  }
  return "";
}

const Route* find_route(std::string_view path, bool debug_endpoints) {
  for (const Route& route : kRoutes) {
    if (route.endpoint == Endpoint::kInvariants && !debug_endpoints) continue;
    if (route.endpoint == Endpoint::kModel ? path.size() > route.path.size() && path.starts_with(route.path)
                                           : path == route.path) {
      return &route;
    }
  }
  return nullptr;
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

bool is_json(std::string_view content_type) {
  std::string type = lower(content_type.substr(0, content_type.find(';')));
  type.erase(type.find_last_not_of(" \t") + 1);
  return type.empty() || type == "application/json" || (type.starts_with("application/") && type.ends_with("+json"));
}

// The time depends on the length of what the client sent, not on how much of it is right.
bool same_secret(std::string_view given, std::string_view secret) {
  unsigned difference = given.size() == secret.size() ? 0 : 1;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const char expected = secret.empty() ? '\0' : secret[i % secret.size()];
    difference |= static_cast<unsigned>(static_cast<unsigned char>(given[i] ^ expected));
  }
  return difference == 0;
}

http::Response json_response(std::string body) {
  http::Response response;
  response.body = std::move(body);
  return response;
}

}  // namespace

Api::Api(const ServerOptions& options)
    : options_(options),
      metrics_(Metrics::create(options.version)),
      router_(std::make_shared<EventRouter>()),
      worker_(1) {}

void Api::serve(const ServedModel& model) {
  auto service = std::make_unique<Service>();
  service->model = model;
  service->template_takes_parts = template_takes_parts(model.chat_template);
  service->name = options_.served_model_names.front();
  service->router = router_.get();
  service->metrics = metrics_.get();
  service_ = std::move(service);
  ready_ = true;
}

void Api::fail(const std::string& why) {
  const std::lock_guard lock(failure_mutex_);
  failure_ = why;
  failed_ = true;
}

std::optional<ApiError> Api::why_not_ready() const {
  if (failed_) {
    const std::lock_guard lock(failure_mutex_);
    return ApiError{503, "The server has failed: " + failure_, {}, "failed", 10};
  }
  if (draining_) return ApiError{503, "The server is shutting down and takes no new requests.", {}, "draining", 5};
  if (!ready_) return ApiError{503, "The model is still being loaded.", {}, "loading", 1};
  return std::nullopt;
}

bool Api::authorized(const http::RequestHead& head) const {
  if (options_.api_keys.empty()) return true;
  const std::string_view value = head.header("authorization");
  constexpr std::string_view kScheme = "bearer ";
  if (lower(value.substr(0, kScheme.size())) != kScheme) return false;
  std::string_view key = value.substr(kScheme.size());
  key.remove_prefix(std::min(key.find_first_not_of(' '), key.size()));
  bool found = false;
  for (const std::string& known : options_.api_keys) found |= same_secret(key, known);
  return found;
}

bool Api::origin_allowed(std::string_view origin) const {
  return std::any_of(options_.cors_origins.begin(), options_.cors_origins.end(),
                     [&](const std::string& allowed) { return allowed == "*" || allowed == origin; });
}

std::optional<http::Response> Api::preflight(const http::RequestHead& head) const {
  const bool asked = head.method == "OPTIONS" && !head.header("origin").empty() &&
                     !head.header("access-control-request-method").empty();
  if (!asked || options_.cors_origins.empty()) return std::nullopt;
  http::Response response;
  response.status = 204;
  response.headers = {{"Access-Control-Allow-Methods", "GET, POST, OPTIONS"},
                      {"Access-Control-Allow-Headers", "Authorization, Content-Type, X-Request-Id"},
                      {"Access-Control-Max-Age", "600"}};
  return response;
}

std::optional<http::Response> Api::check_head(const http::RequestHead& head) {
  if (auto response = preflight(head)) return response;
  const Route* route = find_route(head.path, options_.debug_endpoints);
  if ((route == nullptr || !route->open) && !authorized(head)) {
    const bool missing = head.header("authorization").empty();
    return error_response({401,
                           missing ? "No API key: send it as 'Authorization: Bearer KEY'."
                                   : "The API key is wrong, or not sent as 'Authorization: Bearer KEY'.",
                           {},
                           "invalid_api_key",
                           0});
  }
  if (route == nullptr) {
    return error_response(
        {404, "There is no '" + head.path + "' here. See docs/api.md for what there is.", {}, "not_found", 0});
  }
  if (!takes(route->methods, head.method)) {
    const char* allow = allowed(route->methods);
    auto response = error_response(
        {405, head.path + " does not take " + head.method + " but " + allow + '.', {}, "method_not_allowed", 0});
    response.headers.emplace_back("Allow", allow);
    return response;
  }
  if (route->methods == Methods::kPost && !is_json(head.header("content-type"))) {
    return error_response(
        {415, "The body must be JSON: send 'Content-Type: application/json'.", {}, "unsupported_media_type", 0});
  }
  if (route->needs_model) {
    if (const auto error = why_not_ready()) return error_response(*error);
  }
  return std::nullopt;
}

http::Response Api::protocol_error(int status, const std::string& message) {
  return error_response({status, message, {}, status == 408 ? "timeout" : "", status == 503 ? 1 : 0});
}

void Api::finish_head(const http::RequestHead& head, http::Response& response) {
  const Route* route = find_route(head.path, options_.debug_endpoints);
  const std::string label = route == nullptr                      ? "other"
                            : route->endpoint == Endpoint::kModel ? "/v1/models/{id}"
                                                                  : std::string(route->path);
  metrics_->count_response(label, response.status);
  spdlog::debug("http: {} {} -> {} ({})", route == nullptr ? "?" : head.method, label, response.status,
                head.request_id);
  if (options_.cors_origins.empty()) return;
  const std::string_view origin = head.header("origin");
  if (!origin.empty() && origin_allowed(origin)) {
    response.headers.emplace_back("Access-Control-Allow-Origin", origin);
    response.headers.emplace_back("Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
  }
  response.headers.emplace_back("Vary", "Origin");
}

void Api::handle(http::Request request, std::shared_ptr<http::Exchange> exchange) {
  try {
    dispatch(std::move(request), exchange);
  } catch (const std::exception& e) {
    spdlog::error("http: a request failed: {}", e.what());
    exchange->respond(error_response({500, "The server could not handle this request.", {}, "internal_error", 0}));
  }
}

void Api::dispatch(http::Request request, const std::shared_ptr<http::Exchange>& exchange) {
  const Route* route = find_route(request.head.path, options_.debug_endpoints);
  // check_head() has refused the rest, but loading, draining and failing may come while a body arrives.
  if (route->needs_model) {
    if (const auto error = why_not_ready()) return exchange->respond(error_response(*error));
  }
  switch (route->endpoint) {
    case Endpoint::kHealth:
      return exchange->respond(health());
    case Endpoint::kMetrics:
      return exchange->respond(metrics());
    case Endpoint::kModels:
      return exchange->respond(models(""));
    case Endpoint::kModel:
      return exchange->respond(models(request.head.path.substr(route->path.size())));
    case Endpoint::kChat:
      return generate(std::move(request), exchange, true);
    case Endpoint::kCompletions:
      return generate(std::move(request), exchange, false);
    case Endpoint::kTokenize:
      return answer(std::move(request), exchange, &Api::tokenize);
    case Endpoint::kDetokenize:
      return answer(std::move(request), exchange, &Api::detokenize);
    case Endpoint::kFlushCache:
      return answer_off_loop(exchange, &Api::flush_cache);
    case Endpoint::kInvariants:
      return answer_off_loop(exchange, &Api::invariants);
    case Endpoint::kVersion: {
      std::string body = R"({"version":)";
      append_json_string(body, options_.version);
      return exchange->respond(json_response(body + '}'));
    }
  }
}

void Api::run(std::size_t bytes, const std::shared_ptr<http::Exchange>& exchange, std::function<Continuation()> job) {
  const auto guarded = [exchange, job = std::move(job)]() -> Continuation {
    try {
      return job();
    } catch (const std::exception& e) {
      spdlog::error("http: a request failed: {}", e.what());
      return [exchange] {
        exchange->respond(error_response({500, "The server could not handle this request.", {}, "internal_error", 0}));
      };
    }
  };
  if (bytes <= kLargeBodyBytes) {
    guarded()();
  } else {
    worker_.run([exchange, guarded] { exchange->executor().post(guarded()); });
  }
}

void Api::answer(http::Request request, const std::shared_ptr<http::Exchange>& exchange,
                 http::Response (Api::*endpoint)(const std::string& body) const) {
  const std::size_t bytes = request.body.size();
  run(bytes, exchange, [this, exchange, endpoint, body = std::move(request.body)]() -> Continuation {
    return [exchange, response = (this->*endpoint)(body)] { exchange->respond(response); };
  });
}

void Api::answer_off_loop(const std::shared_ptr<http::Exchange>& exchange, http::Response (Api::*endpoint)() const) {
  run(kLargeBodyBytes + 1, exchange, [this, exchange, endpoint]() -> Continuation {
    return [exchange, response = (this->*endpoint)()] { exchange->respond(response); };
  });
}

void Api::generate(http::Request request, const std::shared_ptr<http::Exchange>& exchange, bool chat) {
  const std::size_t bytes = request.body.size();
  const auto arrived = request.arrived;
  run(bytes, exchange, [this, exchange, arrived, chat, body = std::move(request.body)]() -> Continuation {
    auto call = std::make_shared<Call>();
    auto prompts = std::make_shared<std::vector<EncodedPrompt>>();
    if (auto error = prepare(body, chat, call.get(), prompts.get())) {
      return [exchange, error = *error] { exchange->respond(error_response(error)); };
    }
    return [this, exchange, arrived, call, prompts] {
      std::make_shared<Generation>(*service_, exchange, std::move(*call), arrived)->start(std::move(*prompts));
    };
  });
}

std::optional<ApiError> Api::parse_body(const std::string& body, Json* object) const {
  if (body.empty()) return bad_request({}, "The body is empty; send a JSON object.");
  auto parsed = parse_json(body);
  if (!parsed.ok())
    return bad_request({}, "The body cannot be read: " + parsed.status().message() + '.', "invalid_json");
  if (!parsed->is_object()) {
    return bad_request({}, std::string("The body must be a JSON object, not ") + type_name(*parsed) + '.');
  }
  *object = *std::move(parsed);
  return std::nullopt;
}

std::optional<ApiError> Api::check_length(const EncodedPrompt& prompt, const std::string& param,
                                          const Call& call) const {
  const std::int64_t room = service_->model.engine->context_length();
  const auto tokens = static_cast<std::int64_t>(prompt.ids.size());
  if (tokens == 0) return bad_request(param, "The prompt is empty: it has no tokens.");
  const std::string limit =
      "This model's context holds " + std::to_string(room) + " tokens, but the prompt has " + std::to_string(tokens);
  if (tokens >= room) {
    return bad_request(param, limit + ", which leaves no room for an answer.", "context_length_exceeded");
  }
  if (call.base.max_tokens > room - tokens) {
    return bad_request("max_tokens",
                       limit + " and max_tokens asks for " + std::to_string(call.base.max_tokens) + " more. Ask for " +
                           std::to_string(room - tokens) + " or fewer, or leave max_tokens out.",
                       "context_length_exceeded");
  }
  return std::nullopt;
}

std::optional<ApiError> Api::prepare(const std::string& body, bool chat, Call* call,
                                     std::vector<EncodedPrompt>* prompts) const {
  Json object;
  if (auto error = parse_body(body, &object)) return error;
  auto error = chat ? read_chat_call(object, context(), call) : read_completion_call(object, context(), call);
  if (error) return error;
  const ServedModel& model = service_->model;
  const std::size_t count = chat ? 1 : call->prompts.size();
  for (std::size_t i = 0; i < count; ++i) {
    const std::string param = chat ? "messages" : count == 1 ? "prompt" : "prompt[" + std::to_string(i) + "]";
    auto prompt = chat ? encode_chat_prompt(model, call->chat_input, call->special)
                       : encode_text_prompt(model, call->prompts[i], call->special);
    if (!prompt.ok()) return from_status(prompt.status(), param);
    if ((error = check_length(*prompt, param, *call))) return error;
    if (call->echo && call->prompts[i].is_ids) {
      auto text = model.tokenizer->decode(prompt->ids, false);
      if (!text.ok()) return from_status(text.status(), param);
      prompt->text = *std::move(text);
    }
    prompts->push_back(*std::move(prompt));
  }
  call->prompts.clear();
  call->chat_input = {};
  return std::nullopt;
}

}  // namespace penstock::openai
