/* index_merge.c - from what packs say to rows of the index.
 *
 * Merging is commutative and may be repeated: of several places the first by (type, pack name,
 * offset, position) is the object's, all others are kept beside it; of several binds or refs the
 * greatest (stamp, digest) counts.  So packs may arrive in any order, twice, or half and then whole
 * after a crash, and the tables come out the same.
 */
#include <stdlib.h>

#include "base/os.h"
#include "store/index_internal.h"

#define DIRTY_PAGES_MAX 8192 /* leaves one transaction may dirty: 32 MiB, half of index.h's bound */
#define ROWS_PER_PAGE                                                                              \
    20 /* new rows that fill a page, cautiously: 36 fit when a page is half full */

static void *reserve(void *p, size_t n, size_t *cap, size_t item_n)
{
    if (n < *cap)
        return p;
    *cap = n < 64 ? 128 : n + n / 2;
    return mem_grow(p, *cap, item_n);
}

static uint32_t first16(const struct digest *id)
{
    return (uint32_t)id->b[0] << 8 | id->b[1];
}

static void add_object(struct journal *j, const struct found *f)
{
    if (j->to && (first16(&f->id) < j->from || first16(&f->id) >= j->to))
        return;
    j->objects = reserve(j->objects, j->object_count, &j->object_cap, sizeof(*j->objects));
    j->objects[j->object_count++] = *f;
}

/* The payload of a record that the toc names; header and toc must tell the same. */
static enum err_code payload_of(struct pack *p, const struct pack_entry *e, struct buf *out,
                                struct err *err)
{
    struct pack_entry got;
    enum err_code rc;

    buf_clear(out);
    rc = pack_read(p, e->off, &got, out, err);
    if (rc)
        return rc;
    if (got.type != e->type || !digest_eq(&got.id, &e->id) || got.stored != e->stored ||
        got.raw != e->raw || got.stamp != e->stamp || got.flags != e->flags) {
        char hex[DIGEST_HEX + 1];

        digest_hex(pack_name(p), hex);
        return err_set(err, ERR_DAMAGED, "pack %s at %u: record and table of contents differ", hex,
                       e->off);
    }
    return OK;
}

static enum err_code add_slices(struct journal *j, const struct pack_entry *e, uint32_t pack,
                                const struct buf *payload, struct err *err)
{
    struct recipe_chunk *chunks;
    uint64_t pos = 0;
    size_t n;
    enum err_code rc = recipe_decode(&e->id, e->raw, payload->p, payload->n, &chunks, &n, err);

    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++) {
        const struct found f = {.id = chunks[i].id,
                                .loc = {.type = LOC_SLICE,
                                        .pack = pack,
                                        .off = e->off,
                                        .stored = chunks[i].len,
                                        .raw = chunks[i].len,
                                        .pos = pos}};

        add_object(j, &f);
        pos += chunks[i].len;
    }
    free(chunks);
    return OK;
}

static enum err_code add_loose(struct journal *j, struct pack *p, uint32_t pack,
                               const struct pack_entry *e, struct buf *payload, struct err *err)
{
    enum err_code rc;

    j->loose = reserve(j->loose, j->loose_count, &j->loose_cap, sizeof(*j->loose));
    j->loose[j->loose_count++] =
        (struct announced){.id = e->id, .raw = e->raw, .pack = pack, .off = e->off};
    if (e->stored == 0)
        return OK;
    rc = payload_of(p, e, payload, err);
    return rc ? rc : add_slices(j, e, pack, payload, err);
}

static enum err_code add_bind(struct journal *j, struct pack *p, const struct pack_entry *e,
                              struct buf *payload, struct err *err)
{
    struct action_row a = {.key = e->id, .stamp = (int64_t)e->stamp};
    const enum err_code rc = payload_of(p, e, payload, err);

    if (rc)
        return rc;
    memcpy(a.result.b, payload->p, DIGEST_BYTES);
    j->binds = reserve(j->binds, j->bind_count, &j->bind_cap, sizeof(*j->binds));
    j->binds[j->bind_count++] = a;
    return OK;
}

static enum err_code add_ref(struct journal *j, struct pack *p, const struct pack_entry *e,
                             struct buf *payload, struct err *err)
{
    struct ref_row r = {.stamp = (int64_t)e->stamp};
    struct str name;
    uint8_t kind;
    enum err_code rc = payload_of(p, e, payload, err);

