// The "model" part: vocabulary and merges. With a quarter of a million of each, this is where loading spends its time.
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <span>

#include "text/tokenizer_json.h"

namespace penstock::tokenizer_json {
namespace {

using simdjson::dom::element;

constexpr std::size_t kMaxTokens = 1 << 22;
constexpr std::size_t kMaxMerges = 1 << 22;
constexpr std::size_t kBatch = 32;  // lookups whose cache misses overlap

// The printable character that stands for each byte: itself where it is printable, the next free one from U+0100 on
// otherwise. Both ways.
struct ByteAlphabet {
  std::array<std::uint16_t, 256> character{};
  std::array<std::int16_t, 0x144> byte{};  // [character], -1: none

  ByteAlphabet() {
    byte.fill(-1);
    std::uint16_t next = 0x100;
    for (std::uint16_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      character[b] = printable ? b : next++;
      byte[character[b]] = static_cast<std::int16_t>(b);
    }
  }

  // The bytes a token's name stands for. A name with any other character stands for itself, and gives false: no piece
  // of text ever becomes it.
  bool decode(std::string_view name, std::string& bytes) const {
    bytes.clear();
    for (std::size_t i = 0; i < name.size(); ++i) {
      std::uint32_t c = static_cast<std::uint8_t>(name[i]);
      if (c >= 0xC0 && c < 0xE0 && i + 1 < name.size())
        c = ((c & 0x1FU) << 6) | (static_cast<std::uint8_t>(name[++i]) & 0x3FU);
      else if (c >= 0x80)
        c = 0xFFFF;
      if (c >= byte.size() || byte[c] < 0) {
        bytes = name;
        return false;
      }
      bytes.push_back(static_cast<char>(byte[c]));
    }
    return true;
  }

  std::string name_of(std::size_t b) const {
    const std::uint32_t c = character[b];
    if (c < 0x80) return std::string(1, static_cast<char>(c));
    return {static_cast<char>(0xC0U | (c >> 6)), static_cast<char>(0x80U | (c & 0x3FU))};
  }
};

// Names as the file writes them -> ids, while loading. Names point into the parsed file. Looking a name up misses the
// cache three times; the stages let a caller do that for a batch of names at once (20 MB of tokenizer.json: 117 -> 75
// ms).
class NameIndex {
 public:
  explicit NameIndex(std::size_t count) : slots_(std::bit_ceil(count * 2 + 2)) { names_.reserve(count); }

  void prefetch_slot(std::uint64_t hash) const { __builtin_prefetch(&slots_[hash & (slots_.size() - 1)]); }
  // After prefetch_slot(): the name of whatever token is probably meant.
  void prefetch_name(std::uint64_t hash) const {
    const std::int32_t id = slots_[hash & (slots_.size() - 1)].id;
    if (id >= 0) __builtin_prefetch(&names_[static_cast<std::size_t>(id)]);
  }
  void prefetch_characters(std::uint64_t hash) const {
    const std::int32_t id = slots_[hash & (slots_.size() - 1)].id;
    if (id >= 0) __builtin_prefetch(names_[static_cast<std::size_t>(id)].data());
  }

  // `hash` is that of the name in all of these. False when the name is known already.
  bool add(std::string_view name, std::uint64_t hash, std::int32_t id) {
    Slot& slot = slots_[find_slot(name, hash)];
    if (slot.id >= 0) return false;
    slot = {static_cast<std::uint32_t>(hash >> 32), id};
    if (static_cast<std::size_t>(id) >= names_.size()) names_.resize(static_cast<std::size_t>(id) + 1);
    names_[static_cast<std::size_t>(id)] = name;
    return true;
  }

  std::optional<std::int32_t> find(std::string_view name, std::uint64_t hash) const {
    const Slot& slot = slots_[find_slot(name, hash)];
    return slot.id >= 0 ? std::optional(slot.id) : std::nullopt;
  }
  std::optional<std::int32_t> find(std::string_view name) const { return find(name, hash_bytes(name)); }

