/* index_dump.c - the index as text, for comparing two of them.
 *
 * Only what may be relied on is shown, with names instead of pack numbers: so an index that grew
 * commit by commit, with deletions, and one rebuilt from the same packs and loose files give the
 * same lines.  Rows are formatted in batches and written between transactions: a slow pipe holds up
 * nobody.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/os.h"
#include "store/index_internal.h"

#define DUMP_ROWS 4096
#define DUMP_BYTES (64 << 20)

typedef enum err_code (*dump_fn)(struct view *v, const struct walk *w, struct buf *out,
                                 struct err *err);

static enum err_code dump_some(struct index *ix, enum index_db db, dump_fn fn, uint8_t *from,
                               size_t *from_n, struct buf *out, bool *end, struct err *err)
{
    struct walk w;
    struct view v;
    size_t rows = 0;
    enum err_code rc = view_begin(ix, &v, err);

    if (rc)
        return rc;
    rc = walk_begin(&v, db, from, *from_n, &w, err);
    while (!rc && rows <= DUMP_ROWS) {
        rc = walk_next(&w, end, err);
        if (rc || *end)
            break;
        if (w.key.mv_size == *from_n && memcmp(w.key.mv_data, from, *from_n) == 0)
            continue; /* the last one of the batch before */
        rc = fn(&v, &w, out, err);
        rows++;
        *from_n = w.key.mv_size;
        memcpy(from, w.key.mv_data, w.key.mv_size);
    }
    walk_end(&w);
    view_end(&v);
    return rc;
}

static enum err_code dump_table(struct index *ix, enum index_db db, dump_fn fn, int fd,
                                struct err *err)
{
    uint8_t from[KEY_MAX];
    size_t from_n = 0;
    struct buf out;
    bool end = false;
    enum err_code rc = OK;

    buf_init(&out, DUMP_BYTES);
    while (!rc && !end) {
        buf_clear(&out);
        rc = dump_some(ix, db, fn, from, &from_n, &out, &end, err);
        if (!rc)
            rc = buf_check(&out, "index dump", err);
        if (!rc && out.n > 0)
            rc = os_write(fd, out.p, out.n, err);
    }
    buf_release(&out);
    return rc;
}

static enum err_code dump_action(struct view *v, const struct walk *w, struct buf *out,
                                 struct err *err)
{
    char key[DIGEST_HEX + 1], result[DIGEST_HEX + 1];
    struct digest d;
    struct loc l;
    enum err_code rc;

    memcpy(d.b, w->value, DIGEST_BYTES);
    rc = loc_best(v, &d, &l, err);
    if (rc || !l.type)
        return rc; /* a result that is gone: the next purge forgets the action */
    digest_hex(&d, result);
    memcpy(d.b, w->key.mv_data, DIGEST_BYTES);
    digest_hex(&d, key);
    buf_printf(out, "action %s %s %" PRIu64 "\n", key, result, le64_get(w->value + 32));
    return OK;
}

static enum err_code dump_place(struct view *v, const char *table, const struct digest *id,
                                const struct loc *l, struct buf *out, struct err *err)
{
    static const char *const types[] = {"none", "blob", "frame", "recipe", "loose", "slice"};
    char hex[DIGEST_HEX + 1], pack[DIGEST_HEX + 1];
    struct pack_row row;
    bool found;
    const enum err_code rc = pack_row_get(v, l->pack, &row, &found, err);

    if (rc)
        return rc;
    digest_hex(id, hex);
    if (found)
        digest_hex(&row.name, pack);
    else
        (void)snprintf(pack, sizeof(pack), "unknown");
    buf_printf(out, "%s %s %s enc %u flags %u raw %" PRIu64 " stored %u pos %" PRIu64 " %s %u\n",
               table, hex, types[l->type], l->enc, l->flags, l->raw, l->stored, l->pos, pack,
               l->off);
    return OK;
}

static enum err_code dump_object(struct view *v, const struct walk *w, struct buf *out,
                                 struct err *err)
{
    struct digest id;
    struct loc l;
    enum err_code rc;

    memcpy(id.b, w->key.mv_data, DIGEST_BYTES);
    rc = loc_decode(w->value, &l, err);
    if (!rc)
        rc = loc_settle(v, &id, &l, err);
    return rc || !l.type ? rc : dump_place(v, "object", &id, &l, out, err);
}

