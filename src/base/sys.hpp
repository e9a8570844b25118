#pragma once
// System calls in the kernel's own dialect: the result, or -errno; errno is not touched. The core never calls libc's
// blocking names: they are what hooks replace (tests/structure asks nm).

#include <cerrno>
#include <sys/syscall.h>
#include <type_traits>
#include <unistd.h>

namespace ringlet::sys {

namespace detail {
template <class T>
inline long word(T value) noexcept {
  if constexpr (std::is_pointer_v<T>)
    return reinterpret_cast<long>(value);
  else if constexpr (std::is_null_pointer_v<T>)
    return 0;
  else
    return static_cast<long>(value);
}
inline long raw(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) noexcept {
#if defined(__x86_64__)
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return result;
#else
  const int saved = errno;
  long result = ::syscall(number, a, b, c, d, e, f);
  if (result == -1) result = -errno;
  errno = saved;
  return result;
#endif
}
}  // namespace detail

template <class... Args>
inline long call(long number, Args... args) noexcept {
  return detail::raw(number, detail::word(args)...);
}

}  // namespace ringlet::sys
