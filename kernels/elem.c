/* Shapes and derivatives of the element-wise operators; the work is in cpu/elem.c. */
#include "kernels/elem.h"

#include <string.h>

static enum err_code like_first(struct call *c, struct err *err)
{
    for (int i = 1; i < c->inputs; i++)
        if (c->in[i].shape.rank &&
            (!shape_eq(c->in[i].shape, c->in[0].shape) || c->in[i].type != c->in[0].type))
            return err_set(err, ERR_INPUT, "all inputs have one shape and type");
    c->out[0] = (struct tensor){.shape = c->in[0].shape, .type = c->in[0].type};
    return OK;
}

/* ---- fill, add, binary, affine ---- */

static enum err_code fill_infer(struct call *c, struct err *err)
{
    (void)err;
    c->out[0].shape.rank = c->attr->rank;
    memcpy(c->out[0].shape.dim, c->attr->dim, sizeof(c->attr->dim));
    c->out[0].type = c->attr->which == 8 ? DT_F64 : DT_F32;
    return OK;
}

static const struct op op_fill = {
    .name = "fill", .kernel = KERNEL_fill, .outputs = 1, .infer = fill_infer};

struct val fill(struct tape *t, struct shape shape, double value)
{
    struct attr a = {.rank = shape.rank, .theta = value, .which = tape_type(t) == DT_F64 ? 8 : 4};

    memcpy(a.dim, shape.dim, sizeof(a.dim));
    return tape_op(t, &op_fill, &a, NULL, 0);
}

static void add_vjp(struct vjp *v)
{
    v->in_grad[0] = v->in_grad[1] = v->out_grad[0];
}

static const struct op op_add = {.name = "add",
                                 .kernel = KERNEL_add,
                                 .inputs_min = 2,
                                 .inputs_max = 2,
                                 .outputs = 1,
                                 .in_place = 3,
                                 .infer = like_first,
                                 .vjp = add_vjp};

static struct val two(struct tape *t, const struct op *op, const struct attr *a, struct val x,
                      struct val y)
{
    const struct val in[] = {x, y};

    return tape_op(t, op, a, in, 2);
}

struct val add(struct tape *t, struct val x, struct val y)
{
    return two(t, &op_add, NULL, x, y);
}

static void binary_vjp(struct vjp *v)
{
    struct tape *t = v->t;
    struct val dz = v->out_grad[0];

    switch (v->attr->kind) {
    case '-':
        v->in_grad[0] = dz;
        if (v->need[1])
            v->in_grad[1] = affine(t, dz, -1, 0);
        break;
    case '*':
        if (v->need[0])
            v->in_grad[0] = mul(t, dz, v->in[1]);
        if (v->need[1])
            v->in_grad[1] = mul(t, dz, v->in[0]);
        break;
    default: /* z = x / y */
        v->in_grad[0] = divide(t, dz, v->in[1]);
        if (v->need[1])
            v->in_grad[1] = affine(t, mul(t, v->in_grad[0], v->out[0]), -1, 0);
    }
}

static const struct op op_binary = {.name = "binary",
                                    .kernel = KERNEL_binary,
                                    .inputs_min = 2,
                                    .inputs_max = 2,
                                    .outputs = 1,
                                    .in_place = 3,
                                    .infer = like_first,
                                    .vjp = binary_vjp};

struct val sub(struct tape *t, struct val x, struct val y)
{
    return two(t, &op_binary, &(struct attr){.kind = '-'}, x, y);
}

struct val mul(struct tape *t, struct val x, struct val y)
{
    return two(t, &op_binary, &(struct attr){.kind = '*'}, x, y);
}

struct val divide(struct tape *t, struct val x, struct val y)
{
    return two(t, &op_binary, &(struct attr){.kind = '/'}, x, y);
}

static void affine_vjp(struct vjp *v)
{
    v->in_grad[0] = affine(v->t, v->out_grad[0], (double)v->attr->alpha, 0);
}

static const struct op op_affine = {.name = "affine",
                                    .kernel = KERNEL_affine,
                                    .inputs_min = 1,
                                    .inputs_max = 1,
                                    .outputs = 1,
                                    .in_place = 1,
                                    .infer = like_first,
                                    .vjp = affine_vjp};

struct val affine(struct tape *t, struct val x, double alpha, double beta)
{
    return tape_op(t, &op_affine, &(struct attr){.alpha = (float)alpha, .beta = (float)beta}, &x,
                   1);
}

/* ---- unary ---- */

static const struct op op_unary_bwd = {.name = "unary backward",
                                       .kernel = KERNEL_unary_bwd,
                                       .inputs_min = 2,
                                       .inputs_max = 2,
                                       .outputs = 1,
                                       .in_place = 3,
                                       .infer = like_first};

static void unary_vjp(struct vjp *v)
{
    v->in_grad[0] = two(v->t, &op_unary_bwd, v->attr, v->in[0], v->out_grad[0]);
}

static const struct op op_unary = {.name = "unary",
                                   .kernel = KERNEL_unary,
                                   .inputs_min = 1,
                                   .inputs_max = 1,
                                   .outputs = 1,
                                   .in_place = 1,
                                   .infer = like_first,
                                   .vjp = unary_vjp};

struct val unary_with(struct tape *t, enum unary kind, struct val x, double alpha, double beta)
{
    const struct attr a = {.kind = (int32_t)kind, .alpha = (float)alpha, .beta = (float)beta};

    return tape_op(t, &op_unary, &a, &x, 1);
}

