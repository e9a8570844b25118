#pragma once
// What single threads cost, in this process: its threads are the kernel's or fibers, as it was started.

#include <chrono>

namespace bench {

constexpr const char* const thread_costs_names[] = {"create and join",         "create 100, join 100",     "hand-off by a condition",
                                                    "hand-off by a semaphore", "foreign call, one thread", "foreign call, threads"};
constexpr int thread_costs_count = 6;
enum thread_cost { foreign_call_alone = 4, foreign_call_with_threads = 5 };

// Prints a line for each, in nanoseconds: the best of the rounds that fit into a quarter of the time.
void tell_thread_costs(std::chrono::milliseconds measured);

}  // namespace bench
