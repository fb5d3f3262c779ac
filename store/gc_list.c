/* What a gc tells people: what goes and why, and what each root keeps. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/gc_internal.h"

#define DAY_TEXT 16

static void show_day(int64_t ns, char out[DAY_TEXT])
{
    const time_t s = (time_t)(ns / 1000000000);
    struct tm tm;

    if (!gmtime_r(&s, &tm) || strftime(out, DAY_TEXT, "%Y-%m-%d", &tm) == 0)
        memcpy(out, "?", 2);
}

static void list_pack(const struct plan_pack *p, struct buf *out)
{
    char hex[DIGEST_HEX + 1], size[16], live[16], day[DAY_TEXT];

    digest_hex(&p->row.name, hex);
    str_from_bytes(p->row.bytes, size);
    str_from_bytes(p->live_bytes, live);
    show_day(p->row.created_ns, day);
    if (p->verdict == PLAN_DELETE)
        buf_printf(out, "pack %s %s: nothing in it is reachable (made %s, %lld dead objects)\n",
                   hex, size, day, (long long)p->dead_objects);
    else
        buf_printf(out,
                   "pack %s %s: %s of it is reachable and will be copied (made %s, %lld dead "
                   "objects)\n",
                   hex, size, live, day, (long long)p->dead_objects);
}

static void list_loose(const struct plan_loose *l, struct buf *out)
{
    char text[DIGEST_TEXT + 1], size[16], day[DAY_TEXT];

    digest_text(&l->id, text);
    str_from_bytes(l->size, size);
    show_day(l->atime_ns, day);
    switch (l->state) {
    case LOOSE_DEAD:
        buf_printf(out, "loose %s %s: unreachable (last used %s)\n", text, size, day);
        break;
    case LOOSE_SUPERSEDED:
        buf_printf(out, "loose %s %s: superseded, its contents are in packs\n", text, size);
        break;
    case LOOSE_ORPHAN:
        buf_printf(out, "loose %s %s: no pack announces it (last used %s)\n", text, size, day);
        break;
    case LOOSE_LIVE:
    case LOOSE_GONE:
        break;
    }
}

void gc_list_plan(const struct gc *g, struct buf *out)
{
    for (size_t i = 0; i < g->plan.pack_count; i++)
        if (g->plan.packs[i].verdict != PLAN_KEEP)
            list_pack(&g->plan.packs[i], out);
    for (size_t i = 0; i < g->plan.loose_count; i++)
        if (g->plan.loose[i].verdict == PLAN_DELETE)
            list_loose(&g->plan.loose[i], out);
}

/* ---- what each root keeps ------------------------------------------------------------------------ */

#define ROOTS_LISTED_MAX 10000
#define LOOKUP 4096

struct root {
    char *name;
    enum obj_kind kind;
    struct digest id;
};
struct roots {
    struct root *v;
    size_t n;
    int64_t touched;
};

static void add_root(struct roots *r, const char *what, const char *name, enum obj_kind kind,
                     const struct digest *id)
{
    struct buf text;

    if (kind == OBJ_NONE || r->n == ROOTS_LISTED_MAX)
        return;
    buf_init(&text, 4096);
    buf_printf(&text, "%s %s", what, name);
    r->v[r->n++] = (struct root){.name = buf_take(&text), .kind = kind, .id = *id};
}

static enum err_code load_roots(const struct gc *g, struct roots *r, struct err *err)
{
    struct lease_row *leases = NULL;
    struct touch_row *touches = NULL;
    struct ref_row *refs = NULL;
    size_t n = 0;
    enum err_code rc;

