/* weir why: the reason of one task, told from its action and the last one like it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/cli/commands.h"
#include "orchestrator/ledger.h"
#include "orchestrator/plan.h"
#include "orchestrator/record.h"

struct why {
    struct cli *c;
    struct pipeline *p;
    struct store *st;
    struct ledger *l;
    struct resolver *r;
    int task;
    struct task_result *results;
    bool *keyed;
    struct explanation x;
    char commit[72]; /* of the run compared with; "" unknown */
    bool dirty;
    struct buf out;
};

/* ---- what is known ------------------------------------------------------------------------------ */

/* The first event of a run says at which commit it was. */
static enum err_code take_commit(void *arg, int64_t seq, const json_t *body, struct err *err)
{
    struct why *w = arg;
    const json_t *git = json_object_get(body, "git");
    const char *commit = json_string_value(json_object_get(git, "commit"));

    (void)seq;
    (void)snprintf(w->commit, sizeof(w->commit), "%s", commit ? commit : "");
    w->dirty = json_is_true(json_object_get(git, "dirty"));
    return err_set(err, ERR_AGAIN, "the first event is enough");
}

static void find_commit(struct why *w)
{
    struct err enough = ERR_INIT;

    if (w->l && w->x.run)
        (void)!ledger_replay(w->l, w->x.run, 0, take_commit, w, &enough);
}

/* The first task above, in order, that has no result: what this one waits for. */
static int find_waiting(const struct why *w)
{
    const struct task *t = &w->p->tasks[w->task];

    for (size_t i = 0; i < t->input_count; i++)
        for (size_t k = 0; k < t->inputs[i].ref_count; k++) {
            const int from = t->inputs[i].refs[k].task;

            if (from >= 0 && !w->results[from].known)
                return from;
        }
    return -1;
}

/* ---- lines -------------------------------------------------------------------------------------- */

/* Where a param stands; the length of its name is what "params." is followed by. */
static const struct named_value *param_of(const struct task *t, const char *path)
{
    if (strncmp(path, "params.", 7) != 0)
        return NULL;
    path += 7;
    for (size_t i = 0; i < t->param_count; i++) {
        const size_t n = strlen(t->params[i].name);

        if (strncmp(path, t->params[i].name, n) == 0 && strchr(".[", path[n]))
            return &t->params[i];
    }
    return NULL;
}

static void put_origin(struct why *w, const struct task_input_ref *ref)
{
    if (ref->source >= 0)
        buf_printf(&w->out, "   from sources.%s", w->p->sources[ref->source].name);
    else
        buf_printf(&w->out, "   from %s.%s", w->p->tasks[ref->task].name, ref->output);
}

/* "inputs.model" or "inputs.models[a]": the task or source that it came from. */
static void put_input_origin(struct why *w, const char *path)
{
    const struct task *t = &w->p->tasks[w->task];

    if (strncmp(path, "inputs.", 7) != 0)
        return;
    path += 7;
    for (size_t i = 0; i < t->input_count; i++) {
        const struct task_input *in = &t->inputs[i];
        const size_t n = strlen(in->name);

        if (strncmp(path, in->name, n) != 0 || !strchr(".[", path[n]))
            continue;
        for (size_t k = 0; k < in->ref_count; k++) {
            const size_t m = strlen(in->refs[k].entry ? in->refs[k].entry : "");

            if (!in->fan_in ||
                (path[n] == '[' && strncmp(path + n + 1, in->refs[k].entry, m) == 0 &&
                 path[n + 1 + m] == ']')) {
                put_origin(w, &in->refs[k]);
                return;
            }
        }
    }
}

static void put_diff(struct why *w, const json_t *d)
{
    const char *path = json_string_value(json_object_get(d, "path"));
    const struct named_value *param = param_of(&w->p->tasks[w->task], path);
    const struct stage *st = &w->p->stages[w->p->tasks[w->task].stage];

    buf_str(&w->out, "   ");
    cli_escape(&w->out, path, strlen(path));
    buf_str(&w->out, "   ");
    explanation_value(json_object_get(d, "old"), &w->out);
    buf_str(&w->out, " → ");
    explanation_value(json_object_get(d, "new"), &w->out);
    if (param && param->pos.line > 0)
        buf_printf(&w->out, "   %s:%d:%d", param->pos.file, param->pos.line, param->pos.column);
    else if (param)
        buf_printf(&w->out, "   %s", param->pos.file);
    else if (strncmp(path, "inputs.", 7) != 0)
        buf_printf(&w->out, "   %s:%d:%d", st->pos.file, st->pos.line, st->pos.column);
    put_input_origin(w, path);
    buf_char(&w->out, '\n');
}

