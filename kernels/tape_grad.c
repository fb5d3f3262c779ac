/* Backward: the list is walked from the end; each node's vjp records the nodes that give its inputs' gradients.
 *
 * Segments.  When the walk first meets a node of a segment, all nodes of that segment are recorded again, and from there on
 * its vjp functions are shown the new values (map[]).  The old ones then die after the forward pass, the copies that nobody
 * needs are dropped by the planner.  A segment's inputs and outputs are the old values, kept alive by their users. */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "kernels/elem.h"
#include "kernels/tape_internal.h"

struct walk {
    struct tape *t;
    int values, nodes; /* as they were when the walk began */
    bool *need;        /* value -> does it depend on what we want */
    int *grad;         /* value -> its gradient so far, 0 for none */
    int *map;          /* value -> its copy in the segment that is being walked */
    int segment;
    struct params *sink; /* parameters whose gradients go to their memory, or NULL */
    int *
        first_use; /* value -> the first node that reads it: after that one, backward, its gradient is complete */
    bool *delivered;
};

static void walk_init(struct walk *w, struct tape *t)
{
    CHECK(!t->planned && t->segment == 0);
    *w = (struct walk){.t = t, .values = t->values, .nodes = t->nodes};
    w->need = mem_zero((size_t)w->values, sizeof(*w->need));
    w->grad = mem_zero((size_t)w->values, sizeof(*w->grad));
    w->map = mem_zero((size_t)w->values, sizeof(*w->map));
    w->first_use = mem_zero((size_t)w->values, sizeof(*w->first_use));
    w->delivered = mem_zero((size_t)w->values, sizeof(*w->delivered));
    for (int i = w->nodes - 1; i >= 0; i--)
        for (int k = 0; k < t->node[i].inputs; k++)
            w->first_use[t->node[i].in[k]] = i;
}

static void walk_release(struct walk *w)
{
    free(w->need);
    free(w->grad);
    free(w->map);
    free(w->first_use);
    free(w->delivered);
}

static void mark(struct walk *w)
{
    for (int i = 0; i < w->nodes; i++) {
        const struct node *n = &w->t->node[i];
        bool any = false;

        for (int k = 0; k < n->inputs; k++)
            any |= w->need[n->in[k]];
        for (int k = 0; any && k < n->outputs; k++)
            if (!w->t->value[n->out[k]].detached)
                w->need[n->out[k]] = true;
    }
}

static void record_again(struct walk *w, int segment)
{
    memset(w->map, 0, (size_t)w->values * sizeof(*w->map));
    w->segment = segment;
    for (int i = 0; segment && i < w->nodes; i++) {
        const struct node n = w->t->node[i];
        struct val in[OP_INPUTS_MAX], out;

        if (n.segment != segment)
            continue;
        for (int k = 0; k < n.inputs; k++)
            in[k].id = w->map[n.in[k]] ? w->map[n.in[k]] : n.in[k];
        out = tape_op(w->t, n.op, &n.attr, in, n.inputs);
        if (n.op == &op_view && !tape_failed(w->t))
            w->t->value[out.id].base = w->t->value[in[0].id].base;
        for (int k = 0; k < n.outputs; k++)
            w->map[n.out[k]] = out.id + k;
    }
}

static struct val mapped(const struct walk *w, int v)
{
    return (struct val){w->map[v] ? w->map[v] : v};
}

static enum err_code accumulate_infer(struct call *c, struct err *err)
{
    (void)err;
    c->out[0] = (struct tensor){.shape = c->in[0].shape, .type = c->in[0].type};
    return OK;
}

/* Gradient memory += in.  Its output is that memory, so the planner keeps the node. */
const struct op op_accumulate = {.name = "accumulate",
                                 .kernel = KERNEL_accumulate,
                                 .inputs_min = 1,
                                 .inputs_max = 1,
                                 .outputs = 1,
                                 .infer = accumulate_infer};