    if (!rc)
        rc = ref_decode(&e->id, payload->p, payload->n, &r.digest, &kind, &name, err);
    if (rc)
        return rc;
    r.kind = (enum obj_kind)kind;
    r.name = mem_strndup(name.p, name.n);
    j->refs = reserve(j->refs, j->ref_count, &j->ref_cap, sizeof(*j->refs));
    j->refs[j->ref_count++] = r;
    return OK;
}

static enum err_code add_entry(struct journal *j, struct pack *p, uint32_t pack,
                               const struct pack_entry *e, struct buf *payload, struct err *err)
{
    static const uint8_t loc_of[REC_TYPE_COUNT] = {[REC_BLOB] = LOC_BLOB,
                                                   [REC_FRAME] = LOC_FRAME,
                                                   [REC_RECIPE] = LOC_RECIPE,
                                                   [REC_LOOSE] = LOC_LOOSE};

    CHECK(e->type < REC_TYPE_COUNT);
    if (e->type == REC_BIND)
        return add_bind(j, p, e, payload, err);
    if (e->type == REC_REF)
        return add_ref(j, p, e, payload, err);
    const struct found f = {.id = e->id,
                            .loc = {.type = loc_of[e->type],
                                    .enc = e->enc,
                                    .flags = e->flags,
                                    .pack = pack,
                                    .off = e->off,
                                    .stored = e->stored,
                                    .raw = e->raw,
                                    .pos = e->pos}};

    add_object(j, &f);
    return e->type == REC_LOOSE ? add_loose(j, p, pack, e, payload, err) : OK;
}

void journal_rewind(struct journal *j, const struct journal *to)
{
    while (j->ref_count > to->ref_count)
        free(j->refs[--j->ref_count].name);
    j->object_count = to->object_count;
    j->loose_count = to->loose_count;
    j->bind_count = to->bind_count;
}

void journal_clear(struct journal *j)
{
    static const struct journal empty;

    journal_rewind(j, &empty);
}

void journal_narrow(struct journal *j, uint32_t to)
{
    size_t kept = 0;

    for (size_t i = 0; i < j->object_count; i++)
        if (first16(&j->objects[i].id) < to)
            j->objects[kept++] = j->objects[i];
    j->object_count = kept;
    j->to = to;
}

void journal_release(struct journal *j)
{
    journal_clear(j);
    free(j->objects);
    free(j->loose);
    free(j->binds);
    free(j->refs);
    *j = (struct journal){0};
}

enum err_code journal_add(struct journal *j, struct pack *p, uint32_t pack, struct err *err)
{
    const struct journal before = *j; /* the counts, to go back to */
    const struct pack_entry *e;
    struct buf payload;
    size_t n;
    enum err_code rc = pack_toc(p, &e, &n, err);

    buf_init(&payload, PACK_PAYLOAD_MAX);
    for (size_t i = 0; i < n && !rc; i++) {
        rc = add_entry(j, p, pack, &e[i], &payload, err);
        if (rc == ERR_DAMAGED && j->problems) {
            buf_printf(j->problems, "%s\n", err->text);
            rc = OK;
        }
    }
    buf_release(&payload);
    if (rc)
        journal_rewind(j, &before);
    return rc;
}

/* ---- sorting ----
 *
 * Ids are hashes, so their first bytes spread evenly: a radix sort of (first 8 bytes, number) pairs
 * on the upper 44 bits leaves runs of about one element, which are put in order by comparison; then
 * the 64-byte rows are moved once.  Ids chosen to collide only make those runs long, and qsort
 * takes them. */

struct sort_key {
    uint64_t prefix;
    uint32_t at;
};
#define RADIX_BITS 11
#define RADIX_PASSES 4
#define RADIX_LOW (64 - RADIX_BITS * RADIX_PASSES)

static int found_cmp(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    int order = digest_cmp(&x->id, &y->id);

    if (!order)
        order = (x->loc.type > y->loc.type) - (x->loc.type < y->loc.type);
    if (!order)
        order = (x->loc.pack > y->loc.pack) - (x->loc.pack < y->loc.pack);
    if (!order)
        order = (x->loc.off > y->loc.off) - (x->loc.off < y->loc.off);
    return order ? order : (x->loc.pos > y->loc.pos) - (x->loc.pos < y->loc.pos);
}

static void radix_pass(const struct sort_key *from, struct sort_key *to, size_t n, int shift)
{
    size_t start[1 << RADIX_BITS] = {0}, sum = 0;
    const uint64_t mask = (1 << RADIX_BITS) - 1;

    for (size_t i = 0; i < n; i++)
        start[(from[i].prefix >> shift) & mask]++;
    for (size_t b = 0; b <= mask; b++) {
        const size_t count = start[b];

        start[b] = sum;
        sum += count;
    }
    for (size_t i = 0; i < n; i++)
        to[start[(from[i].prefix >> shift) & mask]++] = from[i];
}

