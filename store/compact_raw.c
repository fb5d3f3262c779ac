#include "store/compact_raw.h"

#include <stdlib.h>

#include "base/pool.h"
#include "store/gc_internal.h"
#include "store/pack_cache.h"

#define SCAN 8192
#define RAW_MIN 4096 /* bytes; what is smaller would win too little */
#define NO_HINT 0xff /* no recipe names it so far */

struct raw_chunk {
    struct digest id;
    uint32_t pack, off, stored;
    uint8_t hint;
};

/* ---- which packs come into question -------------------------------------------------------------- */

enum raw_verdict { RAW_UNKNOWN, RAW_PASSED_OVER, RAW_OPEN };

struct raw_chunks {
    struct raw_chunk *v; /* by id at first, then by pack and offset */
    size_t n, cap;
};
struct search {
    struct store *st;
    int64_t before_ns;
    struct raw_chunks *r;
    struct pack_row *packs; /* by number */
    uint8_t *verdicts;
    size_t pack_count;
};

static enum err_code judge_pack(struct search *s, const struct pack_row *row, uint8_t *verdict,
                                struct err *err)
{
    struct pack *pack = NULL;
    enum err_code rc = OK;

    *verdict = RAW_PASSED_OVER;
    if (row->created_ns >= s->before_ns)
        return OK;
    rc = pack_open(s->st->packs, &row->name, &pack, err);
    if (rc == ERR_NOT_FOUND)
        return err_set(err, ERR_DAMAGED, "a pack of the index is gone; run weir fsck");
    if (!rc && !pack_tried(pack))
        *verdict = RAW_OPEN;
    pack_close(pack);
    return rc;
}

static int by_number(const void *key, const void *row)
{
    const uint32_t x = *(const uint32_t *)key, y = ((const struct pack_row *)row)->number;

    return x < y ? -1 : x > y;
}

static enum err_code note_if_raw(struct search *s, const struct digest *id, const struct loc *loc,
                                 struct err *err)
{
    const struct pack_row *row;
    struct raw_chunks *r = s->r;
    uint8_t *verdict;
    enum err_code rc = OK;

    if (loc->type != LOC_BLOB || loc->enc != ENC_RAW || loc->stored < RAW_MIN)
        return OK;
    row = bsearch(&loc->pack, s->packs, s->pack_count, sizeof(*s->packs), by_number);
    if (!row) /* of a commit since the packs were listed */
        return OK;
    verdict = &s->verdicts[row - s->packs];
    if (*verdict == RAW_UNKNOWN)
        rc = judge_pack(s, row, verdict, err);
    if (rc || *verdict != RAW_OPEN)
        return rc;
    if (r->n == r->cap) {
        r->cap = r->cap ? r->cap * 2 : 256;
        r->v = mem_grow(r->v, r->cap, sizeof(*r->v));
    }
    r->v[r->n++] = (struct raw_chunk){
        .id = *id, .pack = loc->pack, .off = loc->off, .stored = loc->stored, .hint = NO_HINT};
    return OK;
}

static int by_id(const void *key, const void *chunk)
{
    return digest_cmp(key, &((const struct raw_chunk *)chunk)->id);
}

/* The recipe at loc, also that of a loose file, says what its chunks are. */
static enum err_code take_hints(struct search *s, const struct digest *id, const struct loc *loc,
                                struct err *err)
{
    const struct record *record = NULL;
    enum err_code rc;

    (void)id;
    if (loc->type != LOC_RECIPE && loc->type != LOC_LOOSE)
        return OK;
    rc = record_get(s->st, loc->pack, loc->off, &record, err);
    for (size_t i = 0; !rc && i < record->count; i++) {
        struct raw_chunk *c =
            bsearch(&record->chunks[i].id, s->r->v, s->r->n, sizeof(*s->r->v), by_id);

        if (c)
            c->hint = record->chunks[i].hint;
    }
    record_put(s->st, record);
    return rc;
}

typedef enum err_code (*object_fn)(struct search *s, const struct digest *id, const struct loc *loc,
                                   struct err *err);

static enum err_code each_object(struct search *s, object_fn fn, struct err *err)
{
    struct digest *ids = mem_alloc(SCAN * sizeof(*ids)), cursor = {{0}};
    struct loc *locs = mem_alloc(SCAN * sizeof(*locs));
    bool started = false;
    size_t n = 1;
    enum err_code rc = OK;

    while (!rc && n > 0) {
        rc = index_scan(s->st->index, &cursor, &started, ids, locs, SCAN, &n, err);
        for (size_t i = 0; !rc && i < n; i++)
            rc = fn(s, &ids[i], &locs[i], err);
    }
    free(ids);
    free(locs);
    return rc;
}

static int by_place(const void *a, const void *b)
{
    const struct raw_chunk *x = a, *y = b;

    if (x->pack != y->pack)
        return x->pack < y->pack ? -1 : 1;
    return x->off < y->off ? -1 : x->off > y->off;
}

