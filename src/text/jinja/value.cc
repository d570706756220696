#include "text/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "text/jinja/unicode.h"

namespace penstock::jinja {

std::string UndefinedInfo::message() const {
  if (!hint.empty()) return hint;
  if (owner.empty()) return "'" + name + "' is undefined";
  if (name.starts_with('\'') || name.starts_with('"')) return "'" + owner + "' has no attribute " + name;
  return owner + " has no element " + name;
}

namespace {

Value make_undefined(std::string hint, std::string owner, std::string name) {
  auto info = std::make_shared<UndefinedInfo>();
  info->hint = std::move(hint);
  info->owner = std::move(owner);
  info->name = std::move(name);
  return Value::object(Kind::kUndefined, std::move(info));
}

std::uint32_t deepest(const std::vector<Value>& items) {
  std::uint32_t depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  return depth;
}

Value make_sequence(Budget& budget, Kind kind, std::vector<Value> items, bool group) {
  auto list = std::make_shared<List>();
  list->depth = 1 + deepest(items);
  list->group = group;
  budget.check_data_depth(list->depth);
  budget.step(static_cast<std::int64_t>(items.size()));
  list->items = std::move(items);
  return Value::object(kind, std::move(list));
}

}  // namespace

Value Value::undefined(std::string variable) {
  return make_undefined("", "", std::move(variable));
}
Value Value::undefined_hint(std::string hint) {
  return make_undefined(std::move(hint), "", "");
}
Value Value::undefined_attribute(const Value& owner, std::string_view name) {
  return make_undefined("", owner.object_repr(), "'" + std::string(name) + "'");
}
Value Value::undefined_element(const Value& owner, const std::string& name_repr) {
  return make_undefined("", owner.object_repr(), name_repr);
}

Value Value::boolean(bool b) {
  Value v(Kind::kBool);
  v.i_ = b ? 1 : 0;
  return v;
}

Value Value::integer(std::int64_t i) {
  Value v(Kind::kInt);
  v.i_ = i;
  return v;
}

Value Value::integer(Int128 i) {
  if (i >= std::numeric_limits<std::int64_t>::min() && i <= std::numeric_limits<std::int64_t>::max()) {
    return integer(static_cast<std::int64_t>(i));
  }
  if (i < 0 || i > static_cast<Int128>(std::numeric_limits<std::uint64_t>::max())) {
    fail("integer overflow: numbers have 64 bits here");
  }
  Value v(Kind::kUInt);
  v.i_ = static_cast<std::int64_t>(static_cast<std::uint64_t>(i));
  return v;
}

Value Value::real(double d) {
  Value v(Kind::kFloat);
  v.d_ = d;
  return v;
}

Value Value::list(Budget& budget, std::vector<Value> items) {
  return make_sequence(budget, Kind::kList, std::move(items), false);
}
Value Value::tuple(Budget& budget, std::vector<Value> items, bool group) {
  return make_sequence(budget, Kind::kTuple, std::move(items), group);
}
Value Value::dict(DictPtr d) {
  return Value(Kind::kDict, std::move(d));
}

const Dict& Value::as_dict() const {
  return static_cast<const Dict&>(*object_);
}
DictPtr Value::dict_ptr() const {
  return std::static_pointer_cast<const Dict>(object_);
}

bool Value::truthy() const {
  switch (kind_) {
    case Kind::kMissing:
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kUInt:
      return i_ != 0;
    case Kind::kFloat:
      return d_ != 0.0;
    case Kind::kNamespace:
    case Kind::kGenerator:
    case Kind::kCallable:
      return true;
    default:
      return *length_of(*this) != 0;
  }
}

std::uint32_t Value::depth() const {
  switch (kind_) {
    case Kind::kList:
    case Kind::kTuple:
      return as_list().depth;
    case Kind::kDict:
      return as_dict().depth;
    case Kind::kView:
      return 1 + as<View>().dict->depth;
    case Kind::kGenerator:
      return as<Generator>().depth;
    case Kind::kCallable:
      return as<Callable>().depth();
    default:
      return 0;
  }
}

std::string Value::type_name() const {
  switch (kind_) {
    case Kind::kMissing:
      return "missing";
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
    case Kind::kUInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kStr:
      return as_str().markup ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kView: {
      const ViewKind view = as<View>().view;
      return view == ViewKind::kKeys ? "dict_keys" : view == ViewKind::kValues ? "dict_values" : "dict_items";
    }
    case Kind::kRange:
      return "range";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kGenerator:
      return "generator";
    case Kind::kCallable:
      return as<Callable>().type_name();
  }
  return "object";
}

std::string Value::object_repr() const {
  if (is_none()) return "None";
  if (is(Kind::kNamespace)) return "jinja2.utils.Namespace object";
  if (is(Kind::kCallable)) return as<Callable>().object_repr();
  return type_name() + " object";
}

// ----------------------------------------------------------------------------------------------------------------
// dicts

template <typename Match>
std::ptrdiff_t Dict::locate(std::uint64_t hash, Match match) const {
  if (index_.empty()) {
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (match(entries[i].first)) return static_cast<std::ptrdiff_t>(i);
    }
    return -1;
  }
  const auto [first, last] = index_.equal_range(hash);
  for (auto it = first; it != last; ++it) {
    if (match(entries[it->second].first)) return it->second;
  }
  return -1;
}

