/* cpu.h - what the CPU functions share: the real type, names per instruction set, lanes, work in fixed pieces.
 *
 * Life:     everything here is inline and pure.
 * Owns:     nothing.
 * Threads:  FOR_TILES-like loops are OpenMP loops; which thread takes which piece never matters.
 * Errors:   none.
 *
 * Each file in kernels/cpu is compiled once per instruction set, with WEIR_VARIANT set to base, avx2 or avx512, and once with
 * f64, where `real` is double and elementary functions are the C library's: the reference for tests.
 * Element-wise work and row sums follow vmath.h and give the same bits in base, avx2 and avx512 and, later, on a GPU.
 * Matrix products (mm.h, oneDNN) do not: blocking and fusing differ, so linear, attention and convolution agree to rounding
 * only.  Within one instruction set every bit is the same for any number of threads.
 */
#ifndef WEIR_KERNELS_CPU_CPU_H
#define WEIR_KERNELS_CPU_CPU_H

#include <omp.h>

#include "kernels/op.h"
#include "kernels/vmath.h"

#define CPU_JOIN2(a, b) a##_##b
#define CPU_JOIN(a, b) CPU_JOIN2(a, b)
#define KERNEL(name) CPU_JOIN(WEIR_VARIANT, name)

#ifdef WEIR_F64
#define real double
#define REAL_DTYPE DT_F64
#define r_exp exp
#define r_log log
#define r_tanh tanh
#define r_sqrt sqrt
#define r_fma fma
#define r_abs fabs
#else
#define real float
#define REAL_DTYPE DT_F32
#define r_exp vm_exp
#define r_log vm_log
#define r_tanh vm_tanh
#define r_sqrt sqrtf
#define r_fma fmaf
#define r_abs fabsf
#endif
#define R(x) ((real)(x))

#define LANES 32
#define ELEM_BLOCK 8192 /* elements per piece of element-wise work: 32 KiB */

/* The declarations of this instruction set's functions. */
#define X(name) void KERNEL(name)(const struct call *c);
#include "kernels/ops.def"
#undef X
void KERNEL(adam)(const struct adam_span *span);
double KERNEL(square_sum)(const void *x, int64_t n);

static inline real r_sigmoid(real x)
{
    return R(1) / (R(1) + r_exp(-x));
}

static inline void *private_memory(const struct call *c)
{
    return c->private_ + c->private_bytes * omp_get_thread_num();
}

static inline int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline real lanes_sum(real lane[LANES])
{
    for (int w = LANES / 2; w; w /= 2)
        for (int j = 0; j < w; j++)
            lane[j] = lane[j] + lane[j + w];
    return lane[0];
}

static inline real row_sum(const real *x, int64_t n)
{
    real lane[LANES] = {0};
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += x[i + j];
    for (int j = 0; i + j < n; j++)
        lane[j] += x[i + j];
    return lanes_sum(lane);
}

static inline real row_dot(const real *x, const real *y, int64_t n)
{
    real lane[LANES] = {0};
    int64_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] = r_fma(x[i + j], y[i + j], lane[j]);
    for (int j = 0; i + j < n; j++)
        lane[j] = r_fma(x[i + j], y[i + j], lane[j]);
    return lanes_sum(lane);
}

#endif
