#include "harness.hpp"

#include <dlfcn.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bench {

namespace {
settings given;
std::string program_name;

double clock_ns(clockid_t which) noexcept {
  timespec t;
  ::clock_gettime(which, &t);
  return double(t.tv_sec) * 1e9 + double(t.tv_nsec);
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double at = q * double(values.size() - 1);
  const auto low = std::size_t(at);
  const std::size_t high = std::min(low + 1, values.size() - 1);
  return values[low] + (values[high] - values[low]) * (at - double(low));
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + '"';
}

void append_json(const std::string& table, const std::string& name, const char* unit, double median, double low, double high,
                 double ratio, double wall, double ratio_low = 0, double ratio_high = 0) {
  if (given.json_file.empty() || !std::isfinite(median)) return;
  FILE* out = std::fopen(given.json_file.c_str(), "a");
  if (!out) {
    std::perror(given.json_file.c_str());
    std::exit(2);
  }
  std::fprintf(out, "{\"program\":%s,\"table\":%s,\"name\":%s,\"unit\":%s,\"median\":%.6g,\"low\":%.6g,\"high\":%.6g",
               quoted(program_name).c_str(), quoted(table).c_str(), quoted(name).c_str(), quoted(unit).c_str(), median, low, high);
  if (ratio > 0 && std::isfinite(ratio)) std::fprintf(out, ",\"ratio\":%.4f", ratio);
  if (ratio_low > 0) std::fprintf(out, ",\"ratio_low\":%.4f,\"ratio_high\":%.4f", ratio_low, ratio_high);
  if (wall >= 0) std::fprintf(out, ",\"wall\":%.6g", wall);
  std::fprintf(out, "}\n");
  std::fclose(out);
}

std::string number_text(double n) {
  char text[40];
  const double size = std::fabs(n);
  std::snprintf(text, sizeof text, size < 10 ? "%.2f" : size < 1000 ? "%.1f" : "%.0f", n);
  return text;
}
std::string ratio_text(double ratio) {
  if (!(ratio > 0)) return "";
  char text[40];
  std::snprintf(text, sizeof text, ratio < 0.095 ? "%.4f" : ratio < 100 ? "%.2f" : "%.0f", ratio);
  return text;
}

struct measured {
  candidate* who;
  bool is_raw;
  std::size_t operations = 1;
  std::vector<double> per_operation, wall_per_operation, ratios;
};

// So many operations that they fill a round; also the warm-up.
void size_round(measured& m, double round_ns, std::size_t most) {
  for (std::size_t n = 1;;) {
    const sample s = m.who->run(n);
    const double each = s.ns / s.operations;
    if (s.ns >= round_ns / 4 || n >= most) {
      const double wanted = each > 0 ? round_ns / each : double(n);
      m.operations = std::size_t(std::clamp(wanted, 1.0, double(most)));
      return;
    }
    n = std::min(most, s.ns < round_ns / 100 ? n * 8 : n * 3);
  }
}

void take_turn(measured& m) {
  const sample s = m.who->run(m.operations);
  m.per_operation.push_back(s.ns / s.operations);
  if (s.wall_ns >= 0) m.wall_per_operation.push_back(s.wall_ns / s.operations);
}
}  // namespace

const settings& asked() noexcept { return given; }

void begin(int argc, char** argv, const char* program, const char* numbers) {
  program_name = program;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const char* following = i + 1 < argc ? argv[i + 1] : nullptr;
    if (word == "--quick") {
      given.quick = true;
    } else if (word == "--json" && following) {
      given.json_file = following, ++i;
    } else if (word == "--only" && following) {
      given.only = following, ++i;
    } else if (word == "--table" && following) {
      given.table = following, ++i;
    } else if (word == "--operations" && following && std::atoll(following) > 0) {
      given.operations = std::size_t(std::atoll(following)), ++i;
    } else if (numbers && std::atoll(word.c_str()) > 0) {
      given.numbers.push_back(std::size_t(std::atoll(word.c_str())));
    } else {
      std::fprintf(stderr, "%s [--quick] [--json FILE] [--table TEXT] [--only TEXT] [--operations N]%s%s\n", program,
                   numbers ? " " : "", numbers ? numbers : "");
      std::exit(word == "--help" ? 0 : 2);
    }
  }
}

