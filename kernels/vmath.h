/* vmath.h - elementary functions whose bits are the same on every processor and on GPUs.
 *
 * Life:     pure functions of their argument.
 * Owns:     nothing.
 * Threads:  any.
 * Errors:   none; NaN in gives NaN out.
 *
 * Compiled by C compilers and by nvcc.  Only + - * /, square root, fused multiply-add and bit operations: all are exact or
 * correctly rounded by IEEE 754 everywhere, so equal inputs give equal bits.  The price is that contraction must be off
 * (-ffp-contract=off, -fmad=false) and every fused step is written out.  No branches, so loops over these vectorise.
 * Reductions follow one rule: 32 virtual lanes, lane j takes elements j, j+32, ...; then lanes are added pairwise at
 * distance 16, 8, 4, 2, 1.  That is a warp's xor tree on a GPU and two AVX-512 registers here.
 *
 * Error against the exact value (measured by tests/unit/kernel_math_test.c over the stated range): exp 1 ulp on
 * [-87, 88]; log 1 ulp on positive normals; tanh 2 ulp; sigmoid 3 ulp above -87; sin and cos 1e-7 absolute for |x| <= 8192.
 * Outside: exp clamps its argument to [-87.33, 88.72], so it never gives 0 or infinity.
 */
#ifndef WEIR_KERNELS_VMATH_H
#define WEIR_KERNELS_VMATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define VM_FN static __host__ __device__ __forceinline__
#else
#define VM_FN static inline __attribute__((always_inline, unused))
#endif

VM_FN float vm_from_bits(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

VM_FN uint32_t vm_bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    return u;
}

/* Adding 1.5 * 2^23 leaves no fraction bits: the sum's low bits are the nearest integer, for |x| < 2^22.  Read there instead
 * of by a cast, because casting NaN is undefined. */
#define VM_ROUND 12582912.0f
#define VM_ROUND_BITS 0x4b400000u

VM_FN float vm_exp(float x)
{
    float lo = x < -87.33f ? -87.33f : x;
    float c = lo > 88.72f ? 88.72f : lo;
    float t = c * 1.44269504f + VM_ROUND, n = t - VM_ROUND;
    /* ln 2 in two parts, the first with trailing zeros so that n * part is exact. */
    float r = fmaf(n, -0.693359375f, c);
    float p = 1.9875691500e-4f;
    uint32_t k = vm_bits(t) - VM_ROUND_BITS + 254u; /* n + 254, never negative */
    uint32_t half = k >> 1;

    r = fmaf(n, 2.12194440e-4f, r);
    p = fmaf(p, r, 1.3981999507e-3f);
    p = fmaf(p, r, 8.3334519073e-3f);
    p = fmaf(p, r, 4.1665795894e-2f);
    p = fmaf(p, r, 1.6666665459e-1f);
    p = fmaf(p, r, 5.0000001201e-1f);
    p = fmaf(p, r * r, r) + 1.0f;
    /* 2^n in two factors: 2^128 alone would overflow the exponent field. */
    return p * vm_from_bits(half << 23) * vm_from_bits((k - half) << 23);
}

/* NaN below 0, minus infinity at 0; infinity is not expected. */
VM_FN float vm_log(float x)
{
    /* x = 2^e * m with m in [sqrt(1/2), sqrt(2)). */
    uint32_t i = vm_bits(x) - 0x3f3504f3u;
    float e = (float)((int32_t)i >> 23);
    float f = vm_from_bits((i & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
    float z = f * f;
    float p = 7.0376836292e-2f;
    float y;

    p = fmaf(p, f, -1.1514610310e-1f);
    p = fmaf(p, f, 1.1676998740e-1f);
    p = fmaf(p, f, -1.2420140846e-1f);
    p = fmaf(p, f, 1.4249322787e-1f);
    p = fmaf(p, f, -1.6668057665e-1f);
    p = fmaf(p, f, 2.0000714765e-1f);
    p = fmaf(p, f, -2.4999993993e-1f);
    p = fmaf(p, f, 3.3333331174e-1f);
    y = p * f * z;
    y = fmaf(e, -2.12194440e-4f, y);
    y = fmaf(z, -0.5f, y);
    y = fmaf(e, 0.693359375f, f + y);
    return x > 0 ? y : (x == 0 ? -INFINITY : NAN);
}

VM_FN float vm_sigmoid(float x)
{
    return 1.0f / (1.0f + vm_exp(-x));
}

VM_FN float vm_tanh(float x)
{
    float a = fabsf(x), z = x * x;
    /* Near 0 the quotient loses digits, so a polynomial (Cephes) takes over below 0.625. */
    float p = -5.70498872745e-3f;
    float big = 1.0f - 2.0f / (vm_exp(a + a) + 1.0f);

    p = fmaf(p, z, 2.06390887954e-2f);
    p = fmaf(p, z, -5.37397155531e-2f);
    p = fmaf(p, z, 1.33314422036e-1f);
    p = fmaf(p, z, -3.33332819422e-1f);
    p = fmaf(p * z, x, x);
    return a < 0.625f ? p : copysignf(big, x);
}

/* Both at once, argument reduced by pi/2 in three parts. */
VM_FN void vm_sincos(float x, float *sine, float *cosine)
{
    float t = x * 0.636619772f + VM_ROUND, n = t - VM_ROUND;
    float r = fmaf(n, -1.5703125f, x);
    uint32_t q = vm_bits(t); /* its low two bits are the quadrant's */
    float z, s, c, a, b;

    r = fmaf(n, -4.83751296997e-4f, r);
    r = fmaf(n, -7.54978995489e-8f, r);
    z = r * r;
    s = fmaf(fmaf(-1.9515295891e-4f, z, 8.3321608736e-3f), z, -1.6666654611e-1f);
    s = fmaf(s * z, r, r);
    c = fmaf(fmaf(2.443315711809948e-5f, z, -1.388731625493765e-3f), z, 4.166664568298827e-2f);
    c = fmaf(c * z, z, fmaf(-0.5f, z, 1.0f));
    a = (q & 1) ? c : s;
    b = (q & 1) ? s : c;
    *sine = (q & 2) ? -a : a;
    *cosine = ((q + 1) & 2) ? -b : b;
}

#endif
