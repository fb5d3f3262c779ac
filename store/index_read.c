/* index_read.c - questions to the index.  Each is one short read transaction; answers are
 * copies. */
#include <stdlib.h>

#include "store/index_internal.h"

static MDB_val borrow_key(const void *p, size_t n)
{
    return (MDB_val){.mv_size = n, .mv_data = (void *)(uintptr_t)p};
}

static enum err_code find(struct view *v, MDB_cursor *c, const struct digest *id, struct loc *l,
                          struct err *err)
{
    MDB_val key = borrow_key(id->b, DIGEST_BYTES), value;
    const int mdb = mdb_cursor_get(c, &key, &value, MDB_SET);
    const uint8_t *p;
    enum err_code rc;

    l->type = 0;
    if (mdb == MDB_NOTFOUND)
        return OK;
    if (mdb)
        return index_fail(err, mdb, "look up");
    key = borrow_key(id->b, DIGEST_BYTES); /* what was asked for, whatever the page says */
    rc = row_check(DB_OBJECT, &key, &value, &p, err);
    if (!rc)
        rc = loc_decode(p, l, err);
    return rc ? rc : loc_settle(v, id, l, err);
}

enum err_code index_get(struct index *ix, const struct digest *ids, size_t n, struct loc *locs,
                        struct err *err)
{
    struct view v;
    MDB_cursor *c = NULL;
    enum err_code rc;
    int mdb;

    CHECK(ix);
    CHECK(ids || n == 0);
    CHECK(locs || n == 0);
    rc = view_begin(ix, &v, err);
    if (rc)
        return rc;
    mdb = mdb_cursor_open(v.txn, ix->dbi[DB_OBJECT], &c);
    if (mdb)
        rc = index_fail(err, mdb, "look up");
    for (size_t i = 0; i < n && !rc; i++) {
        locs[i] = (struct loc){0};
        rc = find(&v, c, &ids[i], &locs[i], err);
    }
    if (c)
        mdb_cursor_close(c);
    view_end(&v);
    return rc;
}

static enum err_code scan(struct view *v, struct digest *cursor, const bool *started,
                          struct digest *ids, struct loc *locs, size_t max, size_t *n,
                          struct err *err)
{
    struct walk w;
    bool end;
    enum err_code rc = walk_begin(v, DB_OBJECT, cursor->b, *started ? DIGEST_BYTES : 0, &w, err);

    while (!rc && *n < max) {
        rc = walk_next(&w, &end, err);
        if (rc || end)
            break;
        if (w.key.mv_size != DIGEST_BYTES) {
            rc = err_set(err, ERR_DAMAGED, "index: an object has no id; run weir store rebuild");
            break;
        }
        memcpy(ids[*n].b, w.key.mv_data, DIGEST_BYTES);
        if (*started && digest_eq(&ids[*n], cursor))
            continue; /* the last one of the call before */
        rc = loc_decode(w.value, &locs[*n], err);
        if (!rc)
            rc = loc_settle(v, &ids[*n], &locs[*n], err);
        if (!rc && locs[*n].type)
            ++*n;
    }
    walk_end(&w);
    return rc;
}

enum err_code index_scan(struct index *ix, struct digest *cursor, bool *started, struct digest *ids,
                         struct loc *locs, size_t max, size_t *n, struct err *err)
{
    struct view v;
    enum err_code rc;

    CHECK(ix);
    CHECK(cursor);
    CHECK(started);
    CHECK(n);
    CHECK(max > 0);
    *n = 0;
    rc = view_begin(ix, &v, err);
    if (rc)
        return rc;
    rc = scan(&v, cursor, started, ids, locs, max, n, err);
    view_end(&v);
    if (!rc && *n > 0) {
        *cursor = ids[*n - 1];
        *started = true;
    }
    return rc;
}

/* ---- packs ---- */

enum err_code index_pack(struct index *ix, uint32_t number, struct pack_row *out, struct err *err)
{
    struct view v;
    bool found;
    enum err_code rc;

