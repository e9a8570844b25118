// Boost.Fiber, which has no calls for sockets; and Boost.Context's fiber for the switch by hand.

#include <boost/context/fiber.hpp>
#include <boost/fiber/all.hpp>

#include <chrono>
#include <vector>

#include "peer.hpp"

namespace {

// Stacks that are kept, as everybody else here keeps theirs.
boost::fibers::pooled_fixedsize_stack stacks;

template <class Body>
boost::fibers::fiber begin(Body body) {
  return {boost::fibers::launch::post, std::allocator_arg, stacks, std::move(body)};
}

template <class Each>
std::size_t together(std::size_t count, std::size_t n, Each each) {
  const std::size_t times = peer::share(n, count);
  std::vector<boost::fibers::fiber> all;
  for (std::size_t i = 0; i < count; ++i)
    all.push_back(begin([=] {
      for (std::size_t i = 0; i < times; ++i) each();
    }));
  for (auto& f : all) f.join();
  return times * count;
}

std::size_t by_hand(std::size_t n) {
  static boost::context::fiber other([](boost::context::fiber&& caller) {
    while (true) caller = std::move(caller).resume();
    return std::move(caller);
  });
  for (std::size_t i = 0; i < n; i += 2) other = std::move(other).resume();
  return n;
}

std::size_t hand_over(std::size_t n) {
  boost::fibers::buffered_channel<int> there(2), back(2);  // a capacity of 2 holds one item
  auto other = begin([&, n] {
    for (std::size_t i = 0; i < n; ++i) back.push(there.value_pop());
  });
  for (std::size_t i = 0; i < n; ++i) {
    there.push(int(i));
    back.value_pop();
  }
  other.join();
  return n;
}

}  // namespace

int main(int argc, char** argv) {
  auto yield = [] { boost::this_fiber::yield(); };
  return peer::run(argc, argv, {},
                   {{"switch", by_hand},
                    {"yield2", [=](std::size_t n) { return together(2, n, yield); }},
                    {"yield1000", [=](std::size_t n) { return together(peer::crowd, n, yield); }},
                    {"spawn",
                     [](std::size_t n) {
                       for (std::size_t i = 0; i < n; ++i) begin([] {}).join();
                       return n;
                     }},
                    {"spawn100",
                     [](std::size_t n) {
                       for (std::size_t i = 0; i < peer::share(n, 100); ++i) together(100, 100, [] {});
                       return peer::share(n, 100) * 100;
                     }},
                    {"queue", hand_over},
                    {"sleep1000", [](std::size_t n) {
                       return together(peer::crowd, n,
                                       [] { boost::this_fiber::sleep_for(std::chrono::milliseconds(1)); });
                     }}});
}
