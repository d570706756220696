// penstock generate: answers to a prompt, or to every line of a file, all lines together in one batch.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/input_lines.h"
#include "cli/loading.h"
#include "cli/options.h"
#include "cli/session.h"
#include "penstock/engine.h"

namespace penstock::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int32_t kDefaultMaxTokens = 512;

struct GenerateArguments {
  ModelArguments model;
  EngineOptions engine;
  SamplingArguments sampling;
  std::string prompt, input, system, kwargs;
  bool chat = false, json = false, ignore_eos = false, stats = false, special_tokens = false;
  std::int32_t max_tokens = -1;  // -1: kDefaultMaxTokens, or as many as fit
  std::int32_t logprobs = -1;
  std::int32_t choices = 1;
  std::vector<std::string> stop;
  CLI::Option *prompt_option = nullptr, *random_seed_option = nullptr;
};

struct Job {
  std::size_t line = 0;
  std::int32_t choice = 0;
  Request request;
  Clock::time_point submitted{};
  RequestId id = 0;
  Answer answer;
};

class Generation {
 public:
  explicit Generation(GenerateArguments& arguments) : arguments_(arguments) {}
  int run();

 private:
  int read_lines();
  void make_chat(InputLine& line) const;
  int make_jobs();
  Request make_request(const InputLine& line, std::vector<std::int32_t> prompt, std::int32_t choice, std::size_t index);
  Status submit_jobs();
  Status collect();
  Status handle(Event& event);
  Status print_finished();
  void print_statistics(double seconds) const;

  bool json() const { return arguments_.json || !arguments_.input.empty() || arguments_.choices > 1; }

  GenerateArguments& arguments_;
  Interrupt interrupt_;
  InputFile file_;
  LoadedModel loaded_;
  EventQueue events_;
  std::vector<Job> jobs_;
  std::unordered_map<RequestId, std::size_t> by_id_;
  std::size_t next_submit_ = 0;
  std::size_t next_print_ = 0;
  std::size_t failed_ = 0;
  bool cancelled_ = false;
  std::uint64_t seed_ = 0;
  std::unique_ptr<Engine> engine_;  // last: it must go before what it uses
};

int Generation::read_lines() {
  if (arguments_.prompt_option->count() > 0) {
    InputLine line;
    line.where = "--prompt";
    line.prompt = arguments_.prompt;
    file_.lines.push_back(std::move(line));
  } else {
    Expected<InputFile> file = read_input_file(arguments_.input);
    if (!file.ok()) return report_usage("--input: " + file.status().message());
    file_ = *std::move(file);
  }
  if (!file_.errors.empty()) return report_input_errors(file_.errors);
  if (!file_.unknown_fields.empty()) {
    print_note(fmt::format("fields of the input that are not used: {}", fmt::join(file_.unknown_fields, ", ")));
  }
  Json kwargs = Json::object();
  if (!arguments_.kwargs.empty()) kwargs = *parse_kwargs(arguments_.kwargs);
  for (InputLine& line : file_.lines) {
    if (arguments_.chat && line.prompt.has_value()) make_chat(line);
    if (!line.is_chat()) continue;
    Json merged = kwargs;
    if (line.chat_template_kwargs.is_object()) merged.update(line.chat_template_kwargs);
    line.chat_template_kwargs = std::move(merged);
  }
  return kExitOk;
}

void Generation::make_chat(InputLine& line) const {
  line.messages = Json::array();
  if (!arguments_.system.empty()) line.messages.push_back({{"role", "system"}, {"content", arguments_.system}});
  line.messages.push_back({{"role", "user"}, {"content", *line.prompt}});
  line.prompt.reset();
}

