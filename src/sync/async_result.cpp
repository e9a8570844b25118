#include <ringlet/async_result.hpp>

#include <stdexcept>

namespace ringlet::detail {

bool result_core::try_set_exception(std::exception_ptr error) {
  if (!error) throw std::invalid_argument("ringlet: async_result: set_exception with a null exception_ptr");
  if (!claim()) return false;
  error_ = std::move(error);
  announce();
  return true;
}

void result_core::require_value(deadline until) const {
  if (!set_.wait(until)) throw not_ready("ringlet: an async_result was not set when get's deadline passed");
  if (error_) std::rethrow_exception(error_);
}

void result_core::throw_unfinished() {
  throw std::logic_error("ringlet: an async_result is set from a fiber that has not finished (or from an empty handle). Cure: follow(fiber).");
}

void result_core::throw_already_set() {
  throw std::logic_error("ringlet: an async_result is set a second time (try_set says false instead)");
}

}  // namespace ringlet::detail
