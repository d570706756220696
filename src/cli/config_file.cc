#include "cli/config_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace penstock::cli {
namespace {

constexpr std::string_view kBlank = " \t\r";

std::string_view trim(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

// One value at the front of `rest`, which is moved behind it. Bare values end at a comma, bracket or comment.
Expected<std::string> take_value(std::string_view& rest) {
  std::string value;
  if (rest.empty()) return invalid_argument("a value is missing");
  const char quote = rest.front();
  if (quote != '"' && quote != '\'') {
    const std::size_t end = std::min(rest.find_first_of(",]#"), rest.size());
    value = std::string(trim(rest.substr(0, end)));
    rest = trim(rest.substr(end));
    if (value.empty()) return invalid_argument("a value is missing");
    return value;
  }
  std::size_t i = 1;
  for (; i < rest.size() && rest[i] != quote; ++i) {
    if (quote == '"' && rest[i] == '\\') {
      if (++i == rest.size()) break;
      switch (rest[i]) {
        case 'n':
          value += '\n';
          break;
        case 't':
          value += '\t';
          break;
        case '"':
        case '\\':
          value += rest[i];
          break;
        default:
          return invalid_argument(fmt::format("\\{} is not known; \\n, \\t, \\\" and \\\\ are", rest[i]));
      }
    } else {
      value += rest[i];
    }
  }
  if (i >= rest.size()) return invalid_argument("a quote is not closed");
  rest = trim(rest.substr(i + 1));
  return value;
}

Expected<std::vector<std::string>> parse_values(std::string_view rest) {
  std::vector<std::string> values;
  const bool list = rest.starts_with('[');
  if (list) rest = trim(rest.substr(1));
  while (!(list && rest.starts_with(']'))) {
    PENSTOCK_ASSIGN_OR_RETURN(std::string value, take_value(rest));
    values.push_back(std::move(value));
    if (!list) break;
    if (rest.starts_with(',')) {
      rest = trim(rest.substr(1));
    } else if (!rest.starts_with(']')) {
      return invalid_argument("a list is not closed with ] on its line");
    }
  }
  if (list) rest = trim(rest.substr(1));
  if (!rest.empty() && !rest.starts_with('#')) {
    return invalid_argument(fmt::format("'{}' follows the value; a comment begins with #", rest));
  }
  return values;
}

}  // namespace

Expected<std::vector<ConfigEntry>> parse_config(std::string_view text, const std::string& label) {
  std::vector<ConfigEntry> entries;
  std::string section;
  int number = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trim(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    const std::string where = fmt::format("{}:{}", label, number);
    if (line.empty() || line.starts_with('#')) continue;
    if (line.starts_with('[')) {
      const std::size_t close = line.find(']');
      if (close == std::string_view::npos) return invalid_argument(where + ": a section is not closed with ]");
      section = std::string(trim(line.substr(1, close - 1)));
      continue;
    }
    const std::size_t equals = line.find('=');
    const std::string_view key = trim(line.substr(0, std::min(equals, line.size())));
    if (equals == std::string_view::npos || key.empty()) {
      return invalid_argument(where + ": not a line of the form name = value");
    }
    auto values = parse_values(trim(line.substr(equals + 1)));
    if (!values.ok()) return values.status().with_context(where);
    ConfigEntry entry{number, section, std::string(key), *std::move(values)};
    std::replace(entry.key.begin(), entry.key.end(), '_', '-');
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace penstock::cli
