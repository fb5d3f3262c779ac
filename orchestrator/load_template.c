/* ${...} in pipeline files.  A scalar that is exactly one ${x} takes x's type; embedded, it is text.
 *
 * What the format leaves open:
 * - A literal "${" is written "$${" in params.  In run, where braces are doubled anyway, the shell's ${x} is ${{x}}.
 * - A value is data: braces in it are doubled when it is put into a command, so that a param which holds JSON means
 *   itself.  Because that would also make {inputs.x} within a value mean itself, such a value is refused.
 * - Params of the pipeline may speak of each other, in any order. */
#include <math.h>
#include <string.h>

#include "orchestrator/pipeline_internal.h"

#define INTEGER_MAX 9007199254740992LL /* 2^53: the last integer that RFC 8785 can hold for sure */
#define DEPTH_MAX 32 /* of lists and maps in params; cards and actions add a few */
#define CHAIN_MAX 64 /* of params that speak of each other: bounds the recursion */

enum { PARAM_NEW, PARAM_BUSY, PARAM_DONE };

/* 10,000 tasks named after a number each: printf would be a tenth of the time to load them. */
static void integer_text(struct buf *out, json_int_t v)
{
    char digits[24], *p = digits + sizeof(digits);
    unsigned long long rest = v < 0 ? -(unsigned long long)v : (unsigned long long)v;

    do
        *--p = (char)('0' + rest % 10);
    while (rest /= 10);
    if (v < 0)
        *--p = '-';
    buf_add(out, p, (size_t)(digits + sizeof(digits) - p));
}

bool scalar_text(struct buf *out, const json_t *v)
{
    char number[32];

    switch (json_typeof(v)) {
    case JSON_STRING:
        buf_add(out, json_string_value(v), json_string_length(v));
        return true;
    case JSON_TRUE:
        buf_str(out, "true");
        return true;
    case JSON_FALSE:
        buf_str(out, "false");
        return true;
    case JSON_INTEGER:
        integer_text(out, json_integer_value(v));
        return true;
    case JSON_REAL:
        json_canonical_number(json_real_value(v), number);
        buf_str(out, number);
        return true;
    case JSON_NULL:
    case JSON_ARRAY:
    case JSON_OBJECT:
        break;
    }
    return false;
}

json_t *keep_value(struct loader *l, json_t *v)
{
    CHECK(v); /* out of memory */
    CHECK(json_array_append_new(l->p->values, v) == 0);
    return v;
}

/* ---- looking up -------------------------------------------------------------------------------- */

struct word { /* what stands between ${ and } */
    const char *p;
    size_t n;
    struct pos pos;
};
#define SHOWN(w) (int)((w).n < 80 ? (w).n : 80), (w).p

static void resolve_param(struct loader *l, size_t i, int depth);

static json_t *param_value(struct loader *l, struct word w, int depth)
{
    const int i = names_find(&l->param_names, w.p + 7, w.n - 7);

    if (i < 0) {
        const char *name = arena_strndup(&l->scratch, w.p + 7, w.n - 7);

        if (l->param_names.count == 0)
            problem_add(&l->problems, w.pos, "${%.*s}: the pipeline has no params", SHOWN(w));
        else
            problem_add_near(&l->problems, w.pos, name, l->param_names.list, l->param_names.count,
                             "${%.*s}: the pipeline has no param '%s'", SHOWN(w), name);
        return NULL;
    }
    if (l->param_state[i] == PARAM_BUSY) {
        problem_add(&l->problems, l->param_nodes[i]->pos,
                    "param %s is made of itself, by way of ${...}", l->p->params[i].name);
        return NULL;
    }
    if (l->param_state[i] == PARAM_NEW)
        resolve_param(l, (size_t)i, depth + 1);
    return l->p->params[i].value;
}

static json_t *matrix_value(struct loader *l, const struct scope *s, struct word w)
{
    const size_t count = s->task ? s->task->matrix_count : 0;
    const char **names;

    for (size_t i = 0; i < count; i++) {
        const struct named_value *m = &s->task->matrix[i];

        if (strlen(m->name) == w.n - 7 && memcmp(m->name, w.p + 7, w.n - 7) == 0)
            return m->value;
    }
    if (s->task && l->drafts[s->task->stage].matrix_bad)
        return NULL;
    if (count == 0) {
        problem_add(&l->problems, w.pos, "${%.*s}: there is no matrix here", SHOWN(w));
        return NULL;
    }
    names = arena_array(&l->scratch, count, sizeof(*names));
    for (size_t i = 0; i < count; i++)
        names[i] = s->task->matrix[i].name;
    problem_add_near(&l->problems, w.pos, arena_strndup(&l->scratch, w.p + 7, w.n - 7), names,
                     count, "${%.*s}: the matrix has no such key", SHOWN(w));
    return NULL;
}

