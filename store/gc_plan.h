/* gc_plan.h - what may go, and what of it has to be saved first.
 *
 * A plan is made from the mark set: every pack and every loose file gets a verdict.  Two rules go beyond "is it reached":
 * A pack that stays may not hold a recipe whose chunks go, because a writer that finds the recipe's object in the index relies on it
 * without looking at the chunks.  So a pack with a dead recipe is rewritten, or, when it must stay, the recipe is marked.
 * A dead loose file whose slices are needed by other recipes goes after these were saved as records of their own.
 *
 * Life:     plan_init -> gc_plan_make -> look at packs, loose, slices -> gc_plan_make again after more was marked -> gc_plan_release.
 * Owns:     its tables.
 * Threads:  one.
 * Errors:   ERR_DAMAGED when packs or loose files are not what the index says (run weir fsck).
 */
#ifndef WEIR_STORE_GC_PLAN_H
#define WEIR_STORE_GC_PLAN_H

#include "store/mark.h"

enum verdict { PLAN_KEEP, PLAN_DELETE, PLAN_REWRITE };

struct plan_pack {
    struct pack_row row;
    int64_t live_bytes;
    int64_t dead_objects;   /* index entries that go with it */
    size_t live, uncovered; /* records that count; those of them that were not saved yet */
    enum verdict verdict;
};

enum loose_state {
    LOOSE_LIVE,
    LOOSE_DEAD,       /* nothing reaches it */
    LOOSE_SUPERSEDED, /* the object is stored in packs as well */
    LOOSE_ORPHAN,     /* no pack announces it */
    LOOSE_GONE,       /* announced, and no file */
};
struct plan_loose {
    struct digest id;
    struct loc loc; /* type 0 when the index does not know it */
    int64_t size, atime_ns;
    enum loose_state state;
    bool uncovered; /* has slices that are needed and not saved */
    enum verdict verdict;
};

struct plan_slice { /* reached, and readable only from a loose file */
    struct digest id, loose;
    struct loc loc;
};

struct journal_view;
struct plan {
    struct store *st;
    struct mark *mark;
    int64_t young_ns; /* packs made, and loose files used, at or after this stay */
    int64_t
        orphan_ns; /* the same for loose files that no pack announces: their writer may be at work */
    const struct plan *before; /* second thoughts: only what this plan let go may go */
    const struct idset
        *saved; /*   and only what was saved before need not be saved again; NULL in a first plan */

    struct plan_pack *packs; /* by number */
    size_t pack_count;
    struct plan_loose *loose; /* by id */
    size_t loose_count, loose_cap;
    struct plan_slice *slices;
    size_t slice_count, slice_cap;
    int64_t live_objects, live_bytes;

    uint64_t *live; /* pack and offset of every record that is reached, sorted */
    size_t live_count, live_cap;
    struct journal_view *journal;
};

void plan_init(struct plan *p, struct store *st, struct mark *mark);
void gc_plan_release(struct plan *p);
MUST_USE enum err_code gc_plan_make(struct plan *p, struct err *err);
struct plan_pack *plan_find_pack(const struct plan *p, uint32_t number); /* NULL when absent */
struct plan_loose *plan_find_loose(const struct plan *p, const struct digest *id);

/* Does this record (or member of a frame) have to be saved when its pack goes? */
bool plan_wants(const struct plan *p, uint32_t pack, const struct pack_entry *e);

#endif
