/* index_row.c - rows of the index, each with its checksum, and the places that rows of objects
 * name.
 *
 * An object may lie in several places.  The table "object" has the one that comes first by the rule
 * of index.h, "also" all others, so that taking a pack away needs no file read: the next best place
 * moves up.  Entries of loose files stay as long as the pack that announces them; whether the file
 * is there at present is the table "gone", one row for a loose file that was deleted.  So what an
 * index says depends only on its packs and on which loose files exist, not on the order of events.
 */
#include <stdlib.h>

#include "store/index_internal.h"

#define X(db, name, bytes) bytes,
static const size_t table_bytes[DB_COUNT] = {INDEX_DATABASES(X)};
#undef X

/* ---- rows ---- */

static uint32_t row_crc(enum index_db db, const void *key, size_t key_n, const void *value)
{
    const uint8_t seed = (uint8_t)db; /* a page of one table must not pass for one of another */
    const uint32_t crc = crc32c(crc32c(0, &seed, 1), key, key_n);

    return crc32c(crc, value, table_bytes[db]);
}

enum err_code row_check(enum index_db db, const MDB_val *key, const MDB_val *value,
                        const uint8_t **out, struct err *err)
{
    const uint8_t *p = value->mv_data;

    if (value->mv_size != table_bytes[db] + 4 ||
        le32_get(p + table_bytes[db]) != row_crc(db, key->mv_data, key->mv_size, p))
        return err_set(err, ERR_DAMAGED,
                       "index: a row of \"%s\" does not match its checksum; run weir store rebuild",
                       index_table_name[db]);
    *out = p;
    return OK;
}

/* LMDB takes keys and values as void *, but writes to neither. */
static MDB_val borrow(const void *p, size_t n)
{
    return (MDB_val){.mv_size = n, .mv_data = (void *)(uintptr_t)p};
}

enum err_code row_get(struct view *v, enum index_db db, const void *key, size_t key_n,
                      uint8_t *value, bool *found, struct err *err)
{
    MDB_val k = borrow(key, key_n), d;
    const uint8_t *p;
    const int mdb = mdb_get(v->txn, v->ix->dbi[db], &k, &d);
    enum err_code rc;

    *found = false;
    if (mdb == MDB_NOTFOUND)
        return OK;
    if (mdb)
        return index_fail(err, mdb, index_table_name[db]);
    rc = row_check(db, &k, &d, &p, err);
    if (rc)
        return rc;
    memcpy(value, p, table_bytes[db]);
    *found = true;
    return OK;
}

static enum err_code put(struct view *v, enum index_db db, const void *key, size_t key_n,
                         const uint8_t *value, unsigned flags, struct err *err)
{
    uint8_t full[ROW_MAX + 4];
    const size_t n = table_bytes[db];
    MDB_val k = borrow(key, key_n), d = {.mv_size = n + 4, .mv_data = full};
    enum err_code rc = index_fault("put", err);
    int mdb;

    if (rc)
        return rc;
    memcpy(full, value, n);
    le32_put(full + n, row_crc(db, key, key_n, value));
    mdb = index_wrote(v->ix, mdb_put(v->txn, v->ix->dbi[db], &k, &d, flags));
    if (mdb == MDB_MAP_FULL)
        v->map_full = true;
    return mdb ? index_fail(err, mdb, index_table_name[db]) : OK;
}

enum err_code row_put(struct view *v, enum index_db db, const void *key, size_t key_n,
                      const uint8_t *value, struct err *err)
{
    return put(v, db, key, key_n, value, 0, err);
}

enum err_code row_append(struct view *v, enum index_db db, const void *key, size_t key_n,
                         const uint8_t *value, struct err *err)
{
    return put(v, db, key, key_n, value, MDB_APPEND, err);
}

enum err_code row_del(struct view *v, enum index_db db, const void *key, size_t key_n,
                      struct err *err)
{
    MDB_val k = borrow(key, key_n);
    enum err_code rc = index_fault("delete", err);
    int mdb;

