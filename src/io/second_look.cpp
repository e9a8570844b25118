// Who parks because a read was short is looked at once more, a moment later.
//
// A stream that gave less than was asked for is taken for empty, which saves the read that would only say EAGAIN. Seldom it
// isn't, and no news will come: at the mark of urgent data, behind passed descriptors and between writers of different
// credentials (unix), before a record of another type (kernel TLS). epoll tells of urgent data; the ring cannot
// (engine::tells_urgent). So all such streams whose readers still wait are asked together, by one poll. Under load most have
// had news by then, and cost nothing.
//
// A stream that is not empty then is only suspected: something may have come in this very moment, and its news be on their
// way. If they haven't come a little later, the stream has misled us, and is not believed again.

#include <poll.h>

#include <algorithm>
#include <array>

#include "io/wait.hpp"

namespace ringlet::io {

namespace {
constexpr auto second_look_after = std::chrono::milliseconds(20);
constexpr auto news_take = std::chrono::milliseconds(1);
constexpr auto news_take_at_most = std::chrono::milliseconds(100);  // a busy hub with thousands of streams
}  // namespace

void fd_table::doubt(fd_watch& w) {
  if (w.tells == short_read::says_empty && hub_.engine->tells_urgent()) return;
  if (doubted_.empty()) {
    look_at_doubted_ = hub_.turn_time + second_look_after;
    hub_.look_again_at = std::min(hub_.look_again_at, look_at_doubted_);
    hub_.look_again = [](hub_state& h) { of(h).look_again(); };
  }
  doubted_.push_back(w);
}

void fd_table::look_again() {
  const clock::time_point now = hub_.turn_time;
  // A kernel gives news out a few at a time (since Linux 6.14 20 an enter), and under load there are always more.
  if (now >= look_at_suspected_ && (!hub_.engine->has_news() || now >= look_at_suspected_ + news_take_at_most))
    end_suspicions();
  if (suspected_.empty() && now >= look_at_doubted_) ask_doubted();
  hub_.look_again_at = !suspected_.empty() ? std::max(look_at_suspected_, now + news_take)
                       : !doubted_.empty() ? look_at_doubted_
                                           : clock::time_point::max();
}

// Whom news have reached are not among them any more (notify).
void fd_table::end_suspicions() {
  while (fd_watch* w = suspected_.pop_front()) {
    w->suspected = false;
    if (!still_waits(*w)) continue;
    w->misleads = true;
    w->set_ready(direction::in);
    wake_next(*w, direction::in);
  }
}

// Whether its reader waits for news. One that is not there now will look by itself.
bool fd_table::still_waits(fd_watch& w) {
  if (w.maybe_ready(direction::in) || !w.is_armed(direction::in)) return false;
  if (!w.waiters[unsigned(direction::in)].empty()) return true;
  w.set_ready(direction::in);
  return false;
}

void fd_table::ask_doubted() {
  std::array<pollfd, 64> asked;
  std::array<fd_watch*, 64> watches;
  while (!doubted_.empty()) {
    unsigned count = 0;
    while (count < asked.size() && !doubted_.empty()) {
      fd_watch& w = *doubted_.pop_front();
      if (!still_waits(w)) continue;
      watches[count] = &w;
      asked[count++] = {w.fd, POLLIN | POLLPRI, 0};
    }
    const bool answered = count == 0 || poll_now(asked.data(), count) >= 0;
    for (unsigned i = 0; i < count; ++i) {
      if (answered && asked[i].revents == 0) continue;
      look_at_suspected_ = hub_.turn_time + news_take;
      watches[i]->suspected = true;
      suspected_.push_back(*watches[i]);
    }
  }
}

}  // namespace ringlet::io
