/* Sums with a fixed order, and losses. */
#include <string.h>

#include "kernels/cpu/cpu.h"

#define SUM_CHUNK 4096 /* a longer row is summed in chunks of this, chunk sums in order */

void KERNEL(row_scale)(const struct call *c)
{
    const real *x = c->in[0].data, *s = c->in[1].data;
    real *y = c->out[0].data;
    int64_t n = shape_count(c->in[1].shape), each = shape_count(c->in[0].shape) / n;

#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = r * each; i < (r + 1) * each; i++)
            y[i] = s[r] * x[i];
}

static real chunked_dot(const real *x, const real *y, int64_t n)
{
    real sum = 0;

    for (int64_t i = 0; i < n; i += SUM_CHUNK) {
        int64_t m = min64(SUM_CHUNK, n - i);

        sum += y ? row_dot(x + i, y + i, m) : row_sum(x + i, m);
    }
    return sum;
}

void KERNEL(row_dot)(const struct call *c)
{
    const real *x = c->in[0].data, *y = c->in[1].data;
    real *sum = c->out[0].data;
    int64_t n = shape_count(c->out[0].shape), each = shape_count(c->in[0].shape) / n;

#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < n; r++)
        sum[r] = R(c->attr->theta) * chunked_dot(x + r * each, y ? y + r * each : NULL, each);
}

void KERNEL(spread)(const struct call *c)
{
    const real *s = c->in[0].data;
    real *y = c->out[0].data;
    int64_t n = shape_count(c->in[0].shape), each = shape_count(c->out[0].shape) / n;

#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < n; r++) {
        real v = R(c->attr->theta) * s[r];

        for (int64_t i = r * each; i < (r + 1) * each; i++)
            y[i] = v;
    }
}

void KERNEL(col_sum)(const struct call *c)
{
    const real *x = c->in[0].data;
    real *part = (real *)(void *)c->shared, *y = c->out[0].data;
    int64_t rows = shape_rows(c->in[0].shape), cols = shape_cols(c->in[0].shape);
    int64_t chunks = ceil_div(rows, 128);

#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < chunks; k++) {
        real *p = part + k * cols;

        memset(p, 0, (size_t)cols * sizeof(real));
        for (int64_t r = k * 128; r < min64(rows, (k + 1) * 128); r++)
            for (int64_t j = 0; j < cols; j++)
                p[j] += x[r * cols + j];
    }
    memcpy(y, part, (size_t)cols * sizeof(real));
    for (int64_t k = 1; k < chunks; k++)
        for (int64_t j = 0; j < cols; j++)
            y[j] += part[k * cols + j];
}

void KERNEL(mse)(const struct call *c)
{
    const real *x = c->in[0].data, *y = c->in[1].data;
    real *loss = c->out[0].data;
    int64_t n = c->in[0].shape.dim[0], each = shape_count(c->in[0].shape) / n;

#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < n; b++) {
        real sum = 0;

        for (int64_t i = b * each; i < (b + 1) * each; i += SUM_CHUNK) {
            int64_t m = min64(SUM_CHUNK, (b + 1) * each - i);
            real lane[LANES] = {0};

            for (int64_t k = 0; k < m; k += LANES)
                for (int j = 0; j < min64(LANES, m - k); j++) {
                    real d = x[i + k + j] - y[i + k + j];

                    lane[j] = r_fma(d, d, lane[j]);
                }
            sum += lanes_sum(lane);
        }
        loss[b] = sum / R(each);
    }
}

void KERNEL(mse_bwd)(const struct call *c)
{
    const real *x = c->in[0].data, *y = c->in[1].data, *g = c->in[2].data;
    real *dx = c->out[0].data;
    int64_t n = c->in[0].shape.dim[0], each = shape_count(c->in[0].shape) / n;

#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < n; b++) {
        real k = R(2) * g[b] / R(each);

        for (int64_t i = b * each; i < (b + 1) * each; i++)
            dx[i] = k * (x[i] - y[i]);
    }
}

static real row_max(const real *x, int64_t n)
{
    real m = x[0];

    for (int64_t i = 1; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

static real row_exp_sum(const real *x, real max, int64_t n)
{
    real lane[LANES] = {0};

    for (int64_t i = 0; i < n; i += LANES)
        for (int j = 0; j < min64(LANES, n - i); j++)
            lane[j] += r_exp(x[i + j] - max);
    return lanes_sum(lane);
}

void KERNEL(entropy)(const struct call *c)
{
    const real *x = c->in[0].data;
    const int32_t *target = c->in[1].data;
    real *loss = c->out[0].data;
    int64_t rows = shape_rows(c->in[0].shape), cols = shape_cols(c->in[0].shape);

#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const real *xr = x + r * cols;
        real max = row_max(xr, cols);

        CHECK(target[r] < cols);
        loss[r] = target[r] < 0 ? 0 : max + r_log(row_exp_sum(xr, max, cols)) - xr[target[r]];
    }
}

void KERNEL(entropy_bwd)(const struct call *c)
{
    const real *x = c->in[0].data, *g = c->in[2].data;
    const int32_t *target = c->in[1].data;
    real *dx = c->out[0].data;
    int64_t rows = shape_rows(c->in[0].shape), cols = shape_cols(c->in[0].shape);

#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const real *xr = x + r * cols;
        real max = row_max(xr, cols), k = target[r] < 0 ? 0 : g[r];
        real over = k / row_exp_sum(xr, max, cols);

        for (int64_t j = 0; j < cols; j++)
            dx[r * cols + j] = over * r_exp(xr[j] - max);
        if (target[r] >= 0)
            dx[r * cols + target[r]] -= k;
    }
}
