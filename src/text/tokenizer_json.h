// tokenizer.json -> the parts of a tokeniser. Whatever a part's meaning is not known is refused by the part's name.
#pragma once

#include <simdjson.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/status.h"
#include "text/bpe.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_added.h"

namespace penstock {

struct TokenizerParts {
  std::vector<AddedToken> added;  // contents and ids are unique
  bool nfc = false;
  std::vector<SplitRule> splits;
  Vocabulary vocabulary;  // added tokens included
  Bpe bpe;
};

// kUnsupported for what is not known, kCorrupt for what contradicts itself.
Expected<TokenizerParts> read_tokenizer_json(const simdjson::padded_string& json);

namespace tokenizer_json {

inline constexpr std::int64_t kMaxId = (1 << 22) - 1;  // 16 times the largest vocabulary in use; tables are sized by it

// The members of one object, checked against the names it may have.
class Fields {
 public:
  // `where` is the object's path in the file, "" for the root.
  static Expected<Fields> read(simdjson::dom::element element, std::string where,
                               std::initializer_list<std::string_view> known);

  const std::string& where() const { return where_; }
  std::string path(std::string_view name) const {
    return where_.empty() ? std::string(name) : where_ + "." + std::string(name);
  }
  // Absent and null are the same.
  bool has(std::string_view name) const;
  simdjson::dom::element get(std::string_view name) const;         // the field must be there
  Expected<std::string_view> string(std::string_view name) const;  // kCorrupt when absent
  Expected<bool> boolean(std::string_view name, bool otherwise) const;
  // kUnsupported unless the field is absent, null or `only`.
  Status require(std::string_view name, bool only, bool when_absent) const;

 private:
  std::string where_;
  std::vector<std::pair<std::string_view, simdjson::dom::element>> fields_;
};

const char* type_name(simdjson::dom::element element);
Status wrong_type(std::string_view where, std::string_view wanted, simdjson::dom::element got);
// A token id: an integer from 0 to kMaxId.
template <typename Where>  // () -> std::string, the value's path: built for messages only
Expected<std::int32_t> read_id(simdjson::dom::element value, const Where& where) {
  std::int64_t id = 0;
  if (!value.is_int64() && !value.is_uint64()) return wrong_type(where(), "an integer", value);
  if (value.get(id) != simdjson::SUCCESS || id < 0 || id > kMaxId)
    return corrupt(where() + " is out of range; ids go from 0 to " + std::to_string(kMaxId));
  return static_cast<std::int32_t>(id);
}

// The "model" part into `parts`, whose `added` is filled in already.
Status read_model(simdjson::dom::element element, TokenizerParts& parts);

}  // namespace tokenizer_json
}  // namespace penstock
