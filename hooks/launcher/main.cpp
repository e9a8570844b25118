// ringlet: starts programs under the hooks, and tells what this system offers them.
//
//   ringlet run [options] [--] PROGRAM [ARGUMENT]...
//   ringlet info [PROGRAM]
//   ringlet calls
//
// The launcher is optional: all defaults live in the library, and `LD_PRELOAD=…/libringlet-preload.so PROGRAM` does the
// same. What it adds is that it looks before it leaps (target.hpp). It executes the program in its own place, so that
// process id, exit status, signals and streams are the program's.

#include <algorithm>
#include <cstdio>
#include <exception>
#include <numeric>
#include <utility>

#include "target.hpp"
#include "verbs.hpp"

namespace ringlet::launcher {

int error(const std::string& text) {
  // The core's own messages begin with the name already.
  std::fprintf(stderr, "%s%s\n", text.starts_with("ringlet: ") ? "" : "ringlet: ", text.c_str());
  return status_own_error;
}

std::string nearest(std::string_view word, const std::vector<std::string>& known) {
  // Levenshtein's distance, a row at a time.
  auto distance = [](std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), 0);
    for (std::size_t i = 1; i <= a.size(); ++i) {
      std::size_t diagonal = std::exchange(row[0], i);
      for (std::size_t j = 1; j <= b.size(); ++j)
        diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])}));
    }
    return row[b.size()];
  };
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, word.size() / 3) + 1;
  for (const auto& k : known)
    if (const auto d = distance(word, k); d < best_distance) best = k, best_distance = d;
  return best;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& known) {
  const auto near = nearest(word, known);
  return near.empty() ? "" : " (did you mean '" + near + "'?)";
}

namespace {

const char usage[] =
    "usage: ringlet run [options] [--] PROGRAM [ARGUMENT]...   starts a program with its blocking calls hooked\n"
    "       ringlet info [PROGRAM]                             what this system, or a program, offers the hooks\n"
    "       ringlet calls                                      the hooked calls of libc\n"
    "       ringlet VERB --help                                more about a verb\n"
    "       ringlet --version\n";

int main_of(std::span<char* const> arguments) {
  if (arguments.empty()) {
    std::fputs(usage, stderr);
    return status_own_error;
  }
  const std::string_view verb = arguments[0];
  if (verb == "--help" || verb == "-h" || verb == "help") return std::fputs(usage, stdout), 0;
  if (verb == "--version") return std::printf("ringlet %s\n", RINGLET_VERSION), 0;
  const auto rest = arguments.subspan(1);
  if (verb == "run") return verb_run(rest);
  if (verb == "info") return verb_info(rest);
  if (verb == "calls") return verb_calls(rest);
  const std::string what = verb.starts_with('-') ? "no option '" : "no verb '";
  return error("there is " + what + std::string(verb) + "'" + did_you_mean(verb, {"run", "info", "calls", "--help", "--version"}) +
               "; `ringlet --help` lists what there is");
}

}  // namespace
}  // namespace ringlet::launcher

int main(int argc, char** argv) {
  try {
    const int status = ringlet::launcher::main_of({argv + 1, std::size_t(argc > 0 ? argc - 1 : 0)});
    // A full disk or a closed pipe is an error of ours, too.
    return std::fflush(stdout) == 0 || status != 0 ? status : ringlet::launcher::error("cannot write to the standard output");
  } catch (const std::exception& e) {
    return ringlet::launcher::error(e.what());
  }
}
