/* The C face, used from C11: run by c_face_test.cpp. Each function gives NULL, or what was wrong. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ringlet/ringlet.h>

#define TEXT_OF(x) #x
#define LINE_TEXT(x) TEXT_OF(x)
#define EXPECT(condition) \
  do { \
    if (!(condition)) return "line " LINE_TEXT(__LINE__) ": " #condition; \
  } while (0)

static char order[64];

static void *speaks(void *name) {
  strcat(order, name);
  if (ringlet_sleep(0) != 0) return NULL;
  strcat(order, name);
  return name;
}

const char *c_fibers(void) {
  order[0] = 0;
  const ringlet_spawn_options options = {"speaker", 0};
  ringlet_fiber *a = ringlet_spawn(speaks, "a", &options), *b = ringlet_spawn(speaks, "b", NULL);
  EXPECT(a && b);
  EXPECT(!ringlet_is_finished(a));
  EXPECT(order[0] == 0);
  void *result = NULL;
  EXPECT(ringlet_join(a, -1, &result) == 0 && strcmp(result, "a") == 0);
  EXPECT(ringlet_join(b, -1, NULL) == 0);
  EXPECT(strcmp(order, "abab") == 0);
  EXPECT(ringlet_is_finished(b));
  ringlet_fiber_release(a);
  ringlet_fiber_release(b);
  EXPECT(ringlet_spawn(NULL, NULL, NULL) == NULL && errno == EINVAL);
  EXPECT(ringlet_join(NULL, 0, NULL) == -EINVAL);
  EXPECT(ringlet_yield() == 0);
  return NULL;
}

static int seen;

static void *sleeps_long(void *argument) {
  seen = ringlet_sleep(3600000000000);
  return argument;
}

const char *c_kill(void) {
  ringlet_fiber *f = ringlet_spawn(sleeps_long, order, NULL);
  void *result = NULL;
  EXPECT(ringlet_join(f, 1000000, &result) == -ETIMEDOUT);
  EXPECT(ringlet_join(f, 0, &result) == -ETIMEDOUT);
  EXPECT(ringlet_kill(f, -1) == 0);
  EXPECT(seen == -ECANCELED);  /* it was told, and has returned */
  EXPECT(ringlet_join(f, 0, &result) == 0 && result == order);
  ringlet_fiber_release(f);
  f = ringlet_spawn(sleeps_long, order, NULL);
  seen = 0;
  EXPECT(ringlet_kill(f, 0) == 0);  /* before it has begun */
  EXPECT(ringlet_join(f, -1, &result) == 0 && result == NULL && seen == 0);
  ringlet_fiber_release(f);
  ringlet_fiber *self = ringlet_current_fiber();
  EXPECT(ringlet_join(self, -1, NULL) == -EINVAL);
  ringlet_fiber_release(self);
  return NULL;
}

static void *doubles(void *first) {
  ringlet_greenlet *self = ringlet_current(), *parent = ringlet_parent(self);
  ringlet_greenlet_release(self);
  long *number = first;
  while (*number >= 0) {
    *number *= 2;
    if (ringlet_switch(parent, number, (void **)&number) != 0) {
      seen = 1;
      break;
    }
  }
  ringlet_greenlet_release(parent);
  return number;
}

const char *c_greenlets(void) {
  long value = 21;
  void *came = NULL;
  ringlet_greenlet *g = ringlet_greenlet_new(doubles, 0);
  EXPECT(g && !ringlet_is_started(g) && !ringlet_is_dead(g));
  EXPECT(ringlet_switch(g, &value, &came) == 0 && came == &value && value == 42);
  EXPECT(ringlet_is_started(g));
  EXPECT(ringlet_switch(g, &value, &came) == 0 && value == 84);
  value = -1;
  EXPECT(ringlet_switch(g, &value, &came) == 0 && came == &value);
  EXPECT(ringlet_is_dead(g));
  EXPECT(ringlet_switch(g, &value, &came) == 0 && came == &value);  /* to a dead one: back to us */
  ringlet_greenlet_release(g);

  seen = 0;
  value = 1;
  g = ringlet_greenlet_new(doubles, 256 * 1024);
  EXPECT(ringlet_switch(g, &value, NULL) == 0);
  EXPECT(ringlet_throw(g, &came) == 0 && seen == 1 && ringlet_is_dead(g));
  ringlet_greenlet_release(g);

  seen = 0;
  g = ringlet_greenlet_new(doubles, 0);
  EXPECT(ringlet_switch(g, &value, NULL) == 0);
  ringlet_greenlet_release(g);  /* unwinds it */
  EXPECT(seen == 1);

  ringlet_greenlet *main = ringlet_current(), *child = ringlet_greenlet_new(doubles, 0);
  EXPECT(ringlet_parent(main) == NULL);
  EXPECT(ringlet_set_parent(child, child) == -EINVAL);
  EXPECT(ringlet_set_parent(child, main) == 0);
  EXPECT(ringlet_set_parent(main, child) == -EINVAL);
  EXPECT(ringlet_switch(NULL, NULL, NULL) == -EINVAL);
  EXPECT(ringlet_greenlet_new(NULL, 0) == NULL && errno == EINVAL);
  ringlet_greenlet_release(child);
  ringlet_greenlet_release(main);
  return NULL;
}

static ringlet_greenlet *foreign;
static ringlet_fiber *foreign_fiber;

int c_switch_to_foreign(void) { return ringlet_switch(foreign, NULL, NULL); }
int c_join_foreign(void) { return ringlet_join(foreign_fiber, -1, NULL); }
void c_make_foreign(void) {
  foreign = ringlet_greenlet_new(doubles, 0);
  foreign_fiber = ringlet_spawn(speaks, "", NULL);
}
void c_drop_foreign(void) {
  ringlet_greenlet_release(foreign);
  ringlet_join(foreign_fiber, -1, NULL);
  ringlet_fiber_release(foreign_fiber);
}
