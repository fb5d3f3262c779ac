#include "store/gc_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "store/journal_view.h"
#include "store/loose.h"
#include "store/reader.h"

#define SCAN 8192

void plan_init(struct plan *p, struct store *st, struct mark *mark)
{
    *p = (struct plan){.st = st, .mark = mark, .young_ns = INT64_MAX, .orphan_ns = INT64_MAX};
}

static void forget(struct plan *p)
{
    free(p->packs);
    free(p->loose);
    free(p->slices);
    free(p->live);
    journal_view_free(p->journal);
    p->packs = NULL;
    p->loose = NULL;
    p->slices = NULL;
    p->live = NULL;
    p->journal = NULL;
    p->pack_count = p->loose_count = p->loose_cap = p->slice_count = p->slice_cap = 0;
    p->live_count = p->live_cap = 0;
    p->live_objects = p->live_bytes = 0;
}

void gc_plan_release(struct plan *p)
{
    forget(p);
}

/* ---- tables ------------------------------------------------------------------------------------ */

static int by_number(const void *a, const void *b)
{
    const struct plan_pack *x = a, *y = b;

    return x->row.number < y->row.number ? -1 : x->row.number > y->row.number;
}

static int by_loose_id(const void *a, const void *b)
{
    return digest_cmp(&((const struct plan_loose *)a)->id, &((const struct plan_loose *)b)->id);
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

struct plan_pack *plan_find_pack(const struct plan *p, uint32_t number)
{
    const struct plan_pack wanted = {.row.number = number};

    return p->pack_count == 0
               ? NULL
               : bsearch(&wanted, p->packs, p->pack_count, sizeof(wanted), by_number);
}

struct plan_loose *plan_find_loose(const struct plan *p, const struct digest *id)
{
    const struct plan_loose wanted = {.id = *id};

    return p->loose_count == 0
               ? NULL
               : bsearch(&wanted, p->loose, p->loose_count, sizeof(wanted), by_loose_id);
}

static void add_loose(struct plan *p, const struct plan_loose *l)
{
    if (p->loose_count == p->loose_cap) {
        p->loose_cap = p->loose_cap ? p->loose_cap * 2 : 256;
        p->loose = mem_grow(p->loose, p->loose_cap, sizeof(*p->loose));
    }
    p->loose[p->loose_count++] = *l;
}

static void add_slice(struct plan *p, const struct digest *id, const struct loc *loc)
{
    if (p->slice_count == p->slice_cap) {
        p->slice_cap = p->slice_cap ? p->slice_cap * 2 : 256;
        p->slices = mem_grow(p->slices, p->slice_cap, sizeof(*p->slices));
    }
    p->slices[p->slice_count++] = (struct plan_slice){.id = *id, .loc = *loc};
}

static uint64_t record_key(uint32_t pack, uint32_t off)
{
    return (uint64_t)pack << 32 | off;
}

static void add_live(struct plan *p, const struct loc *loc)
{
    if (p->live_count == p->live_cap) {
        p->live_cap = p->live_cap ? p->live_cap * 2 : 4096;
        p->live = mem_grow(p->live, p->live_cap, sizeof(*p->live));
    }
    p->live[p->live_count++] = record_key(loc->pack, loc->off);
}

static void sort_live(struct plan *p)
{
    size_t kept = 0;

    if (p->live_count == 0)
        return;
    qsort(p->live, p->live_count, sizeof(*p->live), by_value);
    for (size_t i = 1; i < p->live_count; i++)
        if (p->live[i] != p->live[kept])
            p->live[++kept] = p->live[i];
    p->live_count = kept + 1;
}

static bool is_live(const struct plan *p, uint32_t pack, uint32_t off)
{
    const uint64_t key = record_key(pack, off);

    return p->live_count > 0 &&
           bsearch(&key, p->live, p->live_count, sizeof(key), by_value) != NULL;
}

bool plan_wants(const struct plan *p, uint32_t pack, const struct pack_entry *e)
{
    if (e->type == REC_BIND || e->type == REC_REF)
        return journal_counts(p->journal, e);
    return is_live(p, pack, e->off) && (e->type != REC_FRAME || mark_has(p->mark, &e->id));
}

/* ---- what the index knows ---------------------------------------------------------------------- */

static enum err_code load_packs(struct plan *p, struct err *err)
{
    struct pack_row *rows = NULL;
    size_t n = 0;
    enum err_code rc = index_packs(p->st->index, &rows, &n, err);

    if (rc)
        return rc;
    p->packs = mem_zero(n + 1, sizeof(*p->packs));
    /* Without records: somebody is merging it at this moment. */
    for (size_t i = 0; i < n; i++)
        if (rows[i].records > 0)
            p->packs[p->pack_count++].row = rows[i];
    qsort(p->packs, p->pack_count, sizeof(*p->packs), by_number);
    free(rows);
    return OK;
}

static void sort_object(struct plan *p, const struct digest *id, const struct loc *loc)
{
    const bool reached = mark_has(p->mark, id);
    struct plan_pack *pack = plan_find_pack(p, loc->pack);

    p->live_objects += reached;
    if (!reached && pack && loc->type != LOC_SLICE)
        pack->dead_objects++;
    if (loc->type == LOC_LOOSE)
        add_loose(p, &(struct plan_loose){
                         .id = *id, .loc = *loc, .size = (int64_t)loc->raw, .state = LOOSE_GONE});
    else if (reached && loc->type == LOC_SLICE)
        add_slice(p, id, loc);
    else if (reached)
        add_live(p, loc);
}

static enum err_code scan_index(struct plan *p, struct err *err)
{
    struct digest *ids = mem_alloc(SCAN * sizeof(*ids)), cursor = {{0}};
    struct loc *locs = mem_alloc(SCAN * sizeof(*locs));
    bool started = false;
    size_t n = 1;
    enum err_code rc = OK;

    while (!rc && n > 0) {
        rc = index_scan(p->st->index, &cursor, &started, ids, locs, SCAN, &n, err);
        for (size_t i = 0; !rc && i < n; i++)
            sort_object(p, &ids[i], &locs[i]);
    }
    free(ids);
    free(locs);
    /* The scan goes by id, so the rows of loose objects are sorted. */
    return rc;
}

/* ---- what is in loose/ ------------------------------------------------------------------------- */

static bool parse_loose(unsigned first, const char *name, struct digest *id)
{
    char hex[DIGEST_HEX + 1];
    struct err ignored = ERR_INIT;

    if (strlen(name) != DIGEST_HEX - 2)
        return false;
    snprintf(hex, sizeof(hex), "%02x%.62s", first & 0xff, name);
    return digest_parse(hex, DIGEST_HEX, id, &ignored) == OK;
}

static enum err_code look_at_file(struct plan *p, struct plan_loose *l, struct err *err)
{
    char name[LOOSE_NAME];
    struct stat info;
    enum err_code rc;

    loose_name(&l->id, name);
    rc = os_stat_at(p->st->loose, name, &info, err);
    if (rc)
        return rc;
    l->size = info.st_size;
    l->atime_ns = (int64_t)info.st_atim.tv_sec * 1000000000 + info.st_atim.tv_nsec;
    return OK;
}

/* rows: how many of p->loose came from the index, sorted; what else turns up is appended. */
static enum err_code list_folder(struct plan *p, unsigned first, size_t rows, struct err *err)
{
    struct os_entry *entries = NULL;
    size_t count = 0;
    char name[3];
    enum err_code rc;
    int dir = -1;

    snprintf(name, sizeof(name), "%02x", first & 0xff);
    rc = os_open_dir(p->st->loose, name, &dir, err);
    if (!rc)
        rc = os_list(dir, &entries, &count, err);
    for (size_t i = 0; !rc && i < count; i++) {
        struct plan_loose l = {.state = LOOSE_ORPHAN}, *row;

        if (!parse_loose(first, entries[i].name, &l.id))
            continue; /* fsck's business */
        row = rows == 0 ? NULL : bsearch(&l, p->loose, rows, sizeof(l), by_loose_id);
        if (row)
            row->state = mark_has(p->mark, &l.id) ? LOOSE_LIVE : LOOSE_DEAD;
        else
            add_loose(p, &l);
    }
    free(entries);
    os_close_quiet(&dir);
    return rc;
}

static enum err_code sort_strangers(struct plan *p, size_t rows, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = rows; !rc && i < p->loose_count; i++) {
        struct plan_loose *l = &p->loose[i];

        rc = index_get(p->st->index, &l->id, 1, &l->loc, err);
        /* A slice elsewhere keeps the bytes too, but only together with that other file. */
        if (!rc && l->loc.type != 0 && l->loc.type != LOC_SLICE)
            l->state = LOOSE_SUPERSEDED;
    }
    return rc;
}

