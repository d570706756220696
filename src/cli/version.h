// The program's version, from the project's CMakeLists.txt.
#pragma once

namespace penstock::cli {

const char* version();  // "0.1.0"

}  // namespace penstock::cli
