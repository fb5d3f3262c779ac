/* materialise.h - objects become files and directories again.
 *
 * Loose files: reflink where the file system can; else, for MAT_AUTO, a hard link to the 0444 file when the caller shields it (below) or is
 * not root; else a copy.  Everything else is decoded, verified and written, by st->threads threads, in the order of the packs.
 * The destination must not exist; it is made aside (dest.tmp.PID.RANDOM) and renamed, so a crash leaves no half tree.  Never writes through
 * a symbolic link, never outside dest.
 *
 * Life:     one call.
 * Owns:     nothing afterwards.
 * Threads:  one call, one thread; it uses st->threads of its own.
 * Errors:   ERR_EXISTS, ERR_NOT_FOUND (names the first missing object and its path), ERR_DAMAGED, ERR_FULL.
 */
#ifndef WEIR_STORE_MATERIALISE_H
#define WEIR_STORE_MATERIALISE_H

#include "store/store.h"

enum mat_how {
    MAT_AUTO,
    MAT_REFLINK /* fail rather than anything else */,
    MAT_LINK /* hard links whoever we are */,
    MAT_COPY
};
struct mat_options {
    enum mat_how how;
    bool read_only; /* files 0444/0555, directories 0555 (task inputs) */
    bool shielded;  /* the caller will put the result behind materialise_shield */
    struct progress *progress;
};
struct mat_result {
    int64_t files, bytes, linked, cloned, copied;
};
MUST_USE enum err_code materialise(struct store *st, enum obj_kind kind, const struct digest *id,
                                   const char *dest, const struct mat_options *o,
                                   struct mat_result *out, struct err *err);

/* For a child between fork and exec: a private mount namespace (with a user namespace when not root) in which dir is bind mounted read only.
 * ERR_MISSING where the kernel or the container does not allow it. */
MUST_USE enum err_code materialise_shield(const char *dir, struct err *err);
bool materialise_shield_works(void); /* tried once in a child, remembered */
/* After a task: did anybody change the hard-linked loose files below this tree?  Changed ones are quarantined; ERR_DAMAGED names them. */
MUST_USE enum err_code materialise_audit(struct store *st, enum obj_kind kind,
                                         const struct digest *id, struct err *err);

#endif
