/* Shapes and derivatives of the normalisations; the work is in cpu/norm.c and cpu/group_norm.c.
 *
 * One reduction serves both parameter gradients: T[g, c] = sum over the rows of group g of dy * xhat.  Then
 * dw[c] = sum_g T * (1 + scale[g]) and dscale[g] = T[g] * w.  Without scale, groups are chunks of CHUNK_ROWS rows. */
#include "kernels/norm.h"

#include "kernels/elem.h"

#define CHUNK_ROWS 64

enum { X, W, B, SCALE, GROUP, NORM_INPUTS };

static enum err_code norm_infer(struct call *c, struct err *err)
{
    struct shape x = c->in[X].shape, scale = c->in[SCALE].shape;
    int64_t cols = shape_cols(x), rows = shape_rows(x);

    if ((c->in[W].shape.rank && shape_count(c->in[W].shape) != cols) ||
        (c->in[B].shape.rank && shape_count(c->in[B].shape) != cols))
        return err_set(err, ERR_INPUT, "weight and bias have one element per column");
    if (scale.rank &&
        (c->in[B].shape.rank || scale.rank != 2 || scale.dim[1] != cols || scale.dim[0] % x.dim[0]))
        return err_set(err, ERR_INPUT,
                       "scale is (groups, columns), groups a multiple of the "
                       "batch, and excludes a bias");
    if (c->in[GROUP].shape.rank
            ? c->in[GROUP].type != DT_I32 || shape_count(c->in[GROUP].shape) != rows
            : scale.rank && rows % scale.dim[0])
        return err_set(err, ERR_INPUT, "the choice of a scale is i32, one per row");
    c->out[0] = (struct tensor){.shape = x, .type = c->in[X].type};
    return OK;
}

static enum err_code norm_bwd_infer(struct call *c, struct err *err)
{
    (void)err;
    c->out[0] = (struct tensor){.shape = c->in[1].shape, .type = c->in[1].type};
    return OK;
}

/* (dy, x, w, scale, group, so far) -> dx */
static const struct op op_norm_bwd = {.name = "norm backward",
                                      .kernel = KERNEL_norm_bwd,
                                      .inputs_min = 2,
                                      .inputs_max = 6,
                                      .outputs = 1,
                                      .in_place = 1 | 1 << 5,
                                      .infer = norm_bwd_infer};

static enum err_code norm_dot_infer(struct call *c, struct err *err)
{
    (void)err;
    c->out[0] = (struct tensor){.shape = SHAPE(c->attr->dim[0], shape_cols(c->in[0].shape)),
                                .type = c->in[0].type};
    return OK;
}

/* (dy, x, group) -> T; attr.which rows per group, or 0 when rows choose */
static const struct op op_norm_dot = {.name = "norm dot",
                                      .kernel = KERNEL_norm_dot,
                                      .inputs_min = 2,
                                      .inputs_max = 3,
                                      .outputs = 1,
                                      .infer = norm_dot_infer};

static enum err_code norm_fold_infer(struct call *c, struct err *err)
{
    (void)err;
    c->out[0] = (struct tensor){.shape = SHAPE(shape_cols(c->in[0].shape)), .type = c->in[0].type};
    return OK;
}

/* (T, scale) -> dw */
static const struct op op_norm_fold = {.name = "norm fold",
                                       .kernel = KERNEL_norm_fold,
                                       .inputs_min = 1,
                                       .inputs_max = 2,
                                       .outputs = 1,
                                       .infer = norm_fold_infer};

static enum err_code norm_scale_bwd_infer(struct call *c, struct err *err)
{
    (void)err;
    c->out[0] = (struct tensor){.shape = c->in[0].shape, .type = c->in[0].type};
    return OK;
}

/* (T, w) -> dscale */
static const struct op op_norm_scale_bwd = {.name = "norm scale backward",
                                            .kernel = KERNEL_norm_scale_bwd,
                                            .inputs_min = 2,
                                            .inputs_max = 2,
                                            .outputs = 1,
                                            .in_place = 1,
                                            .infer = norm_scale_bwd_infer};

static struct val dot(struct vjp *v)
{
    struct shape x = tape_shape(v->t, v->in[X]);
    struct attr a = *v->attr;
    const struct val in[] = {v->out_grad[0], v->in[X], v->in[GROUP]};
    bool chosen = v->in[SCALE].id != 0;

    a.dim[0] = chosen ? tape_shape(v->t, v->in[SCALE]).dim[0] : ceil_div(shape_rows(x), CHUNK_ROWS);
    a.which = chosen ? (int32_t)(shape_rows(x) / a.dim[0]) : CHUNK_ROWS;
    return tape_op(v->t, &op_norm_dot, &a, in, v->in[GROUP].id ? 3 : 2);
}

