#include "cli/version.h"

namespace penstock::cli {

const char* version() {
  return PENSTOCK_VERSION;
}

}  // namespace penstock::cli