static enum err_code look_at_loose(struct plan *p, struct err *err)
{
    const size_t rows = p->loose_count;
    enum err_code rc = OK;

    for (unsigned i = 0; !rc && i < 256; i++)
        rc = list_folder(p, i, rows, err);
    if (!rc)
        rc = sort_strangers(p, rows, err);
    for (size_t i = 0; !rc && i < p->loose_count; i++)
        if (p->loose[i].state != LOOSE_LIVE && p->loose[i].state != LOOSE_GONE) {
            rc = look_at_file(p, &p->loose[i], err);
            if (rc == ERR_NOT_FOUND) { /* quarantined by a reader just now */
                p->loose[i].state = LOOSE_GONE;
                *err = (struct err)ERR_INIT;
                rc = OK;
            }
        }
    if (!rc && p->loose_count > 0)
        qsort(p->loose, p->loose_count, sizeof(*p->loose), by_loose_id);
    return rc;
}

static enum err_code gone(const struct plan_loose *l, const struct digest *wanted, struct err *err)
{
    char file[DIGEST_TEXT + 1], text[DIGEST_TEXT + 1];

    digest_text(&l->id, file);
    digest_text(wanted, text);
    return err_set(err, ERR_DAMAGED,
                   "object %s is needed and its bytes were in loose file %s, which is gone; "
                   "nothing was deleted, run weir fsck",
                   text, file);
}

