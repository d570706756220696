// Which kernel runs each phase, and why: a pure function of the CPU, the model and what the user fixed.
// Printed at start and by `penstock inspect --kernels`, tested with invented CPUs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "checkpoint/model_config.h"
#include "ops/cache_layout.h"
#include "penstock/status.h"

namespace penstock {

// Instruction sets with kernels of their own, ascending. avx512_bf16 multiplies bf16 pairs (vdpbf16ps).
enum class Isa : std::uint8_t { kReference, kAvx2, kAvx512, kAvx512Bf16 };
const char* to_string(Isa isa);  // "reference", "avx2", "avx512", "avx512_bf16"

// How linear layers see their inputs: fp32 as they are, or rounded to bf16 for vdpbf16ps.
enum class LinearInput : std::uint8_t { kF32, kBF16 };
const char* to_string(LinearInput input);  // "fp32", "bf16"

struct KernelRequest {                      // empty: choose
  std::optional<std::string> isa;           // --cpu-isa: "reference", "avx2", "avx512", "avx512_bf16"
  std::optional<std::string> linear_input;  // --linear-input: "fp32", "bf16"
  std::optional<std::string>
      gdn_backend;  // --linear-attn-backend: "window", "recurrent"; aliases "flashinfer" -> recurrent
  std::optional<std::string> state_dtype;  // --mamba-ssm-dtype: "float32", "bfloat16", "int8"
  std::optional<std::string> kv_dtype;     // --kv-cache-dtype: "float32", "bfloat16"; "auto" counts as empty everywhere
};

struct KernelChoice {
  std::string phase;   // "linear", "gdn prefill", "gdn decode", "attention", "gdn state", "kv cache", …
  std::string kernel;  // "avx512_bf16", "window", …
  std::string reason;
};

struct KernelPlan {
  Isa isa = Isa::kReference;
  LinearInput linear_input = LinearInput::kF32;
  GdnBackend gdn_backend = GdnBackend::kWindow;
  StateDType state_dtype = StateDType::kF32;
  KvDType kv_dtype = KvDType::kF32;
  std::vector<KernelChoice> choices;
};

// An option that cannot be honoured is refused with the reason and the nearest that works.
Expected<KernelPlan> choose_kernels(const CpuFeatures& cpu, const ModelConfig& config, const KernelRequest& request);

}  // namespace penstock
