// The server as seen from a socket: framing, limits, clocks, clients that leave, a thousand of them.
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>

#include "server/http/http.h"
#include "server/testing/fixture.h"

namespace penstock::testing {
namespace {

const char* kPrompt = R"({"prompt":"hello"})";
const char* kStream = R"({"prompt":"hello","stream":true})";

Script endless(const Request&) {
  Script script;
  script.steps.push_back({'a', "a"});
  script.endless = true;
  return script;
}

// No token ever: a prompt that is being prefilled for long.
Script silent(const Request&) {
  Script script;
  script.steps.push_back({-1, ""});
  script.endless = true;
  return script;
}

std::size_t open_files() {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) count += entry.path().empty() ? 0 : 1;
  return count;
}

class HttpTest : public ServerTest {
 protected:
  bool idle() { return engine_->stats().running == 0; }
};

TEST(HttpText, Targets) {
  EXPECT_EQ(http::path_of_target("/a/b?x=1#y"), "/a/b");
  EXPECT_EQ(http::path_of_target("/a%2fb%20/"), "/a/b ");
  EXPECT_EQ(http::path_of_target("http://host:1/a"), "/a");
  EXPECT_EQ(http::path_of_target("http://host"), "/");
  for (const char* bad : {"", "*", "a", "/%", "/%1", "/%g0", "?x"})
    EXPECT_EQ(http::path_of_target(bad), std::nullopt) << bad;
}

TEST_F(HttpTest, KeepAliveAndClose) {
  start();
  Client client(server_->port());
  for (int i = 0; i < 5; ++i) {
    const Answer answer = client.ask("POST", "/v1/completions", i % 2 == 0 ? kPrompt : kStream);
    ASSERT_EQ(answer.status, 200);
    EXPECT_EQ(answer.header("connection"), "");
  }
  EXPECT_EQ(client.ask("GET", "/health", "", "Connection: close\r\n").header("connection"), "close");
  EXPECT_TRUE(client.wait_closed());
}

TEST_F(HttpTest, PipelinedRequestsAreAnsweredInOrder) {
  start();
  Client client(server_->port());
  std::string all;
  for (int i = 0; i < 20; ++i) {
    all += Client::request(
        "POST", "/v1/completions",
        R"({"prompt":"request )" + std::to_string(i) + R"(","stream":)" + (i % 3 == 0 ? "true}" : "false}"));
    all += Client::request("GET", "/version");
  }
  client.send(all);
  for (int i = 0; i < 20; ++i) {
    Answer answer = client.read_answer();
    ASSERT_TRUE(answer.complete) << i;
    if (i % 3 != 0) {
      EXPECT_EQ(answer.json()["choices"][0]["text"], "request " + std::to_string(i));
    }
    answer = client.read_answer();
    EXPECT_EQ(answer.json()["version"], "1.2.3");
  }
}

TEST_F(HttpTest, RequestsInSmallPieces) {
  start();
  Client client(server_->port());
  for (const char c : Client::request("POST", "/v1/completions", kPrompt)) {
    client.send(std::string_view(&c, 1));
    if (c == '\n' || c == '{') std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_EQ(client.read_answer().json()["choices"][0]["text"], "hello");
}

TEST_F(HttpTest, ChunkedBodies) {
  start();
  Client client(server_->port());
  client.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  client.send("5;ext=1\r\n{\"pro\r\n");
  client.send("d\r\nmpt\":\"hello\"}\r\n0\r\nTrailer: x\r\n\r\n");
  EXPECT_EQ(client.read_answer().json()["choices"][0]["text"], "hello");
  EXPECT_EQ(client.ask("GET", "/health").status, 200);
}

TEST_F(HttpTest, ExpectContinue) {
  start();
  Client client(server_->port());
  client.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 18\r\n\r\n");
  EXPECT_EQ(client.read_answer().status, 100);
  client.send(kPrompt);
  EXPECT_EQ(client.read_answer().json()["choices"][0]["text"], "hello");
  Client refused(server_->port());  // the answer comes instead of 100
  refused.send("POST /nowhere HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 18\r\n\r\n");
  EXPECT_EQ(refused.read_answer().status, 404);
  Client odd(server_->port());
  odd.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: a miracle\r\nContent-Length: 18\r\n\r\n");
  EXPECT_EQ(odd.read_answer().status, 417);
}

TEST_F(HttpTest, HeadHasNoBody) {
  start();
  Client client(server_->port());
  client.send(Client::request("HEAD", "/v1/models") + Client::request("GET", "/version"));
  const Answer head = client.read_answer(true);
  EXPECT_EQ(head.status, 200);
  EXPECT_NE(head.header("content-length"), "0");
  EXPECT_EQ(client.read_answer().json()["version"], "1.2.3");
}

TEST_F(HttpTest, Http10) {
  start();
  Client plain(server_->port());
  plain.send("GET /version HTTP/1.0\r\n\r\n");
  EXPECT_EQ(plain.read_answer().json()["version"], "1.2.3");
  EXPECT_TRUE(plain.wait_closed());
  Client stream(server_->port());
  stream.send("POST /v1/completions HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 32\r\n\r\n");
  stream.send(kStream);
  const Answer answer = stream.read_answer();
  EXPECT_EQ(answer.header("transfer-encoding"), "");
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(sse_data(answer.body).back(), "[DONE]");
}

TEST_F(HttpTest, MalformedHttp) {
  start();
  const std::pair<const char*, int> table[] = {
      {"\x16\x03\x01\x02\x01\x01", 400},
      {"G@T / HTTP/1.1\r\n\r\n", 400},
      {"GET /health\r\n\r\n", 400},
      {"GET /health HTTP/2.0\r\n\r\n", 505},
      {"GET /health HTTP/1.1\r\nno colon\r\n\r\n", 400},
      {"GET /health HTTP/1.1\r\nBad Name: x\r\n\r\n", 400},
      {"GET /health HTTP/1.1\r\nA: b\x01\r\n\r\n", 400},
      {"POST /tokenize HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400},
      {"POST /tokenize HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400},
      {"POST /tokenize HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
      {"POST /tokenize HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400},
      {"POST /tokenize HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n{}", 501},
      {"POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
      {"GET health HTTP/1.1\r\n\r\n", 400},
      {"GET * HTTP/1.1\r\n\r\n", 400},
  };
  for (const auto& [bytes, status] : table) {
    Client client(server_->port());
    client.send(bytes);
    client.end_input();
    const Answer answer = client.read_answer();
    // A head that ends early may also just be a client that left.
    EXPECT_EQ(answer.status, status) << bytes << answer.body;
    EXPECT_TRUE(answer.json().contains("error")) << bytes << answer.body;
    EXPECT_TRUE(client.wait_closed()) << bytes;
  }
}

TEST_F(HttpTest, LimitsOfSize) {
  options_.max_body_bytes = 2000;
  options_.max_header_bytes = 1000;
  start();
  Client header(server_->port());
  header.send("GET /health HTTP/1.1\r\nA: " + std::string(1500, 'a') + "\r\n\r\n");
  const Answer long_header = header.read_answer();
  EXPECT_EQ(long_header.status, 431);
  EXPECT_NE(long_header.body.find("1000 bytes"), std::string::npos);
  const std::string body = R"({"prompt":")" + std::string(3000, 'x') + R"("})";
  Client announced(server_->port());
  const Answer large = announced.ask("POST", "/v1/completions", body);
  EXPECT_EQ(large.status, 413);
  EXPECT_EQ(large.header("connection"), "close");
  EXPECT_NE(large.body.find("2000 bytes"), std::string::npos);
  EXPECT_TRUE(announced.wait_closed());
  Client chunked(server_->port());
  chunked.send("POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 5; ++i) chunked.send("1f4\r\n" + std::string(500, '[') + "\r\n");
  EXPECT_EQ(chunked.read_answer().status, 413);
  EXPECT_EQ(ask("GET", "/health").status, 200);
}

TEST_F(HttpTest, AnswerToALargeRefusedBodyArrives) {
  options_.api_keys = {"key"};
  options_.max_body_bytes = 64 << 20;
  start();
  Client client(server_->port());
  client.send("POST /v1/completions HTTP/1.1\r\nContent-Length: 8000000\r\n\r\n");
  for (int i = 0; i < 80; ++i) client.send(std::string(100000, 'x'));
  EXPECT_EQ(client.read_answer().status, 401);
}

TEST_F(HttpTest, LimitsOfTime) {
  options_.header_timeout_s = 0.2;
  options_.body_timeout_s = 0.2;
  options_.idle_timeout_s = 0.3;
  start();
  Client silent_client(server_->port());
  Client half_header(server_->port());
  Client half_body(server_->port());
  Client idle_client(server_->port());
  half_header.send("GET /health HTTP/1.1\r\nA: ");
  half_body.send("POST /tokenize HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n");
  EXPECT_EQ(idle_client.ask("GET", "/health").status, 200);
  EXPECT_EQ(half_header.read_answer().status, 408);
  EXPECT_EQ(half_body.read_answer().status, 100);
  EXPECT_EQ(half_body.read_answer().status, 408);
  EXPECT_TRUE(silent_client.wait_closed());
  EXPECT_EQ(silent_client.received(), "");
  EXPECT_TRUE(idle_client.wait_closed());
  EXPECT_EQ(idle_client.received(), "");
}

TEST_F(HttpTest, TricklingHeadersDoNotExtendTheTime) {
  options_.header_timeout_s = 0.3;
  start();
  Client client(server_->port());
  client.send("GET /health HTTP/1.1\r\nA: ");
  const auto begin = std::chrono::steady_clock::now();
  while (client.send("a") && !client.read_until("408", 0.02) &&
         std::chrono::steady_clock::now() - begin < std::chrono::seconds(5)) {
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
  EXPECT_EQ(client.read_answer().status, 408);
}

TEST_F(HttpTest, ConnectionLimit) {
  options_.max_connections = 3;
  start();
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<Client>(server_->port()));
    ASSERT_EQ(clients.back()->ask("GET", "/health").status, 200);
  }
  Client extra(server_->port());
  const Answer refused = extra.read_answer();
  EXPECT_EQ(refused.status, 503);
  EXPECT_NE(refused.body.find("All 3 connections"), std::string::npos);
  clients.clear();
  EXPECT_TRUE(eventually([&] { return ask("GET", "/health").status == 200; }));
}

TEST_F(HttpTest, LeavingCancels) {
  start(endless);
  for (const bool stream : {true, false}) {
    for (const int how : {0, 1, 2}) {  // close, reset, end of input
      Client client(server_->port());
      client.send(Client::request("POST", "/v1/completions", stream ? kStream : kPrompt));
      if (stream) {
        ASSERT_TRUE(client.read_until("data: "));
      }
      ASSERT_TRUE(eventually([&] { return engine_->stats().running == 1; }));
      if (how == 0) client.close();
      if (how == 1) client.reset();
      if (how == 2) client.end_input();
      EXPECT_TRUE(eventually([&] { return idle(); })) << stream << how;
    }
  }
  EXPECT_EQ(engine_->stats().cancelled, 6);
  EXPECT_EQ(metric("penstock_client_disconnects_total"), "6");
}

TEST_F(HttpTest, LeavingBeforeTheFirstTokenCancels) {
  start(silent);
  for (const char* body : {kStream, kPrompt}) {
    Client client(server_->port());
    client.send(Client::request("POST", "/v1/completions", body));
    ASSERT_TRUE(eventually([&] { return engine_->stats().running == 1; }));
    client.close();
    EXPECT_TRUE(eventually([&] { return idle(); }));
  }
}

TEST_F(HttpTest, LeavingCancelsEveryChoice) {
  start(endless);
  Client client(server_->port());
  client.send(Client::request("POST", "/v1/completions", R"({"prompt":["a","b"],"n":3})"));
  ASSERT_TRUE(eventually([&] { return engine_->stats().running == 6; }));
  client.close();
  EXPECT_TRUE(eventually([&] { return idle(); }));
}

TEST_F(HttpTest, LeavingAfterPipeliningCancels) {
  start(endless);
  Client client(server_->port());
  client.send(Client::request("POST", "/v1/completions", kStream) + Client::request("GET", "/health"));
  ASSERT_TRUE(client.read_until("data: "));
  client.close();
  EXPECT_TRUE(eventually([&] { return idle(); }));
}

TEST_F(HttpTest, ClientsThatDoNotReadAreDropped) {
  options_.write_timeout_s = 0.3;
  start([](const Request&) {
    Script script;
    script.steps.push_back({'a', std::string(20000, 'a')});
    script.endless = true;
    return script;
  });
  Client client(server_->port(), 4096);
  client.send(Client::request("POST", "/v1/completions", kStream));
  ASSERT_TRUE(eventually([&] { return engine_->stats().running == 1; }));
  EXPECT_TRUE(eventually([&] { return idle(); }));
  EXPECT_EQ(engine_->stats().cancelled, 1);
}

TEST_F(HttpTest, ClientsThatDoNotTakeTheirAnswerAreDropped) {
  options_.write_timeout_s = 0.3;
  start([](const Request&) {
    Script script;
    script.steps.push_back({'a', std::string(30000000, 'a')});
    return script;
  });
  Client client(server_->port(), 4096);
  client.send(Client::request("POST", "/v1/completions", kPrompt));
  ASSERT_TRUE(eventually([&] { return metric("penstock_request_duration_seconds_count") == "1"; }));
  EXPECT_TRUE(eventually([&] { return metric("penstock_http_connections") == "1"; }));
  EXPECT_FALSE(client.read_answer().complete);
}

TEST_F(HttpTest, SlowReadersOfLargeAnswersGetThemWhole) {
  options_.write_timeout_s = 1;
  start([](const Request&) {
    Script script;
    script.steps.push_back({'a', std::string(3000000, 'a')});
    return script;
  });
  Client client(server_->port(), 4096);
  client.send(Client::request("POST", "/v1/completions", kPrompt));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const Answer answer = client.read_answer();
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(answer.json()["choices"][0]["text"].get<std::string>().size(), 3000000U);
}

TEST_F(HttpTest, RequestIds) {
  start();
  EXPECT_EQ(ask("GET", "/health", "", "X-Request-Id: abc-1.2:3_x\r\n").header("x-request-id"), "abc-1.2:3_x");
  for (const std::string& odd : {std::string("a b"), std::string("<script>"), std::string(200, 'a')}) {
    EXPECT_EQ(ask("GET", "/health", "", "X-Request-Id: " + odd + "\r\n").header("x-request-id").size(), 32U) << odd;
  }
  EXPECT_NE(ask("GET", "/health").header("x-request-id"), ask("GET", "/health").header("x-request-id"));
  EXPECT_EQ(ask("GET", "/nowhere", "", "X-Request-Id: q\r\n").header("x-request-id"), "q");
}

TEST_F(HttpTest, StopWithOpenStreams) {
  start(endless);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<Client>(server_->port()));
    clients.back()->send(Client::request("POST", "/v1/completions", i % 2 == 0 ? kStream : kPrompt));
  }
  ASSERT_TRUE(eventually([&] { return engine_->stats().running == 20; }));
  const auto begin = std::chrono::steady_clock::now();
  server_->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(3));
  EXPECT_TRUE(eventually([&] { return idle(); }));
  for (auto& client : clients) EXPECT_TRUE(client->wait_closed());
  EXPECT_FALSE(Client(server_->port()).connected());
}

TEST_F(HttpTest, TheServerMayEndBeforeTheEngine) {
  start(endless);
  Client client(server_->port());
  client.send(Client::request("POST", "/v1/completions", kStream));
  ASSERT_TRUE(client.read_until("data: "));
  server_.reset();
  EXPECT_TRUE(eventually([&] { return idle(); }));
}

// Many streams at once, each with its own prompt: each gets its own tokens and all is given back.
class ManyStreams : public HttpTest, public ::testing::WithParamInterface<int> {};

TEST_P(ManyStreams, EachGetsItsOwn) {
  constexpr int kStreams = 1000;
  options_.http_threads = GetParam();
  start(echo_script, std::chrono::milliseconds(1));
  ask("GET", "/health");
  ASSERT_TRUE(eventually([&] { return metric("penstock_http_connections") == "1"; }));
  const std::size_t files = open_files();
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(std::make_unique<Client>(server_->port()));
    ASSERT_TRUE(clients.back()->connected()) << i;
    ASSERT_TRUE(clients.back()->send(Client::request(
        "POST", "/v1/completions",
        R"({"stream":true,"prompt":"stream number )" + std::to_string(i) + " " + std::string(40, 'x') + R"("})")));
  }
  EXPECT_TRUE(eventually([&] { return metric("penstock_http_connections") == std::to_string(kStreams + 1); }));
  for (int i = 0; i < kStreams; ++i) {
    const Answer answer = clients[static_cast<std::size_t>(i)]->read_answer(false, 60);
    ASSERT_TRUE(answer.complete) << i << answer.body;
    const auto data = sse_data(answer.body);
    ASSERT_EQ(data.back(), "[DONE]") << i;
    std::string text;
    for (std::size_t k = 0; k + 1 < data.size(); ++k) {
      text += nlohmann::json::parse(data[k])["choices"][0]["text"].get<std::string>();
    }
    ASSERT_EQ(text, "stream number " + std::to_string(i) + " " + std::string(40, 'x'));
  }
  clients.clear();
  EXPECT_TRUE(eventually([&] { return metric("penstock_http_connections") == "1"; }));
  EXPECT_TRUE(eventually([&] { return open_files() <= files; })) << files << " before, " << open_files() << " after";
  EXPECT_EQ(metric("penstock_time_to_first_token_seconds_count"), std::to_string(kStreams));
}

INSTANTIATE_TEST_SUITE_P(Threads, ManyStreams, ::testing::Values(1, 2));

TEST_F(HttpTest, ManyStreamsLeaveAtOnce) {
  start(endless, std::chrono::milliseconds(2));
  ask("GET", "/health");
  ASSERT_TRUE(eventually([&] { return metric("penstock_http_connections") == "1"; }));
  const std::size_t files = open_files();
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 300; ++i) {
    clients.push_back(std::make_unique<Client>(server_->port()));
    clients.back()->send(Client::request("POST", "/v1/completions", kStream));
  }
  ASSERT_TRUE(eventually([&] { return engine_->stats().running == 300; }));
  for (std::size_t i = 0; i < clients.size(); ++i) i % 2 == 0 ? clients[i]->close() : clients[i]->reset();
  EXPECT_TRUE(eventually([&] { return idle(); }));
  EXPECT_TRUE(eventually([&] { return open_files() <= files; }));
}

// `promtool check metrics` where it is installed (Debian's package "prometheus").
TEST_F(HttpTest, MetricsPleasePromtool) {
  if (std::system("command -v promtool > /dev/null 2>&1") != 0) GTEST_SKIP() << "promtool is not installed";
  start();
  ask("POST", "/v1/completions", kPrompt);
  ask("GET", "/nowhere");
  FILE* promtool = popen("promtool check metrics 2>&1", "w");
  ASSERT_NE(promtool, nullptr);
  const std::string text = ask("GET", "/metrics").body;
  EXPECT_EQ(std::fwrite(text.data(), 1, text.size(), promtool), text.size());
  EXPECT_EQ(pclose(promtool), 0) << text;
}

}  // namespace
}  // namespace penstock::testing
