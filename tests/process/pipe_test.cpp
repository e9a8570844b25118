// pipes: whole messages between processes, whatever happens to who sends and who receives.

#include <numeric>
#include <thread>

#include <ringlet/ipc/message.hpp>

#include "on_processes.hpp"

using namespace process_test;

namespace {
// Never the same twice, and its size can be told from its content.
std::string message_of(std::size_t size, unsigned seed = 1) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = char((i * 31 + seed * 17 + size) % 251);
  return text;
}
}  // namespace

PROCESS_CASE("pipe: messages of all sizes arrive whole and in order") {
  const std::vector<std::size_t> sizes{0, 1, 7, 4096, 4097, 65535, 65536, 65537, 1 << 20, (8 << 20) + 3};
  auto [reader, writer] = ipc::byte_pipe();
  process p([&sizes](ipc::byte_end out) {
    for (std::size_t size : sizes) out.send_bytes(message_of(size));
  }, std::move(writer));
  p.start();
  for (std::size_t size : sizes) {
    const auto got = reader.receive_bytes(20s);
    REQUIRE(got);
    CHECK(got->size() == size);
    CHECK(*got == message_of(size));
  }
  CHECK_THROWS_AS(reader.receive_bytes(20s), ipc::end_of_pipe);
  CHECK(p.join(20s));
}

PROCESS_CASE("pipe: duplex, both ways at once") {
  auto [ours, theirs] = ipc::byte_duplex();
  process p([](ipc::byte_end end) {
    for (int i = 0; i < 100; ++i) end.send_bytes(*end.receive_bytes() + "!");
  }, std::move(theirs));
  p.start();
  CHECK_FALSE(theirs.is_open());
  auto asks = spawn([&, &end = ours] {
    for (int i = 0; i < 100; ++i) end.send_bytes(std::to_string(i));
  });
  for (int i = 0; i < 100; ++i) CHECK(ours.receive_bytes(20s) == std::to_string(i) + "!");
  asks.join();
  CHECK(p.join(20s));
}

PROCESS_CASE("pipe: the wrong direction is an error") {
  auto [reader, writer] = ipc::byte_pipe();
  CHECK_THROWS_AS(reader.send_bytes("x"), std::logic_error);
  CHECK_THROWS_AS(writer.receive_bytes(), std::logic_error);
  CHECK(reader.can_receive());
  CHECK_FALSE(reader.can_send());
  writer.close();
  CHECK_THROWS_AS(writer.send_bytes("x"), std::logic_error);
}

PROCESS_CASE("pipe: many writers, processes and fibers, never mix their messages") {
  constexpr unsigned writers = 4, fibers = 3, messages = 20;
  auto [reader, writer] = ipc::byte_pipe();
  std::vector<process> all;
  for (unsigned w = 0; w < writers; ++w) {
    all.emplace_back([w](ipc::byte_end out) {
      std::vector<any_fiber> senders;
      for (unsigned f = 0; f < fibers; ++f)
        senders.push_back(spawn([w, f, &out] {
          for (unsigned m = 0; m < messages; ++m)
            out.send_bytes(std::string(1, char(w * fibers + f)) + message_of((m % 4) * 40000 + m, w * fibers + f));
        }));
      joinall(senders, {.raise_error = true});
    }, writer.duplicate());
    all.back().start();
  }
  writer.close();
  std::vector<unsigned> next(writers * fibers);
  unsigned count = 0;
  try {
    while (const auto got = reader.receive_bytes(30s)) {
      const auto who = unsigned((*got)[0]);
      REQUIRE(who < next.size());
      const unsigned m = next[who]++;
      CHECK(got->substr(1) == message_of((m % 4) * 40000 + m, who));
      ++count;
    }
  } catch (const ipc::end_of_pipe&) {
  }
  CHECK(count == writers * fibers * messages);
  for (auto& p : all) CHECK(p.join(20s));
}

PROCESS_CASE("pipe: many readers get each message once") {
  auto [reader, writer] = ipc::byte_pipe();
  auto [answers, tell] = ipc::byte_pipe();
  std::vector<process> all;
  for (int r = 0; r < 3; ++r) {
    all.emplace_back([](ipc::byte_end in, ipc::byte_end out) {
      try {
        while (true) out.send_bytes(*in.receive_bytes());
      } catch (const ipc::end_of_pipe&) {
      }
    }, reader.duplicate(), tell.duplicate());
    all.back().start();
  }
  reader.close();
  tell.close();
  auto feeds = spawn([&out = writer] {
    for (int i = 0; i < 500; ++i) out.send_bytes(std::to_string(i));
    out.close();
  });
  std::vector<int> seen(500);
  try {
    while (const auto got = answers.receive_bytes(20s)) ++seen[std::size_t(std::stoi(*got))];
  } catch (const ipc::end_of_pipe&) {
  }
  CHECK(std::count(seen.begin(), seen.end(), 1) == 500);
  feeds.join();
  for (auto& p : all) CHECK(p.join(20s));
}

