/* evacuate.h - copying what is still needed out of packs and loose files that are about to go.
 *
 * Records are copied as they are stored, after their checksum was compared; frames of which only some members are wanted are decoded,
 * each member hashed, and put together again.  New packs are sealed in the order in which they were filled, so a record never becomes
 * visible before one that was put earlier.  A new pack is marked PACK_TRIED when every raw blob in it comes from one that was.
 *
 * Life:     evac_new -> evac_put, evac_copy ... -> evac_finish (durable, not yet in the index) -> evac_free, which removes what was not
 *           sealed.
 * Owns:     the pack being written and the frame being gathered.
 * Threads:  evac_put from any thread at once; everything else from one.
 * Errors:   ERR_DAMAGED for a source that is not what it says; after any error only evac_free.
 */
#ifndef WEIR_STORE_EVACUATE_H
#define WEIR_STORE_EVACUATE_H

#include "store/idset.h"
#include "store/store.h"

struct evac;
MUST_USE enum err_code evac_new(struct store *st, struct evac **out, struct err *err);
void evac_free(struct evac *e); /* NULL is fine */
void evac_tried(
    struct evac *e); /* before the first put: all of it is offered to codec_best first */
/* One record that is no frame, as pack_put takes it. */
MUST_USE enum err_code evac_put(struct evac *e, const struct pack_entry *record,
                                const void *payload, size_t n, struct err *err);
/* One small object for the frame being gathered; the caller has hashed it. */
MUST_USE enum err_code evac_member(struct evac *e, const struct digest *id, uint8_t flags,
                                   const void *p, size_t n, struct err *err);
/* What is to be kept of a pack?  Called once per record, and for each member of a frame. */
typedef bool (*evac_keep_fn)(void *arg, const struct pack_entry *entry);
MUST_USE enum err_code evac_copy(struct evac *e, struct pack *p, evac_keep_fn keep, void *arg,
                                 struct err *err);
/* The same for one record whose payload was read already. */
MUST_USE enum err_code evac_copy_record(struct evac *e, const struct pack *p,
                                        const struct pack_entry *entry, const struct buf *payload,
                                        evac_keep_fn keep, void *arg, struct err *err);
MUST_USE enum err_code evac_finish(struct evac *e, struct err *err);
const struct digest *evac_packs(const struct evac *e, size_t *count);
/* Objects (not binds and refs) that were put. */
const struct idset *evac_ids(const struct evac *e);
bool evac_has(struct evac *e, const struct digest *id); /* from any thread */
int64_t evac_bytes(const struct evac *e);               /* of the sealed packs' records */

#endif
