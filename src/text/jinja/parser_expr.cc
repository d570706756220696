#include <algorithm>
#include <array>

#include "text/jinja/filters.h"
#include "text/jinja/parser_base.h"

namespace penstock::jinja {

std::string ParserBase::describe(const Token& token) {
  switch (token.type) {
    case TokenType::kData:
      return "template text";
    case TokenType::kVariableBegin:
      return "'{{'";
    case TokenType::kVariableEnd:
      return "end of print statement";
    case TokenType::kBlockBegin:
      return "'{%'";
    case TokenType::kBlockEnd:
      return "end of statement block";
    case TokenType::kString:
      return "text '" + token.text.substr(0, 40) + "'";
    case TokenType::kEof:
      return "end of template";
    default:
      return "'" + token.text + "'";
  }
}

bool ParserBase::skip_op(std::string_view op) {
  if (!at_op(op)) return false;
  advance();
  return true;
}

bool ParserBase::skip_name(std::string_view name) {
  if (!at_name(name)) return false;
  advance();
  return true;
}

void ParserBase::expect_op(std::string_view op) {
  if (!skip_op(op)) fail_here("expected token '" + std::string(op) + "', got " + describe(current()));
}

void ParserBase::expect_name(std::string_view name) {
  if (!skip_name(name)) fail_here("expected token '" + std::string(name) + "', got " + describe(current()));
}

std::string ParserBase::expect_identifier() {
  if (current().type != TokenType::kName) fail_here("expected a name, got " + describe(current()));
  std::string name = current().text;
  advance();
  return name;
}

void ParserBase::expect_type(TokenType type, const char* what) {
  if (current().type != type) fail_here(std::string("expected ") + what + ", got " + describe(current()));
  advance();
}

ExprPtr ParserBase::make(ExprKind kind, std::uint32_t at) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->at = at;
  return expr;
}

ExprPtr ParserBase::finish(ExprPtr expr) const {
  std::uint32_t depth = 0;
  const auto include = [&](const ExprPtr& child) {
    if (child) depth = std::max(depth, child->depth);
  };
  for (const ExprPtr* child :
       {&expr->a, &expr->b, &expr->c, &expr->d, &expr->arguments.star, &expr->arguments.star_star}) {
    include(*child);
  }
  for (const auto& item : expr->items) include(item);
  for (const auto& item : expr->arguments.positional) include(item);
  for (const auto& [name, item] : expr->arguments.named) include(item);
  expr->depth = depth + 1;
  if (expr->depth > kMaxTreeDepth) fail_at("the expression nests too deeply", expr->at);
  return expr;
}

ExprPtr ParserBase::parse_expression(bool with_condition) {
  return with_condition ? parse_condition() : parse_logic(ExprKind::kOr);
}

ExprPtr ParserBase::parse_condition() {
  const std::size_t unknown = unknown_.size();
  ExprPtr expr = parse_logic(ExprKind::kOr);
  while (at_name("if")) {
    ExprPtr condition = make(ExprKind::kCondition, expr->at);
    advance();
    condition->a = std::move(expr);
    condition->b = parse_logic(ExprKind::kOr);
    if (skip_name("else")) {
      const Descent descent(*this);
      condition->c = parse_condition();
    }
    unknown_.resize(unknown);
    expr = finish(std::move(condition));
  }
  return expr;
}

// a or b or c: one node, so that long chains stay flat.
ExprPtr ParserBase::parse_logic(ExprKind kind) {
  const bool is_or = kind == ExprKind::kOr;
  const auto operand = [&] { return is_or ? parse_logic(ExprKind::kAnd) : parse_not(); };
  const std::string_view word = is_or ? "or" : "and";
  ExprPtr first = operand();
  if (!at_name(word)) return first;
  ExprPtr chain = make(kind, first->at);
  chain->items.push_back(std::move(first));
  while (skip_name(word)) chain->items.push_back(operand());
  return finish(std::move(chain));
}

ExprPtr ParserBase::parse_not() {
  if (!at_name("not")) return parse_compare();
  const Descent descent(*this);
  ExprPtr expr = make(ExprKind::kNot, current().at);
  advance();
  expr->a = parse_not();
  return finish(std::move(expr));
}

