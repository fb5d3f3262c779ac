/* reach.h - what push and pull have to look at: every object below some roots, once, in the order in which it was found.
 *
 * The list is its own queue: who walks it by index, and adds what each item leads to, goes breadth first, so that a tree is met at its
 * smallest depth, where the rule for links (tree.h) is strictest.
 *
 * Life:     reach_init -> reach_add, reach_tree ... -> reach_release (fine on zeroed storage).
 * Owns:     40 bytes an item and an idset.
 * Threads:  one.
 * Errors:   ERR_LIMIT past REACH_MAX; what tree_decode says.
 */
#ifndef WEIR_STORE_REACH_H
#define WEIR_STORE_REACH_H

#include "store/idset.h"
#include "store/store.h"
#include "store/tree.h"

#define REACH_MAX (1 << 28) /* 10 GiB of items */

enum reach_kind { REACH_BLOB, REACH_TREE, REACH_CHUNK };
struct reach_item {
    struct digest id;
    uint32_t root; /* which root it was found below first */
    int16_t depth; /* of a tree in the whole; -1: unknown */
    uint8_t kind;  /* enum reach_kind */
    uint8_t hint;  /* enum hint, of chunks */
};
struct reach {
    struct reach_item *items;
    size_t n, cap;
    struct idset *seen; /* the byte of each id: these, and two for the caller */
};
#define REACH_PLAIN 1u   /* is in the list as blob or chunk */
#define REACH_AS_TREE 2u /* is in the list as tree: the same bytes may be both */
#define REACH_THERE 4u
#define REACH_DONE 8u

void reach_init(struct reach *r);
void reach_release(struct reach *r);
/* Nothing happens when it is in the list already. */
MUST_USE enum err_code reach_add(struct reach *r, const struct reach_item *item, struct err *err);
/* What a tree leads to; its manifest is p[0..n). */
MUST_USE enum err_code reach_tree(struct reach *r, const struct reach_item *tree, const char *p,
                                  size_t n, struct err *err);
MUST_USE enum err_code reach_chunks(struct reach *r, const struct reach_item *whole,
                                    const struct recipe_chunk *chunks, size_t count,
                                    struct err *err);
bool reach_is(const struct reach *r, const struct digest *id, unsigned flag);
void reach_set(struct reach *r, const struct digest *id, unsigned flag); /* of an id in the list */

#endif
