// The functions every template can call.
#include <algorithm>
#include <array>
#include <ctime>

#include "text/jinja/args.h"
#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/methods.h"
#include "text/jinja/ops.h"
#include "text/jinja/print.h"

namespace penstock::jinja {
namespace {

constexpr std::int64_t kMaxRange = 100'000;  // the sandbox's own limit

Value range_function(Interpreter&, const Value&, CallArgs& args) {
  const Args a("range", args, {"start", "stop", "step"}, 1, 3);
  auto range = std::make_shared<Range>();
  range->start = a.has(1) ? a.integer(0) : 0;
  range->stop = a.integer(a.has(1) ? 1 : 0);
  range->step = a.integer_or(2, 1);
  if (range->step == 0) fail("range() arg 3 must not be zero");
  const Int128 span = static_cast<Int128>(range->stop) - range->start;
  const Int128 step = range->step;
  const Int128 length = (span > 0) == (step > 0) && span != 0 ? (span + (step > 0 ? step - 1 : step + 1)) / step : 0;
  if (length > kMaxRange) {
    fail_limit("Range too big: a template may count to " + std::to_string(kMaxRange) + " at most");
  }
  range->length = static_cast<std::int64_t>(length);
  return Value::object(Kind::kRange, std::move(range));
}

// dict(mapping or pairs, name=value …)
void fill(Interpreter& interpreter, Dict& dict, const CallArgs& args, const char* function) {
  Budget& budget = interpreter.budget();
  if (args.positional.size() > 1) fail(std::string(function) + "() takes at most 1 positional argument");
  if (!args.positional.empty()) {
    const Value& source = args.positional[0];
    Iterator it(budget, source.is_dict() ? make_view(source.dict_ptr(), ViewKind::kItems) : source);
    for (Value item; it.next(item);) {
      std::vector<Value> pair = to_vector(budget, item);
      if (pair.size() != 2) fail("dictionary update sequence elements must have length 2");
      dict.set(budget, std::move(pair[0]), std::move(pair[1]));
    }
  }
  for (const auto& [name, value] : args.named) dict.set(budget, Value::str(name), value);
}

Value dict_function(Interpreter& interpreter, const Value&, CallArgs& args) {
  auto dict = std::make_shared<Dict>();
  fill(interpreter, *dict, args, "dict");
  return Value::dict(std::move(dict));
}

Value namespace_function(Interpreter& interpreter, const Value&, CallArgs& args) {
  auto object = std::make_shared<Namespace>();
  fill(interpreter, object->attributes, args, "namespace");
  for (const auto& [name, value] : object->attributes.entries) {
    if (name.is_str() && name.as_str().text.starts_with('_')) {
      fail("names on a namespace cannot begin with an underscore: '" + name.as_str().text + "'");
    }
  }
  interpreter.keep(object);
  return Value::object(Kind::kNamespace, std::move(object));
}

class Cycler final : public Callable, public std::enable_shared_from_this<Cycler> {
 public:
  explicit Cycler(Value items) : items_(std::move(items)) {}
  Value call(Interpreter&, CallArgs&) const override { fail("'Cycler' object is not callable"); }
  bool callable() const override { return false; }
  std::string type_name() const override { return "Cycler"; }
  std::string object_repr() const override { return "jinja2.utils.Cycler object"; }
  std::uint32_t depth() const override { return 1 + items_.depth(); }

  Value attribute(Interpreter&, std::string_view name) const override {
    const Value self = Value::object(Kind::kCallable, shared_from_this());
    if (name == "current") return current();
    if (name == "items") return items_;
    if (name == "pos") return Value::integer(at_);
    if (name == "next") {
      return bind_method(self, name, [](Interpreter&, const Value& me, CallArgs&) { return me.as<Cycler>().next(); });
    }
    if (name == "reset") {
      return bind_method(self, name, [](Interpreter&, const Value& me, CallArgs&) {
        me.as<Cycler>().at_ = 0;
        return Value::none();
      });
    }
    return {};
  }

 private:
  Value current() const { return items_.as_list().items[at_]; }
  Value next() {
    Value value = current();
    at_ = (at_ + 1) % items_.as_list().items.size();
    return value;
  }