    CHECK(ix);
    CHECK(out);
    rc = view_begin(ix, &v, err);
    if (rc)
        return rc;
    rc = pack_row_get(&v, number, out, &found, err);
    view_end(&v);
    if (!rc && !found)
        rc = err_set(err, ERR_NOT_FOUND, "index: no pack number %u", number);
    return rc;
}

enum err_code index_pack_by_name(struct index *ix, const struct digest *name, struct pack_row *out,
                                 struct err *err)
{
    char hex[DIGEST_HEX + 1];
    uint32_t number = 0;
    bool found, complete = false;
    struct view v;
    enum err_code rc;

    CHECK(ix);
    CHECK(name);
    CHECK(out);
    rc = view_begin(ix, &v, err);
    if (rc)
        return rc;
    rc = pack_number(&v, name, &number, &complete, &found, err);
    found = found && complete;
    if (!rc && found)
        rc = pack_row_get(&v, number, out, &found, err);
    view_end(&v);
    digest_hex(name, hex);
    if (!rc && !found)
        rc = err_set(err, ERR_NOT_FOUND, "index: no pack %s", hex);
    return rc;
}

/* ---- lists: every row of a table, decoded by fn into one growing array ---- */

struct list {
    uint8_t *rows; /* struct of the caller's, item_n bytes each */
    size_t n, cap, item_n;
    struct buf names; /* rows with names keep offsets until the end */
};
/* Fills one zeroed item, or *skip = true.  key and value end with the transaction. */
typedef enum err_code (*list_fn)(const struct walk *w, void *item, struct list *l, bool *skip,
                                 struct err *err);

static enum err_code list_rows(struct view *v, enum index_db db, struct str prefix, list_fn fn,
                               struct list *l, struct err *err)
{
    struct walk w;
    bool end, skip;
    enum err_code rc = walk_begin(v, db, prefix.p, prefix.n, &w, err);

    while (!rc) {
        rc = walk_next(&w, &end, err);
        if (rc || end)
            break;
        if (w.key.mv_size < prefix.n ||
            (prefix.n && memcmp(w.key.mv_data, prefix.p, prefix.n) != 0))
            break;
        if (l->n == l->cap) {
            l->cap = l->cap ? 2 * l->cap : 64;
            l->rows = mem_grow(l->rows, l->cap, l->item_n);
        }
        void *item = l->rows + l->n * l->item_n;
        memset(item, 0, l->item_n);
        skip = false;
        rc = fn(&w, item, l, &skip, err);
        l->n += !rc && !skip;
    }
    walk_end(&w);
    return rc;
}

static enum err_code list_table(struct index *ix, enum index_db db, struct str prefix, list_fn fn,
                                size_t item_n, struct list *l, struct err *err)
{
    struct view v;
    enum err_code rc;

    CHECK(ix);
    *l = (struct list){.item_n = item_n};
    buf_init(&l->names, SIZE_MAX / 4);
    rc = view_begin(ix, &v, err);
    if (!rc) {
        rc = list_rows(&v, db, prefix, fn, l, err);
        view_end(&v);
    }
    if (!rc)
        rc = buf_check(&l->names, "names of the index", err);
    if (rc) {
        free(l->rows);
        buf_release(&l->names);
        l->rows = NULL;
        l->n = 0;
    }
    return rc;
}

static enum err_code odd_key(struct err *err)
{
    return err_set(err, ERR_DAMAGED, "index: a key of the wrong length; run weir store rebuild");
}

static enum err_code pack_item(const struct walk *w, void *item, struct list *l, bool *skip,
                               struct err *err)
{
    struct pack_row *row = item;
    const uint8_t *p = w->value;

    (void)l;
    if (w->key.mv_size != 4)
        return odd_key(err);
    row->number = be32_get(w->key.mv_data);
    memcpy(row->name.b, p, DIGEST_BYTES);
    row->bytes = (int64_t)le64_get(p + 32);
    row->records = le32_get(p + 40);
    row->created_ns = (int64_t)le64_get(p + 44);
    *skip = row->records == 0; /* being merged at this moment, or before a crash: not known yet */
    return OK;
}

enum err_code index_packs(struct index *ix, struct pack_row **rows, size_t *n, struct err *err)
{
    struct list l;
    const enum err_code rc =
        list_table(ix, DB_PACK, (struct str){0}, pack_item, sizeof(**rows), &l, err);

