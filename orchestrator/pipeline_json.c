/* The expanded pipeline as JSON.  What has an order is an array; defaults are filled in; times are seconds, sizes bytes. */
#include <string.h>

#include "orchestrator/pipeline.h"

/* A new reference may be NULL when memory is gone; jansson passes that on, and the CHECK at the end sees it. */
static void set(json_t *o, const char *key, json_t *v)
{
    CHECK(json_object_set_new(o, key, v) == 0);
}

static void set_text(json_t *o, const char *key, const char *text)
{
    if (text)
        set(o, key, json_string(text));
}

static void append(json_t *list, json_t *v)
{
    CHECK(json_array_append_new(list, v) == 0);
}

static json_t *strings(const char *const *list)
{
    json_t *v = json_array();

    for (size_t i = 0; list && list[i]; i++)
        append(v, json_string(list[i]));
    return v;
}

static json_t *values(const struct named_value *list, size_t count)
{
    json_t *v = json_object();

    for (size_t i = 0; i < count; i++)
        set(v, list[i].name, json_incref(list[i].value));
    return v;
}

/* 0 means that there is none. */
static json_t *limit(int64_t n)
{
    return n ? json_integer(n) : json_null();
}

static json_t *source_json(const struct source *s)
{
    static const char *const kinds[] = {"path", "deb", "url", "artifact"};
    json_t *v = json_object();

    set_text(v, "name", s->name);
    set_text(v, kinds[s->kind], s->location);
    set_text(v, "sha256", s->sha256);
    set_text(v, "license", s->license);
    set_text(v, "attribution", s->attribution);
    set_text(v, "records", s->records);
    return v;
}

static json_t *resources_json(const struct resources *r)
{
    json_t *v = json_object();

    set(v, "cpus", json_integer(r->cpus));
    set(v, "gpus", json_integer(r->gpus));
    set(v, "nodes", json_integer(r->nodes));
    set(v, "ranks", json_integer(r->ranks));
    set(v, "memory_bytes", limit(r->memory_bytes));
    set(v, "time_s", limit(r->time_s));
    return v;
}

static json_t *stage_json(const struct stage *s)
{
    json_t *v = json_object(), *matrix = json_array();

    for (size_t k = 0; k < s->matrix_count; k++)
        append(matrix,
               json_pack("{s:s,s:O}", "key", s->matrix[k].name, "values", s->matrix[k].value));
    set_text(v, "name", s->name);
    set_text(v, "uses", s->uses);
    set_text(v, "uses_digest", s->uses_digest);
    set(v, "code", strings(s->code));
    set(v, "env", strings(s->env));
    set(v, "outputs", strings(s->outputs));
    set(v, "matrix", matrix);
    set(v, "tasks", json_integer(s->task_count));
    set(v, "device", json_string(s->cuda ? "cuda" : "cpu"));
    set(v, "resources", resources_json(&s->resources));
    set(v, "retries",
        json_pack("{s:I,s:I}", "attempts", (json_int_t)s->attempts, "backoff_s",
                  (json_int_t)s->backoff_s));
    set(v, "checkpoint",
        json_pack("{s:I,s:I}", "every_s", (json_int_t)s->checkpoint_every_s, "keep",
                  (json_int_t)s->checkpoint_keep));
    set(v, "timeout_s", limit(s->timeout_s));
    return v;
}

static json_t *ref_json(const struct pipeline *p, const struct task_input_ref *r, bool fan_in)
{
    json_t *v = json_object();

    if (r->source >= 0) {
        set_text(v, "source", p->sources[r->source].name);
    } else {
        set_text(v, "task", p->tasks[r->task].name);
        set_text(v, "output", r->output);
    }
    if (fan_in)
        set_text(v, "entry", r->entry);
    return v;
}

/* One reference, or an array of them for a fan-in. */
static json_t *inputs_json(const struct pipeline *p, const struct task *t)
{
    json_t *v = json_object();

    for (size_t i = 0; i < t->input_count; i++) {
        const struct task_input *in = &t->inputs[i];
        json_t *refs = json_array();

        for (size_t r = 0; in->fan_in && r < in->ref_count; r++)
            append(refs, ref_json(p, &in->refs[r], true));
        if (!in->fan_in) {
            json_decref(refs);
            refs = ref_json(p, &in->refs[0], false);
        }
        set(v, in->name, refs);
    }
    return v;
}

static json_t *task_json(const struct pipeline *p, const struct task *t)
{
    json_t *v = json_object();

    set_text(v, "name", t->name);
    set_text(v, "stage", p->stages[t->stage].name);
    set(v, "matrix", values(t->matrix, t->matrix_count));
    set(v, "params", values(t->params, t->param_count));
    set(v, "inputs", inputs_json(p, t));
    set_text(v, "run", t->run);
    if (t->argv)
        set(v, "run", strings(t->argv));
    set_text(v, "skipped", t->skip_reason);
    return v;
}

static json_t *policy_json(const struct policy *p)
{
    json_t *v = json_object();

    set(v, "deny", strings(p->deny));
    set(v, "allow_only", strings(p->allow_only));
    set(v, "require_clean_git", json_boolean(p->require_clean_git));
    return v;
}

static json_t *publish_json(const struct pipeline *p, const struct publish *x)
{
    return json_pack("{s:s,s:s,s:s}", "name", x->name, "task", p->tasks[x->task].name, "output",
                     x->output);
}

static json_t *schedule_json(const struct schedule *s)
{
    json_t *v = json_object();

    set_text(v, "cron", s->cron);
    set_text(v, "timezone", s->timezone);
    set_text(v, "watch", s->watch);
    if (s->watch)
        set(v, "settle_s", json_integer(s->settle_s));
    set(v, "params", values(s->params, s->param_count));
    return v;
}

static json_t *notify_json(const struct notify *n)
{
    return json_pack("{s:o,s:s}", "events", strings(n->events), "webhook", n->webhook);
}

enum err_code pipeline_json(const struct pipeline *p, json_t **out, struct err *err)
{
    json_t *v = json_object();
    json_t *sources = json_array(), *stages = json_array(), *tasks = json_array();
    json_t *publishes = json_array(), *schedules = json_array(), *notifies = json_array();

    CHECK(p);
    CHECK(out);
    (void)
        err; /* running out of memory is a CHECK, and a loaded pipeline has nothing else to complain about */
    for (size_t i = 0; i < p->source_count; i++)
        append(sources, source_json(&p->sources[i]));
    for (size_t i = 0; i < p->stage_count; i++)
        append(stages, stage_json(&p->stages[i]));
    for (size_t i = 0; i < p->task_count; i++)
        append(tasks, task_json(p, &p->tasks[i]));
    for (size_t i = 0; i < p->publish_count; i++)
        append(publishes, publish_json(p, &p->publishes[i]));
    for (size_t i = 0; i < p->schedule_count; i++)
        append(schedules, schedule_json(&p->schedules[i]));
    for (size_t i = 0; i < p->notify_count; i++)
        append(notifies, notify_json(&p->notifies[i]));
    set(v, "weir", json_integer(1));
    set_text(v, "name", p->name);
    set_text(v, "description", p->description);
    set(v, "profiles", strings(p->profiles));
    set(v, "params", values(p->params, p->param_count));
    set(v, "sources", sources);
    set(v, "policy", policy_json(&p->policy));
    set(v, "stages", stages);
    set(v, "tasks", tasks);
    set(v, "publish", publishes);
    set(v, "schedule", schedules);
    set(v, "notify", notifies);
    *out = v;
    return OK;
}
