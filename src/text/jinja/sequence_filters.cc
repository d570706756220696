// Filters on lists, dicts and other things that can be iterated. What Python gives as a generator is one here: walked
// when it is used, and once.
#include <algorithm>
#include <array>

#include "text/jinja/args.h"
#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/ops.h"
#include "text/jinja/print.h"
#include "text/jinja/string_ops.h"

namespace penstock::jinja {
namespace {

std::uint32_t depth_with(const Value& value, const CallArgs& args) {
  std::uint32_t depth = value.depth();
  for (const Value& arg : args.positional) depth = std::max(depth, arg.depth());
  for (const auto& [name, arg] : args.named) depth = std::max(depth, arg.depth());
  return depth + 1;
}

// attribute="a.b.0": every part is looked up as an item, digits as an index.
class Getter {
 public:
  Getter(Interpreter& interpreter, const Value& attribute, Value fallback = {}, bool ignore_case = false)
      : interpreter_(interpreter), fallback_(std::move(fallback)), ignore_case_(ignore_case) {
    if (attribute.is_missing() || attribute.is_none()) return;
    if (!attribute.is_str()) {
      parts_.push_back(attribute);
      return;
    }
    Budget& budget = interpreter.budget();
    for (const StrPtr& part : split(budget, attribute.as_str(), make_str(".").get(), -1, false)) {
      const bool digits = !part->text.empty() && part->text.size() < 18 &&
                          part->text.find_first_not_of("0123456789") == std::string::npos;
      parts_.push_back(digits ? Value::integer(std::int64_t{std::stoll(part->text)}) : Value::str(part));
    }
  }

  Value operator()(Value item) const {
    for (const Value& part : parts_) {
      item = get_item(interpreter_, item, part);
      if (item.is_undefined() && !fallback_.is_missing() && !fallback_.is_none()) item = fallback_;
    }
    if (ignore_case_ && item.is_str()) return Value::str(lower(interpreter_.budget(), item.as_str()));
    return item;
  }

 private:
  Interpreter& interpreter_;
  std::vector<Value> parts_;
  Value fallback_;
  bool ignore_case_;
};

Value join_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("join", args, {"d", "attribute"});
  Budget& budget = interpreter.budget();
  const StrPtr separator = a.has(0) ? to_str(budget, a[0]) : make_str("");
  const Getter get(interpreter, a[1]);
  StrBuilder out(budget);
  Iterator it(budget, value);
  bool first = true;
  for (Value item; it.next(item); first = false) {
    if (!first) out.append(*separator);
    append_str(out, budget, get(item));
  }
  return Value::str(out.finish());
}

Value length_filter(Interpreter&, const Value& value, CallArgs& args) {
  const Args a("length", args, {});
  const auto length = length_of(value);
  if (!length) fail("object of type '" + value.type_name() + "' has no len()");
  return Value::integer(*length);
}

Value first_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("first", args, {});
  Iterator it(interpreter.budget(), value);
  Value item;
  return it.next(item) ? item : Value::undefined_hint("No first item, sequence was empty.");
}

Value last_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("last", args, {});
  Iterator it(interpreter.budget(), value, true);
  Value item;
  return it.next(item) ? item : Value::undefined_hint("No last item, sequence was empty.");
}

Value list_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("list", args, {});
  return Value::list(interpreter.budget(), to_vector(interpreter.budget(), value));
}

Value reverse_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("reverse", args, {});
  Budget& budget = interpreter.budget();
  if (value.is_str()) return Value::str(reversed(budget, value.as_str()));
  if (value.is(Kind::kGenerator) || value.is_undefined()) {
    std::vector<Value> items = to_vector(budget, value);
    std::reverse(items.begin(), items.end());
    return Value::list(budget, std::move(items));
  }
  const auto it = std::make_shared<Iterator>(budget, value, true);
  return make_generator(budget, "reversed", value.depth() + 1, [it](Value& out) { return it->next(out); });
}

Value items_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("items", args, {});
  Budget& budget = interpreter.budget();
  std::shared_ptr<Iterator> it;
  return make_generator(budget, "do_items", value.depth() + 2, [&budget, value, it](Value& out) mutable {
    if (value.is_undefined()) return false;
    if (!value.is_dict()) fail("Can only get item pairs from a mapping.");
    if (!it) it = std::make_shared<Iterator>(budget, make_view(value.dict_ptr(), ViewKind::kItems));
    return it->next(out);
  });
}

