// Template source -> syntax tree.
#pragma once

#include <memory>
#include <string_view>

#include "text/jinja/ast.h"

namespace penstock::jinja {

// Throws Error(kSyntax) with an offset in the normalised source, which `source_out` receives even then.
std::shared_ptr<const Template> parse_template(std::string_view source, std::string& source_out);

}  // namespace penstock::jinja