/* Which file is a slice part of?  Slices of one file name one record, so neighbours mostly share the answer. */
static enum err_code find_containers(struct plan *p, struct err *err)
{
    struct pack_entry e = {0};
    struct pack *pack = NULL;
    enum err_code rc = OK;
    uint64_t last = 0;

    for (size_t i = 0; !rc && i < p->slice_count; i++) {
        struct plan_slice *s = &p->slices[i];

        if (i == 0 || record_key(s->loc.pack, s->loc.off) != last) {
            rc = pack_cache_get(p->st, s->loc.pack, &pack, err);
            if (!rc) {
                rc = pack_read_header(pack, s->loc.off, &e, err);
                pack_cache_put(p->st, pack);
            }
            last = record_key(s->loc.pack, s->loc.off);
        }
        s->loose = e.id;
    }
    return rc == ERR_NOT_FOUND ? err_set(err, ERR_DAMAGED, "a pack is gone; run weir fsck") : rc;
}

static int by_record(const void *a, const void *b)
{
    const struct loc *x = &((const struct plan_slice *)a)->loc;
    const struct loc *y = &((const struct plan_slice *)b)->loc;
    const uint64_t p = record_key(x->pack, x->off), q = record_key(y->pack, y->off);

    if (p != q)
        return p < q ? -1 : 1;
    return x->pos < y->pos ? -1 : x->pos > y->pos;
}

