// Endpoints that answer at once.
#include "server/openai/api.h"

namespace penstock::openai {
namespace {

std::string token_array(const std::vector<std::int32_t>& ids) {
  std::string text = "[";
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) text += ',';
    text += std::to_string(ids[i]);
  }
  return text + ']';
}

}  // namespace

http::Response Api::health() const {
  http::Response response;
  if (const auto error = why_not_ready()) {
    response.status = 503;
    response.headers.emplace_back("Retry-After", std::to_string(error->retry_after_s));
    response.body = R"({"status":)";
    append_json_string(response.body, error->code);
    response.body += R"(,"message":)";
    append_json_string(response.body, error->message);
    response.body += '}';
  } else {
    response.body = R"({"status":"ok"})";
  }
  return response;
}

http::Response Api::metrics() const {
  MetricsSnapshot snapshot;
  if (const http::HttpServer* server = http_) snapshot.connections = server->connections();
  snapshot.ready = !why_not_ready();
  snapshot.has_engine = ready_;
  if (ready_) snapshot.engine = service_->model.engine->stats();
  http::Response response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = metrics_->text(snapshot);
  return response;
}

http::Response Api::models(const std::string& id) const {
  const auto describe = [&](const std::string& name) {
    std::string text = R"({"id":)";
    append_json_string(text, name);
    text += R"(,"object":"model","created":)" + std::to_string(service_->model.created) +
            R"(,"owned_by":"penstock","root":)";
    append_json_string(text, service_->name);
    return text + R"(,"max_model_len":)" + std::to_string(service_->model.engine->context_length()) + '}';
  };
  http::Response response;
  std::string list;
  for (const std::string& name : options_.served_model_names) {
    if (name == id) {
      response.body = describe(name);
      return response;
    }
    if (!list.empty()) list += ',';
    list += describe(name);
  }
  if (!id.empty()) {
    return error_response({404, "The model '" + id + "' does not exist here.", "model", "model_not_found", 0});
  }
  response.body = R"({"object":"list","data":[)" + list + "]}";
  return response;
}

http::Response Api::tokenize(const std::string& body) const {
  Json object;
  if (const auto error = parse_body(body, &object)) return error_response(*error);
  Reader reader(object);
  const ServedModel& model = service_->model;
  read_model_name(reader, context());
  reader.boolean("add_special_tokens");  // no supported tokenizer adds any
  const auto special =
      reader.boolean("parse_special_tokens").value_or(false) ? SpecialTokens::kParse : SpecialTokens::kAsText;
  const bool with_strings = reader.boolean("return_token_strs").value_or(false);
  const bool is_chat = reader.find("messages") != nullptr;
  PromptInput input;
  ChatInput chat;
  if (is_chat) {
    if (reader.find("prompt") != nullptr) reader.fail("prompt", "and messages exclude each other");
    read_chat_input(reader, context(), &chat);
  } else if (auto prompt = reader.string("prompt")) {
    input.text = *std::move(prompt);
  } else {
    reader.fail("prompt", "is missing; give prompt or messages");
  }
  log_ignored_fields(reader);
  if (reader.failed()) return error_response(*reader.error());
  auto prompt = is_chat ? encode_chat_prompt(model, chat, special) : encode_text_prompt(model, input, special);
  if (!prompt.ok()) return error_response(from_status(prompt.status(), is_chat ? "messages" : "prompt"));
  if (!is_chat) {  // what the model sees, after normalisation
    auto text = model.tokenizer->decode(prompt->ids, false);
    if (!text.ok()) return error_response(from_status(text.status(), "prompt"));
    prompt->text = *std::move(text);
  }
  http::Response response;
  response.body = R"({"count":)" + std::to_string(prompt->ids.size()) + R"(,"max_model_len":)" +
                  std::to_string(model.engine->context_length()) + R"(,"tokens":)" + token_array(prompt->ids) +
                  R"(,"token_strs":)";
  if (with_strings) {
    for (std::size_t i = 0; i < prompt->ids.size(); ++i) {
      response.body += i > 0 ? "," : "[";
      append_json_string(response.body, model.tokenizer->token_bytes(prompt->ids[i]));
    }
    response.body += prompt->ids.empty() ? "[]" : "]";
  } else {
    response.body += "null";
  }
  response.body += R"(,"text":)";
  append_json_string(response.body, prompt->text);
  response.body += '}';
  return response;
}

http::Response Api::detokenize(const std::string& body) const {
  Json object;
  if (const auto error = parse_body(body, &object)) return error_response(*error);
  Reader reader(object);
  read_model_name(reader, context());
  const bool skip_special = reader.boolean("skip_special_tokens").value_or(false);
  std::vector<std::int32_t> ids;
  const Json* tokens = reader.find("tokens");
  if (tokens == nullptr) {
    reader.fail("tokens", "is missing");
  } else if (!tokens->is_array()) {
    reader.fail("tokens", std::string("must be an array of token ids, not ") + type_name(*tokens));
  } else if (auto read = read_token_ids(reader, *tokens, "tokens", service_->model.vocab_size)) {
    ids = *std::move(read);
  }
  if (reader.failed()) return error_response(*reader.error());
  const auto text = service_->model.tokenizer->decode(ids, skip_special);
  if (!text.ok()) return error_response(from_status(text.status(), "tokens"));
  http::Response response;
  response.body = R"({"prompt":)";
  append_json_string(response.body, *text);
  response.body += R"(,"text":)";
  append_json_string(response.body, *text);
  response.body += '}';
  return response;
}

http::Response Api::flush_cache() const {
  service_->model.engine->flush_cache();
  http::Response response;
  response.body = R"({"status":"ok","message":"The prefix cache is empty."})";
  return response;
}

http::Response Api::invariants() const {
  const Status status = service_->model.engine->check_invariants();
  if (!status.ok()) return error_response({500, status.message(), {}, "invariant_violated", 0});
  http::Response response;
  response.body = R"({"status":"ok"})";
  return response;
}

}  // namespace penstock::openai
