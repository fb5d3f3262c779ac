/* fsck_paths.c - from damaged objects back to the names that people know.
 *
 * Trees do not know who refers to them, so the refs are walked, each with the path that led there.  A tree below which nothing is damaged is
 * remembered, and not entered again from other refs: the whole costs about one look at each tree.
 */
#include <stdlib.h>
#include <string.h>

#include "store/fsck_internal.h"
#include "store/reader.h"
#include "store/tree.h"

#define PLACES_MAX 8 /* named for one object */
#define TEXT_MAX 16384
#define VISITS_MAX 10000000 /* trees that share damaged parts crosswise could be walked for ever */

struct wanted {
    struct digest id;
    struct buf text;
    int places;
};

struct search {
    struct fsck *f;
    struct wanted *wanted; /* by id */
    size_t count;
    struct idset *clean; /* trees below which nothing is wanted */
    int64_t visits;
    const char *what, *name; /* "ref", its name */
    struct buf path;
};

static int by_id(const void *a, const void *b)
{
    return digest_cmp(&((const struct wanted *)a)->id, &((const struct wanted *)b)->id);
}

static void list_wanted(struct search *s)
{
    const struct fsck_report *r = s->f->report;
    size_t kept = 0;

    s->wanted = mem_zero(r->problem_count + 1, sizeof(*s->wanted));
    for (size_t i = 0; i < r->problem_count; i++)
        if (!digest_is_zero(&r->problems[i].id) && !r->problems[i].part_of)
            s->wanted[s->count++].id = r->problems[i].id;
    if (s->count == 0)
        return;
    qsort(s->wanted, s->count, sizeof(*s->wanted), by_id);
    for (size_t i = 1; i < s->count; i++)
        if (!digest_eq(&s->wanted[i].id, &s->wanted[kept].id))
            s->wanted[++kept].id = s->wanted[i].id;
    s->count = kept + 1;
    for (size_t i = 0; i < s->count; i++)
        buf_init(&s->wanted[i].text, TEXT_MAX);
}

static struct wanted *find(const struct search *s, const struct digest *id)
{
    const struct wanted key = {.id = *id};

    return bsearch(&key, s->wanted, s->count, sizeof(key), by_id);
}

/* Is it one of those?  Then the present path is noted. */
static bool note(struct search *s, const struct digest *id)
{
    struct wanted *w = find(s, id);

    if (!w)
        return false;
    if (w->places++ < PLACES_MAX) {
        buf_printf(&w->text, "%s%s %s", w->text.n ? "; " : "", s->what, s->name);
        if (s->path.n > 0)
            buf_printf(&w->text, ": %s", s->path.p);
    } else if (w->places == PLACES_MAX + 1) {
        buf_str(&w->text, "; and others");
    }
    return true;
}

/* A file may be made of chunks, of which one is wanted. */
static enum err_code look_into_recipe(struct search *s, const struct digest *id, bool *found,
                                      struct err *err)
{
    struct recipe_chunk *chunks = NULL;
    struct loc loc;
    size_t count = 0;
    enum err_code rc;

    rc = index_get(s->f->st->index, id, 1, &loc, err);
    if (rc || loc.type != LOC_RECIPE)
        return rc;
    rc = object_chunks(s->f->st, id, &chunks, &count, err);
    for (size_t i = 0; !rc && i < count; i++)
        if (!digest_eq(&chunks[i].id, id))
            *found |= note(s, &chunks[i].id);
    free(chunks);
    return rc;
}

static enum err_code look_at(struct search *s, enum obj_kind kind, const struct digest *id,
                             int depth, bool *found, struct err *err);

