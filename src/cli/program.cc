// Parsing the command line: environment, configuration file, messages for what is wrong.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/commands.h"
#include "cli/config_file.h"
#include "cli/console.h"
#include "cli/help.h"
#include "cli/version.h"
#include "penstock/status.h"

namespace penstock::cli {
namespace {

constexpr const char* kCommandFooter =
    "Every option can be given as an environment variable too, PENSTOCK_ and its first long name, as in\n"
    "PENSTOCK_THREADS=2, or in the file of --config. The command line wins over the environment, and that over\n"
    "the file. In the environment commas separate several values.";

struct Program {
  CLI::App app{"Penstock: run language models that mix Gated DeltaNet linear attention with full attention.",
               "penstock"};
  CLI::App* bench = nullptr;
  std::vector<Command> commands;
  std::string config_file;
};

bool names_option(std::string_view argument, const CLI::Option& option) {
  const auto matches = [&](const std::string& name, const char* dashes) {
    const std::string spelled = dashes + name;
    return argument == spelled || argument.starts_with(spelled + "=");
  };
  return std::any_of(option.get_lnames().begin(), option.get_lnames().end(),
                     [&](const std::string& name) { return matches(name, "--"); }) ||
         std::any_of(option.get_snames().begin(), option.get_snames().end(),
                     [&](const std::string& name) { return matches(name, "-"); });
}

bool on_command_line(const CLI::Option& option, const std::vector<std::string>& arguments) {
  return std::any_of(arguments.begin(), arguments.end(),
                     [&](const std::string& argument) { return names_option(argument, option); });
}

void build(Program& program) {
  program.app.formatter(std::make_shared<HelpFormatter>());
  program.app.set_version_flag("--version", std::string("penstock ") + version(), "print the version");
  program.app.set_help_flag("-h,--help", "print this help");
  program.app.require_subcommand(1);
  program.app.footer(
      "`penstock COMMAND --help` explains a command. Without MODEL, commands use the small model that\n"
      "comes with Penstock.");
  program.commands.push_back(make_serve(program.app));
  program.commands.push_back(make_chat(program.app));
  program.commands.push_back(make_generate(program.app));
  program.commands.push_back(make_score(program.app));
  program.commands.push_back(make_inspect(program.app));
  program.commands.push_back(make_doctor(program.app));
  program.bench = program.app.add_subcommand("bench", "measure speed");
  program.bench->require_subcommand(1);
  program.commands.push_back(make_bench_offline(*program.bench));
  program.commands.push_back(make_bench_kernels(*program.bench));
  for (const Command& command : program.commands) {
    command.app->add_option("--config", program.config_file, "file with options as lines of `name = value`")
        ->type_name("FILE");
    command.app->footer(kCommandFooter);
  }
}

// The command that `arguments` call, or null: known before parsing, because only its options read the environment.
const Command* called(const Program& program, const std::vector<std::string>& arguments) {
  for (const Command& command : program.commands) {
    const bool nested = command.app->get_parent() == program.bench;
    const std::size_t at = nested ? 1 : 0;
    if (arguments.size() <= at || arguments[at] != command.app->get_name()) continue;
    if (!nested || arguments[0] == "bench") return &command;
  }
  return nullptr;
}

const CLI::Option* find_option(const CLI::App& app, const std::string& key) {
  for (const CLI::Option* option : app.get_options()) {
    const auto& names = option->get_lnames();
    if (std::find(names.begin(), names.end(), key) != names.end()) return option;
  }
  return nullptr;
}

// Entries of the file become environment variables where there is none yet: one order of precedence for both.
Status apply_config(const Program& program, const Command& command, const std::vector<std::string>& arguments) {
  std::string path;
  if (const char* environment = std::getenv("PENSTOCK_CONFIG")) path = environment;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--config" && i + 1 < arguments.size()) path = arguments[i + 1];
    if (arguments[i].starts_with("--config=")) path = arguments[i].substr(9);
  }
  if (path.empty()) return {};
  std::ifstream file(path, std::ios::binary);
  if (!file) return not_found(fmt::format("--config: cannot read {}", path));
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  PENSTOCK_ASSIGN_OR_RETURN(const std::vector<ConfigEntry> entries, parse_config(text, path));
  for (const ConfigEntry& entry : entries) {
    const auto owner = std::find_if(program.commands.begin(), program.commands.end(), [&](const Command& candidate) {
      return (entry.section.empty() || entry.section == candidate.app->get_name()) &&
             find_option(*candidate.app, entry.key) != nullptr;
    });
    if (owner == program.commands.end()) {
      return invalid_argument(entry.section.empty()
                                  ? fmt::format("{}:{}: no command has an option --{}", path, entry.line, entry.key)
                                  : fmt::format("{}:{}: there is no command {} with an option --{}", path, entry.line,
                                                entry.section, entry.key));
    }
    if (!entry.section.empty() && entry.section != command.app->get_name()) continue;
    const CLI::Option* option = find_option(*command.app, entry.key);
    if (option == nullptr || entry.values.empty()) continue;
    std::string value = fmt::format("{}", fmt::join(entry.values, ","));
    // The variable has the option's first name; "disable-x = true" of "--enable-x,!--disable-x" is its opposite.
    if (option->check_fname(entry.key)) value = option->get_flag_value(entry.key, value);
    setenv(environment_name(*option).c_str(), value.c_str(), /*replace=*/0);
  }
  return {};
}

void read_environment(const Command& command, const std::vector<std::string>& arguments) {
  for (CLI::Option* option : command.app->get_options()) {
    const std::string name = environment_name(*option);
    if (name.empty()) continue;
    option->envname(name);
    const bool list = option->get_multi_option_policy() == CLI::MultiOptionPolicy::TakeAll;
    // On the command line a comma is part of a value: there the option is repeated.
    if (list && std::getenv(name.c_str()) != nullptr && !on_command_line(*option, arguments)) option->delimiter(',');
  }
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0U : 1U)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

// " Did you mean --port?", or nothing when no option is near.
std::string suggestion(const std::string& message, const CLI::App& app) {
  const std::size_t begin = message.find("--");
  if (begin == std::string::npos) return {};
  const std::string wrong = message.substr(begin + 2, message.find_first_of(" =", begin) - begin - 2);
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, wrong.size() / 3) + 1;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      const std::size_t distance = edit_distance(wrong, name);
      if (distance < best_distance) {
        best = name;
        best_distance = distance;
      }
    }
  }
  return best.empty() ? "" : fmt::format(". Did you mean --{}?", best);
}

