#pragma once
// Says when the loader has mapped or unmapped libraries: after each dlopen, dlmopen, dlclose, and each library that libc
// loads for itself (name service, character sets, the unwinder), before their constructors run.
//
// Not by replacing dlopen: that name finds libraries in the place of its caller (RUNPATH, $ORIGIN, namespaces), and a
// wrapper would be the caller. The loader itself tells debuggers, by calling an empty function whose address it
// publishes (struct r_debug, <link.h>). We jump from there. Where that function is not as empty as it should be (a
// debugger has its breakpoint in it), we stay away.

namespace ringlet::patch {

// From now on `then` is called, with the loader's lock held, on the thread that loads. False: it can't be done here.
bool watch_loads(void (*then)());
void unwatch_loads();

}  // namespace ringlet::patch
