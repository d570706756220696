// The filters, tests and global functions templates can name.
#pragma once

#include <string_view>

#include "text/jinja/value.h"

namespace penstock::jinja {

struct Filter {
  std::string_view name;
  Value (*apply)(Interpreter& interpreter, const Value& value, CallArgs& args);
};

struct Test {
  std::string_view name;
  bool (*apply)(Interpreter& interpreter, const Value& value, CallArgs& args);
};

const Filter* find_filter(std::string_view name);
const Test* find_test(std::string_view name);
// range, dict, namespace, cycler, joiner, raise_exception, strftime_now; missing when there is no such function.
Value find_global(std::string_view name);

// The two tables find_filter() joins.
const Filter* find_text_filter(std::string_view name);
const Filter* find_sequence_filter(std::string_view name);

}  // namespace penstock::jinja
