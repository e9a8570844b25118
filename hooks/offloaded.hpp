#pragma once
// A call made by a helper thread while the fiber that wants it is parked: for what has no operation in the kernel.
//
// The call uses the caller's own memory, so its end is waited for whatever happens: a kill or a timeout is noticed only
// afterwards. errno and h_errno come back with the result. Where no helper can be had the call is made right here.

#include <atomic>
#include <cerrno>
#include <netdb.h>
#include <utility>

#include "loop/offload.hpp"
#include "lot.hpp"

namespace ringlet::hooks {

template <class Call>
auto offloaded(const char* what, Call call) {
  using result_type = decltype(call());
  struct errand : loop::job {
    Call* call;
    result_type result{};
    int error = 0, host_error = 0;
    std::atomic<bool> done{false};
  } errand;
  errand.call = &call;
  errand.run = [](loop::job& j) {
    auto& mine = static_cast<struct errand&>(j);
    errno = 0;
    mine.result = (*mine.call)();
    mine.error = errno;
    mine.host_error = h_errno;
    const void* address = &mine;
    mine.done.store(true, std::memory_order_release);
    lot::unpark(address, 1);  // only the address from here on: the errand may be gone
  };
  if (loop::offload(errand) != 0) return call();
  {
    lot::expecting answer;
    while (!errand.done.load(std::memory_order_acquire))
      lot::wait(&errand, [&] { return !errand.done.load(std::memory_order_acquire); }, never, what);
  }
  if (errand.error != 0) {
    errno = errand.error;
    h_errno = errand.host_error;
  }
  return errand.result;
}

}  // namespace ringlet::hooks
