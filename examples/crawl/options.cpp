#include "options.hpp"

#include <charconv>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <limits>

#include <getopt.h>

#include "frontier.hpp"
#include "robots.hpp"

namespace crawl {
namespace {

constexpr const char* help = R"(usage: crawl [options] URL...
       crawl [options] --urls FILE

Fetches the pages that can be reached from URL by links, breadth first, and writes one JSON line a page. Stays on the
scheme, host and port of URL, below its directory; obeys robots.txt. Plain blocking code, a fiber a transfer.

what to fetch
  -d, --depth N          follow links N steps deep (without limit)
  -n, --max-pages N      fetch at most N pages (without limit)
      --scope WHAT       dir: below the directory of URL (default); host: all of its host
  -u, --urls FILE        fetch the URLs of FILE, a line each ('-': standard input), and follow nothing,
                         neither links nor redirects
      --ignore-robots    do not ask for robots.txt; only for hosts of this machine (localhost, 127.*, [::1])
how
  -c, --concurrency N    transfers in flight at once, each a fiber (16)
  -t, --timeout SECONDS  for one try (30)
  -r, --retries N        further tries after an error that may pass (2)
      --backoff SECONDS  pause before the second try, doubled for each further one (0.5)
      --max-bytes SIZE   give up on larger bodies; 500k, 64M (64M)
      --agent TEXT       User-Agent; its first word is the name looked for in robots.txt (ringlet-crawl/0.1)
what to write
  -o, --output FILE      the JSON lines (standard output)
      --save DIR         keep the bodies of successful pages as files below DIR
      --summary FILE     the summary as JSON, too; the text goes to standard error
  -q, --quiet            no progress line, no summary
  -h, --help   --version

environment: RINGLET_ENGINE=uring|epoll forces how the library waits.
exit status: 0 the crawl ended and some page was fetched well; 1 none was, or the output could not be written;
             2 the command line is wrong
)";

template <class Number>
Number number(const char* option, const char* text, double lowest, double highest) {
  Number value{};
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  const auto seen = static_cast<double>(value);
  if (error != std::errc() || stop != end || !std::isfinite(seen) || seen < lowest || seen > highest) {
    char range[80];
    std::snprintf(range, sizeof range, "%.15g to %.15g", lowest, highest);
    throw bad_usage(std::string(option) + " " + text + ": not a number it can take\ngive a " +
                    (std::is_integral_v<Number> ? "whole " : "") + "number from " + range);
  }
  return value;
}

std::chrono::milliseconds seconds(const char* option, const char* text, double lowest) {
  return std::chrono::milliseconds(static_cast<long>(number<double>(option, text, lowest, 86400) * 1000));
}

std::uint64_t size(const char* option, std::string text) {
  std::uint64_t unit = 1;
  if (!text.empty()) {
    const char suffix = text.back() | 32;
    unit = suffix == 'k' ? 1 << 10 : suffix == 'm' ? 1 << 20 : suffix == 'g' ? 1 << 30 : 1;
    if (unit > 1) text.pop_back();
  }
  return number<std::uint64_t>(option, text.c_str(), 1, 1e12) * unit;
}

url checked_url(const std::string& text, const std::string& place) {
  if (auto parsed = parse_url(text)) return *parsed;
  if (auto guessed = parse_url("http://" + text); guessed && text.find("://") == text.npos)
    throw bad_usage(place + text + ": no scheme\nwrite " + guessed->text() + " or https://...");
  for (unsigned char c : text)
    if (c >= 0x80)
      throw bad_usage(place + text + ": not a URL that can be fetched\nwrite a host name beyond ASCII in its xn-- form");
  throw bad_usage(place + text + ": not a URL that can be fetched\nwrite http://HOST[:PORT]/PATH or https://...");
}

std::vector<url> read_list(const std::string& name) {
  std::ifstream file;
  if (name != "-") {
    file.open(name);
    if (!file) throw bad_usage("--urls " + name + ": " + std::strerror(errno) + "\ngive a file with a URL on each line");
  }
  std::istream& in = name == "-" ? std::cin : file;
  std::vector<url> out;
  std::string line;
  for (std::size_t n = 1; std::getline(in, line); ++n) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty() && line[0] != '#') out.push_back(checked_url(line, name + ":" + std::to_string(n) + ": "));
  }
  if (out.empty()) throw bad_usage("--urls " + name + ": no URL in it\ngive a file with a URL on each line");
  return out;
}

enum long_only { opt_scope = 256, opt_ignore_robots, opt_backoff, opt_max_bytes, opt_agent, opt_save, opt_summary, opt_version };

