/* Convolution by unfolding: a tile of pixels becomes rows of k * k * channels, then it is a matrix product. */
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/product.h"

/* The weight (o, c, k, k) with channels last: to[o][r][s][c], or for the backward pass to[c][r][s][o]. */
static void permute(const real *w, struct shape s, bool by_input, real *to)
{
    int64_t area = s.dim[2] * s.dim[3], ins = s.dim[1], outs = s.dim[0];

    for (int64_t o = 0; o < outs; o++)
        for (int64_t i = 0; i < ins; i++)
            for (int64_t a = 0; a < area; a++)
                to[by_input ? (i * area + a) * outs + o : (o * area + a) * ins + i] =
                    w[(o * ins + i) * area + a];
}

/* Where the window's row or column k over output position i reads; out of [0, n) is padding. */
static inline int64_t source(int64_t i, int64_t k, const struct attr *a, int side)
{
    return i * a->stride + k - a->pad[side];
}

/* The output position whose window has its k-th row or column at input i; -1 where there is none. */
static inline int64_t target(int64_t i, int64_t k, const struct attr *a, int side, int64_t n)
{
    int64_t at = i + a->pad[side] - k;

    return at >= 0 && at % a->stride == 0 && at / a->stride < n ? at / a->stride : -1;
}

/* Rows [first, first + rows) of the unfolded matrix.  Forward: pixels of the output, reading x.  Back: pixels of the input,
 * reading dy.  over is the image whose pixels are rows, from the one read. */
static void unfold(const real *x, struct shape from, struct shape over, const struct attr *a,
                   bool back, int64_t first, int64_t rows, real *out)
{
    int64_t k = a->kernel, ch = from.dim[3];
    size_t bytes = (size_t)ch * sizeof(real);

    for (int64_t p = first; p < first + rows; p++) {
        int64_t j = p % over.dim[2], i = p / over.dim[2] % over.dim[1];
        const real *image = x + p / over.dim[2] / over.dim[1] * from.dim[1] * from.dim[2] * ch;

        for (int64_t r = 0; r < k; r++) {
            int64_t y = back ? target(i, r, a, 0, from.dim[1]) : source(i, r, a, 0);

            for (int64_t s = 0; s < k; s++, out += ch) {
                int64_t z = back ? target(j, s, a, 1, from.dim[2]) : source(j, s, a, 1);

                if (y < 0 || y >= from.dim[1] || z < 0 || z >= from.dim[2])
                    memset(out, 0, bytes);
                else
                    memcpy(out, image + (y * from.dim[2] + z) * ch, bytes);
            }
        }
    }
}

/* The unfolded rows, without a copy where the window is one pixel. */
static const real *columns(const struct call *c, const struct tensor *x, struct shape over,
                           bool back, int64_t first, int64_t rows)
{
    const struct attr *a = c->attr;
    real *out = private_memory(c);

    if (a->kernel == 1 && a->stride == 1 && !(a->pad[0] | a->pad[1] | a->pad[2] | a->pad[3]))
        return (const real *)x->data + first * shape_cols(x->shape);
    unfold(x->data, x->shape, over, a, back, first, rows, out);
    return out;
}

/* out (pixels, n) = unfolded (pixels, inner) * w (n, inner)^T [+ bias] */
static void convolve(const struct call *c, const struct tensor *x, bool back, const real *w,
                     int64_t inner, const real *bias)
{
    struct shape over = c->out[0].shape;
    int64_t pixels = shape_rows(over), n = over.dim[3], tile = conv_tile(inner);
    real *out = c->out[0].data;

#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t p = 0; p < pixels; p += tile) {
        int64_t rows = min64(tile, pixels - p);
        const struct gemm g = {.b_t = true,
                               .m = rows,
                               .n = n,
                               .k = inner,
                               .a = columns(c, x, over, back, p, rows),
                               .b = w,
                               .c = out + p * n,
                               .lda = inner,
                               .ldb = inner,
                               .ldc = n};

        product(&g);
        if (bias)
            add_row(out + p * n, n, bias, rows, n);
    }
}

