#pragma once
// A shortage: from the nth request on there is nothing to be had, once or for as long as it lasts. What may be short is
// memory (operator new), address space (mmap) and threads (pthread_create), of this process, whoever asks.
//
//   sweep("recv", [](auto act) {
//     prepare();                                       // nothing is short here
//     const bool done = act([&] { return io::recv(…) == 1; });
//     verify(done);                                    // nor here
//   });
//
// sweep runs its function with the first request refused, with the second, and so on, until one run meets no refusal;
// and all that again with every request refused from there on. So every request of the path is refused once.

#include <functional>
#include <string>

namespace faults {

enum class resource { memory, address_space, threads };

// The nth request from now fails, and `count` in all.
void make_short(resource, unsigned long nth, unsigned long count);
// Plenty again; how many have been refused.
unsigned long end_shortage();

// What is acted under the shortage: true if it was done, false if it was refused (std::bad_alloc and EAGAIN count).
using act_function = std::function<bool(const std::function<bool()>&)>;
// Checks after each run that this thread's hub, the process's descriptors and what is spawned are as before.
void sweep(const char* what, const std::function<void(const act_function&)>& run, resource = resource::memory);

// How many descriptors the process has.
std::size_t open_descriptors();

}  // namespace faults
