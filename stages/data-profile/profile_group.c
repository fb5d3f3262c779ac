/* Duplicates: the same bytes, the same pixels, or nearly the same picture. */
#include <stdlib.h>
#include <string.h>

#include "stages/data-profile/profile.h"
#include "stages/data/claim.h"

#define PAIRS_MAX 50000000

static int64_t root_of(int64_t *parent, int64_t i)
{
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    return i;
}

/* The smaller index stays the root, so the result does not depend on the order of joins. */
static void join(int64_t *parent, int64_t a, int64_t b)
{
    a = root_of(parent, a);
    b = root_of(parent, b);
    parent[a > b ? a : b] = a > b ? b : a;
}

struct named {
    const char *name;
    int64_t i;
};

static int by_name(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    const int c = strcmp(x->name, y->name);

    return c ? c : (x->i > y->i) - (x->i < y->i);
}

/* By the original's bytes, or by those of the picture here: whoever made the dataset may have named its files as he liked. */
static void join_equal(struct profile *p, bool original, int64_t *parent)
{
    struct named *list = mem_zero((size_t)p->count + 1, sizeof(*list));

    for (int64_t i = 0; i < p->count; i++)
        list[i] = (struct named){
            original ? row_text(p->items[i].row, "original_sha256", "") : p->items[i].sha256, i};
    qsort(list, (size_t)p->count, sizeof(*list), by_name);
    for (int64_t i = 1; i < p->count; i++)
        if (*list[i].name && strcmp(list[i].name, list[i - 1].name) == 0)
            join(parent, list[i].i, list[i - 1].i);
    free(list);
}

static enum err_code join_near(struct profile *p, int64_t *parent, struct err *err)
{
    const struct twin_rule rule = {(int)stage_int(p->task, "phash_distance"),
                                   (int)stage_int(p->task, "twin_difference")};
    struct twin *twins = mem_zero((size_t)p->count + 1, sizeof(*twins));
    struct twin_pair *pairs = NULL;
    int64_t n = 0;
    enum err_code rc;

    for (int64_t i = 0; i < p->count; i++)
        twins[i] = p->items[i].twin;
    rc = twin_search(twins, p->count, &rule, PAIRS_MAX, &pairs, &n, err);
    for (int64_t i = 0; i < n; i++)
        join(parent, pairs[i].i, pairs[i].j);
    free(pairs);
    free(twins);
    return rc;
}

static void merge_claims(struct item *best, const struct item *other)
{
    json_t *claims = json_object_get(best->row, "image_claims");
    struct claim_verdict v;

    if (!json_is_array(claims)) {
        claims = json_array();
        row_set(best->row, "image_claims", claims);
    }
    claim_merge(claims, json_object_get(other->row, "image_claims"), other->id);
    v = claim_conclude(claims);
    row_set(best->row, "license_type", json_string(v.lic));
    row_set(best->row, "concluded_license", json_string(v.lic));
    row_set(best->row, "license_rule", json_string(v.rule));
    row_set(best->row, "quarantine", json_boolean(v.quarantine));
}

static void choose_best(struct profile *p, int64_t *parent)
{
    int64_t *best = mem_zero((size_t)p->count + 1, sizeof(*best));

    for (int64_t i = 0; i < p->count; i++)
        best[i] = i;
    for (int64_t i = 0; i < p->count; i++) {
        const int64_t root = root_of(parent, i);

        if (p->items[i].quality > p->items[best[root]].quality)
            best[root] = i;
    }
    for (int64_t i = 0; i < p->count; i++) {
        struct item *it = &p->items[i];

        it->group = best[root_of(parent, i)];
        if (it->group == i)
            continue;
        p->near++;
        merge_claims(&p->items[it->group], it);
        row_set(it->row, "dup_of", json_string(p->items[it->group].id));
    }
    free(best);
}

enum err_code profile_group(struct profile *p, struct err *err)
{
    int64_t *parent = mem_zero((size_t)p->count + 1, sizeof(*parent));
    enum err_code rc;

    for (int64_t i = 0; i < p->count; i++)
        parent[i] = i;
    join_equal(p, true, parent);
    join_equal(p, false, parent);
    for (int64_t i = 0; i < p->count; i++)
        p->exact += root_of(parent, i) != i;
    rc = join_near(p, parent, err);
    if (!rc)
        choose_best(p, parent);
    p->near -= p->exact;
    free(parent);
    return rc;
}
