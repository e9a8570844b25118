// The exported names: each row of calls.def becomes the function that the dynamic linker finds instead of libc's.
//
// The functions carry names of their own and get libc's by an assembler label, so that no inline or renamed variant in
// a system header can get in the way; the header's declaration is held against the row by a static_assert instead.
// They may be left by an exception: cancelling a thread unwinds through its original.

#include "libc.hpp"

#include <cstdarg>
#include <type_traits>

#include <ringlet/export.hpp>
#include <ringlet/io.hpp>

#include "dialect.hpp"
#include "offloaded.hpp"
#include "real.hpp"
#include "shaped.hpp"

#pragma GCC diagnostic ignored "-Wignored-attributes"  // nonnull and the like are no part of what we compare

namespace ringlet::hooks {
namespace {

template <class Function>
struct without_noexcept {
  using type = Function;
};
template <class R, class... A>
struct without_noexcept<R (*)(A...) noexcept> {
  using type = R (*)(A...);
};
template <class R, class... A>
struct without_noexcept<R (*)(A..., ...) noexcept> {
  using type = R (*)(A..., ...);
};
template <class Header, class Row>
inline constexpr bool as_declared =
    std::is_same_v<typename without_noexcept<Header>::type, typename without_noexcept<Row>::type>;

void both_opened(const int* ends) noexcept {
  io::fd_opened(ends[0]);
  io::fd_opened(ends[1]);
}

}  // namespace

#define EXPORTED(result_type, name, parameters)                                   \
  extern "C" RINGLET_EXPORT RINGLET_UNTOLD result_type ringlet_##name parameters asm(#name); \
  static_assert(as_declared<decltype(&::name), decltype(&ringlet_##name)>,        \
                "calls.def: " #name " is not what the system's header declares"); \
  result_type ringlet_##name parameters

#define SUSPENDS(result_type, name, group, parameters, arguments)              \
  EXPORTED(result_type, name, parameters) {                                    \
    if (parking(row::name)) return to_libc<result_type>(io::name arguments);   \
    return real::name arguments;                                               \
  }
#define SHAPED(result_type, name, group, when, parameters, arguments) \
  EXPORTED(result_type, name, parameters) {                           \
    if (when(row::name)) return shaped::name arguments;               \
    return real::name arguments;                                      \
  }
// Reading an argument that was not passed is harmless on every processor we know: it is a register or a stack word.
#define UNPACKED(...) __VA_ARGS__
#define VARIADIC(result_type, name, group, when, parameters, last, extra, arguments) \
  EXPORTED(result_type, name, (UNPACKED parameters, ...)) {                          \
    va_list more;                                                                    \
    va_start(more, last);                                                            \
    extra const argument = va_arg(more, extra);                                      \
    va_end(more);                                                                    \
    if (when(row::name)) return shaped::name(UNPACKED arguments, argument);          \
    return real::name(UNPACKED arguments, argument);                                 \
  }
#define OBSERVES(result_type, name, group, parameters, arguments, told)   \
  EXPORTED(result_type, name, parameters) {                               \
    const result_type result = real::name arguments;                      \
    if (result >= 0 && always(row::name)) told;                           \
    return result;                                                        \
  }
#define OFFLOADS(result_type, name, group, parameters, arguments, ends)                                                 \
  EXPORTED(result_type, name, parameters) {                                                                             \
    if (parking(row::name)) return offloaded(#name, detail::signal_effect::ends, [&] { return real::name arguments; }); \
    return real::name arguments;                                                                                        \
  }
#define ALIAS(name, of)                                                                                         \
  static_assert(as_declared<decltype(&::name), decltype(&ringlet_##of)>, "calls.def: " #name " is not like " #of); \
  ALIAS_UNDECLARED(name, of)
#define ALIAS_UNDECLARED(name, of) \
  extern "C" RINGLET_EXPORT decltype(ringlet_##of) ringlet_##name asm(#name) __attribute__((alias(#of)));
#include "calls.def"

}  // namespace ringlet::hooks
