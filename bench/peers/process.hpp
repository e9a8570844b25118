#pragma once
// A peer as a process: begun on a core of its own with a listener or with pipes, asked for its costs, ended by its id.

#include <sched.h>
#include <sys/types.h>
#include <time.h>

#include <string>
#include <vector>

namespace bench {

// The cores of this process: peers get the first, whoever drives them the last. The same one, if there is only one.
struct cores {
  cores();
  int peers = 0, driver = 0;
};
// The calling thread, and whom it makes from here on, run on this core only.
void pin_to(int core);

class process {
 public:
  // listener: becomes its descriptor 3. pipes: its standard input and output.
  process(std::vector<std::string> command, const std::vector<std::string>& environment, int core, int listener,
          bool pipes);
  ~process();  // ends it
  process(const process&) = delete;

  double cpu_ns() const;
  // Resident bytes; bytes of its page tables and of its threads' stacks in the kernel.
  double resident() const, in_kernel() const;
  // One line there, one line back; empty if it has ended, or says nothing for a minute.
  std::string ask(const std::string& line);

 private:
  pid_t id_ = -1;
  clockid_t clock_{};
  int to_ = -1, from_ = -1;
};

}  // namespace bench
