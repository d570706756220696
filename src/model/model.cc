#include "model/model.h"

#include <cmath>

#include "model/weights.h"

namespace penstock {
namespace {

// Packs matrices one by one, counting bytes and parameters; the first one there is no memory for ends it.
class Packer {
 public:
  Packer(ThreadPool& pool, const Model::Progress& progress, std::int64_t total_parameters)
      : pool_(pool), progress_(progress), total_(total_parameters) {}

  PackedMatrix rows(std::initializer_list<const MatrixView*> parts) {
    std::int64_t count = 0;
    for (const MatrixView* part : parts) count += part->rows * part->cols;
    return counted(pack_rows(std::span(parts.begin(), parts.size()), pool_), count);
  }

  MlpWeights mlp(const MlpHostWeights& host) {
    MlpWeights mlp;
    mlp.intermediate = host.gate_proj.rows;
    mlp.gate_up =
        counted(pack_interleaved16(host.gate_proj, host.up_proj, pool_), 2 * host.gate_proj.rows * host.gate_proj.cols);
    mlp.down = rows({&host.down_proj});
    return mlp;
  }

  std::int64_t bytes() const { return bytes_; }
  std::int64_t parameters() const { return parameters_; }
  bool out_of_memory() const { return out_of_memory_; }

 private:
  PackedMatrix counted(PackedMatrix packed, std::int64_t parameters) {
    if (packed.data.data() == nullptr) out_of_memory_ = true;
    bytes_ += static_cast<std::int64_t>(packed.data.bytes());
    parameters_ += parameters;
    if (progress_) progress_(static_cast<double>(parameters_) / static_cast<double>(total_));
    return packed;
  }

