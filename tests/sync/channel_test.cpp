// channel and select: each item is handed over once, exactly one case of a select happens.

#include <memory>
#include <numeric>
#include <string>

#include "crew.hpp"

using namespace sync_test;

HUB_CASE("channel: send waits until somebody receives, receive until somebody sends") {
  channel<int> c;
  std::string log;
  auto sender = spawn([&] {
    c.send(1);
    log += "sent1 ";
    c.send(2);
    log += "sent2 ";
  });
  yield();
  CHECK(log == "");
  CHECK(c.balance() == 1);
  CHECK(c.receive() == 1);
  yield();
  CHECK(log == "sent1 ");
  CHECK(c.receive() == 2);
  sender.join();
  auto receiver = spawn([&] { return *c.receive() * 10; });
  yield();
  CHECK(c.balance() == -1);
  CHECK(c.send(3));
  CHECK(receiver.get() == 30);
  CHECK(c.balance() == 0);
}

HUB_CASE("channel: try and deadlines hand nothing over by themselves") {
  channel<std::unique_ptr<int>> c;
  CHECK_FALSE(c.try_receive());
  CHECK_FALSE(c.receive(1ms));
  auto item = std::make_unique<int>(7);
  CHECK_FALSE(c.try_send(std::move(item)));
  CHECK_FALSE(c.send(std::move(item), 1ms));
  REQUIRE(item);
  auto receiver = spawn([&] { return **c.receive(); });
  yield();
  CHECK(c.try_send(std::move(item)));
  CHECK_FALSE(item);
  CHECK_FALSE(c.try_send(nullptr));
  CHECK(receiver.get() == 7);
  auto sender = spawn([&] { return c.send(std::make_unique<int>(8)); });
  yield();
  CHECK(**c.try_receive() == 8);
  CHECK(sender.get());
}

HUB_CASE("channel: senders and receivers are served in the order they came") {
  channel<int> c;
  std::string log;
  std::vector<any_fiber> all;
  for (char name : {'a', 'b', 'c'})
    all.push_back(spawn([&, name] {
      const int n = *c.receive();
      log += name + std::to_string(n) + " ";
    }));
  yield();
  for (int i = 1; i < 4; ++i) c.send(i);
  joinall(all);
  CHECK(log == "a1 b2 c3 ");
  for (int i = 1; i < 4; ++i) all.push_back(spawn([&, i] { c.send(i); }));
  yield();
  for (int i = 1; i < 4; ++i) CHECK(c.receive() == i);
  joinall(all);
}

HUB_CASE("channel: one that is killed or late takes no item and leaves none") {
  channel<int> c;
  auto killed = spawn([&] { c.receive(); });
  auto late = spawn([&] { return c.receive(1ms).has_value(); });
  auto other = spawn([&] { return *c.receive(); });
  yield();
  killed.kill();
  CHECK_FALSE(late.get());
  CHECK(c.try_send(5));
  CHECK(other.get() == 5);
  auto killed_sender = spawn([&] { c.send(6); });
  auto late_sender = spawn([&] { return c.send(7, 1ms); });
  yield();
  killed_sender.kill();
  CHECK_FALSE(late_sender.get());
  CHECK_FALSE(c.try_receive());
}

HUB_CASE("channel: is iterated until it is shut down") {
  channel<int> c;
  auto sum = spawn([&] {
    int total = 0;
    for (int& n : c) total += n;
    return total;
  });
  for (int i = 1; i <= 10; ++i) c.send(i);
  c.shutdown();
  CHECK(sum.get() == 55);
}

HUB_CASE("channel: shutdown fails all who wait and all who come") {
  channel<int> c;
  std::vector<fiber<std::string>> all;
  for (int i = 0; i < 2; ++i) all.push_back(spawn([&] { return error_of([&] { c.receive(); }); }));
  yield();
  c.shutdown();
  for (auto& f : all) CHECK(contains(f.get(), "shut down"));
  CHECK(c.is_shut_down());
  CHECK_THROWS_AS(c.receive(), shut_down);
  CHECK_THROWS_AS(c.try_receive(), shut_down);
  CHECK_THROWS_AS(c.try_send(1), shut_down);
  channel<int> d;
  int item = 4;
  auto sender = spawn([&] { return error_of([&] { d.send(std::move(item)); }); });
  yield();
  d.shutdown();
  d.shutdown();
  CHECK(contains(sender.get(), "shut down"));
}

// --- select ----------------------------------------------------------------------------------------------------------

