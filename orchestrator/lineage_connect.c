/* Who made what: digests joined up.
 *
 * Two nodes may hold the same bytes, and a task may put out what it took in, so "the node with this digest" can be the task itself or one that
 * comes after it.  Nodes are therefore taken in the order in which they could have run: a digest belongs to the first node, in that
 * order, that could have made it.  Names decide between nodes that could have run at the same time. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/lineage_internal.h"

struct thing { /* a digest that some node holds */
    struct digest digest;
    int node; /* -1: not made yet */
    const char *output;
    int waiting; /* first in the list of tasks that wait for it, -1: none */
};
struct wait {
    int task, next;
};
struct connect {
    struct lineage *g;
    struct thing *things; /* sorted by digest */
    size_t thing_count;
    struct wait *waits;
    size_t wait_count;
    int *missing; /* per task: inputs that are not made yet */
    int *queue;   /* tasks whose inputs are all made */
    size_t queued, taken;
};
typedef enum err_code (*input_fn)(struct connect *c, int task, const char *name,
                                  const struct digest *d, struct err *err);

static int by_digest(const void *a, const void *b)
{
    const struct thing *x = a, *y = b;

    return memcmp(x->digest.b, y->digest.b, sizeof(x->digest.b));
}

static struct thing *find(const struct connect *c, const struct digest *d)
{
    const struct thing key = {.digest = *d};

    return c->thing_count ? bsearch(&key, c->things, c->thing_count, sizeof(key), by_digest) : NULL;
}

static void collect(struct connect *c)
{
    const struct lineage *g = c->g;
    size_t n = 0, unique = 0;

    for (size_t i = 0; i < g->count; i++)
        n += 1 + g->nodes[i].output_count;
    c->things = mem_zero(n + 1, sizeof(*c->things));
    n = 0;
    for (size_t i = 0; i < g->count; i++) {
        const struct lineage_node *node = &g->nodes[i];

        if (node->kind == LINEAGE_SOURCE)
            c->things[n++].digest = node->digest;
        for (size_t k = 0; k < node->output_count; k++)
            c->things[n++].digest = node->outputs[k].digest;
    }
    qsort(c->things, n, sizeof(*c->things), by_digest);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || by_digest(&c->things[i], &c->things[unique - 1]) != 0)
            c->things[unique++] = c->things[i];
    c->thing_count = unique;
    for (size_t i = 0; i < unique; i++)
        c->things[i].node = c->things[i].waiting = -1;
}

static enum err_code one_input(struct connect *c, int task, const char *name, const json_t *v,
                               input_fn fn, struct err *err)
{
    const char *text = json_string_value(json_object_get(v, "digest"));
    struct digest d;
    enum err_code rc = digest_parse(text ? text : "", text ? strlen(text) : 0, &d, err);

    return rc ? err_prefix(err, "action of %s", c->g->nodes[task].name)
              : fn(c, task, name, &d, err);
}

/* Every digest that a task takes in, in the order of its action. */
static enum err_code each_input(struct connect *c, int task, input_fn fn, struct err *err)
{
    json_t *inputs = json_object_get(c->g->nodes[task].action, "inputs"), *in, *entry;
    size_t i, k;
    enum err_code rc = OK;

    json_array_foreach(inputs, i, in)
    {
        const char *name = json_string_value(json_object_get(in, "name"));
        json_t *entries = json_object_get(in, "entries");

        if (!rc && !json_is_array(entries))
            rc = one_input(c, task, name ? name : "", in, fn, err);
        json_array_foreach(entries, k, entry)
        {
            if (!rc)
                rc = one_input(c, task, name ? name : "", entry, fn, err);
        }
    }
    return rc;
}

/* ---- waiting ----------------------------------------------------------------------------------- */

static enum err_code wait_for(struct connect *c, int task, const char *name, const struct digest *d,
                              struct err *err)
{
    struct thing *t = find(c, d);

    (void)name;
    (void)err;
    if (!t || t->node >= 0)
        return OK;
    c->waits = mem_grow(c->waits, c->wait_count + 1, sizeof(*c->waits));
    c->waits[c->wait_count] = (struct wait){task, t->waiting};
    t->waiting = (int)c->wait_count++;
    c->missing[task]++;
    return OK;
}

