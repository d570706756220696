#include "cli/commands.h"

int main(int argc, char** argv) {
  return penstock::cli::run_program(argc, argv);
}
