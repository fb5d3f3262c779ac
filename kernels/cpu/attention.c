/* Attention, one (sample, head) at a time in cache: keys and values are packed once, queries go by in blocks. */
#include "kernels/cpu/mm.h"
#include "kernels/gemm.h"

#define QUERIES 48 /* rows per block: a multiple of MM_ROWS */

struct head {
    int64_t s, d, row, length; /* rows, columns of a head, distance of rows, keys that count */
    int64_t s_pad, d_pad;
    bool causal;
    real scale;
};

static struct head head_of(const struct call *c, int64_t b)
{
    struct shape q = c->in[0].shape;
    const int32_t *length = c->in[3].data;
    struct head h = {.s = q.dim[1], .d = q.dim[2] / c->attr->heads, .row = q.dim[2]};

    h.length = length ? length[b] : h.s;
    CHECK(h.length >= 0 && h.length <= h.s);
    h.s_pad = mm_pad(h.length);
    h.d_pad = mm_pad(h.d);
    h.causal = c->attr->flag;
    h.scale = R(1) / r_sqrt(R(h.d));
    return h;
}

static inline int64_t keys_of(const struct head *h, int64_t query)
{
    return h->causal ? query + 1 : h->length;
}

static inline real max_of(const real *x, int64_t n)
{
    real lane[LANES], m;
    int64_t i = 0;

    for (int j = 0; j < LANES; j++)
        lane[j] = x[0];
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    for (int j = 0; i + j < n; j++)
        lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    m = lane[0];
    for (int j = 1; j < LANES; j++)
        m = lane[j] > m ? lane[j] : m;
    return m;
}

/* In place: logits to exp(scale * (x - max)), zero past n.  The row's log of the sum of exp, scaled, in *lse. */
static real softmax_row(real *x, int64_t n, int64_t n_pad, real scale, real *lse)
{
    real max = max_of(x, n), sum;

    for (int64_t j = 0; j < n; j++)
        x[j] = r_exp((x[j] - max) * scale);
    memset(x + n, 0, (size_t)(n_pad - n) * sizeof(real));
    sum = row_sum(x, n);
    *lse = max * scale + r_log(sum);
    return R(1) / sum;
}

static void forward_head(const struct head *h, const real *q, const real *k, const real *v, real *o,
                         real *lse, real *scratch)
{
    real *kt = scratch, *vp = kt + h->d * h->s_pad, *p = vp + h->length * h->d_pad;

    mm_pack_t(k, h->row, h->d, h->length, kt);
    mm_pack(v, h->row, h->length, h->d, vp);
    for (int64_t i = 0; i < h->length; i += QUERIES) {
        int64_t rows = min64(QUERIES, h->length - i);
        real over[QUERIES];

        mm(rows, h->s_pad, h->d, q + i * h->row, h->row, 1, kt, h->s_pad, false, p, h->s_pad);
        for (int64_t r = 0; r < rows; r++)
            over[r] =
                softmax_row(p + r * h->s_pad, keys_of(h, i + r), h->s_pad, h->scale, &lse[i + r]);
        mm(rows, h->d, h->length, p, h->s_pad, 1, vp, h->d_pad, false, o + i * h->row, h->row);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < h->d; j++)
                o[(i + r) * h->row + j] *= over[r];
    }
    for (int64_t i = h->length; i < h->s; i++) {
        memset(o + i * h->row, 0, (size_t)h->d * sizeof(real));
        lse[i] = 0;
    }
}

void KERNEL(attention)(const struct call *c)
{
    struct shape q = c->in[0].shape;
    int64_t heads = c->attr->heads, d = q.dim[2] / heads;

#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t i = 0; i < q.dim[0] * heads; i++) {
        int64_t b = i / heads, at = b * q.dim[1] * q.dim[2] + i % heads * d;
        struct head h = head_of(c, b);

        forward_head(&h, (const real *)c->in[0].data + at, (const real *)c->in[1].data + at,
                     (const real *)c->in[2].data + at, (real *)c->out[0].data + at,
                     (real *)c->out[1].data + i * q.dim[1], private_memory(c));
    }
}