    *rows = (struct pack_row *)(void *)l.rows;
    *n = l.n;
    return rc;
}

static enum err_code action_item(const struct walk *w, void *item, struct list *l, bool *skip,
                                 struct err *err)
{
    struct action_row *row = item;

    (void)l;
    (void)skip;
    if (w->key.mv_size != DIGEST_BYTES)
        return odd_key(err);
    memcpy(row->key.b, w->key.mv_data, DIGEST_BYTES);
    memcpy(row->result.b, w->value, DIGEST_BYTES);
    row->stamp = (int64_t)le64_get(w->value + 32);
    return OK;
}

enum err_code index_actions(struct index *ix, struct action_row **rows, size_t *n, struct err *err)
{
    struct list l;
    const enum err_code rc =
        list_table(ix, DB_ACTION, (struct str){0}, action_item, sizeof(**rows), &l, err);

    *rows = (struct action_row *)(void *)l.rows;
    *n = l.n;
    return rc;
}

enum err_code index_action(struct index *ix, const struct digest *key, struct digest *result,
                           int64_t *stamp, struct err *err)
{
    char hex[DIGEST_HEX + 1];
    uint8_t p[ROW_MAX];
    struct view v;
    bool found;
    enum err_code rc;

    CHECK(ix);
    CHECK(key);
    CHECK(result);
    CHECK(stamp);
    rc = view_begin(ix, &v, err);
    if (rc)
        return rc;
    rc = row_get(&v, DB_ACTION, key->b, DIGEST_BYTES, p, &found, err);
    view_end(&v);
    digest_hex(key, hex);
    if (!rc && !found)
        rc = err_set(err, ERR_NOT_FOUND, "index: no action %s", hex);
    if (rc)
        return rc;
    memcpy(result->b, p, DIGEST_BYTES);
    *stamp = (int64_t)le64_get(p + 32);
    return OK;
}

enum err_code index_action_many(struct index *ix, const struct digest *keys, size_t n,
                                struct digest *results, bool *found, struct err *err)
{
    uint8_t p[ROW_MAX];
    struct view v;
    enum err_code rc;

    CHECK(ix);
    CHECK((keys && results && found) || n == 0);
    rc = view_begin(ix, &v, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < n && !rc; i++) {
        rc = row_get(&v, DB_ACTION, keys[i].b, DIGEST_BYTES, p, &found[i], err);
        if (!rc && found[i])
            memcpy(results[i].b, p, DIGEST_BYTES);
    }
    view_end(&v);
    return rc;
}

/* ---- named rows: refs and leases ---- */

static void ref_decode_row(const uint8_t *p, struct ref_row *row)
{
    memcpy(row->digest.b, p, DIGEST_BYTES);
    row->kind = (enum obj_kind)p[32];
    row->stamp = (int64_t)le64_get(p + 33);
}

/* Until the array stops growing a name is its offset; name_rows turns it into a pointer. */
static char *note_name(const struct walk *w, struct list *l)
{
    const size_t at = l->names.n;

    buf_add(&l->names, w->key.mv_data, w->key.mv_size);
    buf_add(&l->names, "", 1);
    return (char *)(uintptr_t)at;
}

/* Rows and names in one allocation, so that one free() takes both.  name_at: offset of the char *
 * in an item. */
static void *name_rows(struct list *l, size_t name_at)
{
    const size_t rows_n = l->n * l->item_n;
    uint8_t *all = mem_alloc(rows_n + l->names.n + 1);

    if (rows_n)
        memcpy(all, l->rows, rows_n);
    if (l->names.n)
        memcpy(all + rows_n, l->names.p, l->names.n);
    for (size_t i = 0; i < l->n; i++) {
        char *name;

        memcpy(&name, all + i * l->item_n + name_at, sizeof(name));
        name = (char *)all + rows_n + (uintptr_t)name;
        memcpy(all + i * l->item_n + name_at, &name, sizeof(name));
    }
    free(l->rows);
    buf_release(&l->names);
    return all;
}

