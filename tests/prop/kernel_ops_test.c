/* Every operator in f32: near its double-precision twin, the same bits twice, for 1 and 2 threads, for each instruction set
 * where that is promised, with guard bytes around outputs and NaN in everything not yet written. */
#include <math.h>
#include <stdlib.h>

#include "base/str.h"
#include "tests/kernel_cases.h"

/* Output, then all gradients, as doubles. */
struct result {
    double *v;
    int64_t n, out;
};

static struct result take(struct rig *r)
{
    struct result x = {.out = shape_count(tape_shape(r->t, r->out))};
    enum dtype type = r->ps->type;

    x.n = x.out + r->ps->total;
    x.v = mem_alloc((size_t)x.n * sizeof(double));
    rig_run(r);
    for (int64_t i = 0; i < x.out; i++)
        x.v[i] = get_real(tape_data(r->t, r->out), type, i);
    for (int64_t i = x.out; i < x.n; i++)
        x.v[i] = get_real(r->ps->grad, type, i - x.out);
    return x;
}

static struct result run(const struct rig_case *c, const struct kernel_table *table, int threads,
                         bool watched)
{
    struct result x;
    struct rig r;

    op_threads(threads);
    rig_open(&r, c, table, watched);
    x = take(&r);
    rig_close(&r);
    op_threads(0);
    return x;
}

static double error_of(const double *x, const double *y, int64_t n)
{
    double largest = 0, off = 0;

    for (int64_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs(y[i]));
        off = isfinite(x[i]) ? fmax(off, fabs(x[i] - y[i])) : INFINITY;
    }
    return largest > 0 ? off / largest : off;
}

#define CASES (sizeof(kernel_cases) / sizeof(kernel_cases[0]))

TEST(close_to_double)
{
    int bad = 0;

    for (size_t i = 0; i < CASES; i++) {
        const struct rig_case *c = &kernel_cases[i];
        struct result x = run(c, op_table(), 2, true), y = run(c, &f64_kernels, 2, true);
        double e;

        e = fmax(error_of(x.v, y.v, x.out), error_of(x.v + x.out, y.v + x.out, x.n - x.out));
        if (!(e <= c->tolerance)) {
            printf("%s: relative error %.2e above %.0e\n", c->name, e, c->tolerance);
            bad++;
        }
        free(x.v);
        free(y.v);
    }
    EXPECT_EQ(bad, 0);
}

static bool same(const struct result *x, const struct result *y)
{
    return x->n == y->n && memcmp(x->v, y->v, (size_t)x->n * sizeof(double)) == 0;
}

TEST(same_bits_for_any_thread_count)
{
    const struct kernel_table *tables[4];
    int count = op_tables(tables), bad = 0;

    for (size_t i = 0; i < CASES; i++)
        for (int k = 0; k < count; k++) {
            const struct rig_case *c = &kernel_cases[i];
            struct result one = run(c, tables[k], 1, false), two = run(c, tables[k], 2, false);
            struct result five = run(c, tables[k], 5, true);

            if (!same(&one, &two) || !same(&one, &five)) {
                printf("%s, %s: bits depend on threads\n", c->name, tables[k]->name);
                bad++;
            }
            free(one.v);
            free(two.v);
            free(five.v);
        }
    EXPECT_EQ(bad, 0);
}

TEST(same_bits_for_any_instruction_set)
{
    const struct kernel_table *tables[4];
    int count = op_tables(tables), bad = 0, checked = 0;

    for (size_t i = 0; i < CASES; i++) {
        const struct rig_case *c = &kernel_cases[i];
        struct result x;

        if (c->products)
            continue;
        x = run(c, tables[0], 2, false);
        for (int k = 1; k < count; k++) {
            struct result y = run(c, tables[k], 2, false);

            if (!same(&x, &y)) {
                printf("%s: %s and %s differ\n", c->name, tables[0]->name, tables[k]->name);
                bad++;
            }
            checked++;
            free(y.v);
        }
        free(x.v);
    }
    printf("%d comparisons of instruction sets\n", checked);
    EXPECT_EQ(bad, 0);
}

TEST(a_run_repeats_its_bits)
{
    for (size_t i = 0; i < CASES; i++) {
        struct rig r;
        struct result x, y;

        rig_open(&r, &kernel_cases[i], op_table(), false);
        x = take(&r);
        y = take(&r);
        EXPECT(same(&x, &y));
        free(x.v);
        free(y.v);
        rig_close(&r);
    }
}

RUN(close_to_double, same_bits_for_any_thread_count, same_bits_for_any_instruction_set,
    a_run_repeats_its_bits)