/* Bring row keys[i].at to place i, along the cycles of the permutation: no second array of rows. */
static void move_rows(struct found *f, struct sort_key *keys, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct found first = f[i];
        size_t to = i, from = keys[i].at;

        if (from == i)
            continue;
        while (from != i) {
            f[to] = f[from];
            keys[to].at = (uint32_t)to;
            to = from;
            from = keys[to].at;
        }
        f[to] = first;
        keys[to].at = (uint32_t)to;
    }
}

static void order_runs(struct found *f, size_t n)
{
    size_t from = 0;

    while (from < n) {
        size_t to = from + 1;

        /* 5 bytes are the 40 upper bits, a little coarser than the 44 that are sorted already. */
        while (to < n && memcmp(f[from].id.b, f[to].id.b, 5) == 0)
            to++;
        if (to - from > 1)
            qsort(f + from, to - from, sizeof(*f), found_cmp);
        from = to;
    }
}

static size_t drop_repeats(struct found *f, size_t n)
{
    size_t out = 0;

    for (size_t i = 0; i < n; i++) {
        const struct found *last = out ? &f[out - 1] : NULL;

        if (last && digest_eq(&last->id, &f[i].id) && last->loc.type == f[i].loc.type &&
            last->loc.pack == f[i].loc.pack && last->loc.off == f[i].loc.off)
            continue; /* the same chunk twice in one loose file, or a member twice in one frame */
        f[out++] = f[i];
    }
    return out;
}

enum err_code journal_sort(struct journal *j, struct err *err)
{
    const size_t n = j->object_count;
    struct sort_key *keys = malloc((n + 1) * sizeof(*keys)),
                    *other = malloc((n + 1) * sizeof(*keys));

    if (!keys || !other || n > UINT32_MAX) {
        free(keys);
        free(other);
        return err_set(err, ERR_LIMIT, "index: no memory to sort %zu objects", n);
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t prefix;

        memcpy(&prefix, j->objects[i].id.b, sizeof(prefix));
        keys[i] = (struct sort_key){.prefix = be64toh(prefix), .at = (uint32_t)i};
    }
    for (int pass = 0; pass < RADIX_PASSES; pass++) {
        struct sort_key *swap = keys;

        radix_pass(keys, other, n, RADIX_LOW + pass * RADIX_BITS);
        keys = other;
        other = swap;
    }
    move_rows(j->objects, keys, n);
    free(keys);
    free(other);
    order_runs(j->objects, n);
    j->object_count = drop_repeats(j->objects, n);
    return OK;
}

/* ---- rows ---- */

static enum err_code put_also(struct view *v, const struct digest *id, const struct loc *l,
                              struct err *err)
{
    uint8_t key[ALSO_KEY], p[LOC_BYTES];

    also_key(id, l, key);
    loc_encode(l, p);
    return row_put(v, DB_ALSO, key, sizeof(key), p, err);
}

enum err_code merge_object(struct view *v, const struct digest *id, const struct loc *l,
                           struct err *err)
{
    uint8_t p[ROW_MAX], key[ALSO_KEY];
    struct loc old;
    bool found, before;
    enum err_code rc = row_get(v, DB_OBJECT, id->b, DIGEST_BYTES, p, &found, err);

    if (rc)
        return rc;
    if (found) {
        rc = loc_decode(p, &old, err);
        if (rc || (old.type == l->type && old.pack == l->pack && old.off == l->off))
            return rc;
        rc = loc_before(v, l, &old, &before, err);
        if (rc)
            return rc;
        if (!before)
            return put_also(v, id, l, err);
        rc = put_also(v, id, &old, err);
        if (!rc) {
            also_key(id, l, key);
            rc = row_del(v, DB_ALSO, key, sizeof(key), err);
        }
        if (rc)
            return rc;
    }
    loc_encode(l, p);
    return row_put(v, DB_OBJECT, id->b, DIGEST_BYTES, p, err);
}

enum err_code merge_loose(struct view *v, const struct announced *a, struct err *err)
{
    uint8_t key[LOOSE_KEY], p[ROW_MAX] = {0};
    enum err_code rc;

    loose_key(a->pack, a->off, key);
    memcpy(p, a->id.b, DIGEST_BYTES);
    rc = row_put(v, DB_LOOSE, key, sizeof(key), p, err);
    if (!rc) /* the file was linked before the pack was sealed: it is there (again) */
        rc = row_del(v, DB_GONE, a->id.b, DIGEST_BYTES, err);
    v->hiding = -1;
    return rc;
}

