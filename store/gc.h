/* gc.h - deleting what nothing reaches, moving what is cold, and the protocol that makes both safe beside writers.
 *
 * Roots: refs, leases that have not run out, and everything added or hit within the grace period (index touch rows; after a
 * rebuild all objects count as touched).  Trees are walked; a recipe keeps its chunks; a slice keeps its loose file's bytes.
 *
 * gc, in order; killed anywhere, the next gc, compaction or store_open(STORE_WRITE) by the lock's owner goes on:
 *   1. lock.gc; index_sync; finish what an earlier gc condemned.
 *   2. commits = index_stat.commits; mark from the roots read after that.
 *   3. dead packs and loose files are listed; packs with less than half of their bytes alive, and loose files that are dead but whose slices are
 *      alive, have their live records copied into new packs (evacuated), which are committed with
 *      index_commit.superseded = the packs being emptied, so that no live entry is left in them.  Journal records (binds, refs, also the
 *      tombstones of refs) that still count are alive.
 *   4. index_condemn, refused if anybody committed since 2: then their new touches, refs and leases are marked too, what became alive is
 *      struck from the list, and the condemn is tried again.
 *   5. index_purge; loose files go by loose_delete (its atime rule saves what a node linked meanwhile), packs by unlink; index_absolve.
 * A writer that reused a condemned or purged id is refused at its commit (ERR_CHANGED) and writes it anew.
 *
 * Life:     one call each.
 * Owns:     the report's strings.
 * Threads:  one at a time per store (lock.gc).
 * Errors:   ERR_AGAIN when another one runs; ERR_DAMAGED stops before anything is deleted (run weir fsck): gc never deletes in the run that
 *           meets damage.
 */
#ifndef WEIR_STORE_GC_H
#define WEIR_STORE_GC_H

#include "store/store.h"

struct gc_options {
    bool dry_run;
    int64_t grace_s; /* -1: from the config */
    struct buf *
        list; /* NULL, or: one line per pack and loose file that goes, with size and why; and per root what it keeps (dry run) */
    struct progress *progress;
};
struct gc_report {
    int64_t roots, live_objects, live_bytes; /* bytes as stored */
    int64_t dead_objects, freed_bytes;
    int64_t packs_deleted, packs_rewritten, loose_deleted, tmp_deleted;
    bool all_young; /* rebuilt within the grace period: nothing was marked, nothing goes */
};
MUST_USE enum err_code store_gc(struct store *st, const struct gc_options *o, struct gc_report *out,
                                struct err *err);

/* Compaction (weir store pack): loose objects not used for cold_s seconds (atime) become chunks, compressed with codec_best, and a recipe; small packs (below
 * a quarter of PACK_TARGET_BYTES) are merged into full ones; packs with raw chunks of recipes, as second versions of files leave them, are
 * written anew with those compressed.  Decoded and compared before anything is replaced; old files go through the same condemn
 * protocol.  What was tried once is marked (PACK_TRIED) and not tried again: a second compaction finds nothing to do. */
struct compact_options {
    int64_t cold_s; /* 0: everything */
    bool dry_run;
    struct progress *progress;
};
struct compact_report {
    int64_t loose_packed, bytes_before, bytes_after;
    int64_t packs_merged,
        packs_compressed; /* small ones; those with raw chunks.  A pack may be both */
};
MUST_USE enum err_code store_compact(struct store *st, const struct compact_options *o,
                                     struct compact_report *out, struct err *err);
/* Steps 1's last part, for store_open and others that hold lock.gc. */
MUST_USE enum err_code gc_finish_condemned(struct store *st, int64_t since_ns, struct err *err);

/* The set of ids reached from the roots; shared with fsck (what was a damaged object part of?) and push. */
struct mark;
MUST_USE enum err_code mark_new(struct store *st, struct mark **out, struct err *err);
void mark_free(struct mark *m);
/* Missing objects do not stop it: they are collected (mark_missing). */
MUST_USE enum err_code mark_root(struct mark *m, enum obj_kind kind, const struct digest *id,
                                 struct err *err);
bool mark_has(const struct mark *m, const struct digest *id);
int64_t mark_count(const struct mark *m);
const struct digest *mark_missing(const struct mark *m, size_t *count);

#endif
