/* index_condemn.c - deletion: condemn, purge, absolve, and the dropping of what is damaged or old.
 *
 * Every sweep reads in one transaction, writes down the keys of a batch, and changes them in
 * another, looking at each row again: so writers wait for a batch at most.  All of it may stop
 * anywhere and be repeated: the condemned names stay until index_absolve.
 */
#include <stdlib.h>

#include "base/os.h"
#include "store/index_internal.h"

/* ---- sweeps ---- */

struct sweep;
typedef enum err_code (*pick_fn)(struct sweep *s, struct view *v, const struct walk *w, bool *pick,
                                 struct err *err);
typedef enum err_code (*change_fn)(struct sweep *s, struct view *v, const uint8_t *key,
                                   struct err *err);
struct sweep {
    enum index_db db;
    size_t key_n;
    pick_fn pick;
    change_fn change;
    const uint32_t *packs; /* condemned ones, sorted */
    size_t pack_count;
    int64_t before_ns;
    uint8_t *keys; /* of this batch */
    size_t count;
};

static enum err_code collect(struct sweep *s, struct view *v, uint8_t *from, bool *started,
                             bool *end, struct err *err)
{
    struct walk w;
    bool pick;
    enum err_code rc = walk_begin(v, s->db, from, *started ? s->key_n : 0, &w, err);

    while (!rc && s->count < INDEX_BATCH) {
        rc = walk_next(&w, end, err);
        if (rc || *end)
            break;
        if (w.key.mv_size != s->key_n) {
            rc = err_set(err, ERR_DAMAGED,
                         "index: a key of %zu bytes in \"%s\"; run weir store "
                         "rebuild",
                         w.key.mv_size, index_table_name[s->db]);
            break;
        }
        rc = s->pick(s, v, &w, &pick, err);
        if (!rc && pick)
            memcpy(s->keys + s->count++ * s->key_n, w.key.mv_data, s->key_n);
        memcpy(from, w.key.mv_data, s->key_n); /* this row is looked at again: harmless */
    }
    *started = true;
    walk_end(&w);
    return rc;
}

static enum err_code change_batch(struct view *v, void *arg, struct err *err)
{
    struct sweep *s = arg;
    enum err_code rc = OK;

    for (size_t i = 0; i < s->count && !rc; i++)
        rc = s->change(s, v, s->keys + i * s->key_n, err);
    return rc;
}

static enum err_code sweep_run(struct index *ix, struct sweep *s, struct err *err)
{
    uint8_t from[KEY_MAX];
    bool started = false, end = false;
    enum err_code rc = OK;

    CHECK(s->key_n <= KEY_MAX);
    s->keys = mem_grow(NULL, INDEX_BATCH, s->key_n);
    while (!rc && !end) {
        struct view v;

        s->count = 0;
        rc = view_begin(ix, &v, err);
        if (rc)
            break;
        rc = collect(s, &v, from, &started, &end, err);
        view_end(&v);
        if (!rc && s->count > 0)
            rc = index_write(ix, change_batch, s, err);
    }
    free(s->keys);
    s->keys = NULL;
    return rc;
}

static enum err_code change_delete(struct sweep *s, struct view *v, const uint8_t *key,
                                   struct err *err)
{
    return row_del(v, s->db, key, s->key_n, err);
}

/* ---- condemn ---- */

struct condemning {
    const struct condemned *c;
    int64_t seen, commits, now;
    bool raced;
};

static int digest_order(const void *a, const void *b)
{
    return digest_cmp(a, b);
}

static enum err_code put_condemned(struct view *v, char kind, const struct digest *d, size_t n,
                                   int64_t now, struct err *err)
{
    uint8_t key[CONDEMNED_KEY], p[ROW_MAX] = {0};
    enum err_code rc = OK;

    le64_put(p, (uint64_t)now);
    for (size_t i = 0; i < n && !rc; i++) {
        condemned_key(kind, &d[i], key);
        rc = row_put(v, DB_CONDEMNED, key, sizeof(key), p, err);
    }
    return rc;
}