enum err_code gone_put(struct view *v, const struct digest *id, struct err *err)
{
    uint8_t p[ROW_MAX];

    le64_put(p, (uint64_t)os_now_ns());
    v->hiding = -1;
    return row_put(v, DB_GONE, id->b, DIGEST_BYTES, p, err);
}

void action_encode(const struct action_row *a, uint8_t out[40])
{
    memcpy(out, a->result.b, DIGEST_BYTES);
    le64_put(out + 32, (uint64_t)a->stamp);
}

void ref_row_encode(const struct ref_row *r, uint8_t out[41])
{
    memcpy(out, r->digest.b, DIGEST_BYTES);
    out[32] = (uint8_t)r->kind;
    le64_put(out + 33, (uint64_t)r->stamp);
}

/* Stamps come out of files as 64 bits without a sign, so that is how they compare. */
static int stamp_cmp(int64_t a, int64_t b)
{
    return ((uint64_t)a > (uint64_t)b) - ((uint64_t)a < (uint64_t)b);
}

bool action_wins(const struct action_row *a, const struct action_row *over)
{
    const int order = stamp_cmp(a->stamp, over->stamp);

    return order ? order > 0 : digest_cmp(&a->result, &over->result) > 0;
}

bool ref_wins(const struct ref_row *a, const struct ref_row *over)
{
    int order = stamp_cmp(a->stamp, over->stamp);

    if (!order)
        order = digest_cmp(&a->digest, &over->digest);
    return order ? order > 0 : a->kind > over->kind;
}

enum err_code merge_bind(struct view *v, const struct action_row *a, struct err *err)
{
    struct action_row old = {.key = a->key};
    uint8_t p[ROW_MAX];
    bool found;
    enum err_code rc = row_get(v, DB_ACTION, a->key.b, DIGEST_BYTES, p, &found, err);

    if (rc)
        return rc;
    if (found) {
        memcpy(old.result.b, p, DIGEST_BYTES);
        old.stamp = (int64_t)le64_get(p + 32);
        if (!action_wins(a, &old))
            return OK;
    }
    action_encode(a, p);
    return row_put(v, DB_ACTION, a->key.b, DIGEST_BYTES, p, err);
}

enum err_code merge_ref(struct view *v, const struct ref_row *r, struct err *err)
{
    struct ref_row old = {0};
    uint8_t p[ROW_MAX];
    bool found;
    const size_t n = strlen(r->name);
    enum err_code rc = row_get(v, DB_REF, r->name, n, p, &found, err);

    if (rc)
        return rc;
    if (found) {
        memcpy(old.digest.b, p, DIGEST_BYTES);
        old.kind = (enum obj_kind)p[32];
        old.stamp = (int64_t)le64_get(p + 33);
        if (!ref_wins(r, &old))
            return OK;
    }
    ref_row_encode(r, p);
    return row_put(v, DB_REF, r->name, n, p, err);
}

/* The later time counts, and a tree reaches further than the same bytes as a blob. */
enum err_code merge_touch(struct view *v, const struct touch_row *t, struct err *err)
{
    int64_t time_ns = t->time_ns;
    uint8_t p[ROW_MAX], kind = (uint8_t)t->kind;
    bool found;
    enum err_code rc = row_get(v, DB_TOUCH, t->id.b, DIGEST_BYTES, p, &found, err);

    if (rc)
        return rc;
    if (found) {
        const int64_t old = (int64_t)le64_get(p);

        if (old >= time_ns && p[8] >= kind)
            return OK;
        time_ns = old > time_ns ? old : time_ns;
        kind = p[8] > kind ? p[8] : kind;
    }
    le64_put(p, (uint64_t)time_ns);
    p[8] = kind;
    return row_put(v, DB_TOUCH, t->id.b, DIGEST_BYTES, p, err);
}

enum err_code batch_rows(struct view *v, enum index_db db, size_t *rows, struct err *err)
{
    MDB_stat st;
    const int mdb = mdb_stat(v->txn, v->ix->dbi[db], &st);

    if (mdb)
        return index_fail(err, mdb, "count pages");
    if (v->ix->batch) {
        *rows = v->ix->batch;
        return OK;
    }
    /* Random keys dirty one leaf each, but never more leaves than there are, plus those that new
     * rows fill. */
    *rows = INDEX_BATCH;
    if (st.ms_leaf_pages < DIRTY_PAGES_MAX)
        *rows += (DIRTY_PAGES_MAX - st.ms_leaf_pages) * ROWS_PER_PAGE;
    return OK;
}
