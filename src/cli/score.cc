// penstock score: the logits of every position of every line, and how likely the model finds each text.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "checkpoint/safetensors.h"
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/input_lines.h"
#include "cli/loading.h"
#include "cli/machine.h"
#include "cli/options.h"
#include "cli/session.h"
#include "penstock/engine.h"

namespace penstock::cli {
namespace {

using Json = nlohmann::ordered_json;

// Share of the free memory that logits waiting to be written may take.
constexpr double kLogitsMemoryShare = 0.25;

struct ScoreArguments {
  ModelArguments model;
  EngineOptions engine;
  std::string input, output;
  std::int32_t decode_from = -1;  // -1: every position by prefill
  bool json = false;
};

// Sums in double: a text of 100,000 tokens should not lose digits.
double negative_log_likelihood(std::span<const float> logits, std::int32_t token) {
  const float best = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += static_cast<double>(std::exp(logit - best));
  return std::log(sum) + static_cast<double>(best) - static_cast<double>(logits[static_cast<std::size_t>(token)]);
}

struct Item {
  std::size_t line = 0;
  std::vector<std::int32_t> tokens;
  std::vector<float> logits;  // [tokens, vocab], kept when there is a file to write
  double nll = 0;             // over positions 0 … tokens − 2, each the likelihood of the next token
  std::int32_t positions = 0;
  FinishReason finish = FinishReason::kNone;
  Status status;
};

class Scoring {
 public:
  explicit Scoring(ScoreArguments& arguments) : arguments_(arguments) {}
  int run();

 private:
  Status prepare();
  int encode_lines();
  void start_some();
  Status handle(const Event& event);
  Status finish(Item& item);
  Status work();
  void take_logits(RequestId id, std::int32_t position, std::span<const float> logits);
  std::int64_t logits_bytes(const Item& item) const;
  Item* item_of(RequestId id);

