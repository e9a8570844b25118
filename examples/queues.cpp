// The four kinds of queue: what was put in first, last, or matters most comes out first; a channel keeps nothing at all.
//
// Prints expected/queues.txt.

#include <cstdio>
#include <string>
#include <utility>

#include <ringlet/ringlet.hpp>

namespace {

template <class Queue>
void show(const char* name, Queue q) {
  std::printf("%s:", name);
  while (auto item = q->try_get()) std::printf(" %d", *item);
  std::puts("");
}

}  // namespace

int main() {
  ringlet::queue<int> line;
  ringlet::lifo_queue<int> pile;
  ringlet::priority_queue<int> ward;
  for (int i : {3, 1, 4, 1, 5}) {
    line.put(i);
    pile.put(i);
    ward.put(i);
  }
  show("first in, first out", &line);
  show("last in, first out ", &pile);
  show("smallest first     ", &ward);

  ringlet::queue<std::string> narrow(1);
  narrow.put("one");
  std::printf("a full queue: %s\n", narrow.try_put("two") ? "took it" : "has no room");

  // A sender and a receiver meet: neither goes on before the other is there.
  ringlet::channel<int> meeting;
  auto sender = ringlet::spawn([&] {
    for (int i = 1; i <= 2; ++i) {
      std::printf("channel: sending %d\n", i);
      meeting.send(std::move(i));
    }
    meeting.shutdown();
  });
  auto receiver = ringlet::spawn([&] {
    for (int i : meeting) std::printf("channel: received %d\n", i);
  });
  ringlet::joinall({sender, receiver});
}
