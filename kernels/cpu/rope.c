/* Rotary positions after RMSNorm per head, and time features. */
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/norm.h"

#define HEAD_MAX 1024 /* columns of a head */
#define CHUNK_ROWS 64

static void cos_sin(double angle, real *cosine, real *sine)
{
#ifdef WEIR_F64
    *cosine = cos(angle);
    *sine = sin(angle);
#else
    vm_sincos((float)angle, sine, cosine);
#endif
}

void KERNEL(rope_table)(const struct call *c)
{
    const int32_t *pos = c->in[0].data, *axes = c->attr->axes;
    real *table = c->out[0].data;
    int64_t rows = c->out[0].shape.dim[0], d = c->out[0].shape.dim[1], m = 0;
    double freq[HEAD_MAX / 2];

    CHECK(d <= HEAD_MAX);
    for (int a = 0; a < 3; a++)
        for (int k = 0; k < axes[a] / 2; k++)
            freq[m++] = 1.0 / pow(c->attr->theta, 2.0 * k / axes[a]);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        int64_t i = 0;

        for (int a = 0; a < 3; a++)
            for (int k = 0; k < axes[a] / 2; k++, i++)
                cos_sin((double)pos[r * 3 + a] * freq[i], &table[r * d + i],
                        &table[r * d + d / 2 + i]);
    }
}

static inline real head_rstd(const real *x, int64_t d, real eps)
{
    return R(1) / r_sqrt(row_dot(x, x, d) / R(d) + eps);
}

/* y = x turned by sign * angle. */
static inline void turn(const real *x, const real *table, real sign, enum rope_pairs pairs, real *y,
                        int64_t d)
{
    const real *cosine = table, *sine = table + d / 2;

    if (pairs == ROPE_ADJACENT) {
        for (int64_t m = 0; m < d / 2; m++) {
            real a = x[2 * m], b = x[2 * m + 1], s = sign * sine[m];

            y[2 * m] = r_fma(a, cosine[m], -(b * s));
            y[2 * m + 1] = r_fma(a, s, b * cosine[m]);
        }
        return;
    }
    for (int64_t m = 0; m < d / 2; m++) {
        real a = x[m], b = x[m + d / 2], s = sign * sine[m];

        y[m] = r_fma(a, cosine[m], -(b * s));
        y[m + d / 2] = r_fma(a, s, b * cosine[m]);
    }
}

void KERNEL(rope)(const struct call *c)
{
    const real *x = c->in[0].data, *w = c->in[1].data, *table = c->in[2].data;
    real *y = c->out[0].data;
    int64_t rows = shape_rows(c->in[0].shape), cols = shape_cols(c->in[0].shape);
    int64_t d = shape_cols(c->in[2].shape);

#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t h = 0; h < cols; h += d) {
            const real *xr = x + r * cols + h;
            real n[HEAD_MAX];
            real rstd = w ? head_rstd(xr, d, R(c->attr->eps)) : R(1);

            for (int64_t j = 0; j < d; j++)
                n[j] = w ? xr[j] * rstd * w[j] : xr[j];
            turn(n, table + r * d, R(1), (enum rope_pairs)c->attr->kind, y + r * cols + h, d);
        }
}

void KERNEL(rope_bwd)(const struct call *c)
{
    const real *dy = c->in[0].data, *x = c->in[1].data, *w = c->in[2].data, *table = c->in[3].data;
    real *dx = c->out[0].data;
    int64_t rows = shape_rows(c->in[1].shape), cols = shape_cols(c->in[1].shape);
    int64_t d = shape_cols(c->in[3].shape);

#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t h = 0; h < cols; h += d) {
            const real *xr = x + r * cols + h;
            real *dxr = dx + r * cols + h;
            real g[HEAD_MAX], rstd, k;

            turn(dy + r * cols + h, table + r * d, R(-1), (enum rope_pairs)c->attr->kind, g, d);
            if (!w) {
                memcpy(dxr, g, (size_t)d * sizeof(real));
                continue;
            }
            rstd = head_rstd(xr, d, R(c->attr->eps));
            for (int64_t j = 0; j < d; j++)
                g[j] = g[j] * w[j];
            k = row_dot(g, xr, d) / R(d) * rstd * rstd;
            for (int64_t j = 0; j < d; j++)
                dxr[j] = rstd * r_fma(-k, xr[j], g[j]);
        }
}

void KERNEL(rope_dot)(const struct call *c)
{
    const real *dy = c->in[0].data, *x = c->in[1].data, *table = c->in[2].data;
    real *sum = c->out[0].data;
    int64_t rows = shape_rows(c->in[1].shape), cols = shape_cols(c->in[1].shape);
    int64_t d = shape_cols(c->in[2].shape), chunks = c->out[0].shape.dim[0];

#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < chunks; k++) {
        real *s = sum + k * d;

        memset(s, 0, (size_t)d * sizeof(real));
        for (int64_t r = k * CHUNK_ROWS; r < min64(rows, (k + 1) * CHUNK_ROWS); r++)
            for (int64_t h = 0; h < cols; h += d) {
                const real *xr = x + r * cols + h;
                real g[HEAD_MAX], rstd = head_rstd(xr, d, R(c->attr->eps));

                turn(dy + r * cols + h, table + r * d, R(-1), (enum rope_pairs)c->attr->kind, g, d);
                for (int64_t j = 0; j < d; j++)
                    s[j] = r_fma(g[j], xr[j] * rstd, s[j]);
            }
    }
}

void KERNEL(time_table)(const struct call *c)
{
    const real *time = c->in[0].data;
    real *out = c->out[0].data;
    int64_t rows = c->out[0].shape.dim[0], half = c->out[0].shape.dim[1] / 2;

    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < half; k++) {
            double freq = exp(-log(c->attr->theta) * (double)k / (double)half);
            real scaled = time[r] * R(c->attr->alpha);
            real *row = out + r * 2 * half;

            /* The angle is rounded to the working type, as the reference implementation does. */
            cos_sin((double)(scaled * R(freq)), &row[k], &row[half + k]);
        }
}
