// The commands of the program, one file each.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <vector>

namespace penstock::cli {

// Options are declared on `app` when the command is made; `run` does the work after parsing and gives the exit status.
struct Command {
  CLI::App* app = nullptr;
  std::function<int()> run;
};

Command make_serve(CLI::App& parent);
Command make_chat(CLI::App& parent);
Command make_generate(CLI::App& parent);
Command make_score(CLI::App& parent);
Command make_inspect(CLI::App& parent);
Command make_doctor(CLI::App& parent);
Command make_bench_offline(CLI::App& bench);
Command make_bench_kernels(CLI::App& bench);

// The whole program: parses, runs one command, returns the exit status.
int run_program(int argc, char** argv);

}  // namespace penstock::cli
