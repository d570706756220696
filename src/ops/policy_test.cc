// The choice of kernels on CPUs we invent.
#include "ops/policy.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

CpuFeatures cpu(bool avx2, bool avx512, bool bf16) {
  return {"an invented CPU", avx2, avx512, bf16, 4};
}

TEST(Policy, TakesTheWidestInstructionSet) {
  const ModelConfig config;
  const struct {
    CpuFeatures cpu;
    Isa isa;
    LinearInput input;
  } rows[] = {{cpu(false, false, false), Isa::kReference, LinearInput::kF32},
              {cpu(true, false, false), Isa::kAvx2, LinearInput::kF32},
              {cpu(true, true, false), Isa::kAvx512, LinearInput::kF32},
              {cpu(true, true, true), Isa::kAvx512Bf16, LinearInput::kF32}};
  for (const auto& row : rows) {
    const auto plan = choose_kernels(row.cpu, config, {});
    ASSERT_TRUE(plan.ok());
    EXPECT_EQ(plan->isa, row.isa);
    EXPECT_EQ(plan->linear_input, row.input);
    EXPECT_EQ(plan->gdn_backend, GdnBackend::kWindow);
    EXPECT_EQ(plan->state_dtype, StateDType::kF32);
    for (const KernelChoice& choice : plan->choices) EXPECT_FALSE(choice.reason.empty()) << choice.phase;
  }
}

TEST(Policy, AnExplicitChoiceWins) {
  const ModelConfig config;
  KernelRequest request;
  request.isa = "avx2";
  request.gdn_backend = "flashinfer";
  request.state_dtype = "bfloat16";
  request.kv_dtype = "bf16";
  const auto plan = choose_kernels(cpu(true, true, true), config, request);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->isa, Isa::kAvx2);
  EXPECT_EQ(plan->linear_input, LinearInput::kF32);
  EXPECT_EQ(plan->gdn_backend, GdnBackend::kRecurrent);
  EXPECT_EQ(plan->state_dtype, StateDType::kBF16);
  EXPECT_EQ(plan->kv_dtype, KvDType::kBF16);
}

TEST(Policy, TheCheckpointsStateFormatIsHonoured) {
  ModelConfig config;
  config.mamba_ssm_dtype = "bfloat16";
  const auto plan = choose_kernels(cpu(true, false, false), config, {});
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->state_dtype, StateDType::kBF16);
}

TEST(Policy, RefusesWhatItCannotDo) {
  const ModelConfig config;
  const auto refused = [&](std::optional<std::string> KernelRequest::*option, const char* value,
                           const std::string& word) {
    KernelRequest request;
    request.*option = value;
    const auto plan = choose_kernels(cpu(true, false, false), config, request);
    ASSERT_FALSE(plan.ok()) << word;
    EXPECT_NE(plan.status().message().find(word), std::string::npos) << plan.status().message();
  };
  refused(&KernelRequest::isa, "avx512", "the widest it has is avx2");
  refused(&KernelRequest::isa, "neon", "--cpu-isa");
  refused(&KernelRequest::linear_input, "bf16", "avx512_bf16");
  refused(&KernelRequest::linear_input, "fp8", "--linear-input");
  refused(&KernelRequest::gdn_backend, "mamba", "--linear-attn-backend");
  refused(&KernelRequest::state_dtype, "float16", "bfloat16 or float32");
  refused(&KernelRequest::state_dtype, "int4", "--mamba-ssm-dtype");
  refused(&KernelRequest::kv_dtype, "fp8", "--kv-cache-dtype");
}

}  // namespace
}  // namespace penstock
