#pragma once
// The ends of pipes that this process has: the list by which a child closes those that are not its own.
//
// A pipe tells its reader that no writer is left when the last copy of the writing end is closed; a forked child that keeps
// copies of all of its parent's ends makes that a lie, and its readers wait for ever. So a process that ringlet starts
// keeps those ends only that were handed over to it. Which these are, the parent finds out by destroying its copy of what
// the child runs: an end that goes with it was the child's. Their numbers are told to the child over its start channel, and
// the child closes the rest. The same list keeps the lifelines of daemons (process.cpp) out of their siblings.
//
// Any thread. Always true: an end is in the list from its making to its closing; the list's lock is free in a child of a fork
// (pthread_atfork). A child of a plain fork(2) keeps everything, as it does of any fd.

#include <cstdint>
#include <vector>

#include "base/intrusive_list.hpp"

namespace ringlet::process_detail {

struct handle : base::list_link {
  int fd = -1;
  std::uint64_t number = 0;   // of its making; the same in a child
  bool left_behind = false;   // closed here because it was not handed over to this process
};

void add(handle&, int fd);
// Takes it out of the list and closes it; nothing if it is closed.
void close(handle&) noexcept;

// While it lives, the numbers of the handles that this thread closes are written down.
class handed_over {
 public:
  handed_over() noexcept;
  ~handed_over();
  handed_over(const handed_over&) = delete;
  const std::vector<std::uint64_t>& numbers() const noexcept { return numbers_; }

 private:
  friend void close(handle&) noexcept;
  std::vector<std::uint64_t> numbers_;
  handed_over* outer_;
};

// In a child: closes all but these.
void keep_only(const std::vector<std::uint64_t>& numbers);

}  // namespace ringlet::process_detail
