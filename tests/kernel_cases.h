/* kernel_cases.h - every operator at the sizes where mistakes live: 1, odd, 33, one past a block.
 *
 * Life:     a table of constants.
 * Owns:     nothing.
 * Threads:  constants.
 * Errors:   none.
 *
 * long: one table of cases and what each builds.
 */
#ifndef WEIR_TESTS_KERNEL_CASES_H
#define WEIR_TESTS_KERNEL_CASES_H

#include "kernels/linear.h"
#include "kernels/norm.h"
#include "kernels/rows.h"
#include "tests/kernel_rig.h"

#define CASE(name) static inline struct val case_##name(struct rig *r, const int64_t *n)

/* n: rows, columns */
CASE(arithmetic)
{
    struct shape s = SHAPE(n[0], n[1]);
    struct val x = real_in(r, 0, s), y = real_in(r, 3, s);

    x = add(r->t, mul(r->t, x, y), affine(r->t, x, 0.5, -1));
    return divide(r->t, sub(r->t, x, y), y);
}

/* n: kind, rows, columns */
CASE(unary)
{
    enum unary kind = (enum unary)n[0];
    bool positive = kind == UNARY_LOG || kind == UNARY_SQRT;

    return unary_with(r->t, kind, real_in(r, positive ? 4 : 0.3, SHAPE(n[1], n[2])),
                      kind == UNARY_CLAMP ? -0.4 : 0.2, 0.6);
}

CASE(swiglu)
{
    struct shape s = SHAPE(n[0], n[1]);

    return swiglu(r->t, real_in(r, 0, s), real_in(r, 0, s));
}

/* n: batch, rows, columns, groups per sample (0: no choice) */
CASE(gate)
{
    struct shape s = SHAPE(n[0], n[1], n[2]);
    struct val x = real_in(r, 0, s), y = real_in(r, 0, s);
    struct val a = real_in(r, 0, SHAPE(n[0] * (n[3] ? n[3] : 1), n[2]));

    return gate_add(r->t, x, y, a, n[3] ? group_in(r, n[0], n[1], n[3]) : NONE);
}

CASE(row_scale)
{
    struct val x = real_in(r, 0, SHAPE(n[0], n[1], n[2]));

    x = row_scale(r->t, x, real_in(r, 0, SHAPE(n[0])));
    return row_scale(r->t, x, real_in(r, 1, SHAPE(n[0], n[1])));
}

CASE(sums)
{
    struct val x = real_in(r, 0, SHAPE(n[0], n[1])), y = real_in(r, 0, SHAPE(n[0], n[1]));

    return add(r->t, sample_dot(r->t, x, y),
               mul(r->t, sample_dot(r->t, x, NONE), sample_dot(r->t, y, NONE)));
}

CASE(mse)
{
    struct val x = real_in(r, 0, SHAPE(n[0], n[1])), y = real_in(r, 0, SHAPE(n[0], n[1]));

    return add(r->t, mse(r->t, x, y, real_in(r, 1, SHAPE(n[0]))), mse(r->t, x, y, NONE));
}

CASE(cross_entropy)
{
    return cross_entropy(r->t, real_in(r, 0, SHAPE(n[0], n[1])), int_in(r, -1, n[1], SHAPE(n[0])));
}

CASE(kl)
{
    return kl_normal(r->t, real_in(r, 0, SHAPE(n[0], n[1])), real_in(r, 0, SHAPE(n[0], n[1])));
}

/* n: batch, rows, columns, groups per sample (0: one, not chosen; -1: no scale) */
CASE(rms_norm)
{
    struct val x = real_in(r, 0.2, SHAPE(n[0], n[1], n[2])), w = real_in(r, 1, SHAPE(n[2]));
    struct val s = n[3] < 0 ? NONE : real_in(r, 0, SHAPE(n[0] * (n[3] ? n[3] : 1), n[2]));

    return rms_norm(r->t, x, w, s, n[3] > 0 ? group_in(r, n[0], n[1], n[3]) : NONE, 1e-5);
}

CASE(layer_norm)
{
    struct val x = real_in(r, 0.2, SHAPE(n[0], n[1], n[2]));

    if (n[3] < 0)
        return layer_norm(r->t, x, real_in(r, 1, SHAPE(n[2])), real_in(r, 0, SHAPE(n[2])), NONE,
                          NONE, 1e-5);
    return layer_norm(r->t, x, NONE, NONE, real_in(r, 0, SHAPE(n[0], n[2])), NONE, 1e-6);
}

/* n: batch, height, width, channels, groups, silu */
CASE(group_norm)
{
    struct val x = real_in(r, 0.2, SHAPE(n[0], n[1], n[2], n[3]));

    return group_norm(r->t, x, real_in(r, 1, SHAPE(n[3])), real_in(r, 0, SHAPE(n[3])), (int)n[4],
                      1e-6, n[5] != 0);
}

