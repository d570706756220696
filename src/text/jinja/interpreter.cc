#include "text/jinja/interpreter.h"

#include <algorithm>

#include "text/jinja/ops.h"
#include "text/jinja/print.h"

namespace penstock::jinja {

const Value* Scope::find(Symbol name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get()) {
    for (const auto& [key, value] : scope->variables) {
      if (key == name) return &value;
    }
  }
  return nullptr;
}

void Scope::set(Symbol name, Value value) {
  for (auto& [key, old] : variables) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  variables.emplace_back(name, std::move(value));
}

Interpreter::Interpreter(const Template& source, const TemplateLimits& limits, const std::tm* now)
    : template_(source),
      budget_(limits),
      now_(now),
      variables_(source.symbols.size()),
      root_(std::make_shared<Scope>(nullptr)) {}

Interpreter::~Interpreter() {
  // Namespaces and macros' scopes may hold each other in circles and in chains of any length. All of them are held
  // here, so emptying them one by one frees everything without deep recursion.
  for (const auto& object : kept_namespaces_) object->attributes.entries.clear();
  for (const auto& scope : kept_scopes_) scope->variables.clear();
}

void Interpreter::set_variable(const std::string& name, Value value) {
  const auto it = template_.numbers.find(name);
  if (it != template_.numbers.end()) variables_[static_cast<std::size_t>(it->second)] = std::move(value);
}

StrPtr Interpreter::run() {
  Capture capture(*this);
  run_body(template_.body, root_);
  return capture.finish().str_ptr();
}

std::tm Interpreter::now() const {
  if (now_ != nullptr) return *now_;
  const std::time_t seconds = std::time(nullptr);
  std::tm local{};
  localtime_r(&seconds, &local);
  return local;
}

void Interpreter::keep(const std::shared_ptr<Namespace>& object) {
  budget_.step(16);
  kept_namespaces_.push_back(object);
}

void Interpreter::keep(const ScopePtr& scope) {
  budget_.step(16);
  if (kept_scopes_.empty() || kept_scopes_.back() != scope) kept_scopes_.push_back(scope);
}

// -----------------------------------------------------------------------------------------------------------
// statements

