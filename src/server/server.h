// The HTTP server: OpenAI's API over an Engine. It listens before the model is loaded, so that /health can say so.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "penstock/engine.h"
#include "penstock/status.h"

namespace penstock {

class Tokenizer;
class ChatTemplate;
struct GenerationConfig;

struct ServerOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 8000;                    // 0: any free one, see Server::port()
  std::vector<std::string> api_keys;            // empty: none asked for
  std::vector<std::string> served_model_names;  // the first is what answers carry; requests may name any of them
  std::int64_t max_body_bytes = 16LL << 20;
  std::int32_t max_header_bytes = 16 << 10;
  double header_timeout_s = 10, body_timeout_s = 30, idle_timeout_s = 75;
  double write_timeout_s = 60;  // a client that does not read is dropped, its request cancelled
  std::int32_t max_connections = 8192;
  std::int32_t max_n = 128;  // choices a request may ask for
  std::int32_t http_threads = 1;
  std::vector<std::string> cors_origins;  // empty: no CORS headers
  std::string version;                    // for /version and the Server header
  bool debug_endpoints = false;           // GET /debug/invariants
};

// What answers requests once loading is done. Everything outlives the Server.
struct ServedModel {
  Engine* engine = nullptr;
  const Tokenizer* tokenizer = nullptr;
  const ChatTemplate* chat_template = nullptr;  // null: /v1/chat/completions says the checkpoint has none
  // Defaults of sampling parameters, unless use_model_defaults is false.
  const GenerationConfig* generation_config = nullptr;
  bool use_model_defaults = true;
  std::int32_t vocab_size = 0;
  std::int64_t created = 0;  // unix seconds, for /v1/models
};

class Server {
 public:
  // Binds and listens at once; an address in use is kUnavailable with host and port.
  static Expected<std::unique_ptr<Server>> start(const ServerOptions& options);
  virtual ~Server() = default;

  virtual std::uint16_t port() const = 0;
  virtual EventSink event_sink() = 0;                // to create the Engine with
  virtual void serve(const ServedModel& model) = 0;  // from now on /health is 200
  virtual void fail(const std::string& why) = 0;     // the engine broke: 503 with the reason from now on

  // New requests get 503, /health 503 "draining"; open streams go on until the engine has finished or cancelled them.
  virtual void begin_drain() = 0;
  // Closes the listener and connections (after what is written has left, at most a second) and joins the threads.
  virtual void stop() = 0;
};

}  // namespace penstock
