
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/lineage_internal.h"
#include "orchestrator/record.h"
#include "orchestrator/source_internal.h"
#include "store/action.h"
#include "store/reader.h"
#include "store/tree.h"

#define EVENTS_BYTES_MAX ((int64_t)1 << 30)
#define RECORD_BYTES_MAX (16 << 20)

struct lineage_node *lineage_add_node(struct lineage *g, enum lineage_kind kind, const char *name)
{
    if (g->count == g->room) {
        g->room = g->room ? 2 * g->room : 64;
        g->nodes = mem_grow(g->nodes, g->room, sizeof(*g->nodes));
    }
    g->nodes[g->count] = (struct lineage_node){.kind = kind, .name = arena_strdup(&g->arena, name)};
    return &g->nodes[g->count++];
}

static enum err_code read_json(struct lineage *g, const struct digest *id, const char *what,
                               json_t **out, struct err *err)
{
    struct buf text = {0};
    enum err_code rc;

    buf_init(&text, RECORD_BYTES_MAX);
    rc = object_read(g->st, id, RECORD_BYTES_MAX, &text, err);
    if (!rc)
        rc = json_parse(text.p, text.n, RECORD_BYTES_MAX, what, out, err);
    if (!rc)
        json_array_append_new(g->keep, *out);
    buf_release(&text);
    return rc;
}

static enum err_code read_tree(struct lineage *g, const struct digest *id, const char *what,
                               struct tree *out, struct err *err)
{
    struct buf text = {0};
    enum err_code rc;

    buf_init(&text, TREE_BYTES_MAX);
    rc = object_read(g->st, id, TREE_BYTES_MAX, &text, err);
    if (!rc)
        rc = tree_decode(text.p, text.n, -1, what, out, err);
    buf_release(&text);
    return rc;
}

/* ---- sources ----------------------------------------------------------------------------------- */

static const char *member(struct lineage *g, const json_t *v, const char *key)
{
    const char *s = json_string_value(json_object_get(v, key));

    return s ? arena_strdup(&g->arena, s) : NULL;
}

static enum err_code digest_of(const json_t *v, const char *key, struct digest *out,
                               struct err *err)
{
    const char *text = json_string_value(json_object_get(v, key));

    *out = (struct digest){{0}};
    return text ? digest_parse(text, strlen(text), out, err) : OK;
}

/* Licences of single files; the source's own counts for those that the records file does not list. */
static enum err_code take_records(struct lineage *g, const json_t *record, const json_t **out,
                                  struct err *err)
{
    struct digest records;
    json_t *parts = NULL;
    enum err_code rc = digest_of(record, "records", &records, err);

    if (rc || digest_is_zero(&records))
        return rc;
    rc = source_records_sum(g->st, NULL, &records, "records file of a source", &parts, err);
    if (rc == ERR_NOT_FOUND) { /* files under licences that nobody knows any more */
        *err = (struct err)ERR_INIT;
        parts = json_pack("[{s:s}]", "expression", "NOASSERTION");
        rc = OK;
    }
    if (!rc)
        json_array_append_new(g->keep, parts);
    *out = parts;
    return rc;
}

static enum err_code take_source(struct lineage *g, const json_t *v, struct err *err)
{
    struct lineage_node *n;
    struct digest entry;
    json_t *record = NULL;
    const char *name = json_string_value(json_object_get(v, "source"));
    enum err_code rc;

    if (!name || lineage_find(g, name) >= 0)
        return OK;
    n = lineage_add_node(g, LINEAGE_SOURCE, name);
    rc = digest_of(v, "digest", &n->digest, err);
    n->license = member(g, v, "license");
    n->artifact = member(g, v, "artifact");
    if (!rc)
        rc = digest_of(v, "entry", &entry, err);
    if (!rc && !digest_is_zero(&entry))
        rc = read_json(g, &entry, "entry record", &record, err);
    if (!rc && record) {
        n = &g->nodes[g->count - 1];
        n->entry = record;
        n->attribution = member(g, record, "attribution");
        n->url = member(g, record, "url");
        if (!n->license)
            n->license = member(g, record, "license");
        rc = take_records(g, record, &n->parts, err);
    }
    return rc;
}

static enum err_code take_events(struct lineage *g, const struct digest *id, struct err *err)
{
    struct buf text = {0};
    enum err_code rc;

