// Template source -> tokens, with jinja2's rules for white space (trim_blocks and lstrip_blocks on).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::jinja {

enum class TokenType : std::uint8_t {
  kData,           // text between tags; empty data is left out
  kVariableBegin,  // {{
  kVariableEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEof,
};

struct Token {
  TokenType type = TokenType::kEof;
  std::uint32_t at = 0;  // byte offset in the (normalised) source
  std::string text;      // data, name, unescaped string, or operator
  std::uint64_t integer = 0;
  double real = 0.0;
};

struct Position {
  std::size_t line = 1;    // counted from 1
  std::size_t column = 1;  // in characters, counted from 1
};
Position position_of(std::string_view source, std::size_t at);

// Newlines become "\n", and one at the very end is dropped. Offsets in tokens count in the result.
std::string normalise_source(std::string_view source);

// Throws Error(kSyntax).
std::vector<Token> tokenize(std::string_view source);

}  // namespace penstock::jinja
