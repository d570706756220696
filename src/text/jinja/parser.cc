#include "text/jinja/parser.h"

#include <algorithm>

#include "text/jinja/filters.h"
#include "text/jinja/parser_base.h"

namespace penstock::jinja {
namespace {

class Parser : public ParserBase {
 public:
  using ParserBase::ParserBase;

  void run() {
    template_.loop = template_.number("loop");
    template_.caller = template_.number("caller");
    template_.kwargs = template_.number("kwargs");
    template_.varargs = template_.number("varargs");
    template_.body = parse_body({});
    if (!unknown_.empty()) fail_at(unknown_.front().second, unknown_.front().first);
  }

 private:
  using Ends = std::vector<std::string_view>;

  StmtPtr make_stmt(StmtKind kind, std::uint32_t at) const {
    auto stmt = std::make_unique<Stmt>();
    stmt->kind = kind;
    stmt->at = at;
    return stmt;
  }

  // Statements up to a tag in `ends`, whose name is then the current token; up to the end of the template when there
  // are none.
  Body parse_body(const Ends& ends) {
    const Descent descent(*this);
    Body body;
    for (;;) {
      const Token& token = current();
      switch (token.type) {
        case TokenType::kEof:
          if (!ends.empty()) fail_unclosed("Unexpected end of template.", ends);
          return body;
        case TokenType::kData: {
          StmtPtr data = make_stmt(StmtKind::kData, token.at);
          data->data = make_str(token.text);
          body.push_back(std::move(data));
          advance();
          break;
        }
        case TokenType::kVariableBegin: {
          StmtPtr output = make_stmt(StmtKind::kOutput, token.at);
          advance();
          output->exprs.push_back(parse_tuple(true));
          expect_type(TokenType::kVariableEnd, "end of print statement");
          body.push_back(std::move(output));
          break;
        }
        case TokenType::kBlockBegin:
          advance();
          if (current().type == TokenType::kName && std::find(ends.begin(), ends.end(), current().text) != ends.end()) {
            return body;
          }
          body.push_back(parse_statement(ends));
          expect_type(TokenType::kBlockEnd, "end of statement block");
          break;
        default:
          fail_here("unexpected " + describe(token));
      }
    }
  }

  // The body of a statement whose tag has been read: a colon may stand before the end of the tag.
  Body parse_statements(const Ends& ends) {
    skip_op(":");
    expect_type(TokenType::kBlockEnd, "end of statement block");
    return parse_body(ends);
  }

  Body parse_statements_to(std::string_view end) {
    Body body = parse_statements({end});
    advance();
    return body;
  }

  [[noreturn]] void fail_unclosed(std::string message, const Ends& ends) const {
    if (!ends.empty()) {
      message += " Looking for ";
      for (std::size_t i = 0; i < ends.size(); ++i) message += (i == 0 ? "'" : " or '") + std::string(ends[i]) + "'";
      message += ".";
    }
    if (!open_tags_.empty()) {
      const auto& [name, at] = open_tags_.back();
      message += " The innermost block that needs to be closed is '" + name + "', from line " +
                 std::to_string(position_of(template_.source, at).line) + ".";
    }
    fail_here(message);
  }

  StmtPtr parse_statement(const Ends& ends) {
    const Token token = current();
    if (token.type != TokenType::kName) fail_here("tag name expected, got " + describe(token));
    open_tags_.emplace_back(token.text, token.at);
    StmtPtr stmt = parse_tag(token.text, token.at);
    if (!stmt) {
      open_tags_.pop_back();
      fail_unclosed("Encountered unknown tag '" + token.text + "'.", ends);
    }
    open_tags_.pop_back();
    return stmt;
  }

  StmtPtr parse_tag(const std::string& name, std::uint32_t at) {
    if (name == "if") return parse_if(at);
    if (name == "for") return parse_for(at);
    if (name == "set") return parse_set(at);
    if (name == "macro") return parse_macro(at);
    if (name == "call") return parse_call_block(at);
    if (name == "filter") return parse_filter_block(at);
    if (name == "with") return parse_with(at);
    if (name == "print") return parse_print(at);
    if (name == "block") return parse_block(at);
    if (name == "generation") return parse_generation(at);
    if (name == "autoescape") return parse_autoescape(at);
    if (name == "break" || name == "continue") return parse_jump(name == "break", at);
    if (name == "include" || name == "import" || name == "from" || name == "extends") return parse_unavailable(at);
    return nullptr;
  }

