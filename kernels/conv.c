/* Shapes and derivatives of convolution, blur and ssim; the work is in cpu/conv.c. */
#include <math.h>
#include <string.h>

#include "kernels/elem.h"
#include "kernels/gemm.h"
#include "kernels/linear.h"

static int64_t out_side(int64_t n, int from, int to, const struct attr *a)
{
    return (n + from + to - a->kernel) / a->stride + 1;
}

static enum err_code conv_infer(struct call *c, struct err *err)
{
    const struct attr *a = c->attr;
    struct shape x = c->in[0].shape, w = c->in[1].shape;

    if (x.rank != 4 || w.rank != 4 || w.dim[1] != x.dim[3] || w.dim[2] != w.dim[3] ||
        w.dim[2] != a->kernel || (c->in[2].shape.rank && shape_count(c->in[2].shape) != w.dim[0]))
        return err_set(err, ERR_INPUT,
                       "the image is (batch, height, width, in), the weight (out, "
                       "in, k, k), the bias (out)");
    if (x.dim[1] + a->pad[0] + a->pad[2] < a->kernel ||
        x.dim[2] + a->pad[1] + a->pad[3] < a->kernel)
        return err_set(err, ERR_INPUT, "the image is smaller than the window");
    c->out[0] =
        (struct tensor){.shape = SHAPE(x.dim[0], out_side(x.dim[1], a->pad[0], a->pad[2], a),
                                       out_side(x.dim[2], a->pad[1], a->pad[3], a), w.dim[0]),
                        .type = c->in[0].type};
    return OK;
}

/* Unfolded columns of one tile per thread, and the weight with channels last (all three functions permute it). */
static void conv_space_of(const struct call *c, int64_t inner, int64_t weight, int64_t parts,
                          struct op_space *need)
{
    int64_t size = (int64_t)dtype_size(c->in[0].type);

    need->per_thread = conv_tile(inner) * inner * size;
    need->shared = (parts + 1) * weight * size;
}

static void conv_space(const struct call *c, struct op_space *need)
{
    int64_t weight = shape_count(c->in[1].shape);

    conv_space_of(c, weight / c->in[1].shape.dim[0], weight, 0, need);
}

static int64_t conv_flops(const struct call *c)
{
    return 2 * shape_count(c->out[0].shape) * (shape_count(c->in[1].shape) / c->in[1].shape.dim[0]);
}

/* (dy, w) -> dx of attr's shape */
static enum err_code conv_dx_infer(struct call *c, struct err *err)
{
    (void)err;
    c->out[0].shape.rank = 4;
    memcpy(c->out[0].shape.dim, c->attr->dim, sizeof(c->attr->dim));
    c->out[0].type = c->in[0].type;
    return OK;
}

static void conv_dx_space(const struct call *c, struct op_space *need)
{
    int64_t weight = shape_count(c->in[1].shape);

    conv_space_of(c, weight / c->in[1].shape.dim[1], weight, 0, need);
}

static int64_t conv_dx_flops(const struct call *c)
{
    int64_t k = c->attr->kernel;

    return 2 * shape_count(c->in[0].shape) * k * k * c->in[1].shape.dim[1];
}

static int64_t conv_dw_flops(const struct call *c)
{
    int64_t k = c->attr->kernel;

    return 2 * shape_count(c->in[0].shape) * k * k * shape_cols(c->in[1].shape);
}

static const struct op op_conv_dx = {.name = "conv backward x",
                                     .kernel = KERNEL_conv_dx,
                                     .inputs_min = 2,
                                     .inputs_max = 2,
                                     .outputs = 1,
                                     .infer = conv_dx_infer,
                                     .space = conv_dx_space,
                                     .flops = conv_dx_flops};

static void conv_dw_space(const struct call *c, struct op_space *need)
{
    int64_t weight = shape_count(c->out[0].shape), inner = weight / c->out[0].shape.dim[0];

    conv_space_of(c, inner, weight, conv_parts(shape_rows(c->in[0].shape), inner), need);
}

/* (dy, x) -> dw of attr's shape */
static const struct op op_conv_dw = {.name = "conv backward w",
                                     .kernel = KERNEL_conv_dw,
                                     .inputs_min = 2,
                                     .inputs_max = 2,
                                     .outputs = 1,
                                     .infer = conv_dx_infer,
                                     .space = conv_dw_space,
                                     .flops = conv_dw_flops};

static struct attr with_shape(const struct attr *from, struct shape s)
{
    struct attr a = *from;

    a.rank = s.rank;
    memcpy(a.dim, s.dim, sizeof(a.dim));
    return a;
}