/* What no recipe names was offered to the codec when it was added. */
static void keep_chunks(struct raw_chunks *r)
{
    size_t kept = 0;

    for (size_t i = 0; i < r->n; i++)
        if (r->v[i].hint != NO_HINT)
            r->v[kept++] = r->v[i];
    r->n = kept;
    if (kept > 0)
        qsort(r->v, kept, sizeof(*r->v), by_place);
}

enum err_code raw_find(struct store *st, int64_t before_ns, struct raw_chunks **out,
                       struct err *err)
{
    struct search s = {.st = st, .before_ns = before_ns};
    enum err_code rc;

    *out = s.r = mem_zero(1, sizeof(*s.r));
    rc = index_packs(st->index, &s.packs, &s.pack_count, err);
    s.verdicts = mem_zero(s.pack_count + 1, 1);
    if (!rc)
        rc = each_object(&s, note_if_raw, err);
    if (!rc && s.r->n > 0)
        rc = each_object(&s, take_hints, err);
    if (!rc)
        keep_chunks(s.r);
    free(s.packs);
    free(s.verdicts);
    return rc;
}

void raw_free(struct raw_chunks *r)
{
    if (!r)
        return;
    free(r->v);
    free(r);
}

/* The first chunk at or after that place. */
static size_t chunk_at(const struct raw_chunks *r, uint32_t pack, uint32_t off)
{
    const struct raw_chunk wanted = {.pack = pack, .off = off};
    size_t low = 0, high = r->n;

    while (low < high) {
        const size_t mid = low + (high - low) / 2;

        if (by_place(&r->v[mid], &wanted) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

int64_t raw_in_pack(const struct raw_chunks *r, uint32_t pack)
{
    int64_t bytes = 0;

    for (size_t i = chunk_at(r, pack, 0); i < r->n && r->v[i].pack == pack; i++)
        bytes += r->v[i].stored;
    return bytes;
}

bool raw_has(const struct raw_chunks *r, uint32_t pack, uint32_t off)
{
    const size_t i = chunk_at(r, pack, off);

    return i < r->n && r->v[i].pack == pack && r->v[i].off == off;
}

/* ---- compressing ----------------------------------------------------------------------------------- */

struct raw_job {
    struct store *st;
    const struct raw_chunk *chunk;
    struct pack *pack;
    struct evac *evac;
    struct progress *progress;
};

static enum err_code read_chunk(const struct raw_job *job, struct pack_entry *e, struct buf *raw,
                                struct err *err)
{
    char text[DIGEST_TEXT + 1];
    struct digest is;
    enum err_code rc = pack_read(job->pack, job->chunk->off, e, raw, err);

    if (rc)
        return rc;
    sha256_of(raw->p ? raw->p : "", raw->n, &is);
    if (e->type == REC_BLOB && e->enc == ENC_RAW && digest_eq(&is, &job->chunk->id))
        return OK;
    digest_text(&job->chunk->id, text);
    return err_set(err, ERR_DAMAGED,
                   "chunk %s holds other bytes than its name says; nothing was replaced, run weir "
                   "fsck",
                   text);
}

static enum err_code encode_one(void *arg, bool cancelled, struct err *err)
{
    struct raw_job *job = arg;
    struct codec *codec = NULL;
    struct pack_entry e;
    struct buf raw, packed;
    enum enc enc = ENC_RAW;
    enum err_code rc = OK;

    if (cancelled)
        return OK;
    buf_init(&raw, CODEC_RAW_MAX);
    buf_init(&packed, (size_t)2 * CODEC_RAW_MAX);
    rc = read_chunk(job, &e, &raw, err);
    if (!rc)
        rc = codec_get(job->st, &codec, err);
    if (!rc)
        rc = codec_best(codec, (enum hint)job->chunk->hint, GC_LEVEL, raw.p, raw.n, &enc, &packed,
                        err);
    codec_put(job->st, codec);
    if (!rc && enc != ENC_RAW) {
        e.enc = (uint8_t)enc;
        rc = evac_put(job->evac, &e, packed.p, packed.n, err);
    } else if (!rc) {
        rc = evac_put(job->evac, &e, raw.p, raw.n, err);
    }
    progress_add(job->progress, (int64_t)raw.n);
    buf_release(&raw);
    buf_release(&packed);
    return rc;
}

enum err_code raw_encode(struct store *st, const struct raw_chunks *r, uint32_t number,
                         struct pack *pack, struct evac *evac, struct progress *progress,
                         struct err *err)
{
    const size_t first = chunk_at(r, number, 0);
    struct raw_job *jobs;
    struct pool *pool = NULL;
    size_t n = 0;
    enum err_code rc;

    while (first + n < r->n && r->v[first + n].pack == number)
        n++;
    if (n == 0)
        return OK;
    jobs = mem_zero(n, sizeof(*jobs));
    rc = pool_new(st->threads, st->threads, &pool, err);
    for (size_t i = 0; !rc && i < n; i++) {
        jobs[i] = (struct raw_job){
            .st = st, .chunk = &r->v[first + i], .pack = pack, .evac = evac, .progress = progress};
        pool_submit(pool, encode_one, &jobs[i]);
    }
    if (!rc)
        rc = pool_wait(pool, err);
    pool_free(pool);
    free(jobs);
    return rc;
}
