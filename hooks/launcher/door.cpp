#include "door.hpp"

#include <cstdio>
#include <map>
#include <sys/syscall.h>

#ifdef RINGLET_HAVE_PATCH
#include "patch/door.hpp"
#endif

namespace ringlet::launcher {

#ifdef RINGLET_HAVE_PATCH

namespace {

// Those that the dispatcher answers.
patch::number_set wanted_numbers() {
  patch::number_set set;
#define WAITS(name, answer) set.add(SYS_##name);
#define TELLS(name, told) set.add(SYS_##name);
#define THREADS(name, answer) set.add(SYS_##name);
#define GUARDS(name, by_libc_for_all) set.add(SYS_##name);
#include "syscalls.def"
  return set;
}

// As <sys/syscall.h> has them (syscall_names.inc is made from it).
std::string name_of_call(int number) {
  static const std::map<int, const char*> names = {
#define NAME(name) {SYS_##name, #name},
#include <syscall_names.inc>  // made by meson.build
#undef NAME
  };
  if (number == patch::variable_number) return "any";
  const auto found = names.find(number);
  return found == names.end() ? std::to_string(number) : found->second;
}

std::string file_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

std::string counted(const patch::plan& p) {
  std::map<std::string, int> shapes;
  for (const auto& s : p.sites)
    if (s.how != patch::shape::none) ++shapes[patch::name_of(s.how)];
  std::string text;
  for (const auto& [name, count] : shapes) text += (text.empty() ? "" : ", ") + name + ' ' + std::to_string(count);
  return text;
}

void tell_sites(const patch::plan& p) {
  for (const auto& s : p.sites) {
    const std::string what = !s.wanted ? "native: a call that the door does not answer" : !s.refused.empty() ? "refused: " + s.refused : std::string(patch::name_of(s.how)) + ", " + std::to_string(s.window_size) + " bytes" + (s.has_vectors ? ", vectors saved" : "");
    std::printf("    %8llx  %-22s %-28s %s\n", static_cast<unsigned long long>(s.address), name_of_call(s.number).c_str(), s.function.empty() ? "-" : s.function.c_str(), what.c_str());
  }
}

}  // namespace

void tell_door(const std::vector<std::string>& files, bool each_site) {
  std::printf("system-call door\n");
  auto line = [](const std::string& name, const std::string& value) { std::printf("  %-26s %s\n", name.c_str(), value.c_str()); };
  std::string closed = "libc is not among its libraries";
  std::vector<patch::plan> plans;
  for (const auto& file : files) {
    plans.push_back(patch::make_plan_of_file(file, wanted_numbers()));
    if (!patch::is_under_rule(file)) continue;
    if (closed == "libc is not among its libraries") closed.clear();
    if (const auto& p = plans.back(); !p.refused.empty() && closed.empty()) closed = file_name(file) + ": " + p.refused;
  }
  line("would open", closed.empty() ? "yes" : "no, the symbol door would be used: " + closed);
  for (std::size_t i = 0; i < files.size(); ++i) {
    auto& p = plans[i];
    // Where nothing would be done, bytes that are perhaps data are not worth a line.
    if (!patch::is_under_rule(files[i])) std::erase_if(p.sites, [](const patch::site& s) { return !s.certain; });
    const std::string sites = std::to_string(p.sites.size()) + " system calls";
    if (patch::is_under_rule(files[i])) {
      if (!p.refused.empty()) line(file_name(files[i]), "left whole: " + p.refused);
      else if (p.sites.empty()) line(file_name(files[i]), "none of its own");
      else line(file_name(files[i]), sites + ": " + std::to_string(p.wanted_count()) + " patched (" + counted(p) + "), " + std::to_string(p.native_count()) + " left native");
    } else if (!p.sites.empty()) {
      const std::string why = patch::why_left(files[i]);
      line(file_name(files[i]), sites + " of its own, left native: " + (why.empty() ? "not a library that is known to wait in them" : why));
    } else {
      continue;
    }
    if (each_site) tell_sites(p);
  }
}

#else

void tell_door(const std::vector<std::string>&, bool) {
  std::printf("system-call door\n  %-26s %s\n", "would open", "no: ringlet was built without an instruction decoder (Capstone)");
}

#endif

}  // namespace ringlet::launcher
