/* Two questions: is everything below an object there (store_complete), and do index, packs and files agree (store_check)?  Neither
 * reads contents; that is fsck's work. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "store/idset.h"
#include "store/loose.h"
#include "store/pack_cache.h"
#include "store/store.h"
#include "store/tree.h"

#define BATCH 4096

/* The loose file is there, with that size. */
static enum err_code loose_there(struct store *st, const struct digest *id, uint64_t size,
                                 bool *there, struct err *err)
{
    char name[LOOSE_NAME];
    struct stat info;
    enum err_code rc;

    loose_name(id, name);
    rc = os_stat_at(st->loose, name, &info, err);
    *there = !rc && S_ISREG(info.st_mode) && (uint64_t)info.st_size == size;
    return rc == ERR_NOT_FOUND ? OK : rc;
}

static enum err_code slice_there(struct store *st, const struct loc *loc, bool *there,
                                 struct err *err)
{
    struct pack *pack = NULL;
    struct pack_entry e = {0};
    enum err_code rc;

    *there = false;
    rc = pack_cache_get(st, loc->pack, &pack, err);
    if (!rc)
        rc = pack_read_header(pack, loc->off, &e, err);
    if (!rc && e.type == REC_LOOSE && loc->pos <= e.raw && loc->raw <= e.raw - loc->pos)
        rc = loose_there(st, &e.id, e.raw, there, err);
    pack_cache_put(st, pack);
    return rc;
}

/* ---- store_complete ---------------------------------------------------------------------------- */

/* What was reached, each id once: trees may share parts so often that walking every path would never end.  An id may come up as a
 * file first and as a tree later; then it is looked into once more. */
enum { AS_BLOB = 1, AS_TREE = 2 };
struct reached {
    struct digest id;
    enum obj_kind kind;
};
struct walk {
    struct reached *queue;
    size_t count, room, next;
    struct idset *seen;
};

static void walk_add(struct walk *w, enum obj_kind kind, const struct digest *id)
{
    uint8_t *seen = idset_add(w->seen, id, NULL);
    const unsigned as = kind == OBJ_TREE ? AS_BLOB | AS_TREE : AS_BLOB;

    if ((*seen & as) == as)
        return;
    *seen = (uint8_t)(*seen | as);
    if (w->count == w->room) {
        w->room = w->room ? w->room * 2 : 256;
        w->queue = mem_grow(w->queue, w->room, sizeof(*w->queue));
    }
    w->queue[w->count++] = (struct reached){.id = *id, .kind = kind};
}

static enum err_code add_tree(struct store *st, struct walk *w, const struct digest *id,
                              struct err *err)
{
    char text[DIGEST_TEXT + 1];
    struct tree t = {0};
    struct buf bytes;
    enum err_code rc;

    buf_init(&bytes, TREE_BYTES_MAX);
    tree_init(&t);
    digest_text(id, text);
    rc = object_read(st, id, TREE_BYTES_MAX, &bytes, err);
    if (!rc)
        rc = tree_decode(bytes.p ? bytes.p : "", bytes.n, -1, text, &t, err);
    for (size_t i = 0; !rc && i < t.count; i++)
        if (t.entries[i].mode != TREE_LINK)
            walk_add(w, t.entries[i].mode == TREE_DIR ? OBJ_TREE : OBJ_BLOB, &t.entries[i].digest);
    tree_release(&t);
    buf_release(&bytes);
    return rc;
}

static enum err_code add_chunks(struct store *st, struct walk *w, const struct loc *loc,
                                struct err *err)
{
    const struct record *r = NULL;
    const enum err_code rc = record_get(st, loc->pack, loc->off, &r, err);

    for (size_t i = 0; !rc && i < r->count; i++)
        walk_add(w, OBJ_BLOB, &r->chunks[i].id);
    record_put(st, r);
    return rc;
}

/* One object: is it there, and what does it need? */
static enum err_code visit(struct store *st, struct walk *w, const struct reached *at,
                           const struct loc *loc, bool *there, struct err *err)
{
    enum err_code rc = OK;

    *there = loc->type != 0;
    if (loc->type == LOC_LOOSE)
        rc = loose_there(st, &at->id, loc->raw, there, err);
    else if (loc->type == LOC_SLICE)
        rc = slice_there(st, loc, there, err);
    else if (loc->type == LOC_RECIPE)
        rc = add_chunks(st, w, loc, err);
    if (!rc && *there && at->kind == OBJ_TREE)
        rc = add_tree(st, w, &at->id, err);
    if (rc == ERR_NOT_FOUND) { /* a pack, or a part of a tree's own manifest */
        *there = false;
        rc = OK;
    }
    return rc;
}

static enum err_code visit_batch(struct store *st, struct walk *w, size_t n, bool *complete,
                                 struct digest *missing, struct err *err)
{
    struct digest *ids = mem_alloc(n * sizeof(*ids));
    struct loc *locs = mem_alloc(n * sizeof(*locs));
    enum err_code rc;

