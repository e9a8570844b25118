// Precompiled for the library and the hooks, for the time that it saves: what the standard library takes longest to say. Each
// file still includes what it uses itself (meson configure -Db_pch=false compiles them so).

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>