bool ParserBase::next_compare(CompareOp& op) {
  constexpr std::array<std::pair<std::string_view, CompareOp>, 6> kOps = {{{"==", CompareOp::kEq},
                                                                           {"!=", CompareOp::kNe},
                                                                           {"<", CompareOp::kLt},
                                                                           {"<=", CompareOp::kLe},
                                                                           {">", CompareOp::kGt},
                                                                           {">=", CompareOp::kGe}}};
  for (const auto& [text, value] : kOps) {
    if (skip_op(text)) {
      op = value;
      return true;
    }
  }
  if (at_name("not") && is_name(look(1), "in")) {
    advance();
    advance();
    op = CompareOp::kNotIn;
    return true;
  }
  op = CompareOp::kIn;
  return skip_name("in");
}

ExprPtr ParserBase::parse_compare() {
  ExprPtr first = parse_sum();
  CompareOp op{};
  if (!next_compare(op)) return first;
  ExprPtr chain = make(ExprKind::kCompare, first->at);
  chain->a = std::move(first);
  do {
    chain->compare.push_back(op);
    chain->items.push_back(parse_sum());
  } while (next_compare(op));
  return finish(std::move(chain));
}

ExprPtr ParserBase::binary(BinaryOp op, ExprPtr a, ExprPtr b) const {
  ExprPtr expr = make(ExprKind::kBinary, a->at);
  expr->op = op;
  expr->a = std::move(a);
  expr->b = std::move(b);
  return finish(std::move(expr));
}

ExprPtr ParserBase::parse_sum() {
  ExprPtr left = parse_concat();
  while (at_op("+") || at_op("-")) {
    const BinaryOp op = at_op("+") ? BinaryOp::kAdd : BinaryOp::kSub;
    advance();
    left = binary(op, std::move(left), parse_concat());
  }
  return left;
}

ExprPtr ParserBase::parse_concat() {
  ExprPtr first = parse_product();
  if (!at_op("~")) return first;
  ExprPtr chain = make(ExprKind::kConcat, first->at);
  chain->items.push_back(std::move(first));
  while (skip_op("~")) chain->items.push_back(parse_product());
  return finish(std::move(chain));
}

ExprPtr ParserBase::parse_product() {
  ExprPtr left = parse_power();
  for (;;) {
    BinaryOp op{};
    if (at_op("*")) {
      op = BinaryOp::kMul;
    } else if (at_op("/")) {
      op = BinaryOp::kDiv;
    } else if (at_op("//")) {
      op = BinaryOp::kFloorDiv;
    } else if (at_op("%")) {
      op = BinaryOp::kMod;
    } else {
      return left;
    }
    advance();
    left = binary(op, std::move(left), parse_power());
  }
}

ExprPtr ParserBase::parse_power() {
  ExprPtr left = parse_unary(true);
  while (skip_op("**")) left = binary(BinaryOp::kPow, std::move(left), parse_unary(true));
  return left;
}

// A sign binds closer than a filter: -1 | abs is (-1) | abs.
ExprPtr ParserBase::parse_unary(bool with_filters) {
  const Descent descent(*this);
  ExprPtr expr;
  if (at_op("-") || at_op("+")) {
    expr = make(at_op("-") ? ExprKind::kNegate : ExprKind::kPlus, current().at);
    advance();
    expr->a = parse_unary(false);
    expr = finish(std::move(expr));
  } else {
    expr = parse_primary();
  }
  expr = parse_postfix(std::move(expr));
  return with_filters ? parse_filter_expr(std::move(expr)) : std::move(expr);
}

ExprPtr ParserBase::parse_postfix(ExprPtr expr) {
  for (;;) {
    if (at_op(".") || at_op("[")) {
      expr = parse_subscript(std::move(expr));
    } else if (at_op("(")) {
      expr = parse_call(std::move(expr));
    } else {
      return expr;
    }
  }
}

ExprPtr ParserBase::parse_filter_expr(ExprPtr expr) {
  for (;;) {
    if (at_op("|")) {
      expr = parse_filters(std::move(expr), false);
    } else if (at_name("is")) {
      expr = parse_test(std::move(expr));
    } else if (at_op("(")) {
      expr = parse_call(std::move(expr));
    } else {
      return expr;
    }
  }
}

ExprPtr ParserBase::parse_name() {
  const Token& token = current();
  const std::string& name = token.text;
  ExprPtr expr = make(ExprKind::kConst, token.at);
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    expr->value = Value::boolean(name == "true" || name == "True");
  } else if (name == "none" || name == "None") {
    expr->value = Value::none();
  } else {
    expr->kind = ExprKind::kName;
    expr->text = name;
    expr->symbol = template_.number(name);
    read_caller_ |= name == "caller";
    read_kwargs_ |= name == "kwargs";
    read_varargs_ |= name == "varargs";
  }
  advance();
  return expr;
}

