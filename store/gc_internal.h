/* gc_internal.h - the steps of a gc, one by one, so that tests can put a commit between any two of them; also for compaction and fsck.
 *
 *   gc_begin -> gc_mark_roots -> gc_plan_make(&g.plan) -> gc_save -> gc_condemn -> gc_delete -> gc_end
 *
 * Life:     gc_begin -> ... -> gc_end, fine after any error.
 * Owns:     the lock, the mark set, the plan, the evacuation.
 * Threads:  one.
 * Errors:   as gc.h.
 */
#ifndef WEIR_STORE_GC_INTERNAL_H
#define WEIR_STORE_GC_INTERNAL_H

#include "store/evacuate.h"
#include "store/gc_plan.h"

#define GC_LEVEL 3 /* zstd, of what is compressed while it is moved */
/* A temporary file, or a loose file that no pack announces yet, may belong to a writer that is at work: it is garbage when nothing
 * happened to it for the grace period, and at least for so long when that is shorter. */
#define GC_STALE_MIN_S 3600

struct gc {
    struct store *st;
    int lock;
    int64_t start_ns, young_ns; /* what was used at or after young_ns is a root */
    int64_t commits;            /* of the index, when the mark began */
    int64_t roots;
    bool tolerant; /* missing objects may be those of touches */
    struct mark *mark;
    struct plan plan;
    struct evac *evac;
};

/* Takes the lock, merges new packs, finishes what another gc began, notes the time and the number of commits. */
MUST_USE enum err_code gc_begin(struct gc *g, struct store *st, int64_t grace_s, bool dry_run,
                                struct err *err);
void gc_end(struct gc *g);
MUST_USE enum err_code gc_mark_roots(struct gc *g, struct err *err);
/* Copies what is alive out of what goes, durable and in the index. */
MUST_USE enum err_code gc_save(struct gc *g, struct err *err);
MUST_USE enum err_code gc_condemn(struct gc *g, struct err *err);
MUST_USE enum err_code gc_reconsider(struct gc *g, struct err *err);
void gc_list_going(const struct gc *g, struct condemned *out);
void condemned_release(struct condemned *c);
/* The saved packs become known to the index, which prefers them to what goes. */
MUST_USE enum err_code gc_commit_saved(struct store *st, const struct evac *e,
                                       const struct condemned *going, struct err *err);
struct gc_deleted {
    int64_t packs, loose, loose_kept;
};
/* Everything that is condemned goes. */
MUST_USE enum err_code gc_delete(struct store *st, int64_t since_ns, struct gc_deleted *out,
                                 struct err *err);
/* Stale files in tmp/. */
MUST_USE enum err_code gc_clean_tmp(struct store *st, int64_t grace_s, bool dry_run,
                                    struct buf *list, int64_t *deleted, struct err *err);
/* gc_list.c: one line per thing that goes; what each root keeps. */
void gc_list_plan(const struct gc *g, struct buf *out);
MUST_USE enum err_code gc_list_roots(const struct gc *g, struct buf *out, struct err *err);

#endif
