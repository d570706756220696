// --config FILE: options as lines of `name = value`, in the part of TOML this needs.
//
//   threads = 2                  # for every command
//   [serve]                      # for one
//   port = 9000
//   api-key = ["one", "two"]
//
// Strings may be quoted or not. The file stands below the environment, which stands below the command line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "penstock/status.h"

namespace penstock::cli {

struct ConfigEntry {
  int line = 0;         // from 1
  std::string section;  // "" before the first [section]
  std::string key;      // '_' turned into '-'
  std::vector<std::string> values;
};

// `label` is in front of messages, with the line.
Expected<std::vector<ConfigEntry>> parse_config(std::string_view text, const std::string& label);

}  // namespace penstock::cli
