#pragma once
// O_NONBLOCK set for the length of one call (accept and connect, which have no flag that says "do not wait", on the engine that
// cannot wait for them): who does that takes turns with all others who do.
//
// The flag belongs to the description, which hubs and forked children share: prefork servers, a listener for several hubs.
// Without turns one of them took the flag away just before another's accept, which then waited in the kernel and kept a
// whole hub there until the next connection; or asked for the flag while it was set, and told a program whose listener
// blocks that it does not.
//
// So there is one turn for a process and all that it forks: a word, in memory that they share from the first fork on. Nobody
// waits in the kernel while he has it. One whose process was killed meanwhile loses it after a second. Processes that got
// the socket otherwise (exec, SCM_RIGHTS) have a turn of their own, and may see the flag.

#include <atomic>
#include <cstdint>

namespace ringlet::io {

class flag_turn {
 public:
  flag_turn() noexcept;
  ~flag_turn();
  flag_turn(const flag_turn&) = delete;

  // pthread_atfork's: from here on the turn is one with the children's.
  static void share() noexcept;
  // Whether another process has it, too.
  static bool is_shared() noexcept;

  struct place {
    std::atomic<std::uint32_t> holder{0};  // a ticket; 0: nobody
    std::atomic<std::uint32_t> waiting{0};
    std::atomic<std::uint32_t> last_ticket{0};
  };

 private:
  place* at_;
  std::uint32_t ticket_;
};

}  // namespace ringlet::io
