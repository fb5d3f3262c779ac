/* What goes into tasks: sources, outputs of other tasks, fan-ins, and what --input puts in their place. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/pipeline_internal.h"
#include "orchestrator/record.h"
#include "orchestrator/resolve_internal.h"
#include "store/tree.h"

/* ---- --input ----------------------------------------------------------------------------------- */

struct target { /* TASK.INPUT[SELECTOR], taken apart */
    char *task, *input, *selector;
    const char *same; /* @NAME: which output is meant depends on the input; else NULL */
};

/* The first c outside of brackets, or NULL. */
static char *find_outside(char *s, char c)
{
    int depth = 0;

    for (; *s; s++) {
        if (*s == c && depth == 0)
            return s;
        depth += (*s == '[') - (*s == ']');
    }
    return NULL;
}

static bool take_apart(char *left, struct target *t)
{
    char *dot = find_outside(left, '.'), *open, *end;

    if (!dot)
        return false;
    *dot = '\0';
    t->task = left;
    t->input = dot + 1;
    t->selector = NULL;
    open = strchr(t->input, '[');
    if (open) {
        end = open + strlen(open) - 1;
        if (*end != ']')
            return false;
        *open = *end = '\0';
        t->selector = open + 1;
    }
    return *t->task && *t->input;
}

static enum err_code unknown_input(const struct resolver *r, const struct task *t, const char *name,
                                   struct err *err)
{
    const char **names = mem_zero(t->input_count + 1, sizeof(*names)), *near;
    enum err_code rc;

    for (size_t i = 0; i < t->input_count; i++)
        names[i] = t->inputs[i].name;
    near = str_nearest(name, names, t->input_count);
    rc = err_set(err, ERR_USAGE, "--input: stage %s has no input '%s'%s%s%s",
                 r->p->stages[t->stage].name, name, near ? "; did you mean '" : "",
                 near ? near : "", near ? "'?" : "");
    free(names);
    return rc;
}

static bool entry_matches(const struct resolver *r, const struct task_input_ref *ref,
                          const char *selector)
{
    struct selector_problem why;
    const struct stage *st;

    if (strcmp(ref->entry, selector) == 0)
        return true;
    if (ref->task < 0)
        return false;
    st = &r->p->stages[r->p->tasks[ref->task].stage];
    return st->matrix_count && select_instance(st, selector, strlen(selector), &why) == ref->task;
}

static void add_override(struct resolver *r, const struct override *o)
{
    r->overrides = mem_grow(r->overrides, r->override_count + 1, sizeof(*r->overrides));
    r->overrides[r->override_count++] = *o;
    if (o->task >= 0)
        r->overridden[o->task] = true;
}

/* @NAME: the output that the pipeline takes here, from the run tagged NAME, or as it was published under NAME; @run-N from that run. */
static enum err_code same_output(struct resolver *r, const struct task_input *in,
                                 const struct task_input_ref *ref, const char *text,
                                 struct source_object *out, struct err *err)
{
    const struct task *made = ref->task >= 0 ? &r->p->tasks[ref->task] : NULL;
    struct err none = ERR_INIT;
    int64_t run;

    if (!made)
        return err_set(err, ERR_USAGE,
                       "%s means the same output of another run, but input %s is a source; write "
                       "RUN:STAGE.OUTPUT",
                       text, in->name);
    if (run_number(r->st, NULL, strncmp(text, "@run-", 5) == 0 ? text + 1 : text, &run, &none) ==
        OK)
        text = arena_printf(&r->arena, "run-%lld:%s.%s", (long long)run, made->name, ref->output);
    else
        text = arena_printf(&r->arena, "%s/%s.%s%s", r->p->name, made->name, ref->output, text);
    return source_resolve_text(r->st, ".", text, out, err);
}

/* The object, or for @NAME one for each entry that is meant. */
static enum err_code add_overrides(struct resolver *r, struct override *o, const char *same,
                                   struct err *err)
{
    const struct task_input *in = &r->p->tasks[o->task].inputs[o->input];
    enum err_code rc = OK;

    if (!same) {
        add_override(r, o);
        return OK;
    }
    for (size_t k = 0; !rc && k < in->ref_count; k++) {
        if (o->entry >= 0 && (size_t)o->entry != k)
            continue;
        rc = same_output(r, in, &in->refs[k], same, &o->object, err);
        if (!rc && in->fan_in && o->entry < 0) {
            struct override one = *o;

            one.entry = (int)k;
            add_override(r, &one);
        } else if (!rc) {
            add_override(r, o);
        }
    }
    return rc;
}