static void made(struct connect *c, const struct digest *d, int node, const char *output)
{
    struct thing *t = find(c, d);

    if (!t || t->node >= 0)
        return;
    t->node = node;
    t->output = output;
    for (int w = t->waiting; w >= 0; w = c->waits[w].next)
        if (--c->missing[c->waits[w].task] == 0)
            c->queue[c->queued++] = c->waits[w].task;
}

/* ---- edges ------------------------------------------------------------------------------------- */

static int foreign(struct lineage *g, const struct digest *d)
{
    char text[DIGEST_TEXT + 1];

    for (size_t i = 0; i < g->count; i++)
        if (g->nodes[i].kind == LINEAGE_FOREIGN && digest_eq(&g->nodes[i].digest, d))
            return (int)i;
    digest_text(d, text);
    lineage_add_node(g, LINEAGE_FOREIGN, text)->digest = *d;
    return (int)g->count - 1;
}

static enum err_code count_input(struct connect *c, int task, const char *name,
                                 const struct digest *d, struct err *err)
{
    (void)name;
    (void)d;
    (void)err;
    c->missing[task]++;
    return OK;
}

static enum err_code add_edge(struct connect *c, int task, const char *name, const struct digest *d,
                              struct err *err)
{
    const struct thing *t = find(c, d);
    struct lineage_edge e = {.input = arena_strdup(&c->g->arena, name), .digest = *d};
    struct lineage_node *n;

    (void)err;
    e.from = t && t->node >= 0 ? t->node : foreign(c->g, d);
    e.output = t && t->node >= 0 ? t->output : NULL;
    n = &c->g->nodes[task]; /* foreign may have moved them */
    n->inputs[n->input_count++] = e;
    return OK;
}

static enum err_code connect_task(struct connect *c, int task, struct err *err)
{
    enum err_code rc;

    c->missing[task] = 0;
    rc = each_input(c, task, count_input, err);
    c->g->nodes[task].inputs =
        arena_array(&c->g->arena, (size_t)c->missing[task] + 1, sizeof(struct lineage_edge));
    c->missing[task] = -1; /* done */
    if (!rc)
        rc = each_input(c, task, add_edge, err);
    for (size_t k = 0; !rc && k < c->g->nodes[task].output_count; k++)
        made(c, &c->g->nodes[task].outputs[k].digest, task, c->g->nodes[task].outputs[k].name);
    return rc;
}

/* What only tasks make that wait for it themselves came from outside: the first of them takes it as it is, and the rest follow. */
static enum err_code connect_all(struct connect *c, size_t tasks, struct err *err)
{
    size_t left = 0;
    enum err_code rc = OK;

    while (!rc) {
        while (!rc && c->taken < c->queued)
            rc = connect_task(c, c->queue[c->taken++], err);
        while (left < tasks && c->missing[left] < 0)
            left++;
        if (rc || left == tasks)
            break;
        c->queue[c->queued++] = (int)left;
        c->missing[left] = -1;
    }
    return rc;
}

enum err_code lineage_connect(struct lineage *g, struct err *err)
{
    struct connect c = {.g = g};
    const size_t nodes = g->count;
    enum err_code rc = OK;

    collect(&c);
    c.missing = mem_zero(nodes + 1, sizeof(*c.missing));
    c.queue = mem_zero(2 * nodes + 1, sizeof(*c.queue));
    for (size_t i = 0; i < nodes; i++)
        if (g->nodes[i].kind == LINEAGE_SOURCE)
            made(&c, &g->nodes[i].digest, (int)i, NULL);
    for (size_t i = 0; !rc && i < nodes; i++) {
        if (g->nodes[i].kind != LINEAGE_TASK) {
            c.missing[i] = -1;
            continue;
        }
        rc = each_input(&c, (int)i, wait_for, err);
        if (c.missing[i] == 0)
            c.queue[c.queued++] = (int)i;
    }
    if (!rc)
        rc = connect_all(&c, nodes, err);
    free(c.things);
    free(c.waits);
    free(c.missing);
    free(c.queue);
    return rc;
}