/* The gradient of a wanted parameter is complete: add it to its memory now, so that it need not live to the end. */
static void deliver(struct walk *w, int v)
{
    struct tape *t = w->t;
    struct val g = {w->grad[v]}, out;
    int slot;

    if (!w->sink || !g.id || w->delivered[v] || t->value[v].kind != VALUE_PARAM ||
        t->value[v].set != w->sink)
        return;
    out = tape_op(t, &op_accumulate, NULL, &g, 1);
    if (tape_failed(t))
        return;
    slot = tape_grad_slot(t, w->sink, t->value[v].param); /* may move the values */
    t->value[out.id].base = slot;
    t->value[out.id].keep = true;
    w->delivered[v] = true;
}

static void step(struct walk *w, int i)
{
    const struct node n = w->t->node[i];
    struct vjp v = {.t = w->t, .attr = &n.attr, .inputs = n.inputs};
    bool any = false;

    for (int k = 0; k < n.outputs; k++)
        any |= (v.out_grad[k].id = w->grad[n.out[k]]) != 0;
    for (int k = 0; k < n.inputs; k++)
        v.need[k] = w->need[n.in[k]];
    if (!any || !w->need[n.out[0]])
        return;
    if (n.segment != w->segment)
        record_again(w, n.segment);
    if (!n.op->vjp) {
        tape_fail(w->t, "operator %s has no derivative: put tape_detach in front of it or after it",
                  n.op->name);
        return;
    }
    for (int k = 0; k < n.outputs; k++)
        v.out[k] = mapped(w, n.out[k]);
    for (int k = 0; k < n.inputs; k++) {
        v.in[k] = mapped(w, n.in[k]);
        v.so_far[k].id = n.in[k] ? w->grad[n.in[k]] : 0;
        for (int j = 0; j < k; j++) /* the same value twice: so_far would be stale for the second */
            if (n.in[j] == n.in[k])
                v.so_far[k] = v.so_far[j] = NONE;
    }
    n.op->vjp(&v);
    for (int k = 0; k < n.inputs; k++) {
        int *sum = &w->grad[n.in[k]];

        if (!v.need[k] || !v.in_grad[k].id)
            continue;
        if (*sum && !v.summed[k])
            v.in_grad[k] = add(w->t, (struct val){*sum}, v.in_grad[k]);
        *sum = v.in_grad[k].id;
    }
    for (int k = 0; k < n.inputs; k++)
        if (n.in[k] && w->first_use[n.in[k]] == i)
            deliver(w, n.in[k]);
}

static void go(struct walk *w, struct val root, struct val seed)
{
    char text[SHAPE_TEXT_MAX];

    CHECK(root.id > 0 && root.id < w->values);
    mark(w);
    if (tape_failed(w->t) || !w->need[root.id])
        return;
    if (!seed.id) {
        struct shape s = tape_shape(w->t, root);

        if (shape_count(s) != 1)
            tape_fail(w->t,
                      "the gradient of a value of shape %s needs a seed: only scalars do "
                      "without",
                      shape_text(s, text));
        seed = fill(w->t, s, 1.0);
    } else if (!shape_eq(tape_shape(w->t, seed), tape_shape(w->t, root))) {
        tape_fail(w->t, "a seed has the shape of its root, %s",
                  shape_text(tape_shape(w->t, root), text));
    }
    w->grad[root.id] = seed.id;
    for (int i = w->nodes - 1; i >= 0 && !tape_failed(w->t); i--)
        step(w, i);
}

void tape_grad(struct tape *t, struct val root, struct val seed, const struct val *wrt, int count,
               struct val *grads)
{
    struct walk w;

    walk_init(&w, t);
    for (int i = 0; i < count; i++)
        w.need[wrt[i].id] = true;
    go(&w, root, seed);
    for (int i = 0; i < count; i++)
        grads[i].id = w.grad[wrt[i].id];
    walk_release(&w);
}

void tape_grad_params(struct tape *t, struct val root, struct val seed, struct params *ps)
{
    struct walk w;

    walk_init(&w, t);
    w.sink = ps;
    for (int v = 1; v < w.values; v++)
        w.need[v] = t->value[v].kind == VALUE_PARAM && t->value[v].set == ps &&
                    !ps->list[t->value[v].param].frozen;
    go(&w, root, seed);
    for (int v = 1; v < w.values && !tape_failed(t); v++)
        deliver(&w, v); /* those whose first user had no part in the loss */
    walk_release(&w);
}
