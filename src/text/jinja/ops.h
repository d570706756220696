// Python's operators and jinja2's lookups on values.
#pragma once

#include <optional>
#include <string_view>

#include "text/jinja/value.h"

namespace penstock::jinja {

enum class BinaryOp : std::uint8_t { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };
enum class CompareOp : std::uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

Value binary(Budget& budget, BinaryOp op, const Value& a, const Value& b);
Value negate(const Value& v);
Value plus(const Value& v);

bool compare(Budget& budget, CompareOp op, const Value& a, const Value& b);
bool less(Budget& budget, const Value& a, const Value& b);
bool contains(Budget& budget, const Value& container, const Value& item);

// object.name: attributes (methods) first, then items. object[key]: items first. Undefined when there is neither.
Value get_attribute(Interpreter& interpreter, const Value& object, std::string_view name);
Value get_item(Interpreter& interpreter, const Value& object, const Value& key);
// object[start:stop:step]; missing values for what was left out.
Value get_slice(Budget& budget, const Value& object, const Value& start, const Value& stop, const Value& step);

// Fails with the undefined value's message.
void require_defined(const Value& v);
// An index or count: fails with "<what> must be an integer, not '…'".
std::int64_t as_index(const Value& v, std::string_view what);

}  // namespace penstock::jinja
