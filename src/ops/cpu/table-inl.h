// Fills the table from the kernels above; `linear_*` come from the instruction set's own file.
#pragma once

namespace penstock {
namespace {

KernelTable make_table(const char* name, int tile_rows, void (*linear_bf16)(const LinearTile&),
                       void (*linear_f32)(const LinearTile&)) {
  KernelTable table{};
  table.name = name;
  table.tile_rows = tile_rows;
  table.linear_bf16 = linear_bf16;
  table.linear_f32 = linear_f32;
  table.round_bf16 = round_bf16;
  table.rms_norm = rms_norm;
  table.silu_mul_tile = silu_mul_tile;
  table.add = add;
  table.add_scaled = add_scaled;
  table.conv = conv;
  table.gdn_window = gdn_window;
  table.gdn_recurrent = gdn_recurrent;
  table.gated_norm = gated_norm;
  table.head_norm = head_norm;
  table.attention = attention;
  return table;
}

}  // namespace
}  // namespace penstock
