#pragma once
// SIGURG as a program has it that does not use it, for one case: not even the handler that a monitor, of another case, has left.

#include <signal.h>

namespace support {

struct unused_signal {
  struct sigaction before;
  unused_signal() {
    struct sigaction none {};
    ::sigaction(SIGURG, &none, &before);
  }
  ~unused_signal() { ::sigaction(SIGURG, &before, nullptr); }
  unused_signal(const unused_signal&) = delete;
};

}  // namespace support
