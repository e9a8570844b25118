#pragma once
// Internals that libringlet_hooks.so, a library of its own, needs of libringlet.so. Shown to the linker, not to users:
// no header of theirs declares them and no version keeps them.
#define RINGLET_SHOWN __attribute__((visibility("default")))
