// penstock bench offline: prefill and decode speed through the Engine, beside what the machine could do at best.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <limits>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/loading.h"
#include "cli/machine.h"
#include "cli/options.h"
#include "cli/session.h"
#include "cli/version.h"
#include "penstock/engine.h"

namespace penstock::cli {
namespace {

using Json = nlohmann::ordered_json;

struct BenchArguments {
  ModelArguments model;
  EngineOptions engine;
  std::int32_t prompt_tokens = 512, output_tokens = 128, batch = 1, repeat = 3;
  bool json = false;
};

struct Run {
  double prefill_tokens_per_s = 0;  // all prompts' tokens until the last one's first token
  double decode_tokens_per_s = 0;   // batch / median step in which every request got a token
  double step_s = 0;                // that median
  double total_s = 0;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

// Notes, on the engine's thread, when each step's tokens came.
class StepClock {
 public:
  EventSink sink() {
    return [this](std::vector<Event>& events) { note(events); };
  }

  void start(std::int32_t requests) {
    const std::lock_guard lock(mutex_);
    requests_ = requests;
    finished_ = 0;
    started_.clear();
    decode_steps_s_.clear();
    error_ = {};
    begin_ = last_ = Clock::now();
  }

  // True when all requests have ended.
  bool wait(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    return done_.wait_for(lock, timeout, [&] { return finished_ == requests_; });
  }

  Expected<Run> result(std::int32_t prompt_tokens) {
    const std::lock_guard lock(mutex_);
    if (!error_.ok()) return error_;
    Run run;
    run.prefill_tokens_per_s = static_cast<double>(prompt_tokens) * requests_ / seconds(begin_, all_started_);
    run.total_s = seconds(begin_, last_);
    if (!decode_steps_s_.empty()) {
      run.step_s = median(decode_steps_s_);
      run.decode_tokens_per_s = requests_ / run.step_s;
    }
    return run;
  }

 private:
  static double seconds(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
  }

  void note(const std::vector<Event>& events) {
    const auto now = Clock::now();
    const std::lock_guard lock(mutex_);
    std::int32_t tokens = 0;
    std::int32_t first = 0;
    for (const Event& event : events) {
      if (event.token >= 0) ++tokens;
      if (event.token >= 0 && started_.insert(event.request).second) ++first;
      if (event.finish == FinishReason::kNone) continue;
      ++finished_;
      if (event.finish != FinishReason::kLength && error_.ok()) {
        error_ = event.status.ok() ? internal_error("a request ended before its length") : event.status;
      }
    }
    if (first > 0) all_started_ = now;
    if (first == 0 && tokens == requests_) decode_steps_s_.push_back(seconds(last_, now));
    last_ = now;
    if (finished_ == requests_) done_.notify_all();
  }

  std::mutex mutex_;  // guards everything below
  std::condition_variable done_;
  std::int32_t requests_ = 0, finished_ = 0;
  std::unordered_set<RequestId> started_;
  std::vector<double> decode_steps_s_;
  Status error_;
  Clock::time_point begin_, last_, all_started_;
};

// Of the fp32 work and the bytes a dense model needs for one token; 0 for mixtures of experts, where both depend on
// which experts the tokens choose.
struct Work {
  double decode_step_bytes = 0;        // weights read in a step, whatever the batch
  double prefill_flops_per_token = 0;  // without attention and the recurrence, and without the output layer
};

Work dense_work(const Model& model) {
  const ModelConfig& config = model.config();
  if (config.is_moe()) return {};
  const double head = static_cast<double>(config.vocab_size) * config.hidden_size;
  const double parameters = static_cast<double>(model.parameters());
  // An untied embedding is another matrix of the size of the output layer, of which a step reads only rows.
  const double per_parameter = static_cast<double>(model.weight_bytes()) / parameters;
  const double embedding = config.tie_word_embeddings ? 0 : head;
  return {(parameters - embedding) * per_parameter, 2 * (parameters - head - embedding)};
}

// A share of the memory's speed only means something when the weights come from memory: from this many times the cache
// on, next to nothing of them is still there when the next step needs it.
constexpr std::int64_t kBeyondCache = 4;
// Two measurements of a quiet machine agree better than this.
constexpr double kQuiet = 0.1;

// The machine's best, measured before and after the runs.
struct Yardstick {
  double before = 0, after = 0;
  double best() const { return std::max(before, after); }  // the stricter one to be compared with
  bool steady() const { return std::min(before, after) >= (1 - kQuiet) * best(); }
};

class OfflineBench {
 public:
  explicit OfflineBench(BenchArguments& arguments) : arguments_(arguments) {}
  int run();

