/* Shapes and derivatives; the work is in cpu/rows.c. */
#include "kernels/rows.h"

#include <string.h>

#include "kernels/elem.h"

static enum err_code pick_infer(struct call *c, struct err *err)
{
    struct shape s = c->in[2].shape;
    int64_t cols = shape_cols(c->in[0].shape);

    if (c->in[2].type != DT_I32 || s.rank >= TENSOR_RANK_MAX)
        return err_set(err, ERR_INPUT, "the index is i32 of at most 4 dimensions");
    if (c->in[1].shape.rank && shape_cols(c->in[1].shape) != cols)
        return err_set(err, ERR_INPUT, "both sources have equally many columns");
    s.dim[s.rank++] = cols;
    c->out[0] = (struct tensor){.shape = s, .type = c->in[0].type};
    return OK;
}

/* (dy, index) -> gradient of a source: attr's shape, its rows being from .. from + rows of the index space */
static enum err_code pick_bwd_infer(struct call *c, struct err *err)
{
    (void)err;
    c->out[0].shape.rank = c->attr->rank;
    memcpy(c->out[0].shape.dim, c->attr->dim, sizeof(c->attr->dim));
    c->out[0].type = c->in[0].type;
    return OK;
}

/* Users of each row, by counting sort: starts (rows + 1) and the users. */
static void pick_bwd_space(const struct call *c, struct op_space *need)
{
    need->shared = (shape_rows(c->out[0].shape) + 2 + shape_count(c->in[1].shape)) * 8;
}

static const struct op op_pick_bwd = {.name = "pick backward",
                                      .kernel = KERNEL_pick_bwd,
                                      .inputs_min = 2,
                                      .inputs_max = 2,
                                      .outputs = 1,
                                      .infer = pick_bwd_infer,
                                      .space = pick_bwd_space};

static void pick_vjp(struct vjp *v)
{
    const struct val in[] = {v->out_grad[0], v->in[2]};
    int64_t from = 0;

    for (int k = 0; k < 2 && v->in[k].id; k++) {
        struct shape s = tape_shape(v->t, v->in[k]);
        struct attr a = {.rank = s.rank, .from = (int32_t)from};

        memcpy(a.dim, s.dim, sizeof(a.dim));
        if (v->need[k])
            v->in_grad[k] = tape_op(v->t, &op_pick_bwd, &a, in, 2);
        from += shape_rows(s);
    }
}

static const struct op op_pick = {.name = "pick",
                                  .kernel = KERNEL_pick,
                                  .inputs_min = 1,
                                  .inputs_max = 3,
                                  .outputs = 1,
                                  .infer = pick_infer,
                                  .vjp = pick_vjp};

struct val pick(struct tape *t, struct val a, struct val b, struct val index)
{
    const struct val in[] = {a, b, index};

    return tape_op(t, &op_pick, NULL, in, 3);
}

/* ---- patches: kernel is the patch; flag means back to an image of attr's shape ---- */

static enum err_code patch_infer(struct call *c, struct err *err)
{
    const struct attr *a = c->attr;
    struct shape s = c->in[0].shape;
    int64_t p = a->kernel, area = p * p;

    c->out[0].type = c->in[0].type;
    if (a->flag) {
        if (s.rank != 3 || a->dim[1] % p || a->dim[2] % p || s.dim[2] % area ||
            s.dim[1] != a->dim[1] / p * (a->dim[2] / p))
            return err_set(err, ERR_INPUT,
                           "tokens are (batch, rows x columns, patch x patch x "
                           "channels) of the image wanted");
        c->out[0].shape = SHAPE(s.dim[0], a->dim[1], a->dim[2], s.dim[2] / area);
        return OK;
    }
    if (s.rank != 4 || s.dim[1] % p || s.dim[2] % p)
        return err_set(err, ERR_INPUT,
                       "the image is (batch, height, width, channels), sides "
                       "multiples of the patch");
    c->out[0].shape = SHAPE(s.dim[0], s.dim[1] / p * (s.dim[2] / p), area * s.dim[3]);
    return OK;
}

static void patch_vjp(struct vjp *v)
{
    struct shape s = tape_shape(v->t, v->in[0]);

    v->in_grad[0] = v->attr->flag
                        ? patchify(v->t, v->out_grad[0], v->attr->kernel)
                        : unpatchify(v->t, v->out_grad[0], v->attr->kernel, s.dim[1], s.dim[2]);
}

static const struct op op_patch = {.name = "patch",
                                   .kernel = KERNEL_patch,
                                   .inputs_min = 1,
                                   .inputs_max = 1,
                                   .outputs = 1,
                                   .infer = patch_infer,
                                   .vjp = patch_vjp};