static enum err_code override_task(struct resolver *r, int number, const struct target *t,
                                   const struct source_object *object, struct err *err)
{
    const struct task *task = &r->p->tasks[number];
    struct override o = {.task = number, .input = -1, .entry = -1, .object = *object};
    const struct task_input *in;

    for (size_t i = 0; i < task->input_count; i++)
        if (strcmp(task->inputs[i].name, t->input) == 0)
            o.input = (int)i;
    if (o.input < 0)
        return unknown_input(r, task, t->input, err);
    if (!t->selector)
        return add_overrides(r, &o, t->same, err);
    in = &task->inputs[o.input];
    for (size_t k = 0; k < in->ref_count; k++)
        if (in->fan_in && entry_matches(r, &in->refs[k], t->selector))
            o.entry = (int)k;
    if (o.entry < 0)
        return err_set(err, ERR_USAGE,
                       "--input: input %s of %s has no entry [%s]; weir graph shows what it has",
                       in->name, task->name, t->selector);
    return add_overrides(r, &o, t->same, err);
}

static enum err_code unknown_stage(const struct resolver *r, const char *name, struct err *err)
{
    const char **names = mem_zero(r->p->stage_count + 1, sizeof(*names)), *near;
    enum err_code rc;

    for (size_t i = 0; i < r->p->stage_count; i++)
        names[i] = r->p->stages[i].name;
    near = str_nearest(name, names, r->p->stage_count);
    rc = err_set(err, ERR_USAGE, "--input: the pipeline has no task or stage '%s'%s%s%s", name,
                 near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    free(names);
    return rc;
}

/* A stage without instance means all its instances. */
static enum err_code override_tasks(struct resolver *r, const struct target *t,
                                    const struct source_object *object, struct err *err)
{
    const int task = pipeline_find_task(r->p, t->task), stage = pipeline_find_stage(r->p, t->task);
    enum err_code rc = OK;

    if (strcmp(t->task, "sources") == 0) {
        struct override o = {.task = -1,
                             .input = pipeline_find_source(r->p, t->input),
                             .entry = -1,
                             .object = *object};

        if (o.input < 0)
            return err_set(err, ERR_USAGE, "--input: the pipeline has no source '%s'", t->input);
        add_override(r, &o);
        return OK;
    }
    if (task >= 0)
        return override_task(r, task, t, object, err);
    if (stage < 0)
        return unknown_stage(r, t->task, err);
    for (int i = 0; !rc && i < r->p->stages[stage].task_count; i++)
        rc = override_task(r, r->p->stages[stage].first_task + i, t, object, err);
    return rc;
}

/* RUN:STAGE.OUTPUT with RUN as people call it elsewhere, too: last, @TAG. */
static enum err_code text_object(struct resolver *r, const char *text, struct source_object *out,
                                 struct err *err)
{
    const char *colon = strchr(text, ':');
    int64_t run;
    enum err_code rc = OK;

    if (colon && (text[0] == '@' || strncmp(text, "last:", 5) == 0)) {
        rc = run_number(r->st, NULL, arena_strndup(&r->arena, text, (size_t)(colon - text)), &run,
                        err);
        if (!rc)
            text = arena_printf(&r->arena, "run-%lld%s", (long long)run, colon);
    }
    return rc ? rc : source_resolve_text(r->st, ".", text, out, err);
}

enum err_code resolve_overrides(struct resolver *r, const char *const *texts, struct err *err)
{
    enum err_code rc = OK;

    if (!texts || !texts[0])
        return OK;
    r->overridden = arena_array(&r->arena, r->p->task_count + 1, sizeof(bool));
    for (size_t i = 0; !rc && texts[i]; i++) {
        char *left = arena_strdup(&r->arena, texts[i]), *equal = find_outside(left, '=');
        struct source_object object;
        struct target t;

        if (equal)
            *equal = '\0';
        if (!equal || !equal[1] || !take_apart(left, &t)) {
            rc = err_set(err, ERR_USAGE,
                         "--input '%s': write TASK.INPUT=WHAT or TASK.INPUT[key=value]=WHAT, where "
                         "WHAT is a path, a ref, a digest or RUN:STAGE.OUTPUT",
                         texts[i]);
            break;
        }
        t.same = equal[1] == '@' && !strchr(equal, ':') ? equal + 1 : NULL;
        object = (struct source_object){0};
        if (t.same && strcmp(t.task, "sources") == 0)
            rc = err_set(err, ERR_USAGE, "'%s' is for inputs of stages; write RUN:STAGE.OUTPUT",
                         t.same);
        else if (!t.same)
            rc = text_object(r, equal + 1, &object, err);
        if (rc)
            (void)err_prefix(err, "--input %s", texts[i]);
        else
            rc = override_tasks(r, &t, &object, err);
    }
    return rc;
}

/* The last one given wins. */
const struct override *resolve_override(const struct resolver *r, int task, int input, int entry)
{
    if (task >= 0 && (!r->overridden || !r->overridden[task]))
        return NULL;
    for (size_t i = r->override_count; i-- > 0;) {
        const struct override *o = &r->overrides[i];

        if (o->task == task && o->input == input && o->entry == entry)
            return o;
    }
    return NULL;
}

bool resolver_overridden(const struct resolver *r, int task, int input, int entry)
{
    return resolve_override(r, task, input, -1) || resolve_override(r, task, input, entry);
}

/* ---- inputs ------------------------------------------------------------------------------------ */

bool resolve_inputs_known(const struct resolver *r, int task)
{
    const struct task *t = &r->p->tasks[task];

    for (size_t i = 0; i < t->input_count; i++) {
        const struct task_input *in = &t->inputs[i];

        if (resolve_override(r, task, (int)i, -1))
            continue;
        for (size_t k = 0; k < in->ref_count; k++) {
            const struct task_input_ref *ref = &in->refs[k];

            if (resolve_override(r, task, (int)i, (int)k))
                continue;
            if (ref->source >= 0 ? r->source[ref->source].kind == OBJ_NONE
                                 : !r->tasks[ref->task].result.known)
                return false;
        }
    }
    return true;
}

static enum err_code ref_object(const struct resolver *r, const struct task_input_ref *ref,
                                struct card_object *out, struct err *err)
{
    const struct task_result *from;