 private:
  Status load();
  Expected<Run> measure(std::uint64_t seed, std::int32_t output_tokens);
  Status print(const std::vector<Run>& runs, const Yardstick& read_yardstick, const Yardstick& fma_yardstick);

  BenchArguments& arguments_;
  Interrupt interrupt_;
  LoadedModel loaded_;
  StepClock clock_;
  std::unique_ptr<Engine> engine_;  // goes before what it uses
};

Status OfflineBench::load() {
  PENSTOCK_ASSIGN_OR_RETURN(loaded_, load_model(arguments_.model, {Need::kNone, Need::kNone}));
  EngineOptions options = arguments_.engine;
  const std::int64_t length = std::int64_t{arguments_.prompt_tokens} + arguments_.output_tokens;
  if (options.context_length == 0) {
    options.context_length =
        static_cast<std::int32_t>(std::min<std::int64_t>(length, loaded_.model->config().max_position_embeddings));
  }
  if (length > options.context_length) {
    return invalid_argument(fmt::format("--prompt-tokens {} and --output-tokens {} do not fit the context of {} tokens",
                                        arguments_.prompt_tokens, arguments_.output_tokens, options.context_length));
  }
  if (options.max_running_requests == 0) options.max_running_requests = arguments_.batch;
  PENSTOCK_ASSIGN_OR_RETURN(engine_, Engine::create(*loaded_.model, nullptr, options, clock_.sink()));
  return {};
}

Expected<Run> OfflineBench::measure(std::uint64_t seed, std::int32_t output_tokens) {
  std::mt19937_64 random(seed);
  std::vector<Request> requests(static_cast<std::size_t>(arguments_.batch));
  for (Request& request : requests) {
    for (std::int32_t i = 0; i < arguments_.prompt_tokens; ++i) {
      request.prompt.push_back(
          static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(loaded_.model->config().vocab_size)));
    }
    request.max_tokens = output_tokens;
    request.ignore_eos = true;
    request.sampling.temperature = 0;
  }
  clock_.start(arguments_.batch);
  for (Request& request : requests) {
    const auto id = engine_->submit(std::move(request));
    if (!id.ok()) return id.status();
  }
  while (!clock_.wait(kPoll)) {
    if (interrupt_.requested()) return Status(StatusCode::kCancelled, "interrupted");
  }
  return clock_.result(arguments_.prompt_tokens);
}

Status OfflineBench::print(const std::vector<Run>& runs, const Yardstick& read_yardstick,
                           const Yardstick& fma_yardstick) {
  const auto middle = [&](double Run::*member) {
    std::vector<double> values;
    for (const Run& run : runs) values.push_back(run.*member);
    return median(values);
  };
  const double prefill = middle(&Run::prefill_tokens_per_s);
  const double decode = middle(&Run::decode_tokens_per_s);
  const double step_s = middle(&Run::step_s);
  const Work work = dense_work(*loaded_.model);
  const double read = step_s > 0 ? work.decode_step_bytes / step_s : 0;
  const double flops = prefill * work.prefill_flops_per_token;
  const int threads = loaded_.model->pool().threads();
  const double read_bandwidth = read_yardstick.best();
  const double fma_peak = fma_yardstick.best();
  const std::int64_t cache = last_level_cache_bytes();
  const bool from_memory = work.decode_step_bytes >= static_cast<double>(kBeyondCache * cache);
  const bool steady = read_yardstick.steady() && fma_yardstick.steady();
  const auto share = [](double part, double whole) { return part > 0 && whole > 0 ? part / whole : 0; };
  if (arguments_.json) {
    const auto known = [](double value) { return value > 0 ? Json(value) : Json(); };
    Json json{{"version", version()},
              {"model", loaded_.name},
              {"threads", threads},
              {"prompt_tokens", arguments_.prompt_tokens},
              {"output_tokens", arguments_.output_tokens},
              {"batch", arguments_.batch},
              {"repeat", arguments_.repeat},
              {"prefill_tokens_per_second", prefill},
              {"decode_tokens_per_second", known(decode)},
              {"decode_step_ms", known(step_s * 1000)},
              {"weight_bytes_per_step", known(work.decode_step_bytes)},
              {"weight_bytes_per_second", known(read)},
              {"measured_read_bytes_per_second", known(read_bandwidth)},
              {"measured_read_before_after", {read_yardstick.before, read_yardstick.after}},
              {"last_level_cache_bytes", cache},
              {"weights_beyond_cache", from_memory},
              {"read_share", known(from_memory ? share(read, read_bandwidth) : 0)},
              {"prefill_flops", known(flops)},
              {"measured_fma_flops", known(fma_peak)},
              {"measured_fma_before_after", {fma_yardstick.before, fma_yardstick.after}},
              {"fma_share", known(share(flops, fma_peak))},
              {"machine_was_steady", steady}};
    json["runs"] = Json::array();
    for (const Run& run : runs) {
      json["runs"].push_back({{"prefill_tokens_per_second", run.prefill_tokens_per_s},
                              {"decode_tokens_per_second", known(run.decode_tokens_per_s)},
                              {"seconds", run.total_s}});
    }
    return write_stdout(json_line(json));
  }
  std::string text = describe_model(loaded_) + describe_kernels(loaded_.model->kernels());
  text += fmt::format("run       {} prompt tokens, {} output tokens, batch {}, median of {} runs\n",
                      arguments_.prompt_tokens, arguments_.output_tokens, arguments_.batch, runs.size());
  text += fmt::format("prefill   {:10.1f} tok/s", prefill);
  if (flops > 0) {
    text += fmt::format("   {:.0f} GFLOP/s in linear layers, {:.0f} % of the {:.0f} measured", flops / 1e9,
                        100 * share(flops, fma_peak), fma_peak / 1e9);
  }
  text += fmt::format("\ndecode    {:10.1f} tok/s   {:.3f} ms a step", decode, step_s * 1000);
  if (read > 0 && !from_memory) {
    text += fmt::format(", weights at {:.1f} GB/s, partly from the {} cache: no share of the memory's speed",
                        read / 1e9, human_bytes(cache));
  } else if (read > 0 && read_bandwidth > 0) {
    text += fmt::format(", weights at {:.1f} GB/s, {:.0f} % of the {:.1f} measured", read / 1e9,
                        100 * share(read, read_bandwidth), read_bandwidth / 1e9);
  }
  if (!steady) {
    text += fmt::format(
        "\nnote      the machine was not quiet: before and after the runs, memory was read at {:.1f} and {:.1f} "
        "GB/s and fp32 ran at {:.0f} and {:.0f} GFLOP/s; shares are of the larger",
        read_yardstick.before / 1e9, read_yardstick.after / 1e9, fma_yardstick.before / 1e9, fma_yardstick.after / 1e9);
  }
  return write_stdout(text + '\n');
}

int OfflineBench::run() {
  if (Status status = load(); !status.ok()) return report(status);
  interrupt_.arm();
  const int threads = loaded_.model->pool().threads();
  Yardstick fma{measure_fma_peak(threads), 0};
  Yardstick read{measure_read_bandwidth(threads), 0};
  std::vector<Run> runs;
  for (std::int32_t i = 0; i <= arguments_.repeat; ++i) {
    // The first run faults memory in and warms caches; it is short and does not count.
    const auto run = measure(arguments_.model.random_seed + static_cast<std::uint64_t>(i),
                             i == 0 ? std::min(arguments_.output_tokens, 4) : arguments_.output_tokens);
    if (interrupt_.requested()) return interrupt_.exit_status();
    if (!run.ok()) return report(run.status());
    if (i > 0) runs.push_back(*run);
  }
  fma.after = measure_fma_peak(threads);
  read.after = measure_read_bandwidth(threads);
  const Status status = print(runs, read, fma);
  return status.ok() ? kExitOk : report(status);
}

}  // namespace

Command make_bench_offline(CLI::App& bench) {
  auto arguments = std::make_shared<BenchArguments>();
  CLI::App* app = bench.add_subcommand("offline", "prefill and decode speed, without a server");
  add_model_options(*app, arguments->model, SeedOption::kWeights, "warn");
  constexpr const char* kGroup = "Run";
  constexpr std::int64_t kMost = 1 << 20;
  add_integer(*app, "--prompt-tokens", arguments->prompt_tokens, 1, kMost, "N",
              "random tokens of each prompt, from --seed")
      ->default_str(std::to_string(arguments->prompt_tokens))
      ->group(kGroup);
  add_integer(*app, "--output-tokens", arguments->output_tokens, 1, kMost, "N", "tokens of each answer")
      ->default_str(std::to_string(arguments->output_tokens))
      ->group(kGroup);
  add_integer(*app, "--batch", arguments->batch, 1, 65536, "N", "requests at a time")->default_str("1")->group(kGroup);
  add_integer(*app, "--repeat", arguments->repeat, 1, 1000, "N", "runs that count; the median is shown")
      ->default_str(std::to_string(arguments->repeat))
      ->group(kGroup);
  add_flag(*app, "--json", arguments->json, "one JSON object")->group(kGroup);
  add_engine_options(*app, arguments->engine);
  return {app, [arguments] {
            set_up_logging(arguments->model.log_level);
            return OfflineBench(*arguments).run();
          }};
}

}  // namespace penstock::cli
