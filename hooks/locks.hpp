#pragma once
// What conditions.cpp and c11.cpp need of the mutexes.

#include "libc.hpp"

#include <ringlet/deadline.hpp>

namespace ringlet::hooks {

// For objects that change without our hearing of it: look again after 1 ms, 2 ms, … at most 50 ms.
class patience {
 public:
  deadline next(deadline until) noexcept {
    const deadline soon{std::chrono::milliseconds(wait_ms_)};
    wait_ms_ = wait_ms_ < 25 ? wait_ms_ * 2 : 50;
    return soon < until ? soon : until;
  }

 private:
  int wait_ms_ = 1;
};

// Locks it for the running fiber, parking as needed: pthread_mutex_lock's results, and ETIMEDOUT.
int lock_mutex(pthread_mutex_t*, deadline until, const char* what);
int unlock_mutex(pthread_mutex_t*);

}  // namespace ringlet::hooks
