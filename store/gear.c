#include "store/gear.h"

#include "base/err.h"

#define GEAR_SEED 0x77656972u /* "weir"; the table is part of CUT_VERSION */
#define GEAR_WINDOW 64        /* a byte's value has left the hash after 64 shifts */
/* 2 bits more and 2 less than the 20 of the average: "normalisation level 2" of the paper. */
#define EARLY_MASK (~(uint64_t)0 << (64 - 22))
#define LATE_MASK (~(uint64_t)0 << (64 - 18))

/* Steele, Lea and Flood 2014, Fast Splittable Pseudorandom Number Generators (splitmix64). */
static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void gear_init(struct gear *g)
{
    uint64_t state = GEAR_SEED;

    CHECK(g);
    for (int b = 0; b < 256; b++)
        g->table[b] = splitmix64(&state);
}

/* The first i in [i, end) after which hash has no bit of mask, or end. */
static size_t scan(const uint64_t table[256], const uint8_t *p, size_t i, size_t end, uint64_t mask,
                   uint64_t *hash)
{
    uint64_t h = *hash;

    for (; i < end; i++) {
        h = (h << 1) + table[p[i]];
        if (!(h & mask))
            break;
    }
    *hash = h;
    return i;
}

size_t gear_cut(const struct gear *g, const uint8_t *p, size_t from, size_t n)
{
    const size_t end = n < GEAR_MAX ? n : GEAR_MAX;
    const size_t middle = end < GEAR_AVERAGE ? end : GEAR_AVERAGE;
    const size_t start = from > GEAR_MIN ? from : GEAR_MIN;
    uint64_t h = 0;
    size_t i;

    CHECK(from <= n);
    if (from >= GEAR_MAX)
        return from;
    if (start >= end)
        return end == GEAR_MAX ? end : 0;
    for (i = start - GEAR_WINDOW; i < start; i++)
        h = (h << 1) + g->table[p[i]];
    if (i < middle) {
        i = scan(g->table, p, i, middle, EARLY_MASK, &h);
        if (i < middle)
            return i + 1;
    }
    i = scan(g->table, p, i, end, LATE_MASK, &h);
    if (i < end)
        return i + 1;
    return end == GEAR_MAX ? end : 0;
}
