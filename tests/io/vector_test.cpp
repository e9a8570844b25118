// Reads and writes on files whose kernel code knows no RWF_NOWAIT, where another thread comes between poll's word and the call.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>

#include <ringlet/ringlet.hpp>

#include "io/io_support.hpp"
#include "support/thread_state.hpp"

using namespace io_test;
using ringlet::spawn;

namespace {

constexpr std::size_t page = 4096;

// A FIFO of one page, which no kernel lets us ask with RWF_NOWAIT.
struct fifo_of_a_page {
  owned fd;
  fifo_of_a_page() {
    char folder[] = "/tmp/ringlet-fifo.XXXXXX";
    REQUIRE(mkdtemp(folder));
    const std::string path = std::string(folder) + "/fifo";
    REQUIRE(mkfifo(path.c_str(), 0600) == 0);
    fd = owned(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    ::unlink(path.c_str());
    ::rmdir(folder);
    REQUIRE(int(fd) >= 0);
    REQUIRE(::fcntl(fd, F_SETPIPE_SZ, page) == int(page));
  }
};

// Who fills it again, at the moment at which there is room: a helper, for a fiber whose write is too large to be at once, or
// a thread of the program's.
enum class other_writer { large_write_of_a_fiber, thread };

}  // namespace

TEST_CASE("write: a FIFO that another fills again at the same moment parks the fiber, never the thread") {
  for (const other_writer how : {other_writer::large_write_of_a_fiber, other_writer::thread}) {
    CAPTURE(int(how));
    const fifo_of_a_page fifo;
    const std::string large(3 * page, 'l'), small(100, 's'), filling(page, 'f');
    const std::size_t others = how == other_writer::thread ? page : large.size(), sum = filling.size() + others + small.size();
    for (int round = 0; round < 300; ++round) {
      CHECK(io::write(fifo.fd, filling.data(), filling.size()) == ssize_t(filling.size()));
      std::atomic<int> number{0};
      std::thread thread;
      ringlet::fiber<ssize_t> fiber;
      if (how == other_writer::thread) {
        thread = std::thread([&] {
          number = gettid();
          CHECK(::write(fifo.fd, large.data(), page) == ssize_t(page));
        });
        const auto asleep = [&] { return number != 0 && support::state_of(number) == 'S'; };
        for (int looks = 0; looks < 10'000 && !asleep(); ++looks) ringlet::sleep(500us);
        REQUIRE(asleep());
      } else {
        fiber = spawn([&] { return io::write(fifo.fd, large.data(), large.size()); });
        REQUIRE(turn_until([&] { return ringlet::hub::count().operations >= 1; }));
      }
      auto writer = spawn([&] { return io::write(fifo.fd, small.data(), small.size()); });
      const std::size_t fibers = thread.joinable() ? 1 : 2;
      REQUIRE(turn_until([&] { return ringlet::hub::count().fd_waits + ringlet::hub::count().operations >= fibers; }));
      char got[page];
      std::size_t all = 0;
      for (ssize_t n; all < sum && (n = io::read(fifo.fd, got, sizeof got, 5s)) > 0;) all += std::size_t(n);
      CHECK(all == sum);
      CHECK(writer.get() == ssize_t(small.size()));
      if (thread.joinable()) thread.join();
      else CHECK(fiber.get() == ssize_t(large.size()));
    }
  }
}