    if (rc)
        return rc;
    mdb = index_wrote(v->ix, mdb_del(v->txn, v->ix->dbi[db], &k, NULL));
    if (mdb == MDB_MAP_FULL)
        v->map_full = true;
    return mdb && mdb != MDB_NOTFOUND ? index_fail(err, mdb, index_table_name[db]) : OK;
}

enum err_code row_count(struct view *v, enum index_db db, int64_t *rows, struct err *err)
{
    MDB_stat st;
    const int mdb = mdb_stat(v->txn, v->ix->dbi[db], &st);

    if (mdb)
        return index_fail(err, mdb, index_table_name[db]);
    *rows = (int64_t)st.ms_entries;
    return OK;
}

enum err_code walk_begin(struct view *v, enum index_db db, const void *from, size_t from_n,
                         struct walk *w, struct err *err)
{
    *w = (struct walk){.db = db, .from_n = from_n};
    CHECK(from_n <= KEY_MAX);
    if (from_n)
        memcpy(w->from, from, from_n);
    const int mdb = mdb_cursor_open(v->txn, v->ix->dbi[db], &w->cursor);
    return mdb ? index_fail(err, mdb, index_table_name[db]) : OK;
}

enum err_code walk_next(struct walk *w, bool *end, struct err *err)
{
    MDB_val value;
    int mdb;

    if (!w->started && w->from_n) {
        w->key = (MDB_val){.mv_size = w->from_n, .mv_data = w->from};
        mdb = mdb_cursor_get(w->cursor, &w->key, &value, MDB_SET_RANGE);
    } else {
        mdb = mdb_cursor_get(w->cursor, &w->key, &value, w->started ? MDB_NEXT : MDB_FIRST);
    }
    w->started = true;
    *end = mdb == MDB_NOTFOUND;
    if (*end)
        return OK;
    if (mdb)
        return index_fail(err, mdb, index_table_name[w->db]);
    return row_check(w->db, &w->key, &value, &w->value, err);
}

void walk_end(struct walk *w)
{
    if (w->cursor)
        mdb_cursor_close(w->cursor);
    w->cursor = NULL;
}

/* ---- meta ---- */

enum err_code meta_get(struct view *v, const char *name, int64_t *out, struct err *err)
{
    uint8_t value[ROW_MAX];
    bool found;
    const enum err_code rc = row_get(v, DB_META, name, strlen(name), value, &found, err);

    *out = !rc && found ? (int64_t)le64_get(value) : 0;
    return rc;
}

enum err_code meta_put(struct view *v, const char *name, int64_t value, struct err *err)
{
    uint8_t p[12] = {0};

    le64_put(p, (uint64_t)value);
    return row_put(v, DB_META, name, strlen(name), p, err);
}

/* ---- locations ---- */

void loc_encode(const struct loc *l, uint8_t out[LOC_BYTES])
{
    out[0] = l->type;
    out[1] = l->enc;
    out[2] = l->flags;
    out[3] = 0;
    le32_put(out + 4, l->pack);
    le32_put(out + 8, l->off);
    le32_put(out + 12, l->stored);
    le64_put(out + 16, l->raw);
    le64_put(out + 24, l->pos);
}

enum err_code loc_decode(const uint8_t p[LOC_BYTES], struct loc *l, struct err *err)
{
    *l = (struct loc){.type = p[0],
                      .enc = p[1],
                      .flags = p[2],
                      .pack = le32_get(p + 4),
                      .off = le32_get(p + 8),
                      .stored = le32_get(p + 12),
                      .raw = le64_get(p + 16),
                      .pos = le64_get(p + 24)};
    if (l->type < LOC_BLOB || l->type > LOC_SLICE || p[3])
        return err_set(err, ERR_DAMAGED, "index: an object is in a place of unknown type %u", p[0]);
    return OK;
}

void also_key(const struct digest *id, const struct loc *l, uint8_t out[ALSO_KEY])
{
    memcpy(out, id->b, DIGEST_BYTES);
    out[32] = l->type;
    be32_put(out + 33, l->pack);
    be32_put(out + 37, l->off);
}

