/* Element-wise work, in pieces of ELEM_BLOCK elements or whole rows. */
#include "kernels/elem.h"

#include <string.h>

#include "kernels/cpu/cpu.h"

/* Pieces [from, to) of n elements. */
static inline int64_t blocks(int64_t n)
{
    return ceil_div(n, ELEM_BLOCK);
}

void KERNEL(fill)(const struct call *c)
{
    real *y = c->out[0].data;
    int64_t n = shape_count(c->out[0].shape);

    for (int64_t i = 0; i < n; i++)
        y[i] = R(c->attr->theta);
}

void KERNEL(accumulate)(const struct call *c)
{
    const real *x = c->in[0].data;
    real *y = c->out[0].data;
    int64_t n = shape_count(c->out[0].shape);

#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks(n); b++)
        for (int64_t i = b * ELEM_BLOCK; i < min64(n, (b + 1) * ELEM_BLOCK); i++)
            y[i] = y[i] + x[i];
}

void KERNEL(add)(const struct call *c)
{
    const real *x = c->in[0].data, *y = c->in[1].data;
    real *z = c->out[0].data;
    int64_t n = shape_count(c->out[0].shape);

#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks(n); b++)
        for (int64_t i = b * ELEM_BLOCK; i < min64(n, (b + 1) * ELEM_BLOCK); i++)
            z[i] = x[i] + y[i];
}

void KERNEL(binary)(const struct call *c)
{
    const real *x = c->in[0].data, *y = c->in[1].data;
    real *z = c->out[0].data;
    int64_t n = shape_count(c->out[0].shape);
    int kind = c->attr->kind;

#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks(n); b++) {
        int64_t from = b * ELEM_BLOCK, to = min64(n, from + ELEM_BLOCK);

        if (kind == '-')
            for (int64_t i = from; i < to; i++)
                z[i] = x[i] - y[i];
        else if (kind == '*')
            for (int64_t i = from; i < to; i++)
                z[i] = x[i] * y[i];
        else
            for (int64_t i = from; i < to; i++)
                z[i] = x[i] / y[i];
    }
}

void KERNEL(affine)(const struct call *c)
{
    const real *x = c->in[0].data;
    const real alpha = R(c->attr->alpha), beta = R(c->attr->beta);
    real *y = c->out[0].data;
    int64_t n = shape_count(c->out[0].shape);

#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks(n); b++)
        for (int64_t i = b * ELEM_BLOCK; i < min64(n, (b + 1) * ELEM_BLOCK); i++)
            y[i] = r_fma(alpha, x[i], beta);
}

/* long: one line per kind, so that each is a loop that vectorises */
static void unary_piece(enum unary kind, real alpha, real beta, const real *x, real *y, int64_t n)
{
    int64_t i;

    switch (kind) {
    case UNARY_SILU:
        for (i = 0; i < n; i++)
            y[i] = x[i] * r_sigmoid(x[i]);
        break;
    case UNARY_SIGMOID:
        for (i = 0; i < n; i++)
            y[i] = r_sigmoid(x[i]);
        break;
    case UNARY_TANH:
        for (i = 0; i < n; i++)
            y[i] = r_tanh(x[i]);
        break;
    case UNARY_EXP:
        for (i = 0; i < n; i++)
            y[i] = r_exp(x[i]);
        break;
    case UNARY_LOG:
        for (i = 0; i < n; i++)
            y[i] = r_log(x[i]);
        break;
    case UNARY_SQUARE:
        for (i = 0; i < n; i++)
            y[i] = x[i] * x[i];
        break;
    case UNARY_SQRT:
        for (i = 0; i < n; i++)
            y[i] = r_sqrt(x[i]);
        break;
    case UNARY_ABS:
        for (i = 0; i < n; i++)
            y[i] = r_abs(x[i]);
        break;
    case UNARY_LEAKY:
        for (i = 0; i < n; i++)
            y[i] = x[i] > 0 ? x[i] : alpha * x[i];
        break;
    case UNARY_CLAMP:
        for (i = 0; i < n; i++)
            y[i] = x[i] < alpha ? alpha : (x[i] > beta ? beta : x[i]);
        break;
    case UNARY_SOFTPLUS:
        for (i = 0; i < n; i++)
            y[i] = (x[i] > 0 ? x[i] : 0) + r_log(R(1) + r_exp(-r_abs(x[i])));
        break;
    case UNARY_COUNT:
    default:
        check_failed("known unary", __FILE__, __LINE__);
    }
}