Interpreter::Flow Interpreter::run_body(const Body& body, const ScopePtr& scope) {
  for (const StmtPtr& stmt : body) {
    const Flow flow = run_stmt(*stmt, scope);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_stmt(const Stmt& stmt, const ScopePtr& scope) {
  try {
    const NestingGuard guard(budget_);
    budget_.step();
    return dispatch(stmt, scope);
  } catch (Error& error) {
    if (error.at() == kNoPosition) error.set_at(stmt.at);
    throw;
  }
}

Interpreter::Flow Interpreter::dispatch(const Stmt& stmt, const ScopePtr& scope) {
  switch (stmt.kind) {
    case StmtKind::kData:
      budget_.work(stmt.data->text.size());
      out_->append(*stmt.data);
      return Flow::kNext;
    case StmtKind::kOutput:
      for (const ExprPtr& expr : stmt.exprs) print(eval(*expr, scope));
      return Flow::kNext;
    case StmtKind::kIf:
      return run_if(stmt, scope);
    case StmtKind::kFor: {
      const Value iterable = eval(*stmt.a, scope);
      return run_for(stmt, iterable, scope, 0);
    }
    case StmtKind::kSet:
      assign(*stmt.target, eval(*stmt.a, scope), scope);
      return Flow::kNext;
    case StmtKind::kSetBlock:
      return run_set_block(stmt, scope);
    case StmtKind::kMacro:
      scope->set(stmt.symbol, make_macro(stmt.macro, scope));
      return Flow::kNext;
    case StmtKind::kCall:
      run_call_block(stmt, scope);
      return Flow::kNext;
    case StmtKind::kFilter:
      return run_filter_block(stmt, scope);
    case StmtKind::kWith:
      return run_with(stmt, scope);
    case StmtKind::kScope:
      return run_body(stmt.body, std::make_shared<Scope>(stmt.isolated ? root_ : scope));
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
    case StmtKind::kUnavailable:
      fail("'" + stmt.text + "' is not available: a chat template is a single file");
  }
  return Flow::kNext;
}

void Interpreter::print(const Value& value) {
  const std::size_t before = out_->size();
  append_str(*out_, budget_, value);
  budget_.work(out_->size() - before);
}

Interpreter::Flow Interpreter::run_if(const Stmt& stmt, const ScopePtr& scope) {
  for (const Branch& branch : stmt.branches) {
    if (!branch.condition || eval(*branch.condition, scope).truthy()) return run_body(branch.body, scope);
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_for(const Stmt& stmt, const Value& iterable, const ScopePtr& scope,
                                       std::int64_t depth0) {
  if (stmt.recursive || stmt.test) keep(scope);
  const auto loop = std::make_shared<Loop>(*this, stmt, iterable, scope, depth0);
  const Value loop_value = Value::object(Kind::kCallable, loop);
  bool completed = false;  // some round ran to its end: then there is no `else`, as in jinja2
  ScopePtr inner;
  for (Value item; loop->advance(item);) {
    budget_.step();
    if (!inner || inner.use_count() > 1) {
      inner = std::make_shared<Scope>(scope);
    } else {
      inner->variables.clear();
    }
    inner->set(template_.loop, loop_value);
    assign(*stmt.target, item, inner);
    const Flow flow = run_body(stmt.body, inner);
    if (flow == Flow::kBreak) break;
    completed = completed || flow == Flow::kNext;
  }
  loop->close();
  if (completed || stmt.otherwise.empty()) return Flow::kNext;
  return run_body(stmt.otherwise, std::make_shared<Scope>(scope));
}

Interpreter::Flow Interpreter::run_set_block(const Stmt& stmt, const ScopePtr& scope) {
  Value text;
  {
    Capture capture(*this);
    const Flow flow = run_body(stmt.body, std::make_shared<Scope>(scope));
    if (flow != Flow::kNext) return flow;
    text = capture.finish();
  }
  assign(*stmt.target, stmt.a ? eval_filters(*stmt.a, scope, text) : text, scope);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_filter_block(const Stmt& stmt, const ScopePtr& scope) {
  Value text;
  {
    Capture capture(*this);
    const Flow flow = run_body(stmt.body, std::make_shared<Scope>(scope));
    if (flow != Flow::kNext) return flow;
    text = capture.finish();
  }
  print(eval_filters(*stmt.a, scope, text));
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_with(const Stmt& stmt, const ScopePtr& scope) {
  const auto inner = std::make_shared<Scope>(scope);
  for (std::size_t i = 0; i < stmt.targets.size(); ++i) assign(*stmt.targets[i], eval(*stmt.exprs[i], scope), inner);
  return run_body(stmt.body, inner);
}

void Interpreter::run_call_block(const Stmt& stmt, const ScopePtr& scope) {
  print(eval_call(*stmt.a, scope, make_macro(stmt.macro, scope)));
}

void Interpreter::assign(const Expr& target, const Value& value, const ScopePtr& scope) {
  switch (target.kind) {
    case ExprKind::kName:
      scope->set(target.symbol, value);
      return;
    case ExprKind::kNamespaceRef: {
      const Value* object = scope->find(target.symbol);
      if (object == nullptr || !object->is(Kind::kNamespace)) fail("cannot assign attribute on non-namespace object");
      if (target.value.as_str().text.starts_with('_')) {
        fail("names on a namespace cannot begin with an underscore: '" + target.value.as_str().text + "'");
      }
      object->as<Namespace>().attributes.set(budget_, target.value, value);
      return;
    }
    default:
      break;
  }
  if (!length_of(value) && !value.is(Kind::kGenerator)) {
    fail("cannot unpack non-iterable " + value.type_name() + " object");
  }
  const std::vector<Value> items = to_vector(budget_, value);
  const std::size_t expected = target.items.size();
  if (items.size() < expected) {
    fail("not enough values to unpack (expected " + std::to_string(expected) + ", got " + std::to_string(items.size()) +
         ")");
  }
  if (items.size() > expected) fail("too many values to unpack (expected " + std::to_string(expected) + ")");
  for (std::size_t i = 0; i < expected; ++i) assign(*target.items[i], items[i], scope);
}

// ---------------------------------------------------------------------------------------------------------------
// macros

Value Interpreter::make_macro(const std::shared_ptr<MacroCode>& code, const ScopePtr& scope) {
  keep(scope);
  return Value::object(Kind::kCallable, std::make_shared<Macro>(code, scope));
}

Value Macro::call(Interpreter& interpreter, CallArgs& args) const {
  return interpreter.run_macro(*code_, closure_, args);
}

Value Macro::attribute(Interpreter& interpreter, std::string_view name) const {
  Budget& budget = interpreter.budget();
  if (name == "name") return Value::str(code_->name);
  if (name == "arguments") {
    std::vector<Value> names;
    for (const Parameter& parameter : code_->parameters) names.push_back(Value::str(parameter.text));
    return Value::list(budget, std::move(names));
  }
  if (name == "caller") return Value::boolean(code_->uses_caller);
  if (name == "catch_kwargs") return Value::boolean(code_->uses_kwargs);
  if (name == "catch_varargs") return Value::boolean(code_->uses_varargs);
  return {};
}

Value Interpreter::run_macro(const MacroCode& code, const ScopePtr& closure, CallArgs& args) {
  budget_.enter_call();
  const auto scope = std::make_shared<Scope>(closure);
  bind_parameters(code, args, scope);
  Capture capture(*this);
  run_body(code.body, scope);
  budget_.leave_call();
  return capture.finish();
}

void Interpreter::bind_parameters(const MacroCode& code, CallArgs& args, const ScopePtr& scope) {
  const auto take = [&](std::string_view name) -> Value {
    for (auto it = args.named.begin(); it != args.named.end(); ++it) {
      if (it->first->text != name) continue;
      Value value = std::move(it->second);
      args.named.erase(it);
      return value;
    }
    return {};
  };
  const std::size_t count = code.parameters.size();
  std::vector<Value> given(count);
  bool found_caller = false;
  for (std::size_t i = 0; i < count; ++i) {
    const bool positional = i < args.positional.size();
    given[i] = positional ? args.positional[i] : take(code.parameters[i].text->text);
    found_caller = found_caller || code.parameters[i].text->text == "caller";
  }
  if (code.uses_caller && !found_caller) {
    Value caller = take("caller");
    scope->set(template_.caller, caller.is_missing() ? Value::undefined_hint("No caller defined") : std::move(caller));
  }
  if (code.uses_kwargs) {
    auto rest = std::make_shared<Dict>();
    for (auto& [name, value] : args.named) rest->set(budget_, Value::str(name), std::move(value));
    scope->set(template_.kwargs, Value::dict(std::move(rest)));
  } else if (!args.named.empty()) {
    const std::string& name = args.named.front().first->text;
    if (name == "caller") fail("macro '" + code.name + "' does not use the caller of its call block");
    fail("macro '" + code.name + "' takes no keyword argument '" + name + "'");
  }
  if (code.uses_varargs) {
    std::vector<Value> rest;
    for (std::size_t i = count; i < args.positional.size(); ++i) rest.push_back(args.positional[i]);
    scope->set(template_.varargs, Value::tuple(budget_, std::move(rest)));
  } else if (args.positional.size() > count) {
    fail("macro '" + code.name + "' takes not more than " + std::to_string(count) + " argument(s)");
  }
  for (std::size_t i = 0; i < count; ++i) {  // defaults may read what was given, and what stands before them
    const Parameter& parameter = code.parameters[i];
    scope->set(parameter.name, given[i].is_missing() ? Value::undefined(parameter.text->text) : given[i]);
  }
  for (std::size_t i = 0; i < count; ++i) {
    const Parameter& parameter = code.parameters[i];
    if (!given[i].is_missing()) continue;
    scope->set(parameter.name,
               parameter.value ? eval(*parameter.value, scope)
                               : Value::undefined_hint("parameter '" + parameter.text->text + "' was not provided"));
  }
}

}  // namespace penstock::jinja
