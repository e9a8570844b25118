// The same three URLs, one after the other and then together, with the same function and the same libcurl.
//
// fetch() is the easy interface as everybody writes it: it blocks. Called three times in a row it takes the sum of the
// waits; called in three fibers, it takes the longest. The server is part of the program, three slow pages on
// loopback, so that the numbers mean something without a network: it runs in a child process, out of our fibers' way.
//
//   three_urls              brings its own server (each page takes 300 ms)
//   three_urls URL URL URL  uses these
//
// Prints expected/three_urls.txt, with other numbers.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <arpa/inet.h>
#include <csignal>
#include <curl/curl.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ringlet/fiber.hpp>
#include <ringlet/hooks.hpp>

namespace {

// --- what the example is about ---------------------------------------------------------------------------------------

std::size_t count_bytes(char*, std::size_t, std::size_t size, void* total) {
  *static_cast<std::size_t*>(total) += size;
  return size;
}

void fetch(const std::string& url) {
  std::size_t bytes = 0;
  CURL* handle = curl_easy_init();
  curl_easy_setopt(handle, CURLOPT_URL, url.c_str());
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, 20000L);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, count_bytes);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &bytes);
  const CURLcode result = curl_easy_perform(handle);
  long status = 0;
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
  std::printf("  %s: %ld, %zu bytes%s%s\n", url.substr(url.rfind('/') + 1).c_str(), status, bytes,
              result == CURLE_OK ? "" : ", ", result == CURLE_OK ? "" : curl_easy_strerror(result));
  curl_easy_cleanup(handle);
}

template <class Work>
double seconds_of(Work work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void compare(const std::vector<std::string>& urls) {
  std::puts("one after the other:");
  const double in_a_row = seconds_of([&] {
    for (const auto& url : urls) fetch(url);
  });
  std::printf("%.2f s\n", in_a_row);

  std::puts("together, a fiber each:");
  ringlet::hooks::enable();
  const double together = seconds_of([&] {
    std::vector<ringlet::any_fiber> fetches;
    for (const auto& url : urls) fetches.push_back(ringlet::spawn([&url] { fetch(url); }));
    ringlet::joinall(fetches);
  });
  std::printf("%.2f s, %.1f times as fast\n", together, in_a_row / together);
}

// --- the slow server --------------------------------------------------------------------------------------------------

void answer(int client) {
  char request[2048];
  if (read(client, request, sizeof request) > 0) {
    usleep(300000);
    const std::string body(1000, 'x');
    const std::string page = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n" + body;
    if (write(client, page.data(), page.size()) < 0) _exit(1);
  }
  close(client);
}

// Returns the server's process; it forks again for each client, and all of them end with their parents.
pid_t start_server(int& port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), length) != 0 || listen(listener, 16) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    std::perror("three_urls: cannot serve on 127.0.0.1");
    std::exit(1);
  }
  port = ntohs(address.sin_port);
  const pid_t server = fork();
  if (server != 0) {
    close(listener);
    return server;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::signal(SIGCHLD, SIG_IGN);
  for (;;) {
    const int client = accept(listener, nullptr, nullptr);
    if (client < 0) continue;
    if (fork() == 0) {
      answer(client);
      _exit(0);
    }
    close(client);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> urls(argv + 1, argv + argc);
  pid_t server = 0;
  if (urls.empty()) {
    int port = 0;
    server = start_server(port);
    for (const char* name : {"a", "b", "c"}) urls.push_back("http://127.0.0.1:" + std::to_string(port) + "/" + name);
  }
  curl_global_init(CURL_GLOBAL_DEFAULT);
  compare(urls);
  if (server > 0) {
    kill(server, SIGKILL);
    waitpid(server, nullptr, 0);
  }
}