  StmtPtr parse_if(std::uint32_t at) {
    const std::size_t unknown = unknown_.size();
    StmtPtr stmt = make_stmt(StmtKind::kIf, at);
    for (bool more = true; more;) {
      advance();  // if, elif
      Branch branch;
      branch.condition = parse_tuple(false);
      branch.body = parse_statements({"elif", "else", "endif"});
      stmt->branches.push_back(std::move(branch));
      more = at_name("elif");
    }
    if (skip_name("else")) {
      Branch branch;
      branch.body = parse_statements({"endif"});
      stmt->branches.push_back(std::move(branch));
    }
    advance();
    unknown_.resize(unknown);
    return stmt;
  }

  StmtPtr parse_for(std::uint32_t at) {
    advance();
    StmtPtr stmt = make_stmt(StmtKind::kFor, at);
    stmt->target = parse_target_tuple("in", false);
    refuse_loop_target(*stmt->target);
    expect_name("in");
    stmt->a = parse_tuple(false, "recursive");
    if (skip_name("if")) stmt->test = parse_expression();
    stmt->recursive = skip_name("recursive");
    ++loops_;
    stmt->body = parse_statements({"endfor", "else"});
    --loops_;
    if (skip_name("else")) stmt->otherwise = parse_statements({"endfor"});
    advance();
    return stmt;
  }

  void refuse_loop_target(const Expr& target) const {
    if (target.kind == ExprKind::kName && target.symbol == template_.loop) {
      fail_at("Can't assign to special loop variable in for-loop target", target.at);
    }
    for (const auto& item : target.items) refuse_loop_target(*item);
  }

  StmtPtr parse_set(std::uint32_t at) {
    advance();
    StmtPtr stmt = make_stmt(StmtKind::kSet, at);
    stmt->target = parse_target_tuple({}, true);
    if (loops_ > 0) refuse_loop_target(*stmt->target);
    if (skip_op("=")) {
      stmt->a = parse_tuple(true);
      return stmt;
    }
    stmt->kind = StmtKind::kSetBlock;
    stmt->a = parse_filters(nullptr, false);
    stmt->body = parse_statements_to("endset");
    return stmt;
  }

  void parse_signature(MacroCode& macro) {
    expect_op("(");
    while (!at_op(")")) {
      const std::uint32_t at = current().at;
      Parameter parameter;
      parameter.text = make_str(expect_identifier());
      parameter.name = template_.number(parameter.text->text);
      if (skip_op("=")) {
        parameter.value = parse_expression();
      } else if (!macro.parameters.empty() && macro.parameters.back().value) {
        fail_at("non-default argument follows default argument", at);
      }
      macro.parameters.push_back(std::move(parameter));
      if (!skip_op(",")) break;
    }
    expect_op(")");
  }

  // The body of a macro or call block. Loops around it do not reach into it.
  void parse_macro_body(MacroCode& macro, std::string_view end, std::uint32_t at) {
    const int loops = std::exchange(loops_, 0);
    const bool caller = std::exchange(read_caller_, false);
    const bool kwargs = std::exchange(read_kwargs_, false);
    const bool varargs = std::exchange(read_varargs_, false);
    macro.body = parse_statements_to(end);
    loops_ = loops;
    const auto is_parameter = [&](std::string_view name) {
      return std::any_of(macro.parameters.begin(), macro.parameters.end(),
                         [&](const Parameter& p) { return p.text->text == name; });
    };
    macro.uses_caller = read_caller_;
    macro.uses_kwargs = read_kwargs_ && !is_parameter("kwargs");
    macro.uses_varargs = read_varargs_ && !is_parameter("varargs");
    for (const Parameter& parameter : macro.parameters) {
      if (macro.uses_caller && parameter.text->text == "caller" && !parameter.value) {
        fail_at("the special \"caller\" argument must be omitted or be given a default", at);
      }
    }
    read_caller_ |= caller;
    read_kwargs_ |= kwargs;
    read_varargs_ |= varargs;
  }

  StmtPtr parse_macro(std::uint32_t at) {
    advance();
    StmtPtr stmt = make_stmt(StmtKind::kMacro, at);
    stmt->macro = std::make_shared<MacroCode>();
    stmt->macro->name = expect_identifier();
    stmt->symbol = template_.number(stmt->macro->name);
    parse_signature(*stmt->macro);
    parse_macro_body(*stmt->macro, "endmacro", at);
    return stmt;
  }

