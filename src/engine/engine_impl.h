// Engine::create for any model that can make steps. Tests use it with models of their own.
#pragma once

#include <memory>

#include "engine/executor.h"
#include "penstock/engine.h"
#include "penstock/status.h"

namespace penstock {

Expected<std::unique_ptr<Engine>> create_engine(EngineModel model, const Tokenizer* tokenizer, EngineOptions options,
                                                EventSink sink, LogitsSink logits_sink);

}  // namespace penstock
