// Prometheus metrics, all named penstock_*. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "penstock/engine.h"

namespace penstock {

// One finished generation. TTFT counts from the request's arrival, before it was tokenised.
struct GenerationTimes {
  double first_token_s = 0, total_s = 0;
  std::int64_t prompt_tokens = 0, output_tokens = 0;
  std::int64_t longest_choice_tokens = 0;  // time per output token is that choice's
};

// What only a look at the time of a scrape can tell.
struct MetricsSnapshot {
  std::int64_t connections = 0;
  bool ready = false;
  bool has_engine = false;
  EngineStats engine;
};

class Metrics {
 public:
  static std::unique_ptr<Metrics> create(const std::string& version);
  virtual ~Metrics() = default;
  virtual void count_response(const std::string& endpoint, int status) = 0;
  virtual void count_disconnect() = 0;
  virtual void observe(const GenerationTimes& times) = 0;
  virtual std::string text(const MetricsSnapshot& snapshot) const = 0;  // text format 0.0.4
};

}  // namespace penstock
