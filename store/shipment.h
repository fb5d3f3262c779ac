/* shipment.h - objects on their way to a remote: gathered into packs in .weir/remotes/NAME/stage, each uploaded when it is full.
 *
 * A pack is durable on the remote before the next one is begun, so a cut leaves whole packs there, and what one pack refers to is in it
 * or in an earlier one.
 *
 * Life:     shipment_open -> put ... -> shipment_send -> shipment_release (fine on zeroed storage; gives up what was not sent).
 * Owns:     the lock of the stage folder, at most one pack under construction, a few buffers of an object's size.
 * Threads:  one.
 * Errors:   ERR_AGAIN when another process pushes to the same remote; what remote and disk say.
 */
#ifndef WEIR_STORE_SHIPMENT_H
#define WEIR_STORE_SHIPMENT_H

#include "store/remote_toc.h"

struct shipment {
    struct tocs *tocs;
    int lock, stage;
    struct pack_writer *pack;
    struct codec *codec;
    struct buf packed, frame;
    struct frame_member *members;
    size_t member_count;
    int64_t packs; /* uploaded */
};
MUST_USE enum err_code shipment_open(struct tocs *tocs, struct shipment *s, struct err *err);
void shipment_release(struct shipment *s);
/* An object's bytes, which the caller has verified: text-like small ones go into frames, others get what codec_best finds. */
MUST_USE enum err_code shipment_put(struct shipment *s, const struct digest *id, uint8_t flags,
                                    enum hint hint, const char *raw, size_t n, struct err *err);
/* Any other record, or an object that is encoded already. */
MUST_USE enum err_code shipment_put_record(struct shipment *s, struct pack_entry *e,
                                           const void *payload, size_t n, struct err *err);
/* What was put so far is on the remote afterwards. */
MUST_USE enum err_code shipment_send(struct shipment *s, struct err *err);

#endif
