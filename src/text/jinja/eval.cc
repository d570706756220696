#include <algorithm>

#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/lexer.h"
#include "text/jinja/methods.h"
#include "text/jinja/ops.h"
#include "text/jinja/print.h"

namespace penstock::jinja {

Value Interpreter::eval(const Expr& expr, const ScopePtr& scope) {
  if (expr.kind == ExprKind::kConst) return expr.value;
  try {
    const NestingGuard guard(budget_);
    budget_.step();
    return eval_kind(expr, scope);
  } catch (Error& error) {
    if (error.at() == kNoPosition) error.set_at(expr.at);
    throw;
  }
}

Value Interpreter::eval_kind(const Expr& expr, const ScopePtr& scope) {
  switch (expr.kind) {
    case ExprKind::kConst:
      return expr.value;
    case ExprKind::kName:
      return eval_name(expr, scope);
    case ExprKind::kNamespaceRef:
      break;
    case ExprKind::kTuple:
      return Value::tuple(budget_, eval_all(expr.items, scope));
    case ExprKind::kList:
      return Value::list(budget_, eval_all(expr.items, scope));
    case ExprKind::kDict:
      return eval_dict(expr, scope);
    case ExprKind::kAttribute:
      return get_attribute(*this, eval(*expr.a, scope), expr.text);
    case ExprKind::kItem: {
      const Value object = eval(*expr.a, scope);
      return get_item(*this, object, eval(*expr.b, scope));
    }
    case ExprKind::kSlice:
      return eval_slice(expr, scope);
    case ExprKind::kCall:
      return eval_call(expr, scope);
    case ExprKind::kFilter:
      return eval_filters(expr, scope, {});
    case ExprKind::kTest:
      return eval_test(expr, scope);
    case ExprKind::kNot:
      return Value::boolean(!eval(*expr.a, scope).truthy());
    case ExprKind::kNegate:
      return negate(eval(*expr.a, scope));
    case ExprKind::kPlus:
      return plus(eval(*expr.a, scope));
    case ExprKind::kBinary:
      return eval_binary(expr, scope);
    case ExprKind::kConcat:
      return eval_concat(expr, scope);
    case ExprKind::kCompare:
      return eval_compare(expr, scope);
    case ExprKind::kAnd:
    case ExprKind::kOr: {
      const bool stop = expr.kind == ExprKind::kOr;
      for (std::size_t i = 0; i + 1 < expr.items.size(); ++i) {
        Value value = eval(*expr.items[i], scope);
        if (value.truthy() == stop) return value;
      }
      return eval(*expr.items.back(), scope);
    }
    case ExprKind::kCondition:
      if (eval(*expr.b, scope).truthy()) return eval(*expr.a, scope);
      if (expr.c) return eval(*expr.c, scope);
      return Value::undefined_hint("the inline if-expression on line " +
                                   std::to_string(position_of(template_.source, expr.at).line) +
                                   " evaluated to false and no else section was defined.");
  }
  fail("this expression has no value");
}

Value Interpreter::eval_name(const Expr& expr, const ScopePtr& scope) {
  if (const Value* found = scope->find(expr.symbol)) return *found;
  Value& variable = variables_[static_cast<std::size_t>(expr.symbol)];
  if (variable.is_missing()) {
    variable = find_global(expr.text);
    if (variable.is_missing()) return Value::undefined(expr.text);
  }
  return variable;
}

std::vector<Value> Interpreter::eval_all(const std::vector<ExprPtr>& exprs, const ScopePtr& scope) {
  std::vector<Value> values;
  values.reserve(exprs.size());
  for (const ExprPtr& expr : exprs) values.push_back(eval(*expr, scope));
  return values;
}

Value Interpreter::eval_dict(const Expr& expr, const ScopePtr& scope) {
  auto dict = std::make_shared<Dict>();
  for (std::size_t i = 0; i + 1 < expr.items.size(); i += 2) {
    Value key = eval(*expr.items[i], scope);
    dict->set(budget_, std::move(key), eval(*expr.items[i + 1], scope));
  }
  return Value::dict(std::move(dict));
}

// a + b + c + … leans to the left: walked without recursion, since templates write long ones.
Value Interpreter::eval_binary(const Expr& expr, const ScopePtr& scope) {
  std::vector<const Expr*> spine;
  const Expr* left = &expr;
  for (; left->kind == ExprKind::kBinary; left = left->a.get()) spine.push_back(left);
  Value value = eval(*left, scope);
  for (auto it = spine.rbegin(); it != spine.rend(); ++it) {
    const Value right = eval(*(*it)->b, scope);
    budget_.step();
    value = binary(budget_, (*it)->op, value, right);
  }
  return value;
}

Value Interpreter::eval_compare(const Expr& expr, const ScopePtr& scope) {
  Value left = eval(*expr.a, scope);
  for (std::size_t i = 0; i < expr.items.size(); ++i) {
    Value right = eval(*expr.items[i], scope);
    if (!compare(budget_, expr.compare[i], left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Interpreter::eval_concat(const Expr& expr, const ScopePtr& scope) {
  StrBuilder out(budget_);
  for (const ExprPtr& item : expr.items) append_str(out, budget_, eval(*item, scope));
  return Value::str(out.finish());
}

Value Interpreter::eval_slice(const Expr& expr, const ScopePtr& scope) {
  const auto part = [&](const ExprPtr& e) { return e ? eval(*e, scope) : Value(); };
  const Value object = eval(*expr.a, scope);
  const Value start = part(expr.b);
  const Value stop = part(expr.c);
  return get_slice(budget_, object, start, stop, part(expr.d));
}

CallArgs Interpreter::eval_arguments(const Arguments& arguments, const ScopePtr& scope) {
  CallArgs args;
  args.positional = eval_all(arguments.positional, scope);
  for (const auto& [name, expr] : arguments.named) args.named.emplace_back(name, eval(*expr, scope));
  if (arguments.star) {
    const std::vector<Value> more = to_vector(budget_, eval(*arguments.star, scope));
    args.positional.insert(args.positional.end(), more.begin(), more.end());
  }
  if (arguments.star_star) {
    const Value more = eval(*arguments.star_star, scope);
    if (!more.is_dict()) fail("argument after ** must be a mapping, not " + more.type_name());
    for (const auto& [key, value] : more.as_dict().entries) {
      if (!key.is_str()) fail("keywords must be strings");
      for (const auto& [name, other] : args.named) {
        budget_.step();
        if (name->text == key.as_str().text) fail("got multiple values for keyword argument '" + name->text + "'");
      }
      args.named.emplace_back(key.str_ptr(), value);
    }
  }
  return args;
}

Value Interpreter::eval_call(const Expr& expr, const ScopePtr& scope, Value caller) {
  Value callee;
  Value self;
  NativeFunction method = nullptr;
  if (expr.a->kind == ExprKind::kAttribute) {
    self = eval(*expr.a->a, scope);
    method = self.is_undefined() ? nullptr : find_method(self, expr.a->text);
    if (method == nullptr) callee = get_attribute(*this, self, expr.a->text);
  } else {
    callee = eval(*expr.a, scope);
  }
  CallArgs args = eval_arguments(expr.arguments, scope);
  if (!caller.is_missing()) args.named.emplace_back(make_str("caller"), std::move(caller));
  return method != nullptr ? method(*this, self, args) : call(callee, args);
}

Value Interpreter::call(const Value& callee, CallArgs& args) {
  require_defined(callee);
  if (!callee.is(Kind::kCallable) || !callee.as<Callable>().callable()) {
    fail("'" + callee.type_name() + "' object is not callable");
  }
  return callee.as<Callable>().call(*this, args);
}

Value Interpreter::eval_filters(const Expr& expr, const ScopePtr& scope, const Value& input) {
  const Value value = !expr.a                             ? input
                      : expr.a->kind == ExprKind::kFilter ? eval_filters(*expr.a, scope, input)
                                                          : eval(*expr.a, scope);
  if (expr.filter == nullptr) fail("No filter named '" + expr.text + "' found.");
  CallArgs args = eval_arguments(expr.arguments, scope);
  budget_.step();
  return expr.filter->apply(*this, value, args);
}

Value Interpreter::eval_test(const Expr& expr, const ScopePtr& scope) {
  const Value value = eval(*expr.a, scope);
  if (expr.test == nullptr) fail("No test named '" + expr.text + "' found.");
  CallArgs args = eval_arguments(expr.arguments, scope);
  return Value::boolean(expr.test->apply(*this, value, args));
}

}  // namespace penstock::jinja
