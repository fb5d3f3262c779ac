/* Lineage for people, programs and Graphviz; licences folded along it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/card.h"
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

static void add_one(struct expressions *e, const char *spdx)
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

/* The word between spaces, outside of brackets, from p on; NULL when it is not there. */
static const char *find_word(const char *p, const char *word)
{
    const size_t n = strlen(word);
    int depth = 0;

    for (; *p; p++) {
        depth += (*p == '(') - (*p == ')');
        if (depth == 0 && *p == ' ' && strncmp(p + 1, word, n) == 0 && p[1 + n] == ' ')
            return p;
    }
    return NULL;
}

/* Brackets around all of it go: "(A OR B)" is "A OR B". */
static const char *bare(struct lineage *g, const char *p, size_t n)
{
    int depth = 0;

    for (size_t i = 0; n > 1 && p[0] == '(' && i < n; i++) {
        depth += (p[i] == '(') - (p[i] == ')');
        if (depth == 0 && i + 1 < n)
            return arena_strndup(&g->arena, p, n);
    }
    return n > 1 && p[0] == '(' && p[n - 1] == ')' ? arena_strndup(&g->arena, p + 1, n - 2)
                                                   : arena_strndup(&g->arena, p, n);
}

/* Parts of what was joined before are added one by one, so that none of them is there twice.  OR binds less than AND: then it stays whole. */
static void add_expression(struct lineage *g, struct expressions *e, const char *spdx)
{
    const char *end;

    if (find_word(spdx, "OR")) {
        add_one(e, spdx);
        return;
    }
    for (end = find_word(spdx, "AND"); end; end = find_word(spdx, "AND")) {
        add_one(e, bare(g, spdx, (size_t)(end - spdx)));
        spdx = end + strlen(" AND ");
    }
    add_one(e, bare(g, spdx, strlen(spdx)));
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

            add_expression(g, e,
                           spdx && licence_expression_ok(spdx, NULL) ? arena_strdup(&g->arena, spdx)
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

/* What was declared, what single files say, and what another run knows of an artifact: all of it counts. */
static enum err_code fold_leaf(struct lineage *g, int node, struct expressions *e, struct err *err)
{
    const struct lineage_node *n = &g->nodes[node];

    if (n->license || n->input_count == 0)
        add_expression(g, e, n->license ? n->license : "NOASSERTION");
    for (size_t i = 0; i < json_array_size(n->parts); i++) {
        const char *spdx =
            json_string_value(json_object_get(json_array_get(n->parts, i), "expression"));

        add_expression(g, e, spdx ? spdx : "NOASSERTION");
    }
    return fold_inputs(g, node, e, err);
}

static enum err_code fold(struct lineage *g, int node, const char *output, struct expressions *e,
                          struct err *err)
{
    struct lineage_node *n = &g->nodes[node];
    enum err_code rc = OK;

    if (n->kind != LINEAGE_TASK)
        return fold_leaf(g, node, e, err);
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
            add_expression(g, e, o->license);
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

static bool refused(const char *spdx, const char *const *deny, const char *const *allow_only)
{
    return !licence_passes(spdx ? spdx : "NOASSERTION", deny, allow_only, NULL);
}

const char *lineage_blame(struct lineage *g, int node, const char *const *deny,
                          const char *const *allow_only)
{
    lineage_up(g, node);
    for (size_t i = 0; i < g->count; i++) {
        const struct lineage_node *n = &g->nodes[i];

        if (!n->marked || n->kind == LINEAGE_TASK)
            continue;
        if ((n->license || n->input_count == 0) && refused(n->license, deny, allow_only))
            return n->name;
        for (size_t k = 0; k < json_array_size(n->parts); k++)
            if (refused(
                    json_string_value(json_object_get(json_array_get(n->parts, k), "expression")),
                    deny, allow_only))
                return n->name;
    }
    return NULL;
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

/* For terminals: no control bytes. */
static void put_text(const char *s, struct buf *out)
{
    json_name_escape(out, s, strlen(s));
}

/* "sources.NAME", also of another run: "run-3:sources.NAME" */
static void put_name(const struct lineage_node *n, struct buf *out)
{
    const char *colon = strncmp(n->name, "run-", 4) == 0 ? strchr(n->name, ':') : NULL;
    const size_t run = colon ? (size_t)(colon + 1 - n->name) : 0;

    buf_add(out, n->name, run);
    if (n->kind == LINEAGE_SOURCE)
        buf_str(out, "sources.");
    put_text(n->name + run, out);
}

static void describe(struct lineage *g, int node, struct buf *out)
{
    const struct lineage_node *n = &g->nodes[node];
    char text[DIGEST_TEXT + 1];

    digest_text(&n->digest, text);
    switch (n->kind) {
    case LINEAGE_SOURCE:
        put_name(n, out);
        buf_printf(out, "  %.19s  %s", text, n->license ? n->license : "-");
        for (size_t i = 0; i < json_array_size(n->parts); i++) {
            const json_t *part = json_array_get(n->parts, i);

            buf_printf(out, ", %lld files %s",
                       (long long)json_integer_value(json_object_get(part, "pictures")),
                       json_string_value(json_object_get(part, "expression")));
        }
        if (n->attribution) {
            buf_str(out, "  by ");
            put_text(n->attribution, out);
        }
        if (n->url) {
            buf_str(out, "  <");
            put_text(n->url, out);
            buf_char(out, '>');
        }
        break;
    case LINEAGE_TASK:
        put_name(n, out);
        describe_action(n->action, out);
        break;
    case LINEAGE_FOREIGN:
        buf_printf(out, "%.19s  %s", text,
                   n->input_count ? "from another run" : "not made in a run that is kept");
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
        put_name(n, w->out);
        buf_str(w->out, "  (above)\n");
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

static json_t *name_json(const struct lineage_node *n)
{
    struct buf text = {0};
    json_t *v;

    buf_init(&text, 1 << 16);
    put_name(n, &text);
    v = json_stringn(text.p ? text.p : "", text.n);
    buf_release(&text);
    return v;
}

static json_t *node_json(const struct lineage_node *n)
{
    static const char *const kinds[] = {"task", "source", "foreign"};
    json_t *v = json_pack("{s:s, s:o, s:o}", "kind", kinds[n->kind], "name", name_json(n), "digest",
                          digest_json(&n->digest)),
           *list;

    CHECK(v);
    if (n->action)
        json_object_set(v, "action", n->action);
    if (n->entry)
        json_object_set(v, "entry", (json_t *)(uintptr_t)n->entry);
    if (n->license)
        json_object_set_new(v, "license", json_string(n->license));
    if (n->parts)
        json_object_set(v, "licenses", (json_t *)(uintptr_t)n->parts);
    if (n->attribution)
        json_object_set_new(v, "attribution", json_string(n->attribution));
    if (n->url)
        json_object_set_new(v, "url", json_string(n->url));
    if (n->kind != LINEAGE_TASK)
        return v;
    json_object_set_new(v, "key", digest_json(&n->key));
    list = json_array();
    for (size_t i = 0; i < n->output_count; i++)
        json_array_append_new(
            list, json_pack("{s:s, s:o, s:s, s:I, s:s*}", "name", n->outputs[i].name, "digest",
                            digest_json(&n->outputs[i].digest), "kind",
                            obj_kind_word(n->outputs[i].object), "size",
                            (json_int_t)n->outputs[i].size, "license", n->outputs[i].license));
    json_object_set_new(v, "outputs", list);
    return v;
}

static json_t *edge_json(const struct lineage *g, const struct lineage_node *to,
                         const struct lineage_edge *e)
{
    return json_pack("{s:o, s:o, s:s, s:s*, s:o}", "from", name_json(&g->nodes[e->from]), "to",
                     name_json(to), "input", e->input, "output", e->output, "digest",
                     digest_json(&e->digest));
}

/* What is asked about: the whole result of a task, or one of its outputs. */
static void add_subject(const struct lineage_node *n, const char *output, json_t *v)
{
    const struct digest *d = &n->digest;
    const char *kind = n->kind == LINEAGE_TASK ? "result" : NULL;

    for (size_t i = 0; output && i < n->output_count; i++)
        if (strcmp(n->outputs[i].name, output) == 0) {
            d = &n->outputs[i].digest;
            kind = obj_kind_word(n->outputs[i].object);
            json_object_set_new(v, "size", json_integer(n->outputs[i].size));
        }
    json_object_set_new(v, "digest", digest_json(d));
    if (kind)
        json_object_set_new(v, "kind", json_string(kind));
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
                json_array_append_new(edges, edge_json(g, n, &n->inputs[k]));
    }
    *out = rc ? NULL
              : json_pack("{s:s, s:o, s:s*, s:s, s:I, s:O*, s:O, s:O}", "weir", "lineage/1", "of",
                          name_json(&g->nodes[node]), "output", output, "license", spdx, "run",
                          (json_int_t)g->run, "begin", g->begin, "nodes", nodes, "edges", edges);
    if (*out)
        add_subject(&g->nodes[node], output, *out);
    json_decref(nodes);
    json_decref(edges);
    return rc;
}

static void dot_string(struct buf *out, const char *s, size_t n)
{
    buf_char(out, '"');
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '"' || s[i] == '\\')
            buf_char(out, '\\');
        buf_char(out, s[i]);
    }
    buf_char(out, '"');
}

void lineage_dot(const struct lineage *g, struct buf *out)
{
    struct buf name = {0};

    buf_init(&name, 1 << 16);
    buf_str(out, "digraph lineage {\n  rankdir=TB;\n  node [shape=box];\n");
    for (size_t i = 0; i < g->count; i++)
        if (g->nodes[i].marked) {
            buf_printf(out, "  n%zu [label=", i);
            buf_clear(&name);
            put_name(&g->nodes[i], &name);
            dot_string(out, name.p ? name.p : "", name.n);
            buf_str(out, g->nodes[i].kind == LINEAGE_TASK ? "];\n" : ", shape=folder];\n");
        }
    for (size_t i = 0; i < g->count; i++)
        for (size_t k = 0; g->nodes[i].marked && k < g->nodes[i].input_count; k++)
            if (g->nodes[g->nodes[i].inputs[k].from].marked) {
                buf_printf(out, "  n%d -> n%zu [label=", g->nodes[i].inputs[k].from, i);
                dot_string(out, g->nodes[i].inputs[k].input, strlen(g->nodes[i].inputs[k].input));
                buf_str(out, "];\n");
            }
    buf_str(out, "}\n");
    buf_release(&name);
}
