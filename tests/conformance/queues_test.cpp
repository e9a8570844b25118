// Message queues, POSIX's and System V's, and semaphore sets.

#include "conformance.hpp"

#include <fcntl.h>
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <unistd.h>

#include <ctime>
#include <utility>

namespace {

using namespace conformance;

// Of two messages of sixteen bytes.
struct posix_queue {
  mqd_t at;
  explicit posix_queue(int flags = 0) {
    const std::string name = "/ringlet-queues-" + std::to_string(::getpid());
    mq_attr how{};
    how.mq_maxmsg = 2;
    how.mq_msgsize = 16;
    at = ::mq_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | flags, 0600, &how);
    if (at < 0) throw not_here{"no queue of mq_open can be made"};
    ::mq_unlink(name.c_str());
  }
  ~posix_queue() {
    if (at >= 0) ::mq_close(at);
  }
};
struct word {
  long kind;
  char text[8];
};
struct message_queue {
  const int id = ::msgget(IPC_PRIVATE, 0600);
  message_queue() {
    if (id < 0) throw not_here{"no message queue can be made"};
  }
  ~message_queue() { ::msgctl(id, IPC_RMID, nullptr); }
  // Room for so many bytes, from now on.
  void holds(unsigned bytes) const {
    msqid_ds about;
    ::msgctl(id, IPC_STAT, &about);
    about.msg_qbytes = bytes;
    ::msgctl(id, IPC_SET, &about);
  }
};
struct semaphore_set {
  const int id = ::semget(IPC_PRIVATE, 2, 0600);
  semaphore_set() {
    if (id < 0) throw not_here{"no semaphore set can be made"};
  }
  ~semaphore_set() { ::semctl(id, 0, IPC_RMID); }
};

timespec in(long milliseconds) {
  timespec moment;
  ::clock_gettime(CLOCK_REALTIME, &moment);
  moment.tv_nsec += milliseconds % 1000 * 1000000;
  moment.tv_sec += milliseconds / 1000 + moment.tv_nsec / 1000000000;
  moment.tv_nsec %= 1000000000;
  return moment;
}
void receive(trace& t, mqd_t q) {
  char text[16];
  unsigned priority = 77;
  const ssize_t got = t.did("mq_receive", ::mq_receive(q, text, sizeof text, &priority));
  t.saw("priority", priority);
  if (got > 0) t.bytes("text", text, std::size_t(got));
}

}  // namespace

// --- POSIX's ---------------------------------------------------------------------------------------------------------

CONFORMANCE("mq_receive: what is there already, the highest priority first", "mq_receive mq_send mq_close") {
  posix_queue q;
  t.at_once([&] {
    t.did("mq_send", ::mq_send(q.at, "low", 3, 1));
    t.did("mq_send", ::mq_send(q.at, "high", 4, 9));
    receive(t, q.at);
    receive(t, q.at);
  });
  t.did("mq_close", ::mq_close(q.at));
  t.did("mq_send to a closed one", ::mq_send(std::exchange(q.at, -1), "low", 3, 1));
};

CONFORMANCE("mq_receive: waits for a message", "mq_receive mq_send") {
  posix_queue q;
  t.meanwhile([q = q.at] { ::mq_send(q, "word", 4, 3); });
  receive(t, q.at);
  t.join();
};

CONFORMANCE("mq_receive: two wait, and each gets a message", "mq_receive mq_send") {
  posix_queue q;
  std::atomic<int> got{0};
  const auto one = [q = q.at, &got] {
    char text[16];
    if (::mq_receive(q, text, sizeof text, nullptr) == 1) got += text[0];
  };
  t.meanwhile([q = q.at, &t, one] {
    t.meanwhile([q] {
      ::mq_send(q, "\1", 1, 0);
      ::mq_send(q, "\2", 1, 0);
    });
    one();
  });
  one();
  t.saw("all", until([&] { return got == 3; }));
};

CONFORMANCE("mq_timedreceive: nothing comes in time", "mq_timedreceive") {
  posix_queue q;
  char text[16];
  const timespec soon = in(60), before = in(-1000), bad{0, 1000000000}, worse{-1, 0};
  t.waits(60ms, [&] { t.did("in time", ::mq_timedreceive(q.at, text, sizeof text, nullptr, &soon)); });
  t.at_once([&] { t.did("long ago", ::mq_timedreceive(q.at, text, sizeof text, nullptr, &before)); });
  t.did("no moment", ::mq_timedreceive(q.at, text, sizeof text, nullptr, &bad));
  ::mq_send(q.at, "word", 4, 0);
  t.did("no moment, and a message", ::mq_timedreceive(q.at, text, sizeof text, nullptr, &worse));
  t.did("long ago, and a message", ::mq_timedreceive(q.at, text, sizeof text, nullptr, &before));
};

