#pragma once
// The raw thing under every switch: Boost's fcontext, with nothing around it. A ring of contexts that hand on to each
// other, on stacks that lie as a runtime's would: so far apart as its default size, their tops coloured by cache lines.

#include <sys/mman.h>

#include <boost/context/detail/fcontext.hpp>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace bench {

using boost::context::detail::fcontext_t;
using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

// One block of stacks of 64 KiB that costs only what is touched.
class raw_stacks {
 public:
  static constexpr std::size_t stride = 64 * 1024;
  explicit raw_stacks(std::size_t count) : bytes_(count * stride) {
    void* at = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
      std::perror("mmap");
      std::exit(2);
    }
    ::madvise(at, bytes_, MADV_NOHUGEPAGE);
    base_ = static_cast<char*>(at);
  }
  ~raw_stacks() { ::munmap(base_, bytes_); }
  raw_stacks(const raw_stacks&) = delete;
  char* top(std::size_t i) const { return base_ + (i + 1) * stride - 64 - (i % 16) * 64; }

 private:
  std::size_t bytes_;
  char* base_;
};

// count contexts besides the caller's; turn() goes once around: count + 1 jumps.
class raw_ring {
 public:
  explicit raw_ring(std::size_t count) : stacks_(count), members_(count) {
    for (std::size_t i = 0; i < count; ++i) {
      members_[i].next = i + 1 < count ? &members_[i + 1] : &caller_;
      members_[i].rests = make_fcontext(stacks_.top(i), raw_stacks::stride / 2, &run);
    }
    caller_.next = &members_[0];
  }
  void turn() { hand_on(&caller_); }

 private:
  struct member {
    fcontext_t rests = nullptr;
    member* next = nullptr;
  };
  struct passing {
    member* from;
    member* to;
  };
  static member* land(transfer_t t) {
    auto* p = static_cast<passing*>(t.data);
    p->from->rests = t.fctx;
    return p->to;
  }
  static void hand_on(member* self) {
    passing p{self, self->next};
    land(jump_fcontext(self->next->rests, &p));
  }
  static void run(transfer_t t) {
    member* self = land(t);
    while (true) hand_on(self);
  }

  raw_stacks stacks_;
  std::vector<member> members_;
  member caller_;
};

// Two contexts that do nothing but jump: the least a switch costs.
class raw_pair {
 public:
  raw_pair() : stacks_(1), other_(make_fcontext(stacks_.top(0), raw_stacks::stride / 2, &run)) {}
  void there_and_back() { other_ = jump_fcontext(other_, nullptr).fctx; }

 private:
  static void run(transfer_t t) {
    while (true) t = jump_fcontext(t.fctx, nullptr);
  }
  raw_stacks stacks_;
  fcontext_t other_;
};

}  // namespace bench
