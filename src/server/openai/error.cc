#include "server/openai/error.h"

#include "server/openai/json.h"

namespace penstock::openai {
namespace {

constexpr std::size_t kMaxMessageBytes = 2000;  // messages quote what the client sent

const char* type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 429:
      return "rate_limit_error";
    case 500:
    case 501:
    case 503:
      return "server_error";
    default:
      return "invalid_request_error";
  }
}

}  // namespace

ApiError bad_request(std::string param, std::string message, std::string code) {
  return {400, std::move(message), std::move(param), std::move(code), 0};
}

ApiError not_supported(std::string param, std::string message) {
  return {400, std::move(message), std::move(param), "not_supported", 0};
}

ApiError from_status(const Status& status, std::string param) {
  switch (status.code()) {
    case StatusCode::kInvalidArgument:
      return bad_request(std::move(param), status.message());
    case StatusCode::kUnsupported:
      return not_supported(std::move(param), status.message());
    case StatusCode::kNotFound:
      return {404, status.message(), std::move(param), "not_found", 0};
    case StatusCode::kResourceExhausted:
      return {429, status.message(), {}, "queue_full", 1};
    case StatusCode::kUnavailable:
      return {503, status.message(), {}, "unavailable", 1};
    case StatusCode::kCancelled:
      return {503, status.message(), {}, "cancelled", 1};
    case StatusCode::kDeadlineExceeded:
      return {503, status.message(), {}, "timeout", 1};
    default:
      return {500, status.message(), {}, "internal_error", 0};
  }
}

std::string error_body(const ApiError& error) {
  std::string text = R"({"error":{"message":)";
  append_json_string(text, error.message.size() <= kMaxMessageBytes ? error.message
                                                                    : error.message.substr(0, kMaxMessageBytes) + " …");
  text += R"(,"type":)";
  append_json_string(text, type_of(error.status));
  text += R"(,"param":)";
  if (error.param.empty()) {
    text += "null";
  } else {
    append_json_string(text, error.param);
  }
  text += R"(,"code":)";
  if (error.code.empty()) {
    text += "null";
  } else {
    append_json_string(text, error.code);
  }
  text += "}}";
  return text;
}

http::Response error_response(const ApiError& error) {
  http::Response response;
  response.status = error.status;
  response.body = error_body(error);
  if (error.retry_after_s > 0) response.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace penstock::openai
