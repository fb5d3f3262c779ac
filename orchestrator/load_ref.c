/* References: sources.X, STAGE.OUTPUT, STAGE[k=v].OUTPUT, STAGE[*].OUTPUT.
 *
 * What the format leaves open:
 * - A list is a fan-in even with one entry.  From a fan-in skipped instances are left out, also those that a list names
 *   one by one; a fan-in of which nothing is left skips its task.
 * - Entries of one fan-in have different names; two outputs of one stage in a list do not, and are refused. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/pipeline_internal.h"

/* ---- one reference ----------------------------------------------------------------------------- */

struct parsed { /* slices of the text */
    struct str stage, selector, output;
    bool brackets, all;
};

static void add_ref(struct loader *l, struct task_input_ref ref)
{
    if (l->ref_count == l->ref_room) {
        l->ref_room = l->ref_room ? 2 * l->ref_room : 64;
        l->refs = mem_grow(l->refs, l->ref_room, sizeof(*l->refs));
    }
    l->refs[l->ref_count++] = ref;
}

static bool split_ref(const char *ref, struct parsed *out)
{
    const size_t head = strcspn(ref, "[.");
    const char *p = ref + head;

    *out = (struct parsed){.stage = {ref, head}};
    if (*p == '[') {
        const size_t n = strcspn(p + 1, "]");

        out->brackets = true;
        out->selector = (struct str){p + 1, n};
        out->all = n == 1 && p[1] == '*';
        if (p[1 + n] != ']')
            return false;
        p += n + 2;
    }
    if (*p != '.')
        return false;
    out->output = str_of(p + 1);
    return head > 0 && out->output.n > 0 && !strpbrk(p + 1, "[]");
}

static bool source_ref(struct loader *l, const char *ref, struct pos pos)
{
    const struct pipeline *p = l->p;
    const int s = pipeline_find_source(p, ref + 8);

    if (s < 0) {
        if (p->source_count == 0 && !l->sources_told)
            problem_add(&l->problems, pos, "'%s': the pipeline has no sources", ref);
        else if (p->source_count > 0)
            problem_add_near(&l->problems, pos, ref + 8, p->source_names->list, p->source_count,
                             "'%s': there is no source '%s'", ref, ref + 8);
        l->sources_told = true;
        return false;
    }
    add_ref(l, (struct task_input_ref){.source = s, .task = -1, .entry = p->sources[s].name});
    return true;
}

static void no_reference(struct loader *l, const char *ref, struct pos pos)
{
    const int stage = pipeline_find_stage(l->p, ref);

    if (stage >= 0 && l->p->stages[stage].outputs[0])
        problem_add(&l->problems, pos, "'%s' names no output; write %s%s.%s", ref, ref,
                    l->p->stages[stage].matrix_count ? "[*]" : "", l->p->stages[stage].outputs[0]);
    else if (pipeline_find_source(l->p, ref) >= 0)
        problem_add(&l->problems, pos, "'%s' is no reference; for the source write sources.%s", ref,
                    ref);
    else if (strchr(ref, '/'))
        problem_add(&l->problems, pos,
                    "'%.200s' is no reference; a file comes in as a source: declare it and write "
                    "sources.NAME",
                    ref);
    else
        problem_add(&l->problems, pos,
                    "'%.200s' is no reference; write sources.NAME, STAGE.OUTPUT, "
                    "STAGE[key=value].OUTPUT or STAGE[*].OUTPUT",
                    ref);
}

static void unknown_stage(struct loader *l, const char *ref, const char *name, struct pos pos)
{
    static const char *const prefix[] = {"sources"};
    const struct pipeline *p = l->p;
    const char *dot = strchr(ref, '.');

    if (str_nearest(name, prefix, 1) && pipeline_find_source(p, dot + 1) >= 0)
        problem_add(&l->problems, pos, "'%s': there is no stage '%s'; did you mean 'sources%s'?",
                    ref, name, dot);
    else if (pipeline_find_source(p, name) >= 0)
        problem_add(&l->problems, pos,
                    "'%s': there is no stage '%s'; for the source write sources.%s", ref, name,
                    name);
    else
        problem_add_near(&l->problems, pos, name, p->stage_names->list, p->stage_count,
                         "'%s': there is no stage '%s'", ref, name);
}

