// Company for a stranger's program: a second fiber on its main thread, so that its waiting really parks.
//
// A program that knows nothing of fibers has only its main one, and the hooks then leave its calls to libc, since nobody
// else could run meanwhile: run so, a stranger proves little. This object is preloaded beside libringlet-preload.so by
// tests/programs/strangers_test.py; its fiber wakes up every two milliseconds and does nothing, for ever. Then each
// blocking call of the program goes through the hub and the engine, among switches it knows nothing of.

#include <chrono>

#include <ringlet/fiber.hpp>

namespace {
[[gnu::constructor]] void keep_company() {
  ringlet::spawn([] {
    while (true) ringlet::sleep(std::chrono::milliseconds(2));
  });
}
}  // namespace