void loose_key(uint32_t pack, uint32_t off, uint8_t out[LOOSE_KEY])
{
    be32_put(out, pack);
    be32_put(out + 4, off);
}

void condemned_key(char kind, const struct digest *d, uint8_t out[CONDEMNED_KEY])
{
    out[0] = (uint8_t)kind;
    memcpy(out + 1, d->b, DIGEST_BYTES);
}

void pack_row_encode(const struct pack_row *row, uint8_t out[52])
{
    memcpy(out, row->name.b, DIGEST_BYTES);
    le64_put(out + 32, (uint64_t)row->bytes);
    le32_put(out + 40, (uint32_t)row->records);
    le64_put(out + 44, (uint64_t)row->created_ns);
}

void packname_encode(uint32_t number, bool complete, uint8_t out[8])
{
    le32_put(out, number);
    le32_put(out + 4, complete);
}

enum err_code pack_row_get(struct view *v, uint32_t number, struct pack_row *out, bool *found,
                           struct err *err)
{
    uint8_t key[4], p[ROW_MAX];
    enum err_code rc;

    be32_put(key, number);
    rc = row_get(v, DB_PACK, key, sizeof(key), p, found, err);
    if (rc || !*found)
        return rc;
    *out = (struct pack_row){.number = number,
                             .bytes = (int64_t)le64_get(p + 32),
                             .records = le32_get(p + 40),
                             .created_ns = (int64_t)le64_get(p + 44)};
    memcpy(out->name.b, p, DIGEST_BYTES);
    return OK;
}

enum err_code pack_row_put(struct view *v, const struct pack_row *row, struct err *err)
{
    uint8_t key[4], p[ROW_MAX];
    enum err_code rc;

    be32_put(key, row->number);
    pack_row_encode(row, p);
    rc = row_put(v, DB_PACK, key, sizeof(key), p, err);
    if (rc)
        return rc;
    packname_encode(row->number, row->records > 0, p);
    return row_put(v, DB_PACKNAME, row->name.b, DIGEST_BYTES, p, err);
}

enum err_code pack_number(struct view *v, const struct digest *name, uint32_t *number,
                          bool *complete, bool *found, struct err *err)
{
    uint8_t p[ROW_MAX];
    const enum err_code rc = row_get(v, DB_PACKNAME, name->b, DIGEST_BYTES, p, found, err);

    if (rc || !*found)
        return rc;
    *number = le32_get(p);
    *complete = le32_get(p + 4) == 1;
    return OK;
}

static enum err_code name_of(struct view *v, uint32_t number, struct digest *name, struct err *err)
{
    struct pack_row row;
    bool found;
    const enum err_code rc = pack_row_get(v, number, &row, &found, err);

    if (rc)
        return rc;
    if (!found)
        return err_set(err, ERR_DAMAGED,
                       "index: an object is in pack number %u, which is not known; run weir store "
                       "rebuild",
                       number);
    *name = row.name;
    return OK;
}

enum err_code loc_before(struct view *v, const struct loc *a, const struct loc *b, bool *before,
                         struct err *err)
{
    struct digest x, y;
    enum err_code rc;

    if (a->type != b->type) {
        *before = a->type < b->type;
        return OK;
    }
    if (a->pack == b->pack) {
        *before = a->off != b->off ? a->off < b->off : a->pos < b->pos;
        return OK;
    }
    rc = name_of(v, a->pack, &x, err);
    if (!rc)
        rc = name_of(v, b->pack, &y, err);
    *before = !rc && digest_cmp(&x, &y) < 0;
    return rc;
}

/* ---- what may be relied on ---- */

static enum err_code is_hiding(struct view *v, struct err *err)
{
    int64_t condemned = 0, gone = 0;
    enum err_code rc;

    if (v->hiding >= 0)
        return OK;
    rc = row_count(v, DB_CONDEMNED, &condemned, err);
    if (!rc)
        rc = row_count(v, DB_GONE, &gone, err);
    if (!rc)
        v->hiding = condemned + gone > 0;
    return rc;
}

