// The text of --help: the same whatever version of CLI11 the system has, because docs/cli.md is made of it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace penstock::cli {

class HelpFormatter : public CLI::FormatterBase {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override;
};

// `text` in lines of at most `width` columns, each beginning with `indent` spaces.
std::string wrap(const std::string& text, std::size_t indent, std::size_t width);

// The environment variable of an option: PENSTOCK_ and its first long name, e.g. PENSTOCK_CONTEXT_LENGTH.
// Empty for options that have none (--help, --version).
std::string environment_name(const CLI::Option& option);

}  // namespace penstock::cli
