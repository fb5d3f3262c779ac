/* A run that is not over yet may last longer than the grace period of gc, or lie stopped for weeks: what it has and what it needs is kept by
 * a ref of its own, running/run-N, until its tree takes over. */
#include <string.h>

#include "orchestrator/run_internal.h"
#include "store/tree.h"

#define PIN_EVERY_MS (INT64_C(10) * 60 * 1000)

static struct str pin_name(struct run *r)
{
    return str_of(arena_printf(&r->arena, "running/run-%lld", (long long)r->number));
}

static enum err_code put(struct writer *w, struct tree *t, struct digest *id, int64_t *size,
                         struct err *err)
{
    struct buf text = {0};
    enum err_code rc;

    buf_init(&text, TREE_BYTES_MAX);
    rc = tree_encode(t, &text, err);
    if (!rc)
        rc = writer_put(w, OBJ_TREE, text.p, text.n, id, err);
    *size = (int64_t)text.n;
    buf_release(&text);
    return rc;
}

static enum err_code add_source(struct tree *t, const char *name, const struct source_object *o,
                                struct err *err)
{
    const struct tree_entry e = {.mode = o->kind == OBJ_TREE ? TREE_DIR : TREE_FILE,
                                 .name = str_of(name),
                                 .digest = o->digest,
                                 .size = o->size};

    return tree_add(t, &e, 0, err);
}

static enum err_code put_pinned(struct run *r, struct writer *w, struct digest *id, struct err *err)
{
    struct tree_entry tasks = {.mode = TREE_DIR, .name = STR("tasks")},
                      all = {.mode = TREE_DIR, .name = STR("sources")};
    struct tree top = {0}, sources = {0};
    int64_t size;
    enum err_code rc = OK;

    tree_init(&top);
    tree_init(&sources);
    for (size_t i = 0; !rc && i < r->p->source_count; i++) {
        const struct source_object *o = source_get(resolver_sources(r->resolver), (int)i);

        if (o && !digest_is_zero(&o->digest))
            rc = add_source(&sources, r->p->sources[i].name, o, err);
    }
    if (!rc)
        rc = put(w, &sources, &all.digest, &all.size, err);
    if (!rc)
        rc = resolve_results_tree(r->resolver, w, &tasks.digest, &tasks.size, err);
    if (!rc)
        rc = tree_add(&top, &all, 0, err);
    if (!rc)
        rc = tree_add(&top, &tasks, 0, err);
    if (!rc)
        rc = put(w, &top, id, &size, err);
    tree_release(&sources);
    tree_release(&top);
    return rc;
}

enum err_code run_pin(struct run *r, struct err *err)
{
    struct writer *w = NULL;
    struct digest id;
    enum err_code rc = writer_open(r->st, &w, err);

    if (!rc)
        rc = put_pinned(r, w, &id, err);
    if (!rc)
        rc = writer_ref(w, pin_name(r), OBJ_TREE, &id, err);
    if (!rc)
        rc = writer_commit(w, err);
    writer_release(w);
    return rc;
}

enum err_code run_pin_now_and_then(struct run *r, struct err *err)
{
    if (r->pinned_ms == 0)
        r->pinned_ms = run_now_ms();
    if (run_now_ms() - r->pinned_ms < PIN_EVERY_MS)
        return OK;
    r->pinned_ms = run_now_ms();
    return run_pin(r, err);
}

enum err_code run_unpin(struct run *r, struct writer *w, struct err *err)
{
    static const struct digest none;
    struct ref_row row;
    enum err_code rc = index_ref(r->st->index, pin_name(r), &row, err);

    if (rc == ERR_NOT_FOUND) {
        *err = (struct err)ERR_INIT;
        return OK;
    }
    return rc ? rc : writer_ref(w, pin_name(r), OBJ_NONE, &none, err);
}
