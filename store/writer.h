/* writer.h - putting objects into the store: one session, one commit.
 *
 * Life:     writer_open -> put ... (from any threads) -> writer_commit -> more puts, or writer_release, which gives up what was not
 *           committed.  Digests are final when a put returns; nothing is durable or visible before writer_commit returns OK.
 * Owns:     open pack writers, the list of ids written and reused in this session (about 50 bytes each; a session with WRITER_IDS_MAX
 *           of them, or 4 GiB of full packs, commits these by itself, harmlessly: objects without a root are only garbage),
 *           buffers of at most WRITER_MEMORY_MAX bytes whatever the files' sizes.
 * Threads:  puts from any thread at once; open, commit, release from one.
 * Errors:   ERR_CHANGED an input changed while it was being read (size, mtime or ctime differ afterwards); ERR_FULL; ERR_LIMIT.
 *           After any error but ERR_CHANGED and ERR_INPUT the session is over: only writer_release.
 *
 * Small blobs (below LOOSE_MIN_BYTES) go to packs: text-like ones grouped into frames of FRAME_RAW_TARGET, others raw or as codec_best.
 * Large ones: a sample of chunks decides.  If some are known, the object becomes a recipe and only unknown chunks are written
 * (raw; compressing is store pack's work); otherwise the whole file goes to loose/ with its recipe, so that its chunks are known
 * next time.  Whole-file hash, chunk hashes and writing overlap on st->threads threads.
 * A session never re-reads what it wrote.  A dedup hit is a write: it is re-checked at commit (index_commit), and if it vanished meanwhile
 * writer_commit fails with ERR_CHANGED: the caller starts over (store_add in ingest.h does so by itself).
 */
#ifndef WEIR_STORE_WRITER_H
#define WEIR_STORE_WRITER_H

#include "store/store.h"

#define WRITER_IDS_MAX (1 << 20)
#define WRITER_MEMORY_MAX (256 << 20)

struct writer;
MUST_USE enum err_code writer_open(struct store *st, struct writer **out, struct err *err);
void writer_release(struct writer *w); /* NULL is fine */

/* Bytes in memory; n <= CODEC_RAW_MAX for blobs, TREE_BYTES_MAX for trees.  out: its digest. */
MUST_USE enum err_code writer_put(struct writer *w, enum obj_kind kind, const void *p, size_t n,
                                  struct digest *out, struct err *err);
/* A regular file, copied in.  fd is at any position and stays the caller's.  path is for messages. */
MUST_USE enum err_code writer_put_file(struct writer *w, int fd, const char *path,
                                       struct digest *out, int64_t *size, struct err *err);
/* A regular file, moved in: hashed once, made 0444, fsynced, linked into loose/, then unlinked from (dir, name).  Falls back to a copy when
 * it is below LOOSE_MIN_BYTES, on another file system, has other hard links, or is open for writing elsewhere (refused:
 * ERR_CHANGED).  The source name is removed only at writer_commit, after everything is durable; on failure it stays. */
MUST_USE enum err_code writer_adopt_file(struct writer *w, int dir, const char *name,
                                         const char *path, struct digest *out, int64_t *size,
                                         struct err *err);
/* action key -> result (a tree or blob put before or present). */
MUST_USE enum err_code writer_bind(struct writer *w, const struct digest *key,
                                   const struct digest *result, struct err *err);
/* Set a ref in the same commit.  OBJ_NONE removes. */
MUST_USE enum err_code writer_ref(struct writer *w, struct str name, enum obj_kind kind,
                                  const struct digest *d, struct err *err);
/* The caller has looked below an object that it did not put in this session (is it complete?), and the commit relies on what it saw: it is
 * refused with ERR_CHANGED when a gc has condemned anything since writer_open. */
void writer_rely(struct writer *w);
/* Keep this object (and what it reaches) for the grace period, though no ref names it yet. */
void writer_touch(struct writer *w, enum obj_kind kind, const struct digest *d);
/* Note that the file with this stat has this digest (ingest.h); rows newer than the racy margin are dropped at commit. */
void writer_memo(struct writer *w, const struct memo_row *row);
/* An already encoded object or chunk from elsewhere (compaction, pull): stored as is, the caller has verified it. */
MUST_USE enum err_code writer_put_encoded(struct writer *w, const struct digest *id, uint8_t flags,
                                          enum enc enc, uint64_t raw, const void *p, size_t n,
                                          struct err *err);
MUST_USE enum err_code writer_put_recipe(struct writer *w, const struct digest *id, uint8_t flags,
                                         uint64_t raw, const struct recipe_chunk *chunks,
                                         size_t count, struct err *err);
/* Is it in the store already, or in this session?  Counts as reused when it is. */
MUST_USE enum err_code writer_has(struct writer *w, const struct digest *id, bool *has,
                                  struct err *err);

/* Is there anything to commit besides touches?  When not, and action_keep agrees that nothing was removed meanwhile, the session may be
 * released: all that was put is in the store already. */
bool writer_has_news(const struct writer *w);

struct writer_stats {
    int64_t files, bytes;           /* offered */
    int64_t new_objects, new_bytes; /* written, as stored */
    int64_t reused_objects;
};
MUST_USE enum err_code writer_commit(struct writer *w, struct err *err);
void writer_get_stats(const struct writer *w, struct writer_stats *out);

#endif