struct val patchify(struct tape *t, struct val image, int patch)
{
    CHECK(patch > 0);
    return tape_op(t, &op_patch, &(struct attr){.kernel = patch}, &image, 1);
}

struct val unpatchify(struct tape *t, struct val tokens, int patch, int64_t height, int64_t width)
{
    const struct attr a = {.kernel = patch, .flag = true, .dim = {0, height, width}};

    CHECK(patch > 0);
    return tape_op(t, &op_patch, &a, &tokens, 1);
}

/* ---- split and concat ---- */

static enum err_code split_infer(struct call *c, struct err *err)
{
    struct shape s = c->in[0].shape;
    int n = c->attr->which;

    if (shape_cols(s) % n)
        return err_set(err, ERR_INPUT, "the columns do not divide by the number of parts");
    s.dim[s.rank - 1] /= n;
    for (int k = 0; k < n; k++)
        c->out[k] = (struct tensor){.shape = s, .type = c->in[0].type};
    return OK;
}

static void split_vjp(struct vjp *v)
{
    int n = v->attr->which;

    for (int k = 0; k < n; k++)
        if (!v->out_grad[k].id)
            v->out_grad[k] = fill(v->t, tape_shape(v->t, v->out[k]), 0);
    v->in_grad[0] = concat(v->t, v->out_grad, n);
}

static const struct op op_split = {.name = "split",
                                   .kernel = KERNEL_split,
                                   .inputs_min = 1,
                                   .inputs_max = 1,
                                   .outputs = OP_OUTPUTS_MAX,
                                   .infer = split_infer,
                                   .vjp = split_vjp};

void split(struct tape *t, struct val x, int n, struct val *parts)
{
    CHECK(n >= 1 && n <= OP_OUTPUTS_MAX);
    parts[0] = tape_op(t, &op_split, &(struct attr){.which = n}, &x, 1);
    for (int k = 1; k < n; k++)
        parts[k] = tape_next(parts[0], k);
}

static enum err_code concat_infer(struct call *c, struct err *err)
{
    struct shape s = c->in[0].shape;

    for (int k = 1; k < c->inputs; k++)
        if (!shape_eq(c->in[k].shape, s))
            return err_set(err, ERR_INPUT, "all parts have one shape");
    s.dim[s.rank - 1] *= c->inputs;
    c->out[0] = (struct tensor){.shape = s, .type = c->in[0].type};
    return OK;
}

static void concat_vjp(struct vjp *v)
{
    split(v->t, v->out_grad[0], v->inputs, v->in_grad);
}

static const struct op op_concat = {.name = "concat",
                                    .kernel = KERNEL_concat,
                                    .inputs_min = 1,
                                    .inputs_max = OP_OUTPUTS_MAX,
                                    .outputs = 1,
                                    .infer = concat_infer,
                                    .vjp = concat_vjp};

struct val concat(struct tape *t, const struct val *parts, int n)
{
    CHECK(n >= 1 && n <= OP_OUTPUTS_MAX);
    return tape_op(t, &op_concat, NULL, parts, n);
}

/* ---- upsample ---- */

static enum err_code upsample_infer(struct call *c, struct err *err)
{
    struct shape s = c->in[0].shape;

    if (s.rank != 4)
        return err_set(err, ERR_INPUT, "the image is (batch, height, width, channels)");
    c->out[0] = (struct tensor){.shape = SHAPE(s.dim[0], 2 * s.dim[1], 2 * s.dim[2], s.dim[3]),
                                .type = c->in[0].type};
    return OK;
}

static enum err_code upsample_bwd_infer(struct call *c, struct err *err)
{
    struct shape s = c->in[0].shape;

    (void)err;
    c->out[0] = (struct tensor){.shape = SHAPE(s.dim[0], s.dim[1] / 2, s.dim[2] / 2, s.dim[3]),
                                .type = c->in[0].type};
    return OK;
}

static const struct op op_upsample_bwd = {.name = "upsample backward",
                                          .kernel = KERNEL_upsample_bwd,
                                          .inputs_min = 1,
                                          .inputs_max = 1,
                                          .outputs = 1,
                                          .infer = upsample_bwd_infer};

static void upsample_vjp(struct vjp *v)
{
    v->in_grad[0] = tape_op(v->t, &op_upsample_bwd, NULL, v->out_grad, 1);
}

static const struct op op_upsample = {.name = "upsample",
                                      .kernel = KERNEL_upsample,
                                      .inputs_min = 1,
                                      .inputs_max = 1,
                                      .outputs = 1,
                                      .infer = upsample_infer,
                                      .vjp = upsample_vjp};

struct val upsample(struct tape *t, struct val image)
{
    return tape_op(t, &op_upsample, NULL, &image, 1);
}