struct val unary(struct tape *t, enum unary kind, struct val x)
{
    return unary_with(t, kind, x, 0, 0);
}

struct val silu(struct tape *t, struct val x)
{
    return unary(t, UNARY_SILU, x);
}

/* ---- swiglu ---- */

static enum err_code two_like_first(struct call *c, struct err *err)
{
    if (like_first(c, err) != OK)
        return err->code;
    c->out[1] = c->out[0];
    return OK;
}

static const struct op op_swiglu_bwd = {.name = "swiglu backward",
                                        .kernel = KERNEL_swiglu_bwd,
                                        .inputs_min = 3,
                                        .inputs_max = 3,
                                        .outputs = 2,
                                        .infer = two_like_first};

static void swiglu_vjp(struct vjp *v)
{
    const struct val in[] = {v->in[0], v->in[1], v->out_grad[0]};

    v->in_grad[0] = tape_op(v->t, &op_swiglu_bwd, NULL, in, 3);
    v->in_grad[1] = tape_next(v->in_grad[0], 1);
}

static const struct op op_swiglu = {.name = "swiglu",
                                    .kernel = KERNEL_swiglu,
                                    .inputs_min = 2,
                                    .inputs_max = 2,
                                    .outputs = 1,
                                    .in_place = 3,
                                    .infer = like_first,
                                    .vjp = swiglu_vjp};

struct val swiglu(struct tape *t, struct val a, struct val b)
{
    return two(t, &op_swiglu, NULL, a, b);
}

/* ---- groups ---- */

/* x's rows against a (G, C) and group (one per row): G is a multiple of B and divides into rows. */
static enum err_code check_groups(struct shape x, struct shape a, struct tensor group,
                                  struct err *err)
{
    int64_t rows = shape_rows(x);

    if (a.rank != 2 || a.dim[1] != shape_cols(x) || a.dim[0] % x.dim[0] || rows % x.dim[0])
        return err_set(err, ERR_INPUT,
                       "the chosen rows are (groups, columns), groups a multiple "
                       "of the batch");
    if (!group.shape.rank && rows % a.dim[0])
        return err_set(err, ERR_INPUT, "without a choice per row the groups divide the rows");
    if (group.shape.rank && (group.type != DT_I32 || shape_count(group.shape) != rows))
        return err_set(err, ERR_INPUT, "the choice is i32, one per row");
    return OK;
}

static enum err_code group_dot_infer(struct call *c, struct err *err)
{
    int64_t groups = c->attr->dim[0];

    if (!shape_eq(c->in[0].shape, c->in[1].shape))
        return err_set(err, ERR_INPUT, "x and y have one shape");
    c->out[0] =
        (struct tensor){.shape = SHAPE(groups, shape_cols(c->in[0].shape)), .type = c->in[0].type};
    return check_groups(c->in[0].shape, c->out[0].shape, c->in[2], err);
}

static const struct op op_group_dot = {.name = "group dot",
                                       .kernel = KERNEL_group_dot,
                                       .inputs_min = 2,
                                       .inputs_max = 3,
                                       .outputs = 1,
                                       .infer = group_dot_infer};

struct val group_dot(struct tape *t, struct val x, struct val y, struct val group, int64_t groups)
{
    const struct val in[] = {x, y, group};

    return tape_op(t, &op_group_dot, &(struct attr){.dim = {groups}}, in, 3);
}

/* x + a[group] * y: the tanh is an operator of its own, over few elements. */
static enum err_code gate_infer(struct call *c, struct err *err)
{
    if (!shape_eq(c->in[0].shape, c->in[1].shape))
        return err_set(err, ERR_INPUT, "x and y have one shape");
    c->out[0] = (struct tensor){.shape = c->in[0].shape, .type = c->in[0].type};
    return check_groups(c->in[0].shape, c->in[2].shape, c->in[3], err);
}

static enum err_code gate_bwd_infer(struct call *c, struct err *err)
{
    c->out[0] = (struct tensor){.shape = c->in[0].shape, .type = c->in[0].type};
    return check_groups(c->in[0].shape, c->in[1].shape, c->in[2], err);
}

static const struct op op_gate_bwd = {.name = "gate backward",
                                      .kernel = KERNEL_gate_bwd,
                                      .inputs_min = 2,
                                      .inputs_max = 3,
                                      .outputs = 1,
                                      .in_place = 1,
                                      .infer = gate_bwd_infer};

static void gate_vjp(struct vjp *v)
{
    struct val dz = v->out_grad[0], y = v->in[1], a = v->in[2], group = v->in[3];
    const struct val in[] = {dz, a, group};

    v->in_grad[0] = dz;
    if (v->need[1])
        v->in_grad[1] = tape_op(v->t, &op_gate_bwd, NULL, in, 3);
    if (v->need[2])
        v->in_grad[2] = group_dot(v->t, dz, y, group, tape_shape(v->t, a).dim[0]);
}

static const struct op op_gate = {.name = "gate",
                                  .kernel = KERNEL_gate,
                                  .inputs_min = 3,
                                  .inputs_max = 4,
                                  .outputs = 1,
                                  .in_place = 3,
                                  .infer = gate_infer,
                                  .vjp = gate_vjp};

struct val gate_add(struct tape *t, struct val x, struct val y, struct val a, struct val group)
{
    const struct val in[] = {x, y, unary(t, UNARY_TANH, a), group};

    return tape_op(t, &op_gate, NULL, in, 4);
}
