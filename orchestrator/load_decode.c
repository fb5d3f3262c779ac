/* Small typed readers, names, and the params of the pipeline. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/pipeline_internal.h"

const struct node *check_keys(struct loader *l, const struct node *map, const char *const *allowed,
                              const char *what, const char *name)
{
    return node_check_keys(&l->scratch, map, allowed, &l->problems, what, name);
}

/* ---- readers ----------------------------------------------------------------------------------- */

/* Whoever writes ${...} where it means nothing should learn so, not get a file called "${params.x}". */
static bool is_literal(struct loader *l, const struct node *n)
{
    if (n->type != YAML_STRING || !strchr(n->text, '$') || !strstr(n->text, "${"))
        return true;
    problem_add(
        &l->problems, n->pos,
        "${...} is not replaced here; it is in params, run, when, inputs, matrix and publish");
    return false;
}

static bool quotes_help(const struct node *n)
{
    return n->type == YAML_BOOL || n->type == YAML_INT || n->type == YAML_FLOAT;
}

const char *want_text(struct loader *l, const struct node *n, const char *what)
{
    if (!n)
        return NULL;
    if (n->type != YAML_STRING) {
        problem_add(&l->problems, n->pos, "%s must be a string, found %s%s", what,
                    node_type_name(n), quotes_help(n) ? "; put it in quotes" : "");
        return NULL;
    }
    return arena_strdup(l->arena, n->text);
}

const char *want_string(struct loader *l, const struct node *n, const char *what)
{
    return n && is_literal(l, n) ? want_text(l, n, what) : NULL;
}

int64_t want_int(struct loader *l, const struct node *n, int64_t min, int64_t max,
                 int64_t otherwise, const char *what)
{
    if (!n || !is_literal(l, n))
        return otherwise;
    if (n->type != YAML_INT) {
        problem_add(&l->problems, n->pos, "%s must be an integer, found %s", what,
                    node_type_name(n));
        return otherwise;
    }
    if (n->integer < min || n->integer > max) {
        problem_add(&l->problems, n->pos, "%s is %lld; it must lie between %lld and %lld", what,
                    (long long)n->integer, (long long)min, (long long)max);
        return otherwise;
    }
    return n->integer;
}

#define SECONDS_MAX ((int64_t)36500 * 86400) /* a century: nanoseconds of it still fit */
#define BYTES_MAX ((int64_t)1024 << 40)

/* What a number without a unit means is anybody's guess, so it is refused. */
static bool has_unit(const struct node *n)
{
    return n->type == YAML_STRING;
}

int64_t want_seconds(struct loader *l, const struct node *n, int64_t min, int64_t otherwise,
                     const char *what)
{
    struct err err = ERR_INIT;
    int64_t s;

    if (!n || !is_literal(l, n))
        return otherwise;
    if (n->type == YAML_LIST || n->type == YAML_MAP || !has_unit(n) ||
        str_to_seconds(str_of(n->text), &s, &err) != OK) {
        problem_add(&l->problems, n->pos,
                    "%s must be a duration: a whole number and s, m, h or d, as in 90s or 2h",
                    what);
        return otherwise;
    }
    if (s < min || s > SECONDS_MAX) {
        problem_add(&l->problems, n->pos, "%s is %s; it must be at least %llds and at most 36500d",
                    what, n->text, (long long)min);
        return otherwise;
    }
    return s;
}

int64_t want_bytes(struct loader *l, const struct node *n, int64_t otherwise, const char *what)
{
    struct err err = ERR_INIT;
    int64_t b;

    if (!n || !is_literal(l, n))
        return otherwise;
    if (n->type == YAML_LIST || n->type == YAML_MAP || !has_unit(n) || !strstr(n->text, "iB") ||
        str_to_bytes(str_of(n->text), &b, &err) != OK) {
        problem_add(&l->problems, n->pos,
                    "%s must be a size: a whole number and KiB, MiB, GiB or TiB, as in 4GiB", what);
        return otherwise;
    }
    if (b < 1 || b > BYTES_MAX) {
        problem_add(&l->problems, n->pos, "%s is %s; it must be at least 1KiB and at most 1024TiB",
                    what, n->text);
        return otherwise;
    }
    return b;
}

