/* Sums and losses of elem.h; the work is in cpu/reduce.c. */
#include <string.h>

#include "kernels/elem.h"

/* ---- per-row scale, dot, spread: each the derivative of another ---- */

static enum err_code row_scale_infer(struct call *c, struct err *err)
{
    struct shape x = c->in[0].shape;
    int64_t n = shape_count(c->in[1].shape);

    if (n != shape_rows(x) && n != x.dim[0])
        return err_set(err, ERR_INPUT, "scales are one per row or one per sample");
    c->out[0] = (struct tensor){.shape = x, .type = c->in[0].type};
    return OK;
}

/* (x, y) -> out of attr's shape: blocks of x * y are summed; their count divides x's. */
static enum err_code row_dot_infer(struct call *c, struct err *err)
{
    struct shape s = {.rank = c->attr->rank};

    memcpy(s.dim, c->attr->dim, sizeof(s.dim));
    if ((c->in[1].shape.rank && !shape_eq(c->in[0].shape, c->in[1].shape)) ||
        shape_count(c->in[0].shape) % shape_count(s))
        return err_set(err, ERR_INPUT, "both have one shape");
    c->out[0] = (struct tensor){.shape = s, .type = c->in[0].type};
    return OK;
}

/* s spread evenly over attr's shape, times alpha. */
static enum err_code spread_infer(struct call *c, struct err *err)
{
    (void)err;
    c->out[0].shape.rank = c->attr->rank;
    memcpy(c->out[0].shape.dim, c->attr->dim, sizeof(c->attr->dim));
    c->out[0].type = c->in[0].type;
    return OK;
}

static void row_dot_vjp(struct vjp *v);
static void row_scale_vjp(struct vjp *v);
static void spread_vjp(struct vjp *v);

static const struct op op_row_scale = {.name = "row scale",
                                       .kernel = KERNEL_row_scale,
                                       .inputs_min = 2,
                                       .inputs_max = 2,
                                       .outputs = 1,
                                       .in_place = 1,
                                       .infer = row_scale_infer,
                                       .vjp = row_scale_vjp};
static const struct op op_row_dot = {.name = "row dot",
                                     .kernel = KERNEL_row_dot,
                                     .inputs_min = 1,
                                     .inputs_max = 2,
                                     .outputs = 1,
                                     .infer = row_dot_infer,
                                     .vjp = row_dot_vjp};
static const struct op op_spread = {.name = "spread",
                                    .kernel = KERNEL_spread,
                                    .inputs_min = 1,
                                    .inputs_max = 1,
                                    .outputs = 1,
                                    .infer = spread_infer,
                                    .vjp = spread_vjp};

struct val row_scale(struct tape *t, struct val x, struct val s)
{
    const struct val in[] = {x, s};

    return tape_op(t, &op_row_scale, NULL, in, 2);
}

static struct attr shaped(struct shape s, double alpha)
{
    struct attr a = {.rank = s.rank, .alpha = (float)alpha, .theta = alpha};

    memcpy(a.dim, s.dim, sizeof(a.dim));
    return a;
}

/* y may be NONE: then it is the sum of x. */
static struct val dot_into(struct tape *t, struct val x, struct val y, struct shape s, double alpha)
{
    const struct attr a = shaped(s, alpha);
    const struct val in[] = {x, y};

    return tape_op(t, &op_row_dot, &a, in, 2);
}

static struct val spread(struct tape *t, struct val s, struct shape shape, double alpha)
{
    const struct attr a = shaped(shape, alpha);

    return tape_op(t, &op_spread, &a, &s, 1);
}

static void row_scale_vjp(struct vjp *v)
{
    if (v->need[0])
        v->in_grad[0] = row_scale(v->t, v->out_grad[0], v->in[1]);
    if (v->need[1])
        v->in_grad[1] = dot_into(v->t, v->out_grad[0], v->in[0], tape_shape(v->t, v->in[1]), 1);
}

static void row_dot_vjp(struct vjp *v)
{
    struct shape s = tape_shape(v->t, v->in[0]);
    struct val g = spread(v->t, v->out_grad[0], s, v->attr->theta);

    v->in_grad[0] = v->in[1].id ? mul(v->t, g, v->in[1]) : g;
    if (v->need[1])
        v->in_grad[1] = mul(v->t, g, v->in[0]);
}

static void spread_vjp(struct vjp *v)
{
    v->in_grad[0] =
        dot_into(v->t, v->out_grad[0], NONE, tape_shape(v->t, v->in[0]), v->attr->theta);
}

struct val sample_dot(struct tape *t, struct val x, struct val y)
{
    return dot_into(t, x, y, SHAPE(tape_shape(t, x).dim[0]), 1);
}

struct val sum_all(struct tape *t, struct val x, double alpha)
{
    return dot_into(t, x, NONE, SHAPE(1), alpha);
}