  // The token named `left` + `right`. Merges mostly make one token after the other, so `guess` is looked at first.
  std::optional<std::int32_t> find_joined(std::string_view left, std::string_view right, std::int32_t guess) {
    if (guess >= 0 && static_cast<std::size_t>(guess) < names_.size()) {
      const std::string_view name = names_[static_cast<std::size_t>(guess)];
      if (name.size() == left.size() + right.size() && name.starts_with(left) && name.ends_with(right)) return guess;
    }
    joined_.assign(left).append(right);
    return find(joined_);
  }

 private:
  struct Slot {
    std::uint32_t tag = 0;  // upper half of the hash
    std::int32_t id = -1;
  };
  std::size_t find_slot(std::string_view name, std::uint64_t hash) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t slot = hash & mask;
    const auto tag = static_cast<std::uint32_t>(hash >> 32);
    while (slots_[slot].id >= 0 &&
           (slots_[slot].tag != tag || names_[static_cast<std::size_t>(slots_[slot].id)] != name))
      slot = (slot + 1) & mask;
    return slot;
  }

  std::vector<Slot> slots_;              // open addressing, at most half full
  std::vector<std::string_view> names_;  // [id]
  std::string joined_;
};

std::string quote(std::string_view name) {
  std::string text(1, '"');
  text += name.substr(0, 100);
  text += '"';
  return text;
}

Status read_settings(const Fields& fields) {
  for (const std::string_view name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!fields.has(name)) continue;
    PENSTOCK_ASSIGN_OR_RETURN(const std::string_view text, fields.string(name));
    if (!text.empty()) return unsupported(fields.path(name) + " " + quote(text) + " is not supported");
  }
  if (fields.has("dropout")) {
    double dropout = 0;
    if (fields.get("dropout").get(dropout) != simdjson::SUCCESS)
      return wrong_type(fields.path("dropout"), "a number or null", fields.get("dropout"));
    if (dropout != 0) return unsupported(fields.path("dropout") + " is not supported; set it to null");
  }
  PENSTOCK_RETURN_IF_ERROR(fields.require("byte_fallback", false, false));
  // Every byte has a token, so nothing is ever unknown and these two change nothing.
  if (fields.has("unk_token")) PENSTOCK_RETURN_IF_ERROR(fields.string("unk_token").status());
  return fields.boolean("fuse_unk", false).status();
}

struct Entry {
  std::string_view name;
  element id;
  std::uint64_t hash;
};

// `batch`: some entries of model.vocab.
Status add_tokens(std::span<const Entry> batch, const ByteAlphabet& alphabet, TokenizerParts& parts, NameIndex& index) {
  std::string bytes;
  for (const Entry& entry : batch) {
    const auto where = [&] { return "model.vocab[" + quote(entry.name) + "]"; };
    PENSTOCK_ASSIGN_OR_RETURN(const std::int32_t id, read_id(entry.id, where));
    if (parts.vocabulary.contains(id)) return corrupt(where() + " repeats the id " + std::to_string(id));
    if (!index.add(entry.name, entry.hash, id)) return corrupt("model.vocab has " + quote(entry.name) + " twice");
    alphabet.decode(entry.name, bytes);
    parts.vocabulary.add(id, bytes);
  }
  return {};
}

Status read_vocabulary(simdjson::dom::object vocab, TokenizerParts& parts, NameIndex& index) {
  const ByteAlphabet alphabet;
  std::vector<Entry> batch;
  for (const auto& [name, value] : vocab) {
    batch.push_back({name, value, hash_bytes(name)});
    index.prefetch_slot(batch.back().hash);
    if (batch.size() < kBatch) continue;
    PENSTOCK_RETURN_IF_ERROR(add_tokens(batch, alphabet, parts, index));
    batch.clear();
  }
  PENSTOCK_RETURN_IF_ERROR(add_tokens(batch, alphabet, parts, index));
  std::array<std::int32_t, 256> byte_ids{};
  for (std::size_t b = 0; b < 256; ++b) {
    const auto id = index.find(alphabet.name_of(b));
    if (!id)
      return unsupported("model.vocab has no token for the byte " + std::to_string(b) + ", written " +
                         quote(alphabet.name_of(b)) + ": only byte-level vocabularies are supported");
    byte_ids[b] = *id;
  }
  parts.bpe.set_byte_ids(byte_ids);
  return {};
}

