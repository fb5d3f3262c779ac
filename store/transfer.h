/* transfer.h - push and pull: only what is missing, resumed after a cut, verified on arrival.
 *
 * Push: the tocs of the remote's packs are read (ranges of their ends; cached in .weir/remotes/NAME/<pack>.toc), the objects reached from the
 * chosen refs that are in none of them are written into packs of about PACK_TARGET_BYTES (chunks of recipes and loose files one by
 * one, compressed with codec_best), each uploaded when full: a push that is cut goes on with the next pack.  The refs go last, in a
 * pack of their own.
 * Pull: refs are read from the remote's packs (greatest stamp wins), trees first, then what they miss; records are fetched by range,
 * neighbours joined, hashed before they are written, and committed in steps of about 1 GiB.  Recipes are hashed end to end once.
 * The local ref is set last.
 *
 * Life:     one call.  Owns: nothing.  Threads: one.
 * Errors:   ERR_DAMAGED when the remote sends wrong bytes and has no other copy (names pack and object; nothing of it is kept);
 *           ERR_NOT_FOUND for an unknown ref or an object that neither side has.
 */
#ifndef WEIR_STORE_TRANSFER_H
#define WEIR_STORE_TRANSFER_H

#include "store/remote.h"

#define TRANSFER_COMMIT_BYTES (1LL << 30)

struct transfer_options {
    const char *const *refs; /* names or digests; none: all refs */
    size_t ref_count;
    bool dry_run;
    struct progress *progress;
    int64_t commit_bytes; /* pull: what a cut can lose; 0: TRANSFER_COMMIT_BYTES */
    struct buf *notes;    /* NULL, or: one line per ref that was left alone, and why */
    const char *once;     /* names that begin so are set once: never moved on either side; NULL */
};
struct transfer_report {
    int64_t refs;                   /* set on the other side (push) or here (pull) */
    int64_t refs_kept;              /* left alone: what is there is newer */
    int64_t objects, objects_moved; /* looked at; of those, missing there and moved */
    int64_t bytes_moved; /* everything that went over the wire, tables of packs included */
    int64_t packs;       /* written (push) or read from (pull) */
};
MUST_USE enum err_code store_push(struct store *st, const char *remote,
                                  const struct transfer_options *o, struct transfer_report *out,
                                  struct err *err);
MUST_USE enum err_code store_pull(struct store *st, const char *remote,
                                  const struct transfer_options *o, struct transfer_report *out,
                                  struct err *err);
/* fsck: fetch these objects from whatever configured remote has them.  found[i] tells. */
MUST_USE enum err_code transfer_fetch(struct store *st, const struct digest *ids, size_t n,
                                      bool *found, struct err *err);

#endif
