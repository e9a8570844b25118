#include "store.hpp"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include <fcntl.h>
#include <unistd.h>

#include "page.hpp"
#include "url.hpp"

namespace crawl {
namespace {

constexpr std::size_t name_limit = 240;  // NAME_MAX is 255

std::string escape_slashes(std::string_view text) {
  std::string out;
  for (char c : text) c == '/' ? out += "%2F" : out += c;
  return out;
}

std::string shorten(std::string name) {
  if (name.size() <= name_limit) return name;
  fnv1a hash;
  hash.add(name);
  return name.substr(0, name_limit - 20) + "~" + std::to_string(hash.value());
}

bool write_file(const std::string& path, std::string_view body) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return false;
  int failed = 0;
  while (!body.empty() && !failed) {
    const ssize_t written = write(fd, body.data(), body.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0)
      failed = errno;
    else
      body.remove_prefix(static_cast<std::size_t>(written));
  }
  if (close(fd) != 0 && !failed) failed = errno;
  errno = failed;
  return failed == 0;
}

}  // namespace

std::string store::save(const url& where, std::string_view body, std::string& error) const {
  std::string path = directory_;
  std::string_view rest = std::string_view(where.path).substr(1);
  for (auto slash = rest.find('/'); slash != rest.npos; slash = rest.find('/')) {
    path += "/" + shorten(std::string(rest.substr(0, slash)));
    rest.remove_prefix(slash + 1);
  }
  std::error_code failed;
  std::filesystem::create_directories(path, failed);
  std::string name = rest.empty() ? "index.html" : std::string(rest);
  if (where.has_query) name += "?" + escape_slashes(where.query);
  path += "/" + shorten(name);
  if (!failed && write_file(path, body)) return path;
  const int cause = failed ? failed.value() : errno;
  if (cause == ENOTDIR || cause == EISDIR || cause == EEXIST) {
    path = directory_ + "/" + shorten(escape_slashes(where.target().substr(1)));
    if (write_file(path, body)) return path;
  }
  error = "cannot write " + path + ": " + std::strerror(errno ? errno : cause);
  return {};
}

}  // namespace crawl