    buf_init(&text, (size_t)EVENTS_BYTES_MAX);
    rc = object_read(g->st, id, EVENTS_BYTES_MAX, &text, err);
    for (size_t at = 0; !rc && at < text.n;) {
        const char *line = text.p + at, *end = memchr(line, '\n', text.n - at);
        const size_t n = end ? (size_t)(end - line) : text.n - at;
        json_t *v = NULL;
        const char *kind;

        at += n + 1;
        rc = json_parse(line, n, RECORD_BYTES_MAX, "event of a run", &v, err);
        kind = json_string_value(json_object_get(v, "event"));
        if (!rc && kind && strcmp(kind, "run.begin") == 0 && !g->begin)
            g->begin = json_incref(v);
        else if (!rc && kind && strcmp(kind, "run.source") == 0)
            rc = take_source(g, v, err);
        json_decref(v);
    }
    buf_release(&text);
    return rc;
}

/* ---- tasks ------------------------------------------------------------------------------------- */

static enum err_code take_outputs(struct lineage *g, struct lineage_node *n,
                                  const struct digest *out_id, struct err *err)
{
    struct tree t = {0};
    enum err_code rc = read_tree(g, out_id, "outputs of a result", &t, err);

    if (!rc)
        n->outputs = arena_array(&g->arena, t.count + 1, sizeof(*n->outputs));
    for (size_t i = 0; !rc && i < t.count; i++)
        n->outputs[n->output_count++] = (struct lineage_output){
            .name = arena_strndup(&g->arena, t.entries[i].name.p, t.entries[i].name.n),
            .digest = t.entries[i].digest,
            .object = t.entries[i].mode == TREE_DIR ? OBJ_TREE : OBJ_BLOB,
            .size = t.entries[i].size};
    tree_release(&t);
    return rc;
}

/* Back from record_name_escape. */
static const char *plain_name(struct lineage *g, struct str name)
{
    char *out = arena_strndup(&g->arena, name.p, name.n);
    size_t n = 0;

    for (size_t i = 0; i < name.n; i++) {
        const bool escaped = name.n - i >= 3 && name.p[i] == '%';

        if (escaped && memcmp(name.p + i, "%2F", 3) == 0)
            out[n++] = '/';
        else
            out[n++] = name.p[i];
        if (escaped && (memcmp(name.p + i, "%2F", 3) == 0 || memcmp(name.p + i, "%25", 3) == 0))
            i += 2;
    }
    out[n] = '\0';
    return out;
}

static enum err_code take_task(struct lineage *g, const struct tree_entry *e, struct err *err)
{
    struct tree result = {0};
    struct lineage_node *n = lineage_add_node(g, LINEAGE_TASK, "");
    const struct tree_entry *action, *out;
    enum err_code rc = read_tree(g, &e->digest, "result of a task", &result, err);

    n->name = plain_name(g, e->name);
    n->digest = e->digest;
    action = rc ? NULL : tree_find(&result, STR("action.json"));
    out = rc ? NULL : tree_find(&result, STR("out"));
    if (!rc && (!action || !out))
        rc =
            err_set(err, ERR_DAMAGED, "the result of %s has no action.json or no outputs", n->name);
    if (!rc)
        n->key = action->digest;
    if (!rc)
        rc = read_json(g, &action->digest, "action", &n->action, err);
    if (!rc)
        rc = take_outputs(g, n, &out->digest, err);
    tree_release(&result);
    return rc;
}

static enum err_code take_tasks(struct lineage *g, const struct digest *id, struct err *err)
{
    struct tree t = {0};
    enum err_code rc = read_tree(g, id, "tasks of a run", &t, err);

    for (size_t i = 0; !rc && i < t.count; i++)
        rc = take_task(g, &t.entries[i], err);
    tree_release(&t);
    return rc;
}

/* ---- load -------------------------------------------------------------------------------------- */

static enum err_code load(struct lineage *g, struct err *err)
{
    struct tree top = {0};
    struct digest id;
    enum obj_kind kind;
    const struct tree_entry *events, *tasks;
    char name[40];
    enum err_code rc;

    (void)snprintf(name, sizeof(name), "runs/run-%lld", (long long)g->run);
    rc = store_resolve(g->st, str_of(name), &id, &kind, err);
    if (rc == ERR_NOT_FOUND)
        return err_set(err, ERR_NOT_FOUND,
                       "run-%lld is not kept: it goes on, or was removed; weir runs lists runs",
                       (long long)g->run);
    if (!rc)
        rc = read_tree(g, &id, name, &top, err);
    events = rc ? NULL : tree_find(&top, STR("events"));
    tasks = rc ? NULL : tree_find(&top, STR("tasks"));
    if (!rc && (!events || !tasks))
        rc = err_set(err, ERR_DAMAGED, "%s has no events or no tasks", name);
    if (!rc)
        rc = take_events(g, &events->digest, err);
    if (!rc)
        rc = take_tasks(g, &tasks->digest, err);
    if (!rc)
        rc = lineage_connect(g, err);
    tree_release(&top);
    return rc;
}