HUB_CASE("select: does the one case that can happen, to receive or to send") {
  channel<int> a, b;
  channel<std::string> words;
  std::optional<int> from_a, from_b;
  auto sender = spawn([&] { b.send(9); });
  yield();
  CHECK(select({receiving(a, from_a), receiving(b, from_b), sending(words, std::string("x"))}) == 1);
  CHECK(from_b == 9);
  CHECK_FALSE(from_a);
  sender.join();
  auto reader = spawn([&] { return *words.receive(); });
  yield();
  CHECK(select({receiving(a, from_a), receiving(b, from_b), sending(words, std::string("x"))}) == 2);
  CHECK(reader.get() == "x");
  CHECK(a.balance() == 0);
}

HUB_CASE("select: waits for the first case that happens and leaves no offer on the others") {
  channel<int> a, b;
  channel<std::unique_ptr<int>> c;
  std::optional<int> from_a, from_b;
  auto item = std::make_unique<int>(3);
  auto chooser = spawn([&] { return select({receiving(a, from_a), receiving(b, from_b), sending(c, std::move(item))}); });
  yield();
  CHECK(a.balance() == -1);
  CHECK(b.balance() == -1);
  CHECK(c.balance() == 1);
  CHECK(b.try_send(2));
  CHECK_FALSE(a.try_send(1));  // it has chosen, though it has not run since
  CHECK_FALSE(c.try_receive());
  CHECK(chooser.get() == 1);
  CHECK(from_b == 2);
  CHECK(item);
  CHECK(a.balance() + b.balance() + c.balance() == 0);
}

HUB_CASE("select: ends by deadline, kill and timeout scope with nothing done") {
  channel<int> a, b;
  std::optional<int> n;
  const auto begun = now();
  CHECK_FALSE(select({receiving(a, n), sending(b, 1)}, 2ms));
  CHECK(took(begun, 2ms));
  CHECK_FALSE(select({receiving(a, n), sending(b, 1)}, deadline::passed()));
  auto victim = spawn([&] { select({receiving(a, n), sending(b, 1)}); });
  yield();
  victim.kill();
  CHECK(a.balance() == 0);
  CHECK(b.balance() == 0);
  {
    timeout limit(1ms);
    CHECK_THROWS_AS(select({receiving(a, n), receiving(b, n)}), timeout_expired);
  }
  CHECK_FALSE(a.try_send(1));
  CHECK_THROWS_AS(select({}), std::invalid_argument);
}

HUB_CASE("select: of cases that could happen at once each has its turn") {
  channel<int> a, b, c;
  std::vector<any_fiber> senders;
  bool over = false;
  for (auto* each : {&a, &b, &c})
    senders.push_back(spawn([&, each] {
      while (!over) each->send(1, 1h);
    }));
  int chosen[3] = {};
  for (int i = 0; i < 300; ++i) {
    yield();
    std::optional<int> n;
    ++chosen[*select({receiving(a, n), receiving(b, n), receiving(c, n)})];
    CHECK(n == 1);
  }
  for (int each : chosen) CHECK(each > 50);
  over = true;
  killall(senders);
}

HUB_CASE("select: two that could serve each other do, and one does not serve itself") {
  channel<int> a, b;
  std::optional<int> n, m;
  CHECK_FALSE(select({sending(a, 1), receiving(a, n)}, 1ms));
  CHECK_FALSE(n);
  auto one = spawn([&] { return select({sending(a, 1), receiving(b, n)}); });
  yield();
  const auto other = select({sending(b, 2), receiving(a, m)});
  const auto ones = one.get();
  if (ones == 0) {
    CHECK(other == 1);
    CHECK(m == 1);
    CHECK_FALSE(n);
  } else {
    CHECK(other == 0);
    CHECK(n == 2);
    CHECK_FALSE(m);
  }
  CHECK(a.balance() + b.balance() == 0);
}

HUB_CASE("select: a channel that is shut down ends it: to receive with nothing, to send with an error") {
  channel<int> a, b;
  std::optional<int> n;
  auto receives = spawn([&] { return select({receiving(a, n), receiving(b, n)}); });
  auto sends = spawn([&] { return error_of([&] { select({sending(b, 1)}, 1h); }); });
  yield();
  CHECK(n == 1);  // they served each other
  receives.join();
  sends.join();
  auto again = spawn([&] { return select({receiving(a, n), receiving(b, n)}); });
  auto error = spawn([&] { return error_of([&] { select({sending(a, 1), sending(b, 2)}); }); });
  again.kill();
  yield();
  a.shutdown();
  CHECK(contains(error.get(), "shut down"));
  CHECK(select({receiving(b, n), receiving(a, n)}) == 1);
  CHECK_FALSE(n);
}