PROCESS_CASE("pipe: a deadline that passes takes nothing and leaves nothing half done") {
  auto [reader, writer] = ipc::byte_pipe();
  CHECK_FALSE(reader.receive_bytes(5ms));
  CHECK_FALSE(reader.wait_readable(deadline::passed()));
  int sent = 0;
  while (writer.send_bytes(message_of(50000, unsigned(sent)), deadline::passed())) ++sent;
  CHECK(sent > 0);
  CHECK_FALSE(writer.send_bytes(message_of(1 << 20), 5ms));
  CHECK(reader.wait_readable(1s));
  for (int i = 0; i < sent; ++i) CHECK(reader.receive_bytes(1s) == message_of(50000, unsigned(i)));
  CHECK_FALSE(reader.receive_bytes(deadline::passed()));
}

PROCESS_CASE("pipe: closed while another fiber waits in it, that one gets an error") {
  auto ends = ipc::byte_pipe();
  bool failed = false;
  auto f = spawn([&] {
    try {
      ends.reader.receive_bytes();
    } catch (const std::system_error& e) {
      failed = e.code().value() == EBADF;
    }
  });
  yield();
  ends.reader.close();
  f.join();
  CHECK(failed);
}

PROCESS_CASE("pipe: a timeout scope and a kill end a wait") {
  auto [reader, writer] = ipc::byte_pipe();
  CHECK_FALSE(with_timeout(5ms, [&in = reader] { in.receive_bytes(); }));
  bool killed = false;
  auto f = spawn([&killed, &in = reader] {
    try {
      in.receive_bytes();
    } catch (const greenlet_exit&) {
      killed = true;
      throw;
    }
  });
  yield();
  f.kill();
  CHECK(killed);
  writer.send_bytes("still there");
  CHECK(reader.receive_bytes() == "still there");
}

PROCESS_CASE("pipe: a writer killed with -9 amid big messages ends the pipe; all that came is whole") {
  for (int round = 0; round < 5; ++round) {
    auto [reader, writer] = ipc::byte_pipe();
    process p([](ipc::byte_end out) {
      for (unsigned i = 0;; ++i) out.send_bytes(message_of(300000, i));
    }, std::move(writer));
    p.start();
    unsigned count = 0;
    CHECK_THROWS_AS(
        [&] {
          while (true) {
            const auto got = reader.receive_bytes(20s);
            if (!got) break;
            CHECK(*got == message_of(300000, count));
            if (++count == 3) p.kill();
          }
        }(),
        ipc::end_of_pipe);
    CHECK(count >= 3);
    CHECK(p.join(20s));
  }
}

PROCESS_CASE("pipe: a reader that ends is an error for the writer, and no SIGPIPE") {
  auto [reader, writer] = ipc::byte_pipe();
  process p([](ipc::byte_end in) { in.receive_bytes(); }, std::move(reader));
  p.start();
  CHECK_THROWS_AS(
      [&] {
        for (int i = 0; i < 1000000 && writer.send_bytes(message_of(1000), 20s); ++i) {
        }
      }(),
      ipc::end_of_pipe);
  CHECK(p.join(20s));
}

PROCESS_CASE("pipe: a peer that ends without reading: what it sent still arrives, then the end") {
  auto [ours, theirs] = ipc::byte_duplex();
  ours.send_bytes("never read");
  process p([](ipc::byte_end end) { end.send_bytes("goodbye"); }, std::move(theirs));
  p.start();
  CHECK(p.join(20s));
  CHECK(ours.receive_bytes(1s) == "goodbye");
  CHECK_THROWS_AS(ours.receive_bytes(1s), ipc::end_of_pipe);
  CHECK_THROWS_AS(ours.send_bytes("x"), ipc::end_of_pipe);
}

PROCESS_CASE("pipe: a sibling keeps no copy of another's end") {
  auto [reader, writer] = ipc::byte_pipe();
  auto [hold, release] = ipc::byte_pipe();
  process sibling([](ipc::byte_end in) {
    try {
      in.receive_bytes();
    } catch (const ipc::end_of_pipe&) {
    }
  }, std::move(hold));
  sibling.start();  // forked while we have the writing end
  writer.close();
  CHECK_THROWS_AS(reader.receive_bytes(20s), ipc::end_of_pipe);
  release.close();
  CHECK(sibling.join(20s));
}

