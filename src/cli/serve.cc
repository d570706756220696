// penstock serve: listens at once, loads, serves until a signal comes, finishes what is running, leaves.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <ctime>
#include <fstream>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/loading.h"
#include "cli/options.h"
#include "cli/signals.h"
#include "cli/version.h"
#include "penstock/engine.h"
#include "server/server.h"

namespace penstock::cli {
namespace {

struct ServeArguments {
  ModelArguments model;
  EngineOptions engine;
  ServerOptions server;
  std::string api_key_file;
  double shutdown_timeout_s = 30;
};

// 127.0.0.0/8, ::1 and localhost: nobody but this machine can connect.
bool is_loopback(const std::string& host) {
  if (host == "localhost") return true;
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

std::string url(const std::string& host, int port) {
  return host.find(':') == std::string::npos ? fmt::format("http://{}:{}", host, port)
                                             : fmt::format("http://[{}]:{}", host, port);
}

// One key a line; blank lines do not count.
Status read_api_keys(const std::string& path, std::vector<std::string>& keys) {
  std::ifstream file(path);
  if (!file) return not_found(fmt::format("--api-key-file: cannot read {}", path));
  const std::size_t before = keys.size();
  for (std::string line; std::getline(file, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty()) keys.push_back(line);
  }
  // An empty file would otherwise open the server to everybody.
  if (keys.size() == before) return invalid_argument(fmt::format("--api-key-file: {} has no key in it", path));
  return {};
}

// Every connection needs a descriptor; the soft limit is often 1,024 where the hard one is far higher.
void raise_open_files(std::int32_t connections) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t wanted = static_cast<rlim_t>(connections) + 128;
  if (limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(limit.rlim_max, wanted);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < wanted) {
    print_warning(fmt::format("{} files may be open at most, so fewer than {} connections fit; raise `ulimit -n`",
                              limit.rlim_cur, connections));
  }
}

class Serving {
 public:
  explicit Serving(ServeArguments& arguments)
      : arguments_(arguments), watcher_([this](int signal, int count) { on_signal(signal, count); }) {}
  int run();

 private:
  void on_signal(int signal, int count);
  Status load();
  void wait_for_signal();
  void drain();

