/* Group norm over (batch, pixels, channels), optionally followed by silu.
 *
 * Sums over pixels: 64-pixel chunks in order, per channel; chunks in order; then the channels of a group in order.  The
 * variance is a second pass over differences from the mean. */
#include <string.h>

#include "kernels/cpu/cpu.h"

#define CHUNK 64

struct plane {
    int64_t samples, pixels, channels, groups, per_group, chunks;
    real count; /* elements per group */
};

static struct plane plane_of(struct shape x, int32_t groups)
{
    struct plane p = {.samples = x.dim[0], .channels = shape_cols(x), .groups = groups};

    p.pixels = shape_rows(x) / x.dim[0];
    p.per_group = p.channels / groups;
    p.chunks = ceil_div(p.pixels, CHUNK);
    p.count = R(p.pixels * p.per_group);
    return p;
}

/* part[0]: channel sums in order of chunks */
static void fold(const struct plane *p, real *part)
{
    for (int64_t k = 1; k < p->chunks; k++)
        for (int64_t j = 0; j < p->channels; j++)
            part[j] += part[k * p->channels + j];
}

static real group_sum(const struct plane *p, const real *part, int64_t g)
{
    real sum = 0;

    for (int64_t j = g * p->per_group; j < (g + 1) * p->per_group; j++)
        sum += part[j];
    return sum;
}

/* Channel sums of (x - mean of its group) or, with mean, of its square; mean has a value per channel. */
static void chunk_sums(const struct plane *p, const real *x, const real *mean, real *part)
{
    for (int64_t i = 0; i < p->pixels; i++) {
        real *s = part + i / CHUNK * p->channels;
        const real *row = x + i * p->channels;

        if (i % CHUNK == 0)
            memset(s, 0, (size_t)p->channels * sizeof(real));
        if (!mean)
            for (int64_t j = 0; j < p->channels; j++)
                s[j] += row[j];
        else
            for (int64_t j = 0; j < p->channels; j++) {
                real d = row[j] - mean[j];

                s[j] = r_fma(d, d, s[j]);
            }
    }
    fold(p, part);
}

/* Scratch of a sample: two kinds of sums, (chunks + 1) rows each. */
static real *sample_scratch(const struct call *c, const struct plane *p, int64_t b)
{
    return (real *)(void *)c->shared + b * (p->chunks + 1) * 2 * p->channels;
}

/* stats (groups, 2) to one value per channel. */
static void spread_stats(const struct plane *p, const real *stats, real *mean, real *rstd)
{
    for (int64_t j = 0; j < p->channels; j++) {
        mean[j] = stats[j / p->per_group * 2];
        rstd[j] = stats[j / p->per_group * 2 + 1];
    }
}

static void sample_forward(const struct call *c, const struct plane *p, int64_t b)
{
    const real *x = (const real *)c->in[0].data + b * p->pixels * p->channels;
    const real *w = c->in[1].data, *bias = c->in[2].data;
    real *y = (real *)c->out[0].data + b * p->pixels * p->channels;
    real *stats = (real *)c->out[1].data + b * p->groups * 2;
    real *mean = sample_scratch(c, p, b), *rstd = mean + p->channels, *part = rstd + p->channels;

    chunk_sums(p, x, NULL, part);
    for (int64_t g = 0; g < p->groups; g++)
        stats[g * 2] = group_sum(p, part, g) / p->count;
    spread_stats(p, stats, mean, rstd);
    chunk_sums(p, x, mean, part);
    for (int64_t g = 0; g < p->groups; g++)
        stats[g * 2 + 1] = R(1) / r_sqrt(group_sum(p, part, g) / p->count + R(c->attr->eps));
    spread_stats(p, stats, mean, rstd);
    for (int64_t i = 0; i < p->pixels; i++) {
        const real *xr = x + i * p->channels;
        real *yr = y + i * p->channels;

        for (int64_t j = 0; j < p->channels; j++)
            yr[j] = r_fma((xr[j] - mean[j]) * rstd[j], w[j], bias[j]);
        if (c->attr->flag)
            for (int64_t j = 0; j < p->channels; j++)
                yr[j] = yr[j] * r_sigmoid(yr[j]);
    }
}

