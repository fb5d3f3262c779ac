#include "orchestrator/select.h"

#include <stdlib.h>
#include <string.h>

#include "orchestrator/pipeline_internal.h"

/* ---- names ------------------------------------------------------------------------------------- */

static enum err_code unknown_stage(const struct pipeline *p, const char *option, const char *name,
                                   size_t n, struct err *err)
{
    char *head = mem_strndup(name, n);
    const char *near =
        p->stage_names ? str_nearest(head, p->stage_names->list, p->stage_names->count) : NULL;
    const enum err_code rc =
        err_set(err, ERR_USAGE, "%s: there is no stage '%s'%s%s%s", option, head,
                near ? "; did you mean '" : "; weir check --json shows what there is",
                near ? near : "", near ? "'?" : "");

    free(head);
    return rc;
}

struct wish { /* one key=value of a selector, as numbers */
    size_t key;
    int value;
};

static enum err_code read_wish(const struct stage *st, const char *option, char *text,
                               struct wish *out, struct err *err)
{
    char *equal = strchr(text, '=');
    const char **keys = mem_zero(st->matrix_count + 1, sizeof(*keys)), *near;
    enum err_code rc = OK;

    for (size_t i = 0; i < st->matrix_count; i++)
        keys[i] = st->matrix[i].name;
    if (equal)
        *equal = '\0';
    for (out->key = 0; out->key < st->matrix_count; out->key++)
        if (strcmp(keys[out->key], text) == 0)
            break;
    if (!equal) {
        rc =
            err_set(err, ERR_USAGE, "%s: '%s' in %s[...] is not key=value", option, text, st->name);
    } else if (out->key == st->matrix_count) {
        near = str_nearest(text, keys, st->matrix_count);
        rc = err_set(err, ERR_USAGE, "%s: the matrix of %s has no key '%s'%s%s%s", option, st->name,
                     text, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    } else {
        const struct names *values = &st->matrix_values[out->key];

        out->value = names_find(values, equal + 1, strlen(equal + 1));
        near = out->value < 0 ? str_nearest(equal + 1, values->list, values->count) : NULL;
        if (out->value < 0)
            rc = err_set(err, ERR_USAGE, "%s: %s has no instance with %s=%s%s%s%s", option,
                         st->name, text, equal + 1, near ? "; did you mean '" : "",
                         near ? near : "", near ? "'?" : "");
    }
    free(keys);
    return rc;
}

static bool fits(const struct stage *st, int instance, const struct wish *wishes, size_t count)
{
    size_t below = (size_t)st->task_count, rest = (size_t)instance;

    for (size_t k = 0; k < st->matrix_count; k++) {
        below /= st->matrix_values[k].count;
        for (size_t i = 0; i < count; i++)
            if (wishes[i].key == k && (size_t)wishes[i].value != rest / below)
                return false;
        rest %= below;
    }
    return true;
}

/* Some keys of several. */
static enum err_code select_some(const struct stage *st, const char *option, const char *selector,
                                 size_t n, bool *marks, struct err *err)
{
    struct wish wishes[PIPELINE_KEYS_MAX];
    char *text = mem_strndup(selector, n), *at = text, *word;
    size_t count = 0;
    int found = 0;
    enum err_code rc = OK;

    while (!rc && (word = strsep(&at, ",")) != NULL) {
        if (count == PIPELINE_KEYS_MAX)
            rc = err_set(err, ERR_USAGE, "%s: more keys than the matrix of %s has", option,
                         st->name);
        else
            rc = read_wish(st, option, word, &wishes[count++], err);
    }
    for (int i = 0; !rc && i < st->task_count; i++)
        if (fits(st, i, wishes, count)) {
            marks[st->first_task + i] = true;
            found++;
        }
    if (!rc && !found)
        rc = err_set(err, ERR_USAGE, "%s: no instance of %s is [%.*s]", option, st->name, (int)n,
                     selector);
    free(text);
    return rc;
}

enum err_code select_name(const struct pipeline *p, const char *option, const char *name,
                          bool *marks, struct err *err)
{
    const size_t n = strlen(name), head = strcspn(name, "[");
    const int number = p->stage_names ? names_find(p->stage_names, name, head) : -1;
    struct selector_problem why;
    const struct stage *st;
    int task;

    if (number < 0)
        return unknown_stage(p, option, name, head, err);
    st = &p->stages[number];
    if (head == n) {
        for (int i = 0; i < st->task_count; i++)
            marks[st->first_task + i] = true;
        return OK;
    }
    if (name[n - 1] != ']')
        return err_set(err, ERR_USAGE, "%s: '%s' does not end with ]", option, name);
    if (st->matrix_count == 0)
        return err_set(err, ERR_USAGE, "%s: stage %s has no matrix; write only %s", option,
                       st->name, st->name);
    if (strcmp(name + head, "[*]") == 0)
        return select_name(p, option, st->name, marks, err);
    task = select_instance(st, name + head + 1, n - head - 2, &why); /* values may hold a comma */
    if (task >= 0) {
        marks[task] = true;
        return OK;
    }
    return select_some(st, option, name + head + 1, n - head - 2, marks, err);
}

/* ---- the whole --------------------------------------------------------------------------------- */

static enum err_code mark_all(const struct pipeline *p, const char *option,
                              const char *const *names, bool *marks, struct err *err)
{
    enum err_code rc = OK;

    for (size_t i = 0; !rc && names[i]; i++)
        rc = select_name(p, option, names[i], marks, err);
    return rc;
}

static void spread_down(const struct pipeline *p, bool *marks)
{
    for (size_t i = 0; i < p->task_count; i++) {
        const struct task *t = &p->tasks[p->order[i]];

        for (size_t k = 0; k < t->input_count; k++)
            for (size_t j = 0; j < t->inputs[k].ref_count; j++)
                if (t->inputs[k].refs[j].task >= 0 && marks[t->inputs[k].refs[j].task])
                    marks[p->order[i]] = true;
    }
}

static void spread_up(const struct pipeline *p, bool *marks)
{
    for (size_t i = p->task_count; i-- > 0;) {
        const struct task *t = &p->tasks[p->order[i]];

        if (!marks[p->order[i]])
            continue;
        for (size_t k = 0; k < t->input_count; k++)
            for (size_t j = 0; j < t->inputs[k].ref_count; j++)
                if (t->inputs[k].refs[j].task >= 0)
                    marks[t->inputs[k].refs[j].task] = true;
    }
}

enum err_code select_tasks(const struct pipeline *p, const struct select_options *o,
                           struct selection *out, struct err *err)
{
    const struct {
        const char *option;
        const char *const *names;
        void (*spread)(const struct pipeline *, bool *);
    } rules[] = {{"--only", o->only, NULL},
                 {"--from", o->from, spread_down},
                 {"--until", o->until, spread_up}};
    bool *marks = mem_zero(p->task_count + 1, sizeof(*marks));
    enum err_code rc = OK;