    for (size_t i = 0; i < n; i++)
        ids[i] = w->queue[w->next + i].id;
    rc = object_locate(st, ids, n, locs, err);
    for (size_t i = 0; !rc && *complete && i < n; i++) {
        const struct reached at = w->queue[w->next + i]; /* a copy: the queue may move */

        rc = visit(st, w, &at, &locs[i], complete, err);
        if (!*complete && missing)
            *missing = at.id;
    }
    w->next += n;
    free(locs);
    free(ids);
    return rc;
}

enum err_code store_complete(struct store *st, enum obj_kind kind, const struct digest *d,
                             bool *complete, struct digest *missing, struct err *err)
{
    struct walk w = {.seen = idset_new()};
    enum err_code rc = OK;

    CHECK(st);
    CHECK(complete);
    *complete = true;
    if (missing)
        *missing = (struct digest){0};
    walk_add(&w, kind, d);
    while (!rc && *complete && w.next < w.count) {
        const size_t left = w.count - w.next;

        rc = visit_batch(st, &w, left < BATCH ? left : BATCH, complete, missing, err);
    }
    free(w.queue);
    idset_free(w.seen);
    if (rc)
        *complete = false;
    return rc;
}

/* ---- store_check ------------------------------------------------------------------------------- */

struct place {
    struct digest id;
    struct loc loc;
};

static int by_pack(const void *a, const void *b)
{
    const struct place *x = a, *y = b;

    if (x->loc.pack != y->loc.pack)
        return x->loc.pack < y->loc.pack ? -1 : 1;
    return digest_cmp(&x->id, &y->id);
}

static enum err_code list_places(struct store *st, struct place **out, size_t *count,
                                 struct err *err)
{
    struct digest cursor = {0}, *ids = mem_alloc(BATCH * sizeof(*ids));
    struct loc *locs = mem_alloc(BATCH * sizeof(*locs));
    size_t n = 0, room = 0;
    bool started = false;
    enum err_code rc;

    *out = NULL;
    *count = 0;
    do {
        rc = index_scan(st->index, &cursor, &started, ids, locs, BATCH, &n, err);
        if (!rc && *count + n > room) {
            room = (*count + n) * 2;
            *out = mem_grow(*out, room, sizeof(**out));
        }
        for (size_t i = 0; !rc && i < n; i++)
            (*out)[(*count)++] = (struct place){.id = ids[i], .loc = locs[i]};
    } while (!rc && n > 0);
    free(locs);
    free(ids);
    if (!rc && *count > 0)
        qsort(*out, *count, sizeof(**out), by_pack);
    return rc;
}

static enum err_code violates(const struct place *p, const char *what, struct err *err)
{
    char text[DIGEST_TEXT + 1];

    digest_text(&p->id, text);
    return err_set(err, ERR_DAMAGED,
                   "store check: object %s (place type %d, pack number %u, offset %u): %s", text,
                   p->loc.type, p->loc.pack, p->loc.off, what);
}

