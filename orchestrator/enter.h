/* enter.h - a session in which things of the outside world enter the store, and which writes nothing when nothing is new.
 *
 * A pipeline that has not changed looks at all of its files each time.  Their digests come from the memo; what is left of an ordinary
 * session is then its commit, which costs more than all the rest.  So it is left out, and the objects are kept as action_keep keeps
 * results: they are there, they were there when we looked, and no gc takes them for ENTER_KEEP_S.
 *
 * Life:     enter_run calls fn, maybe again (the second time without the memo) when a gc was at work meanwhile.
 * Owns:     the writer and the list of what is to be kept, during the call.
 * Threads:  one.
 * Errors:   what fn returns; as writer_commit and action_keep.
 */
#ifndef WEIR_ORCHESTRATOR_ENTER_H
#define WEIR_ORCHESTRATOR_ENTER_H

#include "store/writer.h"

#define ENTER_KEEP_S (48 * INT64_C(3600)) /* at least; the end is on a full hour */

struct enter {
    struct store *st;
    struct writer *w;
    bool no_memo; /* for ingest_options */
    struct digest *ids;
    size_t count, cap;
};
typedef enum err_code (*enter_fn)(struct enter *e, void *arg, struct err *err);
MUST_USE enum err_code enter_run(struct store *st, enter_fn fn, void *arg, struct err *err);
/* Called by fn: this object and all below it is needed later. */
void enter_keep(struct enter *e, const struct digest *d);

#endif
