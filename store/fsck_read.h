/* fsck_read.h - long reads of files that nobody else may want soon.
 *
 * A file of which most is in the page cache is read from there.  Any other is read past it: the pages would push out what is in use, and
 * on a machine whose memory was never touched before each costs more than reading it (2.7 CPU seconds a GiB were measured,
 * against 0.05).  Where the file system cannot do that, reading is ordinary.
 *
 * Life:     scan_init -> span_init -> span_at, span_some ... -> span_release; the descriptor stays the caller's.
 * Owns:     a span its memory, which grows to the longest piece asked for.
 * Threads:  a span belongs to one thread; several may read one file.
 * Errors:   ERR_DAMAGED when the file ends too early.
 */
#ifndef WEIR_STORE_FSCK_READ_H
#define WEIR_STORE_FSCK_READ_H

#include <stdatomic.h>

#include "base/hash.h"

#define SPAN_BYTES ((size_t)1 << 20)

struct scan { /* an open file */
    int fd;
    atomic_bool direct;
};
struct span { /* a part of it in memory */
    struct scan *file;
    uint8_t *p;
    size_t size;
    int64_t from; /* p holds [from, from + n) of the file */
    size_t n;
};

void scan_init(struct scan *s, int fd, int64_t file_bytes);
void span_init(struct span *s,
               struct scan *file); /* on zeroed storage, or to go on with another file */
void span_release(struct span *s); /* fine on zeroed storage */
/* Exactly n bytes at off; valid until the next call. */
MUST_USE enum err_code span_at(struct span *s, int64_t off, size_t n, const uint8_t **out,
                               struct err *err);
/* As many as there are at once, at most max; *n = 0 at the end of the file. */
MUST_USE enum err_code span_some(struct span *s, int64_t off, size_t max, const uint8_t **out,
                                 size_t *n, struct err *err);
/* All of the file, which is read ahead by another thread when it does not come from memory.  step: told of each piece, may be NULL. */
MUST_USE enum err_code scan_hash(struct scan *s, int64_t file_bytes, struct digest *out,
                                 void (*step)(void *arg, int64_t bytes), void *arg,
                                 struct err *err);

#endif
