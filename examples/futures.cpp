// Futures, as they complete: the same work on threads, in fibers, and on other hubs.
//
// An executor is a place to run functions in; wait and iwait tell which futures are ready.
//
// Prints expected/futures.txt.

#include <chrono>
#include <cstdio>
#include <vector>

#include <ringlet/ringlet.hpp>

using namespace std::chrono_literals;

namespace {

int work(int milliseconds) {
  ringlet::sleep(std::chrono::milliseconds(milliseconds));  // parks a fiber; on a helper thread, its own hub's main one
  return milliseconds;
}

void show(const char* where, ringlet::executor& place) {
  std::vector<ringlet::future<int>> futures;
  for (int milliseconds : {150, 50, 100}) futures.push_back(place.submit(work, milliseconds));
  std::printf("%s:", where);
  for (std::size_t i : ringlet::iwait(futures)) std::printf(" %d", futures[i].get());
  std::puts("");
}

}  // namespace

int main() {
  {
    ringlet::executor threads(3);
    show("on threads   ", threads);
  }
  {
    ringlet::pool fibers(3);
    ringlet::executor here(fibers);
    show("in fibers    ", here);
  }
  {
    ringlet::hub_threads hubs(2);
    ringlet::executor there(hubs);
    show("on other hubs", there);
  }
}
