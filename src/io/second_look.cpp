// Who parks because a read was short is looked at once more, a moment later.
//
// A stream that gave less than was asked for is taken for empty, which saves the read that would only say EAGAIN. Seldom it
// isn't, and no news will come: at the mark of urgent data, behind passed descriptors and between writers of different
// credentials (unix), before a record of another type (kernel TLS). epoll tells of urgent data; the ring cannot
// (engine::tells_urgent). So all such streams whose readers still wait are asked together, by one poll. Under load most have
// had news by then, and cost nothing. A stream that was not empty is not believed again.

#include <poll.h>

#include <array>

#include "io/wait.hpp"

namespace ringlet::io {

namespace {
constexpr auto second_look_after = std::chrono::milliseconds(20);
}

void fd_table::doubt(fd_watch& w) {
  if (w.tells == short_read::says_empty && hub_.engine->tells_urgent()) return;
  if (doubted_.empty()) {
    hub_.look_again_at = hub_.turn_time + second_look_after;
    hub_.look_again = &take_second_look;
  }
  doubted_.push_back(w);
}

void fd_table::take_second_look(hub_state& h) {
  h.look_again_at = clock::time_point::max();
  auto& doubted = of(h).doubted_;
  std::array<pollfd, 64> asked;
  std::array<fd_watch*, 64> watches;
  while (!doubted.empty()) {
    unsigned count = 0;
    while (count < asked.size() && !doubted.empty()) {
      fd_watch& w = *doubted.pop_front();
      if (w.maybe_ready(direction::in) || !w.is_armed(direction::in)) continue;
      if (w.waiters[unsigned(direction::in)].empty()) {
        w.set_ready(direction::in);  // its next reader looks
        continue;
      }
      watches[count] = &w;
      asked[count++] = {w.fd, POLLIN | POLLPRI, 0};
    }
    const bool answered = count == 0 || poll_now(asked.data(), count) >= 0;
    for (unsigned i = 0; i < count; ++i) {
      if (answered && asked[i].revents == 0) continue;
      watches[i]->misleads = true;
      watches[i]->set_ready(direction::in);
      wake_next(*watches[i], direction::in);
    }
  }
}

}  // namespace ringlet::io