Request Generation::make_request(const InputLine& line, std::vector<std::int32_t> prompt, std::int32_t choice,
                                 std::size_t index) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling =
      resolve_sampling(arguments_.sampling, loaded_.model->generation_config(), arguments_.model.use_generation_config);
  request.sampling = apply_sampling(line.sampling, request.sampling);
  // Equal prompts should not get equal answers: every line and choice has a seed of its own.
  const std::uint64_t own = line.sampling.seed.value_or(seed_ + index * static_cast<std::uint64_t>(arguments_.choices));
  request.sampling.seed = own + static_cast<std::uint64_t>(choice);
  const std::int32_t room = engine_->context_length() - static_cast<std::int32_t>(request.prompt.size());
  request.max_tokens = line.max_tokens.value_or(arguments_.max_tokens > 0 ? arguments_.max_tokens
                                                                          : std::clamp(room, 1, kDefaultMaxTokens));
  request.logprobs = line.logprobs.value_or(arguments_.logprobs);
  request.ignore_eos = line.ignore_eos.value_or(arguments_.ignore_eos);
  request.stop = line.stop.value_or(arguments_.stop);
  request.stop_token_ids = line.stop_token_ids.value_or(std::vector<std::int32_t>());
  request.skip_special_tokens = !arguments_.special_tokens;
  return request;
}

int Generation::make_jobs() {
  std::vector<std::string> errors;
  const std::int32_t vocab = loaded_.model->config().vocab_size;
  for (std::size_t i = 0; i < file_.lines.size(); ++i) {
    const InputLine& line = file_.lines[i];
    auto prompt = encode_line(line, loaded_.tokenizer.get(), loaded_.chat_template.get(), vocab);
    if (!prompt.ok()) {
      errors.push_back(line.where + ": " + prompt.status().message());
      continue;
    }
    for (std::int32_t choice = 0; choice < arguments_.choices; ++choice) {
      Job job;
      job.line = i;
      job.choice = choice;
      job.request = make_request(line, *prompt, choice, i);
      const auto length = static_cast<std::int64_t>(job.request.prompt.size()) + job.request.max_tokens;
      if (length > engine_->context_length() && choice == 0) {
        errors.push_back(fmt::format("{}: {} prompt tokens and max_tokens {} do not fit the context of {} tokens",
                                     line.where, job.request.prompt.size(), job.request.max_tokens,
                                     engine_->context_length()));
      }
      jobs_.push_back(std::move(job));
    }
  }
  return errors.empty() ? kExitOk : report_input_errors(errors);
}

Status Generation::submit_jobs() {
  for (; next_submit_ < jobs_.size() && !interrupt_.requested(); ++next_submit_) {
    Job& job = jobs_[next_submit_];
    const auto id = engine_->submit(std::move(job.request));
    job.submitted = Clock::now();
    if (id.ok()) {
      job.id = *id;
      by_id_.emplace(*id, next_submit_);
      continue;
    }
    job.answer.finish = FinishReason::kError;
    job.answer.status = id.status();
  }
  return print_finished();
}

Status Generation::handle(Event& event) {
  const auto found = by_id_.find(event.request);
  if (found == by_id_.end()) return {};
  Job& job = jobs_[found->second];
  if (!json()) PENSTOCK_RETURN_IF_ERROR(write_stdout(event.text));
  job.answer.add(event);
  if (job.answer.done()) by_id_.erase(found);
  return {};
}

Status Generation::print_finished() {
  for (; next_print_ < jobs_.size() && jobs_[next_print_].answer.done(); ++next_print_) {
    Job& job = jobs_[next_print_];
    const Answer& answer = job.answer;
    if (answer.finish == FinishReason::kError) {
      ++failed_;
      print_error(file_.lines[job.line].where + ": " + answer.status.message());
    }
    if (json()) {
      Json object;
      object["index"] = job.line;
      if (arguments_.choices > 1) object["choice"] = job.choice;
      const bool with_logprobs = file_.lines[job.line].logprobs.value_or(arguments_.logprobs) >= 0;
      add_json(answer, loaded_.tokenizer.get(), with_logprobs, object);
      PENSTOCK_RETURN_IF_ERROR(write_stdout(json_line(object)));
    } else if (answer.text.empty() || answer.text.back() != '\n') {
      PENSTOCK_RETURN_IF_ERROR(write_stdout("\n"));
    }
    job.answer.text = {};
    job.answer.logprobs = {};
  }
  return {};
}

