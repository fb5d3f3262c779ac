/* reader.h - getting objects out of the store, every byte verified.
 *
 * Life:     object_read into a buffer; or object_open -> object_pread ... -> object_close; or object_copy to a file.
 * Owns:     an open object owns descriptors and one decoded chunk.  The store's cache keeps at most READER_CACHE_BYTES of decoded frames,
 *           recipes and open packs.
 * Threads:  an open object, one thread; the store's cache is locked.
 * Errors:   ERR_NOT_FOUND (also under WEIR_LOSE); ERR_DAMAGED names object and place, says "run weir fsck"; never a wrong byte:
 *           blobs are hashed before they are handed out, ranges of large objects by the digests of the chunks they touch.
 */
#ifndef WEIR_STORE_READER_H
#define WEIR_STORE_READER_H

#include "store/store.h"

#define READER_CACHE_BYTES (64 << 20)

/* Where objects are, as index_get; what WEIR_LOSE takes away has type 0.  Without an index (STORE_NODE) only whole loose files are
 * found. */
MUST_USE enum err_code object_locate(struct store *st, const struct digest *ids, size_t n,
                                     struct loc *locs, struct err *err);
/* Under WEIR_LOSE: does this store pretend not to have it?  Writers do not see it either, so a put writes it anew, and after the
 * commit it is there for this process. */
bool object_is_lost(const struct store *st, const struct digest *id);
/* The whole object, appended; past max is ERR_LIMIT. */
MUST_USE enum err_code object_read(struct store *st, const struct digest *id, int64_t max,
                                   struct buf *out, struct err *err);
MUST_USE enum err_code object_size(struct store *st, const struct digest *id, int64_t *size,
                                   struct err *err);

struct object;
MUST_USE enum err_code object_open(struct store *st, const struct digest *id, struct object **out,
                                   struct err *err);
void object_close(struct object *o); /* NULL is fine */
int64_t object_bytes(const struct object *o);
/* Exactly n bytes at off (off + n <= size), verified by whole object or by chunk. */
MUST_USE enum err_code object_pread(struct object *o, void *p, size_t n, int64_t off,
                                    struct err *err);
/* The chunks of an object, in order (one when it is whole).  free(*chunks). */
MUST_USE enum err_code object_chunks(struct store *st, const struct digest *id,
                                     struct recipe_chunk **chunks, size_t *count, struct err *err);
/* The stored bytes of one blob (not a recipe), decoded and verified against its id. */
MUST_USE enum err_code object_chunk(struct store *st, const struct digest *id,
                                    const struct loc *loc, struct buf *out, struct err *err);
/* Copy the object to an empty file, chunk by chunk on st->threads threads for large ones, verified. */
MUST_USE enum err_code object_copy(struct store *st, const struct digest *id, int fd,
                                   struct progress *pr, struct err *err);
/* One tensor of a safetensors object, without reading the rest. */
struct tensor_span;
MUST_USE enum err_code object_tensor(struct store *st, const struct digest *id, const char *name,
                                     struct tensor_span *span, struct buf *out, int64_t max,
                                     struct err *err);

struct pack_cache;
MUST_USE enum err_code pack_cache_new(struct store *st, struct pack_cache **out, struct err *err);
void pack_cache_free(struct pack_cache *c);
/* An open pack by index number, shared; stays valid until pack_cache_put. */
MUST_USE enum err_code pack_cache_get(struct store *st, uint32_t number, struct pack **out,
                                      struct err *err);
void pack_cache_put(struct store *st, struct pack *p);

#endif
