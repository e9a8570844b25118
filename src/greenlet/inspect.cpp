// What can be seen of a greenlet from outside: its name, its state, its stack and who called whom on it.
//
// The backtrace of one that rests is taken on its own stack: a function is run there on top of its frames, walks them, and
// comes back. So nothing has to be known of how frames are laid out, and the switch itself keeps no record.

#include <cxxabi.h>
#include <dlfcn.h>
#include <unwind.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "base/sys.hpp"
#include "greenlet/greenlet.hpp"

namespace ringlet::detail {

std::string demangled(const char* name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string result = status == 0 ? text : name;
  std::free(text);
  return result;
}

const char* phase_name(const greenlet_state& g) {
  switch (g.phase) {
    case greenlet_phase::unstarted: return "not started";
    case greenlet_phase::running: return "running";
    case greenlet_phase::suspended: return g.in_hub ? "waiting in the hub" : "suspended";
    case greenlet_phase::dead: return "dead";
  }
  return "?";
}

std::string name_of(const greenlet_state& g) {
  if (g.is_main) return "the main greenlet";
  return (g.is_fiber ? "the greenlet of fiber " : "greenlet ") + std::to_string(g.number);
}

stack_use greenlet_stack_use(const greenlet_state* g) noexcept {
  stack_use use;
  if (!g || !g->memory.base || g->phase == greenlet_phase::dead) return use;
  use.size_bytes = std::size_t(g->memory.top() - g->memory.low());
  char* const top = g->memory.top();
  if (g->phase == greenlet_phase::suspended) use.used_bytes = std::size_t(top - static_cast<char*>(g->where.sp));
  if (g->phase == greenlet_phase::running && g->thread == thread_state::here_or_null())
    use.used_bytes = std::size_t(top - static_cast<char*>(__builtin_frame_address(0)));
  // From the top down to the first page that was never touched.
  constexpr std::size_t page = 4096, at_once = 64;
  for (char* end = g->memory.base + g->memory.stride; end > g->memory.low();) {
    unsigned char resident[at_once];
    const std::size_t pages = std::min(at_once, std::size_t(end - g->memory.low()) / page);
    if (pages == 0 || sys::call(SYS_mincore, end - pages * page, pages * page, resident) != 0) break;
    std::size_t found = pages;
    while (found > 0 && (resident[found - 1] & 1)) --found;
    end -= (pages - found) * page;
    use.touched_bytes = end < top ? std::size_t(top - end) : 0;
    if (found > 0) break;
  }
  return use;
}

namespace {
struct walk {
  std::vector<void*>* frames;
  std::size_t most;
};
_Unwind_Reason_Code note_frame(_Unwind_Context* at, void* argument) {
  auto& w = *static_cast<walk*>(argument);
  if (w.frames->size() >= w.most) return _URC_END_OF_STACK;
  const auto ip = _Unwind_GetIP(at);
  if (ip) w.frames->push_back(reinterpret_cast<void*>(ip));
  return _URC_NO_REASON;
}
void walk_here(void* argument) { _Unwind_Backtrace(&note_frame, argument); }
}  // namespace

std::vector<void*> greenlet_backtrace(const greenlet_state* g) {
  std::vector<void*> frames;
  thread_state* t = thread_state::here_or_null();
  if (!g || g->thread != t) return frames;
  walk w{&frames, 256};
  frames.reserve(w.most);
  if (g->phase == greenlet_phase::running) {
    walk_here(&w);
    if (frames.size() > 2) frames.erase(frames.begin(), frames.begin() + 2);  // the two of the walk itself
  } else if (g->phase == greenlet_phase::suspended && g->where.has_run) {
    auto& resting = const_cast<greenlet_state*>(g)->where;
    context::call_on_top(t->current->where, resting, &walk_here, &w);
    if (frames.size() > 2) frames.erase(frames.begin(), frames.begin() + 2);
  }
  return frames;
}

std::string frame_text(void* address) {
  char text[128];
  Dl_info where{};
  // A return address may lie behind the last instruction of its function.
  if (::dladdr(static_cast<char*>(address) - 1, &where) == 0 || !where.dli_fname) {
    std::snprintf(text, sizeof text, "%p", address);
    return text;
  }
  const char* file = where.dli_fname;
  for (const char* at = file; *at; ++at)
    if (*at == '/') file = at + 1;
  const bool named = where.dli_sname && where.dli_saddr;
  std::snprintf(text, sizeof text, " + 0x%zx",
                std::size_t(static_cast<char*>(address) - static_cast<char*>(named ? where.dli_saddr : where.dli_fbase)));
  return (named ? demangled(where.dli_sname) : std::string(file)) + text + (named ? std::string(" (") + file + ")" : "");
}

}  // namespace ringlet::detail

namespace ringlet {
std::string describe_backtrace(const std::vector<void*>& frames, const char* indent) {
  std::string text;
  for (void* each : frames) text += indent + detail::frame_text(each) + "\n";
  return text;
}
}  // namespace ringlet