    *out = (struct card_object){.name = ref->entry};
    if (ref->source >= 0) {
        const struct source_object *s = &r->source[ref->source];

        out->kind = s->kind;
        out->digest = s->digest;
        out->size = s->size;
        return OK;
    }
    from = &r->tasks[ref->task].result;
    for (size_t i = 0; i < from->output_count; i++)
        if (strcmp(from->outputs[i].name, ref->output) == 0) {
            *out = from->outputs[i];
            out->name = ref->entry;
            return OK;
        }
    return err_set(err, ERR_DAMAGED, "the result of %s has no output %s",
                   r->p->tasks[ref->task].name, ref->output);
}

/* A fan-in is a folder with one entry per reference: a tree object of its own, which nobody needs before a task runs. */
static enum err_code fan_in(struct writer *w, struct ready_input *in, struct err *err)
{
    struct tree t = {0};
    struct buf text = {0};
    enum err_code rc = OK;

    tree_init(&t);
    buf_init(&text, TREE_BYTES_MAX);
    for (size_t i = 0; !rc && i < in->entry_count; i++) {
        const struct card_object *o = &in->entries[i];
        const struct tree_entry e = {.mode = o->kind == OBJ_TREE ? TREE_DIR : TREE_FILE,
                                     .name = str_of(o->name),
                                     .digest = o->digest,
                                     .size = o->size};

        rc = tree_add(&t, &e, 0, err);
    }
    if (!rc)
        rc = tree_encode(&t, &text, err);
    in->kind = OBJ_TREE;
    if (!rc && !w)
        sha256_of(text.p, text.n, &in->digest);
    else if (!rc)
        rc = writer_put(w, OBJ_TREE, text.p, text.n, &in->digest, err);
    if (!rc && w)
        writer_touch(w, OBJ_TREE, &in->digest);
    tree_release(&t);
    buf_release(&text);
    return rc;
}

static enum err_code one_input(struct resolver *r, int task, int number, struct writer *w,
                               struct ready_input *out, struct err *err)
{
    const struct task_input *in = &r->p->tasks[task].inputs[number];
    const struct override *o = resolve_override(r, task, number, -1);
    struct card_object one;
    enum err_code rc = OK;

    *out = (struct ready_input){.name = in->name, .fan_in = in->fan_in && !o};
    if (o) {
        out->kind = o->object.kind;
        out->digest = o->object.digest;
        return OK;
    }
    if (!in->fan_in) {
        rc = ref_object(r, &in->refs[0], &one, err);
        out->kind = one.kind;
        out->digest = one.digest;
        return rc;
    }
    out->entries = arena_array(&r->scratch, in->ref_count + 1, sizeof(*out->entries));
    for (size_t k = 0; !rc && k < in->ref_count; k++) {
        struct card_object *e = &out->entries[out->entry_count++];

        o = resolve_override(r, task, number, (int)k);
        if (o)
            *e = (struct card_object){.name = in->refs[k].entry,
                                      .kind = o->object.kind,
                                      .digest = o->object.digest,
                                      .size = o->object.size};
        else
            rc = ref_object(r, &in->refs[k], e, err);
    }
    return rc ? rc : fan_in(w, out, err);
}

enum err_code resolve_inputs(struct resolver *r, int task, struct writer *w,
                             struct ready_input **out, struct err *err)
{
    const size_t n = r->p->tasks[task].input_count;
    enum err_code rc = OK;

    *out = arena_array(&r->scratch, n + 1, sizeof(**out));
    for (size_t i = 0; !rc && i < n; i++)
        rc = one_input(r, task, (int)i, w, &(*out)[i], err);
    return rc ? err_prefix(err, "task %s", r->p->tasks[task].name) : OK;
}
