/* mark.h - walking from roots to everything they reach; gc.h has the short form for one root at a time.
 *
 * Breadth first: a batch of trees is looked up in the order of their ids and decoded in the order of the packs, so that a frame is
 * decoded once; blobs are looked up by the million, sorted, since neighbours in the index share a page.
 *
 * Life:     mark_new (gc.h) -> mark_add ... -> mark_run -> mark_ids; more of both at will -> mark_free.
 * Owns:     the set, the lists, st->threads threads.
 * Threads:  one mark, one thread.
 * Errors:   ERR_DAMAGED for a tree or recipe that cannot be read, unless lenient; missing objects are collected.
 */
#ifndef WEIR_STORE_MARK_H
#define WEIR_STORE_MARK_H

#include "store/gc.h"
#include "store/idset.h"

/* Queue a root. */
void mark_add(struct mark *m, enum obj_kind kind, const struct digest *id);
/* Walk all that is queued. */
MUST_USE enum err_code mark_run(struct mark *m, struct err *err);
/* Damaged trees and recipes count as missing from now on (fsck goes on with the rest). */
void mark_lenient(struct mark *m);
/* Each id that is marked from now on is also appended to log; NULL ends that. */
void mark_log(struct mark *m, struct idlist *log);
const struct idset *mark_ids(const struct mark *m);

#endif
