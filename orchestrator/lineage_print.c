/* Lineage for people, programs and Graphviz; licences folded along it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/licence.h"
#include "orchestrator/lineage.h"
#include "store/reader.h"
#include "store/tree.h"

#define LICENSES_BYTES_MAX (16 << 20)

/* ---- licences ---------------------------------------------------------------------------------- */

struct expressions { /* a set, in the order in which they were met */
    const char **list;
    size_t count, room;
};

static void add_expression(struct expressions *e, const char *spdx)
{
    for (size_t i = 0; i < e->count; i++)
        if (strcmp(e->list[i], spdx) == 0)
            return;
    if (e->count == e->room) {
        e->room = e->room ? 2 * e->room : 16;
        e->list = mem_grow(e->list, e->room, sizeof(*e->list));
    }
    e->list[e->count++] = spdx;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorted, so that the order of inputs does not show. */
static const char *join(struct lineage *g, struct expressions *e)
{
    struct buf text = {0};
    const char *out;

    if (e->count == 0)
        return "NOASSERTION";
    qsort(e->list, e->count, sizeof(*e->list), by_text);
    buf_init(&text, LICENSES_BYTES_MAX);
    for (size_t i = 0; i < e->count; i++) {
        const bool compound = strstr(e->list[i], " OR ") != NULL && e->count > 1;

        buf_printf(&text, "%s%s%s%s", i ? " AND " : "", compound ? "(" : "", e->list[i],
                   compound ? ")" : "");
    }
    out = arena_strndup(&g->arena, text.p ? text.p : "", text.n);
    buf_release(&text);
    return out;
}

/* licenses.json at the top of an output. */
static enum err_code own_licenses(struct lineage *g, const struct lineage_output *o,
                                  struct expressions *e, bool *found, struct err *err)
{
    struct tree t = {0};
    struct buf text = {0};
    const struct tree_entry *file;
    json_t *v = NULL, *row;
    size_t i;
    enum err_code rc;

    *found = false;
    if (o->object != OBJ_TREE)
        return OK;
    buf_init(&text, TREE_BYTES_MAX);
    rc = object_read(g->st, &o->digest, TREE_BYTES_MAX, &text, err);
    if (!rc)
        rc = tree_decode(text.p, text.n, 0, o->name, &t, err);
    file = rc ? NULL : tree_find(&t, STR("licenses.json"));
    if (file) {
        buf_clear(&text);
        rc = object_read(g->st, &file->digest, LICENSES_BYTES_MAX, &text, err);
        if (!rc)
            rc = json_parse(text.p, text.n, LICENSES_BYTES_MAX, "licenses.json", &v, err);
        json_array_foreach(json_object_get(v, "licenses"), i, row)
        {
            const char *spdx = json_string_value(json_object_get(row, "expression"));

            add_expression(e, spdx && licence_expression_ok(spdx, NULL)
                                  ? arena_strdup(&g->arena, spdx)
                                  : "NOASSERTION");
            *found = true;
        }
    }
    json_decref(v);
    tree_release(&t);
    buf_release(&text);
    return rc;
}

static enum err_code fold(struct lineage *g, int node, const char *output, struct expressions *e,
                          struct err *err);

/* Every input counts, whichever output is asked about: who uses a text encoder owes its licence. */
static enum err_code fold_inputs(struct lineage *g, int node, struct expressions *e,
                                 struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < g->nodes[node].input_count; i++)
        rc = fold(g, g->nodes[node].inputs[i].from, g->nodes[node].inputs[i].output, e, err);
    return rc;
}

static enum err_code fold(struct lineage *g, int node, const char *output, struct expressions *e,
                          struct err *err)
{
    struct lineage_node *n = &g->nodes[node];
    enum err_code rc = OK;

    if (n->kind != LINEAGE_TASK) {
        add_expression(e, n->license ? n->license : "NOASSERTION");
        return OK;
    }
    for (size_t i = 0; !rc && i < n->output_count; i++) {
        struct lineage_output *o = &n->outputs[i];
        struct expressions mine = {0};
        bool found;

        if (output && strcmp(o->name, output) != 0)
            continue;
        if (!o->license) {
            rc = own_licenses(g, o, &mine, &found, err);
            if (!rc && !found)
                rc = fold_inputs(g, node, &mine, err);
            if (!rc)
                o->license = join(g, &mine);
            free(mine.list);
        }
        if (!rc)
            add_expression(e, o->license);
    }
    return rc;
}