static void put_compared(struct why *w)
{
    const char *name = w->p->tasks[w->task].name;

    if (!w->x.found) {
        buf_str(&w->out, "   nothing like it has run here yet\n");
        return;
    }
    buf_printf(&w->out, "   compared with %s",
               strcmp(w->x.against, name) == 0 ? "the last time" : w->x.against);
    if (w->x.run)
        buf_printf(&w->out, ", run-%lld", (long long)w->x.run);
    if (*w->commit)
        buf_printf(&w->out, ", commit %.12s%s", w->commit, w->dirty ? " with changes" : "");
    buf_char(&w->out, '\n');
    for (size_t i = 0; i < json_array_size(w->x.diffs); i++)
        put_diff(w, json_array_get(w->x.diffs, i));
    buf_str(&w->out, json_array_size(w->x.diffs) ? "   everything else equal\n"
                                                 : "   the same action, which has no result\n");
}

static void put_cached(struct why *w)
{
    char text[DIGEST_TEXT + 1], time[24];

    digest_text(&w->results[w->task].key, text);
    buf_printf(&w->out, "cached: nothing that it is made of has changed\n   key %s\n", text);
    digest_text(&w->results[w->task].result, text);
    buf_printf(&w->out, "   result %s\n", text);
    if (w->x.found && w->x.same && w->x.run) {
        cli_time_text(w->x.wall_ms, time);
        buf_printf(&w->out, "   last seen in run-%lld (%s, %s)", (long long)w->x.run, w->x.status,
                   time);
        if (*w->commit)
            buf_printf(&w->out, ", commit %.12s%s", w->commit, w->dirty ? " with changes" : "");
        buf_char(&w->out, '\n');
    }
}

/* What became of its last attempt, when that left no result. */
static enum err_code put_failure(struct why *w, struct err *err)
{
    struct run_view *v = NULL;
    const struct run_task *t;
    char text[DIGEST_TEXT + 1];
    enum err_code rc;

    if (!w->x.found || !w->x.same || !w->x.run)
        return OK;
    rc = run_view_load(w->st, w->l, w->x.run, &v, err);
    if (rc == ERR_NOT_FOUND) {
        *err = (struct err)ERR_INIT;
        return OK;
    }
    t = rc ? NULL : run_view_task(v, w->x.against);
    if (t && t->reason) {
        buf_printf(&w->out, "   run-%lld: %s, ", (long long)w->x.run, t->state ? t->state : "");
        cli_escape(&w->out, t->reason, strlen(t->reason));
        buf_char(&w->out, '\n');
    }
    if (t && !digest_is_zero(&t->log)) {
        digest_text(&t->log, text);
        buf_printf(&w->out, "   log: weir store cat %s\n", text);
    }
    run_view_free(v);
    return rc;
}

/* ---- the command -------------------------------------------------------------------------------- */

static enum err_code tell_text(struct why *w, struct err *err)
{
    const struct task *t = &w->p->tasks[w->task];
    const int waits = find_waiting(w);
    enum err_code rc = OK;

    buf_printf(&w->out, "%s  ", t->name);
    if (t->skipped) {
        buf_printf(&w->out, "is skipped: %s", t->skip_reason ? t->skip_reason : "");
        if (t->when_pos.file)
            buf_printf(&w->out, "   %s:%d:%d", t->when_pos.file, t->when_pos.line,
                       t->when_pos.column);
        buf_char(&w->out, '\n');
    } else if (w->results[w->task].known) {
        put_cached(w);
    } else if (!w->keyed[w->task]) {
        buf_printf(&w->out, "waits: %s has no result yet\n   weir why '%s' tells more\n",
                   waits >= 0 ? w->p->tasks[waits].name : "an input",
                   waits >= 0 ? w->p->tasks[waits].name : t->name);
    } else {
        buf_str(&w->out, "will run: its action has no result\n");
        put_compared(w);
        rc = put_failure(w, err);
    }
    return rc ? rc : buf_check(&w->out, "reason", err);
}

static enum err_code tell_json(struct why *w, struct err *err)
{
    const struct task *t = &w->p->tasks[w->task];
    const struct task_result *res = &w->results[w->task];
    const int waits = find_waiting(w);
    const char *state = t->skipped          ? "skipped"
                        : res->known        ? "cached"
                        : w->keyed[w->task] ? "run"
                                            : "depends";

