/* ingest_internal.h - what a file and a directory have in common on their way in.
 *
 * Life:     within one ingest_path.
 * Owns:     nothing.
 * Threads:  memo functions from any; the counters are atomic.
 * Errors:   as ingest.h.
 */
#ifndef WEIR_STORE_INGEST_INTERNAL_H
#define WEIR_STORE_INGEST_INTERNAL_H

#include <stdatomic.h>
#include <sys/stat.h>

#include "store/ingest.h"
#include "store/writer_internal.h"

struct ingest {
    struct writer *w;
    const struct ingest_options *o;
    bool memo;   /* look up and note */
    bool remote; /* the files' times come from another clock */
    atomic_int_fast64_t files, bytes, hashed_files;
};

struct memo_key memo_key_of(const struct stat *st);
/* Was the file last touched clearly before start_ns, when its hashing began?  Else a change in the same tick of the clock that
 * file times are taken from would go unseen (git's "racily clean"). */
bool memo_is_safe(const struct memo_key *key, int64_t start_ns, bool remote);
/* Remember it, if that is safe. */
void ingest_remember(struct ingest *g, const struct stat *st, const struct digest *id,
                     int64_t start_ns);
/* found[i]: ids[i] is what the file with keys[i] holds, it is in the store, and the session relies on it. */
MUST_USE enum err_code ingest_recall(struct ingest *g, const struct memo_key *keys, size_t n,
                                     struct digest *ids, bool *found, struct err *err);
/* fd is open on the directory; path is for messages. */
MUST_USE enum err_code ingest_tree(struct ingest *g, int fd, const char *path, struct digest *out,
                                   int64_t *size, struct err *err);

#endif