CONFORMANCE("mq_timedreceive: one that comes in time", "mq_timedreceive mq_timedsend") {
  posix_queue q;
  char text[16];
  const timespec later = in(20000);
  t.meanwhile([q = q.at, later] { ::mq_timedsend(q, "word", 4, 0, &later); });
  t.did("mq_timedreceive", ::mq_timedreceive(q.at, text, sizeof text, nullptr, &later));
};

CONFORMANCE("mq_send: waits while it is full", "mq_send mq_receive") {
  posix_queue q;
  ::mq_send(q.at, "one", 3, 0);
  ::mq_send(q.at, "two", 3, 0);
  t.meanwhile([q = q.at] {
    char text[16];
    ::mq_receive(q, text, sizeof text, nullptr);
  });
  t.did("mq_send", ::mq_send(q.at, "three", 5, 0));
  t.join();
  receive(t, q.at);
  receive(t, q.at);
};

CONFORMANCE("mq_timedsend: stays full", "mq_timedsend") {
  posix_queue q;
  ::mq_send(q.at, "one", 3, 0);
  ::mq_send(q.at, "two", 3, 0);
  const timespec soon = in(60);
  t.waits(60ms, [&] { t.did("mq_timedsend", ::mq_timedsend(q.at, "three", 5, 0, &soon)); });
};

CONFORMANCE("mq: one that does not wait, also if that is said afterwards", "mq_receive mq_send") {
  posix_queue q(O_NONBLOCK);
  char text[16];
  const auto both_ways = [&] {
    t.at_once([&] {
      t.did("of none", ::mq_receive(q.at, text, sizeof text, nullptr));
      ::mq_send(q.at, "one", 3, 0);
      ::mq_send(q.at, "two", 3, 0);
      t.did("to a full one", ::mq_send(q.at, "three", 5, 0));
      ::mq_receive(q.at, text, sizeof text, nullptr);
      ::mq_receive(q.at, text, sizeof text, nullptr);
    });
  };
  both_ways();
  mq_attr how{};
  t.did("mq_setattr", ::mq_setattr(q.at, &how, nullptr));
  const timespec soon = in(40);
  t.waits(40ms, [&] { t.did("of none", ::mq_timedreceive(q.at, text, sizeof text, nullptr, &soon)); });
  how.mq_flags = O_NONBLOCK;
  t.did("mq_setattr", ::mq_setattr(q.at, &how, nullptr));
  both_ways();
};

CONFORMANCE("mq: what is refused", "mq_receive mq_send mq_timedsend mq_close") {
  posix_queue q;
  char text[16];
  const int pipe = t.pipe().a;
  t.did("a small buffer", ::mq_receive(q.at, text, 8, nullptr));
  t.did("a long message", ::mq_send(q.at, text, 17, 0));
  t.did("a priority", ::mq_send(q.at, text, 1, unsigned(opaque(1 << 20))));
  t.did("no number", ::mq_receive(opaque(-1), text, sizeof text, nullptr));
  t.did("a pipe", ::mq_receive(pipe, text, sizeof text, nullptr));
  t.did("a pipe", ::mq_send(pipe, text, 1, 0));
  t.did("a bad moment", ::mq_timedsend(q.at, text, 1, 0, static_cast<timespec*>(nowhere())));
  t.did("no number to close", ::mq_close(opaque(-1)));
};

// --- System V's ------------------------------------------------------------------------------------------------------

CONFORMANCE("msgrcv: by kind, and what is not there", "msgrcv msgsnd") {
  message_queue q;
  word one{1, "one"}, two{2, "two"}, got{};
  t.at_once([&] {
    t.did("msgsnd", ::msgsnd(q.id, &one, 3, 0));
    t.did("msgsnd", ::msgsnd(q.id, &two, 3, 0));
    t.did("the second kind", ::msgrcv(q.id, &got, 8, 2, 0));
    t.bytes("text", got.text, 3);
    t.did("that again", ::msgrcv(q.id, &got, 8, 2, IPC_NOWAIT));
    t.did("too long", ::msgrcv(q.id, &got, 2, 0, 0));
    t.did("cut", ::msgrcv(q.id, &got, 2, 0, MSG_NOERROR));
    t.did("no kind", ::msgsnd(q.id, (one.kind = 0, &one), 3, 0));
    t.did("no queue", ::msgrcv(opaque(-1), &got, 8, 0, 0));
    t.did("a copy, which may not wait", ::msgrcv(q.id, &got, 8, 0, 040000));
  });
};