Status add_added_tokens(TokenizerParts& parts, const NameIndex& index) {
  for (std::size_t i = 0; i < parts.added.size(); ++i) {
    const AddedToken& token = parts.added[i];
    const auto known = index.find(token.content);
    const auto where = [&] { return "added_tokens[" + std::to_string(i) + "] " + quote(token.content); };
    if (known && *known != token.id)
      return corrupt(where() + " has id " + std::to_string(token.id) + ", but in model.vocab " +
                     std::to_string(*known));
    if (!known && parts.vocabulary.contains(token.id))
      return corrupt(where() + " has id " + std::to_string(token.id) + ", which model.vocab gives to another token");
  }
  for (const AddedToken& token : parts.added) parts.vocabulary.add(token.id, token.content);
  return {};
}

struct MergeNames {
  std::string_view left;
  std::string_view right;
};

// "left right" or ["left", "right"].
Expected<MergeNames> read_merge_names(element item, bool pairs, std::size_t i) {
  const auto where = [i] { return "model.merges[" + std::to_string(i) + "]"; };
  if (pairs) {
    simdjson::dom::array array;
    if (item.get(array) != simdjson::SUCCESS) return wrong_type(where(), "an array, like the first", item);
    std::array<std::string_view, 2> names;
    std::size_t count = 0;
    for (const element name : array)
      if (count == 2 || name.get(names[count++]) != simdjson::SUCCESS)
        return corrupt(where() + " must be an array of two strings");
    if (count != 2) return corrupt(where() + " must be an array of two strings");
    return MergeNames{names[0], names[1]};
  }
  std::string_view text;
  if (item.get(text) != simdjson::SUCCESS) return wrong_type(where(), "a string, like the first", item);
  const std::size_t space = text.find(' ');
  if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
    return corrupt(where() + " must be two tokens with one space between, not " + quote(text));
  return MergeNames{text.substr(0, space), text.substr(space + 1)};
}

struct PendingMerge {
  MergeNames names;
  std::uint64_t left_hash;
  std::uint64_t right_hash;
  std::int32_t left = -1;
  std::int32_t right = -1;
};

class MergeReader {
 public:
  MergeReader(TokenizerParts& parts, NameIndex& index)
      : parts_(parts), index_(index), is_special_(static_cast<std::size_t>(parts.vocabulary.size())) {
    for (const AddedToken& token : parts.added) is_special_[static_cast<std::size_t>(token.id)] = token.special;
  }

  Status read(simdjson::dom::array merges) {
    bool pairs = false;
    std::size_t i = 0;
    for (const element item : merges) {
      if (i == 0) pairs = item.is_array();
      PENSTOCK_ASSIGN_OR_RETURN(const MergeNames names, read_merge_names(item, pairs, i));
      batch_.push_back({names, hash_bytes(names.left), hash_bytes(names.right)});
      ++i;
      if (batch_.size() == kBatch) PENSTOCK_RETURN_IF_ERROR(add_batch());
    }
    return add_batch();
  }

 private:
  std::string where(std::size_t in_batch) const { return "model.merges[" + std::to_string(done_ + in_batch) + "]"; }

  void each_hash(void (NameIndex::*stage)(std::uint64_t) const) const {
    for (const PendingMerge& merge : batch_) {
      (index_.*stage)(merge.left_hash);
      (index_.*stage)(merge.right_hash);
    }
  }

  Status add_batch() {
    each_hash(&NameIndex::prefetch_slot);
    each_hash(&NameIndex::prefetch_name);
    each_hash(&NameIndex::prefetch_characters);
    for (std::size_t i = 0; i < batch_.size(); ++i) {
      PendingMerge& merge = batch_[i];
      const auto left = index_.find(merge.names.left, merge.left_hash);
      const auto right = index_.find(merge.names.right, merge.right_hash);
      if (!left || !right)
        return corrupt(where(i) + " names " + quote(!left ? merge.names.left : merge.names.right) +
                       ", which is not in model.vocab");
      merge.left = *left;
      merge.right = *right;
      parts_.bpe.prefetch_merge(merge.left, merge.right);
    }
    for (std::size_t i = 0; i < batch_.size(); ++i) PENSTOCK_RETURN_IF_ERROR(add(batch_[i], i));
    done_ += batch_.size();
    batch_.clear();
    return {};
  }

