// Binds the arguments of a call to a native function's parameters, with Python's rules and complaints.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace penstock::jinja {

class Args {
 public:
  // The first `required` of `names` must be given. Parameters before `positional_only` cannot be named.
  Args(std::string_view function, const CallArgs& args, std::initializer_list<std::string_view> names,
       std::size_t required = 0, std::size_t positional_only = 0);

  const Value& operator[](std::size_t i) const { return values_[i]; }  // missing when it was not given
  bool has(std::size_t i) const { return !values_[i].is_missing(); }
  bool given(std::size_t i) const { return has(i) && !values_[i].is_none(); }  // and is not none

  // Typed reads, failing with the parameter's name.
  StrPtr str(std::size_t i) const;
  std::int64_t integer(std::size_t i) const;
  std::int64_t integer_or(std::size_t i, std::int64_t missing) const { return has(i) ? integer(i) : missing; }
  bool truthy_or(std::size_t i, bool missing) const { return has(i) ? values_[i].truthy() : missing; }

 private:
  std::string function_;
  std::vector<std::string_view> names_;
  std::vector<Value> values_;
};

}  // namespace penstock::jinja
