#include "ops/policy.h"

#include <algorithm>
#include <utility>

namespace penstock {
namespace {

bool given(const std::optional<std::string>& option) {
  return option.has_value() && *option != "auto" && !option->empty();
}

Status bad_value(const std::string& option, const std::string& value, const std::string& allowed) {
  return invalid_argument(option + ": '" + value + "' is not one of " + allowed);
}

struct IsaName {
  Isa isa;
  const char* name;
  bool CpuFeatures::*needs;  // null: none
};
constexpr IsaName kIsas[] = {{Isa::kReference, "reference", nullptr},
                             {Isa::kAvx2, "avx2", &CpuFeatures::avx2},
                             {Isa::kAvx512, "avx512", &CpuFeatures::avx512},
                             {Isa::kAvx512Bf16, "avx512_bf16", &CpuFeatures::avx512_bf16}};

Status choose_isa(const CpuFeatures& cpu, const KernelRequest& request, KernelPlan& plan, std::string& reason) {
  Isa best = Isa::kReference;
  for (const IsaName& isa : kIsas) {
    if (isa.needs == nullptr || cpu.*isa.needs) best = isa.isa;
  }
  if (!given(request.isa)) {
    plan.isa = best;
    reason = "the widest this CPU has";
    return {};
  }
  for (const IsaName& isa : kIsas) {
    if (*request.isa != isa.name) continue;
    if (isa.needs != nullptr && !(cpu.*isa.needs)) {
      return unsupported("--cpu-isa " + *request.isa + ": this CPU (" + cpu.name +
                         ") does not have it; the widest it has is " + to_string(best));
    }
    plan.isa = isa.isa;
    reason = "chosen by --cpu-isa";
    return {};
  }
  return bad_value("--cpu-isa", *request.isa, "auto, reference, avx2, avx512, avx512_bf16");
}

Status choose_linear_input(const KernelRequest& request, KernelPlan& plan, std::string& reason) {
  const bool dots = plan.isa == Isa::kAvx512Bf16;
  if (!given(request.linear_input)) {
    plan.linear_input = LinearInput::kF32;
    reason = dots ? "inputs stay exact; --linear-input bf16 takes vdpbf16ps, up to twice as fast in prefill and batches"
                  : "no bf16 dot products in this instruction set: inputs stay fp32";
    return {};
  }
  const std::string& value = *request.linear_input;
  if (value == "fp32") {
    plan.linear_input = LinearInput::kF32;
  } else if (value == "bf16") {
    if (!dots) {
      return unsupported("--linear-input " + value + " needs avx512_bf16; with " + to_string(plan.isa) +
                         " only fp32 works");
    }
    plan.linear_input = LinearInput::kBF16;
  } else {
    return bad_value("--linear-input", value, "auto, fp32, bf16");
  }
  reason = "chosen by --linear-input";
  return {};
}

Status choose_backend(const KernelRequest& request, KernelPlan& plan, std::string& reason) {
  if (!given(request.gdn_backend)) {
    reason = "reads the state once a token and writes it once in 64; same bits in prefill and decode";
    return {};
  }
  const std::string& value = *request.gdn_backend;
  if (value == "window") {
    plan.gdn_backend = GdnBackend::kWindow;
  } else if (value == "recurrent" || value == "flashinfer" || value == "triton" || value == "reference") {
    plan.gdn_backend = GdnBackend::kRecurrent;
  } else {
    return bad_value("--linear-attn-backend", value,
                     "auto, window, recurrent (and flashinfer, triton, reference: on a CPU all mean recurrent)");
  }
  reason = "chosen by --linear-attn-backend" + (value == to_string(plan.gdn_backend) ? "" : " " + value);
  return {};
}

Status choose_dtypes(const ModelConfig& config, const KernelRequest& request, KernelPlan& plan,
                     std::string& state_reason, std::string& kv_reason) {
  const bool state_given = given(request.state_dtype);
  const std::string state = state_given ? *request.state_dtype : config.mamba_ssm_dtype;
  if (state == "float32" || state == "fp32") {
    plan.state_dtype = StateDType::kF32;
  } else if (state == "bfloat16" || state == "bf16") {
    plan.state_dtype = StateDType::kBF16;
  } else if (state == "int8") {
    plan.state_dtype = StateDType::kI8;
  } else if (!state_given) {
    plan.state_dtype = StateDType::kF32;  // float16 loses accuracy: the next wider one
  } else if (state == "float16" || state == "fp16") {
    return unsupported(
        "--mamba-ssm-dtype float16: its range is too small for a recurrent state; use bfloat16 or float32");
  } else {
    return bad_value("--mamba-ssm-dtype", state, "auto, float32, bfloat16, int8");
  }
  state_reason = state_given ? "chosen by --mamba-ssm-dtype" : "config.json asks for " + state;

  if (!given(request.kv_dtype)) {
    plan.kv_dtype = KvDType::kF32;
    kv_reason = "exact; bfloat16 halves it";
    return {};
  }
  kv_reason = "chosen by --kv-cache-dtype";
  if (*request.kv_dtype == "float32" || *request.kv_dtype == "fp32") {
    plan.kv_dtype = KvDType::kF32;
  } else if (*request.kv_dtype == "bfloat16" || *request.kv_dtype == "bf16") {
    plan.kv_dtype = KvDType::kBF16;
  } else {
    return bad_value("--kv-cache-dtype", *request.kv_dtype, "auto, float32, bfloat16");
  }
  return {};
}

}  // namespace

const char* to_string(Isa isa) {
  return kIsas[static_cast<int>(isa)].name;
}

const char* to_string(LinearInput input) {
  switch (input) {
    case LinearInput::kF32:
      return "fp32";
    case LinearInput::kBF16:
      return "bf16";
  }
  return "?";
}

Expected<KernelPlan> choose_kernels(const CpuFeatures& cpu, const ModelConfig& config, const KernelRequest& request) {
  KernelPlan plan;
  std::string isa_reason;
  std::string input_reason;
  std::string backend_reason;
  std::string state_reason;
  std::string kv_reason;
  PENSTOCK_RETURN_IF_ERROR(choose_isa(cpu, request, plan, isa_reason));
  PENSTOCK_RETURN_IF_ERROR(choose_linear_input(request, plan, input_reason));
  PENSTOCK_RETURN_IF_ERROR(choose_backend(request, plan, backend_reason));
  PENSTOCK_RETURN_IF_ERROR(choose_dtypes(config, request, plan, state_reason, kv_reason));

  const std::string backend = to_string(plan.gdn_backend);
  const std::string isa = to_string(plan.isa);
  plan.choices = {
      {"instruction set", isa, isa_reason},
      {"linear layers", isa + ", inputs " + to_string(plan.linear_input), input_reason},
      {"gdn prefill", backend + ", " + isa, backend_reason},
      {"gdn decode", backend + ", " + isa, backend_reason},
      {"gdn state", to_string(plan.state_dtype), state_reason},
      {"attention", "paged, blocks of 64, " + isa, "one order of keys for prefill and decode"},
      {"kv cache", to_string(plan.kv_dtype), kv_reason},
  };
  if (config.is_moe()) {
    plan.choices.push_back({"experts", "grouped by expert, " + isa, "each token's sum in ascending expert order"});
  }
  return plan;
}

}  // namespace penstock