static enum err_code raise_epoch(struct view *v, struct err *err)
{
    int64_t epoch;
    const enum err_code rc = meta_get(v, "epoch", &epoch, err);

    return rc ? rc : meta_put(v, "epoch", epoch + 1, err);
}

static enum err_code write_condemned(struct view *v, void *arg, struct err *err)
{
    struct condemning *c = arg;
    enum err_code rc = meta_get(v, "commits", &c->commits, err);

    c->raced = !rc && c->commits != c->seen;
    if (rc || c->raced)
        return rc;
    rc = put_condemned(v, 'P', c->c->packs, c->c->pack_count, c->now, err);
    if (!rc)
        rc = put_condemned(v, 'L', c->c->loose, c->c->loose_count, c->now, err);
    return rc ? rc : raise_epoch(v, err);
}

static struct digest *sorted_copy(const struct digest *d, size_t n)
{
    struct digest *out = mem_grow(NULL, n + 1, sizeof(*out));

    if (n)
        memcpy(out, d, n * sizeof(*out));
    qsort(out, n, sizeof(*out), digest_order);
    return out;
}

enum err_code index_condemn(struct index *ix, const struct condemned *c, int64_t seen, bool *raced,
                            int64_t *commits, struct err *err)
{
    struct condemned sorted;
    struct condemning job = {.c = &sorted, .seen = seen, .now = os_now_ns()};
    enum err_code rc;

    CHECK(ix);
    CHECK(c);
    CHECK(raced);
    CHECK(commits);
    sorted = *c;
    sorted.packs = sorted_copy(c->packs, c->pack_count);
    sorted.loose = sorted_copy(c->loose, c->loose_count);
    rc = index_write(ix, write_condemned, &job, err);
    *raced = job.raced;
    *commits = job.commits;
    free(sorted.packs);
    free(sorted.loose);
    return rc;
}

/* Does a pack still announce this loose file?  Else nobody needs a note that it is gone. */
static enum err_code is_announced(struct view *v, const struct digest *id, bool *announced,
                                  struct err *err)
{
    uint8_t p[ROW_MAX];
    struct loc *others, l;
    bool found;
    size_t n;
    enum err_code rc = row_get(v, DB_OBJECT, id->b, DIGEST_BYTES, p, &found, err);

    *announced = false;
    if (rc || !found)
        return rc;
    rc = loc_decode(p, &l, err);
    if (!rc)
        rc = loc_others(v, id, &others, &n, err);
    if (rc)
        return rc;
    *announced = l.type == LOC_LOOSE;
    for (size_t i = 0; i < n; i++)
        *announced = *announced || others[i].type == LOC_LOOSE;
    free(others);
    return OK;
}

static enum err_code absolve_loose(struct view *v, const struct digest *id, struct err *err)
{
    uint8_t key[CONDEMNED_KEY], p[ROW_MAX];
    bool found, announced = false;
    enum err_code rc;

    condemned_key('L', id, key);
    rc = row_get(v, DB_CONDEMNED, key, sizeof(key), p, &found, err);
    if (rc || !found)
        return rc; /* reprieved, or done by a run before a crash */
    rc = row_del(v, DB_CONDEMNED, key, sizeof(key), err);
    if (!rc)
        rc = is_announced(v, id, &announced, err);
    return rc || !announced ? rc : gone_put(v, id, err);
}

static enum err_code write_absolved(struct view *v, void *arg, struct err *err)
{
    const struct condemned *c = arg;
    uint8_t key[CONDEMNED_KEY];
    enum err_code rc = OK;

    for (size_t i = 0; i < c->pack_count && !rc; i++) {
        condemned_key('P', &c->packs[i], key);
        rc = row_del(v, DB_CONDEMNED, key, sizeof(key), err);
    }
    for (size_t i = 0; i < c->loose_count && !rc; i++)
        rc = absolve_loose(v, &c->loose[i], err);
    return rc;
}

enum err_code index_absolve(struct index *ix, const struct condemned *c, struct err *err)
{
    enum err_code rc = OK;
    size_t at = 0;

