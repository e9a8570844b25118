#include "process/handles.hpp"

#include <algorithm>
#include <new>
#include <pthread.h>
#include <utility>

#include <ringlet/io.hpp>

#include "base/lock.hpp"
#include "io/doors.hpp"

namespace ringlet::process_detail {

namespace {
struct list {
  base::lock lock;
  base::intrusive_list<handle> all;
  std::uint64_t next_number = 1;
};
list& the_list() {
  // Never destroyed: statics of the program may own ends that are closed later than ours.
  static list& l = *[] {
    ::pthread_atfork([] { the_list().lock.acquire(); }, [] { the_list().lock.release(); }, [] { the_list().lock.release(); });
    return new list;
  }();
  return l;
}
constinit thread_local handed_over* recorder = nullptr;
}  // namespace

void add(handle& h, int fd) {
  io::fd_opened(fd);
  list& l = the_list();
  base::lock_guard hold(l.lock);
  h.fd = fd;
  h.number = l.next_number++;
  l.all.push_back(h);
}

void close(handle& h) noexcept {
  if (h.fd < 0) return;
  {
    base::lock_guard hold(the_list().lock);
    h.unlink();
  }
  if (recorder) {
    try {
      recorder->numbers_.push_back(h.number);
    } catch (const std::bad_alloc&) {  // the child will not have it, and say so
    }
  }
  io::close(std::exchange(h.fd, -1));
}

handed_over::handed_over() noexcept : outer_(recorder) { recorder = this; }
handed_over::~handed_over() { recorder = outer_; }

void keep_only(const std::vector<std::uint64_t>& numbers) {
  list& l = the_list();
  std::vector<handle*> others;
  {
    base::lock_guard hold(l.lock);
    l.all.for_each([&](handle& h) {
      if (std::find(numbers.begin(), numbers.end(), h.number) == numbers.end()) others.push_back(&h);
    });
    for (handle* h : others) h->unlink();
  }
  for (handle* h : others) {
    io::close(std::exchange(h->fd, -1));
    h->left_behind = true;
  }
}

}  // namespace ringlet::process_detail
