// Precompiled for the tests on ringlet's face: what most of them include, and what it includes. Each still includes what it
// uses itself (meson configure -Db_pch=false compiles them so).

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <ringlet/ringlet.hpp>

#include "support/support.hpp"