/* ${sources.X.license|attribution|url} */
static json_t *source_value(struct loader *l, const struct scope *s, struct word w)
{
    static const char *const fields[] = {"license", "attribution", "url"};
    const char *name = arena_strndup(&l->scratch, w.p + 8, w.n - 8), *field = strchr(name, '.');
    const char *value = NULL;
    const int i = field ? names_find(l->p->source_names, name, (size_t)(field - name)) : -1;

    if (!s->sources) {
        problem_add(&l->problems, w.pos, "${%.*s}: sources can be spoken of in params only",
                    SHOWN(w));
        return NULL;
    }
    if (!field) {
        problem_add(&l->problems, w.pos, "write ${%.*s.license}, .attribution or .url", SHOWN(w));
        return NULL;
    }
    if (i < 0) {
        const char *first = arena_strndup(&l->scratch, name, (size_t)(field - name));

        problem_add_near(&l->problems, w.pos, first, l->p->source_names->list,
                         l->p->source_names->count, "${%.*s}: there is no source '%s'", SHOWN(w),
                         first);
        return NULL;
    }

    const struct source *src = &l->p->sources[i];

    if (strcmp(field + 1, "license") == 0) {
        value = src->license;
    } else if (strcmp(field + 1, "attribution") == 0) {
        value = src->attribution;
    } else if (strcmp(field + 1, "url") == 0) {
        value = src->kind == SOURCE_URL ? src->location : NULL;
    } else {
        problem_add_near(&l->problems, w.pos, field + 1, fields, 3,
                         "${%.*s}: a source has no '%s' to speak of", SHOWN(w), field + 1);
        return NULL;
    }
    if (!value && src->kind == SOURCE_ARTIFACT) {
        problem_add(&l->problems, w.pos,
                    "${%.*s}: source %s is an artifact; what it brings is not known yet", SHOWN(w),
                    src->name);
        return NULL;
    }
    if (!value) {
        problem_add(&l->problems, w.pos, "${%.*s}: source %s has no %s", SHOWN(w), src->name,
                    field + 1);
        return NULL;
    }
    return keep_value(l, json_string(value));
}

static bool starts(struct word w, const char *prefix)
{
    const size_t n = strlen(prefix);

    return w.n > n && memcmp(w.p, prefix, n) == 0;
}

/* What was meant by a word that is no reference: ${seed}, ${param.seed}, ${ params.seed }. */
static const char *meant(struct loader *l, struct word w)
{
    static const char *const spaces[] = {"params", "matrix", "sources"};
    const char *text, *dot, *near;

    while (w.n > 0 && *w.p == ' ') {
        w.p++;
        w.n--;
    }
    while (w.n > 0 && w.p[w.n - 1] == ' ')
        w.n--;
    text = arena_strndup(&l->scratch, w.p, w.n);
    if (names_find(&l->param_names, w.p, w.n) >= 0)
        return arena_printf(&l->scratch, "params.%s", text);
    dot = strchr(text, '.');
    if (!dot || dot == text || !dot[1])
        return NULL;
    near = str_nearest(arena_strndup(&l->scratch, text, (size_t)(dot - text)), spaces, 3);
    return near ? arena_printf(&l->scratch, "%s%s", near, dot) : NULL;
}

static void unknown_reference(struct loader *l, const struct scope *s, struct word w)
{
    const char *near = meant(l, w);

    if (w.n > 0 && *w.p == '{')
        problem_add(&l->problems, w.pos, "write ${params.NAME}, with one pair of braces");
    else if (starts(w, "env."))
        problem_add(&l->problems, w.pos,
                    "${%.*s} can stand in notify only; a stage gets a variable by declaring it: "
                    "env: [%.*s]",
                    SHOWN(w), (int)w.n - 4, w.p + 4);
    else if (s->command && (starts(w, "inputs.") || starts(w, "outputs.")))
        problem_add(&l->problems, w.pos, "${%.*s} is unknown; write {%.*s}, without the $",
                    SHOWN(w), SHOWN(w));
    else if (near)
        problem_add(&l->problems, w.pos, "${%.*s} is unknown; did you mean ${%s}?", SHOWN(w), near);
    else if (s->command)
        problem_add(&l->problems, w.pos,
                    "${%.*s} is unknown; there are ${params.NAME} and ${matrix.KEY}; for the "
                    "shell's own write ${{%.*s}}",
                    SHOWN(w), SHOWN(w));
    else
        problem_add(&l->problems, w.pos, "${%.*s} is unknown; there %s ${params.NAME}%s%s",
                    SHOWN(w), s->task || s->sources ? "are" : "is only",
                    !s->task     ? ""
                    : s->sources ? ", ${matrix.KEY}"
                                 : " and ${matrix.KEY}",
                    s->sources ? " and ${sources.NAME.license}" : "");
}