/* p: logits in, probabilities out; dp: dO V^T in, gradient of the logits out. */
static void softmax_bwd_row(real *p, real *dp, int64_t n, int64_t n_pad, real scale, real lse)
{
    real dot;

    for (int64_t j = 0; j < n; j++)
        p[j] = r_exp(r_fma(p[j], scale, -lse));
    memset(p + n, 0, (size_t)(n_pad - n) * sizeof(real));
    dot = row_dot(p, dp, n);
    for (int64_t j = 0; j < n; j++)
        dp[j] = p[j] * (dp[j] - dot) * scale;
    memset(dp + n, 0, (size_t)(n_pad - n) * sizeof(real));
}

struct head_data {
    const real *q, *k, *v, *lse, *dout;
    real *dq, *dk, *dv;
};

static void clear_rows(real *x, const struct head *h, int64_t from)
{
    for (int64_t i = from; i < h->s; i++)
        memset(x + i * h->row, 0, (size_t)h->d * sizeof(real));
}

static void backward_head(const struct head *h, const struct head_data *x, real *scratch)
{
    real *kt = scratch, *vt = kt + h->d * h->s_pad, *kp = vt + h->d * h->s_pad;
    real *qp = kp + h->length * h->d_pad, *op = qp + QUERIES * h->d_pad;
    real *p = op + QUERIES * h->d_pad, *dp = p + QUERIES * h->s_pad;

    mm_pack_t(x->k, h->row, h->d, h->length, kt);
    mm_pack_t(x->v, h->row, h->d, h->length, vt);
    mm_pack(x->k, h->row, h->length, h->d, kp);
    clear_rows(x->dk, h, 0);
    clear_rows(x->dv, h, 0);
    clear_rows(x->dq, h, h->length);
    for (int64_t i = 0; i < h->length; i += QUERIES) {
        int64_t rows = min64(QUERIES, h->length - i);
        const real *q = x->q + i * h->row, *dout = x->dout + i * h->row;

        mm(rows, h->s_pad, h->d, q, h->row, 1, kt, h->s_pad, false, p, h->s_pad);
        mm(rows, h->s_pad, h->d, dout, h->row, 1, vt, h->s_pad, false, dp, h->s_pad);
        for (int64_t r = 0; r < rows; r++)
            softmax_bwd_row(p + r * h->s_pad, dp + r * h->s_pad, keys_of(h, i + r), h->s_pad,
                            h->scale, x->lse[i + r]);
        mm_pack(q, h->row, rows, h->d, qp);
        mm_pack(dout, h->row, rows, h->d, op);
        mm(rows, h->d, h->length, dp, h->s_pad, 1, kp, h->d_pad, false, x->dq + i * h->row, h->row);
        mm(h->length, h->d, rows, dp, 1, h->s_pad, qp, h->d_pad, true, x->dk, h->row);
        mm(h->length, h->d, rows, p, 1, h->s_pad, op, h->d_pad, true, x->dv, h->row);
    }
}

void KERNEL(attention_bwd)(const struct call *c)
{
    struct shape q = c->in[0].shape;
    int64_t heads = c->attr->heads, d = q.dim[2] / heads;

#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t i = 0; i < q.dim[0] * heads; i++) {
        int64_t b = i / heads, at = b * q.dim[1] * q.dim[2] + i % heads * d;
        struct head h = head_of(c, b);
        const struct head_data x = {.q = (const real *)c->in[0].data + at,
                                    .k = (const real *)c->in[1].data + at,
                                    .v = (const real *)c->in[2].data + at,
                                    .lse = (const real *)c->in[4].data + i * q.dim[1],
                                    .dout = (const real *)c->in[5].data + at,
                                    .dq = (real *)c->out[0].data + at,
                                    .dk = (real *)c->out[1].data + at,
                                    .dv = (real *)c->out[2].data + at};

        backward_head(&h, &x, private_memory(c));
    }
}
