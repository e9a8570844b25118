// Two greenlets that switch to each other by hand.
//
// Nothing runs by itself here, and nothing is scheduled: a switch names who runs next, like a phone call that somebody
// must answer. A greenlet that ends hands over to its parent, here main.
//
// Prints expected/switching.txt.

#include <cstdio>

#include <ringlet/greenlet.hpp>

int main() {
  ringlet::greenlet ping, pong;

  ping = ringlet::greenlet([&] {
    std::puts("ping: 12");
    pong.switch_to();
    std::puts("ping: 34");
    // Ends here: main goes on, and pong never gets to its last line by itself.
  });
  pong = ringlet::greenlet([&] {
    std::puts("pong: 56");
    ping.switch_to();
    std::puts("pong: 78");
  });

  ping.switch_to();
  std::printf("main: ping is %s, pong is %s\n", ping.dead() ? "dead" : "alive", pong.dead() ? "dead" : "alive");
  pong.switch_to();
  std::printf("main: ping is %s, pong is %s\n", ping.dead() ? "dead" : "alive", pong.dead() ? "dead" : "alive");
}
