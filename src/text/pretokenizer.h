// Cuts normalised text into the pieces inside which BPE merges: tokenizer.json's sequence of "Split" steps.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/status.h"

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;
struct pcre2_real_jit_stack_8;

namespace penstock {

// One Split step with behaviour "Isolated": every match is a piece, and so is what lies between two matches.
struct SplitRule {
  std::string pattern;   // in the dialect tokenizer.json files are written in (Oniguruma's), or the text itself
  bool literal = false;  // {"String": …} instead of {"Regex": …}
};

// The same pattern for PCRE2, when it certainly means the same there; otherwise kUnsupported names what is in the way.
Expected<std::string> translate_split_pattern(std::string_view pattern);

class Pretokenizer {
 public:
  struct Piece {
    std::uint32_t begin;  // bytes of the text
    std::uint32_t end;
  };

  // What matching needs beside the patterns; for one thread and one text.
  class Scratch {
   public:
    // A text of `text_bytes` may take a fixed time plus a time per byte, far above what a sane pattern needs.
    explicit Scratch(std::size_t text_bytes);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

   private:
    friend class Pretokenizer;
    pcre2_real_match_data_8* match_data_ = nullptr;
    pcre2_real_match_context_8* context_ = nullptr;
    pcre2_real_jit_stack_8* jit_stack_ = nullptr;  // made only when the 32 KiB on the thread's stack do not do
    std::chrono::steady_clock::time_point deadline_;
    std::uint32_t matches_ = 0;
    std::vector<Piece> previous_;
  };

  // kUnsupported, naming the rule by its index, for a pattern that is wrong, too large or not known to mean the same.
  static Expected<Pretokenizer> compile(const std::vector<SplitRule>& rules);

  // Writes the pieces of `text` (UTF-8, below 4 GiB), which join to the whole text and are not empty. kInvalidArgument
  // when matching takes too many steps, too much memory or too long.
  Status split(std::string_view text, Scratch& scratch, std::vector<Piece>& pieces) const;

 private:
  struct Code {
    void operator()(pcre2_real_code_8* code) const;
  };
  Status split_piece(const pcre2_real_code_8* code, std::string_view text, Piece piece, Scratch& scratch,
                     std::vector<Piece>& out) const;

  std::vector<std::unique_ptr<pcre2_real_code_8, Code>> codes_;
};

}  // namespace penstock
