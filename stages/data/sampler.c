/* The sampler: a permutation, a mask over it, and ranks to find the k-th slot that takes part. */
#include "stages/data/sampler.h"

#include <stdlib.h>
#include <string.h>

#include "base/str.h"

#define ROUNDS 8
#define BLOCK 512 /* positions to a rank counter */

/* ---- permutation ---------------------------------------------------------------------------------- */

/* Steele et al. 2014, SplitMix: the finaliser of variant 13. */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t key_of(uint64_t seed, int64_t phase, int64_t epoch, uint64_t purpose)
{
    uint64_t k = mix(seed + 0x9e3779b97f4a7c15u);

    k = mix(k ^ ((uint64_t)phase + 0x632be59bd9b4e019u));
    k = mix(k ^ ((uint64_t)epoch + 0xd1342543de82ef95u));
    return mix(k ^ purpose);
}

void perm_init(struct perm *p, uint64_t seed, int64_t phase, int64_t epoch, int64_t size)
{
    CHECK(size > 0);
    p->size = size;
    p->key = key_of(seed, phase, epoch, (uint64_t)size);
    p->half_bits = 1;
    while (p->half_bits < 31 && ((int64_t)1 << (2 * p->half_bits)) < size)
        p->half_bits++;
}

static uint64_t round_of(const struct perm *p, int round, uint64_t half)
{
    return mix(p->key + ((uint64_t)(round + 1) << 56) + half) & (((uint64_t)1 << p->half_bits) - 1);
}

static int64_t encrypt(const struct perm *p, int64_t x)
{
    const uint64_t mask = ((uint64_t)1 << p->half_bits) - 1;
    uint64_t left = (uint64_t)x >> p->half_bits, right = (uint64_t)x & mask;

    for (int r = 0; r < ROUNDS; r++) {
        const uint64_t next = left ^ round_of(p, r, right);

        left = right;
        right = next;
    }
    return (int64_t)(left << p->half_bits | right);
}

static int64_t decrypt(const struct perm *p, int64_t x)
{
    const uint64_t mask = ((uint64_t)1 << p->half_bits) - 1;
    uint64_t left = (uint64_t)x >> p->half_bits, right = (uint64_t)x & mask;

    for (int r = ROUNDS - 1; r >= 0; r--) {
        const uint64_t before = right ^ round_of(p, r, left);

        right = left;
        left = before;
    }
    return (int64_t)(left << p->half_bits | right);
}

/* The power of two is below four times the size, so a walk takes four steps on average at most. */
int64_t perm_forward(const struct perm *p, int64_t position)
{
    CHECK(position >= 0 && position < p->size);
    do
        position = encrypt(p, position);
    while (position >= p->size);
    return position;
}

int64_t perm_inverse(const struct perm *p, int64_t slot)
{
    CHECK(slot >= 0 && slot < p->size);
    do
        slot = decrypt(p, slot);
    while (slot >= p->size);
    return slot;
}

/* ---- sampler -------------------------------------------------------------------------------------- */

struct phase {
    int64_t first_step;
    uint16_t *weights;    /* NULL: all SAMPLER_WEIGHT_ONE */
    int64_t *epoch_start; /* draw at which an epoch begins; known + 1 of them */
    size_t known, cap;
};
struct sampler {
    uint64_t seed;
    int64_t rows, batch;
    int copies;
    struct phase *phases;
    size_t phase_count;
    /* the epoch whose bitmap is there */
    size_t phase;
    int64_t epoch; /* -1: none */
    struct perm perm;
    uint64_t *live;
    int64_t *rank; /* live positions before each block */
};

static int64_t slots(const struct sampler *s)
{
    return s->rows * s->copies;
}

