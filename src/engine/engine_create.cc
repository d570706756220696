#include <utility>

#include "engine/engine_impl.h"
#include "engine/executor.h"
#include "penstock/engine.h"

namespace penstock {

Expected<std::unique_ptr<Engine>> Engine::create(const Model& model, const Tokenizer* tokenizer, EngineOptions options,
                                                 EventSink sink, LogitsSink logits_sink) {
  return create_engine(describe_model(model), tokenizer, options, std::move(sink), std::move(logits_sink));
}

}  // namespace penstock
