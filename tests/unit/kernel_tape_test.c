/* Recording, several losses, accumulation, recomputed segments, planning, and errors that name what is wrong. */
#include <math.h>
#include <stdlib.h>

#include "base/str.h"
#include "kernels/rng.h"
#include "tests/check.h"
#include "tests/kernel_nets.h"

static struct err err = ERR_INIT;

static struct val vec(struct tape *t, struct params *ps, const char *name, int64_t n)
{
    return tape_param(t, ps, SHAPE(n), PARAM_NORMAL, 1, "%s", name);
}

static float *grad_of(const struct params *ps, const char *name)
{
    return params_grad(ps, params_find(ps, name));
}

static float *value_of(const struct params *ps, const char *name)
{
    return params_value(ps, params_find(ps, name));
}

/* loss1 = sum a*b, loss2 = sum a*a: two walks over one list, each into its own set. */
TEST(two_losses_two_sets)
{
    struct tape *t = tape_new(DT_F32);
    struct params *ga = params_new(DT_F32), *gb = params_new(DT_F32);
    struct val a = vec(t, ga, "a", 5), b = vec(t, gb, "b", 5);
    struct val ab = mul(t, a, b);

    tape_grad_params(t, sum_all(t, ab, 1), NONE, ga);
    tape_grad_params(t, sum_all(t, mul(t, ab, ab), 1), NONE, gb);
    EXPECT_OK(params_seal(ga, 1, &err), &err);
    EXPECT_OK(params_seal(gb, 2, &err), &err);
    EXPECT_OK(tape_plan(t, &err), &err);
    tape_run(t);
    tape_run(t); /* gradients add up over runs */
    for (int i = 0; i < 5; i++) {
        float x = value_of(ga, "a")[i], y = value_of(gb, "b")[i];

        EXPECT(grad_of(ga, "a")[i] == y + y);
        EXPECT(fabsf(grad_of(gb, "b")[i] - 4 * x * x * y) < 1e-5f * fabsf(4 * x * x * y) + 1e-7f);
    }
    params_zero_grad(ga);
    EXPECT(grad_of(ga, "a")[3] == 0);
    tape_free(t);
    params_free(ga);
    params_free(gb);
}

TEST(detached_and_frozen_get_nothing)
{
    struct tape *t = tape_new(DT_F32);
    struct params *ps = params_new(DT_F32);
    struct val a = vec(t, ps, "a", 3), b = vec(t, ps, "b", 3), c = vec(t, ps, "c.w", 3);
    struct val wrt[] = {a, b}, g[2];
    struct val loss = sum_all(t, mul(t, mul(t, a, tape_detach(t, b)), c), 1);

    params_freeze(ps, "c.", true);
    tape_grad(t, loss, NONE, wrt, 2, g);
    EXPECT(g[0].id != 0 && g[1].id == 0);
    tape_grad_params(t, loss, NONE, ps);
    EXPECT_OK(params_seal(ps, 1, &err), &err);
    EXPECT_OK(tape_plan(t, &err), &err);
    tape_run(t);
    EXPECT(grad_of(ps, "a")[1] == value_of(ps, "b")[1] * value_of(ps, "c.w")[1]);
    EXPECT(grad_of(ps, "b")[1] == 0 && grad_of(ps, "c.w")[1] == 0);
    tape_free(t);
    params_free(ps);
}

/* A loss weighted by the ratio of two gradients' sizes, as adversarial training of an autoencoder does. */
TEST(gradients_are_values)
{
    struct tape *t = tape_new(DT_F32);
    struct params *ps = params_new(DT_F32);
    struct val a = vec(t, ps, "a", 4), one = sum_all(t, mul(t, a, a), 1), two = sum_all(t, a, 3);
    struct val g1, g2, n1, n2, weight, loss;

    tape_grad(t, one, NONE, &a, 1, &g1);
    tape_grad(t, two, NONE, &a, 1, &g2);
    n1 = unary(t, UNARY_SQRT, sum_all(t, mul(t, g1, g1), 1));
    n2 = unary(t, UNARY_SQRT, sum_all(t, mul(t, g2, g2), 1));
    weight = tape_detach(t, divide(t, n1, n2));
    loss = add(t, one, mul(t, weight, two));
    tape_keep(t, weight);
    tape_grad_params(t, loss, NONE, ps);
    EXPECT_OK(params_seal(ps, 5, &err), &err);
    EXPECT_OK(tape_plan(t, &err), &err);
    tape_run(t);
    for (int i = 0; i < 4; i++) {
        float want = 2 * value_of(ps, "a")[i] + 3 * *(float *)tape_data(t, weight);

        EXPECT(fabsf(grad_of(ps, "a")[i] - want) < 1e-5f);
    }
    tape_free(t);
    params_free(ps);
}

