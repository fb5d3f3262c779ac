/* runlog.h - what an attempt's program writes to stdout and stderr: the file TASKDIR/log, bounded; made by the first byte.
 *
 * Of more than max bytes the first and the last half are kept, with a line between them that says how many are missing.
 *
 * Life:     runlog_init -> add, note ... -> runlog_finish (writes the tail) -> runlog_release.
 * Owns:     the descriptor, and max/2 bytes once the first half is full.
 * Threads:  one.
 * Errors:   what os_write says.
 */
#ifndef WEIR_CLUSTER_RUNLOG_H
#define WEIR_CLUSTER_RUNLOG_H

#include <stddef.h>

#include "base/err.h"

#define RUNLOG "log"

struct runlog {
    int dir, fd; /* fd -1: not made yet */
    int64_t head_max, tail_max;
    int64_t seen;    /* bytes the program wrote, and our notes */
    char *tail;      /* ring of tail_max, made when the head is full */
    int64_t in_tail; /* bytes that went into the ring */
};
void runlog_init(struct runlog *l, int task_dir, int64_t max);
/* Makes the file even if nothing is written to it. */
MUST_USE enum err_code runlog_make(struct runlog *l, struct err *err);
MUST_USE enum err_code runlog_add(struct runlog *l, const char *p, size_t n, struct err *err);
/* "[weir: ...]" on a line of its own. */
MUST_USE enum err_code runlog_note(struct runlog *l, struct err *err, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
MUST_USE enum err_code runlog_finish(struct runlog *l, struct err *err);
void runlog_release(struct runlog *l); /* fine on a runlog with fd -1 */

#endif