bool wanted(std::initializer_list<std::string> rows) {
  return std::any_of(rows.begin(), rows.end(), [](const std::string& row) { return row.find(given.only) != std::string::npos; });
}

double thread_cpu_ns() noexcept { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }
double process_cpu_ns() noexcept { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }
double wall_ns() noexcept { return clock_ns(CLOCK_MONOTONIC); }

void compare(const std::string& title, std::vector<candidate> candidates, const table_options& how) {
  if (title.find(given.table) == std::string::npos) return;
  std::vector<measured> rows;
  for (std::size_t i = 0; i < candidates.size(); ++i)
    if (candidates[i].missing.empty() && candidates[i].name.find(given.only) != std::string::npos) rows.push_back({.who = &candidates[i], .is_raw = i == 0});
  if (rows.empty()) return;
  if (given.operations) {
    for (auto& m : rows) {
      const sample s = m.who->run(given.operations);
      std::printf("%s: %s: %.0f operations, %s %s each\n", title.c_str(), m.who->name.c_str(), s.operations,
                  number_text(s.ns / s.operations).c_str(), how.unit);
    }
    return;
  }

  const int rounds = given.quick ? 3 : how.rounds;
  const double round_ns = (given.quick ? how.round_ms / 8 : how.round_ms) * 1e6;
  for (auto& m : rows) size_round(m, round_ns, how.most_operations);
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < rows.size(); ++i) take_turn(rows[round % 2 ? rows.size() - 1 - i : i]);
    if (rows[0].is_raw)
      for (auto& m : rows) m.ratios.push_back(m.per_operation.back() / rows[0].per_operation.back());
  }

  std::size_t width = 36;
  for (auto& m : rows) width = std::max(width, m.who->name.size());
  const bool with_wall = std::any_of(rows.begin(), rows.end(), [](auto& m) { return !m.wall_per_operation.empty(); });
  std::printf("\n%s  (%d rounds)\n  %-*s %10s %8s %8s%s\n", title.c_str(), rounds, int(width), "", how.unit, "spread", "ratio",
              with_wall ? "     wall" : "");
  for (auto& m : rows) {
    const double median = quantile(m.per_operation, 0.5), low = quantile(m.per_operation, 0.25), high = quantile(m.per_operation, 0.75);
    const double ratio = m.ratios.empty() ? 0 : quantile(m.ratios, 0.5);
    const double wall = m.wall_per_operation.empty() ? -1 : quantile(m.wall_per_operation, 0.5);
    std::printf("  %-*s %10s   ±%3.0f%% %8s", int(width), m.who->name.c_str(), number_text(median).c_str(),
                median > 0 ? (high - low) / 2 / median * 100 : 0, ratio_text(ratio).c_str());
    if (with_wall) std::printf(" %8s", wall < 0 ? "" : number_text(wall).c_str());
    std::printf("\n");
    append_json(title, m.who->name, how.unit, median, low, high, ratio, wall, quantile(m.ratios, 0.25), quantile(m.ratios, 0.75));
  }
  for (auto& c : candidates)
    if (!c.missing.empty()) std::printf("  %-*s %s\n", int(width), c.name.c_str(), c.missing.c_str());
}

void headline(const std::string& title) {
  if (given.operations || !given.only.empty()) return;
  std::printf("\n%s\n", title.c_str());
}

void value(const std::string& table, const std::string& name, double number, const char* unit, double raw) {
  const double ratio = raw > 0 ? number / raw : 0;
  std::printf("  %-48s %12s %-6s %8s\n", name.c_str(), number_text(number).c_str(), unit, ratio_text(ratio).c_str());
  note(table, name, number, unit, ratio);
}

void note(const std::string& table, const std::string& name, double number, const char* unit, double ratio) {
  append_json(table, name, unit, number, number, number, ratio, -1);
}

void* libc_function(const char* name) {
  static void* const libc = ::dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
  void* found = libc ? ::dlsym(libc, name) : nullptr;
  if (!found) {
    std::fprintf(stderr, "libc.so.6 has no %s: %s\n", name, ::dlerror());
    std::exit(2);
  }
  return found;
}

}  // namespace bench