/* g is dy on entry to each element and dx after: y may be dy's or x's memory. */
/* long: as above */
static void unary_bwd_piece(enum unary kind, real alpha, real beta, const real *x, const real *dy,
                            real *dx, int64_t n)
{
    int64_t i;

    switch (kind) {
    case UNARY_SILU:
        for (i = 0; i < n; i++) {
            real q = r_sigmoid(x[i]);

            dx[i] = dy[i] * r_fma(x[i] * q, R(1) - q, q);
        }
        break;
    case UNARY_SIGMOID:
        for (i = 0; i < n; i++) {
            real q = r_sigmoid(x[i]);

            dx[i] = dy[i] * (q * (R(1) - q));
        }
        break;
    case UNARY_TANH:
        for (i = 0; i < n; i++) {
            real q = r_tanh(x[i]);

            dx[i] = dy[i] * (R(1) - q * q);
        }
        break;
    case UNARY_EXP:
        for (i = 0; i < n; i++)
            dx[i] = dy[i] * r_exp(x[i]);
        break;
    case UNARY_LOG:
        for (i = 0; i < n; i++)
            dx[i] = dy[i] / x[i];
        break;
    case UNARY_SQUARE:
        for (i = 0; i < n; i++)
            dx[i] = dy[i] * (x[i] + x[i]);
        break;
    case UNARY_SQRT:
        for (i = 0; i < n; i++)
            dx[i] = x[i] > 0 ? dy[i] * R(0.5) / r_sqrt(x[i]) : 0;
        break;
    case UNARY_ABS:
        for (i = 0; i < n; i++)
            dx[i] = x[i] > 0 ? dy[i] : (x[i] < 0 ? -dy[i] : 0);
        break;
    case UNARY_LEAKY:
        for (i = 0; i < n; i++)
            dx[i] = x[i] > 0 ? dy[i] : alpha * dy[i];
        break;
    case UNARY_CLAMP:
        for (i = 0; i < n; i++)
            dx[i] = x[i] < alpha || x[i] > beta ? 0 : dy[i];
        break;
    case UNARY_SOFTPLUS:
        for (i = 0; i < n; i++)
            dx[i] = dy[i] * r_sigmoid(x[i]);
        break;
    case UNARY_COUNT:
    default:
        check_failed("known unary", __FILE__, __LINE__);
    }
}

void KERNEL(unary)(const struct call *c)
{
    const real *x = c->in[0].data;
    real *y = c->out[0].data;
    int64_t n = shape_count(c->out[0].shape);

#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks(n); b++)
        unary_piece((enum unary)c->attr->kind, R(c->attr->alpha), R(c->attr->beta),
                    x + b * ELEM_BLOCK, y + b * ELEM_BLOCK, min64(ELEM_BLOCK, n - b * ELEM_BLOCK));
}

void KERNEL(unary_bwd)(const struct call *c)
{
    const real *x = c->in[0].data, *dy = c->in[1].data;
    real *dx = c->out[0].data;
    int64_t n = shape_count(c->out[0].shape);

#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks(n); b++) {
        int64_t from = b * ELEM_BLOCK;

        unary_bwd_piece((enum unary)c->attr->kind, R(c->attr->alpha), R(c->attr->beta), x + from,
                        dy + from, dx + from, min64(ELEM_BLOCK, n - from));
    }
}

void KERNEL(swiglu)(const struct call *c)
{
    const real *a = c->in[0].data, *b = c->in[1].data;
    real *y = c->out[0].data;
    int64_t n = shape_count(c->out[0].shape);

#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < blocks(n); k++)
        for (int64_t i = k * ELEM_BLOCK; i < min64(n, (k + 1) * ELEM_BLOCK); i++)
            y[i] = a[i] * r_sigmoid(a[i]) * b[i];
}

