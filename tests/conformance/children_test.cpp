// Waiting for children, vfork, and names (DNS).

#include "conformance.hpp"

#include <arpa/inet.h>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace {

using conformance::trace;

// A child that ends with the status when the pipe it reads is written to or closed.
struct child {
  pid_t pid = -1;
  int wake = -1;
  explicit child(trace& t, const char* end = "exit 7") {
    auto p = t.pipe();
    wake = p.b;
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, p.a, 0);
    const std::string script = std::string("read x; ") + end;
    const char* arguments[] = {"sh", "-c", script.c_str(), nullptr};
    ::posix_spawn(&pid, "/bin/sh", &actions, nullptr, const_cast<char**>(arguments), environ);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  void end() { ::write(wake, "\n", 1); }
};

}  // namespace

CONFORMANCE("waitpid: waits for a child by its number", "waitpid") {
  child c(t);
  int status = 0;
  t.did("not yet", ::waitpid(c.pid, &status, WNOHANG));
  t.meanwhile([&] { c.end(); });
  t.saw("it", ::waitpid(c.pid, &status, 0) == c.pid);
  t.saw("status", WEXITSTATUS(status));
  t.join();
  t.did("again", ::waitpid(c.pid, &status, 0));
  t.join();
}

CONFORMANCE("waitpid: a signal ends the child", "waitpid wait4") {
  child c(t, "kill -9 $$");
  int status = 0;
  rusage usage{};
  t.meanwhile([&] { c.end(); });
  t.saw("it", ::wait4(c.pid, &status, 0, &usage) == c.pid);
  t.saw("signal", WTERMSIG(status));
  t.join();
}

CONFORMANCE("waitpid: a stopped child", "waitpid") {
  child c(t, "kill -STOP $$; exit 3");
  int status = 0;
  t.meanwhile([&] { c.end(); });
  t.saw("it", ::waitpid(c.pid, &status, WUNTRACED) == c.pid);
  t.saw("stopped", WIFSTOPPED(status));
  t.join();
  ::kill(c.pid, SIGCONT);
  t.saw("it", ::waitpid(c.pid, &status, 0) == c.pid);
  t.saw("status", WEXITSTATUS(status));
  t.join();
}

CONFORMANCE("wait: any child", "wait wait3 wait4") {
  int status = 0;
  t.did("none", ::wait(&status));
  child c(t);
  t.meanwhile([&] { c.end(); });
  t.saw("wait", ::wait(&status) == c.pid);
  t.saw("status", WEXITSTATUS(status));
  t.join();
  child d(t, "exit 8");
  rusage usage{};
  t.meanwhile([&] { d.end(); });
  t.saw("wait3", ::wait3(&status, 0, &usage) == d.pid);
  t.saw("status", WEXITSTATUS(status));
  t.join();
  t.did("none", ::wait3(&status, WNOHANG, nullptr));
  t.did("not mine", ::wait4(1, &status, 0, nullptr));
  t.did("bad flags", ::waitpid(-1, &status, 0x40000));
  t.join();
}

CONFORMANCE("waitid: waits, leaves, and takes", "waitid") {
  child c(t);
  siginfo_t info{};
  t.did("not yet", ::waitid(P_PID, id_t(c.pid), &info, WEXITED | WNOHANG));
  t.saw("pid", info.si_pid);
  t.meanwhile([&] { c.end(); });
  t.did("left there", ::waitid(P_PID, id_t(c.pid), &info, WEXITED | WNOWAIT));
  t.saw("status", info.si_pid == c.pid ? info.si_status : -1);
  t.join();
  t.did("taken", ::waitid(P_ALL, 0, &info, WEXITED));
  t.did("gone", ::waitid(P_PID, id_t(c.pid), &info, WEXITED));
  t.did("nothing to wait for", ::waitid(P_ALL, 0, &info, 0));
  t.join();
}

