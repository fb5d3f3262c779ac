/* Inputs that no task of a run made: an artifact of another pipeline, or what --input put there.  Another kept run may have made them. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/lineage_internal.h"
#include "orchestrator/run.h"

#define RUNS_LOOKED_AT 500
#define DEPTH_MAX 16 /* pipelines that use each other's artifacts */

static bool is_open(const struct lineage_node *n)
{
    return n->kind == LINEAGE_FOREIGN || (n->kind == LINEAGE_SOURCE && !n->entry);
}

/* A node of the other graph as one of ours, and all that it came from.  map: its node -> ours, -1: not here yet. */
static int copy_node(struct lineage *g, const struct lineage *other, int node, int *map)
{
    int *todo = mem_zero(other->count + 1, sizeof(*todo));
    size_t n = 0;

    todo[n++] = node;
    for (size_t at = 0; at < n; at++) {
        const struct lineage_node *from = &other->nodes[todo[at]];
        struct lineage_node *to = lineage_add_node(g, from->kind, "");

        *to = *from;
        to->name = arena_printf(&g->arena, "run-%lld:%s", (long long)other->run, from->name);
        to->marked = false;
        to->inputs = arena_array(&g->arena, from->input_count + 1, sizeof(*to->inputs));
        map[todo[at]] = (int)g->count - 1;
        for (size_t i = 0; i < from->input_count; i++) {
            const int input = from->inputs[i].from;

            to->inputs[i] = from->inputs[i];
            if (map[input] == -1) {
                map[input] = -2; /* in the list */
                todo[n++] = input;
            }
        }
    }
    for (size_t at = 0; at < n; at++) {
        struct lineage_node *to = &g->nodes[map[todo[at]]];

        for (size_t i = 0; i < to->input_count; i++)
            to->inputs[i].from = map[to->inputs[i].from];
    }
    free(todo);
    return map[node];
}

static void join(struct lineage *g, int node, const struct lineage *other, int maker,
                 const char *output)
{
    int *map = mem_zero(other->count + 1, sizeof(*map));
    struct lineage_edge *e = arena_array(&g->arena, 1, sizeof(*e));

    for (size_t i = 0; i < other->count; i++)
        map[i] = -1;
    map[maker] = -2;
    *e = (struct lineage_edge){.from = copy_node(g, other, maker, map),
                               .output = output,
                               .input = "made by",
                               .digest = g->nodes[node].digest};
    g->nodes[node].inputs = e;
    g->nodes[node].input_count = 1;
    free(map);
}

/* A digest that is an output there, not merely something that came in. */
static int find_maker(const struct lineage *other, const struct digest *d, const char **output)
{
    for (size_t i = 0; i < other->count; i++)
        for (size_t k = 0; k < other->nodes[i].output_count; k++)
            if (other->nodes[i].kind == LINEAGE_TASK &&
                digest_eq(&other->nodes[i].outputs[k].digest, d)) {
                *output = other->nodes[i].outputs[k].name;
                return (int)i;
            }
    return -1;
}

/* Equal bytes may have been made by several pipelines, under other terms: the one that an artifact was asked of comes first. */
static bool is_asked(const struct lineage_node *n, const struct lineage *other, bool any)
{
    const char *pipeline = json_string_value(json_object_get(other->begin, "pipeline"));
    const char *slash = n->artifact ? strchr(n->artifact, '/') : NULL;

    if (n->input_count > 0 || !is_open(n))
        return false;
    return any || !slash ||
           (pipeline && strlen(pipeline) == (size_t)(slash - n->artifact) &&
            strncmp(pipeline, n->artifact, strlen(pipeline)) == 0);
}

static bool makes_any(const struct lineage *g, size_t nodes, const struct lineage *other, bool any)
{
    const char *output;

    for (size_t i = 0; i < nodes; i++)
        if (is_asked(&g->nodes[i], other, any) &&
            find_maker(other, &g->nodes[i].digest, &output) >= 0)
            return true;
    return false;
}

static enum err_code look_in(struct lineage *g, int64_t run, size_t nodes, int depth, bool any,
                             int64_t *open, struct err *err)
{
    struct lineage *other = NULL;
    bool used = false;
    enum err_code rc = lineage_load(g->st, run, &other, err);

    if (!rc && makes_any(g, nodes, other, any))
        rc = lineage_graft(other, depth + 1, err);
    for (size_t i = 0; !rc && i < nodes; i++) {
        const char *output;
        int maker;

        if (!is_asked(&g->nodes[i], other, any))
            continue;
        maker = find_maker(other, &g->nodes[i].digest, &output);
        if (maker < 0)
            continue;
        join(g, (int)i, other, maker, output);
        used = true;
        --*open;
    }
    if (used) {                               /* its strings and actions are ours now */
        struct lineage **last = &other->next; /* behind those that it has itself */

        while (*last)
            last = &(*last)->next;
        *last = g->next;
        g->next = other;
    } else {
        lineage_free(other);
    }
    return rc;
}

enum err_code lineage_graft(struct lineage *g, int depth, struct err *err)
{
    const size_t nodes = g->count;
    int64_t *runs = NULL, open = 0;
    size_t n = 0;
    enum err_code rc = OK;

    for (size_t i = 0; i < nodes; i++)
        open += is_open(&g->nodes[i]);
    if (open == 0 || depth >= DEPTH_MAX)
        return OK;
    rc = run_kept(g->st, &runs, &n, err);
    /* What a run takes in was there before it: newer runs come only where runs of another machine were pulled. */
    for (int pass = 0; pass < 4; pass++) {
        const bool any = pass & 1, older = pass < 2;

        for (size_t i = 0, looked = 0; !rc && open > 0 && i < n && looked < RUNS_LOOKED_AT; i++)
            if (runs[i] != g->run && (runs[i] < g->run) == older && (older || depth == 0)) {
                rc = look_in(g, runs[i], nodes, depth, any, &open, err);
                looked++;
            }
    }
    free(runs);
    return rc;
}

enum err_code lineage_extend(struct lineage *g, struct err *err)
{
    return lineage_graft(g, 0, err);
}
