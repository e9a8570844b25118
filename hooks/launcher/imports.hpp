#pragma once
// Which blocking calls of libc a program and its libraries import: those that are hooked, and those known to block that
// are not.

#include <map>
#include <string>
#include <vector>

namespace ringlet::launcher {

struct blocking_imports {
  std::vector<std::string> files;  // the program, then the libraries that the loader would load (libc's own left out)
  std::vector<std::string> libc;   // libc's own, which count as no importers
  std::map<std::string, std::string> hooked;      // name -> the first file that imports it
  std::map<std::string, std::string> not_hooked;
};

// Asks this system's own loader (`--list`) for the libraries; a program's own interpreter is not executed.
blocking_imports blocking_imports_of(const std::string& program);

}  // namespace ringlet::launcher