/* The value of one reference, borrowed, or NULL after a problem. */
static json_t *look_up(struct loader *l, const struct scope *s, struct word w, int depth)
{
    if (starts(w, "params."))
        return param_value(l, w, depth);
    if (starts(w, "matrix."))
        return matrix_value(l, s, w);
    if (starts(w, "sources."))
        return source_value(l, s, w);
    unknown_reference(l, s, w);
    return NULL;
}

/* ---- text -------------------------------------------------------------------------------------- */

/* The next "${" that starts a reference; *literal: one that means itself, with skip bytes of it to leave out. */
static const char *next_reference(const struct scope *s, const char *from, bool *literal)
{
    const char *at =
        strchr(from, '$'); /* most text has none, and one byte is found sooner than two */

    at = at ? strstr(at, "${") : NULL;

    *literal = false;
    if (at && s->command)
        *literal = at[2] == '{';
    else if (at && at > from && at[-1] == '$')
        *literal = true;
    return at;
}

static bool exact_reference(const struct scope *s, const char *text)
{
    const char *close = strchr(text, '}');

    return strncmp(text, "${", 2) == 0 && !(s->command && text[2] == '{') && close && !close[1];
}

/* A value into the text.  In a command its braces are doubled. */
static bool put_value(struct loader *l, const struct scope *s, const json_t *v, struct word w)
{
    const size_t start = l->text.n;
    struct buf value;

    if (!s->command || !json_is_string(v)) {
        if (scalar_text(&l->text, v))
            return true;
        problem_add(&l->problems, w.pos, "${%.*s} is %s and cannot be part of a text", SHOWN(w),
                    json_is_null(v)    ? "null"
                    : json_is_array(v) ? "a list"
                                       : "a map");
        l->text.n = start;
        return false;
    }
    for (const char *p = json_string_value(v); *p; p++) {
        if (strncmp(p, "{inputs.", 8) == 0 || strncmp(p, "{outputs.", 9) == 0 ||
            strncmp(p, "{params.", 8) == 0) {
            problem_add(&l->problems, w.pos,
                        "the value of ${%.*s} contains '%.*s'; values are not searched for {}, so "
                        "write that in run itself",
                        SHOWN(w), (int)strcspn(p, "}") + 1, p);
            return false;
        }
    }
    buf_init(&value, PIPELINE_BYTES_MAX);
    for (const char *p = json_string_value(v); *p; p++) {
        if (*p == '{' || *p == '}')
            buf_char(&value, *p);
        buf_char(&value, *p);
    }
    buf_add(&l->text, value.p ? value.p : "", value.n);
    buf_release(&value);
    return true;
}

/* After "${{": what another program's users mean by ${params.x}. */
static bool is_doubled_reference(const char *p)
{
    p += strspn(p, " ");
    return strncmp(p, "params.", 7) == 0 || strncmp(p, "matrix.", 7) == 0;
}

/* Appends; params that speak of params come here again in the middle of it. */
static bool append_text(struct loader *l, const struct scope *s, const char *text, struct pos pos,
                        int depth)
{
    bool good = true, literal;
    const char *from = text, *at;

    while ((at = next_reference(s, from, &literal)) != NULL) {
        const char *end = strchr(at, '}');

        if (literal) {
            if (s->command && is_doubled_reference(at + 3))
                problem_add(
                    &l->problems, pos,
                    "\"%.*s\" is left to the shell; write ${params.NAME}, with one pair of braces",
                    (int)strcspn(at, "}") + 2, at);
            buf_add(&l->text, from, (size_t)(at - from) - !s->command);
            buf_str(&l->text, s->command ? "${{" : "${");
            from = at + 2 + s->command;
            continue;
        }
        buf_add(&l->text, from, (size_t)(at - from));
        if (!end) {
            problem_add(&l->problems, pos, "'${' without '}' in \"%.80s\"", text);
            return false;
        }

        const struct word w = {at + 2, (size_t)(end - at - 2), pos};
        const size_t start = l->text.n;
        const json_t *v = look_up(l, s, w, depth);

        CHECK(l->text.n == start); /* what it took on the way is gone again */
        good = v && put_value(l, s, v, w) && good;
        from = end + 1;
    }
    buf_str(&l->text, from);
    if (l->text.failed) {
        problem_add(&l->problems, pos, "longer than %d bytes with ${...} replaced",
                    PIPELINE_BYTES_MAX);
        return false;
    }
    return good;
}

