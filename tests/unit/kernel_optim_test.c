/* The optimiser against the formulas of its header in double precision, and its bits against threads and instruction sets. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/op.h"
#include "kernels/optim.h"
#include "kernels/rng.h"
#include "tests/check.h"

static struct err err = ERR_INIT;

static const struct adam_config config = {.lr = 1e-2,
                                          .beta1 = 0.9,
                                          .beta2 = 0.95,
                                          .eps = 1e-8,
                                          .decay = 0.1,
                                          .clip = 0.5,
                                          .grad_scale = 0.25,
                                          .ema_rate = 0.9};

static struct params *make(void)
{
    struct params *ps = params_new(DT_F32);
    int index;

    EXPECT_OK(params_add(ps, "w", SHAPE(33, 129), PARAM_NORMAL, 1, &index, &err), &err);
    EXPECT_OK(params_add(ps, "w.bias", SHAPE(4097), PARAM_NORMAL, 1, &index, &err), &err);
    EXPECT_OK(params_add(ps, "frozen", SHAPE(5, 7), PARAM_NORMAL, 1, &index, &err), &err);
    EXPECT_OK(params_add(ps, "one", SHAPE(1), PARAM_ONE, 1, &index, &err), &err);
    params_freeze(ps, "frozen", true);
    EXPECT_OK(params_seal(ps, 3, &err), &err);
    return ps;
}

static void set_grad(struct params *ps, uint32_t step)
{
    for (int i = 0; i < ps->count; i++) {
        const struct rng r = rng_at(1, 1, (uint64_t)i, step);

        rng_normal(&r, 0, ps->list[i].count, params_grad(ps, i));
    }
}

struct reference {
    double p, m, v, ema;
};

static double reference_norm(const struct params *ps)
{
    double sum = 0;

    for (int i = 0; i < ps->count; i++)
        for (int64_t k = 0; !ps->list[i].frozen && k < ps->list[i].count; k++) {
            double g = (double)((float *)ps->grad)[ps->list[i].at + k];

            sum += g * g;
        }
    return sqrt(sum) * config.grad_scale;
}

static void reference_step(const struct params *ps, struct reference *x, int t)
{
    double norm = reference_norm(ps);
    double scale = config.grad_scale * (norm > config.clip ? config.clip / norm : 1);

    for (int i = 0; i < ps->count; i++) {
        double decay = ps->list[i].shape.rank >= 2 ? config.decay : 0;
        double lr = config.lr * (strcmp(ps->list[i].name, "one") == 0 ? 3 : 1);

        for (int64_t k = ps->list[i].at; k < ps->list[i].at + ps->list[i].count; k++) {
            double g = scale * (double)((float *)ps->grad)[k];

            if (ps->list[i].frozen)
                continue;
            x[k].m = config.beta1 * x[k].m + (1 - config.beta1) * g;
            x[k].v = config.beta2 * x[k].v + (1 - config.beta2) * g * g;
            x[k].p -= lr * (x[k].m / (1 - pow(config.beta1, t)) /
                                (sqrt(x[k].v / (1 - pow(config.beta2, t))) + config.eps) +
                            decay * x[k].p);
            x[k].ema += (1 - config.ema_rate) * (x[k].p - x[k].ema);
        }
    }
}

TEST(follows_the_formulas)
{
    struct params *ps = make();
    struct reference *x = calloc((size_t)ps->total, sizeof(*x));
    struct adam *a;
    double worst = 0;

    EXPECT(x != NULL);
    EXPECT_OK(adam_new(ps, true, &a, &err), &err);
    EXPECT_OK(adam_rule(a, "one", 0, 3, &err), &err);
    for (int64_t k = 0; k < ps->total; k++)
        x[k].p = x[k].ema = (double)((float *)ps->value)[k];
    for (int t = 1; t <= 5; t++) {
        double norm;

        set_grad(ps, (uint32_t)t);
        norm = reference_norm(ps);
        reference_step(ps, x, t);
        adam_step(a, &config);
        EXPECT(fabs(a->norm - norm) < 1e-6 * norm && !a->skipped);
    }
    for (int64_t k = 0; k < ps->total; k++) {
        worst = fmax(worst, fabs((double)((float *)ps->value)[k] - x[k].p));
        worst = fmax(worst, fabs((double)((float *)a->ema)[k] - x[k].ema));
    }
    printf("worst difference %.1e after 5 steps\n", worst);
    EXPECT(worst < 2e-6); /* values of a few units */
    EXPECT(((float *)ps->value)[ps->list[0].at + ps->list[0].count] == 0); /* the gap */
    EXPECT_ERR(adam_rule(a, "nobody", 0, 1, &err), ERR_INPUT, &err);
    adam_free(a);
    params_free(ps);
    free(x);
}

static void run(const struct kernel_table *table, int threads, float *values)
{
    struct params *ps = make();
    struct adam *a;

    op_select(table);
    op_threads(threads);
    EXPECT_OK(adam_new(ps, false, &a, &err), &err);
    for (uint32_t t = 1; t <= 3; t++) {
        set_grad(ps, t);
        adam_step(a, &config);
    }
    memcpy(values, ps->value, (size_t)ps->total * sizeof(float));
    adam_free(a);
    params_free(ps);
    op_select(NULL);
    op_threads(0);
}

TEST(same_bits_everywhere)
{
    static float first[16384], other[16384];
    const struct kernel_table *tables[4];
    int count = op_tables(tables);

    run(tables[0], 1, first);
    for (int k = 0; k < count; k++) {
        run(tables[k], 1 + k, other);
        EXPECT_MEM(first, other, sizeof(first));
    }
}

TEST(a_bad_gradient_changes_nothing)
{
    struct params *ps = make();
    struct adam *a;
    float before;

    EXPECT_OK(adam_new(ps, false, &a, &err), &err);
    set_grad(ps, 1);
    before = ((float *)ps->value)[0];
    ((float *)ps->grad)[4000] = NAN;
    adam_step(a, &config);
    EXPECT(a->skipped && a->step == 0 && ((float *)ps->value)[0] == before);
    set_grad(ps, 1);
    ((float *)params_grad(ps, params_find(ps, "frozen")))[0] = INFINITY; /* does not count */
    adam_step(a, &config);
    EXPECT(!a->skipped && a->step == 1 && ((float *)ps->value)[0] != before);
    adam_free(a);
    params_free(ps);
}

RUN(follows_the_formulas, same_bits_everywhere, a_bad_gradient_changes_nothing)