static const char *find_output(const struct stage *st, struct str output)
{
    for (size_t i = 0; st->outputs[i]; i++)
        if (str_eq(str_of(st->outputs[i]), output))
            return st->outputs[i];
    return NULL;
}

static void unknown_output(struct loader *l, const char *ref, const struct stage *st,
                           struct str output, struct pos pos)
{
    const char *name = arena_strndup(&l->scratch, output.p, output.n);
    size_t n = 0;

    while (st->outputs[n])
        n++;
    problem_add_near(&l->problems, pos, name, st->outputs, n, "'%s': stage %s has no output '%s'",
                     ref, st->name, name);
}

static void bad_selector(struct loader *l, const char *ref, const struct stage *st,
                         const struct selector_problem *why, struct pos pos)
{
    const char *at = arena_strndup(&l->scratch, why->at, why->n);
    const char *key = st->matrix[why->key < st->matrix_count ? why->key : 0].name;
    const size_t eq = strcspn(at, "=");
    const char **keys;

    switch (why->what) {
    case SELECTOR_SYNTAX:
        problem_add(&l->problems, pos,
                    "'%s': '%s' is not KEY=VALUE; write %s[%s=...], or %s[*] for all", ref, at,
                    st->name, key, st->name);
        break;
    case SELECTOR_KEY:
        keys = arena_array(&l->scratch, st->matrix_count, sizeof(*keys));
        for (size_t k = 0; k < st->matrix_count; k++)
            keys[k] = st->matrix[k].name;
        problem_add_near(&l->problems, pos, arena_strndup(&l->scratch, at, eq), keys,
                         st->matrix_count, "'%s': the matrix of stage %s has no key '%.*s'", ref,
                         st->name, (int)eq, at);
        break;
    case SELECTOR_VALUE:
        problem_add_near(&l->problems, pos, at + eq + 1, st->matrix_values[why->key].list,
                         st->matrix_values[why->key].count, "'%s': stage %s has no %s '%s'", ref,
                         st->name, key, at + eq + 1);
        break;
    case SELECTOR_TWICE:
        problem_add(&l->problems, pos, "'%s': %s is given twice", ref, key);
        break;
    case SELECTOR_MISSING:
        problem_add(&l->problems, pos,
                    "'%s' does not say which %s; give every key of the matrix, or [*] for all", ref,
                    key);
        break;
    }
}

/* The first task that is meant, *count how many; -1 after a problem. */
static int find_tasks(struct loader *l, const char *ref, const struct parsed *parsed, int stage,
                      struct pos pos, int *count)
{
    const struct stage *st = &l->p->stages[stage];
    const int length = (int)parsed->output.n;
    const char *output = parsed->output.p;
    struct selector_problem why = {.at = "", .n = 0};
    int task;

    *count = 1;
    if (l->drafts[stage].matrix_bad)
        return -1;
    if (parsed->brackets && st->matrix_count == 0) {
        problem_add(&l->problems, pos, "'%s': stage %s has no matrix; write %s.%.*s", ref, st->name,
                    st->name, length, output);
        return -1;
    }
    if (!parsed->brackets && st->matrix_count > 0) {
        problem_add(
            &l->problems, pos,
            "'%s': stage %s has a matrix; write %s[*].%.*s for all or %s[%s=...].%.*s for one", ref,
            st->name, st->name, length, output, st->name, st->matrix[0].name, length, output);
        return -1;
    }
    if (parsed->all)
        *count = st->task_count;
    if (parsed->all || !parsed->brackets)
        return st->first_task;
    task = select_instance(st, parsed->selector.p, parsed->selector.n, &why);
    if (task < 0)
        bad_selector(l, ref, st, &why, pos);
    return task;
}