ExprPtr ParserBase::parse_primary() {
  const Token& token = current();
  switch (token.type) {
    case TokenType::kName:
      return parse_name();
    case TokenType::kString: {
      ExprPtr expr = make(ExprKind::kConst, token.at);
      std::string text;
      for (; current().type == TokenType::kString; advance()) text += current().text;  // 'a' 'b' is one text
      expr->value = Value::str(std::move(text));
      return expr;
    }
    case TokenType::kInteger:
    case TokenType::kFloat: {
      ExprPtr expr = make(ExprKind::kConst, token.at);
      expr->value = token.type == TokenType::kFloat ? Value::real(token.real)
                                                    : Value::integer(static_cast<Int128>(token.integer));
      advance();
      return expr;
    }
    case TokenType::kOperator:
      if (token.text == "[") return parse_list();
      if (token.text == "{") return parse_dict();
      if (token.text == "(") {
        advance();
        ExprPtr expr = parse_tuple(true, {}, true);
        expect_op(")");
        return expr;
      }
      [[fallthrough]];
    default:
      fail_here("unexpected " + describe(token));
  }
}

bool ParserBase::at_tuple_end(std::string_view end_name) const {
  const TokenType type = current().type;
  return type == TokenType::kVariableEnd || type == TokenType::kBlockEnd || at_op(")") ||
         (!end_name.empty() && at_name(end_name));
}

