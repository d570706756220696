#include "server/openai/generation.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace penstock::openai {
namespace {

std::int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

http::Response stream_head() {
  http::Response head;
  head.content_type = "text/event-stream; charset=utf-8";
  head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};  // proxies must not collect either
  return head;
}

// Which field an engine's message is about, so far as it begins with the field's name.
std::string param_of(const std::string& message) {
  const auto end = message.find_first_of(" :");
  const std::string word = message.substr(0, end);
  const bool is_name = !word.empty() && word.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string::npos;
  return is_name && word.find('_') != std::string::npos ? word : std::string();
}

}  // namespace

Generation::Generation(const Service& service, std::shared_ptr<http::Exchange> exchange, Call call,
                       http::Clock::time_point arrived)
    : service_(service),
      exchange_(std::move(exchange)),
      call_(std::move(call)),
      formatter_(call_.chat, (call_.chat ? "chatcmpl-" : "cmpl-") + http::random_id(24), unix_seconds(), service.name,
                 *service.model.tokenizer),
      arrived_(arrived) {}

void Generation::start(std::vector<EncodedPrompt> prompts) {
  if (exchange_->gone()) {
    service_.metrics->count_disconnect();
    return;
  }
  choices_.resize(prompts.size() * static_cast<std::size_t>(call_.n));
  unfinished_ = choices_.size();
  for (EncodedPrompt& prompt : prompts) prompt_tokens_.push_back(static_cast<std::int64_t>(prompt.ids.size()));
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    if (!submit(prompts[i], i)) return;
    if (call_.echo) echoes_.push_back(std::move(prompts[i].text));
  }
  exchange_->on_gone([self = shared_from_this()] { self->client_left(); });
}

bool Generation::submit(const EncodedPrompt& prompt, std::size_t prompt_index) {
  const auto n = static_cast<std::size_t>(call_.n);
  for (std::size_t i = 0; i < n; ++i) {
    Request request = call_.base;
    request.prompt = prompt.ids;
    request.sampling.seed += i;
    const auto index = static_cast<std::int32_t>(prompt_index * n + i);
    auto id = service_.model.engine->submit(std::move(request), [&](RequestId accepted) {
      service_.router->add(accepted, shared_from_this(), index, &exchange_->executor());
    });
    if (!id.ok()) {
      fail(from_status(id.status(), param_of(id.status().message())));
      return false;
    }
    ids_.push_back(*id);
  }
  return true;
}

void Generation::on_event(std::int32_t index, Event& event) {
  if (!exchange_) return;
  const auto at = static_cast<std::size_t>(index);
  Choice& choice = choices_[at];
  if (event.finish == FinishReason::kError) return fail(from_status(event.status));
  if (event.finish == FinishReason::kCancelled) {
    return fail({503,
                 "The answer was cut short: the server is shutting down or the request was cancelled.",
                 {},
                 "cancelled",
                 1});
  }
  if (event.token >= 0) {
    ++choice.tokens;
    if (!std::exchange(got_token_, true)) first_token_ = http::Clock::now();
  }
  choice.text += event.text;
  if (event.logprob) {
    choice.add_logprob(std::move(*event.logprob), *service_.model.tokenizer, call_.base.skip_special_tokens);
  }
  const bool last = event.finish != FinishReason::kNone;
  if (last) {
    choice.finish = event.finish;
    choice.stop_reason = std::move(event.stop_reason);
    choice.tokens = event.output_tokens;
    choice.prompt_tokens = event.prompt_tokens;
    choice.cached_tokens = event.cached_tokens;
    --unfinished_;
  }
  if (call_.stream) {
    if (!choice.begun) begin_choice(at);
    std::string chunk;
    if (!choice.text.empty() || !choice.logprobs.empty()) formatter_.append_delta(chunk, at, choice, running_usage());
    if (last) formatter_.append_finish(chunk, at, choice, running_usage());
    exchange_->write(chunk);
  }
  if (unfinished_ == 0) complete();
}

void Generation::begin_choice(std::size_t index) {
  Choice& choice = choices_[index];
  choice.begun = true;
  if (!std::exchange(streaming_, true)) exchange_->begin_stream(stream_head());
  if (call_.chat) {
    std::string chunk;
    formatter_.append_role(chunk, index, running_usage());
    exchange_->write(chunk);
  }
  if (call_.echo) choice.text = echoes_[prompt_of(index)] + choice.text;
}

void Generation::on_step_end() {
  if (exchange_ && streaming_) exchange_->flush();
}

Usage Generation::usage_so_far() const {
  Usage usage;
  for (const std::int64_t tokens : prompt_tokens_) usage.prompt_tokens += tokens;
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    usage.output_tokens += choices_[i].tokens;
    // A prompt counts once however many choices it has: cached is what none of them had to compute.
    if (i % static_cast<std::size_t>(call_.n) == 0) {
      const auto group = choices_.begin() + static_cast<std::ptrdiff_t>(i);
      usage.cached_tokens += std::min_element(group, group + call_.n, [](const Choice& a, const Choice& b) {
                               return a.cached_tokens < b.cached_tokens;
                             })->cached_tokens;
    }
  }
  return usage;
}

std::string Generation::running_usage() const {
  if (call_.include_usage && call_.continuous_usage) return R"(,"usage":)" + usage_json(usage_so_far());
  return call_.include_usage ? R"(,"usage":null)" : "";
}

void Generation::complete() {
  const Usage usage = usage_so_far();
  const auto exchange = std::exchange(exchange_, nullptr);
  if (call_.stream) {
    std::string end;
    if (call_.include_usage) formatter_.append_usage(end, usage);
    end += "data: [DONE]\n\n";
    exchange->write(end);
    exchange->end_stream();
  } else {
    if (call_.echo) {
      for (std::size_t i = 0; i < choices_.size(); ++i) choices_[i].text.insert(0, echoes_[prompt_of(i)]);
    }
    http::Response response;
    response.body = formatter_.response(choices_, usage);
    exchange->respond(std::move(response));
  }
  const auto now = http::Clock::now();
  const auto since_arrival = [&](http::Clock::time_point t) {
    return std::chrono::duration<double>(t - arrived_).count();
  };
  GenerationTimes times{since_arrival(got_token_ ? first_token_ : now), since_arrival(now), usage.prompt_tokens,
                        usage.output_tokens, 0};
  for (const Choice& choice : choices_) {
    times.longest_choice_tokens = std::max(times.longest_choice_tokens, choice.tokens);
  }
  service_.metrics->observe(times);
}

void Generation::fail(const ApiError& error) {
  const auto exchange = std::exchange(exchange_, nullptr);
  cancel_unfinished();
  if (streaming_) {
    exchange->write("data: " + error_body(error) + "\n\n");  // and no [DONE]: the answer is not complete
    exchange->end_stream();
  } else {
    exchange->respond(error_response(error));
  }
}

void Generation::client_left() {
  if (!exchange_) return;
  exchange_.reset();
  service_.metrics->count_disconnect();
  cancel_unfinished();
}

void Generation::cancel_unfinished() {
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    if (choices_[i].finish == FinishReason::kNone) service_.model.engine->cancel(ids_[i]);
  }
}

}  // namespace penstock::openai
