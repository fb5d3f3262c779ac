/* Linear layers in tiles; see gemm.h. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/product.h"
#include "kernels/gemm.h"

void KERNEL(linear)(const struct call *c)
{
    const real *bias = c->in[2].data;
    const real *x = c->in[0].data, *w = c->in[1].data;
    real *y = c->out[0].data;
    int64_t m = shape_rows(c->in[0].shape), k = shape_cols(c->in[0].shape);
    int64_t n = shape_rows(c->in[1].shape);
    struct gemm_cut cut = gemm_cut_outer(m, n);

#pragma omp parallel for collapse(2) schedule(dynamic, 1)
    for (int64_t i = 0; i < m; i += cut.tile_m)
        for (int64_t j = 0; j < n; j += cut.tile_n) {
            const struct gemm g = {.b_t = true,
                                   .m = min64(cut.tile_m, m - i),
                                   .n = min64(cut.tile_n, n - j),
                                   .k = k,
                                   .a = x + i * k,
                                   .b = w + j * k,
                                   .c = y + i * n + j,
                                   .lda = k,
                                   .ldb = k,
                                   .ldc = n};

            product(&g);
            if (bias)
                add_row(y + i * n + j, n, bias + j, g.m, g.n);
        }
}

/* dx (m, k) = dy (m, n) * w (n, k) [+ so far] */
void KERNEL(linear_dx)(const struct call *c)
{
    const real *dy = c->in[0].data, *w = c->in[1].data, *so_far = c->in[2].data;
    real *dx = c->out[0].data;
    int64_t m = shape_rows(c->in[0].shape), n = shape_cols(c->in[0].shape);
    int64_t k = shape_cols(c->in[1].shape);
    struct gemm_cut cut = gemm_cut_outer(m, k);

#pragma omp parallel for collapse(2) schedule(dynamic, 1)
    for (int64_t i = 0; i < m; i += cut.tile_m)
        for (int64_t j = 0; j < k; j += cut.tile_n) {
            const struct gemm g = {.m = min64(cut.tile_m, m - i),
                                   .n = min64(cut.tile_n, k - j),
                                   .k = n,
                                   .a = dy + i * n,
                                   .b = w + j,
                                   .c = dx + i * k + j,
                                   .lda = n,
                                   .ldb = k,
                                   .ldc = k,
                                   .add = so_far != NULL};

            if (so_far && so_far != dx)
                copy_block(dx + i * k + j, so_far + i * k + j, k, g.m, g.n);
            product(&g);
        }
}

/* dw (n, k) = dy^T (n, m) * x (m, k) */
void KERNEL(linear_dw)(const struct call *c)
{
    const real *dy = c->in[0].data, *x = c->in[1].data;
    real *part = (real *)(void *)c->shared;
    int64_t m = shape_rows(c->in[0].shape), n = shape_cols(c->in[0].shape);
    int64_t k = shape_cols(c->in[1].shape);
    struct gemm_cut cut = gemm_cut_inner(n, k, m);

#pragma omp parallel for collapse(3) schedule(dynamic, 1)
    for (int64_t p = 0; p < cut.chunks; p++)
        for (int64_t i = 0; i < n; i += cut.tile_m)
            for (int64_t j = 0; j < k; j += cut.tile_n) {
                int64_t from = p * cut.chunk;
                const struct gemm g = {.a_t = true,
                                       .m = min64(cut.tile_m, n - i),
                                       .n = min64(cut.tile_n, k - j),
                                       .k = min64(cut.chunk, m - from),
                                       .a = dy + from * n + i,
                                       .b = x + from * k + j,
                                       .c = part + p * n * k + i * k + j,
                                       .lda = n,
                                       .ldb = k,
                                       .ldc = k};

                product(&g);
            }
    KERNEL(sum_parts)(part, cut.chunks, n * k, c->out[0].data);
}