// -------------------------------------------------------------------------------------------------------- map and
// select

using Step = std::function<Value(const Value&)>;

Step mapping_of(Interpreter& interpreter, const CallArgs& args) {
  const bool by_attribute = std::any_of(args.named.begin(), args.named.end(),
                                        [](const auto& named) { return named.first->text == "attribute"; });
  if (args.positional.empty() && !by_attribute) fail("map requires a filter argument");
  if (args.positional.empty()) {
    const Args a("map", args, {"attribute", "default"}, 1);
    return Getter(interpreter, a[0], a[1]);
  }
  if (!args.positional[0].is_str()) fail("map requires the name of a filter");
  const std::string& name = args.positional[0].as_str().text;
  const Filter* filter = find_filter(name);
  if (filter == nullptr) fail("No filter named '" + name + "'.");
  CallArgs rest = args;
  rest.positional.erase(rest.positional.begin());
  return [&interpreter, filter, rest](const Value& item) {
    CallArgs call = rest;
    return filter->apply(interpreter, item, call);
  };
}

Value map_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  Budget& budget = interpreter.budget();
  std::shared_ptr<Iterator> it;
  Step step;
  return make_generator(budget, "sync_do_map", depth_with(value, args),
                        [&interpreter, value, args, it, step](Value& out) mutable {
                          if (!it) {
                            if (!value.truthy()) return false;
                            step = mapping_of(interpreter, args);
                            it = std::make_shared<Iterator>(interpreter.budget(), value);
                          }
                          Value item;
                          if (!it->next(item)) return false;
                          out = step(item);
                          return true;
                        });
}

using Condition = std::function<bool(const Value&)>;

// What select, reject, selectattr and rejectattr decide by: the test named first (after the attribute), or truth.
Condition condition_of(Interpreter& interpreter, const CallArgs& args, bool attribute) {
  if (attribute && args.positional.empty()) fail("Missing parameter for attribute name");
  const Getter get(interpreter, attribute ? args.positional[0] : Value());
  const std::size_t skip = attribute ? 1 : 0;
  if (args.positional.size() <= skip) return [get](const Value& item) { return get(item).truthy(); };
  const Value& name = args.positional[skip];
  const Test* test = name.is_str() ? find_test(name.as_str().text) : nullptr;
  if (test == nullptr) fail("No test named '" + to_str(interpreter.budget(), name)->text + "'.");
  CallArgs rest = args;
  rest.positional.erase(rest.positional.begin(), rest.positional.begin() + static_cast<std::ptrdiff_t>(skip + 1));
  return [&interpreter, get, test, rest](const Value& item) {
    CallArgs call = rest;
    return test->apply(interpreter, get(item), call);
  };
}

template <bool keep, bool attribute>
Value select_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  std::shared_ptr<Iterator> it;
  Condition condition;
  return make_generator(interpreter.budget(), "select_or_reject", depth_with(value, args),
                        [&interpreter, value, args, it, condition](Value& out) mutable {
                          if (!it) {
                            if (!value.truthy()) return false;
                            condition = condition_of(interpreter, args, attribute);
                            it = std::make_shared<Iterator>(interpreter.budget(), value);
                          }
                          while (it->next(out)) {
                            if (condition(out) == keep) return true;
                          }
                          return false;
                        });
}

// --------------------------------------------------------------------------------------------------------------
// sorting

// Stable; `reverse` keeps equal elements in their order too.
template <typename T, typename Key>
void sort_by(Budget& budget, std::vector<T>& items, bool reverse, Key key) {
  const auto before = [&](const T& a, const T& b) { return less(budget, key(a), key(b)); };
  if (reverse) std::reverse(items.begin(), items.end());
  std::stable_sort(items.begin(), items.end(), before);
  if (reverse) std::reverse(items.begin(), items.end());
}

using Keyed = std::pair<Value, Value>;  // key, item
const auto kKeyOf = [](const Keyed& entry) -> const Value& { return entry.first; };

