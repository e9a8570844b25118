// A pipe between two processes, both ways: a child that is asked, and answers until nobody asks any more.
//
// The child's end is moved into the process, so it is open there and nowhere else: when one side ends, the other hears it, as
// the end of the pipe, and does not wait for ever. Prints expected/process_pipe.txt.

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include <ringlet/ipc/message.hpp>
#include <ringlet/process.hpp>

namespace {

struct order {
  std::string what;
  std::vector<int> numbers;
  MSGPACK_DEFINE(what, numbers)
};

void calculator(ringlet::ipc::end end) {
  try {
    while (true) {
      const order o = *end.receive<order>();
      long result = o.what == "product" ? 1 : 0;
      for (int n : o.numbers) result = o.what == "product" ? result * n : result + n;
      end.send(result);
    }
  } catch (const ringlet::ipc::end_of_pipe&) {
    std::puts("child: nobody asks any more");
  }
}

}  // namespace

int main() {
  auto ends = ringlet::ipc::duplex();
  ringlet::process child(calculator, std::move(ends.second));
  child.start();
  auto& to_child = ends.first;
  for (const order& o : {order{"sum", {1, 2, 3}}, order{"product", {4, 5, 6}}}) {
    to_child.send(o);
    std::printf("parent: the %s is %ld\n", o.what.c_str(), *to_child.receive<long>());
  }
  std::fflush(stdout);
  to_child.close();
  child.join();

  auto [reader, writer] = ringlet::ipc::pipe();  // one way
  ringlet::process brief([](ringlet::ipc::end out) {
    out.send(std::map<std::string, int>{{"a", 1}, {"b", 2}});
    out.send(std::string(1000000, 'x'));
  }, std::move(writer));
  brief.start();
  const auto map = *reader.receive<std::map<std::string, int>>();
  std::printf("parent: a map of %zu, a is %d\n", map.size(), map.at("a"));
  std::printf("parent: a text of %zu\n", reader.receive<std::string>()->size());
  try {
    reader.receive<std::string>();
  } catch (const ringlet::ipc::end_of_pipe&) {
    std::puts("parent: the child has ended");
  }
}