Status Generation::collect() {
  while (!by_id_.empty()) {
    for (Event& event : events_.wait(kPoll)) PENSTOCK_RETURN_IF_ERROR(handle(event));
    PENSTOCK_RETURN_IF_ERROR(print_finished());
    if (interrupt_.requested() && !cancelled_) {
      cancelled_ = true;
      for (const auto& [id, job] : by_id_) engine_->cancel(id);
    }
  }
  return print_finished();
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

void Generation::print_statistics(double seconds) const {
  std::int64_t prompt_tokens = 0;
  std::int64_t output_tokens = 0;
  std::vector<double> first;
  std::vector<double> later;
  for (const Job& job : jobs_) {
    prompt_tokens += job.answer.prompt_tokens;
    output_tokens += static_cast<std::int64_t>(job.answer.token_ids.size());
    if (job.answer.token_ids.empty()) continue;
    first.push_back(std::chrono::duration<double>(job.answer.first_token - job.submitted).count());
    const auto steps = static_cast<double>(job.answer.token_ids.size() - 1);
    if (steps > 0) {
      later.push_back(std::chrono::duration<double>(job.answer.last_token - job.answer.first_token).count() / steps);
    }
  }
  if (jobs_.size() == 1 && !first.empty()) {
    fmt::print(stderr, "prefill: {} tokens, {:.1f} tok/s; decode: {} tokens, {:.1f} tok/s\n", prompt_tokens,
               static_cast<double>(prompt_tokens) / first[0], output_tokens, later.empty() ? 0.0 : 1 / later[0]);
    return;
  }
  fmt::print(stderr,
             "{} answers in {}: {} prompt tokens ({:.1f} tok/s), {} output tokens ({:.1f} tok/s); median time to "
             "first token {}, per output token {:.2f} ms\n",
             jobs_.size(), human_seconds(seconds), prompt_tokens, static_cast<double>(prompt_tokens) / seconds,
             output_tokens, static_cast<double>(output_tokens) / seconds, human_seconds(median(first)),
             median(later) * 1000);
}

int Generation::run() {
  if (const int code = read_lines(); code != kExitOk) return code;
  const auto has = [&](auto what) { return std::any_of(file_.lines.begin(), file_.lines.end(), what); };
  LoadNeeds needs;
  needs.tokenizer =
      has([](const InputLine& line) { return !line.token_ids.has_value(); }) ? Need::kRequired : Need::kOptional;
  needs.chat_template = has([](const InputLine& line) { return line.is_chat(); }) ? Need::kRequired : Need::kNone;
  if (arguments_.random_seed_option->count() == 0) {
    arguments_.model.random_seed = arguments_.sampling.seed.value_or(0);
  }
  Expected<LoadedModel> loaded = load_model(arguments_.model, needs);
  if (!loaded.ok()) return report(loaded.status());
  loaded_ = *std::move(loaded);

  EngineOptions options = arguments_.engine;
  options.max_queued_requests = std::numeric_limits<std::int32_t>::max();  // the file is in memory anyway
  options.max_queued_tokens = std::numeric_limits<std::int64_t>::max();
  auto engine = Engine::create(*loaded_.model, loaded_.tokenizer.get(), options, events_.sink());
  if (!engine.ok()) return report(engine.status());
  engine_ = *std::move(engine);

  std::random_device random;
  seed_ = arguments_.sampling.seed.value_or(random());
  if (const int code = make_jobs(); code != kExitOk) return code;
  interrupt_.arm();
  const Stopwatch watch;
  Status status = submit_jobs();
  if (status.ok()) status = collect();
  if (!status.ok()) return report(status);
  if (arguments_.stats) print_statistics(watch.seconds());
  if (interrupt_.requested()) return interrupt_.exit_status();
  return failed_ == 0 ? kExitOk : kExitFailure;
}

}  // namespace

