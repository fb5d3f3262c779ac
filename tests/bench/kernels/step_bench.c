/* step_bench.c - a training step of the S3-DiT, dim 192, 8 layers, 64 image and 32 caption rows, batch 64, on the CPU.
 *
 *   step_bench [steps] [batch]
 *
 * Prints one line per figure: name, value, unit.  The peak is the library's own matrix product, one 1024^3 product per
 * thread, measured in the same run; CPU seconds are what counts on a busy machine. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/str.h"
#include "kernels/gemm.h"
#include "kernels/rng.h"
#include "tests/kernel_nets.h"

static double clock_of(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static const struct dit_config config = {.dim = 192,
                                         .layers = 8,
                                         .heads = 3,
                                         .refiners = 0,
                                         .cap = 192,
                                         .channels = 16,
                                         .axes = {16, 24, 24}};

/* GFLOP per CPU second and per wall second. */
static void peak(double *per_cpu, double *per_wall)
{
    enum { N = 1024, TIMES = 6 };
    int threads = op_thread_count();
    float *m = mem_alloc((size_t)threads * 3 * N * N * sizeof(float));
    double cpu, wall;

    for (int64_t i = 0; i < (int64_t)threads * 3 * N * N; i++)
        m[i] = (float)(i % 17) - 8;
    for (int pass = 0; pass < 2; pass++) {
        cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
        wall = clock_of(CLOCK_MONOTONIC);
#pragma omp parallel for schedule(static, 1)
        for (int k = 0; k < threads; k++)
            for (int i = 0; i < (pass ? TIMES : 1); i++) {
                float *a = m + (int64_t)k * 3 * N * N;
                const struct gemm g = {.m = N,
                                       .n = N,
                                       .k = N,
                                       .a = a,
                                       .b = a + N * N,
                                       .c = a + 2 * N * N,
                                       .lda = N,
                                       .ldb = N,
                                       .ldc = N};

                gemm_tile(&g);
            }
    }
    cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    wall = clock_of(CLOCK_MONOTONIC) - wall;
    *per_cpu = 2e-9 * TIMES * threads * N * N * N / cpu;
    *per_wall = 2e-9 * TIMES * threads * N * N * N / wall;
    free(m);
}

static void fill_floats(const struct tape *t, struct val v, uint32_t stream)
{
    const struct rng r = rng_at(1, stream, 0, 0);

    rng_normal(&r, 0, shape_count(tape_shape(t, v)), tape_data(t, v));
}

static struct dit_inputs inputs(struct tape *t, int64_t b)
{
    const int64_t sx = 64, sc = 32, su = 96;

    return (struct dit_inputs){
        .tokens = tape_input(t, "tokens", DT_F32, SHAPE(b, sx, 64)),
        .caption = tape_input(t, "caption", DT_F32, SHAPE(b, sc, config.cap)),
        .time = tape_input(t, "time", DT_F32, SHAPE(b)),
        .x_pick = tape_input(t, "x rows", DT_I32, SHAPE(b, sx)),
        .c_pick = tape_input(t, "caption rows", DT_I32, SHAPE(b, sc)),
        .u_pick = tape_input(t, "joined rows", DT_I32, SHAPE(b, su)),
        .x_pos = tape_input(t, "x positions", DT_I32, SHAPE(b, sx, 3)),
        .c_pos = tape_input(t, "caption positions", DT_I32, SHAPE(b, sc, 3)),
        .u_pos = tape_input(t, "joined positions", DT_I32, SHAPE(b, su, 3)),
        .x_len = tape_input(t, "x lengths", DT_I32, SHAPE(b)),
        .c_len = tape_input(t, "caption lengths", DT_I32, SHAPE(b)),
        .u_len = tape_input(t, "joined lengths", DT_I32, SHAPE(b)),
        .out_pick = tape_input(t, "answer rows", DT_I32, SHAPE(b, sx)),
    };
}