    return cli_json(
        json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "task", t->name, "state", state,
                  "key", w->keyed[w->task] ? cli_json_digest(&res->key) : json_null(), "result",
                  res->known ? cli_json_digest(&res->result) : json_null(), "needs",
                  waits >= 0 ? json_string(w->p->tasks[waits].name) : json_null(), "against",
                  w->x.found ? json_string(w->x.against) : json_null(), "run",
                  w->x.found && w->x.run ? json_integer((json_int_t)w->x.run) : json_null(),
                  "commit", *w->commit ? json_string(w->commit) : json_null(), "differs",
                  w->x.diffs ? json_incref(w->x.diffs) : json_array()),
        err);
}

static enum err_code find_task(struct why *w, const char *name, struct err *err)
{
    bool *marks = mem_zero(w->p->task_count + 1, sizeof(*marks));
    enum err_code rc = select_name(w->p, "weir why", name, marks, err);

    w->task = -1;
    for (size_t i = 0; !rc && i < w->p->task_count; i++) {
        if (marks[i] && w->task >= 0)
            rc = err_set(err, ERR_USAGE, "'%s' is several tasks; name one, as in '%s'", name,
                         w->p->tasks[w->task].name);
        if (marks[i])
            w->task = (int)i;
    }
    free(marks);
    return rc;
}

static enum err_code look(struct why *w, struct err *err)
{
    const char **inputs = cli_values(w->c, "input");
    bool *wanted = mem_zero(w->p->task_count + 1, sizeof(*wanted));
    const struct resolver_options o = {.inputs = inputs, .ledger_read = true, .wanted = wanted};
    enum err_code rc;

    wanted[w->task] = true;
    w->results = mem_zero(w->p->task_count + 1, sizeof(*w->results));
    w->keyed = mem_zero(w->p->task_count + 1, sizeof(*w->keyed));
    rc = resolver_new(w->st, w->l, w->p, &o, &w->r, err);
    if (!rc)
        rc = resolve_all(w->r, w->results, w->keyed, err);
    if (!rc && w->keyed[w->task])
        rc = plan_explain(w->r, w->st, w->l, w->p, w->task, &w->x, err);
    if (!rc)
        find_commit(w);
    free(wanted);
    free(inputs);
    return rc;
}

static enum err_code why_run(struct cli *c, struct err *err)
{
    struct why w = {.c = c};
    enum err_code rc =
        cli_open_pipeline(c, cli_value(c, "pipeline"), STORE_WRITE, &w.st, &w.p, err);

    buf_init(&w.out, 1 << 24);
    if (!rc)
        rc = find_task(&w, c->args[0], err);
    if (!rc)
        rc = cli_read_ledger(w.st, &w.l, err);
    if (!rc)
        rc = look(&w, err);
    if (!rc)
        rc = c->json ? tell_json(&w, err) : tell_text(&w, err);
    if (!rc && !c->json)
        rc = cli_write(w.out.p, w.out.n, err);
    buf_release(&w.out);
    explanation_release(&w.x);
    free(w.results);
    free(w.keyed);
    resolver_free(w.r);
    ledger_close(w.l);
    store_close(w.st);
    pipeline_free(w.p);
    return rc;
}

static const struct cli_option why_options[] = {
    {"pipeline", 'p', "FILE", "the pipeline; otherwise the only one in this folder"},
    CLI_PIPELINE_OPTIONS,
    {"input", 0, "TASK.INPUT=WHAT...",
     "another input: a path, a ref, a digest or RUN:STAGE.OUTPUT"},
    {0},
};

const struct cli_command cli_why = {
    .name = "why",
    .args = "TASK",
    .args_min = 1,
    .args_max = 1,
    .summary = "tell why a task runs, waits or is cached: what differs from the last time",
    .text = "Compared is the action of the task with the last one recorded for it, else with that "
            "instance of its\n"
            "stage that differs least.  Only what leads to the task is looked at.",
    .example =
        "weir why 'sft[variant=realism]'\nweir why pretrain --set stages.pretrain.params.lr=2e-4",
    .json =
        "{\"against\":\"sft[variant=realism]\"|null,\"commit\":\"...\"|null,\"differs\":[{\"new\":"
        "2e-4,\"old\":1e-4,\"path\":\"params.lr\"}],\n"
        "\"key\":\"sha256:...\"|null,\"needs\":\"pretrain\"|null,\"result\":\"sha256:...\"|null,"
        "\"run\":41|null,\n"
        "\"state\":\"cached\"|\"run\"|\"depends\"|\"skipped\",\"task\":\"sft[variant=realism]\"}",
    .options = why_options,
    .run = why_run,
};
