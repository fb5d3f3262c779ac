/* ingest.h - files and directories of the outside world become blobs and trees.
 *
 * Files are stat-ed, looked up in the memo (an unchanged file is never hashed twice; git's racy rule: a file whose mtime or ctime is not
 * clearly older than the moment it was hashed is not remembered), and the rest is read by st->threads threads.  Directories become trees bottom-up.  Mode: owner's
 * executable bit only.  Links must stay inside (tree.h).  Sockets, devices and fifos are ERR_INPUT.  A directory that gains or loses entries
 * meanwhile is ERR_CHANGED, like a file that is written to.
 *
 * Life:     store_add does all: writer, commit, retry on ERR_CHANGED from a racing gc (up to 3 times).
 * Owns:     nothing afterwards.
 * Threads:  one call, one thread; it uses st->threads of its own.
 * Errors:   ERR_INPUT, ERR_CHANGED with the path; ERR_LIMIT; what the writer says.  Nothing of a failed add is visible.
 */
#ifndef WEIR_STORE_INGEST_H
#define WEIR_STORE_INGEST_H

#include "store/writer.h"

enum ingest_how {
    INGEST_COPY,
    INGEST_ADOPT /* move files in: they are gone from the folder after the commit */
};
struct ingest_options {
    enum ingest_how how;
    const char *ref;           /* set in the same commit; NULL: none */
    bool no_memo;              /* read everything */
    struct progress *progress; /* NULL is fine */
};
struct ingest_result {
    struct digest digest;
    enum obj_kind kind;
    int64_t size;                       /* of the object itself */
    int64_t files, bytes, hashed_files; /* below it */
    struct writer_stats stats;
};
MUST_USE enum err_code store_add(struct store *st, const char *path, const struct ingest_options *o,
                                 struct ingest_result *out, struct err *err);
/* The same inside a caller's session (weir-exec adopts several outputs, then binds them, in one commit). */
MUST_USE enum err_code ingest_path(struct writer *w, int dir, const char *path,
                                   const struct ingest_options *o, struct ingest_result *out,
                                   struct err *err);
/* Many paths in a caller's session, with one look at the memo for all the files among them, because a transaction for each would cost more
 * than its answer.  Unlike ingest_path it touches nothing: the caller does, with what it keeps. */
struct ingest_item {
    const char *path;
    struct ingest_result result; /* without stats */
    bool executable;             /* by its owner */
};
/* On failure *at (may be NULL) is the item that it was about. */
MUST_USE enum err_code ingest_many(struct writer *w, int dir, struct ingest_item *items, size_t n,
                                   const struct ingest_options *o, size_t *at, struct err *err);

#endif
