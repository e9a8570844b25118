#pragma once
// The originals: real::recv is the next recv after ours (libc's, or that of another library that replaces it too).
//
// Found once, by the library's first constructor. A call that arrives earlier (another library's constructor, an
// allocator) finds them on its first use; one that arrives from inside the search itself (an old dlsym that allocates,
// an allocator that locks) gets a stand-in that does nothing. The type is the header's, so a call with wrong arguments
// does not compile. Any thread, any time; nothing here allocates.

#include <cerrno>
#include <type_traits>

#include "rows.hpp"

namespace ringlet::hooks {

// Looks the name up; null while this thread is already searching (then only the stand-in is left).
RINGLET_UNTOLD void* find_original(const char* name) noexcept;
// Says which name is missing and ends the process: a hook whose original does not exist was called.
[[noreturn]] void missing_original(const char* name) noexcept;
RINGLET_UNTOLD bool searching() noexcept;
RINGLET_UNTOLD void find_all_originals() noexcept;

template <class Function>
class original {
 public:
  constexpr explicit original(const char* name) noexcept : name_(name) {}

  template <class... Args>
  RINGLET_UNTOLD auto operator()(Args... args) -> std::invoke_result_t<Function, Args...> {
    using result = std::invoke_result_t<Function, Args...>;
    Function found = __atomic_load_n(&function_, __ATOMIC_RELAXED);
    if (__builtin_expect(!found, false)) {
      if (searching()) return stand_in<result>();
      find();
      found = __atomic_load_n(&function_, __ATOMIC_RELAXED);
      if (!found) missing_original(name_);
    }
    return found(args...);
  }
  RINGLET_UNTOLD void find() noexcept {
    __atomic_store_n(&function_, reinterpret_cast<Function>(find_original(name_)), __ATOMIC_RELAXED);
  }

 private:
  template <class Result>
  RINGLET_UNTOLD Result stand_in() const noexcept {
    if constexpr (std::is_pointer_v<Result>) {
      return nullptr;
    } else if constexpr (!std::is_void_v<Result>) {
      if (name_[0] == 'p' && name_[1] == 't') return Result(0);  // pthread_…: alone, so locked
      errno = ENOSYS;
      return Result(-1);
    }
  }

  Function function_ = nullptr;
  const char* name_;
};

// The header's attributes (nonnull and the like) are no part of the type, and need not be.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"
namespace real {
#define REAL_ROW(name) inline constinit original<decltype(&::name)> name{#name};
#define SUSPENDS(result, name, group, parameters, arguments) REAL_ROW(name)
#define SHAPED(result, name, group, when, parameters, arguments) REAL_ROW(name)
#define VARIADIC(result, name, group, when, parameters, last, extra, arguments) REAL_ROW(name)
#define OBSERVES(result, name, group, parameters, arguments, told) REAL_ROW(name)
#define OFFLOADS(result, name, group, parameters, arguments, ends) REAL_ROW(name)
#include "calls.def"
#undef REAL_ROW
}  // namespace real
#pragma GCC diagnostic pop

}  // namespace ringlet::hooks
