/* mat_plan.h - a tree walked to its leaves: every directory, file and link below it, before anything is written.
 *
 * Life:     mat_plan_init -> mat_plan_walk -> mat_plan_locate -> mat_plan_release (fine on zeroed storage).
 * Owns:     all names, in one arena.
 * Threads:  one while it is made; afterwards it may be read by any.
 * Errors:   ERR_NOT_FOUND, ERR_DAMAGED with the path below the tree; ERR_LIMIT past MAT_ENTRIES_MAX.
 */
#ifndef WEIR_STORE_MAT_PLAN_H
#define WEIR_STORE_MAT_PLAN_H

#include "base/arena.h"
#include "store/store.h"
#include "store/tree.h"

#define MAT_ENTRIES_MAX                                                                            \
    (64 << 20) /* a few GiB of memory; a small tree can name that many files through shared parts */

struct mat_plan_dir {
    uint32_t parent; /* of the root: itself */
    int depth;
    const char *name;
    struct digest id;
    int64_t size;
};
struct mat_plan_file {
    const char *name;
    uint32_t dir, order; /* order: as met in the walk */
    bool exec;
    struct digest id;
    int64_t size;
    struct loc loc;
};
struct mat_plan_link {
    const char *name, *target;
    uint32_t dir;
};
struct mat_plan {
    struct mat_plan_dir *dirs; /* parents before children, siblings together */
    struct mat_plan_file *files;
    struct mat_plan_link *links;
    size_t dir_count, dir_room, file_count, file_room, link_count, link_room;
    struct arena arena;
};

void mat_plan_init(struct mat_plan *p);
void mat_plan_release(struct mat_plan *p);
MUST_USE enum err_code mat_plan_walk(struct mat_plan *p, struct store *st,
                                     const struct digest *root, struct err *err);
/* Fills in every file's place, compares sizes, and sorts the files by their places: each frame and pack is then read once. */
MUST_USE enum err_code mat_plan_locate(struct mat_plan *p, struct store *st, struct err *err);
/* "a/b" of a directory, "." for the root; with a name: "a/b/name". */
void mat_plan_path(const struct mat_plan *p, uint32_t dir, const char *name, struct buf *out);

#endif
