/* idset.h - millions of object ids, each with one byte of the caller's.
 *
 * Open addressing; the hash is keyed, since ids in a tree from elsewhere need not be digests of anything.  The table is cut into 256
 * shards by the first byte; each grows by itself, so growing never holds the whole set twice.  33 bytes a slot, at most 4/5 full: 5 million ids
 * take 264 MiB.
 *
 * Life:     idset_new -> idset_add ... -> idset_free; a list is zeroed storage -> idlist_add ... -> idlist_release.
 * Owns:     its table.
 * Threads:  one writer and no reader, or any number of readers.
 * Errors:   none: running out of memory ends the process.
 */
#ifndef WEIR_STORE_IDSET_H
#define WEIR_STORE_IDSET_H

#include "base/hash.h"

struct idset;
struct idset *idset_new(void);
void idset_free(struct idset *s); /* NULL is fine */
/* The byte kept with id, 0 at first; *added (may be NULL) says whether id is new.  Valid until the next idset_add. */
uint8_t *idset_add(struct idset *s, const struct digest *id, bool *added);
/* NULL when id is not there. */
uint8_t *idset_find(const struct idset *s, const struct digest *id);
bool idset_has(const struct idset *s, const struct digest *id);
int64_t idset_count(const struct idset *s);
/* All ids, in no useful order: start with a zeroed position; false at the end. */
struct idset_pos {
    size_t shard, slot;
};
bool idset_next(const struct idset *s, struct idset_pos *pos, const struct digest **id,
                uint8_t **byte);

struct idlist {
    struct digest *v;
    size_t n, cap;
};
void idlist_add(struct idlist *l, const struct digest *id);
void idlist_sort(struct idlist *l);                               /* duplicates are removed */
bool idlist_has(const struct idlist *l, const struct digest *id); /* of a sorted list */
void idlist_release(struct idlist *l);

#endif