/* Appends to l->refs.  all: it was [*]. */
static bool parse_ref(struct loader *l, const char *ref, struct pos pos, bool *all)
{
    struct parsed parsed;
    const char *output;
    int stage, first, count;

    *all = false;
    if (strncmp(ref, "sources.", 8) == 0)
        return source_ref(l, ref, pos);
    if (!split_ref(ref, &parsed)) {
        no_reference(l, ref, pos);
        return false;
    }
    if (l->stages_bad)
        return false;
    stage = names_find(l->p->stage_names, parsed.stage.p, parsed.stage.n);
    if (stage < 0) {
        unknown_stage(l, ref, arena_strndup(&l->scratch, parsed.stage.p, parsed.stage.n), pos);
        return false;
    }
    output = find_output(&l->p->stages[stage], parsed.output);
    if (!output) {
        if (!l->drafts[stage].outputs_bad)
            unknown_output(l, ref, &l->p->stages[stage], parsed.output, pos);
        return false;
    }
    first = find_tasks(l, ref, &parsed, stage, pos, &count);
    if (first < 0)
        return false;
    *all = parsed.all;
    for (int i = 0; i < count; i++)
        add_ref(l, (struct task_input_ref){.source = -1,
                                           .task = first + i,
                                           .output = output,
                                           .entry = l->p->tasks[first + i].instance});
    return true;
}

/* ---- inputs ------------------------------------------------------------------------------------ */

static void check_entries(struct loader *l, const struct task_input *in)
{
    const struct arena_mark mark = arena_mark(&l->scratch);
    struct names seen;
    size_t i = 0;

    names_init(&seen, &l->scratch, in->ref_count);
    while (i < in->ref_count && names_add(&seen, in->refs[i].entry))
        i++;
    arena_rewind(&l->scratch, mark);
    if (i < in->ref_count)
        problem_add(&l->problems, in->pos,
                    "input %s would have two entries called '%s'; give them as two inputs",
                    in->name, in->refs[i].entry);
}

static void task_input(struct loader *l, struct task *t, const struct node_member *m,
                       struct task_input *in)
{
    const struct scope s = {.task = t};
    const struct node *n = m->value, *list = n->type == YAML_LIST ? n->items : n;
    const size_t count = n->type == YAML_LIST ? n->count : 1;

    in->fan_in = n->type == YAML_LIST;
    in->pos = n->pos;
    l->ref_count = 0;
    if (count == 0)
        problem_add(&l->problems, n->pos, "input %s is an empty list", m->key);
    for (size_t i = 0; i < count; i++) {
        bool all;

        if (list[i].type != YAML_STRING)
            problem_add(&l->problems, list[i].pos,
                        "input %s must be a reference such as STAGE.OUTPUT%s, found %s", m->key,
                        n->type == YAML_LIST ? "" : ", or a list of them",
                        node_type_name(&list[i]));
        else if (template_text(l, &s, list[i].text, list[i].pos) &&
                 parse_ref(l, l->text.p, list[i].pos, &all))
            in->fan_in = in->fan_in || all;
    }
    in->ref_count = l->ref_count;
    in->refs = arena_array(l->arena, l->ref_count, sizeof(*in->refs));
    if (l->ref_count)
        memcpy(in->refs, l->refs, l->ref_count * sizeof(*in->refs));
    if (in->fan_in)
        check_entries(l, in);
}

static bool count_edges(struct loader *l, const struct task *t, struct pos pos)
{
    for (size_t i = 0; i < t->input_count; i++)
        l->edges += t->inputs[i].ref_count;
    if (l->edges <= PIPELINE_EDGES_MAX)
        return true;
    problem_add(&l->problems, pos, "more than %d references between tasks, fan-ins written out",
                PIPELINE_EDGES_MAX);
    return false;
}

/* Inputs of an instance; those that do not speak of the matrix are the first one's. */
static void task_inputs(struct loader *l, struct task *t, const struct task *first,
                        const struct node *n, const bool *varies)
{
    t->inputs = arena_array(l->arena, n->count, sizeof(*t->inputs));
    t->input_count = n->count;
    for (size_t k = 0; k < n->count; k++) {
        const struct node_member *m = &n->members[k];

        if (t != first) {
            t->inputs[k] = first->inputs[k];
            if (varies[k])
                task_input(l, t, m, &t->inputs[k]);
            continue;
        }
        check_name(l, m->key, NAME_THING, m->pos, "an input");
        t->inputs[k].name = arena_strdup(l->arena, m->key);
        task_input(l, t, m, &t->inputs[k]);
    }
}