const Value* Dict::find(std::string_view key) const {
  const std::uint64_t hash = index_.empty() ? 0 : std::hash<std::string_view>{}(key);
  const auto at = locate(hash, [&](const Value& k) { return k.is_str() && k.as_str().text == key; });
  return at < 0 ? nullptr : &entries[static_cast<std::size_t>(at)].second;
}

const Value* Dict::find(Budget& budget, const Value& key) const {
  const std::uint64_t hash = hash_of(budget, key);
  const auto at = locate(hash, [&](const Value& k) { return equal(budget, k, key); });
  return at < 0 ? nullptr : &entries[static_cast<std::size_t>(at)].second;
}

void Dict::set(Budget& budget, Value key, Value value) {
  const std::uint64_t hash = hash_of(budget, key);
  depth = std::max({depth, 1 + value.depth(), 1 + key.depth()});
  budget.check_data_depth(depth);
  budget.step();
  const auto at = locate(hash, [&](const Value& k) { return equal(budget, k, key); });
  if (at >= 0) {
    entries[static_cast<std::size_t>(at)].second = std::move(value);
    return;
  }
  entries.emplace_back(std::move(key), std::move(value));
  if (!index_.empty()) {
    index_.emplace(hash, static_cast<std::uint32_t>(entries.size() - 1));
  } else if (entries.size() > kLinear) {
    for (std::size_t i = 0; i < entries.size(); ++i) {
      index_.emplace(hash_of(budget, entries[i].first), static_cast<std::uint32_t>(i));
    }
  }
}

Value make_view(DictPtr dict, ViewKind view) {
  auto object = std::make_shared<View>();
  object->dict = std::move(dict);
  object->view = view;
  return Value::object(Kind::kView, std::move(object));
}

// ------------------------------------------------------------------------------------------------------------
// iteration

std::optional<std::size_t> length_of(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kStr:
      return value.as_str().chars;
    case Kind::kList:
    case Kind::kTuple:
      return value.as_list().items.size();
    case Kind::kDict:
      return value.as_dict().entries.size();
    case Kind::kView:
      return value.as<View>().dict->entries.size();
    case Kind::kRange:
      return static_cast<std::size_t>(value.as<Range>().length);
    default:
      return std::nullopt;
  }
}

Iterator::Iterator(Budget& budget, const Value& value, bool reversed)
    : budget_(&budget), value_(value), reversed_(reversed) {
  if (value.is_str()) {
    size_ = value.as_str().text.size();
  } else if (const auto length = length_of(value)) {
    size_ = *length;
  } else if (!value.is(Kind::kGenerator) || reversed) {
    fail("'" + value.type_name() + "' object is not " + (reversed ? "reversible" : "iterable"));
  }
}

bool Iterator::next_str(Value& out) {
  const Str& s = value_.as_str();
  std::size_t begin = at_;
  std::size_t end = at_ + 1;
  if (reversed_) {
    end = size_ - at_;
    begin = end - 1;
    while (begin > 0 && is_continuation(s.text[begin])) --begin;
  } else {
    while (end < size_ && is_continuation(s.text[end])) ++end;
  }
  at_ += end - begin;
  StrBuilder character(*budget_);  // plain text even when the whole is markup, as in Python
  character.append(s, begin, end);
  out = Value::str(character.finish());
  return true;
}

bool Iterator::next(Value& out) {
  budget_->step();
  if (value_.is(Kind::kGenerator)) {
    const NestingGuard guard(*budget_);  // generators read from generators
    return value_.as<Generator>().next(out);
  }
  if (at_ >= size_) return false;
  if (value_.is_str()) return next_str(out);
  const std::size_t i = reversed_ ? size_ - 1 - at_ : at_;
  ++at_;
  switch (value_.kind()) {
    case Kind::kList:
    case Kind::kTuple:
      out = value_.as_list().items[i];
      break;
    case Kind::kDict:
      out = value_.as_dict().entries[i].first;
      break;
    case Kind::kRange:
      out = value_.as<Range>().at(static_cast<std::int64_t>(i));
      break;
    default: {
      const View& view = value_.as<View>();
      const auto& [key, item] = view.dict->entries[i];
      out = view.view == ViewKind::kKeys     ? key
            : view.view == ViewKind::kValues ? item
                                             : Value::tuple(*budget_, {key, item});
    }
  }
  return true;
}

std::vector<Value> to_vector(Budget& budget, const Value& value) {
  Iterator it(budget, value);
  std::vector<Value> items;
  for (Value item; it.next(item);) items.push_back(item);
  return items;
}

