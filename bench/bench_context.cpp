// The innermost layer: a switch that carries errno and the exception state with it, without greenlets; and the beginning of
// a context. Linked with the layer itself, which the library does not show.

#include <memory>

#include "harness.hpp"
#include "raw_context.hpp"

#include "context/context.hpp"

namespace {

using ringlet::context::context;

struct pair {
  context here, there;
  bench::raw_stacks stacks{1};

  static void run(void* message) {
    auto* p = static_cast<pair*>(message);
    while (true) p = static_cast<pair*>(ringlet::context::switch_context(p->there, p->here, p));
  }
  pair() {
    ringlet::context::adopt_thread_stack(here);
    begin();
  }
  ~pair() { ringlet::context::drop_context(there); }
  void begin() { ringlet::context::make_context(there, stacks.top(0) - bench::raw_stacks::stride / 2, stacks.top(0), &run); }
  void there_and_back() { ringlet::context::switch_context(here, there, this); }
};

void once_and_back(bench::transfer_t t) { bench::jump_fcontext(t.fctx, nullptr); }

}  // namespace

int main(int argc, char** argv) {
  bench::begin(argc, argv, "bench_context");
  auto raw = std::make_shared<bench::raw_pair>();
  auto ours = std::make_shared<pair>();
  bench::compare("switch of contexts: ns of CPU per switch",
                 {
                     bench::timed("raw jump_fcontext", [raw](std::size_t n) { for (n /= 2; n; --n) raw->there_and_back(); }),
                     bench::timed("with errno and exception state", [ours](std::size_t n) { for (n /= 2; n; --n) ours->there_and_back(); }),
                 },
                 {.rounds = 21});
  auto stacks = std::make_shared<bench::raw_stacks>(1);
  auto fresh = std::make_shared<pair>();
  bench::compare("make a context, run it, leave it: ns of CPU each",
                 {
                     bench::timed("raw make_fcontext, jump, back",
                                  [stacks](std::size_t n) {
                                    for (; n; --n)
                                      bench::jump_fcontext(bench::make_fcontext(stacks->top(0), bench::raw_stacks::stride / 2, &once_and_back), nullptr);
                                  }),
                     bench::timed("with errno and exception state",
                                  [fresh](std::size_t n) {
                                    for (; n; --n) {
                                      ringlet::context::drop_context(fresh->there);
                                      fresh->begin();
                                      fresh->there_and_back();
                                    }
                                  }),
                 },
                 {.rounds = 21});
}
