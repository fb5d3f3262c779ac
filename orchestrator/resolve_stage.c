/* What the tasks of a stage have in common: program, code, device, platform, environment. */
#include <stdlib.h>
#include <string.h>

#include "orchestrator/resolve_internal.h"
#include "store/action.h"

static enum err_code at_stage(const struct stage *s, struct err *err)
{
    return err_prefix(err, "%s:%d:%d: stage %s", s->pos.file, s->pos.line, s->pos.column, s->name);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct card_object *)a)->name, ((const struct card_object *)b)->name);
}

static enum err_code take_code(struct resolver *r, const struct stage *s, struct ready_task *t,
                               struct err *err)
{
    struct card_object *code;
    size_t count = 0;
    enum err_code rc = OK;

    while (s->code[count])
        count++;
    code = arena_array(&r->arena, count + 1, sizeof(*code));
    for (size_t i = 0; !rc && i < count; i++) {
        struct source_object o = {0};

        rc = source_code(r->sources, s->code[i], &o, err);
        code[i] = (struct card_object){
            .name = s->code[i], .kind = o.kind, .digest = o.digest, .size = o.size};
    }
    if (rc)
        return err_prefix(err, "code");
    if (count > 1)
        qsort(code, count, sizeof(*code), by_path);
    t->code = code;
    t->code_count = count;
    return OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct ready_env *)a)->name, ((const struct ready_env *)b)->name);
}

static enum err_code take_env(struct resolver *r, const struct stage *s, struct ready_task *t,
                              struct err *err)
{
    struct ready_env *env;
    size_t count = 0;
    enum err_code rc = OK;

    while (s->env[count])
        count++;
    env = arena_array(&r->arena, count + 1, sizeof(*env));
    for (size_t i = 0; !rc && i < count; i++) {
        const char *value = getenv(s->env[i]);
        char hmac[80] = "";

        rc = secret_hmac(r->st, s->env[i], value, hmac, err);
        env[i] = (struct ready_env){.name = s->env[i],
                                    .value = value ? arena_strdup(&r->arena, value) : "",
                                    .hmac = arena_strdup(&r->arena, hmac)};
    }
    if (count > 1)
        qsort(env, count, sizeof(*env), by_name);
    t->env = env;
    t->env_count = count;
    return rc;
}

static enum err_code take_program(struct resolver *r, const struct stage *s, struct ready_task *t,
                                  struct err *err)
{
    const struct program *prog;
    char *platform = r->platform[s->cuda];
    enum err_code rc = program_get(r->programs, s->uses, s->uses_digest, &prog, err);

    if (rc)
        return rc;
    t->description = prog;
    t->program = &prog->digest;
    if (prog->numeric && !*platform)
        rc = platform_class(s->cuda, platform, err);
    t->platform = prog->numeric ? platform : NULL;
    return rc;
}

/* All that is not in the pipeline file, which the memo compares by its bytes. */
static enum err_code identify(struct resolver *r, struct stage_part *part, struct err *err)
{
    const struct ready_task *t = &part->ready;
    struct buf text = {0};
    enum err_code rc = OK;

    if (!t->description && !t->code_count && !t->env_count)
        return OK;
    buf_init(&text, ACTION_BYTES_MAX);
    buf_str(&text, t->head);
    buf_str(&text, t->platform ? t->platform : "");
    if (t->description) {
        buf_add(&text, t->program, sizeof(*t->program));
        if (t->description->libraries)
            rc = json_canonical(t->description->libraries, &text, err);
        for (size_t i = 0; !rc && i < t->param_count; i++) {
            buf_str(&text, t->params[i].name);
            if (t->params[i].standard)
                rc = json_canonical(t->params[i].standard, &text, err);
        }
    }
    if (!rc)
        rc = buf_check(&text, "stage", err);
    if (!rc)
        sha256_of(text.p, text.n, &part->id);
    (void)r;
    buf_release(&text);
    return rc;
}

/* Programs, code and env; the texts for keys follow when a key is made. */
static enum err_code make(struct resolver *r, int number, struct stage_part *part, struct err *err)
{
    const struct stage *s = &r->p->stages[number];
    struct ready_task *t = &part->ready;
    enum err_code rc = OK;

    *t = (struct ready_task){.pipeline = r->p, .task = &r->p->tasks[s->first_task]};
    if (s->code[0])
        rc = take_code(r, s, t, err);
    if (!rc && s->env[0])
        rc = take_env(r, s, t, err);
    if (!rc && s->uses)
        rc = take_program(r, s, t, err);
    if (rc)
        return at_stage(s, err);
    if (t->code_count || t->env_count || t->description) {
        action_stage(t, &r->arena);
        rc = identify(r, part, err);
    }
    part->same = r->rows && digest_eq(&part->id, &r->memo.stages[number]);
    part->made = !rc;
    return rc;
}

enum err_code resolve_stage(struct resolver *r, int stage, struct stage_part **out, struct err *err)
{
    *out = &r->stages[stage];
    return (*out)->made ? OK : make(r, stage, *out, err);
}

enum err_code resolve_ready(struct resolver *r, int task, struct writer *w, struct ready_task *out,
                            struct err *err)
{
    struct stage_part *part;
    struct ready_input *inputs;
    enum err_code rc = resolve_stage(r, r->p->tasks[task].stage, &part, err);

    if (!rc)
        rc = resolve_inputs(r, task, w, &inputs, err);
    if (rc)
        return rc;
    if (!part->ready.head)
        action_stage(&part->ready, &r->arena);
    *out = part->ready;
    out->task = &r->p->tasks[task];
    out->inputs = inputs;
    return OK;
}

/* ---- what callers share with the resolver ---- */

struct sources *resolver_sources(const struct resolver *r)
{
    return r->sources;
}

struct programs *resolver_programs(struct resolver *r)
{
    return r->programs;
}

uint64_t resolver_epoch(const struct resolver *r)
{
    return r->epoch;
}
