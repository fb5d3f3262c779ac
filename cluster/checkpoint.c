#include "cluster/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/ingest.h"
#include "store/reader.h"
#include "store/tree.h"
#include "store/writer.h"

#define TREE_MAX (1 << 20) /* a few hundred entries at most */
#define RACES_MAX 3        /* with a gc, as store_add */

static int by_step(const void *a, const void *b)
{
    const struct checkpoint *x = a, *y = b;

    return (x->step > y->step) - (x->step < y->step);
}

static bool parse_step(struct str name, int64_t *step)
{
    struct err ignored = ERR_INIT;

    if (!str_starts(name, STR("step-")))
        return false;
    name.p += 5;
    name.n -= 5;
    return str_to_i64(name, 0, INT64_MAX, step, &ignored) == OK;
}

enum err_code checkpoint_list(struct store *st, const char *ref, struct checkpoint **out,
                              size_t *count, struct err *err)
{
    struct tree t = {0};
    struct buf text = {0};
    struct ref_row row;
    enum err_code rc = index_ref(st->index, str_of(ref), &row, err);

    *out = NULL;
    *count = 0;
    if (rc == ERR_NOT_FOUND) {
        *err = (struct err)ERR_INIT;
        return OK;
    }
    if (!rc && row.kind != OBJ_TREE)
        rc = err_set(err, ERR_INPUT, "ref %s is no tree of checkpoints", ref);
    if (rc)
        return rc;
    buf_init(&text, TREE_MAX);
    rc = object_read(st, &row.digest, TREE_MAX, &text, err);
    if (!rc)
        rc = tree_decode(text.p, text.n, 0, ref, &t, err);
    if (!rc)
        *out = mem_zero(t.count + 1, sizeof(**out));
    for (size_t i = 0; !rc && i < t.count; i++) {
        const struct tree_entry *e = &t.entries[i];
        struct checkpoint *c = &(*out)[*count];

        if (e->mode == TREE_LINK || !parse_step(e->name, &c->step))
            continue;
        c->kind = e->mode == TREE_DIR ? OBJ_TREE : OBJ_BLOB;
        c->digest = e->digest;
        c->size = e->size;
        ++*count;
    }
    if (!rc)
        qsort(*out, *count, sizeof(**out), by_step);
    tree_release(&t);
    buf_release(&text);
    return rc;
}

/* The new one among the old ones, too many of them dropped.  list has room for one more. */
static void insert(struct checkpoint *list, size_t *count, const struct checkpoint *fresh,
                   int64_t keep)
{
    size_t n = 0, below = 0, above = 0;

    for (size_t i = 0; i < *count; i++)
        if (list[i].step != fresh->step)
            list[n++] = list[i];
    list[n++] = *fresh;
    qsort(list, n, sizeof(*list), by_step);
    for (size_t i = 0; i < n; i++)
        *(list[i].step <= fresh->step ? &below : &above) += 1;
    *count = 0;
    for (size_t i = 0; i < n; i++) {
        const int64_t from_newest = (int64_t)(list[i].step <= fresh->step ? below - i : n - i);

        if (from_newest <= keep)
            list[(*count)++] = list[i];
    }
}

static enum err_code put_list(struct writer *w, const struct checkpoint *list, size_t count,
                              const char *ref, struct err *err)
{
    struct tree t = {0};
    struct buf text = {0};
    struct digest id;
    enum err_code rc = OK;

    tree_init(&t);
    buf_init(&text, TREE_MAX);
    for (size_t i = 0; !rc && i < count; i++) {
        char name[32];
        struct tree_entry e = {.mode = list[i].kind == OBJ_TREE ? TREE_DIR : TREE_FILE,
                               .digest = list[i].digest,
                               .size = list[i].size};
        bool has = false;

        (void)snprintf(name, sizeof(name), "step-%lld", (long long)list[i].step);
        e.name = str_of(name);
        rc = writer_has(w, &e.digest, &has, err); /* old ones are relied on, and checked */
        if (!rc && has)
            rc = tree_add(&t, &e, 0, err);
    }
    if (!rc)
        rc = tree_encode(&t, &text, err);
    if (!rc)
        rc = writer_put(w, OBJ_TREE, text.p, text.n, &id, err);
    if (!rc)
        rc = writer_ref(w, str_of(ref), OBJ_TREE, &id, err);
    tree_release(&t);
    buf_release(&text);
    return rc;
}

static enum err_code take_once(struct store *st, const char *ref, int64_t keep, int64_t step,
                               int dir, const char *path, struct err *err)
{
    const struct ingest_options copy = {.how = INGEST_COPY, .no_memo = true};
    struct checkpoint *list = NULL, fresh = {.step = step};
    struct ingest_result got;
    struct writer *w = NULL;
    size_t count = 0;
    enum err_code rc = checkpoint_list(st, ref, &list, &count, err);

    if (rc == ERR_NOT_FOUND ||
        rc == ERR_DAMAGED) { /* the new one is worth more than the old ones */
        *err = (struct err)ERR_INIT;
        count = 0;
        rc = OK;
    }
    if (!rc)
        rc = writer_open(st, &w, err);
    if (!rc)
        rc = ingest_path(w, dir, path, &copy, &got, err);
    if (!rc) {
        fresh.kind = got.kind;
        fresh.digest = got.digest;
        fresh.size = got.size;
        list = mem_grow(list, count + 1, sizeof(*list));
        insert(list, &count, &fresh, keep);
        rc = put_list(w, list, count, ref, err);
    }
    if (!rc)
        rc = writer_commit(w, err);
    writer_release(w);
    free(list);
    return rc;
}

enum err_code checkpoint_take(struct store *st, const char *ref, int64_t keep, int64_t step,
                              int dir, const char *path, struct err *err)
{
    enum err_code rc = OK;

    CHECK(keep > 0);
    for (int i = 0; i < RACES_MAX; i++) {
        *err = (struct err)ERR_INIT;
        rc = take_once(st, ref, keep, step, dir, path, err);
        if (rc != ERR_CHANGED)
            break;
    }
    return rc;
}
