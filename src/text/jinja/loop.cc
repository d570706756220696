#include "text/jinja/interpreter.h"
#include "text/jinja/methods.h"
#include "text/jinja/ops.h"

namespace penstock::jinja {

Loop::Loop(Interpreter& interpreter, const Stmt& stmt, const Value& iterable, ScopePtr scope, std::int64_t depth0)
    : interpreter_(interpreter),
      stmt_(stmt),
      scope_(stmt.recursive || stmt.test ? std::move(scope) : nullptr),
      iterator_(interpreter.budget(), iterable),
      depth0_(depth0),
      data_depth_(1 + iterable.depth()) {
  interpreter.budget().check_data_depth(data_depth_);
  if (!stmt.test) size_ = length_of(iterable);
}

void Loop::close() {
  open_ = false;
  before_ = current_ = after_ = Value();
  rest_.clear();
  last_changed_.reset();
}

bool Loop::pull(Value& item) {
  if (exhausted_) return false;
  while (iterator_.next(item)) {
    if (!stmt_.test) return true;
    const auto scope = std::make_shared<Scope>(scope_);
    interpreter_.assign(*stmt_.target, item, scope);
    if (interpreter_.eval(*stmt_.test, scope).truthy()) return true;
  }
  exhausted_ = true;
  return false;
}

bool Loop::peek() {
  if (!after_.is_missing()) return true;
  if (!open_) return false;
  if (rest_at_ < rest_.size()) {
    after_ = rest_[rest_at_++];
    return true;
  }
  return pull(after_);
}

bool Loop::advance(Value& item) {
  if (!peek()) return false;
  ++index0_;
  before_ = std::move(current_);
  current_ = std::move(after_);
  after_ = Value();
  item = current_;
  return true;
}

std::int64_t Loop::length() {
  if (!size_) {
    for (Value item; open_ && pull(item);) rest_.push_back(item);
    const std::size_t ahead = rest_.size() - rest_at_ + (after_.is_missing() ? 0 : 1);
    size_ = static_cast<std::size_t>(index0_ + 1) + ahead;
  }
  return static_cast<std::int64_t>(*size_);
}

bool Loop::changed(std::vector<Value> values) {
  Budget& budget = interpreter_.budget();
  bool different = !last_changed_ || last_changed_->size() != values.size();
  for (std::size_t i = 0; !different && i < values.size(); ++i)
    different = !equal(budget, (*last_changed_)[i], values[i]);
  if (different && open_) last_changed_ = std::move(values);
  return different;
}

Value Loop::call(Interpreter& interpreter, CallArgs& args) const {
  if (!stmt_.recursive) fail("The loop must have the 'recursive' marker to be called recursively.");
  if (args.positional.size() != 1 || !args.named.empty()) fail("loop() takes exactly one argument");
  interpreter.budget().enter_call();
  Interpreter::Capture capture(interpreter);
  interpreter.run_for(stmt_, args.positional[0], scope_, depth0_ + 1);
  interpreter.budget().leave_call();
  return capture.finish();
}

Value Loop::attribute(Interpreter&, std::string_view name) const {
  Loop& self = const_cast<Loop&>(*this);  // reading ahead changes what is remembered, not what is seen
  const auto integer = [](std::int64_t i) { return Value::integer(i); };
  if (name == "index") return integer(index0_ + 1);
  if (name == "index0") return integer(index0_);
  if (name == "first") return Value::boolean(index0_ == 0);
  if (name == "last") return Value::boolean(!self.peek());
  if (name == "length") return integer(self.length());
  if (name == "revindex") return integer(self.length() - index0_);
  if (name == "revindex0") return integer(self.length() - index0_ - 1);
  if (name == "depth") return integer(depth0_ + 1);
  if (name == "depth0") return integer(depth0_);
  if (name == "previtem") return index0_ <= 0 ? Value::undefined_hint("there is no previous item") : before_;
  if (name == "nextitem") return self.peek() ? after_ : Value::undefined_hint("there is no next item");
  const Value loop = Value::object(Kind::kCallable, std::const_pointer_cast<const Loop>(self.shared_from_this()));
  if (name == "cycle") {
    return bind_method(loop, name, [](Interpreter&, const Value& self_value, CallArgs& args) {
      if (args.positional.empty()) fail("no items for cycling given");
      const auto count = static_cast<std::int64_t>(args.positional.size());
      return args.positional[static_cast<std::size_t>(self_value.as<Loop>().index0() % count)];
    });
  }
  if (name == "changed") {
    return bind_method(loop, name, [](Interpreter&, const Value& self_value, CallArgs& args) {
      return Value::boolean(self_value.as<Loop>().changed(args.positional));
    });
  }
  return {};
}

std::string Loop::repr() const {
  const std::int64_t length = const_cast<Loop&>(*this).length();
  return "<LoopContext " + std::to_string(index0_ + 1) + "/" + std::to_string(length) + ">";
}

}  // namespace penstock::jinja