bool want_bool(struct loader *l, const struct node *n, bool otherwise, const char *what)
{
    if (!n || !is_literal(l, n))
        return otherwise;
    if (n->type != YAML_BOOL) {
        problem_add(&l->problems, n->pos, "%s must be true or false, found %s", what,
                    node_type_name(n));
        return otherwise;
    }
    return n->boolean;
}

static const char *const examples[][2] = {
    {"stages", "{train: {run: ..., outputs: [model]}}"},
    {"sources", "{pictures: {path: pictures/, license: MIT}}"},
    {"params", "{seed: 7}"},
    {"profiles", "{fast: {params: {steps: 10}}}"},
    {"defaults", "{retries: {attempts: 2}}"},
    {"policy", "{licenses: {deny: [NOASSERTION]}}"},
    {"licenses", "{deny: [NOASSERTION]}"},
    {"publish", "{production: STAGE.OUTPUT}"},
    {"inputs", "{data: STAGE.OUTPUT}"},
    {"matrix", "{seed: [1, 2, 3]}"},
    {"resources", "{cpus: 2, memory: 4GiB}"},
    {"retries", "{attempts: 3, backoff: 10s}"},
    {"checkpoint", "{every: 5m, keep: 2}"},
    {"schedule", "[{cron: \"0 2 * * 1-5\"}]"},
    {"notify", "[{events: [failed], webhook: https://...}]"},
    {"outputs", "[model]"},
    {"env", "[MODEL_ZOO]"},
    {"code", "[train.py, lib/]"},
};

static void wrong_shape(struct loader *l, const struct node *n, const char *what, const char *name,
                        const char *shape)
{
    const char *example = NULL;

    for (size_t i = 0; i < sizeof(examples) / sizeof(examples[0]); i++)
        if (strcmp(examples[i][0], what) == 0)
            example = examples[i][1];
    problem_add(&l->problems, n->pos, "%s%s%s must be a %s, found %s%s%s", what, *name ? " " : "",
                name, shape, node_type_name(n), example ? "; write it as in " : "",
                example ? example : "");
}

bool want_map(struct loader *l, const struct node *n, const char *what, const char *name)
{
    if (n && n->type != YAML_MAP)
        wrong_shape(l, n, what, name, "map");
    return n && n->type == YAML_MAP;
}

bool want_list(struct loader *l, const struct node *n, const char *what)
{
    if (n && n->type == YAML_STRING)
        problem_add(&l->problems, n->pos, "%s must be a list, found a string; put it in [ ]", what);
    else if (n && n->type != YAML_LIST)
        wrong_shape(l, n, what, "", "list");
    return n && n->type == YAML_LIST;
}

#define LIST_MAX 1000

const char **want_strings(struct loader *l, const struct node *n, const char *what,
                          const struct node ***items)
{
    const bool good = want_list(l, n, what);
    const size_t count = good ? n->count : 0;
    const char **list = arena_array(l->arena, count + 1, sizeof(*list));
    size_t kept = 0;

    if (items)
        *items = arena_array(&l->scratch, count + 1, sizeof(const struct node *));
    if (count > LIST_MAX) { /* each is compared with all others */
        problem_add(&l->problems, n->pos, "%s has %zu entries; at most %d are possible", what,
                    count, LIST_MAX);
        return arena_array(l->arena, 1, sizeof(*list));
    }
    for (size_t i = 0; i < count; i++) {
        const char *s;

        if (n->items[i].type != YAML_STRING) {
            problem_add(&l->problems, n->items[i].pos,
                        "an entry of %s must be a string, found %s%s", what,
                        node_type_name(&n->items[i]),
                        quotes_help(&n->items[i]) ? "; put it in quotes" : "");
            continue;
        }
        s = want_string(l, &n->items[i], what);
        if (!s)
            continue;
        if (items)
            (*items)[kept] = &n->items[i];
        list[kept++] = s;
    }
    return list;
}

/* ---- names ------------------------------------------------------------------------------------- */

#define NAME_LENGTH_MAX 100

