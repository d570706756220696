// penstock chat: a conversation in the terminal, or one read from a pipe.
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/input_lines.h"
#include "cli/loading.h"
#include "cli/options.h"
#include "cli/session.h"
#include "cli/signals.h"
#include "penstock/engine.h"

namespace penstock::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kHelp =
    "/reset        forget the conversation\n"
    "/system TEXT  start anew with this system message; without TEXT: with none\n"
    "/help         this text\n"
    "/exit         leave, as Ctrl-D does\n"
    "Ctrl-C stops an answer.\n";

struct ChatArguments {
  ModelArguments model;
  EngineOptions engine;
  SamplingArguments sampling;
  std::string system, kwargs;
  std::int32_t max_tokens = -1;
  CLI::Option* random_seed_option = nullptr;
};

// Lines of standard input. Reading waits for a line, the end, or Ctrl-C.
class LineReader {
 public:
  explicit LineReader(int wake_fd) : wake_fd_(wake_fd) {}

  enum class Result : std::uint8_t { kLine, kEnd, kInterrupted };
  Result read(std::string& line) {
    while (true) {
      const std::size_t newline = buffer_.find('\n');
      if (newline != std::string::npos) {
        line = buffer_.substr(0, newline);
        buffer_.erase(0, newline + 1);
        return Result::kLine;
      }
      if (ended_) {
        line = std::exchange(buffer_, {});
        return line.empty() ? Result::kEnd : Result::kLine;
      }
      if (!fill()) return Result::kInterrupted;
    }
  }

 private:
  // False when Ctrl-C came instead of input.
  bool fill() {
    std::array<pollfd, 2> fds{{{STDIN_FILENO, POLLIN, 0}, {wake_fd_, POLLIN, 0}}};
    if (poll(fds.data(), fds.size(), -1) < 0) return true;  // EINTR
    if ((fds[1].revents & POLLIN) != 0) {
      std::uint64_t count = 0;
      CHECK(::read(wake_fd_, &count, sizeof count) == sizeof count);
      buffer_.clear();
      return false;
    }
    std::array<char, 4096> chunk{};
    const ssize_t bytes = ::read(STDIN_FILENO, chunk.data(), chunk.size());
    if (bytes > 0) buffer_.append(chunk.data(), static_cast<std::size_t>(bytes));
    if (bytes == 0 || (bytes < 0 && errno != EINTR && errno != EAGAIN)) ended_ = true;
    return true;
  }

  int wake_fd_;
  std::string buffer_;
  bool ended_ = false;
};

class Conversation {
 public:
  explicit Conversation(ChatArguments& arguments)
      : arguments_(arguments),
        wake_fd_(eventfd(0, EFD_CLOEXEC)),
        watcher_([this](int signal, int /*count*/) { on_signal(signal); }) {
    CHECK(wake_fd_ >= 0);
  }
  ~Conversation() { close(wake_fd_); }
  Conversation(const Conversation&) = delete;
  Conversation& operator=(const Conversation&) = delete;

  int run();

 private:
  void on_signal(int signal);
  Status load();
  void reset();
  bool command(const std::string& line);  // true: leave
  Status say(const std::string& text);
  Expected<Request> make_request() const;
  Status stream(RequestId id, Answer& answer);

  ChatArguments& arguments_;
  LoadedModel loaded_;
  EventQueue events_;
  Json messages_ = Json::array();
  std::uint64_t seed_ = 0;
  bool terminal_ = isatty(STDIN_FILENO) == 1;
  int wake_fd_;  // readable after Ctrl-C at the prompt
  std::atomic<bool> loaded_all_ = false, answering_ = false, interrupted_ = false;
  std::unique_ptr<Engine> engine_;  // goes before what it uses
  SignalWatcher watcher_;           // its thread uses what stands above
};

// On the watcher's thread.
void Conversation::on_signal(int signal) {
  if (signal == SIGTERM || !loaded_all_) _exit(128 + signal);
  if (answering_) {
    interrupted_ = true;
    return;
  }
  const std::uint64_t one = 1;
  CHECK(write(wake_fd_, &one, sizeof one) == sizeof one);
}

void Conversation::reset() {
  messages_ = Json::array();
  if (!arguments_.system.empty()) messages_.push_back({{"role", "system"}, {"content", arguments_.system}});
}

bool Conversation::command(const std::string& line) {
  const std::size_t space = std::min(line.find(' '), line.size());
  const std::string name = line.substr(0, space);
  if (name == "/exit" || name == "/quit") return true;
  if (name == "/help") {
    fmt::print(stderr, "{}", kHelp);
  } else if (name == "/reset") {
    reset();
    print_note("the conversation starts anew");
  } else if (name == "/system") {
    const std::size_t text = line.find_first_not_of(' ', space);
    arguments_.system = text == std::string::npos ? "" : line.substr(text);
    reset();
    print_note(arguments_.system.empty() ? "no system message; the conversation starts anew"
                                         : "system message set; the conversation starts anew");
  } else {
    print_error(fmt::format("{} is not a command; /help lists them", name));
  }
  return false;
}

