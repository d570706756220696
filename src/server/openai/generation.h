// One chat or completion request under way: its choices in the engine on one side, its client on the other.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "server/event_router.h"
#include "server/metrics.h"
#include "server/openai/call.h"
#include "server/openai/format.h"
#include "server/openai/prompt.h"

namespace penstock::openai {

// What a ready server answers with.
struct Service {
  ServedModel model;
  bool template_takes_parts = false;
  std::string name;  // the model's, in answers
  EventRouter* router = nullptr;
  Metrics* metrics = nullptr;
};

// Lives on its exchange's loop. Held by the router until the engine has ended its last choice.
class Generation : public EventReceiver, public std::enable_shared_from_this<Generation> {
 public:
  Generation(const Service& service, std::shared_ptr<http::Exchange> exchange, Call call,
             http::Clock::time_point arrived);

  // Submits every choice of every prompt, or answers with the error of the first that the engine refuses.
  void start(std::vector<EncodedPrompt> prompts);

  void on_event(std::int32_t index, Event& event) override;
  void on_step_end() override;

 private:
  bool submit(const EncodedPrompt& prompt, std::size_t prompt_index);
  void begin_choice(std::size_t index);  // of a stream: head, role, echoed prompt
  void fail(const ApiError& error);
  void complete();
  void client_left();
  void cancel_unfinished();
  Usage usage_so_far() const;
  std::string running_usage() const;  // the usage member of a chunk, or nothing
  std::size_t prompt_of(std::size_t index) const { return index / static_cast<std::size_t>(call_.n); }

  const Service& service_;
  std::shared_ptr<http::Exchange> exchange_;  // null once answered or the client is gone
  Call call_;
  Formatter formatter_;
  http::Clock::time_point arrived_, first_token_;
  std::vector<RequestId> ids_;               // one a choice
  std::vector<Choice> choices_;              // choice c of prompt p is p·n + c
  std::vector<std::string> echoes_;          // one a prompt, if asked for
  std::vector<std::int64_t> prompt_tokens_;  // one a prompt
  std::size_t unfinished_ = 0;
  bool streaming_ = false;  // the head of the stream is written
  bool got_token_ = false;
};

}  // namespace penstock::openai
