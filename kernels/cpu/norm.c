/* RMSNorm and LayerNorm, a row at a time. */
#include <string.h>

#include "kernels/cpu/cpu.h"

struct stats {
    real mean, rstd;
};

/* Two passes for the variance: one pass cancels. */
static inline struct stats row_stats(const real *x, int64_t n, bool center, real eps)
{
    struct stats s = {0, 0};
    real lane[LANES] = {0};
    int64_t i = 0;

    if (center)
        s.mean = row_sum(x, n) / R(n);
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) {
            real d = x[i + j] - s.mean;

            lane[j] = r_fma(d, d, lane[j]);
        }
    for (int j = 0; i + j < n; j++) {
        real d = x[i + j] - s.mean;

        lane[j] = r_fma(d, d, lane[j]);
    }
    s.rstd = R(1) / r_sqrt(lanes_sum(lane) / R(n) + eps);
    return s;
}

/* The row of scale that row r uses, or NULL. */
static inline const real *scale_row(const struct tensor *scale, const int32_t *group, int64_t r,
                                    int64_t rows, int64_t cols)
{
    const real *p = scale->data;

    if (!p)
        return NULL;
    return p + (group ? group[r] : r / (rows / scale->shape.dim[0])) * cols;
}

static inline void norm_row(const real *x, const real *w, const real *b, const real *s,
                            struct stats st, real *y, int64_t n)
{
    /* Three loops instead of one with conditions, so that each vectorises. */
    for (int64_t j = 0; j < n; j++)
        y[j] = (x[j] - st.mean) * st.rstd;
    if (w)
        for (int64_t j = 0; j < n; j++)
            y[j] = y[j] * w[j];
    if (b)
        for (int64_t j = 0; j < n; j++)
            y[j] = y[j] + b[j];
    if (s)
        for (int64_t j = 0; j < n; j++)
            y[j] = y[j] * (R(1) + s[j]);
}

void KERNEL(norm)(const struct call *c)
{
    const real *x = c->in[0].data, *w = c->in[1].data, *b = c->in[2].data;
    real *y = c->out[0].data;
    int64_t rows = shape_rows(c->in[0].shape), cols = shape_cols(c->in[0].shape);

#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const real *s = scale_row(&c->in[3], c->in[4].data, r, rows, cols);
        struct stats st = row_stats(x + r * cols, cols, c->attr->flag, R(c->attr->eps));

        norm_row(x + r * cols, w, b, s, st, y + r * cols, cols);
    }
}

struct bwd_row {
    const real *dy, *x, *w, *s, *so_far; /* w, s and so_far may be NULL */
    real *dx;
    struct stats st;
    bool center;
    int64_t n;
};

/* g = dy * w * (1 + s).  with_w and with_s are constants where this is inlined, so that loops have no conditions. */
static inline __attribute__((always_inline)) real bwd_g(const struct bwd_row *b, bool with_w,
                                                        bool with_s, int64_t j)
{
    real g = b->dy[j];

    if (with_w)
        g = g * b->w[j];
    if (with_s)
        g = g * (R(1) + b->s[j]);
    return g;
}

/* The sums of g and of g * xhat, then dx. */
static inline __attribute__((always_inline)) void norm_bwd_row(const struct bwd_row *b, bool with_w,
                                                               bool with_s)
{
    real sum[LANES] = {0}, dot[LANES] = {0};
    real mean_g, mean_gx;
    int64_t i = 0;

    for (; i + LANES <= b->n; i += LANES)
        for (int j = 0; j < LANES; j++) {
            real g = bwd_g(b, with_w, with_s, i + j);

            sum[j] += g;
            dot[j] = r_fma(g, (b->x[i + j] - b->st.mean) * b->st.rstd, dot[j]);
        }
    for (int j = 0; i + j < b->n; j++) {
        real g = bwd_g(b, with_w, with_s, i + j);

        sum[j] += g;
        dot[j] = r_fma(g, (b->x[i + j] - b->st.mean) * b->st.rstd, dot[j]);
    }
    mean_g = b->center ? lanes_sum(sum) / R(b->n) : 0;
    mean_gx = lanes_sum(dot) / R(b->n);
    for (int64_t j = 0; j < b->n; j++) {
        real g = bwd_g(b, with_w, with_s, j) - mean_g;
        real d = b->st.rstd * (g - (b->x[j] - b->st.mean) * b->st.rstd * mean_gx);

        b->dx[j] = b->so_far ? b->so_far[j] + d : d;
    }
}

