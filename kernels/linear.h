/* linear.h - matrix products with weights: linear layers and convolutions; attention.
 *
 *   linear      y = x w^T (+ b)           x (.., K), w (N, K), b (N) or NONE -> (.., N).  w may be a value like any other:
 *               linear(x, y) is the matrix of all inner products.
 *   conv        y[b, i, j, o] = sum over r, s, c of x[b, i * stride + r - top, j * stride + s - left, c] * w[o, c, r, s] (+ b[o])
 *               x (B, H, W, C), w (O, C, k, k), zeros outside x -> (B, H', W', O), H' = (H + top + bottom - k) / stride + 1
 *   attention   softmax(q k^T / sqrt(d)) v per sample and head, over keys below the sample's length; rows of the result at and
 *               past the length are 0.  q, k, v (B, S, heads * d); length i32 (B) or NONE for S.  causal: keys <= query.
 *   blur        each channel with a fixed k x k window of equal columns (Gaussian of width sigma), no padding
 *
 * Types:    the tape's; sums inside products f32 (f64 on an f64 tape).
 * Gradient: all but length.
 * Errors:   ERR_INPUT (through the tape) on shapes that do not fit.
 * Order:    products are cut into tiles by shape; inner dimensions longer than a chunk are summed chunk by chunk.
 * Paper:    Vaswani et al. 2017 (arXiv:1706.03762); the backward pass recomputes softmax from row statistics as Dao et al. 2022
 *           (arXiv:2205.14135) do.  ssim: Wang, Bovik, Sheikh, Simoncelli 2004.
 */
#ifndef WEIR_KERNELS_LINEAR_H
#define WEIR_KERNELS_LINEAR_H

#include "kernels/tape.h"

struct val linear(struct tape *t, struct val x, struct val w, struct val b);

struct conv_shape {
    int stride;
    int top, left, bottom, right; /* padding */
};
struct val conv(struct tape *t, struct val x, struct val w, struct val b, struct conv_shape s);

struct val attention(struct tape *t, struct val q, struct val k, struct val v, struct val length,
                     int heads, bool causal);

struct val blur(struct tape *t, struct val x, int window, double sigma);
/* Structural similarity of images (B, H, W, C) with values in [0, range], 11 x 11 Gaussian window of sigma 1.5: the mean over
 * everything, 1 when equal.  Sides of at least 11. */
struct val ssim(struct tape *t, struct val x, struct val y, double range);

#endif
