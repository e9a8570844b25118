// A server of lines: it answers each with its capitals; at most three clients at once, the others wait their turn.
//
// Ten clients, fibers of the same program, ask twice each. Then the server stops: one client is still connected, and has the grace
// to say its last line. Prints expected/line_server.txt.

#include <cctype>
#include <cstdio>
#include <string>

#include <ringlet/ringlet.hpp>
#include <ringlet/server.hpp>

using namespace std::chrono_literals;

int main() {
  int at_once = 0, most = 0, lines = 0;
  ringlet::stream_server server(
      ringlet::listener("127.0.0.1:0"),
      [&](ringlet::connection& client) {
        most = std::max(most, ++at_once);
        while (auto line = client.read_line(30s)) {
          for (char& c : *line) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
          client.write(*line + "\n");
          ++lines;
        }
        --at_once;
      },
      {.most_connections = 3});
  server.start();

  ringlet::group clients;
  int right = 0;
  for (int i = 0; i < 10; ++i)
    clients.spawn([&, i] {
      auto c = ringlet::connect_to(server.address());
      for (const char* word : {"first ", "second "}) {
        c.write(word + std::to_string(i) + "\n");
        const auto answer = c.read_line(30s);
        right += answer == (word[0] == 'f' ? "FIRST " : "SECOND ") + std::to_string(i);
      }
    });
  clients.join();
  std::printf("%d lines answered, %d right, at most %d clients at once\n", lines, right, most);

  auto last = ringlet::connect_to(server.address());
  last.write("am i late?\n");
  std::printf("before the stop: %s\n", last.read_line()->c_str());
  auto stopping = ringlet::spawn([&] { return server.stop(10s); });
  ringlet::yield();
  std::printf("accepting: %s\n", server.accepting() ? "yes" : "no");
  last.write("my last words\n");
  std::printf("during the stop: %s\n", last.read_line()->c_str());
  last.close();
  std::printf("all had ended by themselves: %s\n", stopping.get() ? "yes" : "no");
}
