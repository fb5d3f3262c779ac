#include "store/reach.h"

#include <stdlib.h>

void reach_init(struct reach *r)
{
    *r = (struct reach){.seen = idset_new()};
}

void reach_release(struct reach *r)
{
    free(r->items);
    idset_free(r->seen);
    *r = (struct reach){0};
}

enum err_code reach_add(struct reach *r, const struct reach_item *item, struct err *err)
{
    const unsigned flag = item->kind == REACH_TREE ? REACH_AS_TREE : REACH_PLAIN;
    uint8_t *flags = idset_add(r->seen, &item->id, NULL);

    if (*flags & flag)
        return OK;
    if (r->n >= REACH_MAX)
        return err_set(err, ERR_LIMIT, "more than %d objects in one push or pull", REACH_MAX);
    *flags = (uint8_t)(*flags | flag);
    if (r->n == r->cap) {
        r->cap = r->cap ? r->cap * 2 : 256;
        r->items = mem_grow(r->items, r->cap, sizeof(*r->items));
    }
    r->items[r->n++] = *item;
    return OK;
}

enum err_code reach_tree(struct reach *r, const struct reach_item *tree, const char *p, size_t n,
                         struct err *err)
{
    const struct reach_item from = *tree; /* the list it is in may move */
    char what[DIGEST_TEXT + 8] = "tree ";
    struct tree t;
    enum err_code rc;

    digest_text(&from.id, what + 5);
    if (from.depth >= TREE_DEPTH_MAX)
        return err_set(err, ERR_LIMIT, "%s: nested deeper than %d", what, TREE_DEPTH_MAX);
    tree_init(&t);
    rc = tree_decode(p, n, from.depth, what, &t, err);
    for (size_t i = 0; i < t.count && !rc; i++) {
        const struct tree_entry *e = &t.entries[i];
        struct reach_item item = {.id = e->digest, .root = from.root, .kind = REACH_BLOB};

        if (e->mode == TREE_LINK)
            continue;
        if (e->mode == TREE_DIR) {
            item.kind = REACH_TREE;
            item.depth = (int16_t)(from.depth < 0 ? -1 : from.depth + 1);
        }
        rc = reach_add(r, &item, err);
    }
    tree_release(&t);
    return rc;
}

enum err_code reach_chunks(struct reach *r, const struct reach_item *whole,
                           const struct recipe_chunk *chunks, size_t count, struct err *err)
{
    const uint32_t root = whole->root;
    enum err_code rc = OK;

    for (size_t i = 0; i < count && !rc; i++) {
        const struct reach_item item = {
            .id = chunks[i].id, .root = root, .kind = REACH_CHUNK, .hint = chunks[i].hint};

        rc = reach_add(r, &item, err);
    }
    return rc;
}

bool reach_is(const struct reach *r, const struct digest *id, unsigned flag)
{
    const uint8_t *flags = idset_find(r->seen, id);

    return flags && (*flags & flag);
}

void reach_set(struct reach *r, const struct digest *id, unsigned flag)
{
    uint8_t *flags = idset_find(r->seen, id);

    CHECK(flags);
    *flags = (uint8_t)(*flags | flag);
}
