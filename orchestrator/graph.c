/* From a pipeline to nodes and edges; as DOT, and as a list for graphs too wide to draw. */
#include "orchestrator/graph.h"

#include <stdlib.h>
#include <string.h>

/* ---- nodes and edges --------------------------------------------------------------------------- */

/* Sources nobody uses are left out; node_of[source] is -1 for them. */
static void add_sources(struct graph *g, int *node_of)
{
    const struct pipeline *p = g->p;

    for (size_t i = 0; i < p->source_count; i++)
        node_of[i] = -1;
    for (size_t t = 0; t < p->task_count; t++)
        for (size_t k = 0; k < p->tasks[t].input_count; k++)
            for (size_t r = 0; r < p->tasks[t].inputs[k].ref_count; r++)
                if (p->tasks[t].inputs[k].refs[r].source >= 0)
                    node_of[p->tasks[t].inputs[k].refs[r].source] = 0;
    for (size_t i = 0; i < p->source_count; i++) {
        if (node_of[i] < 0)
            continue;
        node_of[i] = g->node_count;
        g->nodes[g->node_count++] = (struct graph_node){
            .name = p->sources[i].name, .label = p->sources[i].name, .source = true};
    }
}

static void add_stages(struct graph *g)
{
    const struct pipeline *p = g->p;

    for (size_t i = 0; i < p->stage_count; i++) {
        const struct stage *s = &p->stages[i];
        struct graph_node *n = &g->nodes[g->node_count++];

        *n = (struct graph_node){.name = s->name, .tasks = s->task_count, .skipped = true};
        for (int t = 0; t < s->task_count; t++)
            n->skipped = n->skipped && p->tasks[s->first_task + t].skipped;
        n->label = s->matrix_count ? arena_printf(&g->arena, "%s \u00d7%d", s->name, s->task_count)
                                   : s->name;
        if (n->skipped)
            n->label = arena_printf(&g->arena, "%s (skipped)", n->label);
    }
}

static int by_nodes(const void *x, const void *y)
{
    const struct graph_edge *a = x, *b = y;
    int c;

    if (a->from != b->from)
        return a->from < b->from ? -1 : 1;
    if (a->to != b->to)
        return a->to < b->to ? -1 : 1;
    c = strcmp(a->output, b->output);
    return c ? c : strcmp(a->input, b->input);
}

/* Edges of the task, each once however many instances it has; returns how many are there now. */
static size_t add_edges(struct graph *g, const struct task *t, int to, const int *node_of,
                        int first_stage, size_t count, size_t *room)
{
    const struct pipeline *p = g->p;

    for (size_t k = 0; k < t->input_count; k++)
        for (size_t r = 0; r < t->inputs[k].ref_count; r++) {
            const struct task_input_ref *ref = &t->inputs[k].refs[r];
            const struct graph_edge e = {.from = ref->source >= 0
                                                     ? node_of[ref->source]
                                                     : first_stage + p->tasks[ref->task].stage,
                                         .to = to,
                                         .output = ref->output ? ref->output : "",
                                         .input = t->inputs[k].name};

            if (count > 0 && by_nodes(&g->edges[count - 1], &e) == 0)
                continue; /* a fan-in names the instances one after the other */
            if (count == *room) {
                *room = *room ? 2 * *room : 64;
                g->edges = mem_grow(g->edges, *room, sizeof(*g->edges));
            }
            g->edges[count++] = e;
        }
    return count;
}

static void collect_edges(struct graph *g, const int *node_of, int first_stage)
{
    const struct pipeline *p = g->p;
    size_t count = 0, room = 0, kept = 0;

    for (size_t i = 0; i < p->stage_count; i++)
        for (int t = 0; t < p->stages[i].task_count; t++) {
            const struct task *task = &p->tasks[p->stages[i].first_task + t];

            /* Instances that share their inputs say nothing new. */
            if (t == 0 || task->inputs != task[-1].inputs)
                count =
                    add_edges(g, task, first_stage + (int)i, node_of, first_stage, count, &room);
        }
    if (count > 0)
        qsort(g->edges, count, sizeof(*g->edges), by_nodes);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || by_nodes(&g->edges[kept - 1], &g->edges[i]) != 0)
            g->edges[kept++] = g->edges[i];
    g->edge_count = (int)kept;
}

/* A stage stands below what its instances need.  Tasks have no cycles, but stages may seem to: a[k=2] needs b, b needs
 * a[k=1].  Such an edge goes up, and is told in words. */
static void set_layers(struct graph *g, int first_stage)
{
    const struct pipeline *p = g->p;
    int *depth = mem_zero(p->task_count, sizeof(*depth));

    for (size_t i = 0; i < p->task_count; i++) {
        const int t = p->order[i];
        struct graph_node *n = &g->nodes[first_stage + p->tasks[t].stage];

        for (size_t k = 0; k < p->tasks[t].input_count; k++)
            for (size_t r = 0; r < p->tasks[t].inputs[k].ref_count; r++) {
                const struct task_input_ref *ref = &p->tasks[t].inputs[k].refs[r];
                const int above = ref->source >= 0 ? 0 : depth[ref->task];

                if (above + 1 > depth[t])
                    depth[t] = above + 1;
            }
        if (depth[t] > n->layer)
            n->layer = depth[t];
    }
    free(depth);
    for (int i = first_stage; i < g->node_count; i++)
        if (g->nodes[i].layer >= g->layer_count)
            g->layer_count = g->nodes[i].layer + 1;
    for (int i = 0; i < first_stage; i++)
        g->nodes[i].layer = g->layer_count;
    for (int e = 0; e < g->edge_count; e++) {
        struct graph_node *from = &g->nodes[g->edges[e].from];

        if (from->source && g->nodes[g->edges[e].to].layer - 1 < from->layer)
            from->layer = g->nodes[g->edges[e].to].layer - 1;
    }
}