void KERNEL(group_norm)(const struct call *c)
{
    const struct plane p = plane_of(c->in[0].shape, c->attr->groups);

#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t b = 0; b < p.samples; b++)
        sample_forward(c, &p, b);
}

/* The gradient before silu, of element j of a row. */
static inline real before_silu(real dy, real xhat, real w, real bias, bool with_silu)
{
    real z = r_fma(xhat, w, bias), q;

    if (!with_silu)
        return dy;
    q = r_sigmoid(z);
    return dy * r_fma(z * q, R(1) - q, q);
}

/* The sample's channel sums of g and of g * xhat in sum and dot (first rows of their scratch); then dx. */
static void sample_backward(const struct call *c, const struct plane *p, int64_t b)
{
    int64_t at = b * p->pixels * p->channels;
    const real *dy = (const real *)c->in[0].data + at, *x = (const real *)c->in[1].data + at;
    const real *w = c->in[2].data, *bias = c->in[3].data;
    const real *stats = (const real *)c->in[4].data + b * p->groups * 2;
    real *dx = (real *)c->out[0].data + at;
    real *sum = sample_scratch(c, p, b), *dot = sum + (p->chunks + 1) * p->channels;
    bool with = c->attr->flag;

    for (int64_t i = 0; i < p->pixels; i++) {
        real *s = sum + i / CHUNK * p->channels, *d = dot + i / CHUNK * p->channels;

        if (i % CHUNK == 0) {
            memset(s, 0, (size_t)p->channels * sizeof(real));
            memset(d, 0, (size_t)p->channels * sizeof(real));
        }
        for (int64_t j = 0; j < p->channels; j++) {
            const real *st = stats + j / p->per_group * 2;
            real xhat = (x[i * p->channels + j] - st[0]) * st[1];
            real g = before_silu(dy[i * p->channels + j], xhat, w[j], bias[j], with);

            s[j] += g;
            d[j] = r_fma(g, xhat, d[j]);
        }
    }
    fold(p, sum);
    fold(p, dot);
    for (int64_t gr = 0; gr < p->groups; gr++) {
        real a = 0, e = 0, mean = stats[gr * 2], rstd = stats[gr * 2 + 1];
        int64_t from = gr * p->per_group, to = from + p->per_group;

        for (int64_t j = from; j < to; j++) {
            a = r_fma(sum[j], w[j], a);
            e = r_fma(dot[j], w[j], e);
        }
        a = a / p->count;
        e = e / p->count;
        for (int64_t i = 0; i < p->pixels; i++)
            for (int64_t j = from; j < to; j++) {
                int64_t k = i * p->channels + j;
                real xhat = (x[k] - mean) * rstd;
                real g = before_silu(dy[k], xhat, w[j], bias[j], with) * w[j];

                dx[k] = rstd * (g - a - xhat * e);
            }
    }
}

void KERNEL(group_norm_bwd)(const struct call *c)
{
    const struct plane p = plane_of(c->in[1].shape, c->attr->groups);
    real *dw = c->out[1].data, *db = c->out[2].data;

#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t b = 0; b < p.samples; b++)
        sample_backward(c, &p, b);
    memset(dw, 0, (size_t)p.channels * sizeof(real));
    memset(db, 0, (size_t)p.channels * sizeof(real));
    for (int64_t b = 0; b < p.samples; b++) {
        const real *sum = sample_scratch(c, &p, b), *dot = sum + (p.chunks + 1) * p.channels;

        for (int64_t j = 0; j < p.channels; j++) {
            dw[j] += dot[j];
            db[j] += sum[j];
        }
    }
}
