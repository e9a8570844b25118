// A pipeline of three stages over queues between processes, as a server of a model is built: requests are received, preprocessed
// by two processes, collected into batches of up to 128 items or of what came within a second, and inferred by six; the
// answers come back to who asked.
//
// The batcher is the interesting one: it waits for the first item as long as it takes, and for the others of the batch until its
// second is over. Prints expected/pipeline.txt.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include <ringlet/ipc/queue.hpp>
#include <ringlet/process.hpp>
#include <ringlet/ringlet.hpp>

using namespace std::chrono_literals;

namespace {

struct request {
  int id = 0;
  std::string text;
  MSGPACK_DEFINE(id, text)
};
struct features {
  int id = 0;
  std::vector<double> values;
  MSGPACK_DEFINE(id, values)
};
struct answer {
  int id = 0;
  int label = 0;
  std::size_t batch_size = 0;
  MSGPACK_DEFINE(id, label, batch_size)
};
using batch = std::vector<features>;

constexpr std::size_t most_in_batch = 128;
constexpr auto longest_wait = 1s;

features preprocess(const request& r) {
  features f{r.id, {}};
  for (char c : r.text) f.values.push_back(double(c) / 128);
  return f;
}

// False: nothing will come any more.
bool collect(ringlet::ipc::queue<features>& from, batch& into) {
  try {
    into.push_back(*from.get());
    const ringlet::deadline end(longest_wait);
    while (into.size() < most_in_batch) {
      auto next = from.get(end);
      if (!next) break;  // the second is over
      into.push_back(std::move(*next));
    }
  } catch (const ringlet::shut_down&) {
    return !into.empty();
  }
  return true;
}

int infer(const features& f) {
  double sum = 0;
  for (double v : f.values) sum += std::sin(v * 10);
  return sum > 0;
}

std::string text_of(int id) { return "request number " + std::to_string(id * 7919); }

}  // namespace

int main() {
  constexpr int requests = 1000;
  ringlet::ipc::queue<request> received;
  ringlet::ipc::queue<features> prepared;
  ringlet::ipc::queue<batch> batches(12);
  ringlet::ipc::queue<answer> answers;

  std::vector<ringlet::process> stage1, stage3;
  const auto start = [](std::vector<ringlet::process>& stage, int count, auto work) {
    for (int i = 0; i < count; ++i) {
      stage.emplace_back(work);
      stage.back().start();
    }
  };
  start(stage1, 2, [&] {
    for (const request& r : received) prepared.put(preprocess(r));
  });
  ringlet::process batcher([&] {
    for (batch b; collect(prepared, b); b.clear()) batches.put(b);
  });
  batcher.start();
  start(stage3, 6, [&] {
    for (const batch& b : batches)
      for (const features& f : b) answers.put({f.id, infer(f), b.size()});
  });

  auto receiver = ringlet::spawn([&] {
    for (int id = 0; id < requests; ++id) received.put({id, text_of(id)});
    received.shutdown();
    for (auto& p : stage1) p.join();
    prepared.shutdown();  // each stage ends when the one before it has
    batcher.join();
    batches.shutdown();
    for (auto& p : stage3) p.join();
    answers.shutdown();
  });

  std::vector<int> labels(requests, -1);
  int right = 0, total = 0;
  std::size_t biggest = 0;
  for (const answer& a : answers) {
    labels[std::size_t(a.id)] = a.label;
    right += a.label == infer(preprocess({a.id, text_of(a.id)}));
    biggest = std::max(biggest, a.batch_size);
    ++total;
  }
  receiver.join();
  std::printf("%d requests, %d answers, %d of them right\n", requests, total, right);
  std::printf("every request was answered: %s\n", std::count(labels.begin(), labels.end(), -1) == 0 ? "yes" : "no");
  std::printf("no batch was bigger than 128: %s; there were real batches: %s\n", biggest <= most_in_batch ? "yes" : "no", biggest > 1 ? "yes" : "no");
}
