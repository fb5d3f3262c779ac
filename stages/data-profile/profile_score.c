/* Scores in [0, 1], by ratios and ranks: no exponentials, so that every machine agrees on every digit. */
#include <stdlib.h>
#include <string.h>

#include "stages/data-profile/profile.h"

struct ranked {
    double v;
    int64_t i;
};

static int by_value(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;

    return (x->v > y->v) - (x->v < y->v);
}

void profile_ranks(const double *values, int64_t count, double *out)
{
    struct ranked *order = mem_zero((size_t)count + 1, sizeof(*order));

    for (int64_t i = 0; i < count; i++)
        order[i] = (struct ranked){values[i], i};
    qsort(order, (size_t)count, sizeof(*order), by_value);
    for (int64_t from = 0, to; from < count; from = to) {
        for (to = from + 1; to < count && !(order[from].v < order[to].v);)
            to++;
        for (int64_t k = from; k < to; k++)
            out[order[k].i] = ((double)from + 0.5 * (double)(to - from)) / (double)count;
    }
    free(order);
}

static int by_double(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(const double *values, int64_t count)
{
    double *copy = mem_zero((size_t)count + 1, sizeof(*copy)), m;

    memcpy(copy, values, (size_t)count * sizeof(*copy));
    qsort(copy, (size_t)count, sizeof(*copy), by_double);
    m = copy[count / 2];
    free(copy);
    return m;
}

/* Edges against contrast: a plain picture is not a blurred one. */
static double crispness(const struct features *f)
{
    return f->sharpness / (f->contrast * f->contrast + 4);
}

/* 1 while all is well, falling towards 0: below half of what is usual for blur and (by area) for size, above the threshold of recipes for blocks, below six
 * hundredths of a byte a sample for lossy files. */
static double quality(const struct item *it, double usual_crisp, double usual_side)
{
    const double crisp = crispness(&it->f) / (0.5 * usual_crisp + 1e-9);
    const double side = it->side / (0.5 * usual_side + 1e-9);
    /* Both must see the grid: means see an edge that lies on it, medians see texture of its period. */
    const double grid = it->grid < it->blockiness ? it->grid : it->blockiness;
    const double blocks = grid > 1.15 ? 1 / (1 + 4 * (grid - 1.15)) : 1;
    const double bytes = it->lossy && it->compression < 0.06 ? it->compression / 0.06 : 1;
    const double noise = 1 / (1 + it->f.noise / 40);

    return (crisp < 1 ? crisp : 1) * (side < 1 ? side * side : 1) * blocks * bytes * noise;
}

static void score_source(struct item *items, int64_t n)
{
    double *crisp = mem_zero((size_t)n, sizeof(*crisp)), *v = mem_zero((size_t)n, sizeof(*v));
    double usual_crisp, usual_side;

    for (int64_t i = 0; i < n; i++) {
        crisp[i] = crispness(&items[i].f);
        v[i] = items[i].side;
    }
    usual_crisp = median(crisp, n);
    usual_side = median(v, n);
    for (int64_t i = 0; i < n; i++)
        items[i].quality = quality(&items[i], usual_crisp, usual_side);
    profile_ranks(crisp, n, v);
    for (int64_t i = 0; i < n; i++) {
        const double off = items[i].f.luma > 128 ? items[i].f.luma - 128 : 128 - items[i].f.luma;

        items[i].aesthetic = 0.25 * v[i] + 0.25 * (1 - off / 128);
        crisp[i] = items[i].f.colourfulness;
    }
    profile_ranks(crisp, n, v);
    for (int64_t i = 0; i < n; i++) {
        items[i].aesthetic += 0.25 * v[i];
        crisp[i] = items[i].f.contrast;
    }
    profile_ranks(crisp, n, v);
    for (int64_t i = 0; i < n; i++)
        items[i].aesthetic += 0.25 * v[i];
    free(crisp);
    free(v);
}

/* Ids begin with the source, but a name may be the beginning of another: gather by name. */
void profile_score(struct profile *p)
{
    struct item *part = mem_zero((size_t)p->count + 1, sizeof(*part));
    int64_t *at = mem_zero((size_t)p->count + 1, sizeof(*at));
    bool *done = mem_zero((size_t)p->count + 1, sizeof(*done));

    for (int64_t i = 0; i < p->count; i++) {
        int64_t n = 0;

        if (done[i])
            continue;
        for (int64_t k = i; k < p->count; k++)
            if (!done[k] && strcmp(p->items[k].source, p->items[i].source) == 0) {
                done[k] = true;
                at[n] = k;
                part[n++] = p->items[k];
            }
        score_source(part, n);
        for (int64_t k = 0; k < n; k++)
            p->items[at[k]] = part[k];
    }
    free(part);
    free(at);
    free(done);
}
