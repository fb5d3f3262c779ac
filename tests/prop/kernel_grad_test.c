/* Gradients of every operator against central differences, in double precision: relative error below 1e-6. */
#include <math.h>
#include <stdlib.h>

#include "base/str.h"
#include "tests/kernel_cases.h"

#define STEP 1e-5
#define RELATIVE_MAX 1e-6

/* Directions: every input alone, then three over all inputs together.  Flat, like the parameters. */
static void make_direction(const struct rig *r, int which, double *d)
{
    memset(d, 0, (size_t)r->ps->total * sizeof(*d));
    for (int k = 0; k < r->ps->count; k++) {
        const struct param *p = &r->ps->list[k];
        const struct rng g = rng_at(11, (uint32_t)which, (uint64_t)k, 0);
        float z[256];

        if (which < r->ps->count && which != k)
            continue;
        for (int64_t i = 0; i < p->count; i++) {
            if (i % 256 == 0)
                rng_normal(&g, (uint64_t)i, 256, z);
            d[p->at + i] = (double)z[i % 256];
        }
    }
}

static void move(struct rig *r, const double *from, const double *d, double step)
{
    double *value = r->ps->value;

    for (int64_t i = 0; i < r->ps->total; i++)
        value[i] = from[i] + step * d[i];
}

static double slope(struct rig *r, const double *from, const double *d, double step)
{
    double up, down;

    move(r, from, d, step);
    up = rig_run(r);
    move(r, from, d, -step);
    down = rig_run(r);
    return (up - down) / (2 * step);
}

static double relative_error(struct rig *r, const double *from, const double *grad, const double *d)
{
    double predicted = 0, length = 0, change;

    for (int64_t i = 0; i < r->ps->total; i++) {
        predicted += d[i] * grad[i];
        length += fabs(d[i] * grad[i]);
    }
    /* Two steps combined, so that the third derivative cancels (Richardson). */
    change = (4 * slope(r, from, d, STEP) - slope(r, from, d, 2 * STEP)) / 3;
    return fabs(change - predicted) / fmax(length, 1e-3);
}

static double worst_of(const struct rig_case *c)
{
    struct rig r;
    double worst = 0, *from, *grad, *d;
    size_t bytes;

    rig_open(&r, c, &f64_kernels, false);
    bytes = (size_t)r.ps->total * sizeof(double);
    from = mem_alloc(bytes);
    grad = mem_alloc(bytes);
    d = mem_alloc(bytes);
    memcpy(from, r.ps->value, bytes);
    rig_run(&r);
    memcpy(grad, r.ps->grad, bytes);
    for (int which = 0; which < r.ps->count + 3; which++) {
        make_direction(&r, which, d);
        worst = fmax(worst, relative_error(&r, from, grad, d));
    }
    free(from);
    free(grad);
    free(d);
    rig_close(&r);
    return worst;
}

TEST(gradients_match_differences)
{
    double worst = 0;
    int bad = 0;

    for (size_t i = 0; i < sizeof(kernel_cases) / sizeof(kernel_cases[0]); i++) {
        double e = worst_of(&kernel_cases[i]);

        if (!(e < RELATIVE_MAX)) {
            printf("%s: relative error %.2e\n", kernel_cases[i].name, e);
            bad++;
        }
        worst = fmax(worst, e);
    }
    printf("worst relative error %.2e\n", worst);
    EXPECT_EQ(bad, 0);
}

RUN(gradients_match_differences)
