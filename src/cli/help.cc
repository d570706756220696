#include "cli/help.h"

#include <algorithm>
#include <sstream>
#include <vector>

namespace penstock::cli {
namespace {

constexpr std::size_t kWidth = 100;  // columns

std::string full_name(const CLI::App* app) {
  if (app->get_parent() == nullptr) return app->get_name();
  return full_name(app->get_parent()) + " " + app->get_name();
}

std::string option_names(const CLI::Option& option) {
  std::string names = option.get_positional() ? option.get_name(true) : "";
  for (const std::string& name : option.get_snames()) names += (names.empty() ? "-" : ", -") + name;
  for (const std::string& name : option.get_lnames()) names += (names.empty() ? "--" : ", --") + name;
  const bool takes_value = option.get_items_expected_max() > 0;
  if (takes_value && !option.get_type_name().empty()) names += " " + option.get_type_name();
  return names;
}

// Stands for a space at which wrap() must not break.
constexpr char kHardSpace = '\x01';

void print_options(std::ostringstream& out, const CLI::App* app) {
  std::vector<std::string> groups = app->get_groups();
  // What every command has is the least interesting: CLI11's own group goes to the end.
  std::stable_partition(groups.begin(), groups.end(), [](const std::string& group) { return group != "Options"; });
  for (const std::string& group : groups) {
    const auto options = app->get_options([&](const CLI::Option* option) { return option->get_group() == group; });
    if (group.empty() || options.empty()) continue;
    out << '\n' << group << ":\n";
    for (const CLI::Option* option : options) {
      std::string help = option->get_description();
      if (!option->get_default_str().empty()) {
        std::string value = option->get_default_str();
        std::replace(value.begin(), value.end(), ' ', kHardSpace);
        help += std::string(" [default:") + kHardSpace + value + "]";
      }
      out << wrap(option_names(*option), 2, kWidth) << wrap(help, 8, kWidth);
    }
  }
}

}  // namespace

std::string wrap(const std::string& text, std::size_t indent, std::size_t width) {
  std::istringstream words(text);
  std::string result;
  std::string line(indent, ' ');
  std::string word;
  while (words >> word) {
    const bool first = line.size() == indent;
    if (!first && line.size() + 1 + word.size() > width) {
      result += line + '\n';
      line.assign(indent, ' ');
    } else if (!first) {
      line += ' ';
    }
    line += word;
  }
  result += line + '\n';
  std::replace(result.begin(), result.end(), kHardSpace, ' ');
  return result;
}

std::string environment_name(const CLI::Option& option) {
  const auto& names = option.get_lnames();
  if (names.empty() || names.front() == "help" || names.front() == "version") return {};
  std::string name = "PENSTOCK_" + names.front();
  std::transform(name.begin(), name.end(), name.begin(), [](char c) {
    if (c == '-') return '_';
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  return name;
}

std::string HelpFormatter::make_help(const CLI::App* app, std::string /*name*/, CLI::AppFormatMode /*mode*/) const {
  std::ostringstream out;
  const std::string name = full_name(app);
  const auto commands = app->get_subcommands([](const CLI::App*) { return true; });
  const auto positionals = app->get_options([](const CLI::Option* option) { return option->get_positional(); });

  out << wrap(app->get_description(), 0, kWidth) << '\n';
  out << "usage: " << name;
  if (!commands.empty()) out << " COMMAND";
  for (const CLI::Option* option : positionals) out << " [" << option->get_name(true) << ']';
  out << " [OPTIONS]\n";

  if (!commands.empty()) {
    out << "\nCommands:\n";
    for (const CLI::App* command : commands) {
      out << "  " << command->get_name() << std::string(12 - std::min<std::size_t>(11, command->get_name().size()), ' ')
          << command->get_description() << '\n';
    }
  }
  print_options(out, app);
  if (!app->get_footer().empty()) out << '\n' << app->get_footer() << '\n';
  return out.str();
}

}  // namespace penstock::cli