/* A slice keeps the record that announces its file, or, when the file goes, has to be saved. */
static enum err_code sort_slices(struct plan *p, struct err *err)
{
    size_t kept = 0;
    enum err_code rc;

    if (p->slice_count > 0)
        qsort(p->slices, p->slice_count, sizeof(*p->slices), by_record);
    rc = find_containers(p, err);
    for (size_t i = 0; !rc && i < p->slice_count; i++) {
        struct plan_slice *s = &p->slices[i];
        struct plan_loose *l = plan_find_loose(p, &s->loose);

        if (!l || l->state == LOOSE_GONE)
            return gone(l ? l : &(struct plan_loose){.id = s->loose}, &s->id, err);
        if (l->state == LOOSE_LIVE || l->verdict == PLAN_KEEP) {
            add_live(p, &s->loc);
        } else if (!p->saved || !idset_has(p->saved, &s->id)) {
            l->uncovered = true;
            p->slices[kept++] = *s;
        }
    }
    p->slice_count = kept;
    return rc;
}

static bool is_young(const struct plan *p, const struct plan_loose *l)
{
    if (l->state == LOOSE_GONE)
        return false;
    return l->atime_ns >= p->young_ns || (l->state == LOOSE_ORPHAN && l->atime_ns >= p->orphan_ns);
}

static enum err_code judge_loose(struct plan *p, struct err *err)
{
    for (size_t i = 0; i < p->loose_count; i++) {
        struct plan_loose *l = &p->loose[i];
        const struct plan_loose *old = p->before ? plan_find_loose(p->before, &l->id) : NULL;

        if (l->state == LOOSE_GONE && mark_has(p->mark, &l->id))
            return gone(l, &l->id, err);
        /* What was used lately stays, whatever the roots say: a node may be about to announce it. */
        l->verdict = l->state == LOOSE_LIVE || is_young(p, l) ||
                             (p->before && (!old || old->verdict == PLAN_KEEP))
                         ? PLAN_KEEP
                         : PLAN_DELETE;
        if (l->state == LOOSE_LIVE)
            add_live(p, &l->loc);
    }
    return sort_slices(p, err);
}

/* Second thoughts: a file whose slices turned out to be needed after the saving stays, and with it the records that announce it. */
static void keep_uncovered(struct plan *p)
{
    if (!p->before)
        return;
    for (size_t i = 0; i < p->slice_count; i++) {
        struct plan_loose *l = plan_find_loose(p, &p->slices[i].loose);

        l->verdict = PLAN_KEEP;
        add_live(p, &p->slices[i].loc);
    }
}

/* ---- what the packs hold ----------------------------------------------------------------------- */

static enum err_code open_toc(struct plan *p, const struct plan_pack *pp, struct pack **pack,
                              const struct pack_entry **toc, size_t *count, struct err *err)
{
    char hex[DIGEST_HEX + 1];
    enum err_code rc;

    rc = pack_open(p->st->packs, &pp->row.name, pack, err);
    if (!rc)
        rc = pack_toc(*pack, toc, count, err);
    if (rc != ERR_NOT_FOUND)
        return rc;
    digest_hex(&pp->row.name, hex);
    return err_set(err, ERR_DAMAGED,
                   "pack %s is in the index but not in packs/; nothing was deleted, run weir fsck",
                   hex);
}

/* Stored bytes are shared among the members of a pack's frames by their length. */
struct tally {
    int64_t records, frames, members, live_members;
    size_t dead_recipes;
};

static void count_entry(const struct plan *p, struct plan_pack *pp, const struct pack_entry *e,
                        struct tally *t)
{
    const bool wanted = plan_wants(p, pp->row.number, e);
    const bool journal = e->type == REC_BIND || e->type == REC_REF;

