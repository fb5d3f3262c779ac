/* Random edits of a pipeline and its files: whoever asks with the memo gets what somebody without one gets. */
#include <unistd.h>

#include "store/index.h"
#include "tests/resolve_rig.h"
#include "tests/store_gen.h"

#define WORLDS 6
#define STEPS 40

struct world {
    int params[6], files[3], code[2], order, renamed, width, out;
};

static void write_world(const struct rig *g, const struct world *w)
{
    struct buf y;
    char name[32], text[32];

    buf_init(&y, 1 << 16);
    buf_printf(&y, "weir: 1\nname: world\nparams: {p: %d}\nsources:\n", w->params[0]);
    for (int i = 0; i < 3; i++) {
        buf_printf(&y, "  s%d: {path: f%d, license: MIT}\n", i, i);
        (void)snprintf(name, sizeof(name), "f%d", i);
        (void)snprintf(text, sizeof(text), "%d", w->files[i]);
        rig_write(g, name, text);
    }
    for (int i = 0; i < 2; i++) {
        (void)snprintf(name, sizeof(name), "c%d", i);
        (void)snprintf(text, sizeof(text), "%d", w->code[i]);
        rig_write(g, name, text);
    }
    buf_printf(&y, "stages:\n  %s:\n    run: [a]\n    code: [c0]\n    inputs: {x: sources.s0}\n",
               w->renamed ? "b" : "a");
    buf_printf(&y, "    outputs: [o]\n    params: {p: \"${params.p}\", out: \"a%d\"}\n",
               w->params[1] / 2);
    buf_str(&y, "  m:\n    run: [m]\n    matrix: {k: [0");
    for (int i = 1; i < w->width; i++)
        buf_printf(&y, ", %d", i);
    buf_printf(&y, "]}\n    inputs: {x: %s.o, y: sources.s1}\n    outputs: [o, p]\n",
               w->renamed ? "b" : "a");
    buf_printf(&y, "    params: {k: \"${matrix.k}\", q: %d%s}\n", w->params[2],
               w->out ? ", out: fixed" : "");
    buf_printf(&y,
               "  j:\n    run: join\n    code: [c1]\n    inputs: {all: [%s]}\n    outputs: [o]\n",
               w->order ? "\"m[*].o\", sources.s2" : "sources.s2, \"m[*].p\"");
    buf_printf(&y, "    params: {r: %d, out: \"j%d\"}\n", w->params[3], w->params[3] / 2);
    buf_printf(&y,
               "  e:\n    run: end\n    inputs: {x: j.o}\n    outputs: [o]\n    params: {t: %d}\n",
               w->params[4]);
    buf_printf(&y, "    resources: {cpus: %d}\n", 1 + w->params[5]);
    rig_write(g, "pipe.yaml", y.p);
    buf_release(&y);
}

static void edit(struct world *w, uint64_t *seed)
{
    switch (gen_below(seed, 8)) {
    case 0:
        w->files[gen_below(seed, 3)] = (int)gen_below(seed, 3);
        break;
    case 1:
        w->code[gen_below(seed, 2)] = (int)gen_below(seed, 2);
        break;
    case 2:
        w->order = !w->order;
        break;
    case 3:
        w->renamed = !w->renamed;
        break;
    case 4:
        w->width = 1 + (int)gen_below(seed, 4);
        break;
    case 5:
        w->out = !w->out;
        break;
    default:
        w->params[gen_below(seed, 6)] = (int)gen_below(seed, 4);
        break;
    }
}

/* What the memo says and what is so. */
static void compare(struct rig *with, const struct rig *plain, uint64_t seed, int step)
{
    for (size_t i = 0; i < plain->p->task_count; i++) {
        const struct task_result *a = &with->results[i], *b = &plain->results[i];
        bool same = with->keyed[i] == plain->keyed[i] && a->known == b->known;

        if (same && with->keyed[i])
            same = digest_eq(&a->key, &b->key);
        if (same && a->known) {
            same = digest_eq(&a->result, &b->result) && a->output_count == b->output_count;
            for (size_t k = 0; same && k < a->output_count; k++)
                same = digest_eq(&a->outputs[k].digest, &b->outputs[k].digest) &&
                       a->outputs[k].size == b->outputs[k].size &&
                       a->outputs[k].kind == b->outputs[k].kind &&
                       strcmp(a->outputs[k].name, b->outputs[k].name) == 0;
        }
        if (!same)
            (void)fprintf(stderr, "seed %llu, step %d, task %s\n", (unsigned long long)seed, step,
                          plain->p->tasks[i].name);
        EXPECT(same);
    }
}

/* Something leaves the store now and then. */
static void lose_one(struct rig *g, uint64_t *seed)
{
    const size_t task = gen_below(seed, g->p->task_count);
    const struct task_result *t = resolve_get(g->r, (int)task);
    struct digest lost;

    if (!t->known)
        return;
    lost = gen_below(seed, 2) ? t->result : t->outputs[0].digest;
    EXPECT_OK(index_drop_objects(g->st->index, &lost, 1, &g->err), &g->err);
}

static void live(uint64_t seed)
{
    static const struct resolver_options no_memo = {.no_memo = true};
    const uint64_t first = seed;
    struct world w = {.width = 2};
    struct rig g, plain;

    rig_new(&g);
    for (int step = 0; step < STEPS; step++) {
        write_world(&g, &w);
        rig_open(&g, NULL, NULL);
        rig_all(&g);
        plain = g;
        plain.r = NULL;
        plain.p = NULL;
        plain.results = NULL;
        plain.keyed = NULL;
        rig_open(&plain, NULL, &no_memo);
        rig_all(&plain);
        compare(&g, &plain, first, step);
        rig_close(&plain);
        if (gen_below(&seed, 3))
            (void)rig_run(&g);
        if (gen_below(&seed, 8) == 0)
            lose_one(&g, &seed);
        if (gen_below(&seed, 4))
            EXPECT_OK(resolver_save(g.r, &g.err), &g.err);
        for (size_t n = gen_below(&seed, 3); n > 0; n--)
            edit(&w, &seed);
    }
    rig_free(&g);
}

TEST(the_memo_changes_no_answer)
{
    for (uint64_t seed = 1; seed <= WORLDS; seed++)
        live(seed * 1000003);
}

RUN(the_memo_changes_no_answer)