bool template_text(struct loader *l, const struct scope *s, const char *text, struct pos pos)
{
    buf_clear(&l->text);
    return append_text(l, s, text, pos, 0);
}

/* ---- values ------------------------------------------------------------------------------------ */

/* Every value costs memory, and a matrix multiplies what is written once. */
static bool afford(struct loader *l, size_t bytes, struct pos pos)
{
    if (l->budget < 0)
        return false;
    l->budget -= (int64_t)bytes + 48;
    if (l->budget >= 0)
        return true;
    problem_add(
        &l->problems, pos,
        "the params of all tasks together take too much memory; put large ones into a source");
    return false;
}

static json_t *build(struct loader *l, const struct scope *s, const struct node *n, int depth,
                     int chain);

/* A new reference. */
static json_t *build_string(struct loader *l, const struct scope *s, const struct node *n,
                            int chain)
{
    const size_t start = l->text.n;
    json_t *v = NULL;

    if (exact_reference(s, n->text)) {
        const struct word w = {n->text + 2, strlen(n->text) - 3, n->pos};

        return json_incref(look_up(l, s, w, chain));
    }
    if (append_text(l, s, n->text, n->pos, chain) && afford(l, l->text.n - start, n->pos)) {
        v = json_stringn(l->text.p + start, l->text.n - start);
        if (!v)
            problem_add(&l->problems, n->pos, "text that is not UTF-8");
    }
    l->text.failed = false;
    l->text.n = start;
    return v;
}

static json_t *build_list(struct loader *l, const struct scope *s, const struct node *n, int depth,
                          int chain)
{
    json_t *list = json_array();
    bool good = true;

    for (size_t i = 0; i < n->count && l->budget >= 0; i++) {
        json_t *v = build(l, s, &n->items[i], depth + 1, chain);

        good = v && json_array_append_new(list, v) == 0 && good;
    }
    if (good && l->budget >= 0)
        return list;
    json_decref(list);
    return NULL;
}

static json_t *build_map(struct loader *l, const struct scope *s, const struct node *n, int depth,
                         int chain)
{
    json_t *map = json_object();
    bool good = true;

    for (size_t i = 0; i < n->count && l->budget >= 0; i++) {
        json_t *v = build(l, s, n->members[i].value, depth + 1, chain);

        good = v && json_object_set_new(map, n->members[i].key, v) == 0 && good;
    }
    if (good && l->budget >= 0)
        return map;
    json_decref(map);
    return NULL;
}

static json_t *build_number(struct loader *l, const struct node *n)
{
    /* Written as an integer, even where it is too large to be read as one. */
    const bool integer = n->type == YAML_INT || n->text[strspn(n->text, "+-0123456789")] == '\0' ||
                         (n->text[0] == '0' && (n->text[1] == 'x' || n->text[1] == 'o'));

    if (n->type == YAML_INT && n->integer <= INTEGER_MAX && n->integer >= -INTEGER_MAX)
        return json_integer(n->integer);
    if (integer && (n->type == YAML_INT || fabs(n->number) > (double)INTEGER_MAX)) {
        problem_add(&l->problems, n->pos, "integer %.80s is beyond 2^53; put it in quotes",
                    n->text);
        return NULL;
    }
    if (!isfinite(n->number)) {
        problem_add(&l->problems, n->pos, "%.80s is no finite number; put it in quotes", n->text);
        return NULL;
    }
    return json_real(n->number);
}

static json_t *build(struct loader *l, const struct scope *s, const struct node *n, int depth,
                     int chain)
{
    if (depth > DEPTH_MAX) {
        problem_add(&l->problems, n->pos,
                    "lists and maps nested deeper than %d; put such data into a source", DEPTH_MAX);
        return NULL;
    }
    if (!afford(l, 0, n->pos))
        return NULL;
    switch (n->type) {
    case YAML_NULL:
        return json_null();
    case YAML_BOOL:
        return json_boolean(n->boolean);
    case YAML_INT:
    case YAML_FLOAT:
        return build_number(l, n);
    case YAML_STRING:
        return build_string(l, s, n, chain);
    case YAML_LIST:
        return build_list(l, s, n, depth, chain);
    case YAML_MAP:
        return build_map(l, s, n, depth, chain);
    }
    return NULL;
}

