// From options to numbers: the memory plan and the sizes of a step.
#pragma once

#include <cstdint>
#include <string>

#include "cache/memory_plan.h"
#include "engine/executor.h"
#include "engine/scheduler.h"
#include "penstock/engine.h"
#include "penstock/status.h"

namespace penstock {

struct EngineSetup {
  MemoryPlan memory;
  SchedulerLimits limits;
  std::string text;  // for people: the memory plan and the step
};

// available_bytes: what the machine has free; used when the options leave the cache's size open. with_logits: requests
// may ask for the logits of every position. kInvalidArgument names the option.
Expected<EngineSetup> plan_engine(const EngineModel& model, const EngineOptions& options, std::int64_t available_bytes,
                                  bool with_logits);

}  // namespace penstock