/* Is the place an entry of its pack's toc?  Slices have none; their record is asked. */
static bool in_toc(const struct place *p, const struct pack_entry *toc, size_t count)
{
    size_t low = 0, high = count;

    while (low < high) {
        const size_t mid = low + (high - low) / 2;

        if (digest_cmp(&toc[mid].id, &p->id) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    for (; low < count && digest_eq(&toc[low].id, &p->id); low++) {
        const struct pack_entry *e = &toc[low];

        if (e->type == p->loc.type && e->off == p->loc.off && e->raw == p->loc.raw &&
            e->stored == p->loc.stored && (e->type != REC_FRAME || e->pos == p->loc.pos))
            return true;
    }
    return false;
}
_Static_assert((int)LOC_BLOB == REC_BLOB && (int)LOC_FRAME == REC_FRAME &&
                   (int)LOC_RECIPE == REC_RECIPE && (int)LOC_LOOSE == REC_LOOSE,
               "in_toc compares them");

static enum err_code check_place(struct store *st, const struct place *p,
                                 const struct pack_entry *toc, size_t count, struct err *err)
{
    bool there = true;
    enum err_code rc = OK;

    if (p->loc.type == LOC_SLICE) {
        rc = slice_there(st, &p->loc, &there, err);
        if (!rc && !there)
            rc = violates(p, "its slice of a loose file is not there", err);
        return rc;
    }
    if (!in_toc(p, toc, count))
        return violates(p, "its pack does not say so", err);
    if (p->loc.type == LOC_LOOSE)
        rc = loose_there(st, &p->id, p->loc.raw, &there, err);
    if (!rc && !there)
        rc = violates(p, "its loose file is missing or has another size", err);
    return rc;
}

/* Everything in the pack must be in the index as well, unless a gc has ever taken dead objects out of it. */
static enum err_code check_toc(struct store *st, const struct pack_entry *toc, size_t count,
                               struct err *err)
{
    struct digest *ids = mem_alloc((count + 1) * sizeof(*ids));
    struct loc *locs = mem_alloc((count + 1) * sizeof(*locs));
    size_t n = 0;
    enum err_code rc;

    for (size_t i = 0; i < count; i++)
        if (toc[i].type == REC_BLOB || toc[i].type == REC_FRAME || toc[i].type == REC_RECIPE)
            ids[n++] = toc[i].id;
    rc = index_get(st->index, ids, n, locs, err);
    for (size_t i = 0; !rc && i < n; i++) {
        const struct place p = {.id = ids[i], .loc = locs[i]};

        if (locs[i].type == 0)
            rc = violates(&p, "a pack has it, the index does not", err);
    }
    free(locs);
    free(ids);
    return rc;
}

static enum err_code check_pack(struct store *st, const struct pack_row *row, bool whole,
                                const struct place *places, size_t count, struct err *err)
{
    const struct pack_entry *toc = NULL;
    char hex[DIGEST_HEX + 1];
    struct pack *pack = NULL;
    size_t toc_count = 0;
    enum err_code rc;

    digest_hex(&row->name, hex);
    rc = pack_open(st->packs, &row->name, &pack, err);
    if (rc == ERR_NOT_FOUND)
        return err_set(err, ERR_DAMAGED, "store check: the index knows pack %s, which is missing",
                       hex);
    if (!rc)
        rc = pack_toc(pack, &toc, &toc_count, err);
    if (!rc && (pack_bytes(pack) != row->bytes || (int64_t)toc_count != row->records))
        rc = err_set(err, ERR_DAMAGED,
                     "store check: pack %s has %lld bytes and %zu records, the index says %lld and "
                     "%lld",
                     hex, (long long)pack_bytes(pack), toc_count, (long long)row->bytes,
                     (long long)row->records);
    for (size_t i = 0; !rc && i < count; i++)
        rc = check_place(st, &places[i], toc, toc_count, err);
    if (!rc && whole)
        rc = check_toc(st, toc, toc_count, err);
    pack_close(pack);
    return rc;
}

static bool is_condemned(const struct condemned *c, const struct digest *name)
{
    for (size_t i = 0; i < c->pack_count; i++)
        if (digest_eq(&c->packs[i], name))
            return true;
    return false;
}

static int by_number(const void *a, const void *b)
{
    const struct pack_row *x = a, *y = b;

    return (x->number > y->number) - (x->number < y->number);
}

static enum err_code check_packs(struct store *st, bool whole, const struct place *places,
                                 size_t count, struct err *err)
{
    struct condemned condemned = {0};
    struct pack_row *rows = NULL;
    size_t n = 0, at = 0;
    enum err_code rc;

    rc = index_packs(st->index, &rows, &n, err);
    if (!rc)
        rc = index_condemned(st->index, &condemned, err);
    if (!rc && n > 0)
        qsort(rows, n, sizeof(*rows), by_number);
    for (size_t i = 0; !rc && i < n; i++) {
        const size_t first = at;

        while (at < count && places[at].loc.pack == rows[i].number)
            at++;
        /* A killed gc may have deleted the files of what it condemned; nobody relies on those. */
        if (!is_condemned(&condemned, &rows[i].name))
            rc = check_pack(st, &rows[i], whole, at > first ? places + first : NULL, at - first,
                            err);
        if (!rc && at < count && i + 1 < n && places[at].loc.pack < rows[i + 1].number)
            break;
    }
    if (!rc && at < count)
        rc = violates(&places[at], "the index has no row for its pack", err);
    free(condemned.packs);
    free(condemned.loose);
    free(rows);
    return rc;
}

static enum err_code check_refs(struct store *st, struct err *err)
{
    struct ref_row *rows = NULL;
    size_t n = 0;
    enum err_code rc;

    rc = index_refs(st->index, STR(""), REF_LIVE, &rows, &n, err);
    for (size_t i = 0; !rc && i < n; i++) {
        char text[DIGEST_TEXT + 1];
        struct loc loc;

        rc = index_get(st->index, &rows[i].digest, 1, &loc, err);
        digest_text(&rows[i].digest, text);
        if (!rc && loc.type == 0)
            rc = err_set(err, ERR_DAMAGED, "store check: ref %s names object %s, which is missing",
                         rows[i].name, text);
    }
    free(rows);
    return rc;
}

static enum err_code check_folders(struct store *st, struct err *err)
{
    enum err_code rc = OK;

    for (unsigned i = 0; !rc && i < 256; i++) {
        char name[3];
        struct stat info;

        snprintf(name, sizeof(name), "%02x", i);
        rc = os_stat_at(st->loose, name, &info, err);
        if (rc == ERR_NOT_FOUND || (!rc && !S_ISDIR(info.st_mode)))
            rc = err_set(err, ERR_DAMAGED, "store check: the folder loose/%s is missing", name);
    }
    return rc;
}

enum err_code store_check(struct store *st, struct err *err)
{
    struct place *places = NULL;
    struct index_stat stat;
    size_t count = 0;
    enum err_code rc;

    CHECK(st);
    CHECK(st->index);
    rc = check_folders(st, err);
    if (!rc)
        rc = index_stat(st->index, &stat, err);
    if (!rc)
        rc = list_places(st, &places, &count, err);
    if (!rc)
        rc = check_packs(st, stat.epoch == 0, places, count, err);
    if (!rc)
        rc = check_refs(st, err);
    free(places);
    return rc;
}
