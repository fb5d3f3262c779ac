/* elem.h - element-wise operators, gates, small sums, and the losses made of them.
 *
 * Shapes:   x, y of one shape unless said; "rows" of a value are all dimensions but the last, C is the last.
 *           Groups: a per-row choice of a row of `a` (G, C): group i32 (one per row of x) or NONE, then row r uses
 *           r / (rows / G).  Row r may only choose among G / B neighbours of its sample, b = r / (rows / B), B = x.dim[0].
 * Types:    the tape's; ids i32.
 * Gradient: all, except fill.
 * Errors:   ERR_INPUT (through the tape) on shapes that do not fit.
 */
#ifndef WEIR_KERNELS_ELEM_H
#define WEIR_KERNELS_ELEM_H

#include "kernels/tape.h"

enum unary {
    UNARY_SILU,
    UNARY_SIGMOID,
    UNARY_TANH,
    UNARY_EXP, /* argument clamped as in vmath.h */
    UNARY_LOG,
    UNARY_SQUARE,
    UNARY_SQRT,     /* derivative at 0 is given as 0 */
    UNARY_ABS,      /* derivative at 0 is 0 */
    UNARY_LEAKY,    /* x > 0 ? x : alpha x; with alpha 0 the hinge */
    UNARY_CLAMP,    /* to [alpha, beta]; no gradient outside */
    UNARY_SOFTPLUS, /* log(1 + exp x), stable */
    UNARY_COUNT
};

struct val fill(struct tape *t, struct shape shape, double value);
struct val add(struct tape *t, struct val x, struct val y);
struct val sub(struct tape *t, struct val x, struct val y);
struct val mul(struct tape *t, struct val x, struct val y);
struct val divide(struct tape *t, struct val x, struct val y);
struct val affine(struct tape *t, struct val x, double alpha, double beta); /* alpha x + beta */
struct val unary(struct tape *t, enum unary kind, struct val x);
struct val unary_with(struct tape *t, enum unary kind, struct val x, double alpha, double beta);
struct val silu(struct tape *t, struct val x);

/* silu(a) * b.  Shazeer 2020, GLU Variants Improve Transformer, arXiv:2002.05202. */
struct val swiglu(struct tape *t, struct val a, struct val b);
/* x + tanh(a) * y, a (G, C) chosen per row. */
struct val gate_add(struct tape *t, struct val x, struct val y, struct val a, struct val group);

/* s has one element per row: x[r, c] * s[r].  s may have any shape with as many elements as rows, or as x.dim[0]. */
struct val row_scale(struct tape *t, struct val x, struct val s);
/* Sum of x * y over everything but the first dimension: (B). Rows are summed by lanes, then in order. */
struct val sample_dot(struct tape *t, struct val x, struct val y);
/* Sum over all elements times alpha: (1). */
struct val sum_all(struct tape *t, struct val x, double alpha);
struct val mean_all(struct tape *t, struct val x);
/* (R, C) -> (C), in 128-row chunks, chunk sums in order. */
struct val col_sum(struct tape *t, struct val x);

/* Mean of (x - y)^2 per sample: (B). */
struct val mse_samples(struct tape *t, struct val x, struct val y);
/* Mean over everything, or, with weight (B), mean of weight * mse_samples. */
struct val mse(struct tape *t, struct val x, struct val y, struct val weight);
/* -log softmax(logits (R, C))[target] per row: (R).  target i32 (R); a negative one gives 0 and no gradient. */
struct val cross_entropy(struct tape *t, struct val logits, struct val target);
/* 0.5 * (mean^2 + exp(logvar) - 1 - logvar), averaged over everything: KL to a standard normal.  Kingma, Welling 2013. */
struct val kl_normal(struct tape *t, struct val mean, struct val logvar);

/* For operators of other files: T[g, c] = sum over rows r of group g of x[r, c] * y[r, c]. */
struct val group_dot(struct tape *t, struct val x, struct val y, struct val group, int64_t groups);

#endif
