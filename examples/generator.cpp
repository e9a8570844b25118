// A producer and a consumer, each written as if it called the other.
//
// Values travel with the switch, both ways: the producer's switch to its parent carries a number and returns what the
// consumer thinks of it. No queue, no callback, no state machine: the producer's place in its loop is its own stack. The
// consumer sees the end as an empty optional, since a function that returned sent nothing.
//
// Prints expected/generator.txt.

#include <cstdio>
#include <optional>
#include <string>

#include <ringlet/greenlet.hpp>

namespace {

// Fibonacci numbers until the consumer has had enough.
void produce(std::string answer) {
  const auto consumer = ringlet::greenlet::current().parent();
  long a = 0, b = 1;
  while (answer != "enough") {
    answer = consumer.switch_to<std::string>(a);
    std::printf("  producer: the consumer says '%s' to %ld\n", answer.c_str(), a);
    const long next = a + b;
    a = b;
    b = next;
  }
}

}  // namespace

int main() {
  const ringlet::greenlet producer(produce);
  std::string answer = "begin";
  while (const auto number = producer.switch_to<std::optional<long>>(answer)) {
    std::printf("consumer: got %ld\n", *number);
    answer = *number < 5 ? "more" : "enough";
  }
  std::printf("consumer: the producer is %s\n", producer.dead() ? "dead" : "alive");
}