Value sort_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("sort", args, {"reverse", "case_sensitive", "attribute"});
  Budget& budget = interpreter.budget();
  const bool ignore_case = !a.truthy_or(1, false);
  std::vector<Getter> getters;
  if (a.given(2) && a[2].is_str()) {
    for (const StrPtr& name : split(budget, *a.str(2), make_str(",").get(), -1, false)) {
      getters.emplace_back(interpreter, Value::str(name), Value(), ignore_case);
    }
  } else {
    getters.emplace_back(interpreter, a[2], Value(), ignore_case);
  }
  std::vector<Keyed> keyed;
  Iterator it(budget, value);
  for (Value item; it.next(item);) {
    std::vector<Value> keys;
    for (const Getter& get : getters) keys.push_back(get(item));
    keyed.emplace_back(Value::list(budget, std::move(keys)), item);
  }
  sort_by(budget, keyed, a.truthy_or(0, false), kKeyOf);
  std::vector<Value> items;
  for (Keyed& entry : keyed) items.push_back(std::move(entry.second));
  return Value::list(budget, std::move(items));
}

Value dictsort_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("dictsort", args, {"case_sensitive", "by", "reverse"});
  Budget& budget = interpreter.budget();
  require_defined(value);
  if (!value.is_dict()) fail("dictsort needs a mapping, not " + value.type_name());
  const std::string by = a.has(1) ? a.str(1)->text : "key";
  if (by != "key" && by != "value") fail("You can only sort by either \"key\" or \"value\"");
  const Getter key(interpreter, Value(), Value(), !a.truthy_or(0, false));
  std::vector<Keyed> keyed;
  for (const auto& [name, item] : value.as_dict().entries) {
    keyed.emplace_back(key(by == "key" ? name : item), Value::tuple(budget, {name, item}));
  }
  sort_by(budget, keyed, a.truthy_or(2, false), kKeyOf);
  std::vector<Value> items;
  for (Keyed& entry : keyed) items.push_back(std::move(entry.second));
  return Value::list(budget, std::move(items));
}

// Nothing in it but data: what `unique` may remember. (Generators that remember generators could form endless chains.)
bool is_plain(const Value& key) {
  if (key.is(Kind::kTuple)) {
    const auto& items = key.as_list().items;
    return std::all_of(items.begin(), items.end(), is_plain);
  }
  return key.is_undefined() || key.is_none() || key.is_number() || key.is_str();
}

Value unique_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("unique", args, {"case_sensitive", "attribute"});
  Budget& budget = interpreter.budget();
  const Getter key(interpreter, a[1], Value(), !a.truthy_or(0, false));
  std::shared_ptr<Iterator> it;
  const auto seen = std::make_shared<Dict>();
  return make_generator(budget, "sync_do_unique", depth_with(value, args),
                        [&budget, value, key, it, seen](Value& out) mutable {
                          if (!it) it = std::make_shared<Iterator>(budget, value);
                          while (it->next(out)) {
                            const Value k = key(out);
                            if (!is_plain(k)) fail("unique cannot compare values of type '" + k.type_name() + "'");
                            if (seen->find(budget, k) != nullptr) continue;
                            seen->set(budget, k, Value::none());
                            return true;
                          }
                          return false;
                        });
}

Value groupby_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("groupby", args, {"attribute", "default", "case_sensitive"}, 1);
  Budget& budget = interpreter.budget();
  const Getter key(interpreter, a[0], a[1], !a.truthy_or(2, false));
  const Getter shown(interpreter, a[0], a[1]);
  std::vector<Keyed> keyed;
  Iterator it(budget, value);
  for (Value item; it.next(item);) keyed.emplace_back(key(item), item);
  sort_by(budget, keyed, false, kKeyOf);
  std::vector<Value> groups;
  for (std::size_t i = 0; i < keyed.size();) {
    std::vector<Value> members;
    const std::size_t first = i;
    for (; i < keyed.size() && equal(budget, keyed[i].first, keyed[first].first); ++i)
      members.push_back(keyed[i].second);
    Value name = shown(keyed[first].second);
    groups.push_back(Value::tuple(budget, {std::move(name), Value::list(budget, std::move(members))}, true));
    if (i == first) ++i;  // a NaN equals nothing
  }
  return Value::list(budget, std::move(groups));
}

template <bool maximum>
Value extreme_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a(maximum ? "max" : "min", args, {"case_sensitive", "attribute"});
  Budget& budget = interpreter.budget();
  const Getter key(interpreter, a[1], Value(), !a.truthy_or(0, false));
  Iterator it(budget, value);
  Value best;
  if (!it.next(best)) return Value::undefined_hint("No aggregated item, sequence was empty.");
  Value best_key = key(best);
  for (Value item; it.next(item);) {
    Value k = key(item);
    if (maximum ? !less(budget, best_key, k) : !less(budget, k, best_key)) continue;
    best = item;
    best_key = std::move(k);
  }
  return best;
}

