/* Stages times their matrices become tasks.
 *
 * Instances of a stage are neighbours, the last matrix key turning fastest, so that a reference finds its instance by
 * arithmetic.  What does not depend on matrix values is evaluated for the first instance and shared by the others. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/pipeline_internal.h"

#define INSTANCE_BYTES_MAX 200 /* a file name in a fan-in directory */
#define TASK_NAME_MAX 255      /* with the stage and the keys: a key of the index */

struct expansion { /* of one stage */
    struct stage *st;
    const struct stage_draft *d;
    struct task *first;
    bool *param_varies, *word_varies; /* one per param, one per word of a list */
    bool params_vary, command_varies, when_varies;
};

/* ---- names ------------------------------------------------------------------------------------- */

static void task_matrix(struct loader *l, struct task *t, const struct stage *st, int instance)
{
    struct buf *b = &l->text;

    t->matrix_count = st->matrix_count;
    t->name = t->instance = st->name;
    if (st->matrix_count == 0)
        return;
    t->matrix = arena_array(l->arena, st->matrix_count, sizeof(*t->matrix));
    for (size_t k = st->matrix_count, rest = (size_t)instance; k-- > 0;) {
        const size_t n = st->matrix_values[k].count;

        t->matrix[k] = st->matrix[k];
        t->matrix[k].value = json_array_get(st->matrix[k].value, rest % n);
        rest /= n;
    }
    buf_clear(b);
    for (size_t k = 0, rest = (size_t)instance, below = (size_t)st->task_count;
         k < st->matrix_count; k++) {
        below /= st->matrix_values[k].count;
        buf_str(b, k ? "," : "");
        buf_str(b, st->matrix_values[k].list[rest / below]);
        rest %= below;
    }
    t->instance = arena_strndup(l->arena, b->p, b->n);
    buf_clear(b);
    buf_str(b, st->name);
    for (size_t k = 0, rest = (size_t)instance, below = (size_t)st->task_count;
         k < st->matrix_count; k++) {
        below /= st->matrix_values[k].count;
        buf_char(b, k ? ',' : '[');
        buf_str(b, st->matrix[k].name);
        buf_char(b, '=');
        buf_str(b, st->matrix_values[k].list[rest / below]);
        rest %= below;
    }
    buf_char(b, ']');
    t->name = arena_strndup(l->arena, b->p, b->n);
    if (strlen(t->instance) > INSTANCE_BYTES_MAX || b->n > TASK_NAME_MAX)
        problem_add(&l->problems, st->pos,
                    "stage %s: names of its instances would be longer than %d bytes; shorten the "
                    "matrix values",
                    st->name, TASK_NAME_MAX);
}

/* ---- params, run, when ------------------------------------------------------------------------- */

static void task_params(struct loader *l, struct task *t, const struct expansion *x)
{
    const struct scope s = {.task = t, .sources = true};
    const struct node *n = x->d->params;

    if (!n)
        return;
    t->param_count = n->count;
    if (t != x->first && !x->params_vary) {
        t->params = x->first->params;
        return;
    }
    t->params = arena_array(l->arena, n->count, sizeof(*t->params));
    if (t != x->first)
        memcpy(t->params, x->first->params, n->count * sizeof(*t->params));
    for (size_t i = 0; i < n->count; i++) {
        const struct node_member *m = &n->members[i];

        if (t == x->first) {
            check_name(l, m->key, NAME_PARAM, m->pos, "a param");
            t->params[i].name = arena_strdup(l->arena, m->key);
            t->params[i].pos = m->value->pos;
        }
        if (t == x->first || x->param_varies[i])
            t->params[i].value = template_json(l, &s, m->value);
    }
}

/* One word of a command.  A number stays as it is written: --lr 1e-4 is not --lr 0.0001. */
static const char *command_word(struct loader *l, const struct scope *s, const struct node *n)
{
    if (n->type == YAML_LIST || n->type == YAML_MAP || n->type == YAML_NULL) {
        problem_add(&l->problems, n->pos, "a word of run must be a string, found %s",
                    node_type_name(n));
        return "";
    }
    if (n->type != YAML_STRING)
        return arena_strdup(l->arena, n->text);
    if (!template_text(l, s, n->text, n->pos))
        return "";
    return arena_strndup(l->arena, l->text.p, l->text.n);
}