HUB_CASE("select: over more cases than fit on the stack, and over the same channel twice") {
  std::vector<std::unique_ptr<channel<int>>> all;
  std::vector<std::optional<int>> slots(20);
  std::vector<select_case> cases;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    all.push_back(std::make_unique<channel<int>>());
    cases.push_back(receiving(*all.back(), slots[i]));
  }
  auto chooser = spawn([&] { return select(cases, 1h); });
  yield();
  all[13]->send(4);
  CHECK(chooser.get() == 13);
  CHECK(slots[13] == 4);
  std::optional<int> first, second;
  auto twice = spawn([&] { return select({receiving(*all[0], first), receiving(*all[0], second)}); });
  yield();
  CHECK(all[0]->try_send(1));
  CHECK_FALSE(all[0]->try_send(2));
  CHECK(twice.get() == 0);
  CHECK(first == 1);
  CHECK_FALSE(second);
}

HUB_CASE("wait: a channel is ready when somebody waits to send, and nothing is taken") {
  channel<int> c, d;
  CHECK_FALSE(wait_any({c, d}, 1ms));
  auto sender = spawn([&] {
    sleep(1ms);
    d.send(6);
  });
  CHECK(wait_any({c, d}, 1h) == 1);
  CHECK(wait_any({c, d}, deadline::passed()) == 1);
  CHECK(d.try_receive() == 6);
  sender.join();
  c.shutdown();
  CHECK(wait_any({c, d}) == 0);
}

// --- across hubs -----------------------------------------------------------------------------------------------------

namespace {
const int many = support::is_instrumented() ? 100 : 1000;
}

TEST_CASE("channel: each item arrives once, whoever sends and receives") {
  with_each_kind([](kind k) {
    constexpr int pairs = 4;
    channel<int> c;
    std::vector<std::atomic<int>> seen(std::size_t(pairs * many));
    crew all(k, 2 * pairs, [&](int who) {
      for (int i = 0; i < many; ++i) {
        if (who % 2 == 0)
          c.send(who / 2 * many + i);
        else
          ++seen[std::size_t(*c.receive())];
      }
    });
    all.join();
    int wrong = 0;
    for (auto& n : seen) wrong += n != 1;
    CHECK(wrong == 0);
    CHECK(c.balance() == 0);
  });
}

TEST_CASE("select: exactly one case happens, though partners, deadlines and kills race for it") {
  with_each_kind([](kind k) {
    // Everybody selects: to send its numbers on one of three channels, or to receive from one of them, often too late.
    constexpr int workers = 6;
    channel<int> c[3];
    std::atomic<long> sent{0}, received{0}, sent_sum{0}, received_sum{0};
    std::atomic<int> working{workers};
    crew all(k, workers, [&](int who) {
      for (int i = 0; i < many; ++i) {
        std::optional<int> n[3];
        int mine = who * many + i;
        auto& target = c[(who + i) % 3];
        auto body = [&](deadline patience) {
          const auto happened = select({sending(target, std::move(mine)), receiving(c[0], n[0]), receiving(c[1], n[1]), receiving(c[2], n[2])}, patience);
          if (!happened) return;
          if (*happened == 0) {
            ++sent;
            sent_sum += mine;
          } else if (!n[*happened - 1]) {
            FAIL("a case has happened without an item");
          } else {
            ++received;
            received_sum += *n[*happened - 1];
          }
        };
        if (i % 7 == 0) {
          auto victim = spawn([&] { body(never); });
          yield();
          victim.kill();
        } else {
          body(std::chrono::microseconds(i % 3 * 20));
        }
      }
      --working;
    });
    all.join();
    CHECK(sent == received);
    CHECK(sent_sum == received_sum);
    for (auto& each : c) CHECK(each.balance() == 0);
    if (k == kind::fibers) CHECK(sent > 0);
  });
}

TEST_CASE("channel: made, used and destroyed at once, again and again, between two threads") {
  queue<channel<int>*> to_serve(1);
  std::thread server([&] {
    while (channel<int>* c = *to_serve.get()) c->send(1);
  });
  int received = 0;
  for (int i = 0; i < many; ++i) {
    channel<int> c;
    to_serve.put(&c);
    received += *c.receive();
  }
  to_serve.put(nullptr);
  server.join();
  CHECK(received == many);
}
