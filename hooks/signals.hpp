#pragma once
// See signals.cpp.

namespace ringlet::hooks {

// Wraps the handlers that the program has installed so far; gives it back its own. By enable and disable.
void wrap_handlers() noexcept;
void unwrap_handlers() noexcept;

}  // namespace ringlet::hooks
