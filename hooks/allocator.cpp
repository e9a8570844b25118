// Finds the code of an allocator that stands in a library of its own (jemalloc, tcmalloc, …): see rows.hpp.

#include "rows.hpp"

#include <algorithm>
#include <cstdint>
#include <dlfcn.h>
#include <link.h>
#include <utility>

namespace ringlet::hooks {

address_range allocator_code{nullptr, nullptr};

namespace {

struct search {
  std::uintptr_t allocator, libc;
  bool at_program = true;  // the first that is listed
};

int look_at(dl_phdr_info* info, size_t, void* data) {
  auto& s = *static_cast<search*>(data);
  std::uintptr_t begin = ~std::uintptr_t(0), end = 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    begin = std::min(begin, std::uintptr_t(info->dlpi_addr + segment.p_vaddr));
    end = std::max(end, std::uintptr_t(info->dlpi_addr + segment.p_vaddr + segment.p_memsz));
  }
  const bool program = std::exchange(s.at_program, false);
  if (s.allocator < begin || s.allocator >= end) return 0;
  if (!program && (s.libc < begin || s.libc >= end))
    allocator_code = {reinterpret_cast<const char*>(begin), reinterpret_cast<const char*>(end)};
  return 1;
}

[[gnu::constructor]] void find_allocator() {
  search s{reinterpret_cast<std::uintptr_t>(::dlsym(RTLD_DEFAULT, "malloc")),
           reinterpret_cast<std::uintptr_t>(::dlsym(RTLD_DEFAULT, "gnu_get_libc_version"))};
  ::dl_iterate_phdr(&look_at, &s);
}

}  // namespace
}  // namespace ringlet::hooks