enum err_code lineage_load(struct store *st, int64_t run, struct lineage **out, struct err *err)
{
    struct lineage *g = mem_zero(1, sizeof(*g));
    enum err_code rc;

    arena_init(&g->arena);
    g->st = st;
    g->run = run;
    g->keep = json_array();
    rc = load(g, err);
    if (rc) {
        lineage_free(g);
        g = NULL;
    }
    *out = g;
    return rc;
}

void lineage_free(struct lineage *g)
{
    if (!g)
        return;
    lineage_free(g->next);
    json_decref(g->begin);
    json_decref(g->keep);
    free(g->nodes);
    arena_release(&g->arena);
    free(g);
}

/* A source may be called as a task is: the task is meant then. */
int lineage_find(const struct lineage *g, const char *what)
{
    const bool source = strncmp(what, "sources.", 8) == 0;
    const char *name = source ? what + 8 : what;

    for (int kind = source ? 1 : 0; kind < 2; kind++)
        for (size_t i = 0; i < g->count; i++)
            if ((g->nodes[i].kind == LINEAGE_SOURCE) == (kind == 1) &&
                strcmp(g->nodes[i].name, name) == 0)
                return (int)i;
    return -1;
}

enum err_code lineage_unknown(const struct lineage *g, const char *what, struct err *err)
{
    const bool source = strncmp(what, "sources.", 8) == 0;
    const char **names = mem_zero(g->count + 1, sizeof(*names)), *near;
    size_t n = 0;

    for (size_t i = 0; i < g->count; i++)
        if (g->nodes[i].kind != LINEAGE_FOREIGN && (g->nodes[i].kind == LINEAGE_SOURCE || !source))
            names[n++] = g->nodes[i].name;
    near = str_nearest(source ? what + 8 : what, names, n);
    for (size_t i = 0; i < n && !near; i++) /* STAGE for STAGE[key=value] */
        if (strncmp(names[i], what, strlen(what)) == 0 && names[i][strlen(what)] == '[')
            near = names[i];
    if (near)
        (void)err_set(err, ERR_NOT_FOUND, "run-%lld has no result of '%s'; did you mean '%s%s'?",
                      (long long)g->run, what, source ? "sources." : "", near);
    else
        (void)err_set(err, ERR_NOT_FOUND,
                      "run-%lld has no result of '%s'; weir show run-%lld lists what it has",
                      (long long)g->run, what, (long long)g->run);
    free(names);
    return ERR_NOT_FOUND;
}

int lineage_find_digest(const struct lineage *g, const struct digest *d, const char **output)
{
    *output = NULL;
    for (size_t i = 0; i < g->count; i++) {
        if (digest_eq(&g->nodes[i].digest, d))
            return (int)i;
        for (size_t k = 0; k < g->nodes[i].output_count; k++)
            if (digest_eq(&g->nodes[i].outputs[k].digest, d)) {
                *output = g->nodes[i].outputs[k].name;
                return (int)i;
            }
    }
    return -1;
}

/* ---- directions -------------------------------------------------------------------------------- */

/* Edges have no cycles (lineage_connect.c); a list instead of recursion, since chains may be long. */
void lineage_up(struct lineage *g, int node)
{
    int *todo = mem_zero(g->count + 1, sizeof(*todo));
    size_t n = 0;

    g->nodes[node].marked = true;
    todo[n++] = node;
    while (n > 0) {
        const struct lineage_node *at = &g->nodes[todo[--n]];

        for (size_t i = 0; i < at->input_count; i++)
            if (!g->nodes[at->inputs[i].from].marked) {
                g->nodes[at->inputs[i].from].marked = true;
                todo[n++] = at->inputs[i].from;
            }
    }
    free(todo);
}

void lineage_down(struct lineage *g, int node)
{
    bool *reached = mem_zero(g->count + 1, sizeof(*reached));
    bool more = true;

    reached[node] = true;
    while (more) {
        more = false;
        for (size_t i = 0; i < g->count; i++)
            for (size_t k = 0; !reached[i] && k < g->nodes[i].input_count; k++)
                if (reached[g->nodes[i].inputs[k].from])
                    more = reached[i] = true;
    }
    for (size_t i = 0; i < g->count; i++)
        g->nodes[i].marked = g->nodes[i].marked || reached[i];
    free(reached);
}