struct val mean_all(struct tape *t, struct val x)
{
    return sum_all(t, x, 1.0 / (double)shape_count(tape_shape(t, x)));
}

/* ---- column sums ---- */

static enum err_code col_sum_infer(struct call *c, struct err *err)
{
    (void)err;
    c->out[0] = (struct tensor){.shape = SHAPE(shape_cols(c->in[0].shape)), .type = c->in[0].type};
    return OK;
}

static void col_sum_space(const struct call *c, struct op_space *need)
{
    need->shared = ceil_div(shape_rows(c->in[0].shape), 128) * shape_cols(c->in[0].shape) * 8;
}

static const struct op op_col_sum = {.name = "column sum",
                                     .kernel = KERNEL_col_sum,
                                     .inputs_min = 1,
                                     .inputs_max = 1,
                                     .outputs = 1,
                                     .infer = col_sum_infer,
                                     .space = col_sum_space};

struct val col_sum(struct tape *t, struct val x)
{
    return tape_op(t, &op_col_sum, NULL, &x, 1);
}

/* ---- losses ---- */

static enum err_code mse_infer(struct call *c, struct err *err)
{
    if (!shape_eq(c->in[0].shape, c->in[1].shape))
        return err_set(err, ERR_INPUT, "both have one shape");
    c->out[0] = (struct tensor){.shape = SHAPE(c->in[0].shape.dim[0]), .type = c->in[0].type};
    return OK;
}

static enum err_code mse_bwd_infer(struct call *c, struct err *err)
{
    (void)err;
    c->out[0] = (struct tensor){.shape = c->in[0].shape, .type = c->in[0].type};
    return OK;
}

static const struct op op_mse_bwd = {.name = "mse backward",
                                     .kernel = KERNEL_mse_bwd,
                                     .inputs_min = 3,
                                     .inputs_max = 3,
                                     .outputs = 1,
                                     .in_place = 3,
                                     .infer = mse_bwd_infer};

static void mse_vjp(struct vjp *v)
{
    const struct val in[] = {v->in[0], v->in[1], v->out_grad[0]};

    v->in_grad[0] = tape_op(v->t, &op_mse_bwd, NULL, in, 3);
    if (v->need[1])
        v->in_grad[1] = affine(v->t, v->in_grad[0], -1, 0);
}

static const struct op op_mse = {.name = "mse",
                                 .kernel = KERNEL_mse,
                                 .inputs_min = 2,
                                 .inputs_max = 2,
                                 .outputs = 1,
                                 .infer = mse_infer,
                                 .vjp = mse_vjp};

struct val mse_samples(struct tape *t, struct val x, struct val y)
{
    const struct val in[] = {x, y};

    return tape_op(t, &op_mse, NULL, in, 2);
}

struct val mse(struct tape *t, struct val x, struct val y, struct val weight)
{
    struct val each = mse_samples(t, x, y);

    return mean_all(t, weight.id ? mul(t, each, weight) : each);
}

static enum err_code entropy_infer(struct call *c, struct err *err)
{
    int64_t rows = shape_rows(c->in[0].shape);

    if (c->in[1].type != DT_I32 || shape_count(c->in[1].shape) != rows)
        return err_set(err, ERR_INPUT, "targets are i32, one per row of the logits");
    c->out[0] = (struct tensor){.shape = SHAPE(rows), .type = c->in[0].type};
    return OK;
}

static const struct op op_entropy_bwd = {.name = "cross entropy backward",
                                         .kernel = KERNEL_entropy_bwd,
                                         .inputs_min = 3,
                                         .inputs_max = 3,
                                         .outputs = 1,
                                         .in_place = 1,
                                         .infer = mse_bwd_infer};

static void entropy_vjp(struct vjp *v)
{
    const struct val in[] = {v->in[0], v->in[1], v->out_grad[0]};

    v->in_grad[0] = tape_op(v->t, &op_entropy_bwd, NULL, in, 3);
}

static const struct op op_entropy = {.name = "cross entropy",
                                     .kernel = KERNEL_entropy,
                                     .inputs_min = 2,
                                     .inputs_max = 2,
                                     .outputs = 1,
                                     .infer = entropy_infer,
                                     .vjp = entropy_vjp};

struct val cross_entropy(struct tape *t, struct val logits, struct val target)
{
    const struct val in[] = {logits, target};

    return tape_op(t, &op_entropy, NULL, in, 2);
}

struct val kl_normal(struct tape *t, struct val mean, struct val logvar)
{
    struct val sum = add(t, unary(t, UNARY_SQUARE, mean), unary(t, UNARY_EXP, logvar));

    return mean_all(t, affine(t, sub(t, sum, logvar), 0.5, -0.5));
}
