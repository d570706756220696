// What Python's str can do, on text that keeps its provenance. Filters and string methods both stand on these.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "text/jinja/str.h"

namespace penstock::jinja {

StrPtr upper(Budget& budget, const Str& s);
StrPtr lower(Budget& budget, const Str& s);
StrPtr capitalize(Budget& budget, const Str& s);
StrPtr swapcase(Budget& budget, const Str& s);
StrPtr title(Budget& budget, const Str& s);         // str.title()
StrPtr title_filter(Budget& budget, const Str& s);  // jinja2's `title`: words begin after space and -({[<

enum class Side : std::uint8_t { kBoth, kLeft, kRight };
// `chars`: the characters to strip; null: white space.
StrPtr strip(Budget& budget, const Str& s, const Str* chars, Side side);

// `separator`: null splits at runs of white space. `max_split` < 0: no limit.
std::vector<StrPtr> split(Budget& budget, const Str& s, const Str* separator, std::int64_t max_split, bool from_right);
std::vector<StrPtr> split_lines(Budget& budget, const Str& s, bool keep_ends);

// `count` < 0: all.
StrPtr replace(Budget& budget, const Str& s, const Str& from, const Str& to, std::int64_t count);

enum class Align : std::uint8_t { kLeft, kRight, kCenter };
StrPtr pad(Budget& budget, const Str& s, std::int64_t width_chars, const Str& fill, Align align);

StrPtr reversed(Budget& budget, const Str& s);
bool is_all(const Str& s, bool (*predicate)(char32_t));  // at least one character, and all of them are

}  // namespace penstock::jinja