ExprPtr ParserBase::parse_tuple(bool with_condition, std::string_view end_name, bool parenthesised) {
  const std::uint32_t at = current().at;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (!at_tuple_end(end_name)) {
    items.push_back(parse_expression(with_condition));
    if (!skip_op(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return std::move(items.front());
  if (!is_tuple && !parenthesised) fail_here("Expected an expression, got " + describe(current()));
  ExprPtr tuple = make(ExprKind::kTuple, at);
  tuple->items = std::move(items);
  return finish(std::move(tuple));
}

ExprPtr ParserBase::parse_target_primary(bool with_namespace) {
  const Descent descent(*this);
  if (skip_op("(")) {
    ExprPtr inner = parse_target_tuple({}, false);
    expect_op(")");
    return inner;
  }
  const Token token = current();
  if (token.type != TokenType::kName) fail_here("can't assign to " + describe(token));
  advance();
  for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
    if (token.text == constant) fail_at("can't assign to '" + token.text + "'", token.at);
  }
  ExprPtr target = make(ExprKind::kName, token.at);
  target->text = token.text;
  target->symbol = template_.number(token.text);
  if (with_namespace && skip_op(".")) {
    target->kind = ExprKind::kNamespaceRef;
    target->value = Value::str(expect_identifier());
  }
  return target;
}

ExprPtr ParserBase::parse_target_tuple(std::string_view end_name, bool with_namespace) {
  const std::uint32_t at = current().at;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (!at_tuple_end(end_name)) {
    items.push_back(parse_target_primary(with_namespace));
    if (!skip_op(",")) break;
    is_tuple = true;
  }
  if (items.empty()) fail_here("expected a name to assign to, got " + describe(current()));
  if (!is_tuple) return std::move(items.front());
  ExprPtr tuple = make(ExprKind::kTuple, at);
  tuple->items = std::move(items);
  return finish(std::move(tuple));
}

ExprPtr ParserBase::parse_list() {
  ExprPtr list = make(ExprKind::kList, current().at);
  advance();
  while (!at_op("]")) {
    list->items.push_back(parse_expression());
    if (!skip_op(",")) break;
  }
  expect_op("]");
  return finish(std::move(list));
}

ExprPtr ParserBase::parse_dict() {
  ExprPtr dict = make(ExprKind::kDict, current().at);
  advance();
  while (!at_op("}")) {
    dict->items.push_back(parse_expression());
    expect_op(":");
    dict->items.push_back(parse_expression());
    if (!skip_op(",")) break;
  }
  expect_op("}");
  return finish(std::move(dict));
}

ExprPtr ParserBase::parse_subscript(ExprPtr object) {
  const std::uint32_t at = object->at;
  if (skip_op(".")) {
    const Token token = current();
    if (token.type == TokenType::kName) {
      ExprPtr expr = make(ExprKind::kAttribute, at);
      expr->text = token.text;
      expr->a = std::move(object);
      advance();
      return finish(std::move(expr));
    }
    if (token.type != TokenType::kInteger) fail_here("expected name or number, got " + describe(token));
    advance();
    ExprPtr expr = make(ExprKind::kItem, at);
    expr->a = std::move(object);
    expr->b = make(ExprKind::kConst, token.at);
    expr->b->value = Value::integer(static_cast<Int128>(token.integer));
    return finish(std::move(expr));
  }
  expect_op("[");
  ExprPtr expr = parse_subscript_part(std::move(object), at);
  if (at_op(",")) {  // a[b, c] is a[(b, c)]
    if (expr->kind == ExprKind::kSlice) fail_here("slices of several dimensions are not supported");
    ExprPtr tuple = make(ExprKind::kTuple, expr->b->at);
    tuple->items.push_back(std::move(expr->b));
    while (skip_op(",")) tuple->items.push_back(parse_expression());
    expr->b = finish(std::move(tuple));
    expr = finish(std::move(expr));
  }
  expect_op("]");
  return expr;
}

ExprPtr ParserBase::parse_subscript_part(ExprPtr object, std::uint32_t at) {
  ExprPtr expr = make(ExprKind::kItem, at);
  expr->a = std::move(object);
  if (!at_op(":")) expr->b = parse_expression();
  if (skip_op(":")) {
    expr->kind = ExprKind::kSlice;
    const auto part = [this]() -> ExprPtr {
      return at_op(":") || at_op("]") || at_op(",") ? nullptr : parse_expression();
    };
    expr->c = part();
    if (skip_op(":")) expr->d = part();
  }
  return finish(std::move(expr));
}

Arguments ParserBase::parse_arguments() {
  const std::uint32_t open = current().at;
  const auto ensure = [&](bool ok) {
    if (!ok) fail_at("invalid syntax for function call expression", open);
  };
  Arguments out;
  expect_op("(");
  while (!at_op(")")) {
    if (skip_op("*")) {
      ensure(!out.star && !out.star_star);
      out.star = parse_expression();
    } else if (skip_op("**")) {
      ensure(!out.star_star);
      out.star_star = parse_expression();
    } else if (current().type == TokenType::kName && is_op(look(1), "=")) {
      ensure(!out.star_star);
      StrPtr name = make_str(current().text);
      for (const auto& [other, value] : out.named) {
        if (other->text == name->text) fail_here("keyword argument '" + name->text + "' is given twice");
      }
      advance();
      advance();
      out.named.emplace_back(std::move(name), parse_expression());
    } else {
      ensure(!out.star && !out.star_star && out.named.empty());
      out.positional.push_back(parse_expression());
    }
    if (!skip_op(",")) break;
  }
  expect_op(")");
  return out;
}

ExprPtr ParserBase::parse_call(ExprPtr callee) {
  ExprPtr call = make(ExprKind::kCall, callee->at);
  call->a = std::move(callee);
  call->arguments = parse_arguments();
  return finish(std::move(call));
}

ExprPtr ParserBase::parse_filters(ExprPtr value, bool inline_first) {
  while (inline_first || at_op("|")) {
    if (!inline_first) advance();
    inline_first = false;
    ExprPtr expr = make(ExprKind::kFilter, current().at);
    expr->text = expect_identifier();
    while (skip_op(".")) expr->text += "." + expect_identifier();
    expr->filter = find_filter(expr->text);
    if (expr->filter == nullptr) unknown_.emplace_back(expr->at, "No filter named '" + expr->text + "'.");
    expr->a = std::move(value);
    if (at_op("(")) expr->arguments = parse_arguments();
    value = finish(std::move(expr));
  }
  return value;
}

ExprPtr ParserBase::parse_test(ExprPtr value) {
  const std::uint32_t at = current().at;
  advance();
  const bool negated = skip_name("not");
  ExprPtr expr = make(ExprKind::kTest, at);
  expr->text = expect_identifier();
  while (skip_op(".")) expr->text += "." + expect_identifier();
  expr->test = find_test(expr->text);
  if (expr->test == nullptr) unknown_.emplace_back(at, "No test named '" + expr->text + "'.");
  expr->a = std::move(value);
  const TokenType type = current().type;
  const bool operand = type == TokenType::kString || type == TokenType::kInteger || type == TokenType::kFloat ||
                       at_op("[") || at_op("{") ||
                       (type == TokenType::kName && !at_name("else") && !at_name("or") && !at_name("and"));
  if (at_op("(")) {
    expr->arguments = parse_arguments();
  } else if (operand) {
    if (at_name("is")) fail_here("You cannot chain multiple tests with is");
    expr->arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  expr = finish(std::move(expr));
  if (!negated) return expr;
  ExprPtr inverse = make(ExprKind::kNot, at);
  inverse->a = std::move(expr);
  return finish(std::move(inverse));
}

}  // namespace penstock::jinja