    CHECK(ix);
    CHECK(c);
    /* Loose ones in batches, packs with the first. */
    do {
        const size_t left = c->loose_count - at;
        struct condemned some = {.loose = left ? c->loose + at : NULL,
                                 .loose_count = left < INDEX_BATCH ? left : INDEX_BATCH,
                                 .packs = c->packs,
                                 .pack_count = at ? 0 : c->pack_count};

        rc = index_write(ix, write_absolved, &some, err);
        at += some.loose_count;
    } while (!rc && at < c->loose_count);
    return rc;
}

struct id_list {
    const struct digest *ids;
    size_t n;
};

static enum err_code write_reprieved(struct view *v, void *arg, struct err *err)
{
    const struct id_list *l = arg;
    uint8_t key[CONDEMNED_KEY];
    enum err_code rc = OK;

    for (size_t i = 0; i < l->n && !rc; i++) {
        condemned_key('L', &l->ids[i], key);
        rc = row_del(v, DB_CONDEMNED, key, sizeof(key), err);
        if (!rc)
            rc = row_del(v, DB_GONE, l->ids[i].b, DIGEST_BYTES, err);
    }
    return rc;
}

enum err_code index_reprieve(struct index *ix, const struct digest *loose, size_t n,
                             struct err *err)
{
    struct id_list l = {.ids = loose, .n = n};

    CHECK(ix);
    CHECK(loose || n == 0);
    return n ? index_write(ix, write_reprieved, &l, err) : OK;
}

/* ---- purge ---- */