static enum err_code ref_item(const struct walk *w, void *item, struct list *l, bool *skip,
                              struct err *err)
{
    struct ref_row *row = item;

    (void)skip;
    (void)err;
    ref_decode_row(w->value, row);
    row->name = note_name(w, l);
    return OK;
}

static enum err_code live_ref_item(const struct walk *w, void *item, struct list *l, bool *skip,
                                   struct err *err)
{
    *skip = w->value[32] == OBJ_NONE;
    return *skip ? OK : ref_item(w, item, l, skip, err);
}

enum err_code index_refs(struct index *ix, struct str prefix, enum ref_want want,
                         struct ref_row **rows, size_t *n, struct err *err)
{
    struct list l;
    enum err_code rc;

    *rows = NULL;
    *n = 0;
    if (prefix.n > KEY_MAX)
        prefix.n = KEY_MAX; /* no name is that long */
    rc = list_table(ix, DB_REF, prefix, want == REF_LIVE ? live_ref_item : ref_item, sizeof(**rows),
                    &l, err);
    if (rc)
        return rc;
    *n = l.n;
    *rows = name_rows(&l, offsetof(struct ref_row, name));
    return OK;
}

enum err_code index_ref(struct index *ix, struct str name, struct ref_row *out, struct err *err)
{
    uint8_t p[ROW_MAX];
    struct view v;
    bool found = false;
    enum err_code rc;

    CHECK(ix);
    CHECK(out);
    *out = (struct ref_row){0};
    rc = view_begin(ix, &v, err);
    if (rc)
        return rc;
    if (name.n > 0 && name.n <= KEY_MAX)
        rc = row_get(&v, DB_REF, name.p, name.n, p, &found, err);
    view_end(&v);
    if (rc)
        return rc;
    if (found)
        ref_decode_row(p, out);
    if (!found || out->kind == OBJ_NONE)
        return err_set(err, ERR_NOT_FOUND, "no ref \"%.*s\"", (int)(name.n < 400 ? name.n : 400),
                       name.p);
    return OK;
}

static enum err_code touch_item(const struct walk *w, void *item, struct list *l, bool *skip,
                                struct err *err)
{
    struct touch_row *row = item;

    (void)l;
    (void)skip;
    if (w->key.mv_size != DIGEST_BYTES)
        return odd_key(err);
    memcpy(row->id.b, w->key.mv_data, DIGEST_BYTES);
    row->time_ns = (int64_t)le64_get(w->value);
    row->kind = (enum obj_kind)w->value[8];
    return OK;
}

enum err_code index_touches(struct index *ix, struct touch_row **rows, size_t *n, struct err *err)
{
    struct list l;
    const enum err_code rc =
        list_table(ix, DB_TOUCH, (struct str){0}, touch_item, sizeof(**rows), &l, err);

    *rows = (struct touch_row *)(void *)l.rows;
    *n = l.n;
    return rc;
}

static enum err_code lease_item(const struct walk *w, void *item, struct list *l, bool *skip,
                                struct err *err)
{
    struct lease_row *row = item;

    (void)skip;
    (void)err;
    row->expiry_ns = (int64_t)le64_get(w->value);
    row->kind = (enum obj_kind)w->value[8];
    memcpy(row->digest.b, w->value + 10, DIGEST_BYTES);
    row->name = note_name(w, l);
    return OK;
}

enum err_code index_leases(struct index *ix, struct lease_row **rows, size_t *n, struct err *err)
{
    struct list l;
    enum err_code rc;

    *rows = NULL;
    *n = 0;
    rc = list_table(ix, DB_LEASE, (struct str){0}, lease_item, sizeof(**rows), &l, err);
    if (rc)
        return rc;
    *n = l.n;
    *rows = name_rows(&l, offsetof(struct lease_row, name));
    return OK;
}

static enum err_code condemned_item(const struct walk *w, void *item, struct list *l, bool *skip,
                                    struct err *err)
{
    (void)l;
    (void)skip;
    if (w->key.mv_size != CONDEMNED_KEY)
        return odd_key(err);
    memcpy(item, (const uint8_t *)w->key.mv_data + 1, DIGEST_BYTES);
    return OK;
}

