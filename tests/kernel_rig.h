/* kernel_rig.h - one description of an operator's case, from which all its tests come.
 *
 * Life:     rig_open records, plans and fills a case; rig_run; rig_close.
 * Owns:     a rig owns its tape and parameters.
 * Threads:  one.
 * Errors:   a failed expectation ends the test after printing the case's name.
 *
 * long: what a test needs of a case, in one place.
 *
 * A case declares its real inputs as parameters (so that gradients are accumulated as in training) and gives a value; the
 * loss is the sum of that value times fixed random weights.  Everything can be built in f32 and in f64.
 */
#ifndef WEIR_TESTS_KERNEL_RIG_H
#define WEIR_TESTS_KERNEL_RIG_H

#include <stdio.h>
#include <string.h>

#include "kernels/cpu/tables.h"
#include "kernels/elem.h"
#include "kernels/rng.h"
#include "tests/check.h"

#define RIG_IDS_MAX 8

struct rig_ids {
    struct val v;
    int32_t low, high;
    int64_t run; /* every run elements the range moves on by its width; 0: never */
};

struct rig {
    struct tape *t;
    struct params *ps;
    struct val out, loss, weights;
    struct rig_ids ids[RIG_IDS_MAX];
    int id_count;
};

struct rig_case {
    const char *name;
    struct val (*build)(struct rig *r, const int64_t *n);
    int64_t n[6];
    bool products;    /* contains matrix products: instruction sets differ in last bits */
    double tolerance; /* f32 against f64, relative to the largest element */
};

/* A real input: half a normal number around mean. */
static inline struct val real_in(struct rig *r, double mean, struct shape s)
{
    return tape_param(r->t, r->ps, s, PARAM_NORMAL, mean, "in%d", r->ps->count);
}

/* Integers in [low, high). */
static inline struct val int_in(struct rig *r, int64_t low, int64_t high, struct shape s)
{
    struct rig_ids *x = &r->ids[r->id_count++];

    CHECK(r->id_count <= RIG_IDS_MAX);
    *x = (struct rig_ids){
        .v = tape_input(r->t, "ids", DT_I32, s), .low = (int32_t)low, .high = (int32_t)high};
    return x->v;
}

/* For each row of a batch of samples, one of the sample's own groups. */
static inline struct val group_in(struct rig *r, int64_t batch, int64_t rows, int64_t groups)
{
    struct val v = int_in(r, 0, groups, SHAPE(batch, rows));

    r->ids[r->id_count - 1].run = rows;
    return v;
}

static inline void put_real(void *p, enum dtype type, int64_t i, double v)
{
    if (type == DT_F64)
        ((double *)p)[i] = v;
    else
        ((float *)p)[i] = (float)v;
}

static inline double get_real(const void *p, enum dtype type, int64_t i)
{
    return type == DT_F64 ? ((const double *)p)[i] : (double)((const float *)p)[i];
}

static inline void rig_fill(struct rig *r)
{
    enum dtype type = r->ps->type;
    int64_t n = shape_count(tape_shape(r->t, r->weights));
    const struct rng wg = rng_at(7, 3, 0, 0);
    float z[256];

    for (int i = 0; i < r->ps->count; i++) {
        const struct param *p = &r->ps->list[i];
        const struct rng g = rng_at(7, 1, (uint64_t)i, 0);

        for (int64_t j = 0; j < p->count; j++) {
            if (j % 256 == 0)
                rng_normal(&g, (uint64_t)j, 256, z);
            put_real(r->ps->value, type, p->at + j,
                     (double)(float)(p->scale + (double)z[j % 256] / 2));
        }
    }
    for (int i = 0; i < r->id_count; i++) {
        const struct rig_ids *x = &r->ids[i];
        const struct rng g = rng_at(7, 2, (uint64_t)i, 0);
        uint32_t width = (uint32_t)(x->high - x->low);

        for (int64_t j = 0; j < shape_count(tape_shape(r->t, x->v)); j++)
            ((int32_t *)tape_data(r->t, x->v))[j] = x->low +
                                                    (int32_t)rng_below(&g, (uint64_t)j, width) +
                                                    (int32_t)(x->run ? j / x->run * width : 0);
    }
    for (int64_t j = 0; j < n; j++) {
        if (j % 256 == 0)
            rng_normal(&wg, (uint64_t)j, 256, z);
        put_real(tape_data(r->t, r->weights), type, j, (double)z[j % 256]);
    }
}

static inline void rig_open(struct rig *r, const struct rig_case *c,
                            const struct kernel_table *table, bool watched)
{
    struct err err = ERR_INIT;

    *r = (struct rig){.t = tape_new(table->type), .ps = params_new(table->type)};
    op_select(table);
    tape_poison(r->t, watched);
    r->out = c->build(r, c->n);
    r->weights = tape_input(r->t, "weights", table->type, tape_shape(r->t, r->out));
    r->loss = sum_all(r->t, mul(r->t, r->out, r->weights), 1);
    tape_keep(r->t, r->out);
    tape_keep(r->t, r->loss);
    tape_grad_params(r->t, r->loss, NONE, r->ps);
    EXPECT_OK(params_seal(r->ps, 1, &err), &err);
    EXPECT_OK(tape_plan(r->t, &err), &err);
    if (r->ps->count)
        EXPECT_OK(params_need_grad(r->ps, &err), &err);
    rig_fill(r);
}

static inline void rig_close(struct rig *r)
{
    tape_free(r->t);
    params_free(r->ps);
    op_select(NULL);
}

/* The loss; gradients are those of this run alone. */
static inline double rig_run(struct rig *r)
{
    params_zero_grad(r->ps);
    tape_run(r->t);
    return get_real(tape_data(r->t, r->loss), r->ps->type, 0);
}

#endif