static enum err_code is_condemned(struct view *v, char kind, const struct digest *d, bool *is,
                                  struct err *err)
{
    uint8_t key[CONDEMNED_KEY], p[ROW_MAX];

    condemned_key(kind, d, key);
    return row_get(v, DB_CONDEMNED, key, sizeof(key), p, is, err);
}

/* The loose file that a LOOSE or SLICE entry reads from. */
static enum err_code loose_file_there(struct view *v, const struct digest *id, const struct loc *l,
                                      bool *there, struct err *err)
{
    uint8_t key[LOOSE_KEY], p[ROW_MAX];
    struct digest file = *id;
    bool found, hidden;
    enum err_code rc;

    *there = false;
    if (l->type == LOC_SLICE) {
        loose_key(l->pack, l->off, key);
        rc = row_get(v, DB_LOOSE, key, sizeof(key), p, &found, err);
        if (rc || !found)
            return rc;
        memcpy(file.b, p, DIGEST_BYTES);
    }
    rc = is_condemned(v, 'L', &file, &hidden, err);
    if (rc || hidden)
        return rc;
    rc = row_get(v, DB_GONE, file.b, DIGEST_BYTES, p, &hidden, err);
    *there = !rc && !hidden;
    return rc;
}

enum err_code loc_visible(struct view *v, const struct digest *id, const struct loc *l,
                          bool *visible, struct err *err)
{
    struct digest name;
    bool condemned = false;
    enum err_code rc = is_hiding(v, err);

    *visible = !rc && !v->hiding;
    if (rc || *visible)
        return rc;
    rc = name_of(v, l->pack, &name, err);
    if (!rc)
        rc = is_condemned(v, 'P', &name, &condemned, err);
    if (rc || condemned)
        return rc;
    if (l->type == LOC_LOOSE || l->type == LOC_SLICE)
        return loose_file_there(v, id, l, visible, err);
    *visible = true;
    return OK;
}

enum err_code loc_others(struct view *v, const struct digest *id, struct loc **out, size_t *n,
                         struct err *err)
{
    struct walk w;
    bool end;
    enum err_code rc = walk_begin(v, DB_ALSO, id->b, DIGEST_BYTES, &w, err);

    *out = NULL;
    *n = 0;
    while (!rc) {
        rc = walk_next(&w, &end, err);
        if (rc || end || w.key.mv_size != ALSO_KEY ||
            memcmp(w.key.mv_data, id->b, DIGEST_BYTES) != 0)
            break;
        *out = mem_grow(*out, *n + 1, sizeof(**out));
        rc = loc_decode(w.value, &(*out)[*n], err);
        *n += !rc;
    }
    walk_end(&w);
    if (rc) {
        free(*out);
        *out = NULL;
        *n = 0;
    }
    return rc;
}

enum err_code loc_settle(struct view *v, const struct digest *id, struct loc *l, struct err *err)
{
    struct loc *others;
    bool visible, before;
    size_t n;
    enum err_code rc = loc_visible(v, id, l, &visible, err);

    if (rc || visible)
        return rc;
    l->type = 0;
    rc = loc_others(v, id, &others, &n, err);
    for (size_t i = 0; i < n && !rc; i++) {
        rc = loc_visible(v, id, &others[i], &visible, err);
        if (rc || !visible)
            continue;
        before = true;
        if (l->type)
            rc = loc_before(v, &others[i], l, &before, err);
        if (!rc && before)
            *l = others[i];
    }
    free(others);
    return rc;
}

enum err_code loc_best(struct view *v, const struct digest *id, struct loc *out, struct err *err)
{
    uint8_t p[ROW_MAX];
    bool found;
    enum err_code rc = row_get(v, DB_OBJECT, id->b, DIGEST_BYTES, p, &found, err);

    *out = (struct loc){0};
    if (rc || !found)
        return rc;
    rc = loc_decode(p, out, err);
    return rc ? rc : loc_settle(v, id, out, err);
}
