// The switches: enable, disable, and the list of what is hooked.
//
// Nothing but data is switched, so any thread may, at any time; calls that are under way end as they began. What
// descriptors do is remembered by io only while every row that tells of it is on.

#include <ringlet/hooks.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/lock.hpp"
#include "leave_out.hpp"
#include "rows.hpp"
#include "signals.hpp"

namespace ringlet::hooks {

bool active[row_count];

namespace {

#define LISTED(name, group, verb) {#name, #group, verb, &active[std::size_t(row::name)]},
#define SUSPENDS(result, name, group, parameters, arguments) LISTED(name, group, "suspends")
#define SHAPED(result, name, group, when, parameters, arguments) LISTED(name, group, "shaped")
#define VARIADIC(result, name, group, when, parameters, last, extra, arguments) LISTED(name, group, "shaped")
#define OBSERVES(result, name, group, parameters, arguments, told) LISTED(name, group, "observes")
#define OFFLOADS(result, name, group, parameters, arguments, ends) LISTED(name, group, "offloads")
#define SPECIAL(name, group) LISTED(name, group, "shaped")
#define ALIAS(name, of) {#name, nullptr, "alias", &active[std::size_t(row::of)]},
#define ALIAS_UNDECLARED(name, of) ALIAS(name, of)
call listed[] = {
#include "calls.def"
};
#undef LISTED

// An alias belongs to its row's group.
[[gnu::constructor(102)]] void give_aliases_their_group() {
  for (call& alias : listed)
    if (!alias.group)
      for (const call& of : listed)
        if (of.group && of.active == alias.active) alias.group = of.group;
}

// Rows whose silence would make what io remembers of descriptors untrue.
constexpr row tellers[] = {
    row::socket, row::socketpair, row::pipe, row::pipe2, row::dup, row::dup2, row::dup3, row::open, row::openat, row::close,
    row::fclose, row::freopen, row::fcntl, row::ioctl, row::setsockopt, row::accept, row::accept4, row::eventfd,
    row::epoll_create, row::epoll_create1,
#if __GLIBC_PREREQ(2, 34)
    row::close_range, row::closefrom,
#endif
};

base::lock switching;
bool on = false;

void switch_row(bool* which, bool to) noexcept { __atomic_store_n(which, to, __ATOMIC_RELAXED); }

void observe() noexcept {
  io::observe_descriptors(std::all_of(std::begin(tellers), std::end(tellers), [](row r) { return active[std::size_t(r)]; }));
}

}  // namespace

std::string known_names() {
  std::string groups, names;
  for (const call& c : listed) {
    const std::string group = c.group;
    if ((", " + groups + ",").find(", " + group + ",") == std::string::npos) groups += (groups.empty() ? "" : ", ") + group;
    names += (names.empty() ? "" : ", ") + std::string(c.name);
  }
  return "groups: " + groups + "; calls: " + names;
}

std::vector<const call*> parse_leave_out(std::string_view text) {
  std::vector<const call*> found;
  while (!text.empty()) {
    const auto comma = text.find(',');
    std::string_view word = text.substr(0, comma);
    text = comma == std::string_view::npos ? std::string_view{} : text.substr(comma + 1);
    while (!word.empty() && (word.front() == ' ' || word.front() == '\t')) word.remove_prefix(1);
    while (!word.empty() && (word.back() == ' ' || word.back() == '\t')) word.remove_suffix(1);
    if (word.empty()) continue;
    const auto before = found.size();
    // poll is both a call and the group it is in: whoever writes it means all of them.
    for (const call& c : listed)
      if (word == c.group || word == c.name) found.push_back(&c);
    if (found.size() == before)
      throw std::invalid_argument("ringlet: leave_out: '" + std::string(word) + "' is no hooked call and no group of them (" +
                                  known_names() + ")");
  }
  return found;
}

void enable(const options& wanted) {
  const auto left_out = parse_leave_out(wanted.leave_out);  // throws before anything is changed
  base::lock_guard hold(switching);
  for (const call& c : listed) {
    const bool leave = std::any_of(left_out.begin(), left_out.end(), [&](const call* l) { return l->active == c.active; });
    if (!leave) switch_row(const_cast<bool*>(c.active), true);
  }
  on = true;
  observe();
  if (is_active(row::sigaction)) wrap_handlers();
}

void disable() noexcept {
  base::lock_guard hold(switching);
  io::observe_descriptors(false);
  unwrap_handlers();
  for (bool& each : active) switch_row(&each, false);
  on = false;
}

bool enabled() noexcept {
  base::lock_guard hold(switching);
  return on;
}

std::span<const call> calls() noexcept { return listed; }

}  // namespace ringlet::hooks
