#include "store/journal_view.h"

#include <stdlib.h>
#include <string.h>

struct stamped {
    struct digest id; /* as in the toc: the action key, or the SHA-256 of the ref's name */
    uint64_t stamp;
};

struct journal_view {
    struct stamped *binds, *refs; /* by id */
    size_t bind_count, ref_count;
};

static int by_id(const void *a, const void *b)
{
    return digest_cmp(&((const struct stamped *)a)->id, &((const struct stamped *)b)->id);
}

static enum err_code load_binds(struct store *st, struct journal_view *j, struct err *err)
{
    struct action_row *rows = NULL;
    struct digest *results = NULL;
    struct loc *locs = NULL;
    size_t n = 0;
    enum err_code rc;

    rc = index_actions(st->index, &rows, &n, err);
    if (rc)
        return rc;
    j->binds = mem_alloc((n + 1) * sizeof(*j->binds));
    results = mem_alloc((n + 1) * sizeof(*results));
    locs = mem_alloc((n + 1) * sizeof(*locs));
    for (size_t i = 0; i < n; i++)
        results[i] = rows[i].result;
    rc = index_get(st->index, results, n, locs, err);
    for (size_t i = 0; !rc && i < n; i++)
        if (locs[i].type != 0)
            j->binds[j->bind_count++] = (struct stamped){rows[i].key, (uint64_t)rows[i].stamp};
    qsort(j->binds, j->bind_count, sizeof(*j->binds), by_id);
    free(rows);
    free(results);
    free(locs);
    return rc;
}

static enum err_code load_refs(struct store *st, struct journal_view *j, struct err *err)
{
    struct ref_row *rows = NULL;
    size_t n = 0;
    enum err_code rc;

    rc = index_refs(st->index, STR(""), REF_ALL, &rows, &n, err);
    if (rc)
        return rc;
    j->refs = mem_alloc((n + 1) * sizeof(*j->refs));
    j->ref_count = n;
    for (size_t i = 0; i < n; i++) {
        sha256_of(rows[i].name, strlen(rows[i].name), &j->refs[i].id);
        j->refs[i].stamp = (uint64_t)rows[i].stamp;
    }
    qsort(j->refs, n, sizeof(*j->refs), by_id);
    free(rows);
    return OK;
}

enum err_code journal_view_new(struct store *st, struct journal_view **out, struct err *err)
{
    struct journal_view *j = mem_zero(1, sizeof(*j));
    enum err_code rc;

    CHECK(out);
    *out = NULL;
    rc = load_binds(st, j, err);
    if (!rc)
        rc = load_refs(st, j, err);
    if (rc) {
        journal_view_free(j);
        return rc;
    }
    *out = j;
    return OK;
}

void journal_view_free(struct journal_view *j)
{
    if (!j)
        return;
    free(j->binds);
    free(j->refs);
    free(j);
}

bool journal_counts(const struct journal_view *j, const struct pack_entry *e)
{
    const bool bind = e->type == REC_BIND;
    const struct stamped wanted = {.id = e->id};
    const struct stamped *s;

    CHECK(bind || e->type == REC_REF);
    s = bsearch(&wanted, bind ? j->binds : j->refs, bind ? j->bind_count : j->ref_count, sizeof(*s),
                by_id);
    /* Two records with one stamp and different contents are told apart by the index alone; here both count. */
    return s && s->stamp == e->stamp;
}
