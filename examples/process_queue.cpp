// A queue between processes: one writer, two readers; each item is read once. Then a joinable one: the writer waits until all has
// been dealt with.
//
// Prints expected/process_queue.txt.

#include <cstdio>
#include <vector>

#include <ringlet/ipc/queue.hpp>
#include <ringlet/ipc/shared.hpp>
#include <ringlet/process.hpp>

namespace {
struct tally {
  int count = 0;
  long sum = 0;
};
}  // namespace

int main() {
  constexpr int items = 10000;
  ringlet::ipc::queue<int> queue;
  ringlet::ipc::array<tally> read(2);

  std::vector<ringlet::process> readers;
  for (std::size_t i = 0; i < read.size(); ++i) {
    readers.emplace_back([&queue, &read, i] {
      for (int n : queue) {  // until it is shut down
        ++read[i].count;
        read[i].sum += n;
      }
    });
    readers.back().start();
  }
  for (int n = 0; n < items; ++n) queue.put(n);
  queue.shutdown();
  for (auto& reader : readers) reader.join();
  std::printf("two readers have read %d items, in all %ld; each had some: %s\n", read[0].count + read[1].count, read[0].sum + read[1].sum,
              read[0].count > 0 && read[1].count > 0 ? "yes" : "no");

  ringlet::ipc::queue<std::vector<double>> jobs(4);  // of at most four
  ringlet::ipc::value<double> total(0);
  ringlet::process worker([&] {
    for (const auto& job : jobs) {
      for (double d : job) total.update([d](double& t) { t += d; });
      jobs.task_done();
    }
  });
  worker.start();
  for (int i = 0; i < 10; ++i) jobs.put({double(i), 0.5});
  jobs.join();
  std::printf("all jobs are done: %.1f\n", total.get());
  jobs.shutdown();
  worker.join();
}
