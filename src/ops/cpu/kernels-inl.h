// Everything an instruction set's kernels.cc shares; its simd.h comes first. Templates over a Simd in an unnamed
// namespace have internal linkage, so no instance compiled for one CPU can end up in the code of another.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/dtype.h"
#include "ops/kernels.h"

#include "ops/cpu/gemm-inl.h"

#include "ops/cpu/elementwise-inl.h"

#include "ops/cpu/attention-inl.h"
#include "ops/cpu/gdn-inl.h"
#include "ops/cpu/table-inl.h"