/* Inputs before users, with a list of its own instead of recursion: a pipeline may be a chain of thousands. */
static enum err_code fold_below(struct lineage *g, int node, struct err *err)
{
    struct frame {
        int node;
        size_t next;
    } *stack = mem_zero(g->count + 1, sizeof(*stack));
    bool *seen = mem_zero(g->count + 1, sizeof(*seen));
    size_t n = 0;
    enum err_code rc = OK;

    seen[node] = true;
    stack[n++] = (struct frame){.node = node};
    while (!rc && n > 0) {
        struct frame *top = &stack[n - 1];
        const struct lineage_node *at = &g->nodes[top->node];

        if (top->next < at->input_count) {
            const int from = at->inputs[top->next++].from;

            if (!seen[from])
                stack[n++] = (struct frame){.node = from};
            seen[from] = true;
        } else {
            struct expressions e = {0};

            rc = fold(g, top->node, NULL, &e, err);
            free(e.list);
            n--;
        }
    }
    free(seen);
    free(stack);
    return rc;
}

enum err_code lineage_license(struct lineage *g, int node, const char *output, const char **spdx,
                              struct err *err)
{
    struct expressions e = {0};
    enum err_code rc = fold_below(g, node, err);

    if (!rc)
        rc = fold(g, node, output, &e, err);
    if (!rc)
        *spdx = e.count == 1 ? e.list[0] : join(g, &e);
    free(e.list);
    return rc;
}

/* ---- text -------------------------------------------------------------------------------------- */

static void describe_action(const json_t *action, struct buf *out)
{
    const json_t *program = json_object_get(action, "program"),
                 *params = json_object_get(action, "params");
    const char *uses = json_string_value(json_object_get(program, "uses")),
               *digest = json_string_value(json_object_get(program, "digest")), *name;
    json_t *value;
    struct err ignored = ERR_INIT;

    if (uses)
        buf_printf(out, "  %s@%.15s", uses, digest ? digest : "");
    else
        buf_str(out, "  command");
    json_object_foreach((json_t *)(uintptr_t)params, name, value)
    {
        buf_printf(out, "  %s=", name);
        if (json_canonical(value, out, &ignored))
            buf_str(out, "?");
    }
}

static void describe(struct lineage *g, int node, struct buf *out)
{
    const struct lineage_node *n = &g->nodes[node];
    char text[DIGEST_TEXT + 1];

    digest_text(&n->digest, text);
    switch (n->kind) {
    case LINEAGE_SOURCE:
        buf_printf(out, "sources.%s  %.19s  %s", n->name, text, n->license ? n->license : "-");
        if (n->attribution)
            buf_printf(out, "  by %s", n->attribution);
        if (n->url)
            buf_printf(out, "  <%s>", n->url);
        break;
    case LINEAGE_TASK:
        buf_str(out, n->name);
        describe_action(n->action, out);
        break;
    case LINEAGE_FOREIGN:
        buf_printf(out, "%.19s  not made in this run", text);
        break;
    }
}

struct walk {
    struct lineage *g;
    struct buf *out;
    bool *seen, up;
};

static void indent(struct walk *w, int depth)
{
    for (int i = 0; i < depth; i++)
        buf_str(w->out, "  ");
}

/* A node that was written in full before is only named: a DAG stays as long as it is, whatever its paths. */
static void walk(struct walk *w, int node, const char *label, int depth)
{
    const struct lineage_node *n = &w->g->nodes[node];

    indent(w, depth);
    if (label)
        buf_printf(w->out, "%s: ", label);
    if (w->seen[node]) {
        buf_printf(w->out, "%s (above)\n", n->name);
        return;
    }
    w->seen[node] = true;
    describe(w->g, node, w->out);
    buf_char(w->out, '\n');
    if (depth > 200) {
        indent(w, depth + 1);
        buf_str(w->out, "...\n");
        return;
    }
    if (w->up) {
        for (size_t i = 0; i < n->input_count; i++)
            walk(w, n->inputs[i].from, n->inputs[i].input, depth + 1);
        return;
    }
    for (size_t i = 0; i < w->g->count; i++)
        for (size_t k = 0; k < w->g->nodes[i].input_count; k++)
            if (w->g->nodes[i].inputs[k].from == node) {
                walk(w, (int)i, w->g->nodes[i].inputs[k].input, depth + 1);
                break;
            }
}