Value make_generator(Budget& budget, const char* name, std::uint32_t depth, std::function<bool(Value&)> next) {
  budget.check_data_depth(depth);
  auto generator = std::make_shared<Generator>();
  generator->repr = std::string("<generator object ") + name + ">";
  generator->depth = depth;
  generator->next = std::move(next);
  return Value::object(Kind::kGenerator, std::move(generator));
}

// ---------------------------------------------------------------------------------------------------- equality and
// hash

namespace {

bool equal_numbers(const Value& a, const Value& b) {
  if (a.is_integer() && b.is_integer()) return a.as_int() == b.as_int();
  if (!a.is_integer() && !b.is_integer()) return a.as_double() == b.as_double();
  const double d = a.is_integer() ? b.as_double() : a.as_double();
  const Int128 i = a.is_integer() ? a.as_int() : b.as_int();
  // Exact: a double is an integer of 64 bits or differs from every one.
  return std::abs(d) < 0x1p65 && std::trunc(d) == d && static_cast<Int128>(d) == i;
}

bool equal_dicts(Budget& budget, const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  return std::all_of(a.entries.begin(), a.entries.end(), [&](const auto& entry) {
    const Value* other = b.find(budget, entry.first);
    return other != nullptr && equal(budget, entry.second, *other);
  });
}

}  // namespace

bool equal(Budget& budget, const Value& a, const Value& b) {
  budget.step();
  if (a.is_number() && b.is_number()) return equal_numbers(a, b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
    case Kind::kMissing:
      return true;
    case Kind::kStr:
      budget.work(a.as_str().text.size());
      return a.as_str().text == b.as_str().text;
    case Kind::kList:
    case Kind::kTuple: {
      const auto& x = a.as_list().items;
      const auto& y = b.as_list().items;
      const auto same_item = [&](const Value& l, const Value& r) { return equal(budget, l, r); };
      return a.identity() == b.identity() || std::equal(x.begin(), x.end(), y.begin(), y.end(), same_item);
    }
    case Kind::kDict:
      return a.identity() == b.identity() || equal_dicts(budget, a.as_dict(), b.as_dict());
    case Kind::kRange: {
      const auto& x = a.as<Range>();
      const auto& y = b.as<Range>();
      return x.length == y.length && (x.length == 0 || (x.start == y.start && (x.length == 1 || x.step == y.step)));
    }
    default:
      return a.identity() == b.identity();
  }
}

bool same(Budget& budget, const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kNone:
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kUInt:
    case Kind::kFloat:
    case Kind::kStr:
      return equal(budget, a, b);
    default:
      return a.identity() == b.identity();
  }
}

std::uint64_t hash_of(Budget& budget, const Value& value) {
  budget.step();
  switch (value.kind()) {
    case Kind::kStr:
      budget.work(value.as_str().text.size());
      return std::hash<std::string_view>{}(value.as_str().text);
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kUInt:
    case Kind::kFloat:
      return std::hash<double>{}(value.as_double());
    case Kind::kTuple: {
      std::uint64_t hash = 0x9E3779B97F4A7C15U;
      for (const Value& item : value.as_list().items) hash = (hash ^ hash_of(budget, item)) * 0x100000001B3U;
      return hash;
    }
    case Kind::kList:
    case Kind::kDict:
      fail("unhashable type: '" + value.type_name() + "'");
    default:
      return std::hash<const void*>{}(value.is_undefined() ? nullptr : value.identity());
  }
}

// -----------------------------------------------------------------------------------------------------------------
// json

Value from_json(Budget& budget, const nlohmann::ordered_json& json, bool user, const std::string& where,
                std::uint32_t level) {
  using Type = nlohmann::json::value_t;
  budget.check_data_depth(level);
  budget.step();
  const auto text = [&](const std::string& s) {
    if (find_invalid_utf8(s)) fail(where + " has text that is not UTF-8");
    budget.work(s.size());
    return Value::str(make_str(s, user));
  };
  switch (json.type()) {
    case Type::null:
      return Value::none();
    case Type::boolean:
      return Value::boolean(json.get<bool>());
    case Type::number_integer:
      return Value::integer(json.get<std::int64_t>());
    case Type::number_unsigned:
      return Value::integer(static_cast<Int128>(json.get<std::uint64_t>()));
    case Type::number_float:
      return Value::real(json.get<double>());
    case Type::string:
      return text(json.get_ref<const std::string&>());
    case Type::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(budget, item, user, where, level + 1));
      return Value::list(budget, std::move(items));
    }
    case Type::object: {
      auto dict = std::make_shared<Dict>();
      dict->entries.reserve(json.size());
      for (const auto& [key, item] : json.items())
        dict->set(budget, text(key), from_json(budget, item, user, where, level + 1));
      return Value::dict(std::move(dict));
    }
    default:
      fail(where + " has binary data, which templates cannot read");
  }
}

}  // namespace penstock::jinja
