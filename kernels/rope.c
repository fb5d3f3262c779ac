/* Rotary positions and time features of norm.h; the work is in cpu/rope.c. */
#include <string.h>

#include "kernels/elem.h"
#include "kernels/norm.h"

#define CHUNK_ROWS 64

static enum err_code rope_table_infer(struct call *c, struct err *err)
{
    const struct attr *a = c->attr;
    int64_t width = (int64_t)a->axes[0] + a->axes[1] + a->axes[2];

    if (c->in[0].type != DT_I32 || shape_cols(c->in[0].shape) != 3 || a->axes[0] % 2 ||
        a->axes[1] % 2 || a->axes[2] % 2)
        return err_set(err, ERR_INPUT, "positions are i32 (rows, 3) and axes are even");
    c->out[0] = (struct tensor){.shape = SHAPE(shape_rows(c->in[0].shape), width),
                                .type = a->which == 8 ? DT_F64 : DT_F32};
    return OK;
}

static const struct op op_rope_table = {.name = "rope table",
                                        .kernel = KERNEL_rope_table,
                                        .inputs_min = 1,
                                        .inputs_max = 1,
                                        .outputs = 1,
                                        .infer = rope_table_infer};

struct val rope_table(struct tape *t, struct val positions, const int32_t axes[3], double theta)
{
    struct attr a = {.theta = theta, .which = tape_type(t) == DT_F64 ? 8 : 4};

    memcpy(a.axes, axes, sizeof(a.axes));
    return tape_op(t, &op_rope_table, &a, &positions, 1);
}

static enum err_code rope_infer(struct call *c, struct err *err)
{
    struct shape x = c->in[0].shape, table = c->in[2].shape;
    int64_t d = shape_cols(table);

    if (shape_rows(table) != shape_rows(x) || shape_cols(x) % d || d % 2 ||
        (c->in[1].shape.rank && shape_count(c->in[1].shape) != d))
        return err_set(err, ERR_INPUT,
                       "the table is (rows, head width), the weight (head width), "
                       "and heads fill the columns");
    c->out[0] = (struct tensor){.shape = x, .type = c->in[0].type};
    return OK;
}

static enum err_code rope_bwd_infer(struct call *c, struct err *err)
{
    (void)err;
    c->out[0] = (struct tensor){.shape = c->in[1].shape, .type = c->in[1].type};
    return OK;
}

/* (dy, x, w, table) -> dx */
static const struct op op_rope_bwd = {.name = "rope backward",
                                      .kernel = KERNEL_rope_bwd,
                                      .inputs_min = 2,
                                      .inputs_max = 4,
                                      .outputs = 1,
                                      .in_place = 3,
                                      .infer = rope_bwd_infer};

static enum err_code rope_dot_infer(struct call *c, struct err *err)
{
    (void)err;
    c->out[0] = (struct tensor){.shape = SHAPE(ceil_div(shape_rows(c->in[1].shape), CHUNK_ROWS),
                                               shape_cols(c->in[2].shape)),
                                .type = c->in[1].type};
    return OK;
}

/* (dy, x, table) -> sums over 64-row chunks and heads of (dy turned back) * xhat */
static const struct op op_rope_dot = {.name = "rope dot",
                                      .kernel = KERNEL_rope_dot,
                                      .inputs_min = 3,
                                      .inputs_max = 3,
                                      .outputs = 1,
                                      .infer = rope_dot_infer};

static void rope_vjp(struct vjp *v)
{
    const struct val in[] = {v->out_grad[0], v->in[0], v->in[1], v->in[2]};
    const struct val dot[] = {v->out_grad[0], v->in[0], v->in[2]};

    if (v->need[1])
        v->in_grad[1] = col_sum(v->t, tape_op(v->t, &op_rope_dot, v->attr, dot, 3));
    if (v->need[0])
        v->in_grad[0] = tape_op(v->t, &op_rope_bwd, v->attr, in, 4);
}

static const struct op op_rope = {.name = "rope",
                                  .kernel = KERNEL_rope,
                                  .inputs_min = 1,
                                  .inputs_max = 3,
                                  .outputs = 1,
                                  .in_place = 1,
                                  .infer = rope_infer,
                                  .vjp = rope_vjp};

struct val rope(struct tape *t, struct val x, struct val w, struct val table, enum rope_pairs pairs,
                double eps)
{
    const struct val in[] = {x, w, table};
    const struct attr a = {.kind = (int32_t)pairs, .eps = (float)eps};

    return tape_op(t, &op_rope, &a, in, 3);
}

static enum err_code time_table_infer(struct call *c, struct err *err)
{
    if (c->attr->which < 2 || c->attr->which % 2)
        return err_set(err, ERR_INPUT, "the width is even");
    c->out[0] = (struct tensor){.shape = SHAPE(shape_count(c->in[0].shape), c->attr->which),
                                .type = c->in[0].type};
    return OK;
}

static const struct op op_time_table = {.name = "time table",
                                        .kernel = KERNEL_time_table,
                                        .inputs_min = 1,
                                        .inputs_max = 1,
                                        .outputs = 1,
                                        .infer = time_table_infer};

struct val time_table(struct tape *t, struct val time, int width, double scale, double max_period)
{
    const struct attr a = {.which = width, .alpha = (float)scale, .theta = max_period};

    return tape_op(t, &op_time_table, &a, &time, 1);
}