static const struct dit_config small = {
    .dim = 24, .layers = 8, .heads = 2, .cap = 8, .channels = 2, .axes = {4, 4, 4}};

/* A step of a small DiT; gradients copied to the caller, who frees them. */
static float *dit_gradients(bool recompute, int threads, bool watched, int64_t *n, int64_t *peak)
{
    struct tape *t = tape_new(DT_F32);
    struct params *ps = params_new(DT_F32);
    const int64_t b = 3, sx = 8, sc = 5, su = 13;
    struct dit_inputs in = {
        .tokens = tape_input(t, "tokens", DT_F32, SHAPE(b, sx, 8)),
        .caption = tape_input(t, "caption", DT_F32, SHAPE(b, sc, 8)),
        .time = tape_input(t, "time", DT_F32, SHAPE(b)),
        .x_pick = tape_input(t, "x rows", DT_I32, SHAPE(b, sx)),
        .c_pick = tape_input(t, "caption rows", DT_I32, SHAPE(b, sc)),
        .u_pick = tape_input(t, "joined rows", DT_I32, SHAPE(b, su)),
        .x_pos = tape_input(t, "x positions", DT_I32, SHAPE(b, sx, 3)),
        .c_pos = tape_input(t, "caption positions", DT_I32, SHAPE(b, sc, 3)),
        .u_pos = tape_input(t, "joined positions", DT_I32, SHAPE(b, su, 3)),
        .u_len = tape_input(t, "joined lengths", DT_I32, SHAPE(b)),
        .out_pick = tape_input(t, "answer rows", DT_I32, SHAPE(b, sx)),
    };
    struct val out, target = tape_input(t, "target", DT_F32, SHAPE(b, sx, 8));
    const struct rng r = rng_at(3, 0, 0, 0);
    float *copy;

    op_threads(threads);
    tape_poison(t, watched);
    out = dit_record((struct net){t, ps}, &small, &in, recompute);
    params_freeze(ps, "t_embedder.", true); /* its gradient alone would be the peak */
    tape_grad_params(t, mse(t, out, target, NONE), NONE, ps);
    EXPECT_OK(params_seal(ps, 1, &err), &err);
    nets_fill(ps);
    EXPECT_OK(tape_plan(t, &err), &err);
    rng_normal(&r, 0, b * sx * 8, tape_data(t, in.tokens));
    rng_normal(&r, 999, b * sc * 8, tape_data(t, in.caption));
    rng_normal(&r, 9999, b * sx * 8, tape_data(t, target));
    for (int32_t i = 0; i < b * su; i++) {
        int32_t s = i / 13, k = i % 13;

        if (k < sx)
            ((int32_t *)tape_data(t, in.x_pick))[s * 8 + k] = s * 8 + k - (k == 7 ? i : 0);
        else
            ((int32_t *)tape_data(t, in.c_pick))[s * 5 + k - 8] = s * 5 + k - 8;
        ((int32_t *)tape_data(t, in.u_pick))[i] = k < sx ? s * 8 + k : 24 + s * 5 + k - 8;
        ((int32_t *)tape_data(t, in.u_pos))[i * 3 + k % 3] = k;
        if (k < sx)
            ((int32_t *)tape_data(t, in.out_pick))[s * 8 + k] = i;
        ((int32_t *)tape_data(t, in.u_len))[s] = 13 - 2 * s;
    }
    tape_run(t);
    *peak = tape_peak_bytes(t);
    *n = ps->total;
    copy = mem_alloc((size_t)ps->total * sizeof(float));
    memcpy(copy, ps->grad, (size_t)ps->total * sizeof(float));
    tape_free(t);
    params_free(ps);
    op_threads(0);
    return copy;
}

TEST(recomputing_costs_no_bit)
{
    int64_t n, peak, less, unused;
    float *plain = dit_gradients(false, 2, false, &n, &peak);
    float *again = dit_gradients(true, 1, false, &n, &less);
    float *watched = dit_gradients(true, 3, true, &n, &unused);
    double sum = 0;

    EXPECT_MEM(plain, again, (size_t)n * sizeof(float));
    EXPECT_MEM(plain, watched, (size_t)n * sizeof(float));
    EXPECT(less < peak / 2);
    for (int64_t i = 0; i < n; i++)
        sum += fabs((double)plain[i]);
    EXPECT(isfinite(sum) && sum > 1);
    free(plain);
    free(again);
    free(watched);
}