// Says where a refused value came from when that was not the command line.
std::string origin(const std::string& message, const CLI::App& app, const std::vector<std::string>& arguments) {
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      if (!message.starts_with("--" + name + ":") || on_command_line(*option, arguments)) continue;
      const std::string variable = environment_name(*option);
      if (!variable.empty() && std::getenv(variable.c_str()) != nullptr) {
        return fmt::format(" (from {} in the environment or --config)", variable);
      }
    }
  }
  return {};
}

int report_parse_error(const Program& program, const Command* command, const CLI::ParseError& error,
                       const std::vector<std::string>& arguments) {
  const bool bench = !arguments.empty() && arguments[0] == "bench";
  const CLI::App& app = command != nullptr ? *command->app : bench ? *program.bench : program.app;
  std::string message = error.what();
  if (command == nullptr && (bench ? arguments.size() > 1 : !arguments.empty())) {
    message = fmt::format("{}: no such command or option", arguments[bench ? 1 : 0]);
  } else if (command == nullptr) {
    message = "a command is missing";
  } else if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ExtrasError)) {
    message += suggestion(message, app);
  } else {
    message += origin(message, app, arguments);
  }
  std::string name = "penstock";
  if (bench) name += " bench";
  if (command != nullptr) name += " " + command->app->get_name();
  while (!message.empty() && (message.back() == '.' || message.back() == '\n')) message.pop_back();
  return report_usage(fmt::format("{} (see {} --help)", message, name));
}

int run(const std::vector<std::string>& arguments) {
  Program program;
  build(program);
  if (arguments.empty()) {
    std::fputs(program.app.help().c_str(), stderr);
    return kExitUsage;
  }
  const Command* command = called(program, arguments);
  if (command != nullptr) {
    const Status status = apply_config(program, *command, arguments);
    if (!status.ok()) return report_usage(status.message());
    read_environment(*command, arguments);
  }
  try {
    program.app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::Success& success) {  // --help, --version
    program.app.exit(success);
    return kExitOk;
  } catch (const CLI::ParseError& error) {
    return report_parse_error(program, command, error, arguments);
  }
  return command->run();
}

}  // namespace

int run_program(int argc, char** argv) {
  set_up_logging("warn");
  try {
    return run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const std::bad_alloc&) {
    print_error("out of memory: use a smaller model, --cache-memory, --context-length or --max-running-requests");
  } catch (const std::exception& error) {
    print_error(fmt::format("unexpected: {}. This is a bug in penstock", error.what()));
  }
  return kExitFailure;
}

}  // namespace penstock::cli
