// GNU Pth (Debian 12 packages it, 13 does not). No sockets: its loop is select(2), which ends at 1,024 descriptors.

#include <pth.h>

#include <vector>

#include "peer.hpp"

namespace {

pth_attr_t kind;

template <class Body>
pth_t begin(Body& body) {
  auto run = [](void* b) -> void* {
    (*static_cast<Body*>(b))();
    return nullptr;
  };
  pth_t t = pth_spawn(kind, run, &body);
  if (!t) peer::fail("pth_spawn");
  return t;
}

template <class Each>
std::size_t together(std::size_t count, std::size_t n, Each each) {
  const std::size_t times = peer::share(n, count);
  auto body = [=] {
    for (std::size_t i = 0; i < times; ++i) each();
  };
  std::vector<pth_t> all;
  for (std::size_t i = 0; i < count; ++i) all.push_back(begin(body));
  for (auto t : all) pth_join(t, nullptr);
  return times * count;
}

}  // namespace

int main(int argc, char** argv) {
  pth_init();
  kind = pth_attr_new();
  pth_attr_set(kind, PTH_ATTR_STACK_SIZE, 64 * 1024);
  auto yield = [] { pth_yield(nullptr); };
  auto nothing = [] {};
  return peer::run(argc, argv, {},
                   {{"yield2", [=](std::size_t n) { return together(2, n, yield); }},
                    {"yield1000", [=](std::size_t n) { return together(peer::crowd, n, yield); }},
                    {"spawn",
                     [=](std::size_t n) mutable {
                       for (std::size_t i = 0; i < n; ++i) pth_join(begin(nothing), nullptr);
                       return n;
                     }},
                    {"spawn100", [=](std::size_t n) {
                       for (std::size_t i = 0; i < peer::share(n, 100); ++i) together(100, 100, nothing);
                       return peer::share(n, 100) * 100;
                     }}});
}
