#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace penstock {
namespace {

using prometheus::Histogram;

Histogram::BucketBoundaries seconds_buckets() {
  return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500};
}

Histogram::BucketBoundaries token_buckets() {
  return {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000};
}

class MetricsImpl : public Metrics {
 public:
  explicit MetricsImpl(const std::string& version)
      : responses_(prometheus::BuildCounter()
                       .Name("penstock_http_requests_total")
                       .Help("HTTP requests answered, by endpoint and status.")
                       .Register(registry_)),
        disconnects_(prometheus::BuildCounter()
                         .Name("penstock_client_disconnects_total")
                         .Help("Clients that left, or stopped reading, before their answer was complete.")
                         .Register(registry_)
                         .Add({})),
        first_token_(histogram("penstock_time_to_first_token_seconds",
                               "From a request's arrival, before it is tokenised, to its first token.",
                               seconds_buckets())),
        per_token_(
            histogram("penstock_time_per_output_token_seconds",
                      "Mean time between output tokens of a request, the first one left out.",
                      {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5})),
        total_(histogram("penstock_request_duration_seconds", "From a request's arrival to the end of its answer.",
                         seconds_buckets())),
        prompt_tokens_(histogram("penstock_request_prompt_tokens", "Prompt tokens of a request.", token_buckets())),
        output_tokens_(histogram("penstock_request_generation_tokens", "Output tokens of a request, all its choices.",
                                 token_buckets())) {
    prometheus::BuildGauge()
        .Name("penstock_build_info")
        .Help("Always 1; the label says which version runs.")
        .Register(registry_)
        .Add({{"version", version}})
        .Set(1);
  }

  void count_response(const std::string& endpoint, int status) override {
    responses_.Add({{"endpoint", endpoint}, {"status", std::to_string(status)}}).Increment();
  }

  void count_disconnect() override { disconnects_.Increment(); }

  void observe(const GenerationTimes& t) override {
    first_token_.Observe(t.first_token_s);
    total_.Observe(t.total_s);
    if (t.longest_choice_tokens > 1) {
      per_token_.Observe((t.total_s - t.first_token_s) / static_cast<double>(t.longest_choice_tokens - 1));
    }
    prompt_tokens_.Observe(static_cast<double>(t.prompt_tokens));
    output_tokens_.Observe(static_cast<double>(t.output_tokens));
  }

  std::string text(const MetricsSnapshot& snapshot) const override;

 private:
  Histogram& histogram(const char* name, const char* help, const Histogram::BucketBoundaries& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry_).Add({}, buckets);
  }

  prometheus::Registry registry_;
  prometheus::Family<prometheus::Counter>& responses_;
  prometheus::Counter& disconnects_;
  Histogram &first_token_, &per_token_, &total_, &prompt_tokens_, &output_tokens_;
};

prometheus::MetricFamily family(const char* name, const char* help, prometheus::MetricType type) {
  prometheus::MetricFamily result;
  result.name = name;
  result.help = help;
  result.type = type;
  return result;
}

template <typename Number>
prometheus::MetricFamily gauge(const char* name, const char* help, Number value) {
  auto result = family(name, help, prometheus::MetricType::Gauge);
  result.metric.emplace_back();
  result.metric.back().gauge.value = static_cast<double>(value);
  return result;
}

template <typename Number>
prometheus::MetricFamily counter(const char* name, const char* help, Number value) {
  auto result = family(name, help, prometheus::MetricType::Counter);
  result.metric.emplace_back();
  result.metric.back().counter.value = static_cast<double>(value);
  return result;
}

