#pragma once
// What the system knows of a file, in our words; shared by open files and names.

#include <string>

#include <sys/types.h>

#include <ringlet/file.hpp>

namespace ringlet::detail {
file_type type_of(mode_t mode) noexcept;
file_info ask_info(int directory, const std::string& path, int flags, deadline until, const std::string& shown);
}  // namespace ringlet::detail