  Status add(const PendingMerge& merge, std::size_t i) {
    const auto& [left, right] = merge.names;
    const auto result = index_.find_joined(left, right, last_ + 1);
    if (!result)
      return corrupt(where(i) + " makes " + quote(std::string(left) + std::string(right)) +
                     ", which is not in model.vocab");
    last_ = *result;
    if (is_special_[static_cast<std::size_t>(last_)])
      return unsupported(where(i) + " makes the special token " + quote(parts_.vocabulary.bytes(last_)) +
                         ", which ordinary text could then contain");
    if (!parts_.bpe.add_merge(merge.left, merge.right, last_))
      return corrupt(where(i) + " repeats an earlier merge of " + quote(left) + " and " + quote(right));
    return {};
  }

  TokenizerParts& parts_;
  NameIndex& index_;
  std::vector<bool> is_special_;  // [token]
  std::vector<PendingMerge> batch_;
  std::size_t done_ = 0;    // merges before the batch
  std::int32_t last_ = -2;  // what the last merge made
};

Status read_merges(element list, TokenizerParts& parts, NameIndex& index) {
  simdjson::dom::array merges;
  if (list.get(merges) != simdjson::SUCCESS) return wrong_type("model.merges", "an array", list);
  std::size_t count = 0;
  for ([[maybe_unused]] const element item : merges) ++count;  // size() stops counting at 2^24
  if (count > kMaxMerges) return unsupported("model.merges has more than " + std::to_string(kMaxMerges) + " entries");
  parts.bpe.reserve_merges(count);
  return MergeReader(parts, index).read(merges);
}

}  // namespace

Status read_model(element model, TokenizerParts& parts) {
  PENSTOCK_ASSIGN_OR_RETURN(
      const Fields fields,
      Fields::read(model, "model",
                   {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                    "byte_fallback", "ignore_merges", "vocab", "merges"}));
  PENSTOCK_RETURN_IF_ERROR(read_settings(fields));
  for (const std::string_view name : {"vocab", "merges"})
    if (!fields.has(name)) return corrupt(fields.path(name) + " is missing");
  simdjson::dom::object vocab;
  if (fields.get("vocab").get(vocab) != simdjson::SUCCESS)
    return wrong_type("model.vocab", "an object", fields.get("vocab"));
  std::size_t tokens = 0;
  std::size_t bytes = 0;
  for (const auto& [name, value] : vocab) {
    ++tokens;
    bytes += name.size();
  }
  if (tokens > kMaxTokens) return unsupported("model.vocab has more than " + std::to_string(kMaxTokens) + " entries");
  NameIndex index(tokens);
  parts.vocabulary.reserve(tokens + parts.added.size(), bytes + 256 * parts.added.size());
  PENSTOCK_RETURN_IF_ERROR(read_vocabulary(vocab, parts, index));
  PENSTOCK_RETURN_IF_ERROR(add_added_tokens(parts, index));
  PENSTOCK_RETURN_IF_ERROR(read_merges(fields.get("merges"), parts, index));

  PENSTOCK_ASSIGN_OR_RETURN(const bool ignore_merges, fields.boolean("ignore_merges", false));
  if (!ignore_merges) return {};
  std::vector<bool> is_added(static_cast<std::size_t>(parts.vocabulary.size()));
  for (const AddedToken& token : parts.added) is_added[static_cast<std::size_t>(token.id)] = true;
  const ByteAlphabet alphabet;
  std::string piece;
  for (const auto& [name, value] : vocab) {
    std::int64_t id = 0;
    if (value.get(id) != simdjson::SUCCESS || is_added[static_cast<std::size_t>(id)]) continue;
    if (alphabet.decode(name, piece)) parts.bpe.add_whole_piece(piece, static_cast<std::int32_t>(id));
  }
  return {};
}

}  // namespace penstock::tokenizer_json