    if (e->type == REC_FRAME) {
        if (e->pos == 0 && e->raw > 0)
            t->frames += PACK_RECORD_HEADER + e->stored;
        t->members += (int64_t)e->raw;
        t->live_members += wanted ? (int64_t)e->raw : 0;
    } else if (wanted) {
        t->records += PACK_RECORD_HEADER + e->stored;
    }
    if (wanted) {
        t->records += PACK_TOC_ENTRY;
        pp->live++;
        /* Binds and refs of a rewritten pack are saved with everything else. */
        if (!p->saved || (!journal && !idset_has(p->saved, &e->id)))
            pp->uncovered++;
    }
    t->dead_recipes += e->type == REC_RECIPE && !wanted;
}

static enum verdict judge_pack(const struct plan *p, const struct plan_pack *pp,
                               const struct tally *t)
{
    const struct plan_pack *old = p->before ? plan_find_pack(p->before, pp->row.number) : NULL;

    if (pp->row.created_ns >= p->young_ns)
        return PLAN_KEEP;
    if (p->before && (!old || old->verdict == PLAN_KEEP || pp->uncovered > 0))
        return PLAN_KEEP;
    if (pp->live == 0)
        return PLAN_DELETE;
    if (p->before || t->dead_recipes > 0)
        return PLAN_REWRITE;
    return pp->live_bytes * 2 < pp->row.bytes ? PLAN_REWRITE : PLAN_KEEP;
}

/* *again: something was marked. */
static enum err_code look_at_pack(struct plan *p, struct plan_pack *pp, bool *again,
                                  struct err *err)
{
    const struct pack_entry *toc;
    struct pack *pack = NULL;
    struct tally t = {0};
    size_t count = 0;
    enum err_code rc;

    rc = open_toc(p, pp, &pack, &toc, &count, err);
    if (rc)
        goto out;
    for (size_t i = 0; i < count; i++)
        count_entry(p, pp, &toc[i], &t);
    if (t.members > 0)
        t.records += (int64_t)((double)t.frames * (double)t.live_members / (double)t.members);
    pp->live_bytes = t.records;
    pp->verdict = judge_pack(p, pp, &t);
    if (pp->verdict != PLAN_KEEP || t.dead_recipes == 0)
        goto out;
    for (size_t i = 0; i < count; i++)
        if (toc[i].type == REC_RECIPE && !plan_wants(p, pp->row.number, &toc[i])) {
            /* Marked already: another copy of the object is the one that counts.  Its chunks were marked by that copy's
             * list; this list is cut by the same rules and so is the same. */
            *again |= !mark_has(p->mark, &toc[i].id);
            mark_add(p->mark, OBJ_BLOB, &toc[i].id);
        }
out:
    pack_close(pack);
    return rc;
}

static enum err_code make_once(struct plan *p, bool *again, struct err *err)
{
    enum err_code rc;

    forget(p);
    rc = journal_view_new(p->st, &p->journal, err);
    if (!rc)
        rc = load_packs(p, err);
    if (!rc)
        rc = scan_index(p, err);
    if (!rc)
        rc = look_at_loose(p, err);
    if (!rc)
        rc = judge_loose(p, err);
    if (rc)
        return rc;
    keep_uncovered(p);
    sort_live(p);
    for (size_t i = 0; !rc && i < p->pack_count; i++)
        rc = look_at_pack(p, &p->packs[i], again, err);
    return rc;
}

enum err_code gc_plan_make(struct plan *p, struct err *err)
{
    bool again = true;
    enum err_code rc = OK;

    /* Each round marks at least one more recipe, so this ends. */
    while (!rc && again) {
        again = false;
        rc = make_once(p, &again, err);
        if (!rc && again)
            rc = mark_run(p->mark, err);
    }
    for (size_t i = 0; !rc && i < p->pack_count; i++)
        p->live_bytes += p->packs[i].live_bytes;
    for (size_t i = 0; !rc && i < p->loose_count; i++)
        p->live_bytes += p->loose[i].state == LOOSE_LIVE ? p->loose[i].size : 0;
    return rc;
}