const option long_options[] = {{"depth", required_argument, nullptr, 'd'},
                               {"max-pages", required_argument, nullptr, 'n'},
                               {"scope", required_argument, nullptr, opt_scope},
                               {"urls", required_argument, nullptr, 'u'},
                               {"ignore-robots", no_argument, nullptr, opt_ignore_robots},
                               {"concurrency", required_argument, nullptr, 'c'},
                               {"timeout", required_argument, nullptr, 't'},
                               {"retries", required_argument, nullptr, 'r'},
                               {"backoff", required_argument, nullptr, opt_backoff},
                               {"max-bytes", required_argument, nullptr, opt_max_bytes},
                               {"agent", required_argument, nullptr, opt_agent},
                               {"output", required_argument, nullptr, 'o'},
                               {"save", required_argument, nullptr, opt_save},
                               {"summary", required_argument, nullptr, opt_summary},
                               {"quiet", no_argument, nullptr, 'q'},
                               {"help", no_argument, nullptr, 'h'},
                               {"version", no_argument, nullptr, opt_version},
                               {}};

void check_together(const options& wanted) {
  if (product_token_of(wanted.fetch.agent).empty() || wanted.fetch.agent.find_first_of("\r\n") != std::string::npos)
    throw bad_usage("--agent " + wanted.fetch.agent +
                    ": no name that robots.txt could mean\nbegin it with a word of letters, '-' and '_', as in "
                    "my-crawler/1.0 (+https://example.com/crawler)");
  if (!wanted.ignore_robots) return;
  for (const url& each : wanted.start)
    if (!each.is_loopback())
      throw bad_usage("--ignore-robots: " + each.host +
                      " is not this machine\nleave the option out, or crawl localhost, 127.* or [::1]");
}

}  // namespace

options parse_options(int argc, char** argv) {
  options out;
  out.max_depth = frontier::no_limit;
  out.max_pages = std::numeric_limits<std::size_t>::max();
  out.fetch.agent = "ringlet-crawl/0.1";
  std::string list;
  opterr = 0;
  for (int c; (c = getopt_long(argc, argv, ":d:n:u:c:t:r:o:qh", long_options, nullptr)) != -1;) {
    switch (c) {
      case 'd': out.max_depth = number<unsigned>("--depth", optarg, 0, 1e6); break;
      case 'n': out.max_pages = number<std::size_t>("--max-pages", optarg, 1, 1e12); break;
      case 'u': list = optarg; break;
      case 'c': out.concurrency = number<std::size_t>("--concurrency", optarg, 1, 1e6); break;
      case 't': out.fetch.timeout = seconds("--timeout", optarg, 0.001); break;
      case 'r': out.fetch.retries = number<unsigned>("--retries", optarg, 0, 100); break;
      case 'o': out.output = optarg; break;
      case 'q': out.quiet = true; break;
      case opt_scope:
        if (std::strcmp(optarg, "dir") != 0 && std::strcmp(optarg, "host") != 0)
          throw bad_usage(std::string("--scope ") + optarg + ": no such scope\ngive dir or host");
        out.within = *optarg == 'h' ? scope::host : scope::directory;
        break;
      case opt_ignore_robots: out.ignore_robots = true; break;
      case opt_backoff: out.fetch.backoff = seconds("--backoff", optarg, 0); break;
      case opt_max_bytes: out.fetch.max_bytes = size("--max-bytes", optarg); break;
      case opt_agent: out.fetch.agent = optarg; break;
      case opt_save: out.save_directory = optarg; break;
      case opt_summary: out.summary_file = optarg; break;
      case 'h': std::fputs(help, stdout); std::exit(0);
      case opt_version: std::puts("crawl 0.1 (ringlet example)"); std::exit(0);
      case ':': throw bad_usage(std::string(argv[optind - 1]) + ": its value is missing\nsee crawl --help");
      default: throw bad_usage(std::string(argv[optind - 1]) + ": no such option\nsee crawl --help");
    }
  }
  if (!list.empty() && optind < argc)
    throw bad_usage(std::string(argv[optind]) + ": a URL beside --urls\nadd it to the file, or leave --urls out");
  if (list.empty() && optind == argc) throw bad_usage("no URL\ngive one to start from, as in crawl http://localhost:8000/");
  for (int i = optind; i < argc; ++i) out.start.push_back(checked_url(argv[i], ""));
  if (!list.empty()) {
    out.start = read_list(list);
    out.discover = false;
  }
  check_together(out);
  out.fetch.keep_body = !out.save_directory.empty();
  return out;
}

}  // namespace crawl