void KERNEL(conv)(const struct call *c)
{
    struct shape w = c->in[1].shape;
    real *permuted = (real *)(void *)c->shared;

    permute(c->in[1].data, w, false, permuted);
    convolve(c, &c->in[0], false, permuted, w.dim[1] * w.dim[2] * w.dim[3], c->in[2].data);
}

void KERNEL(conv_dx)(const struct call *c)
{
    struct shape w = c->in[1].shape;
    real *permuted = (real *)(void *)c->shared;

    permute(c->in[1].data, w, true, permuted);
    convolve(c, &c->in[0], true, permuted, w.dim[0] * w.dim[2] * w.dim[3], NULL);
}

void KERNEL(conv_dw)(const struct call *c)
{
    const real *dy = c->in[0].data;
    struct shape over = c->in[0].shape, w = c->out[0].shape;
    int64_t pixels = shape_rows(over), n = w.dim[0], inner = w.dim[1] * w.dim[2] * w.dim[3];
    int64_t tile = conv_tile(inner), tiles = ceil_div(pixels, tile);
    int64_t parts = conv_parts(pixels, inner), ins = w.dim[1], area = w.dim[2] * w.dim[3];
    real *part = (real *)(void *)c->shared, *sum = part + parts * n * inner, *dw = c->out[0].data;

#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t k = 0; k < parts; k++)
        for (int64_t i = k * tiles / parts; i < (k + 1) * tiles / parts; i++) {
            int64_t p = i * tile, rows = min64(tile, pixels - p);
            const struct gemm g = {.a_t = true,
                                   .m = n,
                                   .n = inner,
                                   .k = rows,
                                   .a = dy + p * n,
                                   .b = columns(c, &c->in[1], over, false, p, rows),
                                   .c = part + k * n * inner,
                                   .lda = n,
                                   .ldb = inner,
                                   .ldc = inner,
                                   .add = i != k * tiles / parts};

            product(&g);
        }
    KERNEL(sum_parts)(part, parts, n * inner, sum);
    for (int64_t o = 0; o < n; o++)
        for (int64_t a = 0; a < area; a++)
            for (int64_t i = 0; i < ins; i++)
                dw[(o * ins + i) * area + a] = sum[(o * area + a) * ins + i];
}

static void window(const struct attr *a, real *w)
{
    double sum = 0, v[BLUR_MAX];

    for (int i = 0; i < a->kernel; i++) {
        double x = (i - (a->kernel - 1) / 2.0) / (double)a->alpha;

        sum += v[i] = exp(-0.5 * x * x);
    }
    for (int i = 0; i < a->kernel; i++)
        w[i] = R(v[i] / sum);
}

/* One direction: lines of n steps of width elements, to m = n -+ (k - 1). */
static void blur_lines(const real *x, int64_t lines, int64_t n, int64_t width, const struct attr *a,
                       real *y)
{
    int64_t k = a->kernel, m = a->flag ? n + k - 1 : n - k + 1;
    real w[BLUR_MAX];

    window(a, w);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < lines * m; i++) {
        const real *line = x + i / m * n * width;
        real *out = y + i * width;

        memset(out, 0, (size_t)width * sizeof(real));
        for (int64_t j = 0; j < k; j++) {
            int64_t at = a->flag ? i % m - j : i % m + j;

            if (at >= 0 && at < n)
                for (int64_t e = 0; e < width; e++)
                    out[e] = r_fma(w[j], line[at * width + e], out[e]);
        }
    }
}

void KERNEL(blur)(const struct call *c)
{
    struct shape in = c->in[0].shape, out = c->out[0].shape;
    real *middle = (real *)(void *)c->shared;

    blur_lines(c->in[0].data, in.dim[0] * in.dim[1], in.dim[2], in.dim[3], c->attr, middle);
    blur_lines(middle, in.dim[0], in.dim[1], out.dim[2] * in.dim[3], c->attr, c->out[0].data);
}
