// What is found in a library, and what would be done: on libc as it is loaded here, on its file, and on files that are
// no library.

#include <algorithm>
#include <cstdio>
#include <dlfcn.h>
#include <fstream>
#include <gnu/libc-version.h>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <sys/syscall.h>

#include "patch/patch.hpp"
#include "support/support.hpp"

namespace patch = ringlet::patch;

extern "C" long shape_number_before(long);

namespace {

const void* in_libc() { return reinterpret_cast<const void*>(&::gnu_get_libc_version); }

patch::number_set some(std::initializer_list<int> numbers) {
  patch::number_set set;
  for (const int n : numbers) set.add(n);
  return set;
}

bool has_number(const patch::plan& p, int number) {
  for (const auto& s : p.sites)
    if (s.number == number) return true;
  return false;
}

}  // namespace

TEST_CASE("plan: libc as loaded is understood whole, with all numbers wanted") {
  const auto p = patch::make_plan(in_libc(), patch::number_set::all());
  CHECK(p.refused == "");
  CHECK(p.loaded);
  CHECK(p.library.find("libc") != std::string::npos);
  CHECK(p.build_id.size() == 40);
  CHECK(p.sites.size() > 300);
  // The return from a signal is the kernel's own affair.
  CHECK(p.native_count() == 1);
  for (const auto& s : p.sites)
    if (!s.wanted) CHECK(s.number == SYS_rt_sigreturn);
}

TEST_CASE("plan: the calls of threads are found by number, each as often in the file as in memory") {
  const auto loaded = patch::make_plan(in_libc(), patch::number_set::all());
  const auto file = patch::make_plan_of_file(loaded.library, patch::number_set::all());
  REQUIRE(file.refused == "");
  CHECK(file.build_id == loaded.build_id);
  REQUIRE(file.sites.size() == loaded.sites.size());
  for (std::size_t i = 0; i < file.sites.size(); ++i) {
    const auto &a = file.sites[i], &b = loaded.sites[i];
    CAPTURE(a.address);
    CHECK(a.address == b.address);
    CHECK(a.number == b.number);
    CHECK(a.how == b.how);
    CHECK(a.window == b.window);
    CHECK(a.window_size == b.window_size);
  }
  // Not those at which a thread may be cancelled: since glibc 2.41 they all pass two sites whose number is variable.
  for (const int n : {SYS_clone, SYS_clone3, SYS_set_robust_list, SYS_tgkill, SYS_futex, SYS_mmap, SYS_rt_sigprocmask}) {
    CAPTURE(n);
    CHECK(has_number(loaded, n));
  }
}

TEST_CASE("plan: only wanted numbers and variable ones get a window, and no two windows overlap") {
  const auto p = patch::make_plan(in_libc(), some({SYS_clone3, SYS_read, SYS_write}));
  REQUIRE(p.refused == "");
  CHECK(p.native_count() > p.wanted_count());
  std::set<std::uint64_t> bytes;
  bool has_variable = false;
  for (const auto& s : p.sites) {
    CAPTURE(s.address);
    const bool is_wanted = s.number == patch::variable_number || s.number == SYS_clone3 || s.number == SYS_read || s.number == SYS_write;
    has_variable |= s.number == patch::variable_number;
    CHECK(s.wanted == is_wanted);
    CHECK((s.how != patch::shape::none) == is_wanted);
    if (s.how == patch::shape::none) continue;
    CHECK(s.window_size >= (s.how == patch::shape::padding ? 2 : 5));
    for (std::uint64_t b = s.window; b < s.window + s.window_size; ++b) CHECK(bytes.insert(b).second);
    if (s.how == patch::shape::padding)
      for (std::uint64_t b = s.padding; b < s.padding + 5; ++b) CHECK(bytes.insert(b).second);
  }
  CHECK(has_variable);  // syscall(2), if nothing else
}

TEST_CASE("plan: a file that is no library is refused in words") {
  support::temporary_directory directory;
  const auto path = directory.path() / "none.so";
  CHECK(patch::make_plan_of_file(path, patch::number_set::all()).refused != "");
  FILE* f = std::fopen(path.c_str(), "w");
  REQUIRE(f);
  std::fputs("This is a text, and it is long enough to have been the header of an ELF file.", f);
  std::fclose(f);
  CHECK(patch::make_plan_of_file(path, patch::number_set::all()).refused.find("ELF") != std::string::npos);
}

TEST_CASE("plan: a damaged library is planned or refused, whatever is damaged") {
  Dl_info info{};
  REQUIRE(::dladdr(reinterpret_cast<const void*>(&shape_number_before), &info) != 0);
  std::ifstream in(info.dli_fname, std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)), {});
  REQUIRE(whole.size() > 4096);
  support::temporary_directory directory;
  const std::string path = directory.path() / "damaged.so";
  std::mt19937 random(4711);
  int planned = 0, refused = 0;
  for (int i = 0; i < 400; ++i) {
    std::string bytes = whole;
    if (i % 8 == 0) bytes.resize(random() % bytes.size());
    // Headers and tables are what can mislead: half of the damage goes to the first kilobyte and to the unwind tables.
    for (int k = 0; k < 1 + int(random() % 8) && !bytes.empty(); ++k) {
      const std::size_t at = k % 2 ? random() % bytes.size() : k % 4 == 0 ? random() % std::min<std::size_t>(bytes.size(), 1024) : std::min(bytes.size() - 1, 0x2000 + random() % 2048);
      const std::uint64_t value = random() % 3 == 0 ? ~0ull : random() % 2 ? 0 : random();
      bytes.replace(at, std::min<std::size_t>(8, bytes.size() - at), reinterpret_cast<const char*>(&value), std::min<std::size_t>(8, bytes.size() - at));
    }
    std::ofstream(path, std::ios::binary) << bytes;
    const auto p = patch::make_plan_of_file(path, patch::number_set::all());
    ++(p.refused.empty() ? planned : refused);
  }
  CHECK(planned > 10);
  CHECK(refused > 50);
}