static int64_t count_of(const struct sampler *s, size_t phase, int64_t epoch, int64_t row)
{
    const uint16_t *w = s->phases[phase].weights;
    const uint32_t weight = w ? w[row] : SAMPLER_WEIGHT_ONE;
    uint64_t coin;
    int64_t n;

    if (weight % SAMPLER_WEIGHT_ONE == 0)
        n = weight / SAMPLER_WEIGHT_ONE;
    else {
        coin = mix(key_of(s->seed, (int64_t)phase, epoch, 0xc01) +
                   (uint64_t)row * 0x9e3779b97f4a7c15u);
        n = (weight + (coin >> 56)) / SAMPLER_WEIGHT_ONE;
    }
    return n < s->copies ? n : s->copies;
}

static enum err_code take_phase(struct sampler *s, const struct sampler_phase *from,
                                struct phase *to, struct err *err)
{
    int64_t all = 0;

    to->first_step = from->first_step;
    to->cap = 16;
    to->epoch_start = mem_zero(to->cap, sizeof(*to->epoch_start));
    if (!from->weights)
        return OK;
    to->weights = malloc((size_t)s->rows * sizeof(*to->weights));
    if (!to->weights)
        return err_set(err, ERR_LIMIT, "sampler: no memory for the weights of %lld rows",
                       (long long)s->rows);
    memcpy(to->weights, from->weights, (size_t)s->rows * sizeof(*to->weights));
    for (int64_t i = 0; i < s->rows; i++) {
        if (to->weights[i] > s->copies * SAMPLER_WEIGHT_ONE)
            return err_set(err, ERR_INPUT, "sampler: row %lld has weight %g, at most %d is drawn",
                           (long long)i, to->weights[i] / (double)SAMPLER_WEIGHT_ONE, s->copies);
        all += to->weights[i];
    }
    /* An epoch may come out empty by its coins, not every one: a mean of one draw keeps the search for draws short. */
    if (all < SAMPLER_WEIGHT_ONE)
        return err_set(err, ERR_INPUT, "sampler: the weights from step %lld on leave no row",
                       (long long)from->first_step);
    return OK;
}

enum err_code sampler_new(uint64_t seed, int64_t rows, int copies, int64_t batch,
                          const struct sampler_phase *phases, size_t phase_count,
                          struct sampler **out, struct err *err)
{
    struct sampler *s;
    enum err_code rc = OK;

    CHECK(batch > 0 && copies > 0 && copies <= 255 && phase_count > 0);
    CHECK(phases[0].first_step == 0);
    *out = NULL;
    if (rows <= 0)
        return err_set(err, ERR_INPUT, "sampler: the dataset has no rows");
    if (rows > SAMPLER_SLOTS_MAX / copies)
        return err_set(err, ERR_LIMIT, "sampler: %lld rows times %d copies", (long long)rows,
                       copies);
    s = mem_zero(1, sizeof(*s));
    *s =
        (struct sampler){.seed = seed, .rows = rows, .batch = batch, .copies = copies, .epoch = -1};
    s->phases = mem_zero(phase_count, sizeof(*s->phases));
    s->phase_count = phase_count;
    s->live = calloc((size_t)(slots(s) / 64 + 1), sizeof(*s->live));
    s->rank = calloc((size_t)(slots(s) / BLOCK + 2), sizeof(*s->rank));
    if (!s->live || !s->rank)
        rc = err_set(err, ERR_LIMIT, "sampler: no memory for %lld slots", (long long)slots(s));
    for (size_t i = 0; !rc && i < phase_count; i++) {
        CHECK(i == 0 || phases[i].first_step > phases[i - 1].first_step);
        rc = take_phase(s, &phases[i], &s->phases[i], err);
    }
    if (rc)
        sampler_free(s);
    else
        *out = s;
    return rc;
}

void sampler_free(struct sampler *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->phase_count; i++) {
        free(s->phases[i].weights);
        free(s->phases[i].epoch_start);
    }
    free(s->phases);
    free(s->live);
    free(s->rank);
    free(s);
}

