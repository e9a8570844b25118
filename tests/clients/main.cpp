// One case of one client library: clients LIBRARY CASE; without words it lists the libraries. The servers are there already
// (clients_test.py), and are stopped and started by whoever reads our stdout. Ends with 1 and says why if a fact does not hold.

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <functional>

#include <ringlet/hooks.hpp>

#include "cases.hpp"

namespace clients {

std::vector<library>& libraries() {
  static std::vector<library> all;
  return all;
}

namespace {

// The kernel lets a process with threads wait, some ten milliseconds, when its table of descriptors grows beyond 64, 256, 512
// (synchronize_rcu in expand_files); libcurl and name look-ups start threads. So it grows now, while there is one thread.
void make_room_for_descriptors() { ::close(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 1000)); }

// By the name of a case, or the text of an own fact.
std::function<void()> found(const std::string& name, const std::string& wanted) {
  for (const auto& l : libraries()) {
    if (l.name != name) continue;
    for (const auto& c : cases())
      if (c.name == wanted) return [&l, run = c.run] { run(l); };
    for (const auto& fact : l.own)
      if (fact.says == wanted) return fact.show;
  }
  return {};
}

int run(const std::string& name, const std::string& wanted) try {
  const auto shown = found(name, wanted);
  expect(bool(shown), "there is no '" + name + "' with a case '" + wanted + "'");
  make_room_for_descriptors();
  ringlet::hooks::enable();
  shown();
  return 0;
} catch (const failure& f) {
  std::fprintf(stderr, "%s\n", f.said.c_str());
  return 1;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
}  // namespace
}  // namespace clients

int main(int count, char** words) {
  if (count == 3) return clients::run(words[1], words[2]);
  for (const auto& l : clients::libraries()) {
    std::printf("%s\t%s", l.name, l.version().c_str());
    for (const auto& fact : l.own) std::printf("\t%s", fact.says);
    std::printf("\n");
  }
  return 0;
}
