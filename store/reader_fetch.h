/* reader_fetch.h - what the two halves of the reader share.
 *
 * Life:     calls; a recipe is given back with record_put (pack_cache.h).
 * Owns:     nothing.
 * Threads:  any.
 * Errors:   as reader.h.  fetch_stale: the place was right when it was looked up and is gone now, look again.
 */
#ifndef WEIR_STORE_READER_FETCH_H
#define WEIR_STORE_READER_FETCH_H

#include "store/pack_cache.h"

/* Exactly size bytes, verified, into out.  depth: 0, or how many recipes led here. */
MUST_USE enum err_code fetch_object(struct store *st, const struct digest *id, uint64_t size,
                                    int depth, void *out, struct err *err);
/* The same from where it was a moment ago, loc->raw bytes; looked up again when it has moved. */
MUST_USE enum err_code fetch_at(struct store *st, const struct digest *id, const struct loc *loc,
                                void *out, struct err *err);
/* The recipe of an object at loc: *out = NULL when it is stored in one piece. */
MUST_USE enum err_code fetch_recipe_of(struct store *st, const struct digest *id,
                                       const struct loc *loc, const struct record **out,
                                       struct err *err);
/* loc->raw bytes at p: are they the object? */
MUST_USE enum err_code fetch_verify(struct store *st, const struct digest *id,
                                    const struct loc *loc, const void *p, struct err *err);
/* The same for a chunk with an id of its own in an object that messages name. */
MUST_USE enum err_code fetch_verify_at(struct store *st, const struct digest *whole,
                                       const struct digest *id, const struct loc *loc,
                                       const void *p, struct err *err);
/* object_copy on so many threads. */
MUST_USE enum err_code fetch_copy(struct store *st, const struct digest *id, int fd, int threads,
                                  struct progress *pr, struct err *err);
/* ERR_DAMAGED "object ..: <place> <why>; run weir fsck", and ERR_NOT_FOUND. */
enum err_code fetch_damaged(struct store *st, const struct digest *id, const struct loc *loc,
                            const char *why, struct err *err);
enum err_code fetch_absent(const struct digest *id, struct err *err);
bool fetch_stale(enum err_code rc, const struct err *err);
/* The index says twice that it is there, and twice it is not: err becomes ERR_DAMAGED. */
enum err_code fetch_gone(struct store *st, const struct digest *id, const struct loc *loc,
                         struct err *err);

#endif
