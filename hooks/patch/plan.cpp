// make_plan: which sites a library has, what number each would pass, where a jump fits.

#include <algorithm>
#include <cstring>
#include <exception>
#include <sys/syscall.h>

#include "flow.hpp"
#include "image.hpp"
#include "patch.hpp"
#include "windows.hpp"

namespace ringlet::patch {

namespace {

using kind = instruction::kind;

// Every place where the two bytes stand, inside of other instructions, too.
std::vector<std::uint64_t> candidates_in(const image& of) {
  std::vector<std::uint64_t> found;
  for (const auto& s : of.segments()) {
    const auto* code = s.executable ? of.at(s.begin, s.end - s.begin) : nullptr;
    if (!code) continue;
    const auto* end = code + (s.end - s.begin);
    for (const auto* at = code; end - at >= 2 && (at = static_cast<const std::uint8_t*>(std::memchr(at, 0x0f, std::size_t(end - at - 1)))); ++at)
      if (at[1] == 0x05) found.push_back(s.begin + std::uint64_t(at - code));
  }
  return found;
}

// The number as the code in front tells it, if every way to the `syscall` leads through what tells it.
int number_at(flow& in, const body& b, std::size_t at) {
  const std::uint64_t address = b.instructions[at].address;
  for (std::size_t i = at; i-- > 0 && address - b.instructions[i].address <= flow::known_before;) {
    if (in.is_entered(b.instructions[i + 1].address)) return variable_number;
    const auto& one = b.instructions[i];
    if (one.number) return *one.number < number_set::limit ? int(*one.number) : variable_number;
    if (one.writes_rax || one.what == kind::jump || one.what == kind::indirect_jump || one.what == kind::ret || one.what == kind::stop) return variable_number;
  }
  return variable_number;
}

std::string exported_name(const image& of, std::uint64_t begin) {
  const auto found = of.exported().find(begin);
  return found == of.exported().end() ? "" : found->second;
}

std::string in_hex(std::uint64_t value) {
  char text[20];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string described(const site& s) {
  std::string text = "the system call at " + in_hex(s.address);
  if (!s.function.empty()) text += " in " + s.function;
  return text + (s.number == variable_number ? " (of any number)" : " (number " + std::to_string(s.number) + ")");
}


void refuse(plan& p, site& s, const std::string& reason) {
  s.refused = reason;
  if (p.refused.empty()) p.refused = described(s) + ": " + reason;
}

// Candidates that no function of the unwind tables holds are data, padding, or code that nobody described. If it could be
// a call that is wanted, we must not go on as if it weren't there.
void judge_outside(plan& p, const image& of, decoder& with, std::uint64_t address, const number_set& wanted) {
  const auto* bytes = of.at(address - 5, 7);
  instruction mov;
  const bool is_known = bytes && with.decode(bytes, 5, address - 5, mov) && mov.size == 5 && mov.number;
  site s;
  s.address = address;
  s.certain = false;
  s.number = is_known && *mov.number < number_set::limit ? int(*mov.number) : variable_number;
  s.wanted = s.number == variable_number || wanted.has(s.number);
  if (s.wanted) refuse(p, s, "it lies in no function that the unwind tables know");
  p.sites.push_back(std::move(s));
}

void find_sites(plan& p, const image& of, const number_set& wanted) {
  decoder with;
  if (!with) {
    p.refused = "the instruction decoder (Capstone) does not start";
    return;
  }
  const auto candidates = candidates_in(of);
  flow in(of, with);
  in.explore(candidates);

  std::vector<std::pair<const body*, std::size_t>> where;
  for (const auto address : candidates) {
    const auto* f = of.function_at(address);
    if (!f) {
      judge_outside(p, of, with, address, wanted);
      where.emplace_back(nullptr, 0);
      continue;
    }
    const body& b = in.bodies().at(f->begin);
    const auto at = std::lower_bound(b.instructions.begin(), b.instructions.end(), address, [](const instruction& i, std::uint64_t a) { return i.address < a; });
    const bool is_site = at != b.instructions.end() && at->address == address && at->what == kind::syscall;
    if (!is_site && b.whole) continue;  // the two bytes are part of something else
    site s;
    s.address = address;
    s.function_begin = f->begin;
    s.function = exported_name(of, f->begin);
    s.certain = b.whole;
    s.has_vectors = in.has_vectors(b);
    s.number = is_site ? number_at(in, b, std::size_t(at - b.instructions.begin())) : variable_number;
    // A signal's frame is the kernel's affair.
    s.wanted = (s.number == variable_number || wanted.has(s.number)) && s.number != SYS_rt_sigreturn;
    if (s.wanted && !b.whole) refuse(p, s, "its function is not understood: what enters it does not enter at instructions, or it can't be decoded to the end");
    else if (s.wanted && in.has_wide_vectors(b)) refuse(p, s, "its function uses AVX registers, which are not saved around the dispatcher");
    p.sites.push_back(std::move(s));
    where.emplace_back(&b, std::size_t(at - b.instructions.begin()));
  }

  taken_ranges taken;
  for (std::size_t i = 0; i < p.sites.size(); ++i)
    if (site& s = p.sites[i]; s.wanted && s.refused.empty()) choose_window_before(s, of, in, *where[i].first, where[i].second, taken);
  for (std::size_t i = 0; i < p.sites.size(); ++i) {
    site& s = p.sites[i];
    if (!s.wanted || !s.refused.empty() || s.how != shape::none) continue;
    if (!choose_other_window(s, of, in, *where[i].first, where[i].second, taken))
      refuse(p, s, "no five bytes of whole instructions around it are free of jumps into them, and no padding is near");
  }
}

plan plan_of(image&& of, const number_set& wanted) {
  plan p;
  p.library = of.path();
  p.build_id = of.build_id();
  p.base = of.base();
  p.loaded = of.loaded();
  find_sites(p, of, wanted);
  return p;
}

template <class Open>
plan guarded(const std::string& name, const number_set& wanted, Open open) {
#ifdef __x86_64__
  try {
    return plan_of(open(), wanted);
  } catch (const std::exception& e) {
    plan p;
    p.library = name;
    p.refused = e.what();
    return p;
  }
#else
  (void)wanted, (void)open;
  plan p;
  p.library = name;
  p.refused = "the system-call door is for x86-64";
  return p;
#endif
}

}  // namespace

plan make_plan(const void* address_in_library, const number_set& wanted) {
  return guarded("?", wanted, [&] { return image::of_loaded(address_in_library); });
}

plan make_plan_of_file(const std::string& path, const number_set& wanted) {
  return guarded(path, wanted, [&] { return image::of_file(path); });
}

std::size_t plan::wanted_count() const noexcept {
  return std::size_t(std::count_if(sites.begin(), sites.end(), [](const site& s) { return s.wanted; }));
}
std::size_t plan::native_count() const noexcept { return sites.size() - wanted_count(); }

const char* name_of(shape s) noexcept {
  switch (s) {
    case shape::none: return "none";
    case shape::number_before: return "number before";
    case shape::before: return "before";
    case shape::after: return "after";
    case shape::around: return "around";
    case shape::padding: return "padding";
  }
  return "?";
}

}  // namespace ringlet::patch
