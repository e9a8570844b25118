#pragma once
// How much of the time that requests wait do their fibers really park?
//
// At each switch of the thread, and at each request's begin and end, the kernel is asked for the time, the thread's CPU time,
// how long it was ready and had no CPU, and how often it gave the CPU up by itself. If it did in a stretch in which a request's
// fiber had the thread, then what is left of that stretch is time in which the thread was blocked: for all requests, since none
// of them could have gone on. (So a busy machine, or one that is taken away for a while, is no library that blocks.)
//
//   waited = the request's duration, less what the thread computed (or was ready to) meanwhile
//   parked = waited, less what the thread was blocked in any request's fiber meanwhile
//
// So a library whose every wait is hooked has parked / waited = 1; a hundred fibers behind one that blocks have 0.
// One at a time on a thread: it is the thread's tracer.

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <vector>

#include <ringlet/greenlet.hpp>
#include <ringlet/trace.hpp>

namespace clients {

class yield_ratio {
  struct moment {
    std::int64_t time = 0, busy = 0;  // ns
    long sleeps = 0;
  };

 public:
  yield_ratio()
      : schedstat_(int(::syscall(SYS_openat, AT_FDCWD, "/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC))), last_(look()) {
    ringlet::set_trace([this](const ringlet::trace_event& e) {
      cut();
      in_request_ = std::find(asking_.begin(), asking_.end(), e.target) != asking_.end();
    });
  }
  ~yield_ratio() {
    ringlet::set_trace({});
    ::syscall(SYS_close, schedstat_);
  }
  yield_ratio(const yield_ratio&) = delete;

  // While it lives, its fiber makes a request.
  class request {
   public:
    explicit request(yield_ratio& of) : of_(of) {
      of_.cut();
      begin_ = of_.last_;
      blocked_ = of_.blocked_;
      of_.asking_.push_back(ringlet::greenlet::current());
      of_.in_request_ = true;
    }
    ~request() {
      of_.cut();
      of_.in_request_ = false;
      std::erase(of_.asking_, ringlet::greenlet::current());
      const std::int64_t waited = of_.last_.time - begin_.time - (of_.last_.busy - begin_.busy);
      of_.waited_ += waited;
      of_.parked_ += waited - (of_.blocked_ - blocked_);
    }
    request(const request&) = delete;

   private:
    yield_ratio& of_;
    moment begin_;
    std::int64_t blocked_;
  };

  double value() const { return waited_ > 0 ? std::clamp(double(parked_) / double(waited_), 0.0, 1.0) : 0; }

 private:
  // Raw calls, which no hook sees.
  moment look() const {
    const auto nanoseconds = [](clockid_t clock) {
      timespec now{};
      ::clock_gettime(clock, &now);
      return now.tv_sec * 1'000'000'000 + now.tv_nsec;
    };
    char text[64] = {};
    long long ran = 0, ready = 0;  // a kernel without schedstat: on a busy machine the ratio comes out too low
    if (::syscall(SYS_pread64, schedstat_, text, sizeof text - 1, 0) > 0) std::sscanf(text, "%lld %lld", &ran, &ready);
    rusage used{};
    ::getrusage(RUSAGE_THREAD, &used);
    return {nanoseconds(CLOCK_MONOTONIC), nanoseconds(CLOCK_THREAD_CPUTIME_ID) + ready, used.ru_nvcsw};
  }
  // Ends the stretch in which the same greenlet had the thread.
  void cut() {
    const moment now = look();
    const std::int64_t idle = now.time - last_.time - (now.busy - last_.busy);
    if (in_request_ && now.sleeps > last_.sleeps) blocked_ += std::max<std::int64_t>(0, idle);
    last_ = now;
  }

  int schedstat_;
  moment last_;
  bool in_request_ = false;
  std::int64_t blocked_ = 0, waited_ = 0, parked_ = 0;
  std::vector<ringlet::greenlet> asking_;
};

}  // namespace clients
