/* Two bounded pools with least-recently-used eviction: open packs, counted, and decoded records, by their bytes.  Both are small
 * enough for plain lists: a pack serves thousands of objects, a frame some twenty five. */
#include "store/pack_cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"

#define BUCKETS 1024 /* of records; at 64 MiB of 256 KiB frames there are 256 of them */
#define CODECS_KEPT 32

struct open_pack {
    struct open_pack *next; /* most recently used first */
    uint32_t number;
    int refs;
    struct pack *pack;
};

struct slot {
    struct record record; /* first: a record's address is its slot's */
    struct slot *next;    /* in the bucket */
    struct slot *newer, *older;
    uint32_t pack, off;
    int refs;
    bool loading;
    int64_t bytes;
};

struct pack_cache {
    pthread_mutex_t lock;
    pthread_cond_t loaded;
    struct open_pack *packs;
    int pack_count;
    struct slot *buckets[BUCKETS];
    struct slot *newest, *oldest; /* loaded ones only */
    int64_t bytes;
    struct codec *codecs[CODECS_KEPT];
    int codec_count;
};

enum err_code pack_cache_new(struct store *st, struct pack_cache **out, struct err *err)
{
    struct pack_cache *c = mem_zero(1, sizeof(*c));

    (void)st;
    (void)err;
    CHECK(pthread_mutex_init(&c->lock, NULL) == 0);
    CHECK(pthread_cond_init(&c->loaded, NULL) == 0);
    *out = c;
    return OK;
}

static void slot_free(struct slot *s)
{
    free(s->record.data);
    free(s->record.chunks);
    free(s->record.offs);
    free(s);
}