void KERNEL(swiglu_bwd)(const struct call *c)
{
    const real *a = c->in[0].data, *b = c->in[1].data, *df = c->in[2].data;
    real *restrict da = c->out[0].data, *restrict db = c->out[1].data;
    int64_t n = shape_count(c->out[0].shape);

#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < blocks(n); k++)
        for (int64_t i = k * ELEM_BLOCK; i < min64(n, (k + 1) * ELEM_BLOCK); i++) {
            real q = r_sigmoid(a[i]), s = a[i] * q;

            da[i] = df[i] * b[i] * r_fma(s, R(1) - q, q);
            db[i] = df[i] * s;
        }
}

/* ---- groups of rows ---- */

/* Rows per piece: about ELEM_BLOCK elements. */
static inline int64_t piece_rows(int64_t cols)
{
    return cols >= ELEM_BLOCK ? 1 : ELEM_BLOCK / cols;
}

static inline int64_t group_of(const int32_t *group, int64_t r, int64_t per_group)
{
    return group ? group[r] : r / per_group;
}

void KERNEL(gate)(const struct call *c)
{
    const real *x = c->in[0].data, *y = c->in[1].data, *a = c->in[2].data;
    const int32_t *group = c->in[3].data;
    real *z = c->out[0].data;
    int64_t rows = shape_rows(c->in[0].shape), cols = shape_cols(c->in[0].shape);
    int64_t per = rows / c->in[2].shape.dim[0], piece = piece_rows(cols);

#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < ceil_div(rows, piece); p++)
        for (int64_t r = p * piece; r < min64(rows, (p + 1) * piece); r++) {
            const real *row = a + group_of(group, r, per) * cols;
            const real *xr = x + r * cols, *yr = y + r * cols;
            real *zr = z + r * cols;

            for (int64_t j = 0; j < cols; j++)
                zr[j] = r_fma(row[j], yr[j], xr[j]);
        }
}

void KERNEL(gate_bwd)(const struct call *c)
{
    const real *dz = c->in[0].data, *a = c->in[1].data;
    const int32_t *group = c->in[2].data;
    real *dy = c->out[0].data;
    int64_t rows = shape_rows(c->in[0].shape), cols = shape_cols(c->in[0].shape);
    int64_t per = rows / c->in[1].shape.dim[0], piece = piece_rows(cols);

#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < ceil_div(rows, piece); p++)
        for (int64_t r = p * piece; r < min64(rows, (p + 1) * piece); r++) {
            const real *row = a + group_of(group, r, per) * cols, *dzr = dz + r * cols;
            real *dyr = dy + r * cols;

            for (int64_t j = 0; j < cols; j++)
                dyr[j] = row[j] * dzr[j];
        }
}

/* One sample at a time, its rows in order, so a group's sum does not depend on who else is in the batch. */
void KERNEL(group_dot)(const struct call *c)
{
    const real *x = c->in[0].data, *y = c->in[1].data;
    const int32_t *group = c->in[2].data;
    real *sum = c->out[0].data;
    int64_t rows = shape_rows(c->in[0].shape), cols = shape_cols(c->in[0].shape);
    int64_t groups = c->out[0].shape.dim[0], samples = c->in[0].shape.dim[0];
    int64_t units = group ? samples : groups;

#pragma omp parallel for schedule(static)
    for (int64_t u = 0; u < units; u++) {
        int64_t per_unit = groups / units;

        memset(sum + u * per_unit * cols, 0, (size_t)(per_unit * cols) * sizeof(real));
        for (int64_t r = u * (rows / units); r < (u + 1) * (rows / units); r++) {
            real *s = sum + (group ? group[r] : u) * cols;
            const real *xr = x + r * cols, *yr = y + r * cols;

            for (int64_t j = 0; j < cols; j++)
                s[j] = r_fma(xr[j], yr[j], s[j]);
        }
    }
}
