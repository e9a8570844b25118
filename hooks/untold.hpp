#pragma once
// For what runs before ThreadSanitizer does: its own start calls libc, and so us, and may not be told of that yet. From the
// exported name to libc's, nothing that is marked so reports anything; what parks a fiber is not marked.

#if defined(__SANITIZE_THREAD__)
#define RINGLET_UNTOLD __attribute__((no_sanitize_thread))
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RINGLET_UNTOLD __attribute__((disable_sanitizer_instrumentation))
#endif
#endif
#ifndef RINGLET_UNTOLD
#define RINGLET_UNTOLD
#endif
