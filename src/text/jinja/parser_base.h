// The two halves of the parser share this: expressions in parser_expr.cc, statements in parser.cc.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/error.h"
#include "text/jinja/lexer.h"

namespace penstock::jinja {

class ParserBase {
 public:
  ParserBase(Template& out, std::vector<Token> tokens) : template_(out), tokens_(std::move(tokens)) {}

 protected:
  // Nested brackets and blocks the parser descends into, and the height of any tree: both bound recursion, here and
  // when the template runs or is destroyed.
  static constexpr std::uint32_t kMaxNesting = 200;
  static constexpr std::uint32_t kMaxTreeDepth = 1000;

  class Descent {
   public:
    explicit Descent(ParserBase& parser) : parser_(parser) {
      if (++parser_.nesting_ > kMaxNesting) parser_.fail_here("the template nests too deeply");
    }
    ~Descent() { --parser_.nesting_; }
    Descent(const Descent&) = delete;
    Descent& operator=(const Descent&) = delete;

   private:
    ParserBase& parser_;
  };

  const Token& current() const { return tokens_[next_]; }
  const Token& look(std::size_t ahead) const { return tokens_[std::min(next_ + ahead, tokens_.size() - 1)]; }
  void advance() {
    if (next_ + 1 < tokens_.size()) ++next_;
  }

  [[noreturn]] void fail_at(const std::string& message, std::uint32_t at) const {
    throw Error(ErrorKind::kSyntax, message, at);
  }
  [[noreturn]] void fail_here(const std::string& message) const { fail_at(message, current().at); }
  static std::string describe(const Token& token);

  static bool is_op(const Token& token, std::string_view op) {
    return token.type == TokenType::kOperator && token.text == op;
  }
  static bool is_name(const Token& token, std::string_view name) {
    return token.type == TokenType::kName && token.text == name;
  }
  bool at_op(std::string_view op) const { return is_op(current(), op); }
  bool at_name(std::string_view name) const { return is_name(current(), name); }
  bool skip_op(std::string_view op);
  bool skip_name(std::string_view name);
  void expect_op(std::string_view op);
  void expect_name(std::string_view name);
  std::string expect_identifier();
  void expect_type(TokenType type, const char* what);

  // Expressions.
  ExprPtr make(ExprKind kind, std::uint32_t at) const;
  ExprPtr finish(ExprPtr expr) const;  // computes the depth, checks it
  ExprPtr parse_expression(bool with_condition = true);
  // `ends`: names that end an empty tuple or one with a comma at its end.
  ExprPtr parse_tuple(bool with_condition, std::string_view end_name = {}, bool parenthesised = false);
  ExprPtr parse_target_tuple(std::string_view end_name, bool with_namespace);
  ExprPtr parse_filters(ExprPtr value,
                        bool inline_first);  // "| a | b", or "a | b" when the first comes without its bar
  ExprPtr parse_unary(bool with_filters);

  Template& template_;
  std::vector<Token> tokens_;
  std::size_t next_ = 0;
  std::uint32_t nesting_ = 0;
  // Filters and tests that do not exist. Inside `if` (statement or expression) that is an error only when one is
  // reached, as in jinja2: those are taken off again.
  std::vector<std::pair<std::uint32_t, std::string>> unknown_;  // offset, message
  // Whether caller, kwargs and varargs have been read since these were last cleared: macros want to know.
  bool read_caller_ = false;
  bool read_kwargs_ = false;
  bool read_varargs_ = false;

 private:
  ExprPtr parse_condition();
  ExprPtr parse_logic(ExprKind kind);
  ExprPtr parse_not();
  ExprPtr parse_compare();
  bool next_compare(CompareOp& op);
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_postfix(ExprPtr expr);
  ExprPtr parse_filter_expr(ExprPtr expr);
  ExprPtr parse_subscript(ExprPtr object);
  ExprPtr parse_subscript_part(ExprPtr object, std::uint32_t at);
  ExprPtr parse_call(ExprPtr callee);
  ExprPtr parse_test(ExprPtr value);
  ExprPtr parse_primary();
  ExprPtr parse_name();
  ExprPtr parse_target_primary(bool with_namespace);
  ExprPtr parse_list();
  ExprPtr parse_dict();
  Arguments parse_arguments();
  bool at_tuple_end(std::string_view end_name) const;
  ExprPtr binary(BinaryOp op, ExprPtr a, ExprPtr b) const;
};

}  // namespace penstock::jinja
