// Values as text: Python's str(), repr() and json.dumps().
#pragma once

#include <optional>
#include <string>

#include "text/jinja/str.h"
#include "text/jinja/value.h"

namespace penstock::jinja {

std::string float_repr(double d);  // "1.0", "1e-07", "1e+16", "nan", "inf"
std::string integer_text(Int128 i);

StrPtr to_str(Budget& budget, const Value& value);  // str(value): what {{ value }} prints
StrPtr repr(Budget& budget, const Value& value);
void append_str(StrBuilder& out, Budget& budget, const Value& value);

struct JsonOptions {
  bool ensure_ascii = false;
  std::optional<std::string> indent;  // one level's; none: everything on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};
StrPtr to_json(Budget& budget, const Value& value, const JsonOptions& options);

}  // namespace penstock::jinja
