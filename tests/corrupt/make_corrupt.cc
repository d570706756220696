// make_corrupt OUT_DIR: writes every damaged model directory of corrupt_cases.h below OUT_DIR, and expected.json, a
// list of {"dir", "code", "message"}: the error's code and a part of its text. For tests of the program.
#include <iostream>

#include "corrupt_cases.h"

int main(int argc, char** argv) {
  using namespace penstock::damage;
  if (argc != 2) give_up("usage: make_corrupt OUT_DIR");
  const fs::path out = argv[1];
  try {
    Json expected = Json::array();
    for (const Case& item : all_cases()) {
      ModelDir model(fs::path(PENSTOCK_SOURCE_DIR) / "tests/golden/data" / item.base);
      item.damage(model);
      fs::remove_all(out / item.name);
      model.write(out / item.name);
      expected.push_back({{"dir", item.name}, {"code", item.code}, {"message", item.message}});
    }
    write_bytes(out / "expected.json", expected.dump(1) + "\n");
    std::cout << expected.size() << " directories\n";
  } catch (const std::exception& error) {
    give_up(error.what());
  }
  return 0;
}
