// What travels with a switch, and what must not: registers that programs set, exception globals, errno. Without
// greenlets, so that a failure here is the switch's own.

#include <cerrno>
#include <cfenv>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "context/context.hpp"
#include "context/stack.hpp"
#include "support/support.hpp"

namespace {

using namespace ringlet;

// One flow on a stack of its own that the test can switch to and fro.
struct other_flow {
  context::context here, there;
  context::stack_pool* pool = new context::stack_pool;
  context::stack memory = pool->take(0);
  void (*body)(other_flow&) = nullptr;

  explicit other_flow(void (*f)(other_flow&)) : body(f) {
    context::adopt_thread_stack(here);
    context::make_context(there, memory.low(), memory.top(), [](void* message) {
      auto& self = *static_cast<other_flow*>(message);
      self.body(self);
      context::switch_context(self.there, self.here, nullptr, true);
    });
  }
  ~other_flow() {
    context::drop_context(there);
    pool->give_back(memory);
    context::stack_pool::retire(pool);
  }
  void* enter(void* message = nullptr) { return context::switch_context(here, there, message ? message : this); }
  void* leave(void* message = nullptr) { return context::switch_context(there, here, message); }
};

}  // namespace

TEST_CASE("context: a switch returns the message of whoever switches back") {
  other_flow f([](other_flow& self) {
    int* got = static_cast<int*>(self.leave(nullptr));
    *got += 1;
    got = static_cast<int*>(self.leave(got));
    *got += 10;
  });
  CHECK(f.enter() == nullptr);
  int n = 1;
  CHECK(f.enter(&n) == &n);
  CHECK(n == 2);
  f.enter(&n);
  CHECK(n == 12);
}

TEST_CASE("context: errno belongs to the stack that set it") {
  other_flow f([](other_flow& self) {
    errno = EBADF;
    self.leave();
    CHECK(errno == EBADF);
  });
  errno = ENOENT;
  f.enter();
  CHECK(errno == ENOENT);
  errno = EPIPE;
  f.enter();
  CHECK(errno == EPIPE);
}

TEST_CASE("context: the exception being handled belongs to the stack that handles it") {
  other_flow f([](other_flow& self) {
    CHECK(std::current_exception() == nullptr);
    try {
      throw std::runtime_error("there");
    } catch (const std::exception&) {
      self.leave();
      try {
        std::rethrow_exception(std::current_exception());
      } catch (const std::exception& e) {
        CHECK(std::string(e.what()) == "there");
      }
    }
    CHECK(std::current_exception() == nullptr);
  });
  try {
    throw std::logic_error("here");
  } catch (const std::exception&) {
    f.enter();
    try {
      std::rethrow_exception(std::current_exception());
    } catch (const std::exception& e) {
      CHECK(std::string(e.what()) == "here");
    }
    f.enter();
    CHECK(std::current_exception() != nullptr);
  }
  CHECK(std::current_exception() == nullptr);
}

TEST_CASE("context: exceptions in flight are counted per stack") {
  struct looks_while_unwinding {
    other_flow& f;
    ~looks_while_unwinding() {
      CHECK(std::uncaught_exceptions() == 1);
      f.enter();
      CHECK(std::uncaught_exceptions() == 1);
    }
  };
  other_flow f([](other_flow& self) {
    CHECK(std::uncaught_exceptions() == 0);
    try {
      throw 1;
    } catch (int) {
    }
    self.leave();
    CHECK(std::uncaught_exceptions() == 0);
  });
  try {
    looks_while_unwinding guard{f};
    throw std::runtime_error("out");
  } catch (const std::runtime_error&) {
  }
  CHECK(std::uncaught_exceptions() == 0);
  f.enter();
}

TEST_CASE("context: the rounding mode belongs to the stack that set it") {
  other_flow f([](other_flow& self) {
    std::fesetround(FE_UPWARD);
    self.leave();
    CHECK(std::fegetround() == FE_UPWARD);
#if defined(__x86_64__)
    CHECK((_mm_getcsr() & _MM_ROUND_MASK) == _MM_ROUND_UP);
#endif
    std::fesetround(FE_TONEAREST);
  });
  std::fesetround(FE_DOWNWARD);
  f.enter();
  CHECK(std::fegetround() == FE_DOWNWARD);
#if defined(__x86_64__)
  CHECK((_mm_getcsr() & _MM_ROUND_MASK) == _MM_ROUND_DOWN);
#endif
  f.enter();
  std::fesetround(FE_TONEAREST);
}

TEST_CASE("context: callee-saved values survive ten thousand switches") {
  other_flow f([](other_flow& self) {
    unsigned long a = 1, b = 2, c = 3, d = 4, e = 5, g = 6;
    double x = 0.5;
    for (int i = 0; i < 10'000; ++i) {
      self.leave();
      a += 1, b += a, c ^= b, d += c, e += d, g ^= e, x += 0.25;
    }
    CHECK(a == 10'001);
    CHECK(x == 2500.5);
    CHECK(g != e + d + b);
  });
  unsigned long sum = 0;
  for (int i = 0; i < 10'001; ++i) f.enter(), sum += unsigned(i);
  CHECK(sum == 50'005'000);
}
