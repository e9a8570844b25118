#include "report.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include <sys/resource.h>
#include <unistd.h>

namespace crawl {
namespace {

constexpr std::size_t write_at_bytes = 64 * 1024;
constexpr std::size_t wait_at_bytes = 4 * 1024 * 1024;

template <class... Args>
std::string format(const char* how, Args... args) {
  char text[512];
  const int length = std::snprintf(text, sizeof text, how, args...);
  return std::string(text, std::min<std::size_t>(length > 0 ? length : 0, sizeof text - 1));
}

std::size_t peak_resident_kilobytes() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  return static_cast<std::size_t>(used.ru_maxrss);
}

}  // namespace

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (unsigned char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c < 0x20 || c >= 0x7f) {
      out += format("\\u%04x", c);
    } else {
      out += static_cast<char>(c);
    }
  }
  return out += '"';
}

report::report(int fd, bool progress, const frontier& queue, const in_flight& flights)
    : fd_(fd), progress_(progress), queue_(queue), flights_(flights) {}

void report::add(const item& what, const page& got, std::size_t new_links, const std::string& redirect,
                 const std::string& file) {
  if (got.error == "robots") {
    ++skipped_;
  } else {
    ++fetched_;
    bytes_ += got.bytes;
    tried_again_ += got.tries > 1;
    redirects_ += !redirect.empty() && got.error.empty();
    succeeded_ += got.error.empty();
  }
  if (!got.error.empty()) {
    if (errors_.empty())
      first_error_ = what.where.text() + ": " + (got.message.empty() ? "status " + std::to_string(got.status) : got.message);
    ++errors_[got.error];
  }

  std::string line = "{\"url\":" + json_string(what.where.text());
  line += format(",\"status\":%ld,\"bytes\":%llu", got.status, static_cast<unsigned long long>(got.bytes));
  line += ",\"type\":" + (got.type.empty() ? "null" : json_string(got.type));
  line += format(",\"depth\":%u,\"ms\":%.1f,\"links\":%zu,\"new_links\":%zu,\"tries\":%u", what.depth, got.milliseconds,
                 got.links.size(), new_links, got.tries);
  line += ",\"error\":" + (got.error.empty() ? "null" : json_string(got.error));
  if (!got.message.empty()) line += ",\"message\":" + json_string(got.message);
  if (got.tries > 0) line += format(",\"hash\":\"fnv1a64:%016llx\"", static_cast<unsigned long long>(got.hash));
  if (!redirect.empty()) line += ",\"redirect\":" + json_string(redirect);
  if (!file.empty()) line += ",\"file\":" + json_string(file);
  line += "}\n";
  buffer_ += line;
  if (buffer_.size() >= write_at_bytes) wake_.set();
  while (buffer_.size() >= wait_at_bytes && output_error_.empty() && !closed_) {
    room_.clear();
    room_.wait();
  }
}

void report::close() {
  closed_ = true;
  wake_.set();
}

void report::run() {
  using namespace std::chrono_literals;
  while (!closed_ || (!buffer_.empty() && output_error_.empty())) {
    wake_.wait(200ms);
    if (!closed_) wake_.clear();
    flush();
    if (progress_) draw();
  }
  if (progress_) std::fputs("\r\033[K", stderr);
  room_.set();
}

void report::flush() {
  std::string batch;
  batch.swap(buffer_);
  room_.set();
  std::string_view rest = batch;
  while (!rest.empty() && output_error_.empty()) {
    const ssize_t written = write(fd_, rest.data(), rest.size());
    if (written >= 0)
      rest.remove_prefix(static_cast<std::size_t>(written));
    else if (errno != EINTR)
      output_error_ = std::strerror(errno);
  }
  room_.set();
}

double report::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
}

void report::draw() const {
  std::size_t failed = 0;
  for (const auto& [name, count] : errors_) failed += count;
  std::fprintf(stderr, "\r\033[K%zu pages  %.0f/s  %.1f MB  in flight %zu  queued %zu  errors %zu  %.0f s", fetched_,
               static_cast<double>(fetched_) / seconds(), static_cast<double>(bytes_) / 1e6, flights_.now,
               queue_.queued(), failed, seconds());
  std::fflush(stderr);
}

std::string report::summary_text() const {
  const double wall = seconds();
  std::string out;
  out += format("pages        %zu fetched: %zu well (%zu redirects), %zu badly; %.1f pages/s\n", fetched_, succeeded_,
                redirects_, fetched_ - succeeded_, static_cast<double>(fetched_) / wall);
  out += format("bytes        %llu\n", static_cast<unsigned long long>(bytes_));
  out += "errors       ";
  if (errors_.empty()) out += "none";
  for (const auto& [name, count] : errors_) out += format("%s %zu  ", name.c_str(), count);
  out += format("\nnot fetched  %zu by robots.txt, %zu links out of scope, %zu queued at the end\n", skipped_,
                out_of_scope_, queue_.queued());
  out += format("tried again  %zu pages\n", tried_again_);
  out += format("wall         %.2f s\n", wall);
  out += format("peak         %zu transfers in flight, %.1f MB resident\n", flights_.peak,
                static_cast<double>(peak_resident_kilobytes()) / 1024);
  return out;
}

std::string report::summary_json() const {
  const double wall = seconds();
  std::string out = format(
      "{\"pages\":%zu,\"succeeded\":%zu,\"redirects\":%zu,\"robots\":%zu,\"out_of_scope\":%zu,\"queued\":%zu,"
      "\"tried_again\":%zu,\"bytes\":%llu,\"seconds\":%.3f,\"pages_per_second\":%.1f,\"peak_in_flight\":%zu,"
      "\"peak_rss_kb\":%zu,\"errors\":{",
      fetched_, succeeded_, redirects_, skipped_, out_of_scope_, queue_.queued(), tried_again_,
      static_cast<unsigned long long>(bytes_), wall, static_cast<double>(fetched_) / wall, flights_.peak,
      peak_resident_kilobytes());
  const char* separator = "";
  for (const auto& [name, count] : errors_) {
    out += separator + json_string(name) + format(":%zu", count);
    separator = ",";
  }
  return out + "}}\n";
}

}  // namespace crawl
