/* stream.h - one pass over a large file: read ahead, cut, hash the whole, hash the chunks.
 *
 *             reader                         thread 1               thread 2
 *   file ──► ring, 48 MiB ── cut ──► ...     SHA-256 of the file    SHA-256 of two chunks at a time
 *
 * The ring is mapped twice, end to end, so that any chunk in it is one piece of memory.  Bytes are read once; the caller writes
 * a chunk from the ring and asks for the next ones.
 *
 * Life:     stream_new -> (stream_start -> stream_take ... until none -> stream_finish)* -> stream_free.
 * Owns:     STREAM_RING bytes and three threads.  Chunks handed out are valid until the next stream_take.
 * Threads:  one caller.
 * Errors:   ERR_IO; ERR_CHANGED when the file ends early.
 */
#ifndef WEIR_STORE_STREAM_H
#define WEIR_STORE_STREAM_H

#include "base/hash.h"
#include "store/cut.h"

#define STREAM_RING (48 << 20)
#define STREAM_PAGE 4096
#define STREAM_CHUNKS 1024 /* cut but not yet taken, at most */

struct stream_chunk {
    const uint8_t *
        p; /* aligned to STREAM_PAGE like off; the bytes before it are still there from the last such boundary on */
    int64_t off;
    uint32_t len;
    enum hint hint;
    struct digest id;
};

struct stream;
MUST_USE enum err_code stream_new(struct stream **out, struct err *err);
void stream_free(struct stream *s); /* NULL is fine */
/* Reading begins at once.  fd and cutter stay the caller's, and in use until stream_finish or stream_stop. */
MUST_USE enum err_code stream_start(struct stream *s, int fd, int64_t size, struct cutter *cutter,
                                    struct err *err);
/* The next chunks, in order, hashed.  Waits until there are want of them (>= 1), or no more fit or follow.  *count = 0 at the end. */
MUST_USE enum err_code stream_take(struct stream *s, size_t want,
                                   const struct stream_chunk **chunks, size_t *count,
                                   struct err *err);
/* After the end: the digest of all bytes. */
void stream_finish(struct stream *s, struct digest *whole);
/* Give up at any point; fine when nothing runs. */
void stream_stop(struct stream *s);

#endif
