/* pool.h - a fixed set of threads behind one bounded queue.
 *
 * Life:     pool_new -> pool_submit ... -> pool_wait (may go on submitting afterwards) -> pool_free (waits).
 * Owns:     its threads; jobs own their argument.
 * Threads:  submit and wait from one thread at a time; jobs run anywhere.  Jobs must not submit to their own pool.
 * Errors:   the first error of any job, by submission order among those that ran, comes out of pool_wait; after an error jobs
 *           not yet started are still called, with cancelled = true, so that they can release what they own.
 *           ERR_IO when threads cannot be made (seam).
 */
#ifndef WEIR_BASE_POOL_H
#define WEIR_BASE_POOL_H

#include <stdbool.h>

#include "base/err.h"

struct pool;
typedef enum err_code (*pool_fn)(void *arg, bool cancelled, struct err *err);

MUST_USE enum err_code pool_new(int threads, int queue_max, struct pool **out, struct err *err);
/* Blocks while the queue is full. */
void pool_submit(struct pool *p, pool_fn fn, void *arg);
MUST_USE enum err_code pool_wait(struct pool *p, struct err *err);
void pool_free(struct pool *p); /* NULL is fine */

#endif