/* "My_Stage" as "my-stage"; false when nothing sensible comes out. */
static bool suggest(const char *name, char extra, char out[NAME_LENGTH_MAX + 1])
{
    size_t n = 0;

    for (const char *p = name; *p; p++) {
        const char c = (char)(*p >= 'A' && *p <= 'Z' ? *p - 'A' + 'a' : *p);
        const bool fits = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9' && n > 0);

        if (n == NAME_LENGTH_MAX)
            return false;
        if (fits)
            out[n++] = c;
        else if (strchr("-_ .", c) && n > 0)
            out[n++] = extra;
        else
            return false;
    }
    out[n] = '\0';
    return n > 0;
}

bool check_name(struct loader *l, const char *name, enum name_kind kind, struct pos pos,
                const char *what)
{
    const char extra = kind == NAME_THING ? '-' : '_';
    bool good = name[0] >= 'a' && name[0] <= 'z';
    char near[NAME_LENGTH_MAX + 1];

    for (const char *p = name; *p; p++)
        good = good && ((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == extra);
    if (good && strlen(name) <= NAME_LENGTH_MAX)
        return true;
    if (good)
        problem_add(&l->problems, pos, "the name of %s is longer than %d characters", what,
                    NAME_LENGTH_MAX);
    else if (suggest(name, extra, near))
        problem_add(&l->problems, pos,
                    "'%s' cannot name %s; use a-z, 0-9 and %c, a letter first, as in '%s'", name,
                    what, extra, near);
    else
        problem_add(&l->problems, pos,
                    "'%.100s' cannot name %s; use a-z, 0-9 and %c, a letter first", name, what,
                    extra);
    return false;
}

/* ---- params ------------------------------------------------------------------------------------ */

static const char *type_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_STRING:
        return "a string";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_ARRAY:
        return "a list";
    case JSON_OBJECT:
        return "a map";
    case JSON_NULL:
        break;
    }
    return NULL;
}

static const char *type_of_node(const struct node *n)
{
    return n->type == YAML_INT || n->type == YAML_FLOAT ? "a number" : node_type_name(n);
}

void check_param_type(struct loader *l, const struct named_value *v)
{
    const int i = names_find(&l->param_names, v->name, strlen(v->name));
    const char *type = v->value ? type_of(v->value) : NULL;
    const struct node *file = l->file_params, *declared;

    /* Layers add no params, so those of the file come first and keep their numbers. */
    if (!type || i < 0 || !file || file->type != YAML_MAP || (size_t)i >= file->count)
        return;
    declared = file->members[i].value;
    /* null stands for any type, and what a reference becomes is not known from its text. */
    if (declared->type == YAML_NULL ||
        (declared->type == YAML_STRING && strstr(declared->text, "${")))
        return;
    if (strcmp(type, type_of_node(declared)) != 0)
        problem_add(&l->problems, v->pos, "param %s is %s in the pipeline and cannot become %s",
                    v->name, type_of_node(declared), type);
}

void decode_params(struct loader *l)
{
    const struct node *n = node_get(l->root, "params");
    const size_t count = want_map(l, n, "params", "") ? n->count : 0;
    struct pipeline *p = l->p;

    names_init(&l->param_names, &l->scratch, count);
    l->param_nodes = arena_array(&l->scratch, count + 1, sizeof(*l->param_nodes));
    l->param_state = arena_alloc(&l->scratch, count + 1);
    p->params = arena_array(l->arena, count + 1, sizeof(*p->params));
    for (size_t i = 0; i < count; i++) {
        const struct node_member *m = &n->members[i];

        check_name(l, m->key, NAME_PARAM, m->pos, "a param");
        l->param_nodes[i] = m->value;
        p->params[i] =
            (struct named_value){.name = arena_strdup(l->arena, m->key), .pos = m->value->pos};
        CHECK(names_add(&l->param_names, p->params[i].name)); /* keys of a map differ */
    }
    p->param_count = count;
    resolve_params(l);
    /* A layer that turns a number into a word has made a mistake. */
    for (size_t i = 0; i < count; i++)
        check_param_type(l, &p->params[i]);
}