static void norm_vjp(struct vjp *v)
{
    const struct val in[] = {v->out_grad[0], v->in[X],     v->in[W],
                             v->in[SCALE],   v->in[GROUP], v->so_far[X]};
    struct val sum = NONE;

    if (v->need[X]) {
        v->in_grad[X] = tape_op(v->t, &op_norm_bwd, v->attr, in, 6);
        v->summed[X] = true;
    }
    if (v->need[W] || v->need[SCALE])
        sum = dot(v);
    if (v->need[W]) {
        const struct val fold[] = {sum, v->in[SCALE]};

        v->in_grad[W] = tape_op(v->t, &op_norm_fold, NULL, fold, 2);
    }
    if (v->need[SCALE]) {
        const struct val by[] = {sum, v->in[W]};

        v->in_grad[SCALE] = v->in[W].id ? tape_op(v->t, &op_norm_scale_bwd, NULL, by, 2) : sum;
    }
    if (v->need[B])
        v->in_grad[B] = col_sum(v->t, v->out_grad[0]);
}

static const struct op op_norm = {.name = "norm",
                                  .kernel = KERNEL_norm,
                                  .inputs_min = 1,
                                  .inputs_max = NORM_INPUTS,
                                  .outputs = 1,
                                  .in_place = 1,
                                  .infer = norm_infer,
                                  .vjp = norm_vjp};

struct val rms_norm(struct tape *t, struct val x, struct val w, struct val scale, struct val group,
                    double eps)
{
    const struct val in[NORM_INPUTS] = {x, w, NONE, scale, scale.id ? group : NONE};

    return tape_op(t, &op_norm, &(struct attr){.eps = (float)eps}, in, NORM_INPUTS);
}

struct val layer_norm(struct tape *t, struct val x, struct val w, struct val b, struct val scale,
                      struct val group, double eps)
{
    const struct val in[NORM_INPUTS] = {x, w, b, scale, scale.id ? group : NONE};

    return tape_op(t, &op_norm, &(struct attr){.eps = (float)eps, .flag = true}, in, NORM_INPUTS);
}

/* ---- group norm: (x, w, b) -> y, statistics (B, groups, 2) ---- */

static enum err_code group_norm_infer(struct call *c, struct err *err)
{
    struct shape x = c->in[0].shape;

    if (x.rank < 2 || shape_cols(x) % c->attr->groups ||
        shape_count(c->in[1].shape) != shape_cols(x) ||
        shape_count(c->in[2].shape) != shape_cols(x))
        return err_set(err, ERR_INPUT,
                       "x is (batch, .., channels), groups divide channels, weight "
                       "and bias have one element per channel");
    c->out[0] = (struct tensor){.shape = x, .type = c->in[0].type};
    c->out[1] =
        (struct tensor){.shape = SHAPE(x.dim[0], c->attr->groups, 2), .type = c->in[0].type};
    return OK;
}

/* Per sample: channel sums of 64-pixel chunks, two kinds in the backward pass. */
static void group_norm_space(const struct call *c, struct op_space *need)
{
    struct shape x = c->in[c->inputs == 3 ? 0 : 1].shape;
    int64_t chunks = ceil_div(shape_rows(x) / x.dim[0], 64);

    need->shared = x.dim[0] * (chunks + 1) * 2 * shape_cols(x) * 8;
}

/* (dy, x, w, b, statistics) -> dx, dw, db */
static enum err_code group_norm_bwd_infer(struct call *c, struct err *err)
{
    (void)err;
    c->out[0] = (struct tensor){.shape = c->in[1].shape, .type = c->in[1].type};
    c->out[1] = c->out[2] =
        (struct tensor){.shape = SHAPE(shape_cols(c->in[1].shape)), .type = c->in[1].type};
    return OK;
}

static const struct op op_group_norm_bwd = {.name = "group norm backward",
                                            .kernel = KERNEL_group_norm_bwd,
                                            .inputs_min = 5,
                                            .inputs_max = 5,
                                            .outputs = 3,
                                            .infer = group_norm_bwd_infer,
                                            .space = group_norm_space};

static void group_norm_vjp(struct vjp *v)
{
    const struct val in[] = {v->out_grad[0], v->in[0], v->in[1], v->in[2], v->out[1]};

    if (!v->out_grad[0].id)
        return;
    v->in_grad[0] = tape_op(v->t, &op_group_norm_bwd, v->attr, in, 5);
    v->in_grad[1] = tape_next(v->in_grad[0], 1);
    v->in_grad[2] = tape_next(v->in_grad[0], 2);
}

static const struct op op_group_norm = {.name = "group norm",
                                        .kernel = KERNEL_group_norm,
                                        .inputs_min = 3,
                                        .inputs_max = 3,
                                        .outputs = 2,
                                        .infer = group_norm_infer,
                                        .space = group_norm_space,
                                        .vjp = group_norm_vjp};

struct val group_norm(struct tape *t, struct val x, struct val w, struct val b, int groups,
                      double eps, bool with_silu)
{
    const struct val in[] = {x, w, b};
    const struct attr a = {.groups = groups, .eps = (float)eps, .flag = with_silu};

    CHECK(groups > 0);
    return tape_op(t, &op_group_norm, &a, in, 3);
}
