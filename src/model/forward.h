// One step of the model over any mix of prefill and decode rows.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "model/model.h"
#include "ops/cache_layout.h"

namespace penstock {

// What one sequence does in a step: tokens at positions position, position + 1, …
struct SequenceSlice {
  std::span<const std::int32_t> tokens;  // at least one; ids in [0, vocab)
  std::int32_t position = 0;
  std::span<const std::int32_t> pages;  // KV page of every block 0 … (position + n − 1)/64
  std::int32_t window = 0;              // window backend: the request's window; else 0

  // window: `state` is the snapshot at boundary 64·⌊position/64⌋ (0 at boundary 0), and fold_to[i] the slot to fold
  // into at the i-th boundary this slice reaches (position + n ≥ 64·b counts: a fold happens with a block's last row).
  // A slot may equal the one before it (fold in place), or be a fresh one.
  // recurrent: `state` is the live state at `position` (0 at position 0), fold_to[0] the slot to leave the state after
  // the last token in; may equal `state`.
  std::int32_t state = 0;
  std::span<const std::int32_t> fold_to;

  std::int32_t logits_from = 0;  // logits are computed for tokens[logits_from …]; n: none
};

// Scratch memory for steps of bounded size, and the pass itself. One per engine; not thread-safe.
class Forward {
 public:
  // max_tokens: rows in a step; max_logits: rows of logits in a step.
  Forward(const Model& model, std::int32_t max_tokens, std::int32_t max_logits);
  ~Forward();

  // Runs the step and updates pools. logits: [rows, vocab] fp32, rows in order of slices and tokens, inside this
  // object and valid until the next run. Allocates nothing (contract O2).
  std::span<const float> run(std::span<const SequenceSlice> slices, const CachePools& pools);

  // For tests: the hidden rows after the final norm that the logits were computed from, [rows, hidden].
  std::span<const float> hidden() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace penstock