/* n: rows, heads, axes, pairs and weight: bit 0 halves, bit 1 no weight */
CASE(rope)
{
    const int32_t axes[3] = {(int32_t)n[2], (int32_t)n[3], (int32_t)n[4]};
    int64_t d = n[2] + n[3] + n[4];
    struct val table = rope_table(r->t, int_in(r, 0, 70, SHAPE(n[0], 3)), axes, 256);
    struct val x = real_in(r, 0, SHAPE(n[0], n[1] * d));

    return rope(r->t, x, n[5] & 2 ? NONE : real_in(r, 1, SHAPE(d)), table,
                n[5] & 1 ? ROPE_HALVES : ROPE_ADJACENT, 1e-5);
}

/* n: rows of a, rows of b (0: none), columns, picks */
CASE(pick)
{
    struct val a = real_in(r, 0, SHAPE(n[0], n[2]));

    return pick(r->t, a, n[1] ? real_in(r, 0, SHAPE(n[1], n[2])) : NONE,
                int_in(r, -1, n[0] + n[1], SHAPE(n[3])));
}

/* n: batch, height, width, channels, patch */
CASE(patches)
{
    struct val x = patchify(r->t, real_in(r, 0, SHAPE(n[0], n[1], n[2], n[3])), (int)n[4]);

    x = mul(r->t, x, real_in(r, 0, tape_shape(r->t, x)));
    return unpatchify(r->t, x, (int)n[4], n[1], n[2]);
}

/* n: rows, columns of a part, parts */
CASE(split)
{
    struct val part[4];

    split(r->t, real_in(r, 0, SHAPE(n[0], n[1] * n[2])), (int)n[2], part);
    part[0] = mul(r->t, part[0], part[n[2] - 1]);
    return concat(r->t, part, n[2] > 1 ? (int)n[2] - 1 : 1);
}

CASE(upsample)
{
    return upsample(r->t, real_in(r, 0, SHAPE(n[0], n[1], n[2], n[3])));
}

/* n: rows, inner, outputs, bias */
CASE(linear)
{
    struct val x = real_in(r, 0, SHAPE(n[0], n[1])), w = real_in(r, 0, SHAPE(n[2], n[1]));

    return linear(r->t, x, w, n[3] ? real_in(r, 0, SHAPE(n[2])) : NONE);
}

/* Three uses of one input, so that gradients are added inside the products. */
CASE(linear_shared)
{
    struct val x = real_in(r, 0, SHAPE(n[0], n[1])), y = NONE;

    for (int i = 0; i < 3; i++) {
        struct val z = linear(r->t, x, real_in(r, 0, SHAPE(n[2], n[1])), NONE);

        y = y.id ? mul(r->t, y, z) : z;
    }
    return y;
}

/* n: batch, rows, heads, width, lengths given, causal */
CASE(attention)
{
    struct shape s = SHAPE(n[0], n[1], n[2] * n[3]);
    struct val q = real_in(r, 0, s), k = real_in(r, 0, s), v = real_in(r, 0, s);
    struct val length = n[4] ? int_in(r, 0, n[1] + 1, SHAPE(n[0])) : NONE;

    return attention(r->t, q, k, v, length, (int)n[2], n[5] != 0);
}

/* n: side, in, out, window, stride, padding: 0 none, 1 all around, 2 right and bottom */
CASE(conv)
{
    struct val x = real_in(r, 0, SHAPE(2, n[0], n[0] + 1, n[1]));
    struct val w = real_in(r, 0, SHAPE(n[2], n[1], n[3], n[3]));
    int from = n[5] == 1, to = n[5] != 0;

    return conv(r->t, x, w, real_in(r, 0, SHAPE(n[2])),
                (struct conv_shape){(int)n[4], from, from, to, to});
}

CASE(ssim)
{
    struct shape s = SHAPE(n[0], n[1], n[2], n[3]);

    return ssim(r->t, real_in(r, 0.5, s), real_in(r, 0.5, s), 1);
}

