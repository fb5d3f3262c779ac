/* mm.h - a small matrix product for blocks that are in cache: attention's, and all products in double precision.
 *
 *   mm(...)  C (m, n) = [C +] A (m, k) * B (k, n)
 *
 * A is read by elements at (i * a_row + k * a_col), so its transpose costs nothing.  B is packed by the caller: rows of n_pad
 * columns, n_pad a multiple of MM_COLS, the columns past n zero.  C rows are c_row apart and n_pad wide when padded is true,
 * else exactly n columns are written.  Sums run over k in order, fused where the processor can (so base differs in last bits).
 */
#ifndef WEIR_KERNELS_CPU_MM_H
#define WEIR_KERNELS_CPU_MM_H

#include <string.h>

#include "kernels/cpu/cpu.h"

#define MM_COLS 32
#ifdef __AVX512F__
#define MM_BYTES 64
#define MM_ROWS 6
#else
#define MM_BYTES 32
#define MM_ROWS 4
#endif
#define MM_LANES ((int)(MM_BYTES / sizeof(real)))
#define MM_STEP ((int64_t)2 * MM_LANES) /* columns per strip */

#ifdef WEIR_F64
typedef double mm_vec __attribute__((vector_size(MM_BYTES), aligned(8), may_alias));
#else
typedef float mm_vec __attribute__((vector_size(MM_BYTES), aligned(4), may_alias));
#endif

static inline int64_t mm_pad(int64_t n)
{
    return ceil_div(n, MM_COLS) * MM_COLS;
}

/* rows x MM_STEP of C; rows is a constant where this is inlined. */
static inline __attribute__((always_inline)) void mm_strip(int rows, int64_t k_count, const real *a,
                                                           int64_t a_row, int64_t a_col,
                                                           const real *b, int64_t b_row, bool add,
                                                           real *c, int64_t c_row, int64_t cols)
{
    mm_vec acc[MM_ROWS][2];
    real edge[MM_STEP];

    for (int i = 0; i < rows; i++)
        acc[i][0] = acc[i][1] = (mm_vec){0};
    for (int64_t k = 0; k < k_count; k++) {
        const mm_vec b0 = *(const mm_vec *)(const void *)(b + k * b_row);
        const mm_vec b1 = *(const mm_vec *)(const void *)(b + k * b_row + MM_LANES);

        for (int i = 0; i < rows; i++) {
            real x = a[i * a_row + k * a_col];

            acc[i][0] += x * b0;
            acc[i][1] += x * b1;
        }
    }
    for (int i = 0; i < rows; i++) {
        real *to = c + i * c_row;

        memcpy(edge, &acc[i][0], sizeof(mm_vec));
        memcpy(edge + MM_LANES, &acc[i][1], sizeof(mm_vec));
        if (add)
            for (int64_t j = 0; j < cols; j++)
                to[j] += edge[j];
        else
            memcpy(to, edge, (size_t)cols * sizeof(real));
    }
}

static inline void mm(int64_t m, int64_t n, int64_t k, const real *a, int64_t a_row, int64_t a_col,
                      const real *b, int64_t b_row, bool add, real *c, int64_t c_row)
{
    for (int64_t j = 0; j < n; j += MM_STEP) {
        int64_t cols = min64(MM_STEP, n - j), i = 0;

        for (; i + MM_ROWS <= m; i += MM_ROWS)
            mm_strip(MM_ROWS, k, a + i * a_row, a_row, a_col, b + j, b_row, add, c + i * c_row + j,
                     c_row, cols);
        for (; i < m; i++)
            mm_strip(1, k, a + i * a_row, a_row, a_col, b + j, b_row, add, c + i * c_row + j, c_row,
                     cols);
    }
}

/* B packed for mm: rows x pad(cols) from rows x cols, or from its transpose (cols x rows). */
static inline void mm_pack(const real *x, int64_t x_row, int64_t rows, int64_t cols, real *out)
{
    int64_t pad = mm_pad(cols);

    for (int64_t i = 0; i < rows; i++) {
        memcpy(out + i * pad, x + i * x_row, (size_t)cols * sizeof(real));
        memset(out + i * pad + cols, 0, (size_t)(pad - cols) * sizeof(real));
    }
}

static inline void mm_pack_t(const real *x, int64_t x_row, int64_t rows, int64_t cols, real *out)
{
    int64_t pad = mm_pad(cols);

    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j++)
            out[i * pad + j] = x[j * x_row + i];
        memset(out + i * pad + cols, 0, (size_t)(pad - cols) * sizeof(real));
    }
}

#endif
