/* compact_raw.h - chunks that lie in packs as they came, to be compressed.
 *
 * A second version of a large file becomes a recipe, and its new chunks are written raw: the add does not wait for a codec.  Which
 * records these are, the recipes tell, and with them what their bytes are (the hint).  Other raw blobs were offered to the codec when
 * they were added; packs marked PACK_TRIED when they were compacted.
 *
 * Life:     raw_find -> raw_in_pack, raw_keep, raw_has -> raw_encode of the packs that go -> raw_free.
 * Owns:     48 bytes a chunk; while encoding, threads and one chunk for each.
 * Threads:  one caller; raw_has from any.
 * Errors:   ERR_DAMAGED for a chunk that is not what it says.
 */
#ifndef WEIR_STORE_COMPACT_RAW_H
#define WEIR_STORE_COMPACT_RAW_H

#include "store/evacuate.h"

struct raw_chunks;
/* In packs made before before_ns. */
MUST_USE enum err_code raw_find(struct store *st, int64_t before_ns, struct raw_chunks **out,
                                struct err *err);
void raw_free(struct raw_chunks *r);                                   /* NULL is fine */
int64_t raw_in_pack(const struct raw_chunks *r, uint32_t pack);        /* bytes; by its number */
bool raw_has(const struct raw_chunks *r, uint32_t pack, uint32_t off); /* the record there? */
/* All of that pack, with st->threads threads: encoded, decoded and compared, into evac. */
MUST_USE enum err_code raw_encode(struct store *st, const struct raw_chunks *r, uint32_t number,
                                  struct pack *pack, struct evac *evac, struct progress *progress,
                                  struct err *err);

#endif
