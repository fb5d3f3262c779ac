/* Open addressing with linear probing: ids are uniformly random already, so eight of their bytes are
 * the hash.  The shard comes from another byte than the slot, or every shard would use the same
 * sixteenth of its table.  Removal moves the followers back, so there are no tombstones. */
#include "store/claims.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

#define SLOTS_MIN 256

struct shard {
    pthread_mutex_t lock;
    struct digest *ids;
    uint8_t *states; /* ID_ABSENT: the slot is free */
    size_t slots;    /* a power of two, or 0 */
    size_t used;
    int64_t reused;
};

struct claims {
    struct shard shards[CLAIMS_SHARDS];
};

static struct shard *enter(struct shard *s)
{
    CHECK(pthread_mutex_lock(&s->lock) == 0);
    return s;
}

static void leave(struct shard *s)
{
    CHECK(pthread_mutex_unlock(&s->lock) == 0);
}

static struct shard *enter_shard_of(struct claims *c, const struct digest *id)
{
    return enter(&c->shards[id->b[DIGEST_BYTES - 1] % CLAIMS_SHARDS]);
}

static size_t home(const struct shard *s, const struct digest *id)
{
    uint64_t h;

    memcpy(&h, id->b + 8, sizeof(h));
    return (size_t)h & (s->slots - 1);
}

/* The slot of id, or the free one where it belongs.  There are slots. */
static size_t find(const struct shard *s, const struct digest *id)
{
    size_t i = home(s, id);

    while (s->states[i] != ID_ABSENT && !digest_eq(&s->ids[i], id))
        i = (i + 1) & (s->slots - 1);
    return i;
}

static void grow(struct shard *s)
{
    const struct shard old = *s;

    s->slots = old.slots ? 2 * old.slots : SLOTS_MIN;
    s->ids = mem_zero(s->slots, sizeof(*s->ids));
    s->states = mem_zero(s->slots, sizeof(*s->states));
    for (size_t i = 0; i < old.slots; i++) {
        if (old.states[i] == ID_ABSENT)
            continue;

        const size_t at = find(s, &old.ids[i]);

        s->ids[at] = old.ids[i];
        s->states[at] = old.states[i];
    }
    free(old.ids);
    free(old.states);
}

struct claims *claims_new(void)
{
    struct claims *c = mem_zero(1, sizeof(*c));

    for (int i = 0; i < CLAIMS_SHARDS; i++)
        CHECK(pthread_mutex_init(&c->shards[i].lock, NULL) == 0);
    return c;
}

void claims_free(struct claims *c)
{
    if (!c)
        return;
    claims_clear(c);
    for (int i = 0; i < CLAIMS_SHARDS; i++)
        pthread_mutex_destroy(&c->shards[i].lock);
    free(c);
}

enum id_state claims_get(struct claims *c, const struct digest *id)
{
    enum id_state state = ID_ABSENT;

    CHECK(c);
    CHECK(id);

    struct shard *s = enter_shard_of(c, id);

    if (s->slots > 0)
        state = (enum id_state)s->states[find(s, id)];
    leave(s);
    return state;
}

bool claims_add(struct claims *c, const struct digest *id, enum id_state state)
{
    CHECK(c);
    CHECK(id);
    CHECK(state != ID_ABSENT);

    struct shard *s = enter_shard_of(c, id);

    if (4 * (s->used + 1) > 3 * s->slots)
        grow(s);

    const size_t at = find(s, id);
    const bool added = s->states[at] == ID_ABSENT;

    if (added) {
        s->ids[at] = *id;
        s->states[at] = (uint8_t)state;
        s->used++;
        s->reused += state == ID_REUSED;
    }
    leave(s);
    return added;
}

/* Knuth, The Art of Computer Programming, volume 3, 6.4, algorithm R. */
static void close_gap(struct shard *s, size_t gap)
{
    const size_t mask = s->slots - 1;

    for (size_t i = (gap + 1) & mask; s->states[i] != ID_ABSENT; i = (i + 1) & mask) {
        /* May the entry at i lie at the gap?  Only if its home is not between the two. */
        if (((i - home(s, &s->ids[i])) & mask) < ((i - gap) & mask))
            continue;
        s->ids[gap] = s->ids[i];
        s->states[gap] = s->states[i];
        gap = i;
    }
    s->states[gap] = ID_ABSENT;
}

void claims_remove(struct claims *c, const struct digest *id)
{
    CHECK(c);
    CHECK(id);

    struct shard *s = enter_shard_of(c, id);

    if (s->slots > 0) {
        const size_t at = find(s, id);

        if (s->states[at] != ID_ABSENT) {
            s->used--;
            s->reused -= s->states[at] == ID_REUSED;
            close_gap(s, at);
        }
    }
    leave(s);
}

void claims_clear(struct claims *c)
{
    CHECK(c);
    for (int i = 0; i < CLAIMS_SHARDS; i++) {
        struct shard *s = enter(&c->shards[i]);

        free(s->ids);
        free(s->states);
        s->ids = NULL;
        s->states = NULL;
        s->slots = s->used = 0;
        s->reused = 0;
        leave(s);
    }
}

int64_t claims_count(struct claims *c, enum id_state state)
{
    int64_t count = 0;

    CHECK(c);
    for (int i = 0; i < CLAIMS_SHARDS; i++) {
        struct shard *s = enter(&c->shards[i]);

        count += state == ID_REUSED ? s->reused : (int64_t)s->used - s->reused;
        leave(s);
    }
    return count;
}

static int by_bytes(const void *a, const void *b)
{
    return digest_cmp(a, b);
}

void claims_list(struct claims *c, enum id_state state, struct digest **ids, size_t *count)
{
    size_t n = 0, cap = 64;
    struct digest *out = mem_alloc(cap * sizeof(*out));

    CHECK(c);
    CHECK(ids);
    CHECK(count);
    for (int i = 0; i < CLAIMS_SHARDS; i++) {
        struct shard *s = enter(&c->shards[i]);

        if (n + s->used > cap) {
            cap = 2 * (n + s->used);
            out = mem_grow(out, cap, sizeof(*out));
        }
        for (size_t k = 0; k < s->slots; k++)
            if (s->states[k] == state)
                out[n++] = s->ids[k];
        leave(s);
    }
    if (n > 0)
        qsort(out, n, sizeof(*out), by_bytes);
    *ids = out;
    *count = n;
}

void claims_check(struct claims *c)
{
    CHECK(c);
    for (int i = 0; i < CLAIMS_SHARDS; i++) {
        struct shard *s = enter(&c->shards[i]);
        size_t used = 0;
        int64_t reused = 0;

        for (size_t k = 0; k < s->slots; k++) {
            if (s->states[k] == ID_ABSENT)
                continue;
            CHECK(find(s, &s->ids[k]) == k); /* reachable, and not there twice */
            used++;
            reused += s->states[k] == ID_REUSED;
        }
        CHECK(used == s->used);
        CHECK(reused == s->reused);
        CHECK(4 * s->used <= 3 * s->slots);
        leave(s);
    }
}
