// crawl: a crawler for one site, in plain blocking code on fibers.
//
// This file only sets the stage: limits, signals, libraries, output. The crawl is in crawl.cpp, and what makes its
// blocking calls cheap is one line here: ringlet::hooks::enable().

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <string>

#include <curl/curl.h>
#include <fcntl.h>
#include <libxml/parser.h>
#include <unistd.h>

#include <ringlet/hooks.hpp>

#include "crawl.hpp"
#include "descriptors.hpp"
#include "options.hpp"

namespace {

crawl::crawler* running = nullptr;

// The first interrupt finishes what is in flight; a second one ends the program, as it would have without us.
void on_interrupt(int) {
  if (running) running->stop();
}

int open_output(const crawl::options& wanted) {
  if (wanted.output.empty() || wanted.output == "-") return STDOUT_FILENO;
  const int fd = open(wanted.output.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0)
    throw crawl::bad_usage("--output " + wanted.output + ": " + std::strerror(errno) +
                           "\ngive a file that can be written, or leave it out for standard output");
  return fd;
}

void make_save_directory(const crawl::options& wanted) {
  if (wanted.save_directory.empty()) return;
  std::error_code failed;
  std::filesystem::create_directories(wanted.save_directory, failed);
  if (failed)
    throw crawl::bad_usage("--save " + wanted.save_directory + ": " + failed.message() +
                           "\ngive a directory that can be made and written");
}

bool write_summary(const crawl::options& wanted, const crawl::report& told) {
  if (!wanted.quiet) std::fputs(told.summary_text().c_str(), stderr);
  if (wanted.summary_file.empty()) return true;
  std::FILE* file = std::fopen(wanted.summary_file.c_str(), "w");
  const bool written = file && std::fputs(told.summary_json().c_str(), file) >= 0;
  const bool closed = file && std::fclose(file) == 0;
  if (!written || !closed)
    std::fprintf(stderr, "crawl: --summary %s: %s\n", wanted.summary_file.c_str(), std::strerror(errno));
  return written && closed;
}

int crawl_main(int argc, char** argv) {
  crawl::options wanted = crawl::parse_options(argc, argv);
  make_save_directory(wanted);
  const int output = open_output(wanted);

  const crawl::descriptors room(wanted.concurrency, wanted.save_directory.empty() ? 0 : 1);
  if (!room.warning().empty()) std::fprintf(stderr, "crawl: %s\n", room.warning().c_str());
  wanted.concurrency = room.fibers();
  wanted.fetch.thrifty = room.is_thrifty();

  // Both set up what all fibers share, and must not be done by two at once.
  curl_global_init(CURL_GLOBAL_DEFAULT);
  xmlInitParser();
  std::signal(SIGPIPE, SIG_IGN);  // a reader that went away shows as EPIPE

  ringlet::hooks::enable();
  crawl::crawler crawler(wanted, output, !wanted.quiet && isatty(STDERR_FILENO));
  running = &crawler;
  struct sigaction interrupt {};
  interrupt.sa_handler = on_interrupt;
  interrupt.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  sigaction(SIGINT, &interrupt, nullptr);
  crawler.run();
  running = nullptr;

  const crawl::report& told = crawler.told();
  const bool summarised = write_summary(wanted, told);
  if (!told.output_error().empty())
    std::fprintf(stderr, "crawl: the lines could not be written: %s\n", told.output_error().c_str());
  if (told.succeeded() == 0 && !told.first_error().empty())
    std::fprintf(stderr, "crawl: no page was fetched well; the first error: %s\n", told.first_error().c_str());
  return summarised && told.output_error().empty() && told.succeeded() > 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return crawl_main(argc, argv);
  } catch (const crawl::bad_usage& wrong) {
    std::fprintf(stderr, "crawl: %s\n", wrong.what());
    return 2;
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "crawl: %s\n", failure.what());
    return 1;
  }
}
