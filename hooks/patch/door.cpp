#include "door.hpp"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <link.h>

#ifdef RINGLET_HAVE_VALGRIND
#include <valgrind/valgrind.h>
#endif

#include <gnu/libc-version.h>

#include "base/sys.hpp"
#include "loads.hpp"
#include "self_test.hpp"

namespace ringlet::patch {

namespace {

struct door {
  door_rule rule;
  bool is_open = false, watches = false;
  std::vector<plan> plans;
};
door& the_door() {
  static door* one = new door;  // outlives destructors of the program, whose system calls come here, too
  return *one;
}

// What the patched sites call: first the self-test's dispatcher, then the rule's. Read at each system call.
dispatcher current = nullptr;
void dispatch(registers& r) { current(r); }

std::string_view file_name(std::string_view path) noexcept { return path.substr(path.rfind('/') + 1); }

struct named_rule {
  std::string_view begins, reason;
};
constexpr named_rule patched[] = {{"libc.so.6", ""}, {"libc-2.", ""}, {"libpthread.so.0", ""}, {"libpthread-2.", ""}, {"liburing.so.", ""}, {"libaio.so.", ""}};
constexpr named_rule left[] = {
    {"ld-linux", "the loader's calls don't wait"},
    {"libgomp.so.", "OpenMP waits by spinning, on as many kernel threads as there are cores"},
    {"libomp.so", "OpenMP waits by spinning, on as many kernel threads as there are cores"},
    {"libiomp5.so", "OpenMP waits by spinning, on as many kernel threads as there are cores"},
    {"libopenblas", "a compute library keeps its kernel threads"},
    {"libmkl", "a compute library keeps its kernel threads"},
    {"libtbb", "a compute library keeps its kernel threads"},
    {"libtsan.so.", "a sanitizer's own calls are not the program's"},
    {"libasan.so.", "a sanitizer's own calls are not the program's"},
    {"liblsan.so.", "a sanitizer's own calls are not the program's"},
    {"libubsan.so.", "a sanitizer's own calls are not the program's"},
    {"libringlet", "ours: it is what the door leads to"},
};

// The loaded libraries that the rule names and that are not treated yet: an address in each.
std::vector<const void*> untreated() {
  std::vector<const void*> found;
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* to) {
        if (!info->dlpi_name || !is_under_rule(info->dlpi_name)) return 0;
        const auto& plans = the_door().plans;
        if (std::any_of(plans.begin(), plans.end(), [&](const plan& p) { return p.base == info->dlpi_addr; })) return 0;
        for (int i = 0; i < info->dlpi_phnum; ++i)
          if (const auto& p = info->dlpi_phdr[i]; p.p_type == PT_LOAD && (p.p_flags & PF_X)) {
            static_cast<std::vector<const void*>*>(to)->push_back(reinterpret_cast<const void*>(info->dlpi_addr + p.p_vaddr));
            break;
          }
        return 0;
      },
      &found);
  return found;
}

// Plans of libraries that have been unloaded; another may be loaded where one was.
void forget_unloaded() {
  std::vector<std::pair<std::uint64_t, std::string>> loaded;
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* to) {
        if (info->dlpi_name) static_cast<decltype(loaded)*>(to)->emplace_back(info->dlpi_addr, info->dlpi_name);
        return 0;
      },
      &loaded);
  std::erase_if(the_door().plans, [&](const plan& p) {
    if (p.base == 0 || std::any_of(loaded.begin(), loaded.end(), [&](const auto& l) { return l.first == p.base && l.second == p.library; })) return false;
    forget(p);
    return true;
  });
}

// Under the loader's lock, so one at a time.
void on_load() {
  try {
    if (const auto said = treat_new_libraries(); !said.empty()) std::fprintf(stderr, "ringlet: %s\n", said.c_str());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "ringlet: a library that was loaded could not be looked at: %s\n", e.what());
  }
}

std::string sentence(const plan& p) { return std::string(file_name(p.library)) + ": " + p.refused; }

}  // namespace

bool is_under_rule(std::string_view path) noexcept {
  const auto name = file_name(path);
  return std::any_of(std::begin(patched), std::end(patched), [&](const named_rule& r) { return name.starts_with(r.begins); });
}

std::string why_left(std::string_view path) {
  const auto name = file_name(path);
  for (const auto& r : left)
    if (name.starts_with(r.begins)) return std::string(r.reason);
  return "";
}

bool are_loads_watched() noexcept { return the_door().watches; }
bool is_door_open() noexcept { return the_door().is_open; }
const std::vector<plan>& treated_libraries() { return the_door().plans; }

std::string open_door(const door_rule& rule) {
  door& d = the_door();
  if (d.is_open) return "";
#ifdef RINGLET_HAVE_VALGRIND
  if (RUNNING_ON_VALGRIND) return "Valgrind runs a translation of the code, which does not see it changed";
#endif
  // A thread that is begun by hand has no shadow stack of its own. A kernel that knows none refuses the question.
  constexpr int ask_for_shadow_stacks = 0x5005 /* ARCH_SHSTK_STATUS */;
  unsigned long features = 0;
  if (sys::call(SYS_arch_prctl, ask_for_shadow_stacks, &features) == 0 && (features & 1)) return "shadow stacks are in use (GLIBC_TUNABLES=glibc.cpu.x86_shstk=off turns them off)";
  d.rule = rule;
  d.plans.clear();
  const void* in_libc = reinterpret_cast<const void*>(&::gnu_get_libc_version);
  d.plans.push_back(make_plan(in_libc, rule.wanted));
  if (!d.plans.front().refused.empty()) return sentence(d.plans.front());
  if (d.plans.front().wanted_count() == 0) return file_name(d.plans.front().library).empty() ? "no libc is loaded" : "libc has no system calls that could be found";
  // All are looked at before the first is changed.
  for (const void* address : untreated()) {
    d.plans.push_back(make_plan(address, rule.wanted));
    if (!d.plans.back().refused.empty()) return sentence(d.plans.back());
  }
  current = self_test_dispatcher;
  for (auto& p : d.plans) {
    if (apply(p, dispatch).empty()) continue;
    close_door();
    return sentence(p);
  }
  d.is_open = true;
  std::string wrong = self_test();
  current = rule.call;
  if (wrong.empty() && rule.test) wrong = rule.test();
  if (wrong.empty()) {
    d.watches = watch_loads(on_load);
    return "";
  }
  close_door();
  return "its self-test failed: " + wrong;
}

void close_door() {
  door& d = the_door();
  if (d.watches) unwatch_loads();
  d.watches = false;
  // The last that was changed comes back first.
  for (auto p = d.plans.rbegin(); p != d.plans.rend(); ++p) restore(*p);
  d.is_open = false;
}

std::string treat_new_libraries() {
  door& d = the_door();
  if (!d.is_open) return "";
  forget_unloaded();
  std::string said;
  for (const void* address : untreated()) {
    d.plans.push_back(make_plan(address, d.rule.wanted));
    plan& p = d.plans.back();
    if (p.refused.empty()) apply(p, dispatch);
    if (!p.refused.empty()) said += (said.empty() ? "" : "; ") + sentence(p) + " (its system calls block the hub)";
  }
  return said;
}

}  // namespace ringlet::patch