enum err_code lineage_text(struct lineage *g, int node, bool up, struct buf *out, struct err *err)
{
    struct walk w = {.g = g, .out = out, .up = up};

    w.seen = mem_zero(g->count + 1, sizeof(*w.seen));
    walk(&w, node, NULL, 0);
    free(w.seen);
    return buf_check(out, "lineage", err);
}

/* ---- JSON, DOT --------------------------------------------------------------------------------- */

static json_t *digest_json(const struct digest *d)
{
    char text[DIGEST_TEXT + 1];

    digest_text(d, text);
    return json_string(text);
}

static json_t *node_json(const struct lineage_node *n)
{
    static const char *const kinds[] = {"task", "source", "foreign"};
    json_t *v = json_pack("{s:s, s:s, s:o}", "kind", kinds[n->kind], "name", n->name, "digest",
                          digest_json(&n->digest)),
           *list;

    CHECK(v);
    if (n->action)
        json_object_set(v, "action", n->action);
    if (n->entry)
        json_object_set(v, "entry", (json_t *)(uintptr_t)n->entry);
    if (n->license)
        json_object_set_new(v, "license", json_string(n->license));
    if (n->kind != LINEAGE_TASK)
        return v;
    list = json_array();
    for (size_t i = 0; i < n->output_count; i++)
        json_array_append_new(list, json_pack("{s:s, s:o, s:I}", "name", n->outputs[i].name,
                                              "digest", digest_json(&n->outputs[i].digest), "size",
                                              (json_int_t)n->outputs[i].size));
    json_object_set_new(v, "outputs", list);
    return v;
}

enum err_code lineage_json(struct lineage *g, int node, const char *output, json_t **out,
                           struct err *err)
{
    json_t *nodes = json_array(), *edges = json_array();
    const char *spdx = NULL;
    enum err_code rc = lineage_license(g, node, output, &spdx, err);

    for (size_t i = 0; i < g->count; i++) {
        const struct lineage_node *n = &g->nodes[i];

        if (!n->marked)
            continue;
        json_array_append_new(nodes, node_json(n));
        for (size_t k = 0; k < n->input_count; k++)
            if (g->nodes[n->inputs[k].from].marked)
                json_array_append_new(edges, json_pack("{s:s, s:s, s:s, s:s*, s:o}", "from",
                                                       g->nodes[n->inputs[k].from].name, "to",
                                                       n->name, "input", n->inputs[k].input,
                                                       "output", n->inputs[k].output, "digest",
                                                       digest_json(&n->inputs[k].digest)));
    }
    *out = rc ? NULL
              : json_pack("{s:s, s:s, s:s*, s:s, s:I, s:O*, s:O, s:O}", "weir", "lineage/1", "of",
                          g->nodes[node].name, "output", output, "license", spdx, "run",
                          (json_int_t)g->run, "begin", g->begin, "nodes", nodes, "edges", edges);
    json_decref(nodes);
    json_decref(edges);
    return rc;
}

static void dot_string(struct buf *out, const char *s)
{
    buf_char(out, '"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            buf_char(out, '\\');
        buf_char(out, *s);
    }
    buf_char(out, '"');
}

void lineage_dot(const struct lineage *g, struct buf *out)
{
    buf_str(out, "digraph lineage {\n  rankdir=TB;\n  node [shape=box];\n");
    for (size_t i = 0; i < g->count; i++)
        if (g->nodes[i].marked) {
            buf_printf(out, "  n%zu [label=", i);
            dot_string(out, g->nodes[i].name);
            buf_str(out, g->nodes[i].kind == LINEAGE_TASK ? "];\n" : ", shape=folder];\n");
        }
    for (size_t i = 0; i < g->count; i++)
        for (size_t k = 0; g->nodes[i].marked && k < g->nodes[i].input_count; k++)
            if (g->nodes[g->nodes[i].inputs[k].from].marked) {
                buf_printf(out, "  n%d -> n%zu [label=", g->nodes[i].inputs[k].from, i);
                dot_string(out, g->nodes[i].inputs[k].input);
                buf_str(out, "];\n");
            }
    buf_str(out, "}\n");
}
