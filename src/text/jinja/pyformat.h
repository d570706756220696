// Python's three ways to format: "%s" % x, "{}".format(x) and format specifications such as ">10.2f".
#pragma once

#include <string_view>

#include "text/jinja/value.h"

namespace penstock::jinja {

// `values`: a tuple, a dict for %(name)s, or one value.
StrPtr percent_format(Budget& budget, const Str& format, const Value& values);
StrPtr str_format(Interpreter& interpreter, const Str& format, const CallArgs& args);
StrPtr format_value(Budget& budget, const Value& value, std::string_view spec);

}  // namespace penstock::jinja
