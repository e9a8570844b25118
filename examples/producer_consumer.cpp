// One producer, three consumers, a queue of five places between them.
//
// The producer waits when the queue is full, a consumer when it is empty; nobody polls. join waits until what was put has
// been done (not only taken), and shutdown ends the consumers' loops.
//
// Prints expected/producer_consumer.txt.

#include <chrono>
#include <cstdio>
#include <vector>

#include <ringlet/ringlet.hpp>

using namespace std::chrono_literals;

int main() {
  ringlet::queue<int> jobs(5);
  int sum = 0, most = 0;
  std::vector<int> done_by(3);

  std::vector<ringlet::any_fiber> all;
  for (std::size_t me = 0; me < done_by.size(); ++me)
    all.push_back(ringlet::spawn([&, me] {
      for (int job : jobs) {
        ringlet::sleep(1ms);  // the work
        sum += job;
        ++done_by[me];
        jobs.task_done();
      }
    }));
  all.push_back(ringlet::spawn([&] {
    for (int job = 1; job <= 30; ++job) {
      jobs.put(job);
      if (most < int(jobs.size())) most = int(jobs.size());
    }
    std::puts("producer: all are in the queue");
    jobs.join();
    std::printf("producer: all are done, their sum is %d\n", sum);
    jobs.shutdown();
  }));
  ringlet::joinall(all);
  std::printf("never more than %d in the queue; each consumer did some: %s\n", most,
              done_by[0] && done_by[1] && done_by[2] ? "yes" : "no");
}