static void task_command(struct loader *l, struct task *t, const struct expansion *x)
{
    const struct scope s = {.task = t, .command = true};
    const struct node *n = x->d->run;

    if (!n)
        return;
    if (t != x->first && !x->command_varies) {
        t->run = x->first->run;
        t->argv = x->first->argv;
        return;
    }
    if (n->type == YAML_STRING) {
        t->run = command_word(l, &s, n);
        return;
    }
    t->argv = arena_array(l->arena, n->count + 1, sizeof(*t->argv));
    for (size_t i = 0; i < n->count; i++)
        t->argv[i] = t == x->first || x->word_varies[i] ? command_word(l, &s, &n->items[i])
                                                        : x->first->argv[i];
}

static void task_when(struct loader *l, struct task *t, const struct expansion *x)
{
    const struct scope s = {.task = t};
    const struct node *n = x->d->when;
    const json_t *v;

    if (!n)
        return;
    t->when_pos = n->pos;
    if (t != x->first && !x->when_varies) {
        t->skipped = x->first->skipped;
        t->skip_reason = x->first->skip_reason;
        return;
    }
    v = template_json(l, &s, n);
    if (!v)
        return;
    if (!json_is_boolean(v))
        problem_add(&l->problems, n->pos, "when must be true or false, found %s%s",
                    json_is_string(v)   ? "text"
                    : json_is_number(v) ? "a number"
                    : json_is_null(v)   ? "null"
                                        : node_type_name(n),
                    json_is_string(v) ? "; only a lone ${params.x} or ${matrix.x} keeps its type"
                                      : "");
    t->skipped = json_is_false(v);
    t->skip_reason = t->skipped ? "when is false" : NULL;
}

/* ---- tasks ------------------------------------------------------------------------------------- */

static void find_what_varies(struct loader *l, struct expansion *x)
{
    const struct node *n = x->d->params, *run = x->d->run;
    const size_t words = run && run->type == YAML_LIST ? run->count : 0;

    x->word_varies = arena_array(&l->scratch, words, sizeof(*x->word_varies));
    for (size_t i = 0; i < words; i++)
        x->word_varies[i] = template_varies(&run->items[i]);
    x->param_varies = arena_array(&l->scratch, n ? n->count : 0, sizeof(*x->param_varies));
    for (size_t i = 0; n && i < n->count; i++) {
        x->param_varies[i] = template_varies(n->members[i].value);
        x->params_vary = x->params_vary || x->param_varies[i];
    }
    x->command_varies = run && template_varies(run);
    x->when_varies = x->d->when && template_varies(x->d->when);
}

static void expand_stage(struct loader *l, int number)
{
    struct pipeline *p = l->p;
    struct stage *st = &p->stages[number];
    struct expansion x = {.st = st, .d = &l->drafts[number], .first = &p->tasks[st->first_task]};
    const size_t before = l->problems.count;

    find_what_varies(l, &x);
    for (int i = 0; i < st->task_count; i++) {
        struct task *t = &p->tasks[st->first_task + i];

        t->stage = number;
        task_matrix(l, t, st, i);
        /* What is wrong with one instance is wrong with many; one message is enough. */
        if (is_spoilt(l, before))
            continue;
        task_params(l, t, &x);
        task_command(l, t, &x);
        task_when(l, t, &x);
    }
}

/* Instances of a stage, or one more than allowed. */
static int64_t count_instances(const struct stage *st, int64_t max)
{
    int64_t n = 1;

    for (size_t k = 0; k < st->matrix_count && n <= max; k++)
        n *= (int64_t)st->matrix_values[k].count; /* both are at most a million */
    return n <= max ? n : max + 1;
}

void expand_tasks(struct loader *l)
{
    struct pipeline *p = l->p;
    const int64_t max = l->o->tasks_max && l->o->tasks_max < PIPELINE_TASKS_MAX
                            ? (int64_t)l->o->tasks_max
                            : PIPELINE_TASKS_MAX;
    int64_t total = 0;

    for (size_t i = 0; i < p->stage_count; i++) {
        const int64_t n = count_instances(&p->stages[i], max);

        if (total + n > max) {
            problem_add(&l->problems, p->stages[i].pos,
                        "more than %lld tasks, counted up to stage %s; make its matrix smaller",
                        (long long)max, p->stages[i].name);
            p->stage_count = 0; /* references cannot be looked up */
            l->stages_bad = true;
            return;
        }
        p->stages[i].first_task = (int)total;
        p->stages[i].task_count = (int)n;
        total += n;
    }
    p->tasks = arena_array(l->arena, (size_t)total + 1, sizeof(*p->tasks));
    p->task_count = (size_t)total;
    for (size_t i = 0; i < p->stage_count; i++)
        expand_stage(l, (int)i);
}
