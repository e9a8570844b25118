// The cases: what every library must do. Each is given a library's row, and throws if a fact does not hold; what it measures it
// prints, as `name value` lines.

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "cases.hpp"
#include "yield_ratio.hpp"

namespace clients {

namespace {

void measured(const char* name, double value) { std::printf("%s %.3f\n", name, value); }

std::vector<std::string> entries_of(const std::string& folder) {
  std::vector<std::string> names;
  DIR* open = ::opendir(folder.c_str());
  while (const dirent* entry = ::readdir(open))
    if (entry->d_name[0] != '.') names.push_back(entry->d_name);
  ::closedir(open);
  return names;
}
int descriptors() { return int(entries_of("/proc/self/fd").size()); }
// The process's, without those of the kernel that serve a ring. By raw calls: a hooked read might start a helper thread.
int threads() {
  int count = 0;
  for (const auto& id : entries_of("/proc/self/task")) {
    char name[32] = {};
    const long file = ::syscall(SYS_openat, AT_FDCWD, ("/proc/self/task/" + id + "/comm").c_str(), O_RDONLY | O_CLOEXEC);
    const long size = ::syscall(SYS_read, file, name, sizeof name);
    ::syscall(SYS_close, file);
    count += size > 0 && !std::string_view(name).starts_with("iou-");
  }
  return count;
}

// What the library says when it fails a request that the server would keep for long; "" if the answer came.
std::string failure_of(client& c, int id = 1, milliseconds after = never_in_time) {
  try {
    expect_answer(c.ask(id, after), id);
    return "";
  } catch (const failure& f) {
    return f.said.empty() ? "an error without a name" : f.said;
  }
}
void expect_one(const std::string& said, const any_of& wanted, const char* when) {
  for (const char* text : wanted)
    if (said.find(text) != std::string::npos) return;
  const std::string first = wanted.empty() ? "" : wanted.front();
  throw std::runtime_error(std::string(when) + ", the library said '" + said + "' instead of '" + first + "'");
}

// So many requests, those of these clients, are in the middle of the library's call.
bool all_wait(const library& l, const std::vector<std::unique_ptr<client>>& asking) {
  for (const auto& c : asking)
    if (!c->is_in_call()) return false;
  return !l.waits_on_fds || ringlet::hub::count().fd_waits >= asking.size();
}

// The same handle, asked once more after a request that failed: the right answer, an error, or a wait that somebody must
// end. What it must not give is the answer to the question before.
std::string once_more(client& c) {
  std::string said = "waits";
  ringlet::timeout limit(2s);
  try {
    said = failure_of(c, 7, 0ms);
    ringlet::yield();
  } catch (const ringlet::timeout_expired&) {
    return "waits";
  }
  return said == "" ? "answers" : "refuses";
}

std::unique_ptr<client> connected(const library& l) {
  auto c = l.make();
  c->connect();
  return c;
}

// --- the cases --------------------------------------------------------------------------------------------------------

// As many requests at once as the server bears take about as long as one.
void together(const library& l) {
  ticker others;
  yield_ratio ratio;
  const auto at_once = [&](std::size_t count) {
    std::vector<std::unique_ptr<client>> all(count);
    in_fibers(count, [&](int i) {
      all[i] = l.make();
      yield_ratio::request r(ratio);
      all[i]->connect();
    });
    int most_threads = 0;
    const auto begin = clock::now();
    in_fibers(count, [&](int i) {
      {
        yield_ratio::request r(ratio);
        expect_answer(all[i]->ask(i, request_takes), i);
      }
      most_threads = std::max(most_threads, threads());
    });
    const double took = ms_since(begin);
    in_fibers(count, [&](int i) { all[i].reset(); });
    measured("threads", most_threads);
    return took;
  };
  at_once(1);  // what is initialised once
  const double one = at_once(1), all = at_once(l.at_once);
  measured("requests", double(l.at_once));
  measured("one", one);
  measured("all", all);
  measured("ratio", ratio.value());
  measured("stack", double(deepest_stack));
  expect(one >= 0.9 * double(request_takes.count()), "one request took " + std::to_string(one) + " ms: it did not wait");
  const double in_a_row = double(request_takes.count()) * double(l.at_once);
  const std::string took = std::to_string(l.at_once) + " requests took " + std::to_string(all) + " ms";
  expect(all < in_a_row / 4, took + "; in a row: " + std::to_string(in_a_row));
}

// The library's own limit, while the server is silent: its own error, others run meanwhile, and it can be used again.
void timeout(const library& l) {
  ticker others;
  in_fibers(1, [&](int) {
    auto c = connected(l);
    c->give_up_after(l.shortest_limit);
    const int before = others.count();
    const auto begin = clock::now();
    const std::string said = failure_of(*c);
    const double took = ms_since(begin);
    measured("took", took);
    measured("ticks", others.count() - before);
    expect_one(said, l.timed_out, "when its own limit had passed");
    expect(took >= 0.9 * double(l.shortest_limit.count()), "it gave up after " + std::to_string(took) + " ms");
    expect(took < double(patience.count()), "it gave up only after " + std::to_string(took) + " ms");
    expect(others.count() - before >= 10, "others ran only " + std::to_string(others.count() - before) + " times meanwhile");
    std::printf("then %s\n", once_more(*c).c_str());
    c = connected(l);
    expect_answer(c->ask(2, 0ms), 2);
  });
}

// Another fiber ends the request, by the library's own means and by ours; nothing is left behind.
void cancel(const library& l) {
  ticker others;
  in_fibers(1, [&](int) { expect_answer(connected(l)->ask(1, 0ms), 1); });  // what is opened once
  const int open_before = descriptors();
  std::string own, scope, killed;
  std::vector<std::unique_ptr<client>> one(1);
  auto& c = one.front();
  const auto asks = [&](std::string& said) {
    c = connected(l);
    auto asking = ringlet::spawn([&] {
      said = failure_of(*c);
      c.reset();
    });
    wait_until("the request", [&] { return all_wait(l, one); });
    return asking;
  };
  if (!l.cancelled.empty()) {
    auto asking = asks(own);
    wait_until("an end by the library's own cancel", [&] {
      if (c) c->cancel();
      return asking.ready();
    });
    expect_one(own, l.cancelled, "cancelled in its own way");
  }
  c = connected(l);
  bool fired = false;
  std::string then;
  auto limited = ringlet::spawn([&] {
    try {
      const ringlet::timeout limit(300ms);
      scope = failure_of(*c);
      ringlet::yield();  // here at the latest our own scope tells
    } catch (const ringlet::timeout_expired&) {
      fired = true;
    }
    then = once_more(*c);
    c.reset();
  });
  expect(limited.join(patience), "a timeout scope ran out and the fiber hangs:\n" + ringlet::hub::describe_fibers());
  limited.get();
  expect(fired, "the timeout scope was not thrown after the call");
  expect_one(scope, l.interrupted, "in a timeout scope that ran out");

  auto victim = asks(killed);
  expect(victim.kill(patience), "a killed fiber hangs:\n" + ringlet::hub::describe_fibers());
  expect(victim.successful(), "a killed fiber failed");
  expect_one(killed, l.interrupted, "killed");

  in_fibers(1, [&](int) { expect_answer(connected(l)->ask(3, 0ms), 3); });
  expect(ringlet::hub::count().fd_waits == 0, "somebody still waits:\n" + ringlet::hub::describe_fibers());
  wait_until("descriptors that are closed again", [&] { return descriptors() <= open_before; });
  std::printf("cancelled %s\nscope %s\nthen %s\ninterrupted %s\n", own.c_str(), scope.c_str(), then.c_str(), killed.c_str());
}

// The script that has started us does what we say, and answers with a line when it is done.
void tell_driver(const char* wish) {
  std::printf("%s\n", wish);
  std::fflush(stdout);
  char byte = 0;
  while (byte != '\n') expect(::read(STDIN_FILENO, &byte, 1) == 1, "the script has gone");
}

// The server ends while requests are under way, and comes back.
void restart(const library& l) {
  constexpr std::size_t count = 8;
  ticker others;
  std::vector<std::unique_ptr<client>> all(count);
  in_fibers(count, [&](int i) { all[i] = connected(l); });
  std::size_t asking = 0, ended = 0;
  auto stops = ringlet::spawn([&] {
    wait_until("all requests", [&] { return asking == count && all_wait(l, all); });
    expect(ended == 0, "a request ended before the server did");
    tell_driver("stop");
  });
  in_fibers(count, [&](int i) {
    ++asking;
    const std::string said = failure_of(*all[i]);
    ++ended;
    if (i == 0) std::printf("gone %s\n", said.c_str());
    if (l.gone.empty())
      expect(said == "", "the server had gone, and instead of the answer came: " + said);
    else
      expect_one(said, l.gone, "when the server had gone");
  });
  stops.get();
  in_fibers(count, [&](int i) {
    try {
      all[i]->connect();
      all[i]->ask(i, 0ms);
    } catch (const failure&) {
      return;
    }
    throw std::runtime_error("there was an answer while there was no server");
  });
  tell_driver("start");
  in_fibers(count, [&](int i) {
    if (!l.reconnects_itself) all[i]->connect();
    expect_answer(all[i]->ask(i, request_takes), i);
  });
}

// The server takes the connection and says nothing (the script sees to that): a kill ends also the connecting.
void silent(const library& l) {
  ticker others;
  std::string said;
  auto c = l.make();
  auto victim = ringlet::spawn([&] {
    try {
      c->connect();
      c->ask(1, 0ms);
    } catch (const failure& f) {
      said = f.said;
    }
    c.reset();
  });
  wait_until("the wait for an answer", [&] { return victim.ready() || ringlet::hub::count().fd_waits > 0; });
  expect(!victim.ready(), "it did not wait for a silent server, and said: " + said);
  expect(victim.kill(patience), "a killed fiber hangs:\n" + ringlet::hub::describe_fibers());
  expect(said != "", "killed before the server said anything, it had an answer");
  std::printf("interrupted %s\n", said.c_str());
}

const named_case all_cases[] = {
    {"together", together}, {"timeout", timeout}, {"cancel", cancel}, {"silent", silent}, {"restart", restart},
};

}  // namespace

std::span<const named_case> cases() { return all_cases; }

}  // namespace clients