static void fill_inputs(const struct tape *t, const struct dit_inputs *in, int64_t b)
{
    int32_t *u = tape_data(t, in->u_pick), *pos = tape_data(t, in->u_pos);

    fill_floats(t, in->tokens, 1);
    fill_floats(t, in->caption, 2);
    fill_floats(t, in->time, 3);
    for (int32_t i = 0; i < b * 64; i++) {
        ((int32_t *)tape_data(t, in->x_pick))[i] = i;
        ((int32_t *)tape_data(t, in->out_pick))[i] = i / 64 * 96 + i % 64;
    }
    for (int32_t i = 0; i < b * 32; i++)
        ((int32_t *)tape_data(t, in->c_pick))[i] = i;
    for (int32_t i = 0; i < b * 96; i++) {
        int32_t s = i / 96, r = i % 96;

        u[i] = r < 64 ? s * 64 + r : (int32_t)(b * 64) + s * 32 + r - 64;
        pos[i * 3] = r < 64 ? 33 : r - 63;
        pos[i * 3 + 1] = r < 64 ? r / 8 : 0;
        pos[i * 3 + 2] = r < 64 ? r % 8 : 0;
    }
    for (int64_t s = 0; s < b; s++)
        ((int32_t *)tape_data(t, in->u_len))[s] = 96;
}

int main(int argc, char **argv)
{
    int64_t steps = 3, batch = 64;
    struct err err = ERR_INIT;
    struct tape *t = tape_new(DT_F32);
    struct params *ps = params_new(DT_F32);
    const struct adam_config adam = {
        .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .clip = 1, .ema_rate = 0.999};
    struct adam *opt = NULL;
    struct dit_inputs in;
    struct val target, out, loss;
    struct buf plan;
    double per_cpu, per_wall, cpu = 0, wall = 0, gflop, first = 0;

    op_start(argv);
    if (argc > 1 && str_to_i64(str_of(argv[1]), 1, 1000, &steps, &err) != OK)
        return 64;
    if (argc > 2 && str_to_i64(str_of(argv[2]), 1, 4096, &batch, &err) != OK)
        return 64;
    tape_poison(t, false);
    in = inputs(t, batch);
    target = tape_input(t, "target", DT_F32, SHAPE(batch, 64, 64));
    out = dit_record((struct net){t, ps}, &config, &in, false);
    loss = mse(t, out, target, NONE);
    tape_keep(t, loss);
    tape_grad_params(t, loss, NONE, ps);
    if (params_seal(ps, 1, &err) != OK || tape_plan(t, &err) != OK ||
        adam_new(ps, true, &opt, &err) != OK) {
        fprintf(stderr, "step_bench: %s\n", err.text);
        return 1;
    }
    buf_init(&plan, 1 << 16);
    tape_plan_text(t, &plan);
    printf("%s", plan.p);
    buf_release(&plan);
    fill_inputs(t, &in, batch);
    fill_floats(t, target, 4);
    peak(&per_cpu, &per_wall);
    gflop = 1e-9 * (double)tape_flops(t);
    for (int64_t i = 0; i <= steps; i++) { /* the first warms up */
        if (i == 1) {
            cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
            wall = clock_of(CLOCK_MONOTONIC);
        }
        params_zero_grad(ps);
        tape_run(t);
        adam_step(opt, &adam);
        if (i == 0)
            first = (double)*(float *)tape_data(t, loss);
    }
    cpu = (clock_of(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (double)steps;
    wall = (clock_of(CLOCK_MONOTONIC) - wall) / (double)steps;
    printf("parameters %lld\nthreads %d\ninstruction_set %s\n", (long long)ps->total,
           op_thread_count(), op_table()->name);
    printf("loss_first %.6f\nloss_last %.6f\n", first, (double)*(float *)tape_data(t, loss));
    printf("work %.1f GFLOP/step\n", gflop);
    printf("step_wall %.3f s\nstep_cpu %.3f cpu-s\n", wall, cpu);
    printf("rate %.1f GFLOP/cpu-s (%.1f GFLOP/s wall)\n", gflop / cpu, gflop / wall);
    printf("peak_gemm %.1f GFLOP/cpu-s (%.1f GFLOP/s wall)\n", per_cpu, per_wall);
    printf("fraction %.3f of the peak per cpu second\n", gflop / cpu / per_cpu);
    adam_free(opt);
    tape_free(t);
    params_free(ps);
    return 0;
}
