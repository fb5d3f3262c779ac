/* store.h - the door: a store on disk, opened.
 *
 *   .weir/
 *     config.yaml          objects path, slots, remotes, retention (config.h); made by weir init, edited by people
 *     format               "weir store 1\n": the version of everything below; a newer one is refused, an older one migrated
 *     index/               LMDB (index.h); local disk of the index host; may be deleted, weir store rebuild makes it again
 *     objects/             or wherever config says; may sit on a shared file system:
 *       packs/<64 hex>     pack.h; immutable
 *       loose/xx/<62 hex>  whole files, mode 0444, mtime LOOSE_MTIME_NS; the 256 folders are made at init and never removed
 *       tmp/               files being written; older than the grace period: garbage
 *       condemned/         files taken out of loose/ by a gc that is about to delete them
 *       quarantine/        damaged files, kept for people to look at
 *     lock.commit          shared by commits, alone for a condemnation (store_lock_commit)
 *     lock.gc              flock: one gc, compaction, fsck --repair or rebuild at a time, index host only
 *
 * Commit protocol (each step durable before the next): loose files and pack bytes written and fdatasynced; linked (link(2), EEXIST is
 * success for loose objects after utimensat of its atime) into place; each touched directory fsynced once; the pack that announces
 * them sealed last: that link is the commit; then the index is told.  A crash anywhere before leaves garbage, anywhere after is found
 * by index_sync at the next open.
 *
 * Life:     store_init makes one; store_open -> everything else -> store_close.
 * Owns:     descriptors of the folders, the index (only when opened with STORE_INDEX), the reader's pack cache.
 * Threads:  a struct store may be used from any thread; writers and readers are objects of their own.
 * Errors:   ERR_CONFIG, ERR_VERSION, ERR_NOT_FOUND ("no .weir here or above; run weir init"), and what the parts say.
 */
#ifndef WEIR_STORE_STORE_H
#define WEIR_STORE_STORE_H

#include "base/log.h"
#include "store/config.h"
#include "store/index.h"

#define STORE_FORMAT 1
#define LOOSE_MIN_BYTES (1 << 20) /* smaller files go into packs */
#define LOOSE_MTIME_NS                                                                             \
    1000000000LL /* 1970-01-01T00:00:01Z: a loose file with another mtime has been written to */
#define STORE_GRACE_DEFAULT_S (24 * INT64_C(3600)) /* config: retention.grace */

enum store_mode {
    STORE_READ,  /* index read only */
    STORE_WRITE, /* index read/write; index_sync is run */
    STORE_NODE,  /* objects folder only, no index */
};

struct store {
    char *root;                                            /* path of .weir */
    int objects, packs, loose, tmp, condemned, quarantine; /* directory descriptors */
    enum store_mode mode;
    struct index *index; /* NULL on a node (STORE_NODE) */
    struct config config;
    struct pack_cache *cache; /* open packs, decoded frames and recipes; bounded (reader.c) */
    int threads;              /* for hashing and packing: os_cpu_count, at most 16, or config */
    int64_t
        lose_seed; /* WEIR_LOSE=seed,percent: pretend that so many objects are gone (tests of recovery) */
    int lose_percent;
    struct claims *
        found_again; /* what was put anew since the store was opened, and so is not gone any more */
};

/* dir: where .weir goes.  An existing store is ERR_EXISTS; a half-made one (crash) is completed. */
MUST_USE enum err_code
store_init(const char *dir, const char *objects_path /* NULL: inside .weir */, struct err *err);
/* start: a folder; .weir is looked for there and upwards, WEIR_DIR in the environment comes first when start is NULL. */
MUST_USE enum err_code store_open(const char *start, enum store_mode mode, struct store **out,
                                  struct err *err);
void store_close(struct store *st); /* NULL is fine */

/* Refs: a mutable name for a digest and its kind, kept as a root.  Names: 1..400 bytes of [A-Za-z0-9._@=,/\[\]+-], no "..", no
 * leading or trailing '/'.  Setting is durable on return. */
MUST_USE enum err_code store_ref_check(struct str name, struct err *err);
MUST_USE enum err_code
store_ref_set(struct store *st, struct str name, enum obj_kind kind, const struct digest *d,
              struct err *err); /* OBJ_NONE removes; the target must exist, else ERR_NOT_FOUND */
/* "sha256:..", bare hex, a unique prefix of at least 8 hex digits, or a ref name, optionally followed by "/path/in/tree"
 * (after ':' : NAME:path).  kind says what the path led to. */
MUST_USE enum err_code store_resolve(struct store *st, struct str text, struct digest *out,
                                     enum obj_kind *kind, struct err *err);

/* Is everything under this object there?  (Present in the index, and loose files exist.)  *missing = the first absent id. */
MUST_USE enum err_code store_complete(struct store *st, enum obj_kind kind, const struct digest *d,
                                      bool *complete, struct digest *missing, struct err *err);
/* Invariants of the whole store, cheap enough for tests after every step: index against packs and loose files, sizes, temporary
 * files allowed.  ERR_DAMAGED with the first violation. */
MUST_USE enum err_code store_check(struct store *st, struct err *err);

/* flock on lock.gc; ERR_AGAIN when somebody else holds it. */
MUST_USE enum err_code store_lock_gc(struct store *st, int *fd, struct err *err);
/* lock.commit, on the index host; waits.  COMMIT_WITH_OTHERS: a writer, from its last look at what it relies on to the end of its commit.
 * COMMIT_ALONE: gc, around its last look for commits and the condemnation.  So what becomes durable never relies on what is
 * condemned meanwhile, also when the writer is killed between its last pack and the index. */
enum commit_lock { COMMIT_WITH_OTHERS, COMMIT_ALONE };
MUST_USE enum err_code store_lock_commit(struct store *st, enum commit_lock how, int *fd,
                                         struct err *err);

#endif
