// No library, but what one that no hook reaches would be: it waits by a system call of its own. So it is seen that the cases,
// and the yield ratio, notice.

#include <sys/syscall.h>
#include <unistd.h>

#include <ctime>

#include "clients.hpp"

namespace clients {
namespace {

class blocking_client : public client {
 public:
  void connect() override {}
  void give_up_after(milliseconds) override {}
  std::string ask(int id, milliseconds after) override {
    const timespec length{after.count() / 1000, after.count() % 1000 * 1'000'000};
    ::syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &length, nullptr);
    return answer_to(id);
  }
};

const bool added = add({.name = "what blocks the thread",
                        .version = [] { return std::string("0"); },
                        .make = [] { return std::unique_ptr<client>(new blocking_client); },
                        .at_once = 8});

}  // namespace
}  // namespace clients
