#include "store/idset.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/str.h"

#define SHARDS 256
#define SLOTS_FIRST 64

/* The zero digest marks a free slot.  It is nobody's hash that anyone knows of, but a hostile tree may name it, so it is kept
 * beside the table. */
struct shard {
    struct digest *ids;
    uint8_t *bytes;
    size_t slots, used; /* slots: 0 or a power of two */
};

struct idset {
    struct shard shards[SHARDS];
    int64_t count;
    bool has_zero;
    uint8_t zero_byte;
};

/* Ids in a tree from elsewhere are whatever its author wrote.  Products with secret factors, both halves of each folded into one,
 * keep him from choosing a million of them that start at one slot, which their own bits would not. */
static uint64_t secret[4];
static pthread_once_t secret_once = PTHREAD_ONCE_INIT;

static void secret_make(void)
{
    os_random(secret, sizeof(secret));
}

struct idset *idset_new(void)
{
    CHECK(pthread_once(&secret_once, secret_make) == 0);
    return mem_zero(1, sizeof(struct idset));
}

void idset_free(struct idset *s)
{
    if (!s)
        return;
    for (int i = 0; i < SHARDS; i++) {
        free(s->shards[i].ids);
        free(s->shards[i].bytes);
    }
    free(s);
}

static uint64_t fold(uint64_t a, uint64_t b)
{
    const unsigned __int128 product = (unsigned __int128)a * b;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static size_t home_of(const struct shard *h, const struct digest *id)
{
    uint64_t w[4];

    memcpy(w, id->b, sizeof(w));
    return (size_t)(fold(w[0] ^ secret[0], w[1] ^ secret[1]) ^
                    fold(w[2] ^ secret[2], w[3] ^ secret[3])) &
           (h->slots - 1);
}

/* Where id is, or the free slot where it belongs. */
static size_t slot_of(const struct shard *h, const struct digest *id)
{
    size_t i = home_of(h, id);

    while (!digest_is_zero(&h->ids[i]) && !digest_eq(&h->ids[i], id))
        i = (i + 1) & (h->slots - 1);
    return i;
}

static void grow(struct shard *h)
{
    const struct shard old = *h;

    h->slots = old.slots ? old.slots * 2 : SLOTS_FIRST;
    h->ids = mem_zero(h->slots, sizeof(*h->ids));
    h->bytes = mem_zero(h->slots, 1);
    for (size_t i = 0; i < old.slots; i++)
        if (!digest_is_zero(&old.ids[i])) {
            const size_t to = slot_of(h, &old.ids[i]);

            h->ids[to] = old.ids[i];
            h->bytes[to] = old.bytes[i];
        }
    free(old.ids);
    free(old.bytes);
}

uint8_t *idset_add(struct idset *s, const struct digest *id, bool *added)
{
    bool is_new;

    CHECK(s);
    CHECK(id);
    if (digest_is_zero(id)) {
        is_new = !s->has_zero;
        s->has_zero = true;
        s->count += is_new;
        if (added)
            *added = is_new;
        return &s->zero_byte;
    }

    struct shard *h = &s->shards[id->b[0]];

    if ((h->used + 1) * 5 > h->slots * 4)
        grow(h);

    const size_t i = slot_of(h, id);

    is_new = digest_is_zero(&h->ids[i]);
    if (is_new) {
        h->ids[i] = *id;
        h->used++;
        s->count++;
    }
    if (added)
        *added = is_new;
    return &h->bytes[i];
}

uint8_t *idset_find(const struct idset *s, const struct digest *id)
{
    CHECK(s);
    CHECK(id);

    const struct shard *h = &s->shards[id->b[0]];
    size_t i;

    if (digest_is_zero(id)) {
        /* The caller may write through what it finds, as with any other id. */
        union {
            const uint8_t *in;
            uint8_t *out;
        } byte = {.in = &s->zero_byte};

        return s->has_zero ? byte.out : NULL;
    }
    if (h->slots == 0)
        return NULL;
    i = slot_of(h, id);
    return digest_is_zero(&h->ids[i]) ? NULL : &h->bytes[i];
}

bool idset_has(const struct idset *s, const struct digest *id)
{
    return idset_find(s, id) != NULL;
}

int64_t idset_count(const struct idset *s)
{
    CHECK(s);
    return s->count;
}

bool idset_next(const struct idset *s, struct idset_pos *pos, const struct digest **id,
                uint8_t **byte)
{
    static const struct digest zero;

    CHECK(s);
    CHECK(pos);
    for (; pos->shard < SHARDS; pos->shard++, pos->slot = 0) {
        const struct shard *h = &s->shards[pos->shard];

        while (pos->slot < h->slots && digest_is_zero(&h->ids[pos->slot]))
            pos->slot++;
        if (pos->slot < h->slots) {
            *id = &h->ids[pos->slot];
            *byte = &h->bytes[pos->slot++];
            return true;
        }
    }
    if (pos->shard == SHARDS && s->has_zero) {
        pos->shard++;
        *id = &zero;
        *byte = idset_find(s, &zero);
        return true;
    }
    return false;
}

/* ---- lists ------------------------------------------------------------------------------------- */

void idlist_add(struct idlist *l, const struct digest *id)
{
    CHECK(l);
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 64;
        l->v = mem_grow(l->v, l->cap, sizeof(*l->v));
    }
    l->v[l->n++] = *id;
}

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, DIGEST_BYTES);
}

void idlist_sort(struct idlist *l)
{
    size_t kept = 0;

    CHECK(l);
    if (l->n == 0)
        return;
    qsort(l->v, l->n, sizeof(*l->v), by_bytes);
    for (size_t i = 1; i < l->n; i++)
        if (!digest_eq(&l->v[i], &l->v[kept]))
            l->v[++kept] = l->v[i];
    l->n = kept + 1;
}

bool idlist_has(const struct idlist *l, const struct digest *id)
{
    return l->n > 0 && bsearch(id, l->v, l->n, sizeof(*l->v), by_bytes) != NULL;
}

void idlist_release(struct idlist *l)
{
    free(l->v);
    *l = (struct idlist){0};
}
