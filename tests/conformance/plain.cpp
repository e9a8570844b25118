// The conformance cases as a plain threaded program: says what each case saw. Under the launcher its threads are fibers, and
// what it says must be the same.
//
//   conformance_plain [--list] [--hooked] [--] [NAME...]
//
// --list: of each case its name, its rows, and why the symbol door and the system-call door differ, if they do.
// --hooked: a wait that lets no other thread run is complained of. Of each case: a line "CASE name", what it saw, "PACE" and
// how its calls waited, "COMPLAINT" and what it complains of, "END"; "LATE" if somebody was not run in time.

#include "conformance.hpp"

#include <cstdio>
#include <cstring>
#include <ctime>

namespace conformance {
bool is_instrumented() { return false; }
std::unique_ptr<flow> flow_beside(std::function<void()> run, bool) { return thread_beside(std::move(run)); }
void added(const registered&) {}
}  // namespace conformance

int main(int count, char** words) {
  bool list = false, hooked = false;
  std::vector<std::string_view> wanted;
  for (int i = 1; i < count; ++i) {
    const std::string_view word = words[i];
    if (word == "--list") list = true;
    else if (word == "--hooked") hooked = true;
    else if (word != "--") wanted.push_back(word);
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  std::atomic<bool> done{false};
  std::thread ticker;
  if (hooked)
    ticker = std::thread([&] {
      while (!done) {
        const timespec moment{0, 1000000};
        ::nanosleep(&moment, nullptr);
        ++conformance::ticks;
      }
    });
  int found = 0;
  for (const auto& each : conformance::cases()) {
    bool is_wanted = wanted.empty();
    for (auto name : wanted) is_wanted = is_wanted || name == each.name;
    if (!is_wanted) continue;
    ++found;
    if (list) {
      const auto known = conformance::known_difference_of(each.name);
      const auto reason = [](const char* why) { return why ? why : ""; };
      std::printf("%s\t%s\t%s\t%s\n", each.name.c_str(), each.rows.c_str(), reason(known.by_symbols), reason(known.by_system_calls));
      continue;
    }
    std::printf("CASE %s\n", each.name.c_str());
    conformance::result r;
    std::thread([&] { r = conformance::run_case(each.run, hooked); }).join();
    if (!r.not_here.empty()) std::printf("NOT HERE %s\n", r.not_here.c_str());
    std::printf("%sPACE\n%sCOMPLAINT\n%sEND\n", r.text.c_str(), r.pace.c_str(), r.complaint.c_str());
    if (r.late) std::puts("LATE");
  }
  done = true;
  if (ticker.joinable()) ticker.join();
  if (found == 0) std::fprintf(stderr, "conformance_plain: no case has that name\n");
  return found == 0;
}
