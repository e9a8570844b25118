#pragma once
// From io's dialect (-errno) to what the public calls of this layer throw.

#include <stdexcept>
#include <system_error>

#include "base/sys.hpp"
#include "hub/hub.hpp"

namespace ringlet::process_detail {

[[noreturn]] inline void fail(long error, const std::string& what) { throw std::system_error(int(-error), std::generic_category(), "ringlet: " + what); }

// The end of a wait: true to go on, false when late; throws the interruption, or the error.
inline bool waited(int result, const char* what) {
  switch (result) {
    case -ETIMEDOUT: return false;
    case -EINTR: return true;
    case -ECANCELED: {
      detail::hub_state& h = detail::hub_state::here();
      if (h.interrupted()) h.throw_interrupt();
      return true;
    }
    case -EDEADLK: detail::require_can_park(what); return true;
    default:
      if (result < 0) fail(result, what);
      return true;
  }
}

}  // namespace ringlet::process_detail