  ServeArguments& arguments_;
  Stopwatch start_;
  LoadedModel loaded_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Server> server_;  // goes before what it serves
  std::mutex mutex_;
  std::condition_variable signalled_;
  bool serving_ = false;  // guarded by mutex_, as is stop_
  bool stop_ = false;
  SignalWatcher watcher_;  // its thread uses what stands above
};

// On the watcher's thread.
void Serving::on_signal(int signal, int count) {
  const std::lock_guard lock(mutex_);
  if (count > 1) {
    print_note("second signal: stopping at once");
    _exit(128 + signal);
  }
  if (!serving_) {  // nobody is being answered yet, and loading cannot be interrupted
    print_note("stopped while loading");
    _exit(kExitOk);
  }
  stop_ = true;
  signalled_.notify_all();
}

Status Serving::load() {
  LoadNeeds needs;
  needs.tokenizer = Need::kRequired;
  needs.chat_template = Need::kOptional;
  PENSTOCK_ASSIGN_OR_RETURN(loaded_, load_model(arguments_.model, needs));
  Stopwatch watch;
  PENSTOCK_ASSIGN_OR_RETURN(
      engine_, Engine::create(*loaded_.model, loaded_.tokenizer.get(), arguments_.engine, server_->event_sink()));
  loaded_.phases.push_back({"plan memory", watch.lap()});
  fmt::print(stderr, "{}{}{}\n{}", describe_model(loaded_), describe_kernels(loaded_.model->kernels()),
             engine_->memory_plan(), describe_phases(loaded_.phases));
  if (loaded_.chat_template == nullptr) {
    print_warning("the model has no chat template: /v1/chat/completions will say so, /v1/completions works");
  }
  ServedModel served;
  served.engine = engine_.get();
  served.tokenizer = loaded_.tokenizer.get();
  served.chat_template = loaded_.chat_template.get();
  served.generation_config = &loaded_.model->generation_config();
  served.use_model_defaults = arguments_.model.use_generation_config;
  served.vocab_size = loaded_.model->config().vocab_size;
  served.created = static_cast<std::int64_t>(std::time(nullptr));
  {
    const std::lock_guard lock(mutex_);
    serving_ = true;
  }
  server_->serve(served);
  return {};
}

void Serving::wait_for_signal() {
  std::unique_lock lock(mutex_);
  signalled_.wait(lock, [&] { return stop_; });
}

void Serving::drain() {
  const EngineStats stats = engine_->stats();
  fmt::print(stderr,
             "penstock: stopping: {} running and {} waiting requests have {} s (a second signal stops at once)\n",
             stats.running, stats.waiting, arguments_.shutdown_timeout_s);
  server_->begin_drain();
  engine_->drain(arguments_.shutdown_timeout_s);
  server_->stop();
  const EngineStats end = engine_->stats();
  fmt::print(stderr, "penstock: stopped: {} requests finished, {} cancelled, {} failed\n", end.finished, end.cancelled,
             end.failed);
}

int Serving::run() {
  ServerOptions& options = arguments_.server;
  const auto folder = find_model(arguments_.model.model);
  if (!folder.ok()) return report(folder.status());
  if (options.served_model_names.empty()) options.served_model_names.push_back(model_name(*folder));
  if (!arguments_.api_key_file.empty()) {
    if (Status status = read_api_keys(arguments_.api_key_file, options.api_keys); !status.ok()) {
      return report_usage(status.message());
    }
  }
  if (!is_loopback(options.host) && options.api_keys.empty()) {
    print_warning(
        fmt::format("listening on {} without --api-key: whoever reaches this machine can use the model", options.host));
  }
  raise_open_files(options.max_connections);
  options.version = version();
  options.debug_endpoints = arguments_.engine.debug_invariants;
  auto server = Server::start(options);
  if (!server.ok()) return report(server.status());
  server_ = *std::move(server);
  const std::string address = url(options.host, server_->port());
  fmt::print(stderr, "penstock {}: listening on {}, loading {}\n", version(), address, folder->string());

  if (Status status = load(); !status.ok()) {
    server_->stop();
    return report(status);
  }
  const std::string ready = fmt::format("ready: {} serves {} after {}\n", address, options.served_model_names.front(),
                                        human_seconds(start_.seconds()));
  if (Status status = write_stdout(ready); !status.ok()) print_warning(status.message());
  wait_for_signal();
  drain();
  return kExitOk;
}

void add_server_options(CLI::App& app, ServeArguments& arguments) {
  ServerOptions& options = arguments.server;
  constexpr const char* kServer = "Server";
  add_text(app, "--host", options.host, "ADDRESS", "address to listen on; 0.0.0.0: all of the machine's")
      ->default_str(options.host)
      ->group(kServer);
  add_integer(app, "--port", options.port, 0, 65535, "PORT", "port to listen on; 0: any free one, which is printed")
      ->default_str(std::to_string(options.port))
      ->group(kServer);
  add_list(app, "--api-key", options.api_keys, "KEY",
           "clients must send this key; may be repeated. Others can read command lines: better PENSTOCK_API_KEY or "
           "--api-key-file")
      ->check(CLI::Validator([](std::string& text) { return text.empty() ? "--api-key: must not be empty" : ""; }, ""))
      ->group(kServer);
  add_text(app, "--api-key-file", arguments.api_key_file, "FILE", "keys, one a line")->group(kServer);
  add_list(app, "--served-model-name", options.served_model_names, "NAME",
           "what clients call the model, instead of its folder's name; may be repeated")
      ->check(CLI::Validator(
          [](std::string& text) { return text.empty() ? "--served-model-name: must not be empty" : ""; }, ""))
      ->group(kServer);
  add_list(app, "--cors-origin", options.cors_origins, "ORIGIN",
           "web pages of this origin may use the server; *: of any. May be repeated")
      ->group(kServer);
  add_real(app, "--shutdown-timeout", arguments.shutdown_timeout_s, 0, 86400, "SECONDS",
           "how long running requests may go on after SIGTERM or Ctrl-C")
      ->default_str(fmt::format("{}", arguments.shutdown_timeout_s))
      ->group(kServer);
  add_integer(app, "--http-threads", options.http_threads, 1, 64, "N", "threads for connections")
      ->default_str(std::to_string(options.http_threads))
      ->group(kServer);
}

void add_limit_options(CLI::App& app, ServerOptions& options) {
  constexpr const char* kLimits = "Limits";
  add_integer(app, "--max-connections", options.max_connections, 1, 1'000'000, "N", "connections at a time")
      ->default_str(std::to_string(options.max_connections))
      ->group(kLimits);
  add_integer(app, "--max-n", options.max_n, 1, 1024, "N", "answers a request may ask for")
      ->default_str(std::to_string(options.max_n))
      ->group(kLimits);
  add_parsed(app, "--max-body-size", "SIZE", "largest body of a request, as in 16M",
             [&options](const std::string& text) -> Status {
               PENSTOCK_ASSIGN_OR_RETURN(options.max_body_bytes, parse_size(text));
               return {};
             })
      ->default_str("16M")
      ->group(kLimits);
  add_integer(app, "--max-header-bytes", options.max_header_bytes, 1024, 1 << 20, "BYTES",
              "largest header of a request")
      ->default_str(std::to_string(options.max_header_bytes))
      ->group(kLimits);
  const auto timeout = [&](const char* name, double& value, const char* help) {
    add_real(app, name, value, 0.1, 86400, "SECONDS", help)->default_str(fmt::format("{}", value))->group(kLimits);
  };
  timeout("--header-timeout", options.header_timeout_s, "to send a request's header");
  timeout("--body-timeout", options.body_timeout_s, "to send a request's body");
  timeout("--idle-timeout", options.idle_timeout_s, "between two requests of a connection");
  timeout("--write-timeout", options.write_timeout_s, "for a client that does not read; then its request is cancelled");
}

}  // namespace

Command make_serve(CLI::App& parent) {
  auto arguments = std::make_shared<ServeArguments>();
  CLI::App* app = parent.add_subcommand("serve", "answer OpenAI's HTTP API");
  add_model_options(*app, arguments->model, SeedOption::kWeights, "info");
  add_server_options(*app, *arguments);
  add_engine_options(*app, arguments->engine);
  add_queue_options(*app, arguments->engine);
  add_limit_options(*app, arguments->server);
  return {app, [arguments] {
            set_up_logging(arguments->model.log_level);
            // A client that goes away while it is written to is an error of that connection.
            std::signal(SIGPIPE, SIG_IGN);
            return Serving(*arguments).run();
          }};
}

}  // namespace penstock::cli