Command make_generate(CLI::App& parent) {
  auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* app = parent.add_subcommand("generate", "continue a prompt, or every line of a file");
  add_model_options(*app, arguments->model, SeedOption::kSampling, "warn");

  constexpr const char* kInput = "Input";
  arguments->prompt_option =
      add_text(*app, "-p,--prompt", arguments->prompt, "TEXT", "the text to continue, or with --chat to answer");
  arguments->prompt_option->group(kInput);
  CLI::Option* input = add_text(
      *app, "-i,--input", arguments->input, "FILE",
      "JSON objects, one a line, each with prompt, messages or token_ids, and where wanted its own max_tokens, "
      "temperature, top_k, top_p, min_p, penalties, seed, stop, stop_token_ids, ignore_eos, logprobs, tools, "
      "chat_template_kwargs; '-': standard input. Gives one JSON object a line, in the same order");
  input->group(kInput);
  add_flag(*app, "--chat", arguments->chat, "put prompts into the model's chat template, as a user's message")
      ->group(kInput);
  add_text(*app, "--system", arguments->system, "TEXT", "with --chat: a system message in front")->group(kInput);
  add_parsed(*app, "--chat-template-kwargs", "JSON",
             R"(variables for the chat template, as in {"enable_thinking": false})",
             [arguments](const std::string& text) -> Status {
               arguments->kwargs = text;
               return parse_kwargs(text).status();
             })
      ->group(kInput);

  constexpr const char* kOutput = "Output";
  add_integer(*app, "--max-tokens", arguments->max_tokens, 1, std::numeric_limits<std::int32_t>::max(), "N",
              "length of an answer at most")
      ->default_str(fmt::format("{}, or as many as fit", kDefaultMaxTokens))
      ->group(kOutput);
  add_list(*app, "--stop", arguments->stop, "TEXT", "end the answer before this text; may be repeated")
      ->check(CLI::Validator([](std::string& text) { return text.empty() ? "--stop: must not be empty" : ""; }, ""))
      ->group(kOutput);
  add_flag(*app, "--ignore-eos", arguments->ignore_eos, "go on after the model's end token")->group(kOutput);
  add_flag(*app, "--special-tokens", arguments->special_tokens, "leave special tokens in the text")->group(kOutput);
  add_integer(*app, "--logprobs", arguments->logprobs, 0, 20, "N",
              "with each token its log probability and those of the N best")
      ->group(kOutput);
  add_integer(*app, "--n", arguments->choices, 1, 128, "N", "answers to each prompt")->default_str("1")->group(kOutput);
  add_flag(*app, "--json", arguments->json,
           "a JSON object a line: index, text, token_ids, finish_reason, prompt_tokens; always so with --input and --n")
      ->group(kOutput);
  add_flag(*app, "--stats", arguments->stats, "tokens a second, to standard error")->group(kOutput);
  add_sampling_options(*app, arguments->sampling);
  add_engine_options(*app, arguments->engine);
  arguments->random_seed_option = app->get_option("--random-seed");

  return {app, [arguments, input] {
            const bool prompt_given = arguments->prompt_option->count() > 0;
            if (prompt_given == (input->count() > 0)) {
              return report_usage(prompt_given ? "--prompt and --input exclude each other"
                                               : "--prompt or --input is needed (see penstock generate --help)");
            }
            if (!arguments->system.empty() && !arguments->chat) return report_usage("--system goes with --chat");
            set_up_logging(arguments->model.log_level);
            return Generation(*arguments).run();
          }};
}

}  // namespace penstock::cli
