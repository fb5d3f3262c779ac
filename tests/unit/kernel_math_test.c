/* Random numbers against the published vectors; elementary functions against the C library. */
#include <math.h>
#include <stdio.h>

#include "kernels/rng.h"
#include "kernels/vmath.h"
#include "tests/check.h"

/* kat_vectors of Random123, philox4x32 with 10 rounds. */
TEST(philox_known_answers)
{
    static const uint32_t kat[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d,
         0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
         0x94fdcceb, 0x5001e420, 0x24126ea1}};

    for (int i = 0; i < 3; i++) {
        uint32_t out[4];

        philox4x32(kat[i], kat[i] + 4, out);
        EXPECT_MEM(out, kat[i] + 6, sizeof(out));
    }
}

/* Any piece of a stream equals the same piece of the whole. */
TEST(numbers_have_addresses)
{
    const struct rng r = rng_at(0x123456789abcdefu, 3, 1u << 20, 9);
    float whole[40], piece[7];
    double sum = 0, square = 0;

    rng_normal(&r, 0, 40, whole);
    rng_normal(&r, 13, 7, piece);
    EXPECT_MEM(piece, whole + 13, sizeof(piece));
    rng_uniforms(&r, 0, 40, whole);
    for (int i = 0; i < 40; i++)
        EXPECT(whole[i] == rng_uniform(&r, (uint64_t)i) && whole[i] > 0 && whole[i] < 1);
    for (int i = 0; i < 20000; i++) {
        float z;

        rng_normal(&r, (uint64_t)i, 1, &z);
        sum += (double)z;
        square += (double)z * (double)z;
        EXPECT(rng_below(&r, (uint64_t)i, 7) < 7);
    }
    EXPECT(fabs(sum / 20000) < 0.03 && fabs(square / 20000 - 1) < 0.04);
    EXPECT(rng_u32(&r, 0) != rng_u32(&(struct rng){{r.key[0], 4}, r.sample, r.step}, 0));
}

static double ulp(float x)
{
    int e;

    frexp((double)fabsf(x), &e);
    return ldexp(1, e - 24);
}

struct range {
    const char *name;
    float (*f)(float);
    double (*exact)(double);
    double low, high, ulps;
};

static float the_exp(float x)
{
    return vm_exp(x);
}
static float the_log(float x)
{
    return vm_log(x);
}
static float the_tanh(float x)
{
    return vm_tanh(x);
}
static float the_sigmoid(float x)
{
    return vm_sigmoid(x);
}
static double exact_sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

TEST(functions_are_accurate)
{
    static const struct range ranges[] = {{"exp", the_exp, exp, -87, 88, 1},
                                          {"log", the_log, log, 1e-30, 10, 1},
                                          {"log far", the_log, log, 10, 1e30, 1},
                                          {"tanh", the_tanh, tanh, -10, 10, 2},
                                          {"tanh small", the_tanh, tanh, -0.7, .7, 2},
                                          {"sigmoid", the_sigmoid, exact_sigmoid, -87, 30, 3}};

    for (size_t k = 0; k < sizeof(ranges) / sizeof(ranges[0]); k++) {
        const struct range *r = &ranges[k];
        double worst = 0;

        for (int i = 0; i <= 100000; i++) {
            float x = (float)(r->low + (r->high - r->low) * i / 100000);
            double want = r->exact((double)x);

            worst = fmax(worst, fabs((double)r->f(x) - want) / ulp((float)want));
        }
        printf("%s: %.2f ulp\n", r->name, worst);
        EXPECT(worst <= r->ulps);
    }
}

TEST(sines_and_cosines)
{
    double worst = 0;

    for (int i = -200000; i <= 200000; i++) {
        float x = (float)i * 0.04096f, s, c;

        vm_sincos(x, &s, &c);
        worst = fmax(worst, fabs((double)s - sin((double)x)));
        worst = fmax(worst, fabs((double)c - cos((double)x)));
    }
    printf("sin, cos: %.1e\n", worst);
    EXPECT(worst <= 1e-7);
}

TEST(edges)
{
    float s, c;

    EXPECT(vm_exp(-1000) > 0 && isfinite(vm_exp(1000)) && vm_exp(0) == 1);
    EXPECT(isnan(vm_exp(NAN)) && isnan(vm_tanh(NAN)) && isnan(vm_sigmoid(NAN)));
    EXPECT(isnan(vm_exp(-NAN)) && isnan(vm_log(NAN)) && isnan(vm_log(-1)));
    EXPECT(vm_log(0) == -INFINITY && isnan(vm_log(-NAN)));
    EXPECT(vm_log(1) == 0 && vm_tanh(0) == 0 && vm_tanh(-0.0f) == 0);
    EXPECT(vm_tanh(100) == 1 && vm_tanh(-100) == -1 && vm_sigmoid(0) == 0.5f);
    vm_sincos(0, &s, &c);
    EXPECT(s == 0 && c == 1);
}

RUN(philox_known_answers, numbers_have_addresses, functions_are_accurate, sines_and_cosines, edges)