void KERNEL(norm_bwd)(const struct call *c)
{
    const real *dy = c->in[0].data, *x = c->in[1].data, *w = c->in[2].data;
    const real *so_far = c->in[5].data;
    real *dx = c->out[0].data;
    int64_t rows = shape_rows(c->in[1].shape), cols = shape_cols(c->in[1].shape);

#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const real *s = scale_row(&c->in[3], c->in[4].data, r, rows, cols);
        int64_t at = r * cols;
        const struct bwd_row b = {.dy = dy + at,
                                  .x = x + at,
                                  .w = w,
                                  .s = s,
                                  .so_far = so_far ? so_far + at : NULL,
                                  .dx = dx + at,
                                  .st = row_stats(x + at, cols, c->attr->flag, R(c->attr->eps)),
                                  .center = c->attr->flag,
                                  .n = cols};

        if (w && s)
            norm_bwd_row(&b, true, true);
        else if (w)
            norm_bwd_row(&b, true, false);
        else
            norm_bwd_row(&b, false, s != NULL);
    }
}

void KERNEL(norm_dot)(const struct call *c)
{
    const real *dy = c->in[0].data, *x = c->in[1].data;
    const int32_t *group = c->in[2].data;
    real *sum = c->out[0].data;
    int64_t rows = shape_rows(c->in[1].shape), cols = shape_cols(c->in[1].shape);
    int64_t groups = c->out[0].shape.dim[0];
    /* Rows that choose stay within their sample, so samples are the pieces of work. */
    int64_t units = group ? c->in[1].shape.dim[0] : groups;
    int64_t per_unit = groups / units, unit_rows = group ? rows / units : c->attr->which;

#pragma omp parallel for schedule(static)
    for (int64_t u = 0; u < units; u++) {
        memset(sum + u * per_unit * cols, 0, (size_t)(per_unit * cols) * sizeof(real));
        for (int64_t r = u * unit_rows; r < min64(rows, (u + 1) * unit_rows); r++) {
            const real *dyr = dy + r * cols, *xr = x + r * cols;
            struct stats st = row_stats(xr, cols, c->attr->flag, R(c->attr->eps));
            real *s = sum + (group ? group[r] : u) * cols;

            for (int64_t j = 0; j < cols; j++)
                s[j] = r_fma(dyr[j], (xr[j] - st.mean) * st.rstd, s[j]);
        }
    }
}

void KERNEL(norm_fold)(const struct call *c)
{
    const real *sum = c->in[0].data, *scale = c->in[1].data;
    real *dw = c->out[0].data;
    int64_t groups = c->in[0].shape.dim[0], cols = c->in[0].shape.dim[1];

    memset(dw, 0, (size_t)cols * sizeof(real));
    for (int64_t g = 0; g < groups; g++)
        for (int64_t j = 0; j < cols; j++) {
            real k = scale ? R(1) + scale[g * cols + j] : R(1);

            dw[j] = r_fma(sum[g * cols + j], k, dw[j]);
        }
}

void KERNEL(norm_scale_bwd)(const struct call *c)
{
    const real *sum = c->in[0].data, *w = c->in[1].data;
    real *ds = c->out[0].data;
    int64_t groups = c->in[0].shape.dim[0], cols = c->in[0].shape.dim[1];

    for (int64_t g = 0; g < groups; g++)
        for (int64_t j = 0; j < cols; j++)
            ds[g * cols + j] = sum[g * cols + j] * w[j];
}
