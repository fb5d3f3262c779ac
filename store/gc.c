/* gc.c - the protocol of gc.h, step by step.
 *
 * The fence between a gc and everybody else is one number, "commits": the index refuses to condemn when anybody committed since the
 * mark began, and refuses a commit that relies on what is condemned.  So whatever a writer found in the index is either marked by us
 * or refused to the writer, who writes it anew.
 */
#include "store/gc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "store/gc_internal.h"
#include "store/loose.h"
#include "store/pack_cache.h"

/* Each needs a commit by somebody else between two of our transactions. */
#define RACES_MAX 50

/* ---- roots ------------------------------------------------------------------------------------- */

static void add_kind(struct mark *m, enum obj_kind kind, const struct digest *id)
{
    if (kind != OBJ_NONE)
        mark_add(m, kind, id);
}

static enum err_code missing_under_ref(struct store *st, const struct digest *id, struct err *err)
{
    char text[DIGEST_TEXT + 1];

    (void)st;
    digest_text(id, text);
    return err_set(
        err, ERR_DAMAGED,
        "object %s is missing, and a ref leads to it; nothing was deleted, run weir fsck "
        "(it names the ref)",
        text);
}

static enum err_code add_refs(struct gc *g, struct err *err)
{
    struct ref_row *rows = NULL;
    size_t n = 0, missing = 0;
    enum err_code rc;

    rc = index_refs(g->st->index, STR(""), REF_LIVE, &rows, &n, err);
    for (size_t i = 0; !rc && i < n; i++)
        add_kind(g->mark, rows[i].kind, &rows[i].digest);
    free(rows);
    g->roots = (int64_t)n;
    if (!rc)
        rc = mark_run(g->mark, err);
    if (!rc && !g->tolerant) {
        const struct digest *ids = mark_missing(g->mark, &missing);

        if (missing > 0)
            rc = missing_under_ref(g->st, &ids[0], err);
    }
    return rc;
}

static enum err_code add_leases(struct gc *g, struct err *err)
{
    struct lease_row *rows = NULL;
    size_t n = 0;
    enum err_code rc = index_leases(g->st->index, &rows, &n, err);

    for (size_t i = 0; !rc && i < n; i++)
        if (rows[i].expiry_ns > g->start_ns) {
            add_kind(g->mark, rows[i].kind, &rows[i].digest);
            g->roots++;
        }
    free(rows);
    return rc;
}

static enum err_code add_touched(struct gc *g, struct err *err)
{
    struct touch_row *rows = NULL;
    size_t n = 0;
    enum err_code rc = index_touches(g->st->index, &rows, &n, err);

    for (size_t i = 0; !rc && i < n; i++)
        if (rows[i].time_ns >= g->young_ns) {
            add_kind(g->mark, rows[i].kind, &rows[i].id);
            g->roots++;
        }
    free(rows);
    return rc;
}

/* Refs first: what they lack is damage.  What a lease or a touch lacks may still be on its way (a pull takes several commits). */
enum err_code gc_mark_roots(struct gc *g, struct err *err)
{
    enum err_code rc;

    rc = add_refs(g, err);
    if (!rc)
        rc = add_leases(g, err);
    if (!rc)
        rc = add_touched(g, err);
    g->tolerant = true; /* from now on the list of the missing is not of the refs alone */
    return rc ? rc : mark_run(g->mark, err);
}

/* ---- saving what is alive ---------------------------------------------------------------------- */

struct wanted {
    const struct plan *plan;
    uint32_t pack;
};

static bool is_wanted(void *arg, const struct pack_entry *e)
{
    const struct wanted *w = arg;

    return plan_wants(w->plan, w->pack, e);
}

static enum err_code save_pack(struct gc *g, const struct plan_pack *pp, struct err *err)
{
    struct wanted wanted = {.plan = &g->plan, .pack = pp->row.number};
    struct pack *pack = NULL;
    enum err_code rc;

    rc = pack_open(g->st->packs, &pp->row.name, &pack, err);
    if (!rc)
        rc = evac_copy(g->evac, pack, is_wanted, &wanted, err);
    pack_close(pack);
    return rc;
}

/* What the record that announced the file says about the chunk at pos. */
static enum hint hint_at(const struct record *r, uint64_t pos)
{
    size_t low = 0, high = r->count;

    while (low < high) {
        const size_t mid = low + (high - low) / 2;

        if ((uint64_t)r->offs[mid] < pos)
            low = mid + 1;
        else
            high = mid;
    }
    return low < r->count && (uint64_t)r->offs[low] == pos ? (enum hint)r->chunks[low].hint
                                                           : HINT_NONE;
}

static enum err_code save_slice(struct gc *g, struct codec *codec, const struct plan_slice *s,
                                struct buf *raw, struct buf *packed, struct err *err)
{
    struct pack_entry e = {.id = s->id, .type = REC_BLOB, .raw = s->loc.raw};
    const struct record *record = NULL;
    enum enc enc = ENC_RAW;
    enum err_code rc;