  ScoreArguments& arguments_;
  Interrupt interrupt_;
  InputFile file_;
  LoadedModel loaded_;
  EventQueue events_;
  std::vector<Item> items_;
  std::mutex mutex_;  // guards by_id_; an Item belongs to the engine's thread until its last event
  std::unordered_map<RequestId, std::size_t> by_id_;
  std::size_t next_start_ = 0, next_finish_ = 0;
  std::int64_t held_bytes_ = 0, budget_bytes_ = 0;
  std::size_t failed_ = 0;
  double total_nll_ = 0;
  std::int64_t total_predictions_ = 0;
  std::unique_ptr<SafetensorsWriter> writer_;
  std::unique_ptr<Engine> engine_;  // last: it must go before what it uses
};

std::int64_t Scoring::logits_bytes(const Item& item) const {
  if (writer_ == nullptr) return 0;
  return static_cast<std::int64_t>(item.tokens.size()) * loaded_.model->config().vocab_size *
         static_cast<std::int64_t>(sizeof(float));
}

Item* Scoring::item_of(RequestId id) {
  const std::lock_guard lock(mutex_);
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &items_[found->second];
}

// On the engine's thread.
void Scoring::take_logits(RequestId id, std::int32_t position, std::span<const float> logits) {
  Item* item = item_of(id);
  if (item == nullptr || position != item->positions || static_cast<std::size_t>(position) >= item->tokens.size())
    return;
  const std::size_t next = static_cast<std::size_t>(position) + 1;
  if (next < item->tokens.size()) item->nll += negative_log_likelihood(logits, item->tokens[next]);
  if (writer_ != nullptr) item->logits.insert(item->logits.end(), logits.begin(), logits.end());
  ++item->positions;
}

int Scoring::encode_lines() {
  std::vector<std::string> errors;
  for (std::size_t i = 0; i < file_.lines.size(); ++i) {
    const InputLine& line = file_.lines[i];
    auto tokens =
        encode_line(line, loaded_.tokenizer.get(), loaded_.chat_template.get(), loaded_.model->config().vocab_size);
    if (!tokens.ok()) {
      errors.push_back(line.where + ": " + tokens.status().message());
    } else if (tokens->size() > static_cast<std::size_t>(engine_->context_length())) {
      errors.push_back(fmt::format("{}: {} tokens do not fit the context of {} tokens", line.where, tokens->size(),
                                   engine_->context_length()));
    } else {
      Item item;
      item.line = i;
      item.tokens = *std::move(tokens);
      items_.push_back(std::move(item));
    }
  }
  return errors.empty() ? kExitOk : report_input_errors(errors);
}

// As many lines as run together, fewer where their logits would take too much memory; one at least.
void Scoring::start_some() {
  const auto at_most = static_cast<std::size_t>(engine_->max_running_requests());
  while (next_start_ < items_.size() && next_start_ - next_finish_ < 2 * at_most) {
    Item& item = items_[next_start_];
    const std::int64_t bytes = logits_bytes(item);
    if (next_start_ > next_finish_ && held_bytes_ + bytes > budget_bytes_) break;
    item.logits.reserve(static_cast<std::size_t>(bytes) / sizeof(float));
    Request request;
    const std::size_t split =
        arguments_.decode_from < 0
            ? item.tokens.size()
            : std::clamp<std::size_t>(static_cast<std::size_t>(arguments_.decode_from), 1, item.tokens.size());
    const auto middle = item.tokens.begin() + static_cast<std::ptrdiff_t>(split);
    request.prompt.assign(item.tokens.begin(), middle);
    request.forced.assign(middle, item.tokens.end());
    request.return_logits = true;
    request.ignore_eos = true;
    request.sampling.temperature = 0;
    const auto id = engine_->submit(std::move(request), [&](RequestId accepted) {
      const std::lock_guard lock(mutex_);
      by_id_.emplace(accepted, next_start_);
    });
    held_bytes_ += bytes;
    ++next_start_;
    if (!id.ok()) {
      item.finish = FinishReason::kError;
      item.status = id.status();
    }
  }
}

Status Scoring::handle(const Event& event) {
  if (event.finish == FinishReason::kNone) return {};
  Item* item = item_of(event.request);
  if (item == nullptr) return {};
  item->finish = event.finish;
  item->status = event.status;
  const std::lock_guard lock(mutex_);
  by_id_.erase(event.request);
  return {};
}

Status Scoring::finish(Item& item) {
  const auto tokens = static_cast<std::int64_t>(item.tokens.size());
  Json object;
  object["index"] = item.line;
  std::string text;
  if (item.finish == FinishReason::kCancelled) return {};
  if (item.finish != FinishReason::kError && item.positions != tokens) {
    item.finish = FinishReason::kError;
    item.status = internal_error(fmt::format("logits of {} positions came for {} tokens", item.positions, tokens));
  }
  if (item.finish == FinishReason::kError) {
    ++failed_;
    print_error(file_.lines[item.line].where + ": " + item.status.message());
    object["error"] = {{"code", to_string(item.status.code())}, {"message", item.status.message()}};
    text = fmt::format("{}: error\n", item.line);
  } else {
    if (writer_ != nullptr) {
      PENSTOCK_RETURN_IF_ERROR(writer_->add(fmt::format("logits.{}", item.line), DType::kF32,
                                            {tokens, loaded_.model->config().vocab_size},
                                            std::as_bytes(std::span<const float>(item.logits))));
    }
    total_nll_ += item.nll;
    total_predictions_ += tokens - 1;
    const double mean = item.nll / static_cast<double>(std::max<std::int64_t>(tokens - 1, 1));
    object["tokens"] = tokens;
    object["mean_nll"] = tokens > 1 ? Json(mean) : Json();
    text = tokens > 1 ? fmt::format("{}: {} tokens, mean negative log likelihood {:.6f}\n", item.line, tokens, mean)
                      : fmt::format("{}: 1 token, nothing to predict\n", item.line);
  }
  held_bytes_ -= logits_bytes(item);
  std::vector<float>().swap(item.logits);
  return write_stdout(arguments_.json ? json_line(object) : text);
}

Status Scoring::work() {
  bool cancelled = false;
  while (next_finish_ < items_.size()) {
    if (!cancelled) start_some();
    for (const Event& event : events_.wait(kPoll)) PENSTOCK_RETURN_IF_ERROR(handle(event));
    for (; next_finish_ < next_start_ && items_[next_finish_].finish != FinishReason::kNone; ++next_finish_) {
      PENSTOCK_RETURN_IF_ERROR(finish(items_[next_finish_]));
    }
    if (interrupt_.requested() && !cancelled) {
      cancelled = true;
      const std::lock_guard lock(mutex_);
      for (const auto& [id, item] : by_id_) engine_->cancel(id);
    }
    if (cancelled && next_finish_ == next_start_) return {};
  }
  return {};
}

Status Scoring::prepare() {
  const auto has = [&](auto what) { return std::any_of(file_.lines.begin(), file_.lines.end(), what); };
  LoadNeeds needs;
  needs.tokenizer =
      has([](const InputLine& line) { return !line.token_ids.has_value(); }) ? Need::kRequired : Need::kNone;
  needs.chat_template = has([](const InputLine& line) { return line.is_chat(); }) ? Need::kRequired : Need::kNone;
  PENSTOCK_ASSIGN_OR_RETURN(loaded_, load_model(arguments_.model, needs));
  EngineOptions options = arguments_.engine;
  options.max_queued_requests = std::numeric_limits<std::int32_t>::max();
  options.max_queued_tokens = std::numeric_limits<std::int64_t>::max();
  PENSTOCK_ASSIGN_OR_RETURN(engine_,
                            Engine::create(*loaded_.model, /*tokenizer=*/nullptr, options, events_.sink(),
                                           [this](RequestId id, std::int32_t position, std::span<const float> logits) {
                                             take_logits(id, position, logits);
                                           }));
  return {};
}

int Scoring::run() {
  Expected<InputFile> file = read_input_file(arguments_.input);
  if (!file.ok()) return report_usage("--input: " + file.status().message());
  file_ = *std::move(file);
  if (!file_.errors.empty()) return report_input_errors(file_.errors);
  // Asked before the engine plans its caches with what is free.
  budget_bytes_ = static_cast<std::int64_t>(kLogitsMemoryShare * static_cast<double>(read_memory().available_bytes));
  if (Status status = prepare(); !status.ok()) return report(status);
  if (const int code = encode_lines(); code != kExitOk) return code;
  if (!arguments_.output.empty()) {
    auto writer = SafetensorsWriter::create(arguments_.output);
    if (!writer.ok()) return report(writer.status());
    writer_ = *std::move(writer);
  }
  interrupt_.arm();
  if (Status status = work(); !status.ok()) return report(status);
  if (interrupt_.requested()) return interrupt_.exit_status();
  if (writer_ != nullptr) {
    if (Status status = writer_->finish(); !status.ok()) return report(status);
  }
  if (total_predictions_ > 0 && items_.size() > 1) {
    const double mean = total_nll_ / static_cast<double>(total_predictions_);
    fmt::print(stderr, "all: {} predictions, mean negative log likelihood {:.6f}, perplexity {:.4f}\n",
               total_predictions_, mean, std::exp(mean));
  }
  return failed_ == 0 ? kExitOk : kExitFailure;
}

}  // namespace

Command make_score(CLI::App& parent) {
  auto arguments = std::make_shared<ScoreArguments>();
  CLI::App* app = parent.add_subcommand("score", "logits of every position, and how likely a text is");
  add_model_options(*app, arguments->model, SeedOption::kWeights, "warn");
  CLI::Option* input =
      add_text(*app, "-i,--input", arguments->input, "FILE",
               "JSON objects, one a line, each with token_ids, prompt or messages; '-': standard input");
  input->group("Input");
  add_text(*app, "-o,--output", arguments->output, "FILE",
           "safetensors file for the logits: tensor logits.0 for the first line and so on, fp32 [tokens, vocabulary]")
      ->group("Output");
  add_integer(*app, "--decode-from", arguments->decode_from, 0, std::numeric_limits<std::int32_t>::max(), "N",
              "compute positions from N on one at a time, as an answer is; left out: all by prefill")
      ->group("Output");
  add_flag(*app, "--json", arguments->json, "a JSON object a line: index, tokens, mean_nll")->group("Output");
  add_engine_options(*app, arguments->engine, "--max-batch");
  return {app, [arguments, input] {
            if (input->count() == 0) return report_usage("--input is needed (see penstock score --help)");
            set_up_logging(arguments->model.log_level);
            return Scoring(*arguments).run();
          }};
}

}  // namespace penstock::cli
