// Talking with a subprocess to its end: communicate, and run, which does it all.
//
// One fiber waits for all three pipes at once. What has come and what has gone is the subprocess's own, not the call's: so whatever ends
// a call early, the next one goes on.

#include <poll.h>

#include <stdexcept>

#include <ringlet/io.hpp>

#include "process/subprocess_state.hpp"
#include "stream/pipe_write.hpp"

namespace ringlet {

// --- communicate -----------------------------------------------------------------------------------------------------

bool subprocess::communicate(std::string input, deadline until, std::size_t most_bytes) {
  impl& p = *impl_;
  file& in = p.streams[0];
  if (in.is_open())
    p.unsent += input;
  else if (!input.empty())
    throw std::logic_error("ringlet: input for " + p.shown + ", whose stdin is no open pipe");
  for (int i : {1, 2})  // a reader by hand may have left something
    if (file& each = p.streams[i]; !each.ahead().empty()) p.collected[i - 1] += each.read_some(each.ahead().size());
  std::string block;
  bool late = false;  // output that never stops is no reason to stay: one more look after the deadline is enough for what came in time
  while (true) {
    if (in.is_open() && p.sent == p.unsent.size()) in.close();
    pollfd fds[3];
    file* of[3];
    unsigned long count = 0;
    for (file& each : p.streams)
      if (each.is_open()) {
        fds[count] = {each.fd(), short(&each == &in ? POLLOUT : POLLIN), 0};
        of[count++] = &each;
      }
    if (count == 0) break;
    if (late) return false;
    late = until == deadline::passed() || until.has_passed();
    const int found = io::poll(fds, count, until);
    if (found == -EINTR) continue;
    if (found == 0) return false;
    if (found < 0) detail::throw_io_failure(found, "communicating with " + p.shown);
    for (unsigned long i = 0; i < count; ++i) {
      if (fds[i].revents == 0) continue;
      if (of[i] == &in) {
        const ssize_t put = detail::try_pipe(in.fd(), p.unsent.data() + p.sent, p.unsent.size() - p.sent);
        if (put > 0) p.sent += std::size_t(put);
        if (put < 0 && put != -EAGAIN) p.sent = p.unsent.size();  // it does not want the rest
        continue;
      }
      std::string& to = p.collected[of[i] - p.streams - 1];
      if (block.empty()) block.resize(65536);
      const ssize_t got = io::read(of[i]->fd(), block.data(), block.size(), deadline::passed());
      if (got > 0) to.append(block, 0, std::size_t(got));
      if (got == 0) of[i]->close();
      if (got < 0 && got != -ETIMEDOUT && got != -EAGAIN && got != -EINTR) detail::throw_io_failure(got, "reading from " + p.shown);
      if (to.size() > most_bytes)
        throw io_error(EMSGSIZE, p.shown + " wrote more than the allowed " + std::to_string(most_bytes) + " bytes to one stream");
    }
  }
  p.unsent.clear();
  p.sent = 0;
  return wait(until).has_value();
}

const std::string& subprocess::output() const noexcept { return impl_->collected[0]; }
const std::string& subprocess::errors() const noexcept { return impl_->collected[1]; }
std::string subprocess::take_output() noexcept { return std::exchange(impl_->collected[0], {}); }
std::string subprocess::take_errors() noexcept { return std::exchange(impl_->collected[1], {}); }

// --- run -------------------------------------------------------------------------------------------------------------

std::vector<std::string> shell(std::string line) { return {"/bin/sh", "-c", std::move(line)}; }

completed run(std::vector<std::string> command, const run_options& how) {
  subprocess_options options = how.process;
  if (!how.input.empty()) {
    if (options.in.where() != redirect::kind::inherit) throw std::invalid_argument("ringlet: run with both an input and a redirected stdin");
    options.in = redirect::pipe();
  }
  if (how.capture)
    for (redirect* each : {&options.out, &options.err})
      if (each->where() == redirect::kind::inherit) *each = redirect::pipe();
  const std::string shown = command.empty() ? "" : "'" + command[0] + "'";
  subprocess p(std::move(command), options);
  completed result;
  const auto take = [&] {
    result.out = p.take_output();
    result.err = p.take_errors();
  };
  if (!p.communicate(how.input, how.until, how.most_bytes)) {
    p.send_signal_to_group(SIGKILL);
    p.kill();
    // What it had written is in the pipes; a stranger that it has left behind may hold them open.
    constexpr auto long_enough = std::chrono::milliseconds(100);
    p.communicate({}, long_enough, how.most_bytes);
    if (const auto status = p.wait(std::chrono::seconds(10))) result.status = *status;
    take();
    throw run_error("ringlet: " + shown + " did not end in time, and was killed", std::move(result), true);
  }
  result.status = *p.wait();
  take();
  if (how.check && !result.status.success()) {
    std::string why = "ringlet: " + shown + " failed: it was " + to_string(result.status);
    if (!result.status.signal) why = "ringlet: " + shown + " failed: it " + to_string(result.status);
    const std::size_t last_words = std::min<std::size_t>(result.err.size(), 500);
    if (last_words) why += "; its last words: " + result.err.substr(result.err.size() - last_words);
    throw run_error(why, std::move(result), false);
  }
  return result;
}

}  // namespace ringlet
