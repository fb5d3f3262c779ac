/* Shapes and derivatives of linear and attention; the work is in cpu/linear.c and cpu/attention.c. */
#include "kernels/linear.h"

#include "kernels/elem.h"
#include "kernels/gemm.h"

static enum err_code linear_infer(struct call *c, struct err *err)
{
    struct shape s = c->in[0].shape, w = c->in[1].shape;

    if (shape_cols(w) != shape_cols(s) ||
        (c->in[2].shape.rank && shape_count(c->in[2].shape) != shape_rows(w)))
        return err_set(err, ERR_INPUT, "the weight is (outputs, inputs), the bias (outputs)");
    s.dim[s.rank - 1] = shape_rows(w);
    c->out[0] = (struct tensor){.shape = s, .type = c->in[0].type};
    return OK;
}

static int64_t linear_flops(const struct call *c)
{
    return 2 * shape_count(c->out[0].shape) * shape_cols(c->in[0].shape);
}

/* (dy, w, so far) -> dx */
static enum err_code linear_dx_infer(struct call *c, struct err *err)
{
    struct shape s = c->in[0].shape;

    (void)err;
    s.dim[s.rank - 1] = shape_cols(c->in[1].shape);
    c->out[0] = (struct tensor){.shape = s, .type = c->in[0].type};
    return OK;
}

static const struct op op_linear_dx = {.name = "linear backward x",
                                       .kernel = KERNEL_linear_dx,
                                       .inputs_min = 2,
                                       .inputs_max = 3,
                                       .outputs = 1,
                                       .in_place = 1 << 2,
                                       .infer = linear_dx_infer,
                                       .flops = linear_flops};

/* (dy, x) -> dw of attr's shape */
static enum err_code linear_dw_infer(struct call *c, struct err *err)
{
    (void)err;
    c->out[0] =
        (struct tensor){.shape = SHAPE(shape_cols(c->in[0].shape), shape_cols(c->in[1].shape)),
                        .type = c->in[0].type};
    return OK;
}

static void linear_dw_space(const struct call *c, struct op_space *need)
{
    struct gemm_cut cut = gemm_cut_inner(shape_cols(c->in[0].shape), shape_cols(c->in[1].shape),
                                         shape_rows(c->in[0].shape));

    need->shared = cut.chunks * shape_count(c->out[0].shape) * (int64_t)dtype_size(c->out[0].type);
}

static int64_t linear_dw_flops(const struct call *c)
{
    return 2 * shape_count(c->out[0].shape) * shape_rows(c->in[0].shape);
}

static const struct op op_linear_dw = {.name = "linear backward w",
                                       .kernel = KERNEL_linear_dw,
                                       .inputs_min = 2,
                                       .inputs_max = 2,
                                       .outputs = 1,
                                       .infer = linear_dw_infer,
                                       .space = linear_dw_space,
                                       .flops = linear_dw_flops};

static void linear_vjp(struct vjp *v)
{
    struct tape *t = v->t;
    const struct val dx[] = {v->out_grad[0], v->in[1], v->so_far[0]};
    const struct val dw[] = {v->out_grad[0], v->in[0]};

    if (v->need[0]) {
        v->in_grad[0] = tape_op(t, &op_linear_dx, NULL, dx, 3);
        v->summed[0] = true;
    }
    if (v->need[1])
        v->in_grad[1] =
            tape_reshape(t, tape_op(t, &op_linear_dw, NULL, dw, 2), tape_shape(t, v->in[1]));
    if (v->need[2])
        v->in_grad[2] = col_sum(t, v->out_grad[0]);
}

static const struct op op_linear = {.name = "linear",
                                    .kernel = KERNEL_linear,
                                    .inputs_min = 2,
                                    .inputs_max = 3,
                                    .outputs = 1,
                                    .infer = linear_infer,
                                    .flops = linear_flops,
                                    .vjp = linear_vjp};

struct val linear(struct tape *t, struct val x, struct val w, struct val b)
{
    const struct val in[] = {x, w, b};

    return tape_op(t, &op_linear, NULL, in, 3);
}

/* ---- attention: (q, k, v, length) -> o, row statistics (B, heads, S) ---- */

static enum err_code attention_infer(struct call *c, struct err *err)
{
    struct shape q = c->in[0].shape;

    if (q.rank != 3 || !shape_eq(q, c->in[1].shape) || !shape_eq(q, c->in[2].shape) ||
        q.dim[2] % c->attr->heads)
        return err_set(err, ERR_INPUT, "q, k and v are (batch, rows, heads x width)");
    if (c->in[3].shape.rank && (c->in[3].type != DT_I32 || shape_count(c->in[3].shape) != q.dim[0]))
        return err_set(err, ERR_INPUT, "lengths are i32, one per sample");
    c->out[0] = (struct tensor){.shape = q, .type = c->in[0].type};
    c->out[1] =
        (struct tensor){.shape = SHAPE(q.dim[0], c->attr->heads, q.dim[1]), .type = c->in[0].type};
    return OK;
}

static void attention_space(const struct call *c, struct op_space *need)
{
    struct shape q = c->in[0].shape;

    need->per_thread = attention_scratch(q.dim[1], q.dim[2] / c->attr->heads,
                                         dtype_size(c->in[0].type), c->inputs > 4);
}

static int64_t attention_flops(const struct call *c)
{
    struct shape q = c->in[0].shape;

    return 4 * q.dim[0] * q.dim[1] * q.dim[1] * q.dim[2];
}

static int64_t attention_bwd_flops(const struct call *c)
{
    return 2 * attention_flops(c); /* the recomputed product is not counted */
}

static enum err_code attention_bwd_infer(struct call *c, struct err *err)
{
    (void)err;
    for (int k = 0; k < 3; k++)
        c->out[k] = (struct tensor){.shape = c->in[k].shape, .type = c->in[k].type};
    return OK;
}

/* (q, k, v, length, statistics, do) -> dq, dk, dv */
static const struct op op_attention_bwd = {.name = "attention backward",
                                           .kernel = KERNEL_attention_bwd,
                                           .inputs_min = 3,
                                           .inputs_max = 6,
                                           .outputs = 3,
                                           .infer = attention_bwd_infer,
                                           .space = attention_space,
                                           .flops = attention_bwd_flops};

static void attention_vjp(struct vjp *v)
{
    const struct val in[] = {v->in[0], v->in[1], v->in[2], v->in[3], v->out[1], v->out_grad[0]};

    if (!v->out_grad[0].id)
        return;
    v->in_grad[0] = tape_op(v->t, &op_attention_bwd, v->attr, in, 6);
    v->in_grad[1] = tape_next(v->in_grad[0], 1);
    v->in_grad[2] = tape_next(v->in_grad[0], 2);
}

static const struct op op_attention = {.name = "attention",
                                       .kernel = KERNEL_attention,
                                       .inputs_min = 3,
                                       .inputs_max = 4,
                                       .outputs = 2,
                                       .infer = attention_infer,
                                       .space = attention_space,
                                       .flops = attention_flops,
                                       .vjp = attention_vjp};

struct val attention(struct tape *t, struct val q, struct val k, struct val v, struct val length,
                     int heads, bool causal)
{
    const struct val in[] = {q, k, v, length};
    const struct attr a = {.heads = heads, .flag = causal};

    CHECK(heads > 0);
    return tape_op(t, &op_attention, &a, in, 4);
}