void graph_new(struct graph *g, const struct pipeline *p)
{
    int *node_of;

    CHECK(p);
    *g = (struct graph){.p = p};
    arena_init(&g->arena);
    node_of = mem_zero(p->source_count, sizeof(*node_of));
    g->nodes = arena_array(&g->arena, p->source_count + p->stage_count + 1, sizeof(*g->nodes));
    add_sources(g, node_of);

    const int first_stage = g->node_count;

    add_stages(g);
    collect_edges(g, node_of, first_stage);
    set_layers(g, first_stage);
    free(node_of);
}

void graph_free(struct graph *g)
{
    free(g->edges);
    arena_release(&g->arena);
    *g = (struct graph){0};
}

/* ---- DOT --------------------------------------------------------------------------------------- */

static void escaped(struct buf *out, const char *s)
{
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            buf_char(out, '\\');
        buf_char(out, *s);
    }
}

/* Stages and sources may have equal names. */
static void id(struct buf *out, const struct graph_node *n)
{
    buf_printf(out, "\"%s%s\"", n->source ? "sources." : "", n->name);
}

static void dot_node(const struct graph *g, const struct graph_node *n, struct buf *out)
{
    const int i = n->source ? pipeline_find_source(g->p, n->name) : -1;
    const char *license = i >= 0 ? g->p->sources[i].license : NULL;

    buf_str(out, "  ");
    id(out, n);
    buf_str(out, " [label=\"");
    escaped(out, n->label);
    if (license) {
        buf_str(out, "\\n");
        escaped(out, license);
    }
    buf_char(out, '"');
    if (n->source)
        buf_str(out, ", shape=folder, fillcolor=\"#fdf6e3\"");
    if (n->tasks > 1)
        buf_str(out, ", peripheries=2");
    if (n->skipped)
        buf_str(out, ", style=\"rounded,dashed\", fontcolor=\"#888888\"");
    buf_str(out, "];\n");
}

static void dot_edge(const struct graph *g, const struct graph_edge *e, struct buf *out)
{
    buf_str(out, "  ");
    id(out, &g->nodes[e->from]);
    buf_str(out, " -> ");
    id(out, &g->nodes[e->to]);
    buf_str(out, " [label=");
    if (*e->output && strcmp(e->output, e->input) != 0)
        buf_printf(out, "\"%s \u2192 %s\"", e->output, e->input);
    else
        buf_printf(out, "\"%s\"", e->input);
    buf_str(out, "];\n");
}

void graph_dot(const struct graph *g, struct buf *out)
{
    const struct pipeline *p = g->p;

    buf_printf(out, "digraph \"%s\"", p->name);
    buf_str(out, " {\n"
                 "  node [shape=box, style=\"rounded,filled\", fillcolor=\"#eef4fb\", "
                 "fontname=\"Helvetica\", fontsize=11];\n"
                 "  edge [fontname=\"Helvetica\", fontsize=9, color=\"#666666\", "
                 "fontcolor=\"#666666\"];\n");
    for (int i = 0; i < g->node_count; i++)
        dot_node(g, &g->nodes[i], out);
    for (size_t i = 0; i < p->publish_count; i++) {
        const struct publish *x = &p->publishes[i];

        buf_printf(out, "  \"@%s\" [shape=note, fillcolor=\"#eafaea\"];\n", x->name);
        buf_printf(out, "  \"%s\" -> \"@%s\" [label=\"%s\"];\n",
                   p->stages[p->tasks[x->task].stage].name, x->name, x->output);
    }
    for (int e = 0; e < g->edge_count; e++)
        dot_edge(g, &g->edges[e], out);
    buf_str(out, "}\n");
}

/* ---- a list ------------------------------------------------------------------------------------ */

/* What a node needs, as " < a, b"; an edge's two outputs count once. */
static void list_needs(const struct graph *g, int to, const int *first, const int *by_to,
                       struct buf *out)
{
    int last = -1, told = 0;

    for (int i = first[to]; i < first[to + 1]; i++) {
        const struct graph_edge *e = &g->edges[by_to[i]];

        if (e->from == last)
            continue;
        last = e->from;
        buf_printf(out, "%s%s%s", told++ ? ", " : " \u2190 ",
                   g->nodes[last].source ? "sources." : "", g->nodes[last].name);
    }
}

static void list(const struct graph *g, struct buf *out)
{
    int *first = mem_zero((size_t)g->node_count + 2, sizeof(*first));
    int *by_to = mem_zero((size_t)g->edge_count + 1, sizeof(*by_to));

    for (int e = 0; e < g->edge_count; e++)
        first[g->edges[e].to + 2]++;
    for (int i = 2; i <= g->node_count + 1; i++)
        first[i] += first[i - 1];
    for (int e = 0; e < g->edge_count; e++)
        by_to[first[g->edges[e].to + 1]++] = e;
    for (int layer = 0; layer < g->layer_count; layer++)
        for (int i = 0; i < g->node_count; i++) {
            const struct graph_node *n = &g->nodes[i];

            if (n->layer != layer)
                continue;
            buf_printf(out, "%4d  %s%s", layer, n->source ? "sources." : "", n->label);
            list_needs(g, i, first, by_to, out);
            buf_char(out, '\n');
        }
    free(first);
    free(by_to);
}

void graph_text(const struct graph *g, int columns, struct buf *out)
{
    const size_t start = out->n;

    if (graph_draw(g, columns, out))
        return;
    out->n = start;
    list(g, out);
}