void pack_cache_free(struct pack_cache *c)
{
    if (!c)
        return;
    while (c->packs) {
        struct open_pack *p = c->packs;

        CHECK(p->refs == 0);
        c->packs = p->next;
        pack_close(p->pack);
        free(p);
    }
    while (c->newest) {
        struct slot *s = c->newest;

        CHECK(s->refs == 0);
        c->newest = s->older;
        slot_free(s);
    }
    while (c->codec_count > 0)
        codec_free(c->codecs[--c->codec_count]);
    pthread_cond_destroy(&c->loaded);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* ---- packs ------------------------------------------------------------------------------------- */

static struct pack *pack_take(struct pack_cache *c, uint32_t number)
{
    for (struct open_pack **at = &c->packs; *at; at = &(*at)->next) {
        struct open_pack *p = *at;

        if (p->number != number)
            continue;
        *at = p->next; /* to the front */
        p->next = c->packs;
        c->packs = p;
        p->refs++;
        return p->pack;
    }
    return NULL;
}

/* The last idle ones, down to the limit; the caller closes what is returned, outside the lock. */
static struct open_pack *pack_evict(struct pack_cache *c)
{
    struct open_pack *gone = NULL;

    while (c->pack_count > PACKS_OPEN_MAX) {
        struct open_pack **idle = NULL;

        for (struct open_pack **at = &c->packs; *at; at = &(*at)->next)
            if ((*at)->refs == 0)
                idle = at;
        if (!idle)
            break;

        struct open_pack *p = *idle;

        *idle = p->next;
        p->next = gone;
        gone = p;
        c->pack_count--;
    }
    return gone;
}

static void pack_close_all(struct open_pack *list)
{
    while (list) {
        struct open_pack *p = list;

        list = p->next;
        pack_close(p->pack);
        free(p);
    }
}

enum err_code pack_cache_get(struct store *st, uint32_t number, struct pack **out, struct err *err)
{
    struct pack_cache *c = st->cache;
    struct open_pack *gone, *mine;
    struct pack_row row;
    enum err_code rc;

    CHECK(out);
    pthread_mutex_lock(&c->lock);
    *out = pack_take(c, number);
    pthread_mutex_unlock(&c->lock);
    if (*out)
        return OK;
    if (!st->index)
        return err_set(err, ERR_CONFIG, "packs are read on the index host only");
    rc = index_pack(st->index, number, &row, err);
    if (rc)
        return rc;
    mine = mem_zero(1, sizeof(*mine));
    mine->number = number;
    mine->refs = 1;
    rc = pack_open(st->packs, &row.name, &mine->pack, err);
    if (rc) {
        free(mine);
        return rc;
    }
    pthread_mutex_lock(&c->lock);
    *out = pack_take(c, number);
    if (*out) { /* another thread was faster */
        mine->next = NULL;
        gone = mine;
    } else {
        *out = mine->pack;
        mine->next = c->packs;
        c->packs = mine;
        c->pack_count++;
        gone = pack_evict(c);
    }
    pthread_mutex_unlock(&c->lock);
    pack_close_all(gone);
    return OK;
}

void pack_cache_put(struct store *st, struct pack *p)
{
    struct pack_cache *c = st->cache;
    struct open_pack *gone, *at;

    if (!p)
        return;
    pthread_mutex_lock(&c->lock);
    for (at = c->packs; at && at->pack != p;)
        at = at->next;
    CHECK(at);
    CHECK(at->refs > 0);
    at->refs--;
    gone = pack_evict(c);
    pthread_mutex_unlock(&c->lock);
    pack_close_all(gone);
}

/* ---- codecs ------------------------------------------------------------------------------------ */

enum err_code codec_get(struct store *st, struct codec **out, struct err *err)
{
    struct pack_cache *c = st->cache;

    pthread_mutex_lock(&c->lock);
    *out = c->codec_count > 0 ? c->codecs[--c->codec_count] : NULL;
    pthread_mutex_unlock(&c->lock);
    return *out ? OK : codec_new(out, err);
}

void codec_put(struct store *st, struct codec *codec)
{
    struct pack_cache *c = st->cache;

    if (!codec)
        return;
    pthread_mutex_lock(&c->lock);
    if (c->codec_count < CODECS_KEPT) {
        c->codecs[c->codec_count++] = codec;
        codec = NULL;
    }
    pthread_mutex_unlock(&c->lock);
    codec_free(codec);
}

/* ---- records ----------------------------------------------------------------------------------- */

static enum err_code load_frame(struct store *st, const struct buf *payload, struct slot *s,
                                struct err *err)
{
    struct frame_member *members = NULL;
    struct codec *codec = NULL;
    size_t count, off, raw_n = 0;
    enum err_code rc;

    rc = frame_decode(payload->p, payload->n, &members, &count, &off, &raw_n, err);
    free(members);
    if (!rc && raw_n > CODEC_RAW_MAX)
        rc = err_set(err, ERR_DAMAGED, "a frame of %zu bytes is more than weir writes", raw_n);
    if (!rc)
        rc = codec_get(st, &codec, err);
    if (rc)
        return rc;
    s->record.raw = raw_n;
    s->record.data = mem_alloc(raw_n);
    rc = codec_decode(codec, ENC_ZSTD, payload->p + off, payload->n - off, s->record.data, raw_n,
                      err);
    codec_put(st, codec);
    s->bytes = (int64_t)raw_n;
    return rc;
}

static enum err_code load_recipe(const struct pack_entry *e, const struct buf *payload,
                                 struct slot *s, struct err *err)
{
    struct record *r = &s->record;
    int64_t off = 0;
    enum err_code rc = OK;

    r->id = e->id;
    r->raw = e->raw;
    if (payload->n > 0)
        rc = recipe_decode(&e->id, e->raw, payload->p, payload->n, &r->chunks, &r->count, err);
    if (rc)
        return rc;
    r->offs = mem_zero(r->count + 1, sizeof(*r->offs));
    for (size_t i = 0; i < r->count; i++) {
        r->offs[i] = off;
        off += r->chunks[i].len;
    }
    r->offs[r->count] = off;
    s->bytes = (int64_t)(r->count * (sizeof(*r->chunks) + sizeof(*r->offs)));
    return OK;
}

static enum err_code load(struct store *st, struct slot *s, struct err *err)
{
    struct pack *pack = NULL;
    struct pack_entry e;
    struct buf payload;
    enum err_code rc;

    buf_init(&payload, PACK_PAYLOAD_MAX);
    rc = pack_cache_get(st, s->pack, &pack, err);
    if (!rc)
        rc = pack_read(pack, s->off, &e, &payload, err);
    if (rc)
        goto out;
    s->record.type = e.type;
    if (e.type == REC_FRAME)
        rc = load_frame(st, &payload, s, err);
    else if (e.type == REC_RECIPE || e.type == REC_LOOSE)
        rc = load_recipe(&e, &payload, s, err);
    else
        rc = err_set(err, ERR_DAMAGED, "record type %d where a frame or a recipe was expected",
                     e.type);
    if (rc) {
        char hex[DIGEST_HEX + 1];

        digest_hex(pack_name(pack), hex);
        err_prefix(err, "pack %s, record at %u", hex, s->off);
    }
out:
    pack_cache_put(st, pack);
    buf_release(&payload);
    return rc;
}

static struct slot **bucket_of(struct pack_cache *c, uint32_t pack, uint32_t off)
{
    const uint64_t mixed = ((uint64_t)pack << 32 | off) * 0x9E3779B97F4A7C15ULL;

    return &c->buckets[mixed >> 54];
}
_Static_assert(BUCKETS == 1 << (64 - 54), "bucket_of takes the top bits");

static void bucket_remove(struct pack_cache *c, struct slot *s)
{
    struct slot **at = bucket_of(c, s->pack, s->off);

    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
}

static void list_remove(struct pack_cache *c, struct slot *s)
{
    *(s->newer ? &s->newer->older : &c->newest) = s->older;
    *(s->older ? &s->older->newer : &c->oldest) = s->newer;
}

static void list_front(struct pack_cache *c, struct slot *s)
{
    s->newer = NULL;
    s->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = s;
    c->newest = s;
}

static void evict(struct pack_cache *c)
{
    for (struct slot *s = c->oldest; s && c->bytes > READER_CACHE_BYTES;) {
        struct slot *newer = s->newer;

        if (s->refs == 0) {
            list_remove(c, s);
            bucket_remove(c, s);
            c->bytes -= s->bytes;
            slot_free(s);
        }
        s = newer;
    }
}

/* A loaded slot with one more reference; or NULL, and *mine is a new one to be loaded by the caller. */
static struct slot *slot_take(struct pack_cache *c, uint32_t pack, uint32_t off, struct slot **mine)
{
    struct slot **bucket = bucket_of(c, pack, off);

again:
    for (struct slot *s = *bucket; s; s = s->next) {
        if (s->pack != pack || s->off != off)
            continue;
        if (s->loading) {
            pthread_cond_wait(&c->loaded, &c->lock);
            goto again; /* it may be gone: loading failed, or it was evicted at once */
        }
        s->refs++;
        list_remove(c, s);
        list_front(c, s);
        return s;
    }
    *mine = mem_zero(1, sizeof(**mine));
    (*mine)->pack = pack;
    (*mine)->off = off;
    (*mine)->refs = 1;
    (*mine)->loading = true;
    (*mine)->next = *bucket;
    *bucket = *mine;
    return NULL;
}

enum err_code record_get(struct store *st, uint32_t pack, uint32_t off, const struct record **out,
                         struct err *err)
{
    struct pack_cache *c = st->cache;
    struct slot *mine = NULL, *s;
    enum err_code rc;

    CHECK(out);
    *out = NULL;
    pthread_mutex_lock(&c->lock);
    s = slot_take(c, pack, off, &mine);
    pthread_mutex_unlock(&c->lock);
    if (s) {
        *out = &s->record;
        return OK;
    }
    rc = load(st, mine, err);
    pthread_mutex_lock(&c->lock);
    mine->loading = false;
    if (rc) {
        bucket_remove(c, mine);
    } else {
        list_front(c, mine);
        c->bytes += mine->bytes;
        evict(c);
    }
    pthread_cond_broadcast(&c->loaded);
    pthread_mutex_unlock(&c->lock);
    if (rc)
        slot_free(mine);
    else
        *out = &mine->record;
    return rc;
}

void record_put(struct store *st, const struct record *r)
{
    struct pack_cache *c = st->cache;

    if (!r)
        return;
    pthread_mutex_lock(&c->lock);
    /* The caller saw it through a const pointer, but it is a slot of ours. */
    struct slot *s = *bucket_of(c, ((const struct slot *)(const void *)r)->pack,
                                ((const struct slot *)(const void *)r)->off);

    while (s && &s->record != r)
        s = s->next;
    CHECK(s);
    CHECK(s->refs > 0);
    s->refs--;
    if (s->refs == 0)
        evict(c);
    pthread_mutex_unlock(&c->lock);
}
