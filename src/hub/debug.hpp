#pragma once
// What a debugger knows of us: a table, found by its name, of the hubs that there are and of where in memory their fields
// lie. It is read by hooks/gdb/ringlet-gdb.py from a live process or a core file, also of a stripped library; nothing in the
// process reads it. Offsets are in bytes; a change of meaning changes `version`.

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "hub/hub.hpp"
#include "ringlet/export.hpp"

namespace ringlet::detail {

struct debug_table {
  char version[16] = "ringlet-debug-1";
  std::uint32_t most_hubs = 0, not_shown = 0;  // hubs beyond the table's room
  struct {
    std::uint32_t fibers, running, turn_time, switches, asleep, own;
  } hub;
  struct {
    std::uint32_t link, step, waiting, since, id, name, resume_at;
  } fiber;
  struct {
    std::uint32_t sp, image, has_run;
  } greenlet;
  struct {
    std::uint32_t what, whom, fd, unused;
  } waiter;
  struct {  // where threads are fibers; sizes of 0: they are not
    std::uint32_t id, name, name_size;
    std::uint32_t unused;
    const void* hubs_own;  // the image that is nobody's
  } thread;
  struct entry {
    std::atomic<const void*> hub;
    const void* main_fiber;
    std::int64_t os_id;
  } hubs[64];
};
extern "C" RINGLET_EXPORT debug_table ringlet_debug_table;

void show_to_debuggers(hub_state&) noexcept;
void hide_from_debuggers(hub_state&) noexcept;
// In the child of a fork: nobody but this hub is left.
void only_debuggers_hub(hub_state&) noexcept;

}  // namespace ringlet::detail
