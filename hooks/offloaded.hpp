#pragma once
// A call made by a helper thread while the fiber that wants it is parked: for what has no operation in the kernel.
//
// The call uses the caller's own memory, so its end is waited for whatever happens (io/errand.hpp: what may end it early).
// errno and h_errno come back with the result. Where no helper can be had the call is made right here.

#include <cerrno>
#include <netdb.h>
#include <type_traits>

#include "dialect.hpp"
#include "io/errand.hpp"

namespace ringlet::hooks {

// With an effect, call() fails as a system call does: -1 and errno.
template <class Call>
auto offloaded(const char* what, detail::signal_effect effect, Call call) {
  using result_type = decltype(call());
  struct errand : io::errand {
    Call* call;
    result_type result{};
    int error = 0, host_error = 0;
  } errand;
  errand.call = &call;
  const auto make = [](io::errand& of) {
    auto& mine = static_cast<struct errand&>(of);
    errno = 0;
    mine.result = (*mine.call)();
    mine.error = errno;
    mine.host_error = h_errno;
  };
  switch (errand.run_on_helper(what, make, effect)) {
    case io::errand::outcome::no_helper: return call();
    case io::errand::outcome::not_begun:
      if constexpr (std::is_integral_v<result_type>) return to_libc<result_type>(errand.asked());
      break;
    case io::errand::outcome::made: break;
  }
  if (errand.error != 0) {
    errno = errand.error == EINTR && errand.asked() ? -errand.asked() : errand.error;
    h_errno = errand.host_error;
  }
  return errand.result;
}

}  // namespace ringlet::hooks