static void conv_vjp(struct vjp *v)
{
    const struct attr dx = with_shape(v->attr, tape_shape(v->t, v->in[0]));
    const struct attr dw = with_shape(v->attr, tape_shape(v->t, v->in[1]));
    const struct val by_w[] = {v->out_grad[0], v->in[1]}, by_x[] = {v->out_grad[0], v->in[0]};

    if (v->need[0])
        v->in_grad[0] = tape_op(v->t, &op_conv_dx, &dx, by_w, 2);
    if (v->need[1])
        v->in_grad[1] = tape_op(v->t, &op_conv_dw, &dw, by_x, 2);
    if (v->need[2])
        v->in_grad[2] = col_sum(v->t, v->out_grad[0]);
}

static const struct op op_conv = {.name = "conv",
                                  .kernel = KERNEL_conv,
                                  .inputs_min = 2,
                                  .inputs_max = 3,
                                  .outputs = 1,
                                  .infer = conv_infer,
                                  .space = conv_space,
                                  .flops = conv_flops,
                                  .vjp = conv_vjp};

struct val conv(struct tape *t, struct val x, struct val w, struct val b, struct conv_shape s)
{
    const struct val in[] = {x, w, b};
    struct shape weight = tape_shape(t, w);
    const struct attr a = {.kernel = (int32_t)weight.dim[weight.rank - 1],
                           .stride = s.stride,
                           .pad = {s.top, s.left, s.bottom, s.right}};

    CHECK(s.stride > 0 && s.top >= 0 && s.left >= 0 && s.bottom >= 0 && s.right >= 0);
    return tape_op(t, &op_conv, &a, in, 3);
}

/* ---- blur: kernel is the window, alpha its sigma, flag the transpose (which enlarges) ---- */

static enum err_code blur_infer(struct call *c, struct err *err)
{
    struct shape s = c->in[0].shape;
    int64_t change = c->attr->flag ? c->attr->kernel - 1 : 1 - c->attr->kernel;

    if (s.rank != 4 || s.dim[1] + change < 1 || s.dim[2] + change < 1)
        return err_set(err, ERR_INPUT,
                       "the image is (batch, height, width, channels), sides at "
                       "least the window");
    c->out[0] =
        (struct tensor){.shape = SHAPE(s.dim[0], s.dim[1] + change, s.dim[2] + change, s.dim[3]),
                        .type = c->in[0].type};
    return OK;
}

static void blur_space(const struct call *c, struct op_space *need)
{
    struct shape in = c->in[0].shape, out = c->out[0].shape;

    need->shared = in.dim[0] * in.dim[1] * out.dim[2] * in.dim[3] * 8;
}

static void blur_vjp(struct vjp *v);

static const struct op op_blur = {.name = "blur",
                                  .kernel = KERNEL_blur,
                                  .inputs_min = 1,
                                  .inputs_max = 1,
                                  .outputs = 1,
                                  .infer = blur_infer,
                                  .space = blur_space,
                                  .vjp = blur_vjp};

static void blur_vjp(struct vjp *v)
{
    struct attr a = *v->attr;

    a.flag = !a.flag;
    v->in_grad[0] = tape_op(v->t, &op_blur, &a, v->out_grad, 1);
}

struct val blur(struct tape *t, struct val x, int window, double sigma)
{
    CHECK(window >= 1 && window <= BLUR_MAX && sigma > 0);
    return tape_op(t, &op_blur, &(struct attr){.kernel = window, .alpha = (float)sigma}, &x, 1);
}

struct val ssim(struct tape *t, struct val x, struct val y, double range)
{
    const double c1 = 0.01 * 0.01 * range * range, c2 = 0.03 * 0.03 * range * range;
    struct val mx = blur(t, x, 11, 1.5), my = blur(t, y, 11, 1.5);
    struct val mxx = mul(t, mx, mx), myy = mul(t, my, my), mxy = mul(t, mx, my);
    struct val vx = sub(t, blur(t, mul(t, x, x), 11, 1.5), mxx);
    struct val vy = sub(t, blur(t, mul(t, y, y), 11, 1.5), myy);
    struct val vxy = sub(t, blur(t, mul(t, x, y), 11, 1.5), mxy);
    struct val over = mul(t, affine(t, mxy, 2, c1), affine(t, vxy, 2, c2));
    struct val under = mul(t, affine(t, add(t, mxx, myy), 1, c1), affine(t, add(t, vx, vy), 1, c2));

    return mean_all(t, divide(t, over, under));
}