enum err_code index_condemned(struct index *ix, struct condemned *out, struct err *err)
{
    struct list l;
    enum err_code rc;

    *out = (struct condemned){0};
    rc = list_table(ix, DB_CONDEMNED, STR("P"), condemned_item, DIGEST_BYTES, &l, err);
    if (rc)
        return rc;
    out->packs = (struct digest *)(void *)l.rows;
    out->pack_count = l.n;
    rc = list_table(ix, DB_CONDEMNED, STR("L"), condemned_item, DIGEST_BYTES, &l, err);
    if (rc) {
        free(out->packs);
        *out = (struct condemned){0};
        return rc;
    }
    out->loose = (struct digest *)(void *)l.rows;
    out->loose_count = l.n;
    return OK;
}

/* ---- numbers ---- */

enum err_code index_stat(struct index *ix, struct index_stat *out, struct err *err)
{
    const struct {
        enum index_db db;
        int64_t *to;
    } counts[] = {{DB_OBJECT, &out->objects}, {DB_PACK, &out->packs},
                  {DB_ACTION, &out->actions}, {DB_REF, &out->refs},
                  {DB_MEMO, &out->memos},     {DB_CONDEMNED, &out->condemned}};
    MDB_envinfo info;
    MDB_stat page;
    struct view v;
    enum err_code rc;

    CHECK(ix);
    CHECK(out);
    *out = (struct index_stat){0};
    rc = view_begin(ix, &v, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]) && !rc; i++)
        rc = row_count(&v, counts[i].db, counts[i].to, err);
    if (!rc)
        rc = meta_get(&v, "epoch", &out->epoch, err);
    if (!rc)
        rc = meta_get(&v, "commits", &out->commits, err);
    if (!rc)
        rc = meta_get(&v, "packs_mtime", &out->packs_mtime, err);
    CHECK(mdb_env_info(ix->env, &info) == 0);
    CHECK(mdb_env_stat(ix->env, &page) == 0);
    out->file_bytes = (int64_t)(info.me_last_pgno + 1) * page.ms_psize;
    view_end(&v);
    return rc;
}

enum err_code index_touch_all(struct index *ix, int64_t *time_ns, struct err *err)
{
    struct view v;
    enum err_code rc;

    CHECK(ix);
    CHECK(time_ns);
    rc = view_begin(ix, &v, err);
    if (rc)
        return rc;
    rc = meta_get(&v, "touch_all", time_ns, err);
    view_end(&v);
    return rc;
}

/* ---- memo ---- */

static enum err_code memo_find(struct view *v, const struct memo_key *k, int64_t epoch,
                               struct digest *id, bool *found, struct err *err)
{
    uint8_t key[16], p[ROW_MAX];
    struct loc l;
    enum err_code rc;

    be64_put(key, k->dev);
    be64_put(key + 8, k->ino);
    rc = row_get(v, DB_MEMO, key, sizeof(key), p, found, err);
    if (rc || !*found)
        return rc;
    *found = le64_get(p) == (uint64_t)k->size && le64_get(p + 8) == (uint64_t)k->mtime_ns &&
             le64_get(p + 16) == (uint64_t)k->ctime_ns;
    memcpy(id->b, p + 24, DIGEST_BYTES);
    if (!*found || le64_get(p + 56) == (uint64_t)epoch)
        return OK;
    /* A gc deleted something since: only what is still there counts. */
    rc = loc_best(v, id, &l, err);
    *found = !rc && l.type != 0;
    return rc;
}

enum err_code index_memo_get(struct index *ix, const struct memo_key *keys, size_t n,
                             struct digest *ids, bool *found, struct err *err)
{
    struct view v;
    int64_t epoch;
    enum err_code rc;

    CHECK(ix);
    CHECK(keys || n == 0);
    CHECK(ids || n == 0);
    CHECK(found || n == 0);
    rc = view_begin(ix, &v, err);
    if (rc)
        return rc;
    rc = meta_get(&v, "epoch", &epoch, err);
    for (size_t i = 0; i < n && !rc; i++)
        rc = memo_find(&v, &keys[i], epoch, &ids[i], &found[i], err);
    view_end(&v);
    return rc;
}
