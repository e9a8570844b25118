#pragma once
// From the kernel's dialect (-errno) to libc's (-1 and errno). errno is touched on failure only, as libc does.

#include <cerrno>

namespace ringlet::hooks {

template <class Result>
inline Result to_libc(long answer) noexcept {
  if (__builtin_expect(answer < 0, false)) {
    errno = int(-answer);
    return Result(-1);
  }
  return Result(answer);
}

// A pointer that cannot be one: the original is asked to say EFAULT. (Others that are bad may fault here instead.)
inline bool no_pointer(const volatile void* p) noexcept { return reinterpret_cast<unsigned long>(p) < 4096; }

}  // namespace ringlet::hooks