    r->v = mem_zero(ROOTS_LISTED_MAX, sizeof(*r->v));
    rc = index_refs(g->st->index, STR(""), REF_LIVE, &refs, &n, err);
    for (size_t i = 0; !rc && i < n; i++)
        add_root(r, "ref", refs[i].name, refs[i].kind, &refs[i].digest);
    if (!rc)
        rc = index_leases(g->st->index, &leases, &n, err);
    for (size_t i = 0; !rc && i < n; i++)
        if (leases[i].expiry_ns > g->start_ns)
            add_root(r, "lease", leases[i].name, leases[i].kind, &leases[i].digest);
    if (!rc)
        rc = index_touches(g->st->index, &touches, &n, err);
    for (size_t i = 0; !rc && i < n; i++)
        r->touched += touches[i].time_ns >= g->young_ns;
    free(refs);
    free(leases);
    free(touches);
    return rc;
}

struct share {
    int64_t objects, bytes, own_bytes;
};

/* Contents, before compression: what a recipe's chunks hold is counted there. */
static enum err_code measure(const struct gc *g, const struct idlist *ids,
                             const struct idset *users, struct share *s, struct err *err)
{
    struct loc *locs = mem_alloc(LOOKUP * sizeof(*locs));
    enum err_code rc = OK;

    *s = (struct share){.objects = (int64_t)ids->n};
    for (size_t at = 0; !rc && at < ids->n; at += LOOKUP) {
        const size_t n = ids->n - at < LOOKUP ? ids->n - at : LOOKUP;

        rc = index_get(g->st->index, ids->v + at, n, locs, err);
        for (size_t i = 0; !rc && i < n; i++) {
            const uint8_t *used = idset_find(users, &ids->v[at + i]);

            if (locs[i].type == 0 || locs[i].type == LOC_RECIPE)
                continue;
            s->bytes += (int64_t)locs[i].raw;
            s->own_bytes += used && *used == 1 ? (int64_t)locs[i].raw : 0;
        }
    }
    free(locs);
    return rc;
}

static enum err_code reach(const struct gc *g, const struct root *r, struct idlist *ids,
                           struct err *err)
{
    struct mark *m = NULL;
    enum err_code rc = mark_new(g->st, &m, err);

    if (rc)
        return rc;
    mark_log(m, ids);
    rc = mark_root(m, r->kind, &r->id, err);
    mark_free(m);
    if (!rc)
        idlist_sort(ids);
    return rc;
}

/* Each root is walked twice: first to count how many roots reach an object, then to say what is reached by it alone. */
static enum err_code list_root(const struct gc *g, const struct root *r, struct idset *users,
                               struct buf *out, struct err *err)
{
    struct idlist ids = {0};
    struct share s = {0};
    char all[16], own[16];
    enum err_code rc;

    rc = reach(g, r, &ids, err);
    if (!rc && out)
        rc = measure(g, &ids, users, &s, err);
    for (size_t i = 0; !rc && !out && i < ids.n; i++) {
        uint8_t *used = idset_add(users, &ids.v[i], NULL);

        *used = (uint8_t)(*used < 2 ? *used + 1 : 2);
    }
    if (!rc && out) {
        str_from_bytes(s.bytes, all);
        str_from_bytes(s.own_bytes, own);
        buf_printf(out, "keep %s: %lld objects, %s, of which %s would go without it\n", r->name,
                   (long long)s.objects, all, own);
    }
    idlist_release(&ids);
    return rc;
}

enum err_code gc_list_roots(const struct gc *g, struct buf *out, struct err *err)
{
    struct idset *users = idset_new();
    struct roots r = {0};
    enum err_code rc;

    rc = load_roots(g, &r, err);
    for (size_t i = 0; !rc && i < r.n; i++)
        rc = list_root(g, &r.v[i], users, NULL, err);
    for (size_t i = 0; !rc && i < r.n; i++)
        rc = list_root(g, &r.v[i], users, out, err);
    if (!rc && r.n == ROOTS_LISTED_MAX)
        buf_printf(out, "keep ...: more than %d roots, the rest is not listed\n", ROOTS_LISTED_MAX);
    if (!rc && r.touched > 0)
        buf_printf(out, "keep %lld objects added or used within the grace period\n",
                   (long long)r.touched);
    for (size_t i = 0; i < r.n; i++)
        free(r.v[i].name);
    free(r.v);
    idset_free(users);
    return rc;
}