Expected<Request> Conversation::make_request() const {
  ChatTemplateInput input;
  input.messages = messages_;
  input.kwargs = Json::object();
  if (!arguments_.kwargs.empty()) {
    PENSTOCK_ASSIGN_OR_RETURN(input.kwargs, parse_kwargs(arguments_.kwargs));
  }
  Request request;
  PENSTOCK_ASSIGN_OR_RETURN(request.prompt, encode_chat(*loaded_.chat_template, *loaded_.tokenizer, input));
  if (request.prompt.size() >= static_cast<std::size_t>(engine_->context_length())) {
    return invalid_argument(fmt::format("the conversation has {} tokens and the context only {}: /reset starts anew",
                                        request.prompt.size(), engine_->context_length()));
  }
  request.sampling =
      resolve_sampling(arguments_.sampling, loaded_.model->generation_config(), arguments_.model.use_generation_config);
  request.sampling.seed = seed_;
  request.max_tokens = arguments_.max_tokens;
  if (request.max_tokens > 0) {
    const auto room =
        static_cast<std::int64_t>(engine_->context_length()) - static_cast<std::int64_t>(request.prompt.size());
    request.max_tokens = static_cast<std::int32_t>(std::min<std::int64_t>(request.max_tokens, room));
  }
  return request;
}

Status Conversation::stream(RequestId id, Answer& answer) {
  bool cancelled = false;
  while (!answer.done()) {
    for (Event& event : events_.wait(kPoll)) {
      if (event.request != id) continue;
      if (!cancelled) PENSTOCK_RETURN_IF_ERROR(write_stdout(event.text));
      answer.add(event);
    }
    if (interrupted_ && !cancelled) {
      cancelled = true;
      engine_->cancel(id);
    }
  }
  PENSTOCK_RETURN_IF_ERROR(write_stdout(answer.text.ends_with('\n') && !terminal_ ? "" : "\n"));
  if (cancelled) print_note("stopped");
  if (answer.finish == FinishReason::kLength) print_note("the answer ended at its length limit");
  return answer.status;
}

Status Conversation::say(const std::string& text) {
  messages_.push_back({{"role", "user"}, {"content", text}});
  interrupted_ = false;
  answering_ = true;
  Answer answer;
  Status status;
  Expected<Request> request = make_request();
  if (request.ok()) {
    const auto id = engine_->submit(*std::move(request));
    status = id.ok() ? stream(*id, answer) : id.status();
  } else {
    status = request.status();
  }
  answering_ = false;
  if (status.ok()) {
    messages_.push_back({{"role", "assistant"}, {"content", answer.text}});
  } else {
    messages_.erase(messages_.size() - 1);  // so that the next line does not fail for this one
  }
  return status;
}

Status Conversation::load() {
  if (arguments_.random_seed_option->count() == 0) {
    arguments_.model.random_seed = arguments_.sampling.seed.value_or(0);
  }
  PENSTOCK_ASSIGN_OR_RETURN(loaded_, load_model(arguments_.model, {Need::kRequired, Need::kRequired}));
  EngineOptions options = arguments_.engine;
  if (options.max_running_requests == 0) options.max_running_requests = 1;
  PENSTOCK_ASSIGN_OR_RETURN(engine_, Engine::create(*loaded_.model, loaded_.tokenizer.get(), options, events_.sink()));
  return {};
}

int Conversation::run() {
  if (Status status = load(); !status.ok()) return report(status);
  loaded_all_ = true;
  std::random_device random;
  seed_ = arguments_.sampling.seed.value_or(random());
  reset();
  if (terminal_) fmt::print(stderr, "{}: write a message. /help lists commands, Ctrl-D leaves.\n", loaded_.name);
  LineReader reader(wake_fd_);
  bool failed = false;
  for (std::string line;;) {
    if (terminal_) {
      if (!write_stdout("> ").ok()) return kExitFailure;
    }
    const LineReader::Result result = reader.read(line);
    if (result == LineReader::Result::kInterrupted) {
      if (!terminal_) return 128 + SIGINT;
      fmt::print(stderr, "\n(Ctrl-D or /exit leaves)\n");
      continue;
    }
    if (result == LineReader::Result::kEnd) break;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    if (line.front() == '/') {
      if (command(line)) break;
      continue;
    }
    if (Status status = say(line); !status.ok()) {
      report(status);
      failed = true;
    }
  }
  if (terminal_) fmt::print(stderr, "\n");
  return failed && !terminal_ ? kExitFailure : kExitOk;
}

}  // namespace

Command make_chat(CLI::App& parent) {
  auto arguments = std::make_shared<ChatArguments>();
  CLI::App* app = parent.add_subcommand("chat", "talk with a model in the terminal");
  add_model_options(*app, arguments->model, SeedOption::kSampling, "warn");
  constexpr const char* kGroup = "Conversation";
  add_text(*app, "--system", arguments->system, "TEXT", "system message")->group(kGroup);
  add_integer(*app, "--max-tokens", arguments->max_tokens, 1, std::numeric_limits<std::int32_t>::max(), "N",
              "length of an answer at most")
      ->default_str("as many as fit")
      ->group(kGroup);
  add_parsed(*app, "--chat-template-kwargs", "JSON",
             R"(variables for the chat template, as in {"enable_thinking": false})",
             [arguments](const std::string& text) -> Status {
               arguments->kwargs = text;
               return parse_kwargs(text).status();
             })
      ->group(kGroup);
  add_sampling_options(*app, arguments->sampling);
  add_engine_options(*app, arguments->engine);
  arguments->random_seed_option = app->get_option("--random-seed");
  return {app, [arguments] {
            set_up_logging(arguments->model.log_level);
            return Conversation(*arguments).run();
          }};
}

}  // namespace penstock::cli
