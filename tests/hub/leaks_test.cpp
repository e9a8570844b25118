// After every case of this binary: nothing is left on the main thread's hub, and no greenlet anywhere.

#include "on_hub.hpp"

namespace {

std::string what_is_left() {
  std::string text = hub_test::left_behind();
  if (const std::size_t n = ringlet::living_greenlets()) text += (text.empty() ? "" : ", ") + std::to_string(n) + " greenlets";
  return text;
}

const bool once = [] {
  support::leak_check = &what_is_left;
  return true;
}();

}  // namespace

HUB_CASE("leak check: sees what a case would leave") {
  CHECK(hub_test::left_behind() == "");
  auto f = ringlet::spawn([] { ringlet::sleep(std::chrono::hours(1)); });
  ringlet::yield();
  CHECK(hub_test::contains(hub_test::left_behind(), "1 fibers"));
  f.kill();
  CHECK(hub_test::left_behind() == "1 stacks");
  f = {};
  CHECK(hub_test::left_behind() == "");
}
