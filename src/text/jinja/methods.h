// Methods of str, dict, list and the other built-in types, as the sandbox shows them: what would change an object is
// refused.
#pragma once

#include <string_view>

#include "text/jinja/value.h"

namespace penstock::jinja {

using NativeFunction = Value (*)(Interpreter& interpreter, const Value& self, CallArgs& args);

// Null when values of this kind have no such method.
NativeFunction find_method(const Value& self, std::string_view name);
// A method that exists but would change a list or dict.
bool is_mutating_method(const Value& self, std::string_view name);
Value bind_method(const Value& self, std::string_view name, NativeFunction function);

// The tables find_method() looks into; string_methods.cc and methods.cc.
NativeFunction find_str_method(std::string_view name);

}  // namespace penstock::jinja