TEST(memory_is_shared)
{
    struct tape *t = tape_new(DT_F32);
    struct val x = tape_input(t, "x", DT_F32, SHAPE(1024)), y = x;
    struct buf text;

    for (int i = 0; i < 50; i++)
        y = i % 2 ? unary(t, UNARY_TANH, y) : add(t, y, x);
    unary(t, UNARY_EXP, x); /* leads nowhere: dropped */
    tape_keep(t, y);
    tape_poison(t, false);
    EXPECT_OK(tape_plan(t, &err), &err);
    EXPECT(tape_peak_bytes(t) <= 4 * 4096);
    buf_init(&text, 4096);
    tape_plan_text(t, &text);
    EXPECT(strstr(text.p, "50 nodes of 51") != NULL && strstr(text.p, "no CUDA twin") != NULL);
    buf_release(&text);
    tape_free(t);
}

struct wrong {
    void (*record)(struct tape *t, struct params *ps);
    const char *says;
};

static void wrong_shapes(struct tape *t, struct params *ps)
{
    add(t, vec(t, ps, "a", 3), vec(t, ps, "b", 4));
}
static void wrong_linear(struct tape *t, struct params *ps)
{
    linear(t, tape_input(t, "x", DT_F32, SHAPE(2, 3)), vec(t, ps, "w", 4), NONE);
}
static void wrong_param(struct tape *t, struct params *ps)
{
    vec(t, ps, "a", 3);
    vec(t, ps, "a", 4);
}
static void wrong_root(struct tape *t, struct params *ps)
{
    tape_grad_params(t, vec(t, ps, "a", 3), NONE, ps);
}
static void wrong_heads(struct tape *t, struct params *ps)
{
    struct val q = tape_input(t, "q", DT_F32, SHAPE(1, 2, 5));

    (void)ps;
    attention(t, q, q, q, NONE, 2, false);
}
static void no_derivative(struct tape *t, struct params *ps)
{
    tape_grad_params(t, sum_all(t, time_table(t, vec(t, ps, "a", 3), 4, 1, 10), 1), NONE, ps);
}

TEST(mistakes_are_named)
{
    static const struct wrong wrongs[] = {
        {wrong_shapes,
         "operator add: all inputs have one shape and type; it was given f32(3), f32(4)"},
        {wrong_linear, "operator linear: the weight is (outputs, inputs)"},
        {wrong_param, "parameter a is (3), asked for as (4)"},
        {wrong_root, "needs a seed"},
        {wrong_heads, "operator attention: q, k and v are"},
        {no_derivative, "operator time table has no derivative"}};

    for (size_t i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
        struct tape *t = tape_new(DT_F32);
        struct params *ps = params_new(DT_F32);

        wrongs[i].record(t, ps);
        EXPECT_OK(params_seal(ps, 1, &err), &err);
        err = (struct err)ERR_INIT;
        EXPECT_ERR(tape_plan(t, &err), ERR_INPUT, &err);
        if (!strstr(err.text, wrongs[i].says))
            printf("said: %s\n", err.text);
        EXPECT(strstr(err.text, wrongs[i].says) != NULL);
        tape_free(t);
        params_free(ps);
    }
}

/* A second tape over a sealed set must find the same parameters, and no others. */
TEST(sealed_sets_do_not_grow)
{
    struct tape *t = tape_new(DT_F32), *u = tape_new(DT_F32);
    struct params *ps = params_new(DT_F32);

    vec(t, ps, "a", 17);
    vec(t, ps, "b", 3);
    EXPECT_OK(params_seal(ps, 1, &err), &err);
    EXPECT_EQ(ps->list[1].at, 32); /* aligned, gap zero */
    EXPECT(((float *)ps->value)[20] == 0);
    vec(u, ps, "a", 17);
    vec(u, ps, "c", 3);
    EXPECT_ERR(tape_plan(u, &err), ERR_INPUT, &err);
    EXPECT(strstr(err.text, "parameter c") != NULL);
    tape_free(t);
    tape_free(u);
    params_free(ps);
}

RUN(two_losses_two_sets, detached_and_frozen_get_nothing, gradients_are_values,
    recomputing_costs_no_bit, memory_is_shared, mistakes_are_named, sealed_sets_do_not_grow)