CONFORMANCE("msgrcv: waits for a message", "msgrcv msgsnd") {
  message_queue q;
  t.meanwhile([id = q.id] {
    const word sent{5, "word"};
    ::msgsnd(id, &sent, 4, 0);
  });
  word got{};
  t.did("msgrcv", ::msgrcv(q.id, &got, 8, -5, 0));
  t.bytes("text", got.text, 4);
};

CONFORMANCE("msgrcv: the queue is removed meanwhile", "msgrcv") {
  message_queue q;
  t.meanwhile([id = q.id] { ::msgctl(id, IPC_RMID, nullptr); });
  word got{};
  t.did("msgrcv", ::msgrcv(q.id, &got, 8, 0, 0));
  t.did("msgrcv", ::msgrcv(q.id, &got, 8, 0, 0));
};

CONFORMANCE("msgsnd: waits while it is full", "msgsnd msgrcv") {
  message_queue q;
  q.holds(8);
  const word sent{1, "word"};
  ::msgsnd(q.id, &sent, 8, 0);
  t.at_once([&] { t.did("without waiting", ::msgsnd(q.id, &sent, 4, IPC_NOWAIT)); });
  t.meanwhile([id = q.id] {
    word got;
    ::msgrcv(id, &got, 8, 0, 0);
  });
  t.did("msgsnd", ::msgsnd(q.id, &sent, 4, 0));
};

CONFORMANCE("semop: at once, or when it may", "semop") {
  semaphore_set s;
  sembuf up{0, 2, 0}, down{0, -1, 0}, both[] = {{0, -1, 0}, {1, 1, 0}}, at_once{0, -5, IPC_NOWAIT};
  t.at_once([&] {
    t.did("up", ::semop(s.id, &up, 1));
    t.did("down", ::semop(s.id, &down, 1));
    t.did("both", ::semop(s.id, both, 2));
    t.did("without waiting", ::semop(s.id, &at_once, 1));
    t.did("no set", ::semop(opaque(-1), &up, 1));
    t.did("no steps", ::semop(s.id, &up, 0));
  });
  t.saw("the first", ::semctl(s.id, 0, GETVAL));
  t.saw("the second", ::semctl(s.id, 1, GETVAL));
  t.meanwhile([id = s.id] {
    sembuf up{0, 3, 0};
    ::semop(id, &up, 1);
  });
  t.did("both", ::semop(s.id, both, 2));
  t.join();
  t.saw("the first", ::semctl(s.id, 0, GETVAL));
  t.saw("the second", ::semctl(s.id, 1, GETVAL));
};

CONFORMANCE("semop: waits for zero, and for a set that is removed", "semop") {
  semaphore_set s;
  sembuf up{0, 1, 0}, zero{0, 0, 0}, down{0, -1, 0};
  t.did("zero", ::semop(s.id, &zero, 1));
  ::semop(s.id, &up, 1);
  t.meanwhile([id = s.id, down]() mutable { ::semop(id, &down, 1); });
  t.did("zero", ::semop(s.id, &zero, 1));
  t.join();
  t.meanwhile([id = s.id] { ::semctl(id, 0, IPC_RMID); });
  t.did("down", ::semop(s.id, &down, 1));
};

CONFORMANCE("semtimedop: in time, and not", "semtimedop semop") {
  semaphore_set s;
  sembuf up{0, 1, 0}, down{0, -1, 0};
  const timespec soon{0, 60000000}, later{20, 0}, none{}, bad{0, 1000000000};
  t.waits(60ms, [&] { t.did("not", ::semtimedop(s.id, &down, 1, &soon)); });
  t.at_once([&] { t.did("no time", ::semtimedop(s.id, &down, 1, &none)); });
  t.did("a bad time", ::semtimedop(s.id, &up, 1, &bad));
  t.did("nowhere", ::semtimedop(s.id, &up, 1, static_cast<timespec*>(nowhere())));
  t.meanwhile([id = s.id, up]() mutable { ::semop(id, &up, 1); });
  t.did("in time", ::semtimedop(s.id, &down, 1, &later));
  t.did("for ever, but it may", ::semtimedop(s.id, &up, 1, nullptr));
};