static const struct rig_case kernel_cases[] = {
    {"arithmetic 1", case_arithmetic, {1, 1}, false, 4e-6},
    {"arithmetic 8193", case_arithmetic, {3, 2731}, false, 4e-6},
    {"silu", case_unary, {UNARY_SILU, 1, 33}, false, 1e-6},
    {"silu 8193", case_unary, {UNARY_SILU, 1, 8193}, false, 1e-6},
    {"sigmoid", case_unary, {UNARY_SIGMOID, 3, 33}, false, 1e-6},
    {"tanh", case_unary, {UNARY_TANH, 3, 33}, false, 1e-6},
    {"exp", case_unary, {UNARY_EXP, 3, 33}, false, 1e-6},
    {"log", case_unary, {UNARY_LOG, 3, 33}, false, 1e-6},
    {"square", case_unary, {UNARY_SQUARE, 3, 33}, false, 1e-6},
    {"sqrt", case_unary, {UNARY_SQRT, 3, 33}, false, 1e-6},
    {"abs", case_unary, {UNARY_ABS, 3, 33}, false, 1e-6},
    {"leaky", case_unary, {UNARY_LEAKY, 3, 33}, false, 1e-6},
    {"clamp", case_unary, {UNARY_CLAMP, 3, 33}, false, 1e-6},
    {"softplus", case_unary, {UNARY_SOFTPLUS, 3, 33}, false, 1e-6},
    {"swiglu 1", case_swiglu, {1, 1}, false, 1e-6},
    {"swiglu 8193", case_swiglu, {1, 8193}, false, 1e-6},
    {"gate", case_gate, {2, 3, 33, 0}, false, 1e-6},
    {"gate chosen", case_gate, {3, 5, 7, 2}, false, 1e-6},
    {"row scale", case_row_scale, {3, 5, 33}, false, 1e-6},
    {"sums 1", case_sums, {1, 1}, false, 1e-6},
    {"sums 4097", case_sums, {2, 4097}, false, 4e-6},
    {"mse", case_mse, {3, 4097}, false, 1e-6},
    {"cross entropy 1", case_cross_entropy, {1, 1}, false, 1e-6},
    {"cross entropy", case_cross_entropy, {7, 33}, false, 1e-6},
    {"kl", case_kl, {3, 33}, false, 2e-6},
    {"rms norm 1", case_rms_norm, {1, 1, 1, 0}, false, 1e-4}, /* d of x / |x|: only eps is left */
    {"rms norm", case_rms_norm, {2, 5, 33, 0}, false, 2e-6},
    {"rms norm chosen", case_rms_norm, {3, 5, 65, 2}, false, 2e-6},
    {"rms norm plain 65 rows", case_rms_norm, {1, 65, 32, -1}, false, 2e-6},
    {"layer norm", case_layer_norm, {2, 5, 33, 0}, false, 2e-6},
    {"layer norm affine", case_layer_norm, {2, 65, 31, -1}, false, 2e-6},
    {"group norm", case_group_norm, {2, 3, 3, 6, 3, 0}, false, 2e-6},
    {"group norm silu 65", case_group_norm, {1, 5, 13, 4, 2, 1}, false, 2e-6},
    {"group norm alone", case_group_norm, {3, 1, 2, 33, 1, 1}, false, 2e-6},
    {"rope", case_rope, {5, 3, 8, 12, 12, 0}, false, 4e-6},
    {"rope 65", case_rope, {65, 1, 2, 0, 0, 0}, false, 4e-6},
    {"rope halves", case_rope, {3, 2, 64, 0, 0, 1}, false, 4e-6},
    {"rope alone", case_rope, {3, 2, 6, 2, 2, 2}, false, 4e-6},
    {"pick 1", case_pick, {1, 0, 1, 1}, false, 1e-6},
    {"pick", case_pick, {7, 3, 65, 33}, false, 2e-6},
    {"patches", case_patches, {2, 6, 4, 3, 2}, false, 1e-6},
    {"split 4", case_split, {5, 33, 4}, false, 1e-6},
    {"split 1", case_split, {1, 1, 1}, false, 1e-6},
    {"upsample", case_upsample, {2, 3, 5, 7}, false, 1e-6},
    {"linear 1", case_linear, {1, 1, 1, 1}, true, 1e-6},
    {"linear odd", case_linear, {33, 7, 5, 1}, true, 2e-6},
    {"linear tiles", case_linear, {385, 17, 129, 0}, true, 2e-6},
    {"linear chunks", case_linear, {1025, 3, 5, 1}, true, 4e-6},
    {"linear shared", case_linear_shared, {9, 33, 5}, true, 2e-6},
    {"attention 1", case_attention, {1, 1, 1, 1, 0, 0}, true, 1e-6},
    {"attention", case_attention, {2, 49, 2, 5, 0, 0}, true, 4e-6},
    {"attention lengths", case_attention, {4, 33, 1, 33, 1, 0}, true, 4e-6},
    {"attention causal", case_attention, {1, 65, 2, 4, 0, 1}, true, 4e-6},
    {"conv 1", case_conv, {1, 1, 1, 1, 1, 0}, true, 2e-6},
    {"conv same", case_conv, {5, 3, 7, 3, 1, 1}, true, 2e-6},
    {"conv halve", case_conv, {6, 3, 5, 3, 2, 2}, true, 2e-6},
    {"conv 4 stride 2", case_conv, {7, 2, 3, 4, 2, 1}, true, 2e-6},
    {"conv tiles", case_conv, {24, 1, 2, 3, 1, 1}, true, 4e-6},
    {"ssim",
     case_ssim,
     {2, 12, 13, 2},
     false,
     4e-5}, /* variances are differences of close numbers */
};

#endif
