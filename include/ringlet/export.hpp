#pragma once
// What the shared libraries show. Everything else is hidden (-fvisibility=hidden).
#define RINGLET_EXPORT __attribute__((visibility("default")))
