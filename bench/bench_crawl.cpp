// A crawl of small pages with links: fibers that each call libcurl's easy interface as it blocks, against libcurl's own
// multi interface in one thread, and a thread of the kernel's for each handle.
//
// Each crawler is a process on the first core, the server of the pages (peers/pages.cpp) another on the last. They take
// turns; the figure is the crawler's CPU time a page, so its inverse is pages a second and core. The crawlers differ in
// nothing but how they wait (peers/crawl.cpp).

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "harness.hpp"
#include "peers/load.hpp"
#include "peers/process.hpp"

int main(int argc, char** argv) {
  bench::begin(argc, argv, "bench_crawl");
  const std::string self = argv[0], built = self.substr(0, self.rfind('/') + 1) + "peers/";
  if (::access((built + "peer_crawl").c_str(), X_OK) != 0) {
    std::printf("\ncrawl: not measured: libcurl is not installed (Debian: libcurl4-openssl-dev)\n");
    return 0;
  }
  const bench::cores cores;
  const std::string pages = bench::asked().quick ? "100" : "500";
  bench::listener at(bench::transport::tcp);
  const int port = ntohs(reinterpret_cast<const sockaddr_in&>(at.address).sin_port);
  bench::process server({built + "peer_pages", pages}, {}, cores.driver, at.fd, false);
  at.close();
  const std::string url = "http://127.0.0.1:" + std::to_string(port) + "/";

  std::vector<bench::candidate> all;
  struct crawler {
    const char *name, *how, *setting = nullptr;
  };
  for (const auto& c : {crawler{"curl's multi interface", "multi"}, crawler{"ringlet, hooked easy handles", "fibers"},
                        crawler{"ringlet, hooked, on epoll", "fibers", "RINGLET_ENGINE=epoll"},
                        crawler{"a thread for each handle", "threads"}}) {
    if (!bench::wanted({c.name})) continue;
    std::vector<std::string> environment;
    if (c.setting) environment.push_back(c.setting);
    auto who = std::make_shared<bench::process>(std::vector<std::string>{built + "peer_crawl", c.how, url, pages, "work"},
                                                environment, cores.peers, -1, true);
    all.push_back({c.name, [who, name = c.name](std::size_t n) {
                     const double start = who->cpu_ns(), wall = bench::wall_ns();
                     const std::string answer = who->ask("crawl " + std::to_string(n));
                     if (answer.rfind("done ", 0) != 0) {
                       std::fprintf(stderr, "bench_crawl: %s does not answer: '%s'\n", name, answer.c_str());
                       std::exit(1);
                     }
                     return bench::sample{who->cpu_ns() - start, std::atof(answer.c_str() + 5), bench::wall_ns() - wall};
                   }});
  }
  bench::compare("crawl, small pages, extraction on: ns of the crawler's CPU a page", std::move(all),
                 {.rounds = 9, .round_ms = 60});
}