    buf_clear(raw);
    buf_clear(packed);
    rc = record_get(g->st, s->loc.pack, s->loc.off, &record, err);
    if (!rc)
        rc = object_chunk(g->st, &s->id, &s->loc, raw, err);
    if (!rc)
        rc = codec_best(codec, hint_at(record, s->loc.pos), GC_LEVEL, raw->p ? raw->p : "", raw->n,
                        &enc, packed, err);
    record_put(g->st, record);
    if (rc)
        return rc;
    e.enc = (uint8_t)enc;
    return enc == ENC_RAW ? evac_put(g->evac, &e, raw->p, raw->n, err)
                          : evac_put(g->evac, &e, packed->p, packed->n, err);
}

static enum err_code save_slices(struct gc *g, struct err *err)
{
    struct codec *codec = NULL;
    struct buf raw, packed;
    enum err_code rc;

    buf_init(&raw, CODEC_RAW_MAX);
    buf_init(&packed, (size_t)2 * CODEC_RAW_MAX);
    rc = codec_new(&codec, err);
    for (size_t i = 0; !rc && i < g->plan.slice_count; i++)
        rc = save_slice(g, codec, &g->plan.slices[i], &raw, &packed, err);
    codec_free(codec);
    buf_release(&raw);
    buf_release(&packed);
    return rc;
}

enum err_code gc_commit_saved(struct store *st, const struct evac *e, const struct condemned *going,
                              struct err *err)
{
    struct index_commit c = {.superseded = going->packs, .superseded_count = going->pack_count};
    const struct digest *names = evac_packs(e, &c.pack_count);
    struct pack **packs = mem_zero(c.pack_count + 1, sizeof(*packs));
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < c.pack_count; i++)
        rc = pack_open(st->packs, &names[i], &packs[i], err);
    c.packs = packs;
    if (!rc && c.pack_count > 0)
        rc = index_commit(st->index, &c, err);
    for (size_t i = 0; i < c.pack_count; i++)
        pack_close(packs[i]);
    free(packs);
    return rc;
}

enum err_code gc_save(struct gc *g, struct err *err)
{
    struct condemned going = {0};
    enum err_code rc;

    rc = evac_new(g->st, &g->evac, err);
    for (size_t i = 0; !rc && i < g->plan.pack_count; i++)
        if (g->plan.packs[i].verdict == PLAN_REWRITE)
            rc = save_pack(g, &g->plan.packs[i], err);
    if (!rc)
        rc = save_slices(g, err);
    if (!rc)
        rc = evac_finish(g->evac, err);
    if (rc)
        return rc;
    gc_list_going(g, &going);
    rc = gc_commit_saved(g->st, g->evac, &going, err);
    condemned_release(&going);
    return rc;
}

/* ---- condemning -------------------------------------------------------------------------------- */

void condemned_release(struct condemned *c)
{
    free(c->packs);
    free(c->loose);
    *c = (struct condemned){0};
}

void gc_list_going(const struct gc *g, struct condemned *out)
{
    struct idlist packs = {0}, loose = {0};

    for (size_t i = 0; i < g->plan.pack_count; i++)
        if (g->plan.packs[i].verdict != PLAN_KEEP)
            idlist_add(&packs, &g->plan.packs[i].row.name);
    for (size_t i = 0; i < g->plan.loose_count; i++)
        if (g->plan.loose[i].verdict == PLAN_DELETE)
            idlist_add(&loose, &g->plan.loose[i].id);
    *out = (struct condemned){
        .packs = packs.v, .pack_count = packs.n, .loose = loose.v, .loose_count = loose.n};
}

/* Does anything that was marked just now lie in what is about to go? */
static enum err_code in_danger(struct gc *g, const struct idlist *marked, bool *danger,
                               struct err *err)
{
    struct loc *locs = mem_alloc((marked->n + 1) * sizeof(*locs));
    enum err_code rc = index_get(g->st->index, marked->v, marked->n, locs, err);

    *danger = false;
    for (size_t i = 0; !rc && i < marked->n && !*danger; i++) {
        const struct plan_pack *pp = plan_find_pack(&g->plan, locs[i].pack);
        const struct plan_loose *l = plan_find_loose(&g->plan, &marked->v[i]);

        if (locs[i].type == 0)
            continue;
        /* For a slice the file that it is part of would have to be looked up: the second plan does. */
        *danger = (pp && pp->verdict != PLAN_KEEP) || (l && l->verdict == PLAN_DELETE) ||
                  locs[i].type == LOC_SLICE;
    }
    free(locs);
    return rc;
}

/* Somebody committed.  What their roots reach is marked too; if some of it was about to go, the plan is made again, and may
 * only be kinder than it was. */
enum err_code gc_reconsider(struct gc *g, struct err *err)
{
    struct idlist marked = {0};
    bool danger = false;
    enum err_code rc;

