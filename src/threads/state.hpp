#pragma once
// What the files of this folder share: the one hub of the mode, its threads by id, and the mask under which it sleeps.

#include "threads/threads.hpp"

namespace ringlet::threads {

struct thread_fiber : detail::fiber_state {
  thread_block block;
  void (*enter)(void* frame) = nullptr;
  thread_fiber* next_free = nullptr;
  alignas(16) std::byte frame[frame_room];
};

struct mode {
  detail::hub_state* hub = nullptr;
  thread_block main;
  context::thread_image own;       // of the hub's own stack: main's control block, and whatever mask is set
  int process = 0, os_id = 0;
  int next_id = first_id;
  std::size_t living = 0;
  std::uint64_t made = 0;
  signal_set os_mask = 0;          // what we believe the OS thread's mask to be
  thread_block* os_mask_of = nullptr;  // the thread that ran under it last, while it lives
  stack_t os_alternate{};
  signal_set sleep_mask = 0;       // what all threads block: for the hub's sleep
  bool sleep_mask_is_old = true;
  unsigned blocked_by[64] = {};    // threads that block it
  unsigned blocked_by_all = 0;     // threads that block everything, and are not counted in the others
};
extern constinit mode the_mode;

inline thread_block* block_of(context::thread_image* image) noexcept {
  return image && image != &the_mode.own ? static_cast<thread_block*>(image) : &the_mode.main;
}

// The part that signals have in a thread's life (masks.cpp, handlers.cpp, pending.cpp).
void count_in(thread_block&) noexcept;
void count_out(thread_block&) noexcept;
void change_mask(thread_block&, signal_set) noexcept;
void begin_signals() noexcept;
void forget_signals_after_fork() noexcept;
void hand_out_signals(detail::hub_state&) noexcept;
// Makes the OS thread's mask and alternate stack those of the thread that is about to run.
void take_on(context::thread_image* next);

// watcher.cpp's. Its signal is never blocked in the kernel, whatever the program's masks say.
inline constexpr int tick_signal = 64;
inline constexpr signal_set tick_set = bit_of(tick_signal);

// The masks of libc's own short critical sections (a thread's making, its start, its end): everything, or all but 33. A program can't
// ask libc for them: 32 and 33 are kept out of its sets. Such a mask is a thread's without being the OS thread's, which saves six system calls a thread: a
// handler that is called meanwhile finds that the thread blocks its signal, and keeps it. A signal by whose default the
// process ends does so a moment sooner.
inline constexpr signal_set everything = ~never_blocked, setuid_signal = bit_of(33);
constexpr bool is_libcs_own(signal_set mask) noexcept { return (mask | setuid_signal) == everything; }
bool watcher_runs() noexcept;
// delays.cpp's: by the watcher's signal.
void note_delay(long long nanoseconds) noexcept;
// handlers.cpp's: a signal of this number that is not the watcher's.
void came_from_program(int signal, siginfo_t* info, void* machine);

// futex.cpp's.
std::size_t wake_word(const std::uint32_t* word, std::size_t count, std::uint32_t bits, bool by_message = false) noexcept;
void forget_futexes_after_fork() noexcept;

}  // namespace ringlet::threads