  Value items_;  // a tuple
  std::size_t at_ = 0;
};

Value cycler_function(Interpreter& interpreter, const Value&, CallArgs& args) {
  if (args.positional.empty()) fail("at least one item has to be provided");
  if (!args.named.empty()) fail("cycler() takes no keyword arguments");
  auto cycler = std::make_shared<Cycler>(Value::tuple(interpreter.budget(), args.positional));
  return Value::object(Kind::kCallable, std::move(cycler));
}

class Joiner final : public Callable {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  Value call(Interpreter&, CallArgs& args) const override {
    const Args a("joiner", args, {});
    return std::exchange(used_, true) ? separator_ : Value::str(std::string());
  }
  std::string type_name() const override { return "Joiner"; }
  std::uint32_t depth() const override { return 1 + separator_.depth(); }

 private:
  Value separator_;
  mutable bool used_ = false;
};

Value joiner_function(Interpreter& interpreter, const Value&, CallArgs& args) {
  const Args a("joiner", args, {"sep"});
  Value separator = a.has(0) ? a[0] : Value::str(std::string(", "));
  interpreter.budget().check_data_depth(separator.depth() + 1);
  return Value::object(Kind::kCallable, std::make_shared<Joiner>(std::move(separator)));
}

Value raise_exception_function(Interpreter& interpreter, const Value&, CallArgs& args) {
  const Args a("raise_exception", args, {"message"}, 1);
  throw Error(ErrorKind::kRaised, to_str(interpreter.budget(), a[0])->text);
}

// strftime as Python's naive datetime does it: no time zone, and no microseconds in the stopped clock.
Value strftime_now_function(Interpreter& interpreter, const Value&, CallArgs& args) {
  const Args a("strftime_now", args, {"format"}, 1);
  const StrPtr given = a.str(0);
  std::string format;
  for (std::size_t i = 0; i < given->text.size(); ++i) {
    const char c = given->text[i];
    const char code = c == '%' && i + 1 < given->text.size() ? given->text[i + 1] : '\0';
    if (code == 'f' || code == 'z' || code == 'Z') {
      if (code == 'f') format += "000000";
      ++i;
    } else if (code != '\0') {
      format += {c, code};
      ++i;
    } else {
      format += c == '%' ? "%%" : std::string(1, c);
    }
  }
  if (given->text.find('\0') != std::string::npos) fail("embedded null character");
  if (format.size() > 1000) fail_limit("a time format may have 1000 characters at most");
  std::tm now = interpreter.now();
  std::tm copy = now;
  timegm(&copy);  // computes the day of the week and of the year
  now.tm_wday = copy.tm_wday;
  now.tm_yday = copy.tm_yday;
  format += '.';  // so that an empty result is told from a failed one
  std::string out(std::size_t{64} * 1024, '\0');
  const std::size_t length = std::strftime(out.data(), out.size(), format.c_str(), &now);
  if (length == 0) fail_limit("the formatted time is too long");
  out.resize(length - 1);
  interpreter.budget().check_string(out.size());
  return Value::str(make_str(std::move(out), !given->user.empty()));
}

class Function final : public Callable {
 public:
  Function(std::string_view name, NativeFunction function) : name_(name), function_(function) {}
  Value call(Interpreter& interpreter, CallArgs& args) const override { return function_(interpreter, {}, args); }
  std::string repr() const override { return "<function " + std::string(name_) + ">"; }
  Value attribute(Interpreter&, std::string_view name) const override {
    if (name_ != "dict" || name != "fromkeys") return {};
    const Value empty = Value::dict(std::make_shared<const Dict>());
    return bind_method(empty, name, find_method(empty, name));
  }

 private:
  std::string_view name_;
  NativeFunction function_;
};

constexpr std::array<std::pair<std::string_view, NativeFunction>, 7> kGlobals = {{
    {"range", range_function},
    {"dict", dict_function},
    {"namespace", namespace_function},
    {"cycler", cycler_function},
    {"joiner", joiner_function},
    {"raise_exception", raise_exception_function},
    {"strftime_now", strftime_now_function},
}};

}  // namespace

Value find_global(std::string_view name) {
  const auto* it = std::find_if(kGlobals.begin(), kGlobals.end(), [name](const auto& g) { return g.first == name; });
  if (it == kGlobals.end()) return {};
  return Value::object(Kind::kCallable, std::make_shared<Function>(it->first, it->second));
}

}  // namespace penstock::jinja
