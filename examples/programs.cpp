// Other programs: run to their end, joined by pipes, talked to, and stopped in time.
//
// Everything that waits for a program parks a fiber only: the counting fiber runs all the while. Prints expected/programs.txt.

#include <cstdio>
#include <string>

#include <ringlet/ringlet.hpp>
#include <ringlet/subprocess.hpp>

using namespace std::chrono_literals;
using ringlet::redirect;
using ringlet::subprocess;

int main() {
  int turns = 0;
  auto counting = ringlet::spawn([&] {
    for (;; ++turns) ringlet::sleep(1ms);
  });

  // To its end, everything collected.
  auto sorted = ringlet::run({"sort", "-r"}, {.input = "pear\napple\nquince\n"});
  std::printf("sorted:\n%s", sorted.out.c_str());

  // printf | grep | wc, without a shell: each one's stdin is the pipe that the one before writes to.
  subprocess words({"printf", "one\\ntwo\\nthree\\nfour\\n"}, {.out = redirect::pipe()});
  subprocess with_o({"grep", "o"}, {.in = redirect::to(words.out()), .out = redirect::pipe()});
  words.out().close();  // theirs now
  subprocess count({"wc", "-l"}, {.in = redirect::to(with_o.out()), .out = redirect::pipe()});
  with_o.out().close();
  count.communicate();
  std::printf("words with an o: %d\n", std::stoi(count.output()));

  // A dialogue.
  subprocess calculator({"sh", "-c", "while read -r a b; do echo $((a * b)); done"}, {.in = redirect::pipe(), .out = redirect::pipe()});
  for (const char* question : {"6 7", "12 12"}) {
    calculator.in().write(std::string(question) + "\n");
    std::printf("%s -> %s\n", question, calculator.out().read_line()->c_str());
  }
  calculator.in().close();
  std::printf("the calculator %s\n", to_string(*calculator.wait()).c_str());

  // In time, or not at all; what it had said is kept.
  try {
    ringlet::run(ringlet::shell("echo working...; exec sleep 1000"), {.until = 500ms});
  } catch (const ringlet::run_error& e) {
    std::printf("too slow, %s; it said: %s", to_string(e.result().status).c_str(), e.result().out.c_str());
  }

  try {
    subprocess missing({"no-such-program"});
  } catch (const ringlet::start_error& e) {
    std::printf("not started: errno %d at %s\n", e.code().value(), e.step());
  }
  counting.kill();
  std::printf("others ran meanwhile: %s\n", turns > 10 ? "yes" : "no");
}
