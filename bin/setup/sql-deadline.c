/*
 * SQL function patina_deadline(ms): statements of this connection are interrupted once ms have gone
 * by; 0 takes the deadline back. The answer is 1 when the deadline before was passed, else 0.
 *
 * better-sqlite3 builds SQLite without its progress handler, so a thread keeps the time. It goes on
 * interrupting while a deadline is passed: SQLite forgets an interrupt that comes between two
 * statements. The lock keeps a connection from being closed while it is interrupted.
 */
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include "sqlite3ext.h"
SQLITE_EXTENSION_INIT1

typedef struct Watch {
  sqlite3 *db;
  sqlite3_int64 deadline_ms; /* 0 = none */
  int is_passed;
  struct Watch *next;
} Watch;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t armed = PTHREAD_COND_INITIALIZER;
static Watch *watches;
static int armed_count, has_thread;

static sqlite3_int64 now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (sqlite3_int64)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void *keep_time(void *unused) {
  const struct timespec tick = {0, 10 * 1000000};
  (void)unused;
  for (;;) {
    pthread_mutex_lock(&lock);
    while (armed_count == 0) pthread_cond_wait(&armed, &lock);
    for (Watch *watch = watches; watch != NULL; watch = watch->next) {
      if (watch->deadline_ms == 0 || now_ms() < watch->deadline_ms) continue;
      watch->is_passed = 1;
      sqlite3_interrupt(watch->db);
    }
    pthread_mutex_unlock(&lock);
    nanosleep(&tick, NULL);
  }
  return NULL;
}

/* Signals are for the threads of the program. */
static int start_thread(void) {
  sigset_t all, before;
  pthread_t thread;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  has_thread = pthread_create(&thread, NULL, keep_time, NULL) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return has_thread && pthread_detach(thread) == 0;
}

static void set_deadline(sqlite3_context *context, int count, sqlite3_value **values) {
  Watch *watch = sqlite3_user_data(context);
  sqlite3_int64 ms = sqlite3_value_int64(values[0]);
  (void)count;
  pthread_mutex_lock(&lock);
  sqlite3_result_int(context, watch->is_passed);
  armed_count += (ms > 0) - (watch->deadline_ms > 0);
  watch->is_passed = 0;
  watch->deadline_ms = ms > 0 ? now_ms() + ms : 0;
  if (armed_count > 0 && !has_thread && !start_thread())
    sqlite3_result_error(context, "no thread to keep the time", -1);
  pthread_cond_signal(&armed);
  pthread_mutex_unlock(&lock);
}

static void forget(void *data) {
  Watch **at = &watches;
  pthread_mutex_lock(&lock);
  while (*at != data) at = &(*at)->next;
  armed_count -= (*at)->deadline_ms > 0;
  *at = (*at)->next;
  pthread_mutex_unlock(&lock);
  sqlite3_free(data);
}

__attribute__((visibility("default"))) int sqlite3_extension_init(
    sqlite3 *db, char **error, const sqlite3_api_routines *api) {
  SQLITE_EXTENSION_INIT2(api);
  (void)error;
  Watch *watch = sqlite3_malloc(sizeof *watch);
  if (watch == NULL) return SQLITE_NOMEM;
  *watch = (Watch){.db = db};
  pthread_mutex_lock(&lock);
  watch->next = watches;
  watches = watch;
  pthread_mutex_unlock(&lock);
  int result = sqlite3_create_function_v2(db, "patina_deadline", 1, SQLITE_UTF8 | SQLITE_DIRECTONLY,
                                          watch, set_deadline, NULL, NULL, forget);
  /* The thread runs this code whatever becomes of the connection. */
  return result == SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : result;
}