Value sum_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("sum", args, {"attribute", "start"});
  Budget& budget = interpreter.budget();
  const Getter get(interpreter, a[0]);
  Value sum = a.has(1) ? a[1] : Value::integer(std::int64_t{0});
  if (sum.is_str()) fail("sum() can't sum strings [use ''.join(seq) instead]");
  Iterator it(budget, value);
  for (Value item; it.next(item);) sum = binary(budget, BinaryOp::kAdd, sum, get(item));
  return sum;
}

// ------------------------------------------------------------------------------------------------------ batch and
// slice

// A generator over what `make` gives, which is called when the first element is wanted.
Value deferred(Budget& budget, const char* name, std::uint32_t depth, std::function<std::vector<Value>()> make) {
  std::shared_ptr<Iterator> it;
  return make_generator(budget, name, depth, [&budget, it, make = std::move(make)](Value& out) mutable {
    if (!it) it = std::make_shared<Iterator>(budget, Value::list(budget, make()));
    return it->next(out);
  });
}

std::vector<Value> batches_of(Budget& budget, const Value& value, std::int64_t size, const Value& fill) {
  std::vector<Value> batches;
  std::vector<Value> line;
  Iterator it(budget, value);
  for (Value item; it.next(item);) {
    if (static_cast<std::int64_t>(line.size()) == size) batches.push_back(Value::list(budget, std::exchange(line, {})));
    line.push_back(item);
  }
  if (line.empty()) return batches;
  while (!fill.is_missing() && !fill.is_none() && static_cast<std::int64_t>(line.size()) < size) {
    budget.step();
    line.push_back(fill);
  }
  batches.push_back(Value::list(budget, std::move(line)));
  return batches;
}

Value batch_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("batch", args, {"linecount", "fill_with"}, 1);
  Budget& budget = interpreter.budget();
  return deferred(budget, "do_batch", depth_with(value, args) + 2,
                  [&budget, value, size = a.integer(0), fill = a[1]] { return batches_of(budget, value, size, fill); });
}

std::vector<Value> columns_of(Budget& budget, const Value& value, std::int64_t count, const Value& fill) {
  if (count == 0) fail("integer division or modulo by zero");
  const std::vector<Value> items = to_vector(budget, value);
  const auto size = static_cast<std::int64_t>(items.size());
  std::vector<Value> columns;
  auto next = items.begin();
  for (std::int64_t i = 0; i < count; ++i) {
    budget.step();
    const bool longer = i < size % count;
    const auto end = next + static_cast<std::ptrdiff_t>(size / count + (longer ? 1 : 0));
    std::vector<Value> column(next, end);
    if (!fill.is_missing() && !fill.is_none() && !longer) column.push_back(fill);
    columns.push_back(Value::list(budget, std::move(column)));
    next = end;
  }
  return columns;
}

Value slice_filter(Interpreter& interpreter, const Value& value, CallArgs& args) {
  const Args a("slice", args, {"slices", "fill_with"}, 1);
  Budget& budget = interpreter.budget();
  return deferred(
      budget, "sync_do_slice", depth_with(value, args) + 2,
      [&budget, value, count = a.integer(0), fill = a[1]] { return columns_of(budget, value, count, fill); });
}

constexpr std::array<Filter, 22> kFilters = {{
    {"join", join_filter},
    {"length", length_filter},
    {"count", length_filter},
    {"first", first_filter},
    {"last", last_filter},
    {"list", list_filter},
    {"reverse", reverse_filter},
    {"items", items_filter},
    {"map", map_filter},
    {"select", select_filter<true, false>},
    {"reject", select_filter<false, false>},
    {"selectattr", select_filter<true, true>},
    {"rejectattr", select_filter<false, true>},
    {"sort", sort_filter},
    {"dictsort", dictsort_filter},
    {"unique", unique_filter},
    {"groupby", groupby_filter},
    {"min", extreme_filter<false>},
    {"max", extreme_filter<true>},
    {"sum", sum_filter},
    {"batch", batch_filter},
    {"slice", slice_filter},
}};

}  // namespace

const Filter* find_sequence_filter(std::string_view name) {
  const auto* it = std::find_if(kFilters.begin(), kFilters.end(), [name](const Filter& f) { return f.name == name; });
  return it == kFilters.end() ? nullptr : it;
}

const Filter* find_filter(std::string_view name) {
  const Filter* filter = find_text_filter(name);
  return filter != nullptr ? filter : find_sequence_filter(name);
}

}  // namespace penstock::jinja