/* Whether braces stand right does not depend on values, so one instance shows it. */
static void check_command(struct loader *l, const struct task *t, const struct stage *st,
                          const struct node *run)
{
    if (t->run)
        template_check_command(l, t->run, run->pos, t, st);
    for (size_t k = 0; t->argv && t->argv[k]; k++)
        template_check_command(l, t->argv[k], run->items[k].pos, t, st);
}

static bool expand_stage_inputs(struct loader *l, size_t stage)
{
    struct pipeline *p = l->p;
    const struct stage *st = &p->stages[stage];
    const struct node *n = l->drafts[stage].inputs;
    struct task *first = &p->tasks[st->first_task];
    const size_t before = l->problems.count;
    bool *varies = arena_array(&l->scratch, n ? n->count : 0, sizeof(*varies)), any = false;

    for (size_t k = 0; n && k < n->count; k++) {
        varies[k] = template_varies(n->members[k].value);
        any = any || varies[k];
    }
    /* As in expand_stage: the first instance with a problem speaks for the others. */
    for (int i = 0; n && i < st->task_count && !is_spoilt(l, before); i++) {
        struct task *t = first + i;

        if (i == 0 || any) {
            task_inputs(l, t, first, n, varies);
        } else {
            t->inputs = first->inputs;
            t->input_count = first->input_count;
        }
        if (!count_edges(l, t, st->pos))
            return false;
    }
    check_command(l, first, st, l->drafts[stage].run);
    return true;
}

void expand_inputs(struct loader *l)
{
    for (size_t i = 0; i < l->p->stage_count; i++)
        if (!expand_stage_inputs(l, i))
            return;
}

/* ---- publish ----------------------------------------------------------------------------------- */

/* A ref's name.  run-N always means a run. */
static bool ref_name_ok(const char *s)
{
    const bool run = strncmp(s, "run-", 4) == 0 && s[4] && !s[4 + strspn(s + 4, "0123456789")];

    for (const char *p = s; *p; p++) {
        const bool word =
            (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9');

        if (!word && (p == s || !strchr("._-", *p)))
            return false;
    }
    return *s && !run && strlen(s) <= 100;
}

static void decode_publish(struct loader *l, const struct node_member *m)
{
    const struct scope s = {0};
    const struct node *n = m->value;
    bool all;

    if (n->type == YAML_NULL) /* taken away by a layer */
        return;
    if (!ref_name_ok(m->key))
        problem_add(
            &l->problems, m->pos,
            "'%.100s' cannot name a ref; use letters, digits, '.', '_' and '-', and not run-NUMBER",
            m->key);
    if (n->type != YAML_STRING) {
        problem_add(&l->problems, n->pos,
                    "publish %s must be a reference such as STAGE.OUTPUT, found %s", m->key,
                    node_type_name(n));
        return;
    }
    l->ref_count = 0;
    if (!template_text(l, &s, n->text, n->pos) || !parse_ref(l, l->text.p, n->pos, &all))
        return;
    if (all || l->refs[0].task < 0) {
        problem_add(&l->problems, n->pos, "publish %s must be one output of one task, not '%s'",
                    m->key, l->text.p);
        return;
    }
    l->p->publishes[l->p->publish_count++] = (struct publish){
        arena_strdup(l->arena, m->key), l->refs[0].task, l->refs[0].output, n->pos};
}

void decode_publishes(struct loader *l)
{
    const struct node *n = node_get(l->root, "publish");

    if (!want_map(l, n, "publish", ""))
        return;
    l->p->publishes = arena_array(l->arena, n->count + 1, sizeof(*l->p->publishes));
    for (size_t i = 0; i < n->count; i++)
        decode_publish(l, &n->members[i]);
}
