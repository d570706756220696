#include "text/jinja/args.h"

#include <algorithm>

#include "text/jinja/ops.h"

namespace penstock::jinja {

Args::Args(std::string_view function, const CallArgs& args, std::initializer_list<std::string_view> names,
           std::size_t required, std::size_t positional_only)
    : function_(function), names_(names), values_(names.size()) {
  if (args.positional.size() > names_.size()) {
    fail(function_ + "() takes at most " + std::to_string(names_.size()) + " argument(s) (" +
         std::to_string(args.positional.size()) + " given)");
  }
  std::copy(args.positional.begin(), args.positional.end(), values_.begin());
  for (const auto& [name, value] : args.named) {
    const auto it = std::find(names_.begin(), names_.end(), name->text);
    const auto index = static_cast<std::size_t>(it - names_.begin());
    if (it == names_.end() || index < positional_only) {
      fail(function_ + "() got an unexpected keyword argument '" + name->text + "'");
    }
    if (!values_[index].is_missing()) fail(function_ + "() got multiple values for argument '" + name->text + "'");
    values_[index] = value;
  }
  for (std::size_t i = 0; i < required; ++i) {
    if (values_[i].is_missing()) fail(function_ + "() is missing the argument '" + std::string(names_[i]) + "'");
  }
}

StrPtr Args::str(std::size_t i) const {
  require_defined(values_[i]);
  if (!values_[i].is_str()) {
    fail(function_ + "() argument '" + std::string(names_[i]) + "' must be str, not " + values_[i].type_name());
  }
  return values_[i].str_ptr();
}

std::int64_t Args::integer(std::size_t i) const {
  return as_index(values_[i], function_ + "() argument '" + std::string(names_[i]) + "'");
}

}  // namespace penstock::jinja