CONFORMANCE("vfork: the child borrows the parent, and its descriptors are its own", "vfork waitpid read") {
  auto p = t.pipe();
  char got[8]{};
  t.meanwhile([&] { ::write(p.b, "a", 1); });
  t.did("read before", ::read(p.a, got, 1));
  t.join();
  const char* arguments[] = {"sh", "-c", "exit 5", nullptr};
  const pid_t child = ::vfork();
  if (child == 0) {
    // What any spawner does; the parent's pipe must survive it, and what its fibers know of it.
    ::close(p.a);
    ::dup2(p.b, 9);
    ::execve("/bin/sh", const_cast<char**>(arguments), environ);
    ::_exit(127);
  }
  int status = 0;
  t.saw("it", ::waitpid(child, &status, 0) == child);
  t.saw("status", WEXITSTATUS(status));
  t.meanwhile([&] { ::write(p.b, "b", 1); });
  t.did("read after", ::read(p.a, got, 1));
  t.join();
}

CONFORMANCE("getaddrinfo: numbers, names from the hosts file, errors", "getaddrinfo") {
  addrinfo hints{}, *found = nullptr;
  hints.ai_flags = AI_NUMERICHOST;
  hints.ai_socktype = SOCK_STREAM;
  t.saw("number", ::getaddrinfo("127.0.0.1", "80", &hints, &found));
  if (found) {
    t.saw("port", ntohs(reinterpret_cast<sockaddr_in*>(found->ai_addr)->sin_port));
    t.bytes("address", &reinterpret_cast<sockaddr_in*>(found->ai_addr)->sin_addr, 4);
    ::freeaddrinfo(found);
  }
  t.saw("not a number", ::getaddrinfo("localhost.invalid", "80", &hints, &found));
  hints.ai_flags = 0;
  hints.ai_family = AF_INET;
  const int known = ::getaddrinfo("localhost", nullptr, &hints, &found);  // a bare chroot may not know it
  t.saw("localhost", known);
  if (known == 0) ::freeaddrinfo(found);
  t.saw("no service", ::getaddrinfo("127.0.0.1", "no-such-service", &hints, &found));
  t.saw("nothing asked", ::getaddrinfo(nullptr, nullptr, &hints, &found));
  hints.ai_flags = 0x40000000;
  t.saw("bad flags", ::getaddrinfo("127.0.0.1", nullptr, &hints, &found));
}

CONFORMANCE("getnameinfo: the other way", "getnameinfo") {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port = htons(80);
  char host[100]{}, service[100]{};
  auto* address = reinterpret_cast<sockaddr*>(&at);
  t.saw("numbers", ::getnameinfo(address, sizeof at, host, sizeof host, service, sizeof service, NI_NUMERICHOST | NI_NUMERICSERV));
  t.bytes("host", host, std::strlen(host));
  t.bytes("service", service, std::strlen(service));
  t.saw("no room", ::getnameinfo(address, sizeof at, host, 2, nullptr, 0, NI_NUMERICHOST));
  t.saw("too short", ::getnameinfo(address, 2, host, sizeof host, nullptr, 0, NI_NUMERICHOST));
}

CONFORMANCE("gethostbyname and its family", "gethostbyname gethostbyname2 gethostbyaddr gethostbyname_r gethostbyname2_r gethostbyaddr_r") {
  auto describe = [&](const char* what, hostent* h) {
    t.saw(what, h != nullptr);
    if (h) t.bytes("address", h->h_addr_list[0], std::size_t(h->h_length));
    else t.saw("h_errno", h_errno);
  };
  describe("name", ::gethostbyname("localhost"));
  describe("number", ::gethostbyname("10.1.2.3"));
  describe("family", ::gethostbyname2("127.0.0.1", AF_INET));
  const in_addr at{htonl(INADDR_LOOPBACK)};
  describe("address", ::gethostbyaddr(&at, sizeof at, AF_INET));
  hostent found{}, *result = nullptr;
  char room[2000];
  int error = 0;
  t.saw("_r", ::gethostbyname_r("127.0.0.1", &found, room, sizeof room, &result, &error));
  describe("_r", result);
  t.saw("_r no room", ::gethostbyname_r("127.0.0.1", &found, room, 3, &result, &error));
  t.saw("2_r", ::gethostbyname2_r("127.0.0.1", AF_INET, &found, room, sizeof room, &result, &error));
  t.saw("addr_r", ::gethostbyaddr_r(&at, sizeof at, AF_INET, &found, room, sizeof room, &result, &error));
}
