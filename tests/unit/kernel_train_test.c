/* A whole training loop in small: an autoencoder learns four images, with the same bits for one thread and for two. */
#include <math.h>
#include <string.h>

#include "tests/check.h"
#include "tests/kernel_nets.h"

#define STEPS 120
#define SIDE 8

static struct err err = ERR_INIT;

static void put_images(float *x)
{
    for (int b = 0; b < 4; b++)
        for (int i = 0; i < SIDE * SIDE; i++)
            for (int c = 0; c < 3; c++)
                x[(b * SIDE * SIDE + i) * 3 + c] =
                    (float)sin(0.7 * (b + 1) * (i % SIDE) + 0.3 * (c + 1) * (double)(i / SIDE));
}

/* The losses of the first and the last step; the parameters' bits folded into a number. */
static uint64_t train(int threads, double *first, double *last)
{
    const struct vae_config c = {
        .width = {8, 16}, .blocks = 2, .layers = 1, .latent = 8, .groups = 4};
    const struct adam_config rule = {
        .lr = 4e-3, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .clip = 1, .ema_rate = 0.9};
    struct tape *t = tape_new(DT_F32);
    struct params *ps = params_new(DT_F32);
    struct net n = {t, ps};
    struct val x = tape_input(t, "images", DT_F32, SHAPE(4, SIDE, SIDE, 3)), part[2], loss;
    struct adam *opt;
    uint64_t bits = 0;

    op_threads(threads);
    split(t, vae_encode(n, &c, x), 2, part);
    loss = add(t, mse(t, vae_decode(n, &c, part[0]), x, NONE),
               affine(t, kl_normal(t, part[0], part[1]), 1e-6, 0));
    tape_keep(t, loss);
    tape_grad_params(t, loss, NONE, ps);
    for (int i = 0; i < ps->count; i++)
        if (ps->list[i].init == PARAM_NORMAL)
            ps->list[i].scale = sqrt((double)ps->list[i].shape.dim[0] / (double)ps->list[i].count);
    EXPECT_OK(params_seal(ps, 1, &err), &err);
    EXPECT_OK(tape_plan(t, &err), &err);
    EXPECT_OK(adam_new(ps, true, &opt, &err), &err);
    put_images(tape_data(t, x));
    for (int i = 0; i < STEPS; i++) {
        params_zero_grad(ps);
        tape_run(t);
        adam_step(opt, &rule);
        *(i ? last : first) = (double)*(float *)tape_data(t, loss);
    }
    for (int64_t i = 0; i < ps->total; i++) {
        uint32_t u;

        memcpy(&u, (float *)ps->value + i, sizeof(u));
        bits = bits * 0x100000001b3u + u;
    }
    adam_free(opt);
    tape_free(t);
    params_free(ps);
    op_threads(0);
    return bits;
}

TEST(four_images_are_learnt)
{
    double first, last, again;
    uint64_t one = train(1, &first, &last), two = train(2, &first, &again);

    printf("loss %.4f, after %d steps %.4f\n", first, STEPS, last);
    EXPECT(last < 0.05 * first);
    EXPECT(one == two && last == again);
}

RUN(four_images_are_learnt)
