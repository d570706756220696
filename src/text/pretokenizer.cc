#include "text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>

#include "base/check.h"

namespace penstock {
namespace {

constexpr std::uint32_t kMatchLimit = 20'000'000;     // steps of one match: some 0.1 s
constexpr std::uint32_t kHeapLimit_kib = 128 * 1024;  // for the interpreter, where there is no JIT
constexpr std::uint32_t kDepthLimit = 1'000'000;
constexpr std::size_t kJitStackStart_bytes = 64 * 1024;
constexpr std::size_t kJitStackMax_bytes = 8 * 1024 * 1024;
constexpr std::uint32_t kMatchesPerClockRead = 8;

std::string pcre2_message(int error) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

struct CompileContext {
  CompileContext() : value(pcre2_compile_context_create(nullptr)) {
    CHECK(value != nullptr);
    pcre2_set_newline(value, PCRE2_NEWLINE_LF);  // so that . leaves out \n alone
    pcre2_set_parens_nest_limit(value, 100);
  }
  ~CompileContext() { pcre2_compile_context_free(value); }
  CompileContext(const CompileContext&) = delete;
  CompileContext& operator=(const CompileContext&) = delete;
  pcre2_compile_context* value;
};

Expected<pcre2_code*> compile_rule(const SplitRule& rule) {
  std::string pattern = rule.pattern;
  std::uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
  if (rule.literal) {
    if (pattern.empty()) return unsupported("the pattern is empty");
    options = PCRE2_UTF | PCRE2_LITERAL;
  } else {
    PENSTOCK_ASSIGN_OR_RETURN(pattern, translate_split_pattern(rule.pattern));
  }
  const CompileContext context;
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error,
                                   &offset, context.value);
  if (code == nullptr)
    return unsupported("the pattern " + rule.pattern + " is no regular expression: " + pcre2_message(error));
  // Without JIT (no executable memory allowed, unknown processor) the interpreter gives the same matches, slower.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return code;
}

Status match_failed(int error, std::size_t offset) {
  return invalid_argument("the tokeniser's split pattern gives up at byte " + std::to_string(offset) +
                          " of the text: " + pcre2_message(error) +
                          "; send another text, or fix pre_tokenizer in tokenizer.json");
}

}  // namespace

void Pretokenizer::Code::operator()(pcre2_real_code_8* code) const {
  pcre2_code_free(code);
}

Pretokenizer::Scratch::Scratch(std::size_t text_bytes)
    : match_data_(pcre2_match_data_create(1, nullptr)),
      context_(pcre2_match_context_create(nullptr)),
      deadline_(std::chrono::steady_clock::now() + std::chrono::seconds(10) + std::chrono::microseconds(text_bytes)) {
  CHECK(match_data_ != nullptr && context_ != nullptr);
  pcre2_set_match_limit(context_, kMatchLimit);
  pcre2_set_heap_limit(context_, kHeapLimit_kib);
  pcre2_set_depth_limit(context_, kDepthLimit);
}

Pretokenizer::Scratch::~Scratch() {
  pcre2_jit_stack_free(jit_stack_);
  pcre2_match_context_free(context_);
  pcre2_match_data_free(match_data_);
}

Expected<Pretokenizer> Pretokenizer::compile(const std::vector<SplitRule>& rules) {
  Pretokenizer result;
  for (const SplitRule& rule : rules) {
    auto code = compile_rule(rule);
    if (!code.ok()) return code.status().with_context("split " + std::to_string(result.codes_.size()));
    result.codes_.emplace_back(*code);
  }
  return result;
}

Status Pretokenizer::split_piece(const pcre2_real_code_8* code, std::string_view text, Piece piece, Scratch& scratch,
                                 std::vector<Piece>& out) const {
  const auto* subject =
      reinterpret_cast<PCRE2_SPTR>(text.data() + piece.begin);  // a piece is matched as a text of its own
  const std::size_t size = piece.end - piece.begin;
  const auto emit = [&](std::size_t begin, std::size_t end) {
    if (begin < end)
      out.push_back({piece.begin + static_cast<std::uint32_t>(begin), piece.begin + static_cast<std::uint32_t>(end)});
  };
  std::size_t cut = 0;  // pieces before here are out
  for (std::size_t start = 0; start < size;) {
    int count = pcre2_match(code, subject, size, start, PCRE2_NO_UTF_CHECK, scratch.match_data_, scratch.context_);
    if (count == PCRE2_ERROR_JIT_STACKLIMIT && scratch.jit_stack_ == nullptr) {
      scratch.jit_stack_ = pcre2_jit_stack_create(kJitStackStart_bytes, kJitStackMax_bytes, nullptr);
      if (scratch.jit_stack_ == nullptr) return match_failed(PCRE2_ERROR_NOMEMORY, piece.begin + start);
      pcre2_jit_stack_assign(scratch.context_, nullptr, scratch.jit_stack_);
      continue;
    }
    if (count == PCRE2_ERROR_NOMATCH) break;
    if (count < 0) return match_failed(count, piece.begin + start);
    if (++scratch.matches_ % kMatchesPerClockRead == 0 && std::chrono::steady_clock::now() > scratch.deadline_)
      return match_failed(PCRE2_ERROR_MATCHLIMIT, piece.begin + start);
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(scratch.match_data_);
    const std::size_t begin = offsets[0];
    const std::size_t end = offsets[1];
    emit(cut, begin);
    emit(begin, end);
    cut = end;
    start = end;
    if (begin == end) {  // an empty match cuts, and the search goes on behind the next character
      do ++start;
      while (start < size && (subject[start] & 0xC0U) == 0x80U);
    }
  }
  emit(cut, size);
  return {};
}

Status Pretokenizer::split(std::string_view text, Scratch& scratch, std::vector<Piece>& pieces) const {
  pieces.clear();
  if (text.empty()) return {};
  pieces.push_back({0, static_cast<std::uint32_t>(text.size())});
  for (const auto& code : codes_) {
    scratch.previous_.swap(pieces);
    pieces.clear();
    for (const Piece& piece : scratch.previous_)
      PENSTOCK_RETURN_IF_ERROR(split_piece(code.get(), text, piece, scratch, pieces));
  }
  return {};
}

}  // namespace penstock