  ThreadPool& pool_;
  const Model::Progress& progress_;
  std::int64_t total_;
  std::int64_t bytes_ = 0;
  std::int64_t parameters_ = 0;
  bool out_of_memory_ = false;
};

std::vector<float> plus_one(const std::vector<float>& w) {
  std::vector<float> result(w);
  for (float& x : result) x += 1.0F;
  return result;
}

GdnWeights pack_gdn(const GdnHostWeights& host, Packer& packer) {
  GdnWeights gdn;
  gdn.in_proj = packer.rows({&host.in_proj_qkv, &host.in_proj_z, &host.in_proj_b, &host.in_proj_a});
  gdn.out_proj = packer.rows({&host.out_proj});
  const std::size_t channels = host.conv1d.size() / 4;
  gdn.conv1d.resize(host.conv1d.size());
  for (std::size_t c = 0; c < channels; ++c) {
    for (std::size_t j = 0; j < 4; ++j) gdn.conv1d[j * channels + c] = host.conv1d[c * 4 + j];
  }
  for (const float x : host.A_log) gdn.neg_exp_A_log.push_back(-std::exp(x));
  gdn.dt_bias = host.dt_bias;
  gdn.norm = host.norm;
  return gdn;
}

MoeWeights pack_moe(const MoeHostWeights& host, Packer& packer) {
  MoeWeights moe;
  moe.router = packer.rows({&host.router, &host.shared_expert_gate});
  for (const MlpHostWeights& expert : host.experts) moe.experts.push_back(packer.mlp(expert));
  moe.shared_expert = packer.mlp(host.shared_expert);
  return moe;
}

LayerWeights pack_layer(const LayerHostWeights& host, Packer& packer) {
  LayerWeights layer;
  layer.kind = host.kind;
  layer.input_norm = plus_one(host.input_layernorm);
  layer.post_attention_norm = plus_one(host.post_attention_layernorm);
  if (host.gdn) layer.gdn = pack_gdn(*host.gdn, packer);
  if (host.attention) {
    AttentionWeights& attention = layer.attention.emplace();
    attention.qkv = packer.rows({&host.attention->q_proj, &host.attention->k_proj, &host.attention->v_proj});
    attention.o_proj = packer.rows({&host.attention->o_proj});
    attention.q_norm = plus_one(host.attention->q_norm);
    attention.k_norm = plus_one(host.attention->k_norm);
  }
  if (host.mlp) layer.mlp = packer.mlp(*host.mlp);
  if (host.moe) layer.moe = pack_moe(*host.moe, packer);
  return layer;
}

std::int64_t count_parameters(const HostWeights& weights) {
  const auto size = [](const MatrixView& m) { return m.rows * m.cols; };
  const auto mlp_size = [&](const MlpHostWeights& m) {
    return size(m.gate_proj) + size(m.up_proj) + size(m.down_proj);
  };
  std::int64_t total = size(weights.lm_head) + (weights.tied ? 0 : size(weights.embed_tokens));
  for (const LayerHostWeights& layer : weights.layers) {
    if (layer.gdn) {
      total += size(layer.gdn->in_proj_qkv) + size(layer.gdn->in_proj_z) + size(layer.gdn->in_proj_b) +
               size(layer.gdn->in_proj_a) + size(layer.gdn->out_proj);
    }
    if (layer.attention) {
      total += size(layer.attention->q_proj) + size(layer.attention->k_proj) + size(layer.attention->v_proj) +
               size(layer.attention->o_proj);
    }
    if (layer.mlp) total += mlp_size(*layer.mlp);
    if (layer.moe) {
      total += size(layer.moe->router) + size(layer.moe->shared_expert_gate) + mlp_size(layer.moe->shared_expert);
      for (const MlpHostWeights& expert : layer.moe->experts) total += mlp_size(expert);
    }
  }
  return total;
}

Status check_shapes(const ModelConfig& config) {
  const auto need16 = [](const char* name, std::int32_t value) {
    return value % 16 == 0 ? Status()
                           : unsupported(std::string(name) + " is " + std::to_string(value) +
                                         "; the CPU kernels need a multiple of 16");
  };
  if (config.hidden_size % 2 != 0 || config.intermediate_size % 2 != 0 || config.moe_intermediate_size % 2 != 0 ||
      config.shared_expert_intermediate_size % 2 != 0) {
    return unsupported("hidden_size and the intermediate sizes must be even");
  }
  PENSTOCK_RETURN_IF_ERROR(need16("linear_key_head_dim", config.linear_key_head_dim));
  PENSTOCK_RETURN_IF_ERROR(need16("linear_value_head_dim", config.linear_value_head_dim));
  if (config.linear_key_head_dim > 512) return unsupported("linear_key_head_dim is above 512");
  return need16("head_dim", config.head_dim);
}

}  // namespace

Model::Model() = default;
Model::~Model() = default;

Expected<std::unique_ptr<Model>> Model::create(const Checkpoint& checkpoint, const ModelOptions& options,
                                               const Progress& progress) {
  std::unique_ptr<Model> model(new Model());
  model->config_ = checkpoint.config();
  model->generation_config_ = checkpoint.generation_config();
  PENSTOCK_RETURN_IF_ERROR(check_shapes(model->config_));
  PENSTOCK_ASSIGN_OR_RETURN(model->kernels_, choose_kernels(detect_cpu(), model->config_, options.kernels));
  const KernelPlan& plan = model->kernels_;
  model->layout_ = CacheLayout::make(model->config_, plan.gdn_backend, plan.state_dtype, plan.kv_dtype);
  model->pool_ = std::make_unique<ThreadPool>(options.threads);

  const HostWeights& host = checkpoint.weights();
  model->weights_ = std::make_unique<ModelWeights>();
  ModelWeights& weights = *model->weights_;
  Packer packer(*model->pool_, progress, count_parameters(host));
  weights.lm_head = packer.rows({&host.lm_head});
  if (!host.tied) weights.embed_tokens = packer.rows({&host.embed_tokens});
  weights.norm = plus_one(host.norm);
  for (const LayerHostWeights& layer : host.layers) weights.layers.push_back(pack_layer(layer, packer));
  if (packer.out_of_memory()) {
    return resource_exhausted("not enough memory to pack the weights (" + std::to_string(packer.bytes() >> 20) +
                              " MiB packed so far): use a smaller model or a machine with more memory");
  }
  model->weight_bytes_ = packer.bytes();
  model->parameters_ = packer.parameters();
  return model;
}

}  // namespace penstock
