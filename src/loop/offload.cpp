#include "loop/offload.hpp"

#include <exception>

#include "loop/early_end.hpp"
#include "loop/refusal.hpp"

namespace ringlet::loop {
namespace {

constexpr unsigned default_thread_limit = 64;

// Never destroyed: helpers may outlive static destruction.
constinit union storage {
  constexpr storage() : it(default_thread_limit, crew::works_for::runtime, std::chrono::seconds(5)) {}
  constexpr ~storage() {}
  crew it;
} the_crew;

unsigned thread_limit() {
  static const unsigned limit =
      number_from_environment("RINGLET_OFFLOAD_THREADS", 1, 4096).value_or(default_thread_limit);
  return limit;
}

bool limit_is_set() noexcept {
  try {
    if (const unsigned limit = thread_limit(); limit != default_thread_limit) the_crew.it.set_limit(limit);
  } catch (const std::exception&) {  // make_engine has told, or will: check_offload_settings
  }
  return true;
}

}  // namespace

int offload(job& j) noexcept {
  [[maybe_unused]] static const bool once = limit_is_set();
  return the_crew.it.submit(j);
}

bool take_back(job& j) noexcept { return the_crew.it.take_back(j); }

std::size_t offload_threads() noexcept { return the_crew.it.threads(); }

void offload_forget_after_fork() noexcept {
  forget_crews_after_fork();
  forget_early_ends_after_fork();
}

void check_offload_settings() { thread_limit(); }

}  // namespace ringlet::loop
