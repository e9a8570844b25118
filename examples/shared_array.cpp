// Memory that processes share: an array that each writes a part of, and a value that all add to under its lock.
//
// Prints expected/shared_array.txt.

#include <cstdio>
#include <vector>

#include <ringlet/ipc/shared.hpp>
#include <ringlet/ipc/sync.hpp>
#include <ringlet/process.hpp>

int main() {
  constexpr std::size_t workers = 4;
  ringlet::ipc::array<double> roots(1000);
  ringlet::ipc::value<long> sum(0);
  ringlet::ipc::event go;
  ringlet::ipc::semaphore ready(0);

  std::vector<ringlet::process> all;
  for (std::size_t w = 0; w < workers; ++w) {
    all.emplace_back([&, w] {
      ready.release();
      go.wait();  // all at once
      for (std::size_t i = w; i < roots.size(); i += workers) {
        roots[i] = double(i) / 2;
        sum.update([i](long& s) { s += long(i); });
      }
    });
    all.back().start();
  }
  for (std::size_t w = 0; w < workers; ++w) ready.acquire();
  std::printf("before: %g %g %g, sum %ld\n", roots[0], roots[500], roots[999], sum.get());
  go.set();
  for (auto& p : all) p.join();
  std::printf("after: %g %g %g, sum %ld\n", roots[0], roots[500], roots[999], sum.get());

  // A process that ends while it has a lock does not keep it for ever.
  ringlet::ipc::mutex lock;
  ringlet::process forgets([&] { lock.lock(); });
  forgets.start();
  forgets.join();
  try {
    lock.lock();
  } catch (const ringlet::ipc::owner_died&) {
    std::puts("the lock's owner has died; it is ours now");
  }
  lock.unlock();
}
