#pragma once
// What process.cpp and spawn.cpp share of a child's life: who it is, and how the end of its function becomes a status.

#include <functional>

#include <ringlet/process.hpp>

namespace ringlet::process_detail {
void set_self(const process_info&);
// What f returns; else the status that its exception means, after a report if it means one.
int status_of(const std::function<int()>& f) noexcept;
}  // namespace ringlet::process_detail
