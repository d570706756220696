// OpenAI's error object, and which HTTP status goes with what.
#pragma once

#include <string>

#include "penstock/status.h"
#include "server/http/http.h"

namespace penstock::openai {

struct ApiError {
  int status = 400;
  std::string message;
  std::string param;  // the field, as messages[0].content; empty: null
  std::string code;   // for programs, as context_length_exceeded; empty: null
  int retry_after_s = 0;
};

ApiError bad_request(std::string param, std::string message, std::string code = {});
ApiError not_supported(std::string param, std::string message);
// An engine's or tokenizer's Status; `param` is the field it is about, if known.
ApiError from_status(const Status& status, std::string param = {});

std::string error_body(const ApiError& error);  // {"error":{"message":…,"type":…,"param":…,"code":…}}
http::Response error_response(const ApiError& error);

}  // namespace penstock::openai