/* Draw at which an epoch begins, counting from the phase's first; earlier epochs are counted on the way, once. */
static int64_t epoch_start(struct sampler *s, size_t phase, int64_t epoch)
{
    struct phase *p = &s->phases[phase];

    while ((int64_t)p->known < epoch) {
        int64_t n = 0;

        if (!p->weights)
            n = s->rows;
        else
            for (int64_t i = 0; i < s->rows; i++)
                n += count_of(s, phase, (int64_t)p->known, i);
        if (p->known + 2 > p->cap) {
            p->cap *= 2;
            p->epoch_start = mem_grow(p->epoch_start, p->cap, sizeof(*p->epoch_start));
        }
        p->epoch_start[p->known + 1] = p->epoch_start[p->known] + n;
        p->known++;
    }
    return p->epoch_start[epoch];
}

int64_t sampler_epoch_draws(struct sampler *s, size_t phase, int64_t epoch)
{
    const int64_t end = epoch_start(s, phase, epoch + 1);

    return end - epoch_start(s, phase, epoch);
}

/* The bitmap of positions that take part, and how many come before each block of it. */
static void load(struct sampler *s, size_t phase, int64_t epoch)
{
    int64_t before = 0;

    if (s->epoch == epoch && s->phase == phase)
        return;
    perm_init(&s->perm, s->seed, (int64_t)phase, epoch, slots(s));
    memset(s->live, 0, (size_t)(slots(s) / 64 + 1) * sizeof(*s->live));
    for (int64_t row = 0; row < s->rows; row++) {
        const int64_t n = count_of(s, phase, epoch, row);

        for (int64_t c = 0; c < n; c++) {
            const int64_t at = perm_inverse(&s->perm, row * s->copies + c);

            s->live[at / 64] |= (uint64_t)1 << (at % 64);
        }
    }
    for (int64_t block = 0; block * BLOCK < slots(s); block++) {
        s->rank[block] = before;
        for (int64_t w = block * (BLOCK / 64); w < (block + 1) * (BLOCK / 64) && w * 64 < slots(s);
             w++)
            before += __builtin_popcountll(s->live[w]);
    }
    s->rank[(slots(s) + BLOCK - 1) / BLOCK] = before;
    s->epoch = epoch;
    s->phase = phase;
}

/* Live positions before this one. */
static int64_t rank_of(const struct sampler *s, int64_t at)
{
    int64_t n = s->rank[at / BLOCK];

    for (int64_t w = at / BLOCK * (BLOCK / 64); w < at / 64; w++)
        n += __builtin_popcountll(s->live[w]);
    return n + __builtin_popcountll(s->live[at / 64] & (((uint64_t)1 << (at % 64)) - 1));
}

/* The live position with this many before it. */
static int64_t select_at(const struct sampler *s, int64_t k)
{
    int64_t low = 0, high = (slots(s) + BLOCK - 1) / BLOCK, w;
    uint64_t bits;

    while (high - low > 1) { /* the last block that has at most k before it */
        const int64_t middle = low + (high - low) / 2;

        if (s->rank[middle] <= k)
            low = middle;
        else
            high = middle;
    }
    k -= s->rank[low];
    w = low * (BLOCK / 64);
    while (__builtin_popcountll(s->live[w]) <= k)
        k -= __builtin_popcountll(s->live[w++]);
    for (bits = s->live[w]; k > 0; k--)
        bits &= bits - 1;
    return w * 64 + __builtin_ctzll(bits);
}

static size_t phase_of(const struct sampler *s, int64_t step)
{
    size_t i = s->phase_count - 1;

    while (i > 0 && s->phases[i].first_step > step)
        i--;
    return i;
}

