#pragma once
// The switch: from the stack that runs to one that rests, on Boost.Context's fcontext.
//
// Besides registers, two things belong to a running stack that the compiler and libc believe belong to the thread: the
// C++ exception globals (what is being caught, how many are in flight) and errno. They travel with the switch, here and
// nowhere else; Boost's own saving in fiber/callcc is not used, because saving twice corrupts them. MXCSR and the x87 control
// word are kept by fcontext.
//
// A context may stand for a whole thread of the program's (a thread fiber): then it has a thread image, which says where
// libc's control block of that thread is, and a switch between two images moves the FS base with the stack. The saved
// errno and exception globals then go to and come from that block. Contexts without an image share the OS thread's own.
//
// A context is used on one thread. Always true: the running context's saved fields mean nothing; a resting one's say
// all that is needed to resume it.

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cxxabi.h>

#include <boost/context/detail/fcontext.hpp>

#include "context/sanitizer.hpp"

namespace ringlet::context {

struct exception_globals {  // __cxa_eh_globals as the Itanium C++ ABI lays it out
  void* caught = nullptr;
  unsigned int uncaught = 0;
};

// What a thread of the program's has for itself. Whoever makes one lets it live as long as its context does.
struct thread_image {
  std::uintptr_t fs_base = 0;  // its control block: libc's struct pthread, below it what is __thread
};

struct context {
  boost::context::detail::fcontext_t sp = nullptr;
  exception_globals exceptions;
  int error_number = 0;
  const void* stack_bottom = nullptr;  // the five below: for the sanitizers only
  std::size_t stack_size = 0;
  void* fake_stack = nullptr;
  void* tsan_fiber = nullptr;
  bool is_thread_stack = false;
  thread_image* image = nullptr;  // null: the OS thread's own
  bool has_run = false;  // it has frames of its own
};

// Where the errno and exception state of the image that runs are: asked once, the answer stays until another image runs.
struct thread_globals {
  exception_globals* exceptions = reinterpret_cast<exception_globals*>(abi::__cxa_get_globals());
  int* error_number = &errno;
  // Of the OS thread's own image; set before the first other one is run (can_change_images).
  std::uintptr_t own_fs_base = 0;
  // Told of each change of images, before the FS base moves: null for the OS thread's own.
  void (*changes_to)(thread_image* next) = nullptr;
};

// Readies a thread for contexts with images. False where the processor has no FS base to move.
bool can_change_images(thread_globals&) noexcept;
// The slow way of a switch: saves, moves the FS base, restores.
void change_image(thread_globals&, context& from, context& to) noexcept;

// What the two sides of a switch are to each other. strangers: each was called from a place of its own. alike: all come and
// go by the same function (the hub's).
enum class sides { strangers, alike };

// jump_fcontext ends in an indirect jump, so it leaves the processor's stack of return addresses one too deep, and every
// `ret` on the way out of a park is mispredicted. This one is left by a `ret`, which all who are alike return to: a yield
// among 100 fibers costs three fifths (bench_switch). Between strangers that `ret` would be one more to mispredict.
#if defined(__x86_64__)
extern "C" [[gnu::visibility("hidden")]] boost::context::detail::transfer_t ringlet_jump_alike(boost::context::detail::fcontext_t to,
                                                                                              void* data);
#else
inline boost::context::detail::transfer_t ringlet_jump_alike(boost::context::detail::fcontext_t to, void* data) {
  return boost::context::detail::jump_fcontext(to, data);
}
#endif

namespace detail {
struct transfer {
  context* from;
  context* to;
  void* message;
};
// First thing on the stack that was switched to: files away where the other one stopped.
inline void* land(boost::context::detail::transfer_t arrived) {
  auto* t = static_cast<transfer*>(arrived.data);
  t->from->sp = arrived.fctx;
  const void* bottom = nullptr;
  std::size_t size = 0;
  sanitizer::arrived(t->to->fake_stack, &bottom, &size);
  if (bottom && !t->from->stack_bottom) {  // a thread's own stack, left for the first time
    t->from->stack_bottom = bottom;
    t->from->stack_size = size;
    t->from->is_thread_stack = true;
    sanitizer::look_for_pointers_in(bottom, size);
  }
  return t->message;
}
}  // namespace detail

// Runs `to`; returns, when somebody switches back to `from`, the message they sent. With final_departure nobody will.
template <sides relation = sides::strangers>
inline void* switch_context(thread_globals& thread, context& from, context& to, void* message, bool final_departure = false) {
  if (__builtin_expect(from.image != to.image, 0)) {
    change_image(thread, from, to);
  } else {
    from.exceptions = *thread.exceptions;
    from.error_number = *thread.error_number;
    *thread.exceptions = to.exceptions;
    *thread.error_number = to.error_number;
  }
  detail::transfer t{&from, &to, message};
  sanitizer::leaving(final_departure ? nullptr : &from.fake_stack, to.stack_bottom, to.stack_size);
  sanitizer::switch_fiber(to.tsan_fiber);
  if constexpr (relation == sides::alike)
    return detail::land(ringlet_jump_alike(to.sp, &t));
  else
    return detail::land(boost::context::detail::jump_fcontext(to.sp, &t));
}
inline void* switch_context(context& from, context& to, void* message, bool final_departure = false) {
  thread_globals here;
  return switch_context(here, from, to, message, final_departure);
}

// Runs call(argument) on the stack of a resting context that has run, on top of its frames, and comes back to `from`, the
// running one; the other rests as before. It must not throw, nor switch.
void call_on_top(context& from, context& resting, void (*call)(void*), void* argument);

// Prepares a context whose first switch calls entry(message) on the stack [low, top); entry must not return.
void make_context(context& made, void* low, void* top, void (*entry)(void* message));
// The thread's own stack, as a context to switch away from.
void adopt_thread_stack(context& made);
void drop_context(context& dead) noexcept;
void leave_thread_stack(context& adopted) noexcept;  // the thread ends

}  // namespace ringlet::context
