/* norm.h - normalisation over the last axis, with an optional per-sample scale; over channel groups; query-key rotation.
 *
 *   rms_norm      y = x / sqrt(mean(x^2) + eps) * w * (1 + scale)
 *   layer_norm    the same of x - mean(x), plus b
 *   group_norm    per sample and group of channels; optionally silu of the result
 *   rope          per head: rms_norm with w (when given), then pairs of columns turn by the angles of a table
 *
 * Shapes:   x (.., C); w, b (C) or NONE; scale (G, C) or NONE, chosen per row as elem.h says; b and scale exclude each other.
 *           group_norm: x (B, H, W, C) or (B, N, C), w and b (C), groups divides C.
 *           rope: x (.., heads * d), w (d) or NONE, table (rows of x, d) from rope_table.  d is even.
 * Types:    the tape's; statistics of the tape's type.
 * Gradient: x, w, b, scale.  Tables and choices have none.
 * Errors:   ERR_INPUT (through the tape) on shapes that do not fit.
 * Paper:    Zhang, Sennrich 2019 (RMSNorm, arXiv:1910.07467); Ba, Kiros, Hinton 2016 (LayerNorm, arXiv:1607.06450); Wu, He 2018
 *           (GroupNorm, arXiv:1803.08494); Su et al. 2021 (RoPE, arXiv:2104.09864).
 */
#ifndef WEIR_KERNELS_NORM_H
#define WEIR_KERNELS_NORM_H

#include "kernels/tape.h"

struct val rms_norm(struct tape *t, struct val x, struct val w, struct val scale, struct val group,
                    double eps);
struct val layer_norm(struct tape *t, struct val x, struct val w, struct val b, struct val scale,
                      struct val group, double eps);
struct val group_norm(struct tape *t, struct val x, struct val w, struct val b, int groups,
                      double eps, bool with_silu);

/* Cosines and sines: position p on axis a turns pair m of that axis by p * theta^(-2m / axes[a]).  Row layout: d/2 cosines,
 * then d/2 sines, axes in order; d is the sum of axes.  positions i32 (rows, 3); unused axes are 0. */
struct val rope_table(struct tape *t, struct val positions, const int32_t axes[3], double theta);

enum rope_pairs {
    ROPE_ADJACENT, /* (0, 1), (2, 3), ...: S3-DiT, FLUX */
    ROPE_HALVES,   /* (0, d/2), (1, d/2 + 1), ...: Qwen3 */
};
struct val rope(struct tape *t, struct val x, struct val w, struct val table, enum rope_pairs pairs,
                double eps);

/* t (n) -> (n, width): cosines then sines of scale * t * max_period^(-k / (width / 2)).  No gradient. */
struct val time_table(struct tape *t, struct val time, int width, double scale, double max_period);

#endif