void sampler_rows(struct sampler *s, int64_t step, int64_t *rows)
{
    const size_t phase = phase_of(s, step);
    int64_t draw = (step - s->phases[phase].first_step) * s->batch, epoch = 0, low = 0;
    struct phase *p = &s->phases[phase];

    CHECK(step >= 0);
    while (p->epoch_start[p->known] <= draw)
        (void)epoch_start(s, phase, (int64_t)p->known + 1);
    for (int64_t high = (int64_t)p->known; high - low > 1;) {
        const int64_t middle = low + (high - low) / 2;

        if (p->epoch_start[middle] <= draw)
            low = middle;
        else
            high = middle;
    }
    epoch = low;
    for (int64_t k = 0; k < s->batch; k++, draw++) {
        while (epoch_start(s, phase, epoch + 1) <= draw)
            epoch++;
        load(s, phase, epoch);
        rows[k] =
            perm_forward(&s->perm, select_at(s, draw - epoch_start(s, phase, epoch))) / s->copies;
    }
}

struct uses {
    int64_t *steps;
    size_t count, cap;
};

static int by_step(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* Steps [first, last] of one phase, given as draws [from, to). */
static void phase_steps(struct sampler *s, size_t phase, int64_t row, int64_t from, int64_t to,
                        struct uses *u)
{
    for (int64_t epoch = 0; epoch_start(s, phase, epoch) < to; epoch++) {
        int64_t n;

        if (epoch_start(s, phase, epoch + 1) <= from)
            continue;
        n = count_of(s, phase, epoch, row);
        if (n > 0)
            load(s, phase, epoch);
        for (int64_t c = 0; c < n; c++) {
            const int64_t at = perm_inverse(&s->perm, row * s->copies + c);
            const int64_t draw = epoch_start(s, phase, epoch) + rank_of(s, at);

            if (draw < from || draw >= to)
                continue;
            if (u->count == u->cap) {
                u->cap = u->cap ? 2 * u->cap : 16;
                u->steps = mem_grow(u->steps, u->cap, sizeof(*u->steps));
            }
            u->steps[u->count++] = s->phases[phase].first_step + draw / s->batch;
        }
    }
}

void sampler_steps(struct sampler *s, int64_t row, int64_t first, int64_t last, int64_t **steps,
                   size_t *count)
{
    struct uses u = {0};

    CHECK(row >= 0 && row < s->rows);
    CHECK(first >= 0);
    for (size_t i = 0; i < s->phase_count; i++) {
        const int64_t begin = s->phases[i].first_step;
        const int64_t end = i + 1 < s->phase_count ? s->phases[i + 1].first_step - 1 : INT64_MAX;
        const int64_t a = first > begin ? first : begin, b = last < end ? last : end;

        if (a <= b)
            phase_steps(s, i, row, (a - begin) * s->batch, (b - begin + 1) * s->batch, &u);
    }
    if (u.count > 1)
        qsort(u.steps, u.count, sizeof(*u.steps), by_step);
    *steps = u.steps;
    *count = u.count;
}

void sampler_mask_digest(const struct sampler *s, size_t phase, struct digest *out)
{
    const uint16_t *w = s->phases[phase].weights;
    struct sha256 h = {0};

    sha256_init(&h);
    for (int64_t i = 0; w && i < s->rows; i++) {
        uint8_t b[8];

        for (int k = 0; k < 8; k++)
            b[k] = (uint8_t)((uint64_t)i >> (8 * k));
        if (w[i] == 0)
            sha256_update(&h, b, sizeof(b));
    }
    sha256_final(&h, out);
    sha256_release(&h);
}

void sampler_weights_digest(const struct sampler *s, size_t phase, struct digest *out)
{
    const uint16_t *w = s->phases[phase].weights;
    struct sha256 h = {0};

    sha256_init(&h);
    for (int64_t i = 0; i < s->rows; i++) {
        const uint16_t v = w ? w[i] : SAMPLER_WEIGHT_ONE;
        const uint8_t b[2] = {(uint8_t)v, (uint8_t)(v >> 8)};

        sha256_update(&h, b, sizeof(b));
    }
    sha256_final(&h, out);
    sha256_release(&h);
}
