/* claims.h - the ids that one writer session has met, and what it did about them.
 *
 * Life:     claims_new -> calls -> claims_free.
 * Owns:     33 bytes an id, in tables at most 3/4 full.
 * Threads:  any, at once; CLAIMS_SHARDS locks.
 * Errors:   none: the writer bounds the number of ids (WRITER_IDS_MAX).
 */
#ifndef WEIR_STORE_CLAIMS_H
#define WEIR_STORE_CLAIMS_H

#include "base/hash.h"

#define CLAIMS_SHARDS 16

enum id_state {
    ID_ABSENT = 0,
    ID_WRITTEN, /* written in this session, or another thread is about to */
    ID_REUSED,  /* found in the index: must be checked again at the commit */
};

struct claims;
struct claims *claims_new(void);
void claims_free(struct claims *c); /* NULL is fine */
enum id_state claims_get(struct claims *c, const struct digest *id);
/* True when id was absent and now has this state: the one caller that is told so has to do the work. */
bool claims_add(struct claims *c, const struct digest *id, enum id_state state);
void claims_remove(struct claims *c, const struct digest *id);
void claims_clear(struct claims *c);
int64_t claims_count(struct claims *c, enum id_state state);
/* All ids in this state, sorted; free(*ids). */
void claims_list(struct claims *c, enum id_state state, struct digest **ids, size_t *count);
void claims_check(struct claims *c); /* invariants, for tests */

#endif