    *out = (struct selection){.wanted = mem_zero(p->task_count + 1, sizeof(bool)),
                              .forced = mem_zero(p->task_count + 1, sizeof(bool))};
    memset(out->wanted, true, p->task_count);
    for (size_t r = 0; !rc && r < sizeof(rules) / sizeof(rules[0]); r++) {
        if (!rules[r].names || !rules[r].names[0])
            continue;
        memset(marks, false, p->task_count);
        rc = mark_all(p, rules[r].option, rules[r].names, marks, err);
        if (!rc && rules[r].spread)
            rules[r].spread(p, marks);
        for (size_t i = 0; !rc && i < p->task_count; i++)
            out->wanted[i] = out->wanted[i] && marks[i];
    }
    if (!rc && o->force)
        rc = mark_all(p, "--force", o->force, out->forced, err);
    for (size_t i = 0; i < p->task_count; i++) {
        out->forced[i] = (out->forced[i] || o->no_cache) && out->wanted[i];
        out->count += out->wanted[i];
    }
    out->partial = out->count < p->task_count;
    if (!rc && out->count == 0 && p->task_count)
        rc = err_set(err, ERR_USAGE, "--only, --from and --until together leave no task");
    free(marks);
    if (rc)
        select_release(out);
    return rc;
}

void select_release(struct selection *s)
{
    free(s->wanted);
    free(s->forced);
    *s = (struct selection){0};
}
