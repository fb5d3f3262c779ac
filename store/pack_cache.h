/* pack_cache.h - what readers share: open packs, decoded frames, recipes, codecs.
 *
 * Life:     pack_cache_new and pack_cache_free (reader.h) with the store; record_get -> record_put, codec_get -> codec_put in between.
 * Owns:     everything; a record stays valid until record_put, whatever is evicted meanwhile.
 * Threads:  any.  One lock, never held while reading or decoding; who asks for a record that another thread is decoding waits for it.
 * Errors:   ERR_DAMAGED names pack and offset; ERR_NOT_FOUND when the pack is gone (a gc in another process): look the object up again.
 */
#ifndef WEIR_STORE_PACK_CACHE_H
#define WEIR_STORE_PACK_CACHE_H

#include "store/reader.h"

#define PACKS_OPEN_MAX 64 /* descriptors; more only while more are in use at once */

/* A record that is needed more than once: a frame, or a recipe (REC_RECIPE, REC_LOOSE). */
struct record {
    uint8_t type;                /* enum rec_type */
    struct digest id;            /* zero for frames */
    uint64_t raw;                /* length of the object; of the decoded frame */
    char *data;                  /* frames: the members' bytes */
    struct recipe_chunk *chunks; /* recipes; none for a REC_LOOSE without one */
    int64_t *offs;               /* count + 1 offsets of the chunks in the object */
    size_t count;
};
MUST_USE enum err_code record_get(struct store *st, uint32_t pack, uint32_t off,
                                  const struct record **out, struct err *err);
void record_put(struct store *st, const struct record *r);

MUST_USE enum err_code codec_get(struct store *st, struct codec **out, struct err *err);
void codec_put(struct store *st, struct codec *c); /* NULL is fine */

#endif
