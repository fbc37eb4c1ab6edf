/*
 * SQL function patina_deadline(ms): statements of this connection are interrupted once ms have gone
 * by; 0 takes the deadline back. The answer is 1 when the deadline before was passed, else 0.
 *
 * better-sqlite3 builds SQLite without its progress handler, so a thread keeps the time. It goes on
 * interrupting while a deadline is passed: SQLite forgets an interrupt that comes between two
 * statements. The lock keeps a connection from being closed while it is interrupted.
 *
 * And the end of connections whose thread is ended from outside: better-sqlite3 then closes what is
 * open with sqlite3_close, which refuses while cr-sqlite has statements, and the write lock of a
 * transaction that was under way would stay for as long as the process lives.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include "sqlite3ext.h"
SQLITE_EXTENSION_INIT1

typedef struct Watch {
  sqlite3 *db;
  pthread_t owner;
  sqlite3_int64 deadline_ms; /* 0 = none */
  int is_passed;
  struct Watch *next;
} Watch;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t armed = PTHREAD_COND_INITIALIZER;
static Watch *watches;
static int armed_count, has_thread;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t owner_key;

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

/* A connection of the calling thread that is still open, or NULL. */
static sqlite3 *abandoned(void) {
  sqlite3 *db = NULL;
  pthread_mutex_lock(&lock);
  for (Watch *watch = watches; watch != NULL && db == NULL; watch = watch->next)
    if (pthread_equal(watch->owner, pthread_self())) db = watch->db;
  pthread_mutex_unlock(&lock);
  return db;
}

/* At the end of a thread, after everything of JavaScript: undoes what is under way, and closes. */
static void close_abandoned(void *unused) {
  sqlite3 *db;
  (void)unused;
  while ((db = abandoned()) != NULL) {
    sqlite3_stmt *statement;
    sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    sqlite3_exec(db, "SELECT crsql_finalize()", NULL, NULL, NULL);
    while ((statement = sqlite3_next_stmt(db, NULL)) != NULL) sqlite3_finalize(statement);
    /* Its functions go with it, and so the watch; one that stays all the same is not tried twice. */
    if (sqlite3_close(db) != SQLITE_OK) return;
  }
}

/* The first connection's. SQLite has to stay as well: Node unloads it with the last thread it had. */
static void stay(void) {
  Dl_info sqlite;
  if (dladdr((const void *)(size_t)sqlite3_api->close, &sqlite) != 0)
    dlopen(sqlite.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
  pthread_key_create(&owner_key, close_abandoned);
}

__attribute__((visibility("default"))) int sqlite3_extension_init(
    sqlite3 *db, char **error, const sqlite3_api_routines *api) {
  SQLITE_EXTENSION_INIT2(api);
  (void)error;
  Watch *watch = sqlite3_malloc(sizeof *watch);
  if (watch == NULL) return SQLITE_NOMEM;
  *watch = (Watch){.db = db, .owner = pthread_self()};
  pthread_once(&once, stay);
  pthread_setspecific(owner_key, db);
  pthread_mutex_lock(&lock);
  watch->next = watches;
  watches = watch;
  pthread_mutex_unlock(&lock);
  int result = sqlite3_create_function_v2(db, "patina_deadline", 1, SQLITE_UTF8 | SQLITE_DIRECTONLY,
                                          watch, set_deadline, NULL, NULL, forget);
  /* The thread runs this code whatever becomes of the connection. */
  return result == SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : result;
}
