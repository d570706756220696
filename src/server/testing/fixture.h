// A real server on a free port, with the fakes behind it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <sstream>
#include <string>

#include "checkpoint/model_config.h"
#include "server/server.h"
#include "server/testing/client.h"
#include "server/testing/fakes.h"

namespace penstock::testing {

class ServerTest : public ::testing::Test {
 protected:
  ServerTest() {
    options_.port = 0;
    options_.served_model_names = {"fake", "org/fake-7b"};
    options_.version = "1.2.3";
    generation_config_.do_sample = false;
  }

  void TearDown() override {
    if (server_) server_->stop();
    if (engine_) engine_->stop();
  }

  void listen() {
    auto server = Server::start(options_);
    ASSERT_TRUE(server.ok()) << server.status().message();
    server_ = *std::move(server);
  }

  void start(FakeEngine::Scripter scripter = echo_script,
             std::chrono::microseconds step_time = std::chrono::microseconds(200)) {
    listen();
    if (!server_) return;
    engine_ = std::make_unique<FakeEngine>(server_->event_sink(), std::move(scripter), step_time);
    serve();
  }

  void serve() {
    ServedModel model;
    model.engine = engine_.get();
    model.tokenizer = &tokenizer_;
    model.chat_template = template_.get();
    model.generation_config = &generation_config_;
    model.vocab_size = kVocab;
    model.created = 1700000000;
    server_->serve(model);
  }

  Answer ask(const std::string& method, const std::string& path, const std::string& body = {},
             const std::string& more_headers = {}) {
    Client client(server_->port());
    return client.ask(method, path, body, more_headers);
  }

  std::string metric(const std::string& name) {
    std::istringstream lines(ask("GET", "/metrics").body);
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with(name) && line.size() > name.size() && line[name.size()] == ' ') {
        return line.substr(name.size() + 1);
      }
    }
    return "";
  }

  template <typename Condition>
  static bool eventually(Condition condition, double seconds = 10) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return true;
  }

  ServerOptions options_;
  FakeTokenizer tokenizer_;
  std::unique_ptr<FakeTemplate> template_ = std::make_unique<FakeTemplate>();
  GenerationConfig generation_config_;
  std::unique_ptr<FakeEngine> engine_;  // outlives the server
  std::unique_ptr<Server> server_;
};

}  // namespace penstock::testing
