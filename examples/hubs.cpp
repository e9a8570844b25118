// Several hubs, each on a thread of its own: fibers on all processors.
//
// spawn takes the hub that has the least to do, spawn_on a chosen one; results come back as futures, and queues and events work
// between hubs.
//
// Prints expected/hubs.txt.

#include <cstdio>
#include <vector>

#include <ringlet/ringlet.hpp>

namespace {

long count_primes(long from, long to) {
  long count = 0;
  for (long n = from; n < to; ++n) {
    bool prime = n > 1;
    for (long d = 2; prime && d * d <= n; ++d) prime = n % d != 0;
    count += prime;
  }
  return count;
}

}  // namespace

int main() {
  ringlet::hub_threads hubs(4);

  std::vector<ringlet::future<long>> parts;
  for (long from = 0; from < 100000; from += 10000) parts.push_back(hubs.spawn(count_primes, from, from + 10000));
  long primes = 0;
  for (auto& part : parts) primes += part.get();
  std::printf("primes below 100000: %ld\n", primes);

  for (auto& where : hubs.spawn_on_each([&](std::size_t) { return hubs.here(); })) std::printf("hello from hub %zu\n", where.get());

  // A producer here, a consumer on each hub.
  ringlet::queue<int> numbers(10);
  auto sums = hubs.spawn_on_each([&](std::size_t) {
    long sum = 0;
    for (int n : numbers) sum += n;
    return sum;
  });
  for (int n = 1; n <= 1000; ++n) numbers.put(n);
  numbers.shutdown();
  long sum = 0;
  for (auto& part : sums) sum += part.get();
  std::printf("1 to 1000, added up by four hubs: %ld\n", sum);
}