void add_pools(const EngineStats& s, std::vector<prometheus::MetricFamily>* all) {
  all->push_back(gauge("penstock_kv_pages_used", "KV pages that running requests hold.", s.kv_pages_used));
  all->push_back(gauge("penstock_kv_pages_cached", "KV pages that the prefix cache alone holds.", s.kv_pages_cached));
  all->push_back(
      gauge("penstock_kv_pages_limit", "KV pages there can be, if states take no memory.", s.kv_pages_total));
  all->push_back(gauge("penstock_state_slots_used", "GDN states that running requests hold.", s.state_slots_used));
  all->push_back(
      gauge("penstock_state_slots_cached", "GDN states that the prefix cache alone holds.", s.state_slots_cached));
  all->push_back(
      gauge("penstock_state_slots_limit", "GDN states there can be, if KV pages take no memory.", s.state_slots_total));
  all->push_back(gauge("penstock_windows_used", "GDN windows that running requests hold.", s.windows_used));
  all->push_back(gauge("penstock_windows_limit", "GDN windows there are.", s.windows_total));
}

void add_prefix_cache(const EngineStats& s, std::vector<prometheus::MetricFamily>* all) {
  all->push_back(counter("penstock_prefix_cache_query_tokens_total", "Prompt tokens looked up in the prefix cache.",
                         s.cache_query_tokens));
  all->push_back(counter("penstock_prefix_cache_hit_tokens_total", "Prompt tokens taken from the prefix cache.",
                         s.cache_hit_tokens));
  all->push_back(
      counter("penstock_prefix_cache_snapshots_total", "GDN states put into the prefix cache.", s.snapshots_made));
  auto evicted = family("penstock_prefix_cache_evictions_total", "What the prefix cache gave up for lack of memory.",
                        prometheus::MetricType::Counter);
  for (const auto& [kind, count] : {std::pair("kv_page", s.pages_evicted), std::pair("state", s.snapshots_evicted)}) {
    evicted.metric.emplace_back();
    evicted.metric.back().label.push_back({"kind", kind});
    evicted.metric.back().counter.value = static_cast<double>(count);
  }
  all->push_back(std::move(evicted));
}

void add_engine(const EngineStats& s, std::vector<prometheus::MetricFamily>* all) {
  all->push_back(gauge("penstock_requests_running", "Requests whose tokens are being computed now.", s.running));
  all->push_back(gauge("penstock_requests_waiting", "Requests in the queue now.", s.waiting));
  all->push_back(counter("penstock_prompt_tokens_total", "Prompt tokens taken in.", s.prompt_tokens));
  all->push_back(counter("penstock_generation_tokens_total", "Tokens generated.", s.output_tokens));
  auto ended = family("penstock_requests_ended_total", "Requests that ended, by how (rejected: the queue was full).",
                      prometheus::MetricType::Counter);
  const std::pair<const char*, std::int64_t> outcomes[] = {
      {"finished", s.finished}, {"cancelled", s.cancelled}, {"failed", s.failed}, {"rejected", s.rejected}};
  for (const auto& [outcome, count] : outcomes) {
    ended.metric.emplace_back();
    ended.metric.back().label.push_back({"outcome", outcome});
    ended.metric.back().counter.value = static_cast<double>(count);
  }
  all->push_back(std::move(ended));
  all->push_back(counter("penstock_engine_steps_total", "Steps of the engine.", s.steps));
  all->push_back(counter("penstock_engine_step_seconds_total", "Seconds spent in steps.", s.step_seconds));
  all->push_back(counter("penstock_preemptions_total", "Times a running request was set back to wait.", s.preempted));
  add_pools(s, all);
  add_prefix_cache(s, all);
}

std::string MetricsImpl::text(const MetricsSnapshot& snapshot) const {
  auto all = registry_.Collect();
  all.push_back(gauge("penstock_http_connections", "Open client connections.", snapshot.connections));
  all.push_back(gauge("penstock_ready", "1 when requests are answered, 0 while loading, draining or failed.",
                      snapshot.ready ? 1 : 0));
  if (snapshot.has_engine) add_engine(snapshot.engine, &all);
  return prometheus::TextSerializer().Serialize(all);
}

}  // namespace

std::unique_ptr<Metrics> Metrics::create(const std::string& version) {
  return std::make_unique<MetricsImpl>(version);
}

}  // namespace penstock