  StmtPtr parse_call_block(std::uint32_t at) {
    advance();
    StmtPtr stmt = make_stmt(StmtKind::kCall, at);
    stmt->macro = std::make_shared<MacroCode>();
    stmt->macro->name = "caller";
    if (at_op("(")) parse_signature(*stmt->macro);
    stmt->a = parse_expression();
    if (stmt->a->kind != ExprKind::kCall) fail_at("expected call", at);
    parse_macro_body(*stmt->macro, "endcall", at);
    return stmt;
  }

  StmtPtr parse_filter_block(std::uint32_t at) {
    advance();
    StmtPtr stmt = make_stmt(StmtKind::kFilter, at);
    stmt->a = parse_filters(nullptr, true);
    stmt->body = parse_statements_to("endfilter");
    return stmt;
  }

  StmtPtr parse_with(std::uint32_t at) {
    advance();
    StmtPtr stmt = make_stmt(StmtKind::kWith, at);
    while (current().type != TokenType::kBlockEnd && !at_op(":")) {
      if (!stmt->targets.empty()) expect_op(",");
      // One target: a comma ends the pair, so tuples need their brackets.
      if (at_op("(")) {
        stmt->targets.push_back(parse_target_tuple({}, false));
      } else {
        ExprPtr target = make(ExprKind::kName, current().at);
        target->text = expect_identifier();
        target->symbol = template_.number(target->text);
        stmt->targets.push_back(std::move(target));
      }
      expect_op("=");
      stmt->exprs.push_back(parse_expression());
    }
    stmt->body = parse_statements_to("endwith");
    return stmt;
  }

  StmtPtr parse_print(std::uint32_t at) {
    advance();
    StmtPtr stmt = make_stmt(StmtKind::kOutput, at);
    while (current().type != TokenType::kBlockEnd) {
      if (!stmt->exprs.empty()) expect_op(",");
      stmt->exprs.push_back(parse_expression());
    }
    return stmt;
  }

  StmtPtr parse_block(std::uint32_t at) {
    advance();
    StmtPtr stmt = make_stmt(StmtKind::kScope, at);
    const std::string name = expect_identifier();
    if (std::find(blocks_.begin(), blocks_.end(), name) != blocks_.end()) {
      fail_at("block '" + name + "' defined twice", at);
    }
    blocks_.push_back(name);
    stmt->isolated = !skip_name("scoped");
    if (at_name("required")) fail_here("required blocks are not supported: chat templates have no parents");
    const int loops = std::exchange(loops_, 0);
    stmt->body = parse_statements_to("endblock");
    loops_ = loops;
    skip_name(name);
    return stmt;
  }

  // {% generation %} marks what the model said, for training; here it is a scope like any other.
  StmtPtr parse_generation(std::uint32_t at) {
    advance();
    StmtPtr stmt = make_stmt(StmtKind::kScope, at);
    const int loops = std::exchange(loops_, 0);
    stmt->body = parse_statements_to("endgeneration");
    loops_ = loops;
    return stmt;
  }

  StmtPtr parse_autoescape(std::uint32_t at) {
    advance();
    StmtPtr stmt = make_stmt(StmtKind::kScope, at);
    const ExprPtr mode = parse_expression();
    if (mode->kind != ExprKind::kConst || mode->value.truthy()) {
      fail_at("autoescape is not supported: a prompt is no HTML", mode->at);
    }
    stmt->body = parse_statements_to("endautoescape");
    return stmt;
  }

  StmtPtr parse_jump(bool is_break, std::uint32_t at) {
    if (loops_ == 0) fail_at("'" + current().text + "' outside loop", at);
    advance();
    return make_stmt(is_break ? StmtKind::kBreak : StmtKind::kContinue, at);
  }

  StmtPtr parse_unavailable(std::uint32_t at) {
    StmtPtr stmt = make_stmt(StmtKind::kUnavailable, at);
    stmt->text = current().text;
    while (current().type != TokenType::kBlockEnd && current().type != TokenType::kEof) advance();
    return stmt;
  }

  int loops_ = 0;  // loops around the current statement, for break and continue
  std::vector<std::pair<std::string, std::uint32_t>> open_tags_;
  std::vector<std::string> blocks_;
};

}  // namespace

std::shared_ptr<const Template> parse_template(std::string_view source, std::string& source_out) {
  auto parsed = std::make_shared<Template>();
  parsed->source = source_out = normalise_source(source);
  Parser(*parsed, tokenize(parsed->source)).run();
  return parsed;
}

}  // namespace penstock::jinja
