/* Perceptual hash and the search for near duplicates. */
#include "stages/data/phash.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SIDE 32
#define LOW 8
#define COS_ONE 16384.0

/* cos(pi (2x+1) u / 64) in 14 bits: rounding hides the last place, in which mathematical libraries differ. */
static void cosines(int32_t out[LOW][SIDE])
{
    const double pi = 3.14159265358979323846;

    for (int u = 0; u < LOW; u++)
        for (int x = 0; x < SIDE; x++)
            out[u][x] = (int32_t)lround(COS_ONE * cos(pi * (2 * x + 1) * u / (2.0 * SIDE)));
}

static int by_value(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static uint64_t hash_of(const uint8_t *grey)
{
    int32_t table[LOW][SIDE];
    int64_t rows[SIDE][LOW], c[LOW * LOW], sorted[LOW * LOW];
    uint64_t hash = 0;
    int64_t median;

    cosines(table);
    for (int y = 0; y < SIDE; y++)
        for (int u = 0; u < LOW; u++) {
            rows[y][u] = 0;
            for (int x = 0; x < SIDE; x++)
                rows[y][u] += (int64_t)table[u][x] * grey[y * SIDE + x];
        }
    for (int v = 0; v < LOW; v++)
        for (int u = 0; u < LOW; u++) {
            c[v * LOW + u] = 0;
            for (int y = 0; y < SIDE; y++)
                c[v * LOW + u] += table[v][y] * rows[y][u];
        }
    memcpy(sorted, c + 1, 63 * sizeof(*c));
    qsort(sorted, 63, sizeof(*sorted), by_value);
    median = sorted[31];
    for (int i = 0; i < LOW * LOW; i++)
        hash |= (uint64_t)(c[i] > median) << i;
    return hash;
}

enum err_code twin_make(const struct pic *p, struct twin *out, struct err *err)
{
    struct pic small = {0}, tiny = {0};
    uint8_t grey[SIDE * SIDE];
    enum err_code rc = pic_resize(p, SIDE, SIDE, PIC_AREA, &small, err);

    if (!rc)
        rc = pic_resize(&small, TWIN_SIDE, TWIN_SIDE, PIC_AREA, &tiny, err);
    if (!rc) {
        pic_grey(&small, grey);
        out->hash = hash_of(grey);
        pic_rgb(&tiny, out->rgb);
    }
    pic_release(&small);
    pic_release(&tiny);
    return rc;
}

int phash_distance(uint64_t a, uint64_t b)
{
    return __builtin_popcountll(a ^ b);
}

/* Mean |difference| in thousandths, of b moved by (dx, dy), over what both show. */
static int64_t difference(const struct twin *a, const struct twin *b, int dx, int dy)
{
    int64_t sum = 0, n = 0;

    for (int y = 0; y < TWIN_SIDE; y++) {
        if (y + dy < 0 || y + dy >= TWIN_SIDE)
            continue;
        for (int x = 0; x < TWIN_SIDE; x++) {
            const int here = 3 * (y * TWIN_SIDE + x), there = here + 3 * (dy * TWIN_SIDE + dx);

            if (x + dx < 0 || x + dx >= TWIN_SIDE)
                continue;
            for (int c = 0; c < 3; c++)
                sum += abs(a->rgb[here + c] - b->rgb[there + c]);
            n += 3;
        }
    }
    return sum * 1000 / n;
}

bool twin_same(const struct twin *a, const struct twin *b, const struct twin_rule *rule)
{
    const int64_t most = (int64_t)rule->centre_max * 1000;

    if (phash_distance(a->hash, b->hash) > rule->distance_max)
        return false;
    for (int dy = -1; dy <= 1; dy++)
        for (int dx = -1; dx <= 1; dx++)
            if (difference(a, b, dx, dy) <= most)
                return true;
    return false;
}

/* ---- search --------------------------------------------------------------------------------------- */

struct banded {
    uint64_t band;
    int64_t i;
};

static int by_band(const void *a, const void *b)
{
    const struct banded *x = a, *y = b;

    if (x->band != y->band)
        return x->band < y->band ? -1 : 1;
    return (x->i > y->i) - (x->i < y->i);
}

static int by_pair(const void *a, const void *b)
{
    const struct twin_pair *x = a, *y = b;

    if (x->i != y->i)
        return x->i < y->i ? -1 : 1;
    return (x->j > y->j) - (x->j < y->j);
}

static uint64_t band_of(uint64_t hash, int band, int bands)
{
    const int from = 64 * band / bands, to = 64 * (band + 1) / bands;
    const uint64_t mask = to - from == 64 ? UINT64_MAX : (((uint64_t)1 << (to - from)) - 1);

    return (hash >> from) & mask;
}

/* A pair that agrees in several bands is looked at in the first of them only. */
static bool seen_before(uint64_t a, uint64_t b, int band, int bands)
{
    for (int k = 0; k < band; k++)
        if (band_of(a, k, bands) == band_of(b, k, bands))
            return true;
    return false;
}

struct found {
    struct twin_pair *list;
    int64_t count, cap, max;
};

static bool keep(struct found *f, int64_t i, int64_t j)
{
    if (f->count >= f->max)
        return false;
    if (f->count == f->cap) {
        f->cap = f->cap ? 2 * f->cap : 1024;
        f->list = mem_grow(f->list, (size_t)f->cap, sizeof(*f->list));
    }
    f->list[f->count++] = i < j ? (struct twin_pair){i, j} : (struct twin_pair){j, i};
    return true;
}

static bool search_group(const struct twin *list, const struct banded *g, int64_t n, int band,
                         int bands, const struct twin_rule *rule, struct found *f)
{
    for (int64_t a = 0; a < n; a++)
        for (int64_t b = a + 1; b < n; b++) {
            const struct twin *x = &list[g[a].i], *y = &list[g[b].i];

            if (phash_distance(x->hash, y->hash) > rule->distance_max ||
                seen_before(x->hash, y->hash, band, bands) || !twin_same(x, y, rule))
                continue;
            if (!keep(f, g[a].i, g[b].i))
                return false;
        }
    return true;
}

enum err_code twin_search(const struct twin *list, int64_t count, const struct twin_rule *rule,
                          int64_t pairs_max, struct twin_pair **pairs, int64_t *pair_count,
                          struct err *err)
{
    const int bands = rule->distance_max + 1;
    struct found f = {.max = pairs_max};
    struct banded *order = mem_zero((size_t)count + 1, sizeof(*order));
    bool room = true;

    CHECK(bands >= 1 && bands <= 64);
    for (int band = 0; room && band < bands; band++) {
        int64_t from = 0;

        for (int64_t i = 0; i < count; i++)
            order[i] = (struct banded){band_of(list[i].hash, band, bands), i};
        qsort(order, (size_t)count, sizeof(*order), by_band);
        while (room && from < count) {
            int64_t to = from + 1;

            while (to < count && order[to].band == order[from].band)
                to++;
            room = search_group(list, order + from, to - from, band, bands, rule, &f);
            from = to;
        }
    }
    free(order);
    if (!room) {
        free(f.list);
        *pairs = NULL;
        *pair_count = 0;
        return err_set(err, ERR_LIMIT, "more than %lld pairs of near duplicates",
                       (long long)pairs_max);
    }
    qsort(f.list, (size_t)f.count, sizeof(*f.list), by_pair);
    *pairs = f.list;
    *pair_count = f.count;
    return OK;
}
