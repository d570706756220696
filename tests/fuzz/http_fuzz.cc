// Whatever bytes a client sends: first as they are, then as the body of a request to each endpoint. The server must
// answer or close, stay well, and leave nothing running.
#include <sys/socket.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/check.h"
#include "checkpoint/model_config.h"
#include "server/server.h"
#include "server/testing/client.h"
#include "server/testing/fakes.h"

namespace penstock::testing {
namespace {

struct World {
  World() {
    ServerOptions options;
    options.port = 0;
    options.served_model_names = {"fake"};
    options.version = "fuzz";
    options.max_body_bytes = 1 << 20;
    auto started = Server::start(options);
    CHECK_MSG(started.ok(), "the server did not start");
    server = *std::move(started);
    engine = std::make_unique<FakeEngine>(server->event_sink(), echo_script, std::chrono::microseconds(1));
    server->serve({engine.get(), &tokenizer, &chat_template, &generation_config, true, kVocab, 0});
  }

  ServerOptions options;
  FakeTokenizer tokenizer;
  FakeTemplate chat_template{true};
  GenerationConfig generation_config;
  std::unique_ptr<FakeEngine> engine;
  std::unique_ptr<Server> server;
};

void send_raw(World& world, std::string_view bytes) {
  Client client(world.server->port());
  CHECK(client.connected());
  client.send(bytes);
  client.end_input();
  CHECK_MSG(client.wait_closed(20), "the connection stays open although the client is done");
}

void send_body(World& world, const char* path, const std::string& body) {
  thread_local std::unique_ptr<Client> client;
  if (!client) client = std::make_unique<Client>(world.server->port());
  const Answer answer = client->ask("POST", path, body);
  CHECK_MSG(answer.complete, "no answer");
  CHECK_MSG(answer.status == 200 || answer.status == 400 || answer.status == 404 || answer.status == 413,
            "an unexpected status");
  const bool stream = answer.header("content-type").starts_with("text/event-stream");
  for (const std::string& data : stream ? sse_data(answer.body) : std::vector<std::string>{answer.body}) {
    CHECK_MSG(data == "[DONE]" || nlohmann::json::accept(data), "the answer is not JSON");
  }
  if (answer.header("connection") == "close") client.reset();
}

}  // namespace
}  // namespace penstock::testing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace penstock::testing;
  static World world;
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  constexpr const char* kPaths[] = {"/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"};
  if (data[0] % 5 < 4) {
    send_body(world, kPaths[data[0] % 5], std::string(bytes));
  } else {
    send_raw(world, bytes);
  }
  return 0;
}