static int number_order(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static bool in_condemned(const struct sweep *s, uint32_t pack)
{
    return bsearch(&pack, s->packs, s->pack_count, sizeof(pack), number_order) != NULL;
}

static enum err_code pick_also(struct sweep *s, struct view *v, const struct walk *w, bool *pick,
                               struct err *err)
{
    (void)v;
    (void)err;
    *pick = in_condemned(s, be32_get((const uint8_t *)w->key.mv_data + 33));
    return OK;
}

static enum err_code pick_object(struct sweep *s, struct view *v, const struct walk *w, bool *pick,
                                 struct err *err)
{
    struct loc l;
    const enum err_code rc = loc_decode(w->value, &l, err);

    (void)v;
    *pick = !rc && in_condemned(s, l.pack);
    return rc;
}

static enum err_code pick_loose(struct sweep *s, struct view *v, const struct walk *w, bool *pick,
                                struct err *err)
{
    (void)v;
    (void)err;
    *pick = in_condemned(s, be32_get(w->key.mv_data));
    return OK;
}

/* The row of "object" goes; the next place by the rule moves up. */
static enum err_code promote(struct view *v, const struct digest *id, struct err *err)
{
    struct loc *others, best = {0};
    uint8_t key[ALSO_KEY], p[LOC_BYTES];
    bool before;
    size_t n;
    enum err_code rc = loc_others(v, id, &others, &n, err);

    for (size_t i = 0; i < n && !rc; i++) {
        before = true;
        if (best.type)
            rc = loc_before(v, &others[i], &best, &before, err);
        if (!rc && before)
            best = others[i];
    }
    free(others);
    if (rc)
        return rc;
    if (!best.type)
        return row_del(v, DB_OBJECT, id->b, DIGEST_BYTES, err);
    also_key(id, &best, key);
    loc_encode(&best, p);
    rc = row_put(v, DB_OBJECT, id->b, DIGEST_BYTES, p, err);
    return rc ? rc : row_del(v, DB_ALSO, key, sizeof(key), err);
}

static enum err_code change_object(struct sweep *s, struct view *v, const uint8_t *key,
                                   struct err *err)
{
    struct digest id;
    uint8_t p[ROW_MAX];
    struct loc l;
    bool found;
    enum err_code rc = row_get(v, DB_OBJECT, key, DIGEST_BYTES, p, &found, err);

    if (rc || !found)
        return rc;
    rc = loc_decode(p, &l, err);
    if (rc || !in_condemned(s, l.pack))
        return rc;
    memcpy(id.b, key, DIGEST_BYTES);
    return promote(v, &id, err);
}

/* The last pack that announced the file is purged: no more need for a note. */
static enum err_code pick_stale_gone(struct sweep *s, struct view *v, const struct walk *w,
                                     bool *pick, struct err *err)
{
    struct digest id;
    bool announced;
    enum err_code rc;

    (void)s;
    memcpy(id.b, w->key.mv_data, DIGEST_BYTES);
    rc = is_announced(v, &id, &announced, err);
    *pick = !rc && !announced;
    return rc;
}

static enum err_code pick_lost_action(struct sweep *s, struct view *v, const struct walk *w,
                                      bool *pick, struct err *err)
{
    struct digest result;
    struct loc l;
    enum err_code rc;

    (void)s;
    memcpy(result.b, w->value, DIGEST_BYTES);
    rc = loc_best(v, &result, &l, err);
    *pick = !rc && l.type == 0;
    return rc;
}

static enum err_code change_lost_action(struct sweep *s, struct view *v, const uint8_t *key,
                                        struct err *err)
{
    struct digest result;
    uint8_t p[ROW_MAX];
    struct loc l;
    bool found;
    enum err_code rc = row_get(v, DB_ACTION, key, DIGEST_BYTES, p, &found, err);

    if (rc || !found)
        return rc;
    memcpy(result.b, p, DIGEST_BYTES);
    rc = loc_best(v, &result, &l, err);
    return rc || l.type ? rc : row_del(v, s->db, key, s->key_n, err);
}

/* Numbers of those condemned packs that the index still knows. */
static enum err_code condemned_numbers(struct index *ix, const struct condemned *c, uint32_t **out,
                                       size_t *n, struct err *err)
{
    bool found, complete;
    struct view v;
    enum err_code rc = view_begin(ix, &v, err);

    *n = 0;
    *out = mem_grow(NULL, c->pack_count + 1, sizeof(**out));
    if (rc)
        return rc;
    for (size_t i = 0; i < c->pack_count && !rc; i++) {
        rc = pack_number(&v, &c->packs[i], &(*out)[*n], &complete, &found, err);
        *n += !rc && found;
    }
    view_end(&v);
    qsort(*out, *n, sizeof(**out), number_order);
    return rc;
}

static enum err_code write_packs_gone(struct view *v, void *arg, struct err *err)
{
    const struct condemned *c = arg;
    bool found, complete;
    uint32_t number;
    uint8_t key[4];
    enum err_code rc = OK;

    for (size_t i = 0; i < c->pack_count && !rc; i++) {
        rc = pack_number(v, &c->packs[i], &number, &complete, &found, err);
        if (rc || !found)
            continue;
        be32_put(key, number);
        rc = row_del(v, DB_PACK, key, sizeof(key), err);
        if (!rc)
            rc = row_del(v, DB_PACKNAME, c->packs[i].b, DIGEST_BYTES, err);
    }
    return rc;
}

static enum err_code purge(struct index *ix, struct condemned *c, const uint32_t *packs,
                           size_t pack_count, struct err *err)
{
    /* In this order: others of an object first, so that what moves up is there to stay, and once
     * more afterwards, because a commit meanwhile may have moved a condemned place down; pack rows
     * after all that name them; actions when it is clear which results are left. */
    struct sweep by_pack[] = {
        {.db = DB_ALSO, .key_n = ALSO_KEY, .pick = pick_also, .change = change_delete},
        {.db = DB_OBJECT, .key_n = DIGEST_BYTES, .pick = pick_object, .change = change_object},
        {.db = DB_ALSO, .key_n = ALSO_KEY, .pick = pick_also, .change = change_delete},
        {.db = DB_LOOSE, .key_n = LOOSE_KEY, .pick = pick_loose, .change = change_delete}};
    struct sweep after[] = {
        {.db = DB_GONE, .key_n = DIGEST_BYTES, .pick = pick_stale_gone, .change = change_delete},
        {.db = DB_ACTION,
         .key_n = DIGEST_BYTES,
         .pick = pick_lost_action,
         .change = change_lost_action}};
    enum err_code rc = OK;

    for (size_t i = 0; i < sizeof(by_pack) / sizeof(by_pack[0]) && !rc && pack_count > 0; i++) {
        by_pack[i].packs = packs;
        by_pack[i].pack_count = pack_count;
        rc = sweep_run(ix, &by_pack[i], err);
    }
    if (!rc && pack_count > 0)
        rc = index_write(ix, write_packs_gone, c, err);
    for (size_t i = 0; i < sizeof(after) / sizeof(after[0]) && !rc; i++)
        rc = sweep_run(ix, &after[i], err);
    return rc;
}

enum err_code index_purge(struct index *ix, struct err *err)
{
    struct condemned c;
    uint32_t *packs = NULL;
    size_t n = 0;
    enum err_code rc;

    CHECK(ix);
    rc = index_condemned(ix, &c, err);
    if (rc)
        return rc;
    if (c.pack_count + c.loose_count > 0) {
        rc = condemned_numbers(ix, &c, &packs, &n, err);
        if (!rc)
            rc = purge(ix, &c, packs, n, err);
        free(packs);
    }
    free(c.packs);
    free(c.loose);
    return rc ? err_prefix(err, "purge") : OK;
}

/* ---- touches ---- */

static enum err_code pick_old_touch(struct sweep *s, struct view *v, const struct walk *w,
                                    bool *pick, struct err *err)
{
    (void)v;
    (void)err;
    *pick = (int64_t)le64_get(w->value) < s->before_ns;
    return OK;
}

static enum err_code change_old_touch(struct sweep *s, struct view *v, const uint8_t *key,
                                      struct err *err)
{
    uint8_t p[ROW_MAX];
    bool found;
    const enum err_code rc = row_get(v, DB_TOUCH, key, s->key_n, p, &found, err);

    if (rc || !found || (int64_t)le64_get(p) >= s->before_ns)
        return rc;
    return row_del(v, DB_TOUCH, key, s->key_n, err);
}

enum err_code index_forget_touch(struct index *ix, int64_t before_ns, struct err *err)
{
    struct sweep s = {.db = DB_TOUCH,
                      .key_n = DIGEST_BYTES,
                      .pick = pick_old_touch,
                      .change = change_old_touch,
                      .before_ns = before_ns};

    CHECK(ix);
    return sweep_run(ix, &s, err);
}

/* ---- damaged objects ---- */

static enum err_code drop_object(struct view *v, const struct digest *id, struct err *err)
{
    uint8_t p[ROW_MAX], key[ALSO_KEY];
    struct loc best, first;
    bool found;
    enum err_code rc = loc_best(v, id, &best, err);

    if (rc || !best.type)
        return rc;
    if (best.type == LOC_LOOSE)
        return gone_put(v, id, err); /* takes its slices along */
    rc = row_get(v, DB_OBJECT, id->b, DIGEST_BYTES, p, &found, err);
    if (!rc)
        rc = loc_decode(p, &first, err);
    if (rc)
        return rc;
    if (first.type == best.type && first.pack == best.pack && first.off == best.off)
        return promote(v, id, err);
    also_key(id, &best, key);
    return row_del(v, DB_ALSO, key, sizeof(key), err);
}

static enum err_code write_dropped(struct view *v, void *arg, struct err *err)
{
    const struct id_list *d = arg;
    enum err_code rc = OK;

    for (size_t i = 0; i < d->n && !rc; i++)
        rc = drop_object(v, &d->ids[i], err);
    return rc ? rc : raise_epoch(v, err); /* the memo must not vouch for them */
}

enum err_code index_drop_objects(struct index *ix, const struct digest *ids, size_t n,
                                 struct err *err)
{
    enum err_code rc = OK;

    CHECK(ix);
    CHECK(ids || n == 0);
    for (size_t i = 0; i < n && !rc; i += INDEX_BATCH) {
        struct id_list d = {.ids = ids + i, .n = n - i < INDEX_BATCH ? n - i : INDEX_BATCH};

        rc = index_write(ix, write_dropped, &d, err);
    }
    return rc;
}
