/* The matrix of a stage: its keys, their values as JSON and as text, and choosing one instance by them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/pipeline_internal.h"

#define VALUE_TEXT_MAX 100

/* Values become parts of task and file names, and of references in brackets. */
static const char *value_fault(const char *t)
{
    if (!*t)
        return "is empty";
    if (strlen(t) > VALUE_TEXT_MAX)
        return "is longer than 100 characters";
    for (const char *p = t; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == 0x7f || strchr("[],=/*%\\\"'{}$", *p))
            return "cannot be in a task's name; leave out blanks and [ ] { } , = / * % $ \\ \" '";
    return *t == '.' ? "cannot be a file's name; leave out the . in front" : NULL;
}

static void decode_value(struct loader *l, const char *key, const json_t *v, struct pos pos,
                         struct names *texts)
{
    const char *fault;

    buf_clear(&l->text);
    if (!scalar_text(&l->text, v)) {
        problem_add(&l->problems, pos, "matrix key %s: a value is text, a number or a boolean",
                    key);
        return;
    }
    fault = value_fault(l->text.n ? l->text.p : "");
    if (fault)
        problem_add(&l->problems, pos, "matrix key %s: '%.100s' %s", key,
                    l->text.n ? l->text.p : "", fault);
    else if (!names_add(texts, arena_strndup(l->arena, l->text.p, l->text.n)))
        problem_add(&l->problems, pos, "matrix key %s has the value %s twice", key, l->text.p);
}

/* One key.  Values may come from a param: ${params.variants}, the whole list or single ones. */
static bool decode_key(struct loader *l, const struct node_member *m, struct named_value *key,
                       struct names *texts)
{
    const struct scope s = {0};
    const struct node *n = m->value;
    const size_t before = l->problems.count;
    json_t *list = template_json(l, &s, n);
    size_t count;

    if (!list)
        return false;
    if (!json_is_array(list) || json_array_size(list) == 0) {
        problem_add(&l->problems, n->pos, "matrix key %s needs a list of values", m->key);
        return false;
    }
    count = json_array_size(list);
    if (count > PIPELINE_TASKS_MAX) {
        problem_add(&l->problems, n->pos, "matrix key %s has more than %d values", m->key,
                    PIPELINE_TASKS_MAX);
        return false;
    }
    names_init(texts, l->arena, count);
    for (size_t i = 0; i < count && l->problems.count < PIPELINE_ERRORS_MAX; i++)
        decode_value(l, m->key, json_array_get(list, i),
                     n->type == YAML_LIST ? n->items[i].pos : n->pos, texts);
    *key = (struct named_value){arena_strdup(l->arena, m->key), list, m->pos};
    return l->problems.count == before;
}

void decode_matrix(struct loader *l, struct stage *st, struct stage_draft *d, const struct node *n)
{
    struct names *texts;

    if (n && !want_map(l, n, "matrix", "")) {
        d->matrix_bad = true;
        return;
    }
    if (!n)
        return;
    if (n->count > PIPELINE_KEYS_MAX) {
        problem_add(&l->problems, n->pos, "a matrix of %u keys; at most %d are possible", n->count,
                    PIPELINE_KEYS_MAX);
        d->matrix_bad = true;
        return;
    }
    texts = arena_array(l->arena, n->count + 1, sizeof(*texts));
    st->matrix = arena_array(l->arena, n->count + 1, sizeof(*st->matrix));
    st->matrix_values = texts;
    for (size_t i = 0; i < n->count; i++) {
        const struct node_member *m = &n->members[i];

        if (!check_name(l, m->key, NAME_PARAM, m->pos, "a matrix key"))
            d->matrix_bad = true;
        if (!decode_key(l, m, &st->matrix[i], &texts[i]))
            d->matrix_bad = true;
    }
    /* A broken one is left out: its stage is looked at as if it had one instance. */
    st->matrix_count = d->matrix_bad ? 0 : n->count;
}

/* ---- choosing ---------------------------------------------------------------------------------- */

/* A value as somebody wrote it: 1e-4 and 0.0001 are the same number. */
static int find_value(const struct names *texts, const char *value, size_t n)
{
    char text[VALUE_TEXT_MAX + 1], canonical[32], *end;
    int v = names_find(texts, value, n);
    double number;

    if (v >= 0 || n == 0 || n > VALUE_TEXT_MAX || !strchr("+-.0123456789", value[0]))
        return v;
    memcpy(text, value, n);
    text[n] = '\0';
    number = strtod(text, &end);
    if (*end || !isfinite(number))
        return -1;
    json_canonical_number(number, canonical);
    return names_find(texts, canonical, strlen(canonical));
}

static size_t find_key(const struct stage *st, const char *name, size_t n)
{
    size_t k = 0;

    while (k < st->matrix_count &&
           (strncmp(st->matrix[k].name, name, n) != 0 || st->matrix[k].name[n]))
        k++;
    return k;
}

int select_instance(const struct stage *st, const char *selector, size_t n,
                    struct selector_problem *why)
{
    int chosen[PIPELINE_KEYS_MAX], instance = 0;
    const char *p = selector, *next, *eq;
    const char *const end = selector + n;

    for (size_t k = 0; k < st->matrix_count; k++)
        chosen[k] = -1;
    for (bool more = n > 0; more; p = next + 1) {
        while (p < end && *p == ' ') /* [a=1, b=2] */
            p++;
        next = memchr(p, ',', (size_t)(end - p));
        more = next != NULL;
        next = next ? next : end;
        *why = (struct selector_problem){.at = p, .n = (size_t)(next - p)};
        eq = memchr(p, '=', why->n);
        why->what = SELECTOR_SYNTAX;
        if (!eq)
            return -1;
        why->what = SELECTOR_KEY;
        why->key = find_key(st, p, (size_t)(eq - p));
        if (why->key == st->matrix_count)
            return -1;
        why->what = SELECTOR_TWICE;
        if (chosen[why->key] >= 0)
            return -1;
        why->what = SELECTOR_VALUE;
        chosen[why->key] =
            find_value(&st->matrix_values[why->key], eq + 1, (size_t)(next - eq - 1));
        if (chosen[why->key] < 0)
            return -1;
    }
    why->what = SELECTOR_MISSING;
    for (size_t k = 0; k < st->matrix_count; k++) {
        why->key = k;
        if (chosen[k] < 0)
            return -1;
        instance = instance * (int)st->matrix_values[k].count + chosen[k];
    }
    return st->first_task + instance;
}