PROCESS_CASE("pipe: an end that was not handed over says so") {
  auto ends = ipc::byte_pipe();
  process p([&ends] {
    try {
      ends.writer.send_bytes("x");
      return 1;
    } catch (const std::logic_error& e) {
      return contains(e.what(), "handed over") ? 0 : 2;
    }
  });
  p.start();
  CHECK(p.join(20s));
  CHECK(p.exit_code() == 0);
}

PROCESS_CASE("pipe: ends go with whatever owns them: a lambda, a vector, a derived process") {
  auto a = ipc::byte_pipe(), b = ipc::byte_pipe(), c = ipc::byte_pipe();
  process by_lambda([end = std::move(a.writer)]() mutable { end.send_bytes("a"); });
  std::vector<ipc::byte_end> ends;
  ends.push_back(std::move(b.writer));
  process by_vector([](std::vector<ipc::byte_end> all) { all[0].send_bytes("b"); }, std::move(ends));
  struct derived : process {
    ipc::byte_end end;
    explicit derived(ipc::byte_end e) : end(std::move(e)) { hand_over(end); }
    int run() override {
      end.send_bytes("c");
      return 0;
    }
  } by_member(std::move(c.writer));
  by_lambda.start();
  by_vector.start();
  by_member.start();
  CHECK(a.reader.receive_bytes(20s) == "a");
  CHECK(b.reader.receive_bytes(20s) == "b");
  CHECK(c.reader.receive_bytes(20s) == "c");
  CHECK_THROWS_AS(a.reader.receive_bytes(20s), ipc::end_of_pipe);
  CHECK_THROWS_AS(b.reader.receive_bytes(20s), ipc::end_of_pipe);
  CHECK_THROWS_AS(c.reader.receive_bytes(20s), ipc::end_of_pipe);
}

PROCESS_CASE("pipe: ten pipes at once in a ring of processes") {
  constexpr int n = 10;
  std::vector<process> ring;
  auto first = ipc::pipe();
  auto next = std::move(first.reader);
  for (int i = 0; i < n; ++i) {
    auto link = ipc::pipe();
    ring.emplace_back([](ipc::end in, ipc::end out) { out.send(*in.receive<int>() + 1); }, std::move(next), std::move(link.writer));
    ring.back().start();
    next = std::move(link.reader);
  }
  first.writer.send(0);
  CHECK(next.receive<int>(20s) == n);
  for (auto& p : ring) CHECK(p.join(20s));
}

namespace {
struct job {
  int id = 0;
  std::string url;
  std::vector<double> weights;
  MSGPACK_DEFINE(id, url, weights)
};
}  // namespace

PROCESS_CASE("message: numbers, strings, containers and types of one's own come as they went") {
  auto [ours, theirs] = ipc::duplex();
  process p([](ipc::end end) {
    const auto j = *end.receive<job>();
    end.send(j.id + 1);
    end.send(j.url);
    end.send(std::map<std::string, std::vector<double>>{{"w", j.weights}});
    end.send(std::tuple<int, std::string, bool>(1, "two", true));
    end.send(std::optional<int>());
  }, std::move(theirs));
  p.start();
  ours.send(job{41, "http://localhost/", {0.5, -1e300}});
  CHECK(ours.receive<int>(20s) == 42);
  CHECK(ours.receive<std::string>(20s) == "http://localhost/");
  const auto map = ours.receive<std::map<std::string, std::vector<double>>>(20s);
  REQUIRE(map);
  CHECK(map->at("w") == std::vector<double>{0.5, -1e300});
  CHECK(ours.receive<std::tuple<int, std::string, bool>>(20s) == std::tuple<int, std::string, bool>(1, "two", true));
  const auto none = ours.receive<std::optional<int>>(20s);
  REQUIRE(none);
  CHECK_FALSE(*none);
  CHECK(p.join(20s));
}

PROCESS_CASE("message: of another type than asked for is an error, and the next one is not hurt") {
  auto [reader, writer] = ipc::pipe();
  writer.send(std::string("text"));
  writer.send_bytes("\xc1");
  writer.send(5);
  CHECK_THROWS_AS(reader.receive<int>(), ipc::bad_message);
  CHECK_THROWS_AS(reader.receive<int>(), ipc::bad_message);
  CHECK(reader.receive<int>() == 5);
}
