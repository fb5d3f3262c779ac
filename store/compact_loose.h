/* compact_loose.h - a whole file becomes compressed chunks and a recipe.
 *
 * The file is read once: the calling thread hashes all of it in order while st->threads threads check, compress and compare its
 * chunks.  Recipes are put after all of their chunks.
 *
 * Life:     packer_new -> packer_add ... -> packer_finish -> packer_free.
 * Owns:     threads and at most two chunks for each.
 * Threads:  one caller.
 * Errors:   ERR_DAMAGED when the file is not what its name says; after any error only packer_free.
 */
#ifndef WEIR_STORE_COMPACT_LOOSE_H
#define WEIR_STORE_COMPACT_LOOSE_H

#include "store/evacuate.h"

struct packer;
MUST_USE enum err_code packer_new(struct store *st, struct evac *evac, struct packer **out,
                                  struct err *err);
void packer_free(struct packer *p); /* NULL is fine */
/* loc: of type LOC_LOOSE. */
MUST_USE enum err_code packer_add(struct packer *p, const struct digest *id, const struct loc *loc,
                                  struct progress *pr, struct err *err);
MUST_USE enum err_code packer_finish(struct packer *p, struct err *err);

#endif
