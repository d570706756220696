#include "text/tokenizer.h"

#include <algorithm>
#include <system_error>

#include "text/bpe.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_added.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace penstock {
namespace {

constexpr std::uintmax_t kMaxFile_bytes = 256U << 20;
constexpr std::size_t kMaxText_bytes = 256U << 20;

class ByteLevelTokenizer final : public Tokenizer {
 public:
  ByteLevelTokenizer(TokenizerParts parts, Pretokenizer pretokenizer)
      : added_(std::move(parts.added)),
        nfc_(parts.nfc),
        pretokenizer_(std::move(pretokenizer)),
        vocabulary_(std::move(parts.vocabulary)),
        bpe_(std::move(parts.bpe)),
        is_special_(static_cast<std::size_t>(vocabulary_.size())) {
    for (const AddedToken& token : added_) {
      matcher_.add(token.content, token.id);
      ids_.emplace(token.content, token.id);
      is_special_[static_cast<std::size_t>(token.id)] = token.special;
    }
  }

  Expected<std::vector<std::int32_t>> encode(std::string_view text, SpecialTokens special) const override {
    if (special == SpecialTokens::kParse) return encode_with_plain_ranges(text, {});
    const std::pair<std::size_t, std::size_t> all{0, text.size()};
    return encode_with_plain_ranges(text, {&all, 1});
  }

  Expected<std::vector<std::int32_t>> encode_with_plain_ranges(
      std::string_view text, std::span<const std::pair<std::size_t, std::size_t>> plain) const override;

  Expected<std::string> decode(std::span<const std::int32_t> ids, bool skip_special) const override;

  std::string_view token_bytes(std::int32_t id) const override { return vocabulary_.bytes(id); }

  bool is_special(std::int32_t id) const override {
    return id >= 0 && id < size() && is_special_[static_cast<std::size_t>(id)];
  }

  std::optional<std::int32_t> token_id(std::string_view content) const override {
    const auto found = ids_.find(std::string(content));
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

  std::vector<std::string> special_token_strings() const override {
    std::vector<std::string> result;
    for (const AddedToken& token : added_) result.push_back(token.content);
    return result;
  }

  std::int32_t size() const override { return vocabulary_.size(); }

 private:
  // Buffers of one call.
  struct Scratch {
    explicit Scratch(std::size_t text_bytes) : pretokenizer(text_bytes) {}
    std::string normalised;
    std::vector<Pretokenizer::Piece> pieces;
    Pretokenizer::Scratch pretokenizer;
    Bpe::Scratch bpe;
  };

  Status encode_ordinary(std::string_view text, Scratch& scratch, std::vector<std::int32_t>& out) const {
    if (nfc_) text = unicode::nfc(text, scratch.normalised);
    PENSTOCK_RETURN_IF_ERROR(pretokenizer_.split(text, scratch.pretokenizer, scratch.pieces));
    for (const auto& piece : scratch.pieces)
      bpe_.encode(text.substr(piece.begin, piece.end - piece.begin), scratch.bpe, out);
    return {};
  }

  std::vector<AddedToken> added_;
  AddedTokenMatcher matcher_;
  std::unordered_map<std::string, std::int32_t> ids_;  // of added tokens by content
  bool nfc_;
  Pretokenizer pretokenizer_;
  Vocabulary vocabulary_;
  Bpe bpe_;
  std::vector<bool> is_special_;  // [size()]
};

Status check_ranges(std::string_view text, std::span<const std::pair<std::size_t, std::size_t>> plain) {
  std::size_t last = 0;
  for (const auto& [begin, end] : plain) {
    if (begin < last || end < begin || end > text.size())
      return invalid_argument("plain range [" + std::to_string(begin) + ", " + std::to_string(end) +
                              ") is out of order or outside the text of " + std::to_string(text.size()) + " bytes");
    last = end;
  }
  return {};
}

Expected<std::vector<std::int32_t>> ByteLevelTokenizer::encode_with_plain_ranges(
    std::string_view text, std::span<const std::pair<std::size_t, std::size_t>> plain) const {
  if (text.size() > kMaxText_bytes)
    return invalid_argument("the text has " + std::to_string(text.size()) + " bytes; at most " +
                            std::to_string(kMaxText_bytes) + " can be tokenised at once");
  if (!simdjson::validate_utf8(text.data(), text.size()))
    return invalid_argument("the text is not UTF-8: byte " +
                            std::to_string(unicode::find_invalid_utf8(text).value_or(0)) + " begins no character");
  PENSTOCK_RETURN_IF_ERROR(check_ranges(text, plain));
  Scratch scratch(text.size());
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 3);
  std::size_t done = 0;
  for (const auto& match : matcher_.find_all(text, plain)) {
    PENSTOCK_RETURN_IF_ERROR(encode_ordinary(text.substr(done, match.begin - done), scratch, ids));
    ids.push_back(match.id);
    done = match.end;
  }
  PENSTOCK_RETURN_IF_ERROR(encode_ordinary(text.substr(done), scratch, ids));
  return ids;
}

Expected<std::string> ByteLevelTokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= size())
      return invalid_argument("token id " + std::to_string(ids[i]) + " at position " + std::to_string(i) +
                              " is outside the vocabulary, which goes from 0 to " + std::to_string(size() - 1));
    if (!skip_special || !is_special(ids[i])) bytes += vocabulary_.bytes(ids[i]);
  }
  std::string text;
  text.reserve(bytes.size());
  if (unicode::append_lossy(bytes, text) < bytes.size()) text += unicode::kReplacement;
  return text;
}

Expected<std::unique_ptr<Tokenizer>> build(const simdjson::padded_string& json) {
  PENSTOCK_ASSIGN_OR_RETURN(TokenizerParts parts, read_tokenizer_json(json));
  auto pretokenizer = Pretokenizer::compile(parts.splits);
  if (!pretokenizer.ok()) return pretokenizer.status().with_context("pre_tokenizer");
  return std::unique_ptr<Tokenizer>(std::make_unique<ByteLevelTokenizer>(std::move(parts), *std::move(pretokenizer)));
}

Status too_large(std::uintmax_t size_bytes) {
  return unsupported("the file has " + std::to_string(size_bytes) + " bytes; at most " +
                     std::to_string(kMaxFile_bytes) + " are read");
}

}  // namespace

Expected<std::unique_ptr<Tokenizer>> Tokenizer::load(const std::filesystem::path& dir) {
  const std::filesystem::path path = dir / "tokenizer.json";
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error))
    return not_found(path.string() + " is not there or no file; a model folder needs its tokenizer.json");
  const std::uintmax_t size_bytes = std::filesystem::file_size(path, error);
  if (!error && size_bytes > kMaxFile_bytes) return too_large(size_bytes).with_context(path.string());
  auto json = simdjson::padded_string::load(path.string());
  if (json.error() != simdjson::SUCCESS) return not_found(path.string() + " cannot be read; check its permissions");
  auto tokenizer = build(json.value_unsafe());
  if (!tokenizer.ok()) return tokenizer.status().with_context(path.string());
  return tokenizer;
}

Expected<std::unique_ptr<Tokenizer>> Tokenizer::parse(std::string_view json) {
  if (json.size() > kMaxFile_bytes) return too_large(json.size()).with_context("tokenizer.json");
  auto tokenizer = build(simdjson::padded_string(json));
  if (!tokenizer.ok()) return tokenizer.status().with_context("tokenizer.json");
  return tokenizer;
}

}  // namespace penstock
