// CHECK is for our own bugs: it stays on in release builds and ends the process, saying where and why.
#pragma once

namespace penstock::detail {
[[noreturn]] void check_failed(const char* file, int line, const char* condition, const char* message);
}

#define CHECK(condition)                                                    \
  do {                                                                      \
    if (!(condition)) [[unlikely]]                                          \
      ::penstock::detail::check_failed(__FILE__, __LINE__, #condition, ""); \
  } while (false)

#define CHECK_MSG(condition, message)                                            \
  do {                                                                           \
    if (!(condition)) [[unlikely]]                                               \
      ::penstock::detail::check_failed(__FILE__, __LINE__, #condition, message); \
  } while (false)