static enum err_code look_at_entries(struct search *s, const struct tree *t, int depth, bool *found,
                                     struct err *err)
{
    const size_t before = s->path.n;
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < t->count; i++) {
        const struct tree_entry *e = &t->entries[i];
        bool here = false;

        if (e->mode == TREE_LINK)
            continue;
        if (before > 0)
            buf_char(&s->path, '/');
        buf_add(&s->path, e->name.p, e->name.n);
        rc = look_at(s, e->mode == TREE_DIR ? OBJ_TREE : OBJ_BLOB, &e->digest, depth + 1, &here,
                     err);
        *found |= here;
        s->path.n = before;
        s->path.p[before] = '\0';
    }
    return rc;
}

static enum err_code look_into_tree(struct search *s, const struct digest *id, int depth,
                                    bool *found, struct err *err)
{
    struct err form = ERR_INIT;
    struct tree t = {0};
    struct buf bytes;
    enum err_code rc;

    if (depth > TREE_DEPTH_MAX || idset_has(s->clean, id) || ++s->visits > VISITS_MAX)
        return OK;
    buf_init(&bytes, TREE_BYTES_MAX);
    tree_init(&t);
    rc = object_read(s->f->st, id, TREE_BYTES_MAX, &bytes, err);
    if (!rc && tree_decode(bytes.p ? bytes.p : "", bytes.n, -1, "", &t, &form) == OK) {
        buf_release(&bytes);
        rc = look_at_entries(s, &t, depth, found, err);
    }
    tree_release(&t);
    buf_release(&bytes);
    return rc;
}

/* What cannot be read was noted itself; there is nothing to see below it. */
static enum err_code look_at(struct search *s, enum obj_kind kind, const struct digest *id,
                             int depth, bool *found, struct err *err)
{
    enum err_code rc;

    *found = note(s, id);
    rc = look_into_recipe(s, id, found, err);
    if (!rc && kind == OBJ_TREE)
        rc = look_into_tree(s, id, depth, found, err);
    if (rc == ERR_DAMAGED || rc == ERR_NOT_FOUND) {
        *err = (struct err)ERR_INIT;
        return OK;
    }
    if (!rc && kind == OBJ_TREE && !*found && s->visits <= VISITS_MAX)
        idset_add(s->clean, id, NULL);
    return rc;
}

static enum err_code search_root(struct search *s, const char *what, const char *name,
                                 enum obj_kind kind, const struct digest *id, struct err *err)
{
    bool found;

    if (kind == OBJ_NONE)
        return OK;
    s->what = what;
    s->name = name;
    buf_clear(&s->path);
    return look_at(s, kind, id, 0, &found, err);
}

static enum err_code search_all(struct search *s, struct err *err)
{
    struct ref_row *refs = NULL;
    struct lease_row *leases = NULL;
    size_t n = 0;
    enum err_code rc;

    rc = index_refs(s->f->st->index, STR(""), REF_LIVE, &refs, &n, err);
    for (size_t i = 0; !rc && i < n; i++)
        rc = search_root(s, "ref", refs[i].name, refs[i].kind, &refs[i].digest, err);
    if (!rc)
        rc = index_leases(s->f->st->index, &leases, &n, err);
    for (size_t i = 0; !rc && i < n; i++)
        rc = search_root(s, "lease", leases[i].name, leases[i].kind, &leases[i].digest, err);
    free(refs);
    free(leases);
    return rc;
}

enum err_code fsck_paths(struct fsck *f, struct err *err)
{
    struct search s = {.f = f};
    enum err_code rc;

    list_wanted(&s);
    if (s.count == 0) {
        free(s.wanted);
        return OK;
    }
    s.clean = idset_new();
    buf_init(&s.path, 1 << 20);
    rc = search_all(&s, err);
    for (size_t i = 0; i < f->report->problem_count; i++) {
        struct fsck_problem *p = &f->report->problems[i];
        const struct wanted *w = p->part_of ? NULL : find(&s, &p->id);

        if (w && w->text.n > 0)
            p->part_of = mem_strdup(w->text.p);
    }
    for (size_t i = 0; i < s.count; i++)
        buf_release(&s.wanted[i].text);
    free(s.wanted);
    buf_release(&s.path);
    idset_free(s.clean);
    return rc;
}
