#pragma once
// A queue between processes: any number of them, and of fibers in each, put and get.
//
//   ringlet::ipc::queue<job> jobs;
//   ringlet::process worker([&] { for (job& j : jobs) { j.run(); jobs.task_done(); } });
//   worker.start();
//   jobs.put(job{...});
//   jobs.join();         // all that was put has been done
//   jobs.shutdown();     // the worker's loop ends
//
// Made before the processes are started, and used in them by reference. An item goes to exactly one getter; it is in the
// queue as a whole or not at all, whenever a process is killed; and put returns when it is in there (Python's leaves that to a
// thread, which loses it, or keeps the process from ending). Waiting getters are not served in the order they came.
//
// Items lie in the kernel's socket buffers, so even an unbounded queue holds only what these hold: some hundred small items, or
// 200 KB to 400 KB; of an item of more than 128 KB only half of that is counted (the rest lies in a memfd). Then put waits. So nobody should
// put many into a queue that he alone is to get from.
//
// Items are packed by msgpack-cxx: see ipc/message.hpp.

#include <cstddef>
#include <iterator>
#include <optional>

#include <ringlet/ipc/byte_queue.hpp>
#include <ringlet/ipc/message.hpp>
#include <ringlet/queue.hpp>

namespace ringlet::ipc {

template <class T>
class queue : public byte_queue {
 public:
  using value_type = T;
  using byte_queue::byte_queue;

  bool put(const T& item, deadline until = never) {
    detail::spare packed(detail::spare_out);
    detail::pack_into(packed.bytes, item);
    return put_bytes(packed.bytes, until);
  }
  bool try_put(const T& item) { return put(item, deadline::passed()); }
  // bad_message if what came is no T; it is gone then.
  std::optional<T> get(deadline until = never) {
    detail::spare packed(detail::spare_in);
    if (!get_into(packed.bytes, until)) return std::nullopt;
    return unpack<T>(packed.bytes);
  }
  std::optional<T> try_get() { return get(deadline::passed()); }

  // for (T& item : queue): until it was shut down and is empty.
  using iterator = ::ringlet::detail::item_iterator<queue>;
  iterator begin() { return iterator(*this); }
  std::default_sentinel_t end() const noexcept { return {}; }

 private:
  friend iterator;
  void take_next(std::optional<T>& slot) {
    try {
      slot = get();
    } catch (const shut_down&) {
      slot.reset();  // it is empty; but GCC 12 at -O2 drops the caller's reset, as if get() could not throw
    }
  }
};

}  // namespace ringlet::ipc
