/* product.h - one tile of a matrix product, and the few things done around tiles.
 *
 * Life:     inline functions.
 * Owns:     nothing.
 * Threads:  product is called inside parallel regions, one tile per call.
 * Errors:   none.
 */
#ifndef WEIR_KERNELS_CPU_PRODUCT_H
#define WEIR_KERNELS_CPU_PRODUCT_H

#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/gemm.h"

#ifdef WEIR_F64
/* The reference: three loops, believed rather than fast. */
static inline void product(const struct gemm *g)
{
    const double *a = g->a, *b = g->b;
    double *c = g->c;

    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            double sum = g->add ? c[i * g->ldc + j] : 0;

            for (int64_t k = 0; k < g->k; k++)
                sum += (g->a_t ? a[k * g->lda + i] : a[i * g->lda + k]) *
                       (g->b_t ? b[j * g->ldb + k] : b[k * g->ldb + j]);
            c[i * g->ldc + j] = sum;
        }
}
#else
static inline void product(const struct gemm *g)
{
    gemm_tile(g);
}
#endif

static inline void add_row(real *y, int64_t y_row, const real *row, int64_t m, int64_t n)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            y[i * y_row + j] += row[j];
}

/* Both have rows of stride row. */
static inline void copy_block(real *to, const real *from, int64_t row, int64_t m, int64_t n)
{
    for (int64_t i = 0; i < m; i++)
        memcpy(to + i * row, from + i * row, (size_t)n * sizeof(real));
}

/* out = part[0] + part[1] + ... in order, each n elements. */
void KERNEL(sum_parts)(const real *part, int64_t parts, int64_t n, real *out);

#endif
