/* log.h - lines for people on stderr, and a progress line on a terminal.
 *
 * Life:     log_setup once in main; progress_begin -> progress_update ... -> progress_end.
 * Owns:     nothing.
 * Threads:  every call locks; progress counters may be updated from any thread.
 * Errors:   none.  Libraries do not log: they return errors, and take a struct progress * (NULL is fine) for long work.
 *           Colours obey NO_COLOR and are used only on a terminal.  --quiet is LOG_ERROR.
 */
#ifndef WEIR_BASE_LOG_H
#define WEIR_BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_setup(enum log_level level);
/* "weir: warning: ..." */
void log_line(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Shown at most 10 times a second on a terminal: verb, done/total, rate, eta; nothing elsewhere. */
struct progress {
    const char *verb, *unit;         /* "adding", "bytes" | "files" */
    atomic_int_fast64_t done, total; /* total 0: unknown */
    int64_t started_ns;
    atomic_int_fast64_t shown_ns;
};
void progress_begin(struct progress *p, const char *verb, const char *unit, int64_t total);
void progress_add(struct progress *p, int64_t n); /* p may be NULL */
void progress_end(struct progress *p);

#endif
