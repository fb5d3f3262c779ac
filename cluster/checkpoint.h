/* checkpoint.h - checkpoints of unfinished tasks, in the store: the ref checkpoints/<64 hex> names a tree {"step-N": checkpoint}.
 *
 * Life:     checkpoint_take for each new one; checkpoint_list to read them.
 * Owns:     nothing.
 * Threads:  one at a time for each ref.
 * Errors:   ERR_INPUT, ERR_CHANGED: what is at path cannot be kept; what the store says.  The ref is as it was then.
 */
#ifndef WEIR_CLUSTER_CHECKPOINT_H
#define WEIR_CLUSTER_CHECKPOINT_H

#include "store/store.h"

struct checkpoint {
    int64_t step;
    enum obj_kind kind;
    struct digest digest;
    int64_t size;
};
/* Copies path (relative to dir; a file or directory) into the store and makes the ref name the newest keep steps up to this one, and keep
 * of those beyond it, in one commit. */
MUST_USE enum err_code checkpoint_take(struct store *st, const char *ref, int64_t keep,
                                       int64_t step, int dir, const char *path, struct err *err);
/* In order of their steps; free(*out).  A ref that is not there: none. */
MUST_USE enum err_code checkpoint_list(struct store *st, const char *ref, struct checkpoint **out,
                                       size_t *count, struct err *err);

#endif