    mark_log(g->mark, &marked);
    rc = gc_mark_roots(g, err);
    mark_log(g->mark, NULL);
    if (!rc)
        rc = in_danger(g, &marked, &danger, err);
    if (!rc && danger) {
        struct plan second;

        plan_init(&second, g->st, g->mark);
        second.young_ns = g->young_ns;
        second.orphan_ns = g->plan.orphan_ns;
        second.before = &g->plan;
        second.saved = evac_ids(g->evac);
        rc = gc_plan_make(&second, err);
        second.before = NULL;
        gc_plan_release(&g->plan);
        g->plan = second;
    }
    idlist_release(&marked);
    return rc;
}

/* With no writer between its last look and its commit, every pack that relies on what it saw is in packs/: those that are not known yet
 * (their writer was killed) count as commits.  Whoever looks later sees what is condemned. */
static enum err_code condemn_once(struct gc *g, bool *done, struct err *err)
{
    struct condemned going;
    int64_t merged;
    int lock = -1;
    bool raced = true;
    enum err_code rc = OK;

    gc_list_going(g, &going);
    *done = going.pack_count + going.loose_count == 0;
    if (*done)
        goto out;
    rc = store_lock_commit(g->st, COMMIT_ALONE, &lock, err);
    if (!rc)
        rc = index_sync(g->st->index, g->st->packs, &merged, err);
    if (!rc)
        rc = index_condemn(g->st->index, &going, g->commits, &raced, &g->commits, err);
    os_close_quiet(&lock);
    *done = !raced;
out:
    condemned_release(&going);
    return rc;
}

enum err_code gc_condemn(struct gc *g, struct err *err)
{
    enum err_code rc = OK;
    bool done = false;

    for (int i = 0; !rc && !done && i < RACES_MAX; i++) {
        if (i > 0)
            rc = gc_reconsider(g, err);
        if (!rc)
            rc = condemn_once(g, &done, err);
    }
    if (!rc && !done)
        rc = err_set(err, ERR_AGAIN,
                     "somebody committed to the store each of %d times that gc was about to "
                     "delete; nothing was deleted, try again when less is written",
                     RACES_MAX);
    return rc;
}

/* ---- deleting ---------------------------------------------------------------------------------- */

static enum err_code delete_packs(struct store *st, const struct condemned *c, struct err *err)
{
    char hex[DIGEST_HEX + 1];
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < c->pack_count; i++) {
        digest_hex(&c->packs[i], hex);
        rc = os_unlink(st->packs, hex, err);
        if (rc == ERR_NOT_FOUND)
            rc = OK;
    }
    /* The names must be gone for good before the index forgets that they were condemned: a pack that came back after a power cut
     * would be merged again. */
    if (!rc && c->pack_count > 0)
        rc = os_fsync(st->packs, err);
    return rc;
}

/* *kept: those that somebody linked or used since; they stay, and are no longer condemned. */
static enum err_code delete_loose(struct store *st, const struct condemned *c, int64_t since_ns,
                                  struct idlist *kept, struct err *err)
{
    uint8_t dirs[32] = {0};
    enum err_code rc = OK;
    bool back;

    for (size_t i = 0; !rc && i < c->loose_count; i++) {
        const uint8_t first = c->loose[i].b[0];

        rc = loose_delete(st, &c->loose[i], since_ns, &back, err);
        if (rc == ERR_NOT_FOUND)
            rc = OK;
        dirs[first / 8] = (uint8_t)(dirs[first / 8] | 1u << first % 8);
        if (!rc && back)
            idlist_add(kept, &c->loose[i]);
    }
    if (!rc && c->loose_count > 0)
        rc = loose_sync(st, dirs, err);
    return rc || kept->n == 0 ? rc : index_reprieve(st->index, kept->v, kept->n, err);
}

/* Loose files first: those that are kept may be relied on again as soon as possible.  Packs go after the purge, which reads what else
 * the index says of their objects. */
enum err_code gc_delete(struct store *st, int64_t since_ns, struct gc_deleted *out, struct err *err)
{
    struct condemned c = {0};
    struct idlist kept = {0};
    enum err_code rc;

    *out = (struct gc_deleted){0};
    rc = index_condemned(st->index, &c, err);
    if (rc || c.pack_count + c.loose_count == 0)
        goto out;
    rc = delete_loose(st, &c, since_ns, &kept, err);
    if (!rc)
        rc = index_purge(st->index, err);
    if (!rc)
        rc = delete_packs(st, &c, err);
    if (!rc)
        rc = index_absolve(st->index, &c, err);
    out->packs = (int64_t)c.pack_count;
    out->loose_kept = (int64_t)kept.n;
    out->loose = (int64_t)c.loose_count - out->loose_kept;
out:
    idlist_release(&kept);
    condemned_release(&c);
    return rc;
}

enum err_code gc_finish_condemned(struct store *st, int64_t since_ns, struct err *err)
{
    struct gc_deleted ignored;

    CHECK(st);
    return gc_delete(st, since_ns, &ignored, err);
}
