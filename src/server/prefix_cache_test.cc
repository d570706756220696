// What clients and operators see of the prefix cache: salts, flushing, metrics.
#include <gtest/gtest.h>

#include "server/testing/fixture.h"

namespace penstock::testing {
namespace {

TEST_F(ServerTest, CacheSalts) {
  start();
  const std::string longest(512, 's');
  ask("POST", "/v1/completions", R"({"prompt":["a","b"],"n":2,"cache_salt":")" + longest + "\"}");
  ask("POST", "/v1/completions", R"({"prompt":"a"})");
  ask("POST", "/v1/completions", R"({"prompt":"a","cache_salt":null})");
  const auto seen = engine_->seen();
  ASSERT_EQ(seen.size(), 6U);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(seen[i].cache_salt, longest);
  EXPECT_EQ(seen[4].cache_salt, "");
  EXPECT_EQ(seen[5].cache_salt, "");
}

TEST_F(ServerTest, FlushCache) {
  listen();
  EXPECT_EQ(ask("POST", "/flush_cache").json()["error"]["code"], "loading");
  engine_ = std::make_unique<FakeEngine>(server_->event_sink());
  serve();
  EXPECT_EQ(ask("POST", "/flush_cache").json()["status"], "ok");
  EXPECT_EQ(ask("GET", "/flush_cache").json()["status"], "ok");
  EXPECT_EQ(ask("POST", "/flush_cache", "a=b", "Content-Type: application/x-www-form-urlencoded\r\n").status, 200);
  EXPECT_EQ(ask("HEAD", "/flush_cache").status, 405);  // it must not do what it only asks about
  EXPECT_EQ(engine_->flushes(), 3);
  EXPECT_EQ(metric(R"(penstock_http_requests_total{endpoint="/flush_cache",status="200"})"), "3");
  server_->begin_drain();
  EXPECT_EQ(ask("POST", "/flush_cache").status, 503);
  EXPECT_EQ(engine_->flushes(), 3);
}

TEST_F(ServerTest, FlushCacheNeedsTheKey) {
  options_.api_keys = {"key"};
  start();
  EXPECT_EQ(ask("POST", "/flush_cache").status, 401);
  EXPECT_EQ(ask("GET", "/flush_cache").status, 401);
  EXPECT_EQ(engine_->flushes(), 0);
  EXPECT_EQ(ask("POST", "/flush_cache", "", "Authorization: Bearer key\r\n").status, 200);
  EXPECT_EQ(engine_->flushes(), 1);
}

TEST_F(ServerTest, MetricsOfTheCache) {
  start();
  EngineStats stats;
  stats.kv_pages_total = 100, stats.kv_pages_used = 7, stats.kv_pages_cached = 20;
  stats.state_slots_total = 50, stats.state_slots_used = 3, stats.state_slots_cached = 12;
  stats.windows_total = 9, stats.windows_used = 2;
  stats.cache_query_tokens = 3000, stats.cache_hit_tokens = 1920;
  stats.snapshots_made = 40, stats.snapshots_evicted = 28, stats.pages_evicted = 11;
  engine_->set_stats(stats);
  const std::pair<const char*, const char*> expected[] = {
      {"penstock_kv_pages_used", "7"},
      {"penstock_kv_pages_cached", "20"},
      {"penstock_kv_pages_limit", "100"},
      {"penstock_state_slots_used", "3"},
      {"penstock_state_slots_cached", "12"},
      {"penstock_state_slots_limit", "50"},
      {"penstock_windows_used", "2"},
      {"penstock_windows_limit", "9"},
      {"penstock_prefix_cache_query_tokens_total", "3000"},
      {"penstock_prefix_cache_hit_tokens_total", "1920"},
      {"penstock_prefix_cache_snapshots_total", "40"},
      {R"(penstock_prefix_cache_evictions_total{kind="state"})", "28"},
      {R"(penstock_prefix_cache_evictions_total{kind="kv_page"})", "11"},
  };
  for (const auto& [name, value] : expected) EXPECT_EQ(metric(name), value) << name;
}

}  // namespace
}  // namespace penstock::testing
