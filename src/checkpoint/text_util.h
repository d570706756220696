// Names and shapes from files, made fit for an error message.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace penstock {

// 'name' with all but printable ASCII escaped and a long middle left out: a message stays one line of valid UTF-8
// whatever a file says.
std::string in_quotes(std::string_view text);

std::string shape_text(std::span<const std::int64_t> shape);  // "[4, 64]"

}  // namespace penstock
