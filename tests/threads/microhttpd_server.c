/* A stranger's server with a thread for each connection, as libmicrohttpd's manual has it: answers each request with its path,
   ten times. `microhttpd_server PORT`; ends on SIGTERM with 0. Nothing in here knows of ringlet. */
#include <microhttpd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum MHD_Result answer(void *with, struct MHD_Connection *connection, const char *url, const char *method, const char *version,
                              const char *data, size_t *size, void **state) {
  static int seen;
  char body[10 * 512 + 1] = "";
  struct MHD_Response *response;
  enum MHD_Result result;
  (void)with, (void)method, (void)version, (void)data, (void)size;
  if (*state != &seen) {
    *state = &seen;
    return MHD_YES;
  }
  if (strlen(url) > 512) return MHD_NO;
  for (int i = 0; i < 10; ++i) strcat(body, url);
  response = MHD_create_response_from_buffer(strlen(body), body, MHD_RESPMEM_MUST_COPY);
  result = MHD_queue_response(connection, MHD_HTTP_OK, response);
  MHD_destroy_response(response);
  return result;
}

int main(int argc, char **argv) {
  sigset_t ends;
  int got;
  struct MHD_Daemon *daemon;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigprocmask(SIG_BLOCK, &ends, NULL);
  daemon = MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD, argc > 1 ? (unsigned short)atoi(argv[1]) : 0, NULL, NULL, &answer,
                            NULL, MHD_OPTION_LISTEN_BACKLOG_SIZE, 4096u, MHD_OPTION_CONNECTION_LIMIT, 2000u, MHD_OPTION_END);
  if (!daemon) {
    perror("MHD_start_daemon");
    return 1;
  }
  sigwait(&ends, &got);
  MHD_stop_daemon(daemon);
  return 0;
}
