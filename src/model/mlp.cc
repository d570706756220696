// Dense feed-forward: x += down(SiLU(gate(h)) · up(h)).
#include "model/step.h"

namespace penstock {

void run_mlp(Step& step, const MlpWeights& weights) {
  const std::int64_t hidden = step.config.hidden_size;
  LinearJob in{};
  in.weights = &weights.gate_up;
  in.x = step.h.data();
  in.ld_x = hidden;
  in.y = step.act.data();
  in.ld_y = weights.intermediate;
  in.columns = weights.intermediate;
  in.rows = step.rows;
  in.epilogue = Epilogue::kSiluMul;
  step.linear.run(in);

  LinearJob out{};
  out.weights = &weights.down;
  out.x = step.act.data();
  out.ld_x = weights.intermediate;
  out.y = step.x.data();
  out.ld_y = hidden;
  out.rows = step.rows;
  out.epilogue = Epilogue::kAdd;
  step.linear.run(out);
}

}  // namespace penstock
