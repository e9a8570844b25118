// Actors: each has a mailbox and a fiber, and does one message after the other. No locks, since nobody shares anything.
//
// Two players send a ball to each other; a bank account that is an actor needs no lock either, and answers by a result that
// comes with the question.
//
// Prints expected/actors.txt.

#include <cstdio>
#include <functional>
#include <string>
#include <utility>

#include <ringlet/ringlet.hpp>

namespace {

template <class Message>
class actor {
 public:
  explicit actor(std::function<void(Message&)> receive)
      : fiber_(ringlet::spawn([this, receive = std::move(receive)] {
          for (Message& m : mailbox_) receive(m);
        })) {}
  ~actor() {
    mailbox_.shutdown();
    fiber_.join();
  }
  void tell(Message m) { mailbox_.put(std::move(m)); }

 private:
  ringlet::queue<Message> mailbox_;
  ringlet::any_fiber fiber_;
};

struct question {
  int deposit;
  ringlet::async_result<int>* answer;
};

}  // namespace

int main() {
  ringlet::event over;
  actor<int>* other = nullptr;
  actor<int> pong([&](int& ball) {
    std::printf("pong %d\n", ball);
    other->tell(ball + 1);
  });
  actor<int> ping([&](int& ball) {
    if (ball > 3) return over.set();
    std::printf("ping %d\n", ball);
    pong.tell(ball);
  });
  other = &ping;
  ping.tell(1);
  over.wait();

  actor<question> account([balance = 0](question& q) mutable {
    balance += q.deposit;
    if (q.answer) q.answer->set(balance);
  });
  account.tell({100, nullptr});
  account.tell({-30, nullptr});
  ringlet::async_result<int> balance;
  account.tell({0, &balance});
  std::printf("balance: %d\n", balance.get());
}