json_t *template_json(struct loader *l, const struct scope *s, const struct node *n)
{
    json_t *v;

    buf_clear(&l->text);
    v = build(l, s, n, 0, 0);
    return v ? keep_value(l, v) : NULL;
}

bool template_varies(const struct node *n)
{
    if (n->type == YAML_STRING)
        return strchr(n->text, '$') && strstr(n->text, "${matrix.");
    for (size_t i = 0; n->type == YAML_LIST && i < n->count; i++)
        if (template_varies(&n->items[i]))
            return true;
    for (size_t i = 0; n->type == YAML_MAP && i < n->count; i++)
        if (template_varies(n->members[i].value))
            return true;
    return false;
}

/* ---- params of the pipeline -------------------------------------------------------------------- */

static void resolve_param(struct loader *l, size_t i, int depth)
{
    const struct scope s = {.sources = true};
    const struct node *n = l->param_nodes[i];
    json_t *v = NULL;

    l->param_state[i] = PARAM_BUSY;
    if (depth > CHAIN_MAX)
        problem_add(&l->problems, n->pos, "params speak of params more than %d deep", CHAIN_MAX);
    else
        v = build(l, &s, n, 0, depth);
    if (v)
        l->p->params[i].value = keep_value(l, v);
    l->param_state[i] = PARAM_DONE;
}

void resolve_params(struct loader *l)
{
    buf_clear(&l->text);
    for (size_t i = 0; i < l->p->param_count; i++)
        if (l->param_state[i] == PARAM_NEW)
            resolve_param(l, i, 0);
}

/* ---- {} in commands ---------------------------------------------------------------------------- */

static const json_t *param_named(const struct task *t, const char *name, const char **names)
{
    for (size_t i = 0; i < t->param_count; i++) {
        names[i] = t->params[i].name;
        if (strcmp(t->params[i].name, name) == 0)
            return t->params[i].value ? t->params[i].value : json_true();
    }
    return NULL;
}

static bool has_name(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* {SPACE.NAME}: is there such an input, output or param? */
static void check_placeholder(struct loader *l, const char *space, const char *name, struct pos pos,
                              const struct task *t, const struct stage *st)
{
    size_t count = 0, room = t->input_count + t->param_count + 1;
    const char **names;
    const json_t *value;

    while (st->outputs[count])
        count++;
    names = arena_array(&l->scratch, room + count, sizeof(*names));
    if (strcmp(space, "params") == 0) {
        value = param_named(t, name, names);
        if (value && (json_is_null(value) || json_is_array(value) || json_is_object(value)))
            problem_add(&l->problems, pos, "{params.%s} is %s and cannot be part of a command",
                        name,
                        json_is_null(value)    ? "null"
                        : json_is_array(value) ? "a list"
                                               : "a map");
        if (value)
            return;
        count = t->param_count;
    } else if (strcmp(space, "inputs") == 0) {
        count = t->input_count;
        for (size_t i = 0; i < count; i++)
            names[i] = t->inputs[i].name;
    } else {
        memcpy(names, st->outputs, count * sizeof(*names));
        if (l->drafts[t->stage].outputs_bad)
            return;
    }
    if (has_name(names, count, name))
        return;
    if (count == 0)
        problem_add(&l->problems, pos, "{%s.%s}: stage %s has no %s", space, name, st->name, space);
    else
        problem_add_near(&l->problems, pos, name, names, count,
                         "{%s.%s}: stage %s has no such %.*s", space, name, st->name,
                         (int)strlen(space) - 1, space);
}

void template_check_command(struct loader *l, const char *text, struct pos pos,
                            const struct task *t, const struct stage *st)
{
    for (const char *p = text; *p; p++) {
        const size_t n = *p == '{' ? strcspn(p, "}") : 0;
        const char *inner, *dot;

        if (*p != '{' && *p != '}')
            continue;
        if (p[1] == p[0]) {
            p++;
            continue;
        }
        inner = n ? arena_strndup(&l->scratch, p + 1, n - 1) : "";
        dot = strchr(inner, '.');
        if (!p[n] || !dot ||
            !(strncmp(inner, "inputs.", 7) == 0 || strncmp(inner, "outputs.", 8) == 0 ||
              strncmp(inner, "params.", 7) == 0)) {
            problem_add(&l->problems, pos,
                        "'%.*s' in run: braces mean {inputs.X}, {outputs.X} or {params.X}; write a "
                        "brace itself twice",
                        (int)(n && p[n] && n < 40 ? n + 1 : 1), p);
            return;
        }
        check_placeholder(l, arena_strndup(&l->scratch, inner, (size_t)(dot - inner)), dot + 1, pos,
                          t, st);
        p += n;
    }
}
