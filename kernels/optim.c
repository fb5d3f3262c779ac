#include "kernels/optim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "kernels/op.h"

#define CHUNK 4096
#define PIECE ((int64_t)16384) /* elements per piece of the update */

static void *flat_new(const struct params *ps)
{
    size_t bytes = (size_t)ps->total * dtype_size(ps->type);
    void *p = aligned_alloc(64, (bytes + 64) / 64 * 64);

    if (p)
        memset(p, 0, (bytes + 64) / 64 * 64);
    return p;
}

enum err_code adam_new(struct params *ps, bool ema, struct adam **out, struct err *err)
{
    struct adam *a = mem_zero(1, sizeof(*a));

    CHECK(ps->value);
    *out = NULL;
    a->params = ps;
    a->m = flat_new(ps);
    a->v = flat_new(ps);
    a->ema = ema ? flat_new(ps) : NULL;
    a->decay = mem_zero((size_t)ps->count + 1, sizeof(*a->decay));
    a->factor = mem_zero((size_t)ps->count + 1, sizeof(*a->factor));
    a->partial = mem_zero((size_t)ceil_div(ps->total, CHUNK) + 1, sizeof(*a->partial));
    if (!a->m || !a->v || (ema && !a->ema) || params_need_grad(ps, err) != OK) {
        adam_free(a);
        return err_set(err, ERR_FULL,
                       "cannot allocate optimiser state for %lld elements (%d bytes each)",
                       (long long)ps->total, ema ? 16 : 12);
    }
    if (ema)
        memcpy(a->ema, ps->value, (size_t)ps->total * dtype_size(ps->type));
    for (int i = 0; i < ps->count; i++) {
        a->decay[i] = ps->list[i].shape.rank >= 2 ? 1.0f : 0.0f;
        a->factor[i] = 1.0f;
    }
    *out = a;
    return OK;
}

void adam_free(struct adam *a)
{
    if (!a)
        return;
    free(a->m);
    free(a->v);
    free(a->ema);
    free(a->decay);
    free(a->factor);
    free(a->partial);
    free(a);
}

enum err_code adam_rule(struct adam *a, const char *suffix, double decay, double factor,
                        struct err *err)
{
    size_t n = strlen(suffix);
    int found = 0;

    for (int i = 0; i < a->params->count; i++) {
        const char *name = a->params->list[i].name;
        size_t have = strlen(name);

        if (have < n || strcmp(name + have - n, suffix) != 0)
            continue;
        a->decay[i] = (float)decay;
        a->factor[i] = (float)factor;
        found++;
    }
    if (!found)
        return err_set(err, ERR_INPUT,
                       "an optimiser rule is for names ending in '%s', but no "
                       "parameter's does",
                       suffix);
    return OK;
}

/* Balanced tree over n partial sums, in place. */
static double tree(double *x, int64_t n)
{
    for (; n > 1; n = (n + 1) / 2)
        for (int64_t i = 0; i < (n + 1) / 2; i++)
            x[i] = 2 * i + 1 < n ? x[2 * i] + x[2 * i + 1] : x[2 * i];
    return n ? x[0] : 0;
}

double flat_norm(const struct params *ps, double *partial, const void *flat)
{
    const struct kernel_table *table = op_table();
    int64_t chunks = ceil_div(ps->total, CHUNK);
    size_t size = dtype_size(ps->type);

    CHECK(table->type == ps->type);
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < chunks; k++) {
        int64_t n = ps->total - k * CHUNK;

        partial[k] = table->square_sum((const char *)flat + (size_t)(k * CHUNK) * size,
                                       n < CHUNK ? n : CHUNK);
    }
    return sqrt(tree(partial, chunks));
}

/* Parameter i, in pieces for threads; pieces are independent, so their size is free. */
static void update(const struct adam *a, int i, const struct adam_config *c, double g_scale)
{
    const struct params *ps = a->params;
    const struct param *p = &ps->list[i];
    const struct kernel_table *table = op_table();
    int64_t pieces = ceil_div(p->count, PIECE);
    size_t size = dtype_size(ps->type);

#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < pieces; k++) {
        int64_t from = k * PIECE, n = p->count - from;
        size_t at = (size_t)(p->at + from) * size;
        const struct adam_span span = {.p = (char *)ps->value + at,
                                       .m = (char *)a->m + at,
                                       .v = (char *)a->v + at,
                                       .ema = a->ema ? (char *)a->ema + at : NULL,
                                       .g = (const char *)ps->grad + at,
                                       .n = n < PIECE ? n : PIECE,
                                       .g_scale = g_scale,
                                       .beta1 = c->beta1,
                                       .beta2 = c->beta2,
                                       .lr = c->lr * (double)a->factor[i],
                                       .over_bias1 = 1 / (1 - pow(c->beta1, (double)a->step)),
                                       .over_bias2 = 1 / (1 - pow(c->beta2, (double)a->step)),
                                       .eps = c->eps,
                                       .decay = c->decay * (double)a->decay[i],
                                       .ema_step = 1 - c->ema_rate};

        table->adam(&span);
    }
}

static void clear_frozen(const struct params *ps)
{
    size_t size = dtype_size(ps->type);

    for (int i = 0; i < ps->count; i++)
        if (ps->list[i].frozen)
            memset((char *)ps->grad + (size_t)ps->list[i].at * size, 0,
                   (size_t)ps->list[i].count * size);
}

void adam_step(struct adam *a, const struct adam_config *c)
{
    double scale = c->grad_scale > 0 ? c->grad_scale : 1;

    clear_frozen(a->params);
    a->norm = flat_norm(a->params, a->partial, a->params->grad) * scale;
    a->skipped = !isfinite(a->norm);
    if (a->skipped)
        return;
    if (c->clip > 0 && a->norm > c->clip)
        scale *= c->clip / a->norm;
    a->step++;
    for (int i = 0; i < a->params->count; i++)
        if (!a->params->list[i].frozen)
            update(a, i, c, scale);
}