struct ranked {
    struct loc loc;
    struct digest pack;
};

static int ranked_cmp(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    int order = (x->loc.type > y->loc.type) - (x->loc.type < y->loc.type);

    if (!order)
        order = digest_cmp(&x->pack, &y->pack);
    return order ? order : (x->loc.off > y->loc.off) - (x->loc.off < y->loc.off);
}

static bool same_place(const struct loc *a, const struct loc *b)
{
    return a->type == b->type && a->pack == b->pack && a->off == b->off;
}

/* The visible ones of n, without the best, by rank. */
static enum err_code rank_others(struct view *v, const struct digest *id, const struct loc *best,
                                 const struct loc *all, size_t n, struct ranked *out, size_t *count,
                                 struct err *err)
{
    struct pack_row row;
    bool visible, found;
    enum err_code rc = OK;

    *count = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        rc = loc_visible(v, id, &all[i], &visible, err);
        if (rc || !visible || same_place(&all[i], best))
            continue;
        rc = pack_row_get(v, all[i].pack, &row, &found, err);
        if (!rc && found)
            out[(*count)++] = (struct ranked){.loc = all[i], .pack = row.name};
    }
    qsort(out, *count, sizeof(*out), ranked_cmp);
    return rc;
}

/* Keys of "also" hold pack numbers, which differ between two indexes: all rows of one id are taken
 * together, at its first row. */
static enum err_code dump_also(struct view *v, const struct walk *w, struct buf *out,
                               struct err *err)
{
    struct ranked *ranked = NULL;
    struct loc *others = NULL, best;
    struct digest id;
    size_t n = 0, count = 0;
    enum err_code rc;

    memcpy(id.b, w->key.mv_data, DIGEST_BYTES);
    rc = loc_others(v, &id, &others, &n, err);
    if (rc)
        return rc;
    uint8_t first[ALSO_KEY];
    also_key(&id, &others[0], first);
    if (memcmp(first, w->key.mv_data, ALSO_KEY) == 0) {
        ranked = mem_grow(NULL, n, sizeof(*ranked));
        rc = loc_best(v, &id, &best, err);
        if (!rc)
            rc = rank_others(v, &id, &best, others, n, ranked, &count, err);
        for (size_t i = 0; i < count && !rc; i++)
            rc = dump_place(v, "also", &id, &ranked[i].loc, out, err);
    }
    free(ranked);
    free(others);
    return rc;
}

static enum err_code dump_pack(struct view *v, const struct walk *w, struct buf *out,
                               struct err *err)
{
    char hex[DIGEST_HEX + 1];
    struct pack_row row;
    bool found;
    const enum err_code rc = pack_row_get(v, le32_get(w->value), &row, &found, err);

    if (rc || !found)
        return rc;
    digest_hex(&row.name, hex);
    buf_printf(out, "pack %s bytes %" PRId64 " records %" PRId64 " created %" PRId64 "\n", hex,
               row.bytes, row.records, row.created_ns);
    return OK;
}

static enum err_code dump_ref(struct view *v, const struct walk *w, struct buf *out,
                              struct err *err)
{
    char hex[DIGEST_HEX + 1];
    struct digest d;

    (void)v;
    (void)err;
    memcpy(d.b, w->value, DIGEST_BYTES);
    digest_hex(&d, hex);
    buf_printf(out, "ref %.*s kind %u %s %" PRIu64 "\n", (int)w->key.mv_size,
               (const char *)w->key.mv_data, w->value[32], hex, le64_get(w->value + 33));
    return OK;
}

enum err_code index_dump(struct index *ix, int fd, struct err *err)
{
    static const struct {
        enum index_db db;
        dump_fn fn;
    } tables[] = {{DB_ACTION, dump_action},
                  {DB_ALSO, dump_also},
                  {DB_OBJECT, dump_object},
                  {DB_PACKNAME, dump_pack},
                  {DB_REF, dump_ref}};
    enum err_code rc = OK;

    CHECK(ix);
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]) && !rc; i++)
        rc = dump_table(ix, tables[i].db, tables[i].fn, fd, err);
    return rc ? err_prefix(err, "dump the index") : OK;
}
