// Any text as config.json, and as generation_config.json of whatever that described: an error, or sizes that keep what
// the rest of the program relies on.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "checkpoint/model_config.h"

namespace {

void check_sane(const penstock::ModelConfig& c) {
  CHECK(c.vocab_size > 0 && c.hidden_size > 0 && c.max_position_embeddings > 0 && c.rms_norm_eps > 0.0F);
  CHECK(c.num_layers() > 0);
  CHECK(c.num_attention_heads % c.num_key_value_heads == 0);
  CHECK(c.rotary_dim >= 2 && c.rotary_dim <= c.head_dim && c.rotary_dim % 2 == 0);
  CHECK(c.rope_theta >= 1.0);
  CHECK(c.linear_num_value_heads % c.linear_num_key_heads == 0);
  CHECK(c.linear_key_head_dim % 16 == 0 && c.linear_value_head_dim % 16 == 0 && c.linear_conv_kernel_dim == 4);
  CHECK(c.conv_channels() > 0);
  CHECK(c.is_moe() ? c.num_experts_per_tok >= 1 && c.num_experts_per_tok <= c.num_experts : c.intermediate_size > 0);
  for (const std::int32_t id : c.eos_token_ids) CHECK(id >= 0 && id < c.vocab_size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = penstock::parse_model_config(text);
  if (config.ok()) check_sane(*config);
  penstock::ModelConfig small;
  small.vocab_size = 1000;
  const auto generation = penstock::parse_generation_config(text, config.ok() ? *config : small);
  if (generation.ok() && generation->temperature) CHECK(*generation->temperature >= 0.0F);
  return 0;
}
