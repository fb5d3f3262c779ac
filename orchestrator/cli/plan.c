/* weir plan: what a run would do, and what it should cost. */
#include "orchestrator/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/cli/commands.h"
#include "orchestrator/ledger.h"

#define FOLD_MIN 10    /* instances of a stage that are all cached take one line from here on */
#define REASON_DIFFS 3 /* components in the table; --explain tells all */
#define NAME_WIDTH 36

struct world { /* what every look at a pipeline needs */
    struct cli *c;
    struct pipeline *p;
    struct store *st;
    struct ledger *l; /* NULL: nothing has run here yet */
    struct selection s;
    struct resolver *r;
    struct task_result *results;
    bool *keyed;
    struct plan plan;
};

/* ---- shared with why.c ------------------------------------------------------------------------- */

enum err_code cli_read_ledger(struct store *st, struct ledger **out, struct err *err)
{
    const enum err_code rc = ledger_open(st->root, LEDGER_READ, out, err);

    if (rc != ERR_NOT_FOUND)
        return rc;
    *err = (struct err)ERR_INIT;
    *out = NULL;
    return OK;
}

enum err_code cli_selection(const struct cli *c, const struct pipeline *p, struct selection *out,
                            struct err *err)
{
    const char **only = cli_values(c, "only"), **from = cli_values(c, "from"),
               **until = cli_values(c, "until"), **force = cli_values(c, "force");
    const struct select_options o = {.only = only,
                                     .from = from,
                                     .until = until,
                                     .force = force,
                                     .no_cache = cli_flag(c, "no-cache")};
    const enum err_code rc = select_tasks(p, &o, out, err);

    free(only);
    free(from);
    free(until);
    free(force);
    return rc;
}

/* "1.234s", "3m12s", "2h05m" */
void cli_time_text(int64_t ms, char out[24])
{
    const long long s = (long long)(ms + 500) / 1000;

    if (ms < 10000)
        (void)snprintf(out, 24, "%lld.%llds", (long long)ms / 1000, (long long)ms % 1000 / 100);
    else if (s < 60)
        (void)snprintf(out, 24, "%llds", s);
    else if (s < 3600)
        (void)snprintf(out, 24, "%lldm%02llds", s / 60, s % 60);
    else
        (void)snprintf(out, 24, "%lldh%02lldm", s / 3600, s % 3600 / 60);
}

/* ---- reasons ----------------------------------------------------------------------------------- */

static enum err_code reason(struct world *w, int task, size_t max, struct buf *out, struct err *err)
{
    const struct plan_task *t = &w->plan.tasks[task];
    struct explanation x = {0};
    enum err_code rc;

    buf_clear(out);
    buf_str(out, "");
    if (t->state == PLAN_SKIPPED)
        buf_str(out, w->p->tasks[task].skip_reason ? w->p->tasks[task].skip_reason : "");
    if (t->state == PLAN_DEPENDS && t->waits_for >= 0)
        buf_printf(out, "needs %s", w->p->tasks[t->waits_for].name);
    if (t->state != PLAN_RUN)
        return OK;
    if (w->s.forced[task]) {
        buf_str(out, "forced");
        return OK;
    }
    rc = plan_explain(w->r, w->st, w->l, w->p, task, &x, err);
    if (!rc && !x.found)
        buf_str(out, "has never run");
    else if (!rc && x.same)
        buf_printf(out, "has no result (%s in run-%lld)", *x.status ? x.status : "last",
                   (long long)x.run);
    else if (!rc)
        explanation_text(&x, max, out);
    if (!rc && x.found && strcmp(x.against, w->p->tasks[task].name) != 0)
        buf_printf(out, " (compared with %s)", x.against);
    explanation_release(&x);
    return rc ? rc : buf_check(out, "reason", err);
}

/* ---- text -------------------------------------------------------------------------------------- */

static void put(struct buf *out, const char *name, enum plan_state state, const char *time,
                const char *why)
{
    const int pad = NAME_WIDTH - (int)strlen(name);

    buf_char(out, ' ');
    cli_escape(out, name, strlen(name));
    buf_printf(out, "%*s %-8s %8s", pad > 0 ? pad : 0, "", plan_state_words[state], time);
    if (*why)
        buf_printf(out, "  %s", why);
    while (out->n && out->p[out->n - 1] == ' ')
        out->p[--out->n] = '\0';
    buf_char(out, '\n');
}

static bool all_cached(const struct world *w, const struct stage *st)
{
    for (int i = 0; i < st->task_count; i++)
        if (w->plan.tasks[st->first_task + i].state != PLAN_CACHED)
            return false;
    return st->task_count >= FOLD_MIN;
}

static enum err_code put_task(struct world *w, int task, size_t diffs, struct buf *out,
                              struct buf *why, struct err *err)
{
    const struct plan_task *t = &w->plan.tasks[task];
    char time[24] = "";
    enum err_code rc = reason(w, task, diffs, why, err);

    if (t->state == PLAN_RUN || t->state == PLAN_DEPENDS) {
        if (t->expected_ms >= 0)
            cli_time_text(t->expected_ms, time);
        else
            (void)snprintf(time, sizeof(time), "?");
    }
    put(out, w->p->tasks[task].name, t->state, time, why->p);
    return rc;
}

static void put_summary(const struct plan *plan, struct buf *out)
{
    char total[24], critical[24];

    cli_time_text(plan->total_ms, total);
    cli_time_text(plan->critical_ms, critical);
    buf_printf(out, "%zu cached, %zu to run, %zu that depend on them", plan->counts[PLAN_CACHED],
               plan->counts[PLAN_RUN], plan->counts[PLAN_DEPENDS]);
    if (plan->counts[PLAN_SKIPPED])
        buf_printf(out, ", %zu skipped", plan->counts[PLAN_SKIPPED]);
    if (plan->counts[PLAN_LEFT_OUT])
        buf_printf(out, ", %zu left out", plan->counts[PLAN_LEFT_OUT]);
    if (plan->counts[PLAN_RUN] + plan->counts[PLAN_DEPENDS] > plan->unknown) {
        buf_printf(out, "; %s of work, at least %s one after another", total, critical);
        if (plan->unknown)
            buf_printf(out, ", and %zu task%s without history", plan->unknown,
                       plan->unknown == 1 ? "" : "s");
    }
    buf_char(out, '\n');
}

static enum err_code tell_text(struct world *w, struct err *err)
{
    const size_t diffs = cli_flag(w->c, "explain") ? SIZE_MAX : REASON_DIFFS;
    struct buf out, why;
    enum err_code rc = OK;

    buf_init(&out, (size_t)1 << 30);
    buf_init(&why, 1 << 20);
    for (size_t i = 0; !rc && i < w->p->stage_count; i++) {
        const struct stage *st = &w->p->stages[i];

        if (all_cached(w, st)) {
            char name[300], tasks[40];

            (void)snprintf(name, sizeof(name), "%s[*]", st->name);
            (void)snprintf(tasks, sizeof(tasks), "%d tasks", st->task_count);
            put(&out, name, PLAN_CACHED, "", tasks);
            continue;
        }
        for (int k = 0; !rc && k < st->task_count; k++)
            rc = put_task(w, st->first_task + k, diffs, &out, &why, err);
    }
    if (w->c->quiet)
        buf_clear(&out);
    put_summary(&w->plan, &out);
    if (!rc)
        rc = buf_check(&out, "plan", err);
    if (!rc)
        rc = cli_write(out.p, out.n, err);
    buf_release(&out);
    buf_release(&why);
    return rc;
}

/* ---- JSON -------------------------------------------------------------------------------------- */

static enum err_code task_json(struct world *w, int task, struct buf *why, struct err *err)
{
    const struct plan_task *t = &w->plan.tasks[task];
    struct explanation x = {0};
    enum err_code rc = reason(w, task, REASON_DIFFS, why, err);

    if (!rc && t->state == PLAN_RUN && cli_flag(w->c, "explain"))
        rc = plan_explain(w->r, w->st, w->l, w->p, task, &x, err);
    if (!rc)
        rc = cli_json(
            json_pack("{s:s, s:s, s:o, s:o, s:o, s:o*}", "task", w->p->tasks[task].name, "state",
                      plan_state_words[t->state], "reason",
                      *why->p ? cli_json_name(why->p, why->n) : json_null(), "expected_ms",
                      t->expected_ms >= 0 ? json_integer((json_int_t)t->expected_ms) : json_null(),
                      "key", w->keyed[task] ? cli_json_digest(&w->results[task].key) : json_null(),
                      "differs", x.diffs ? json_incref(x.diffs) : NULL),
            err);
    explanation_release(&x);
    return rc;
}

static enum err_code tell_json(struct world *w, struct err *err)
{
    const struct plan *plan = &w->plan;
    struct buf why;
    enum err_code rc = OK;

    buf_init(&why, 1 << 20);
    for (size_t i = 0; !rc && i < w->p->task_count; i++)
        rc = task_json(w, (int)i, &why, err);
    if (!rc)
        rc = cli_json(json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "cached",
                                (json_int_t)plan->counts[PLAN_CACHED], "run",
                                (json_int_t)plan->counts[PLAN_RUN], "depends",
                                (json_int_t)plan->counts[PLAN_DEPENDS], "skipped",
                                (json_int_t)plan->counts[PLAN_SKIPPED], "left_out",
                                (json_int_t)plan->counts[PLAN_LEFT_OUT], "total_ms",
                                (json_int_t)plan->total_ms, "critical_ms",
                                (json_int_t)plan->critical_ms, "without_history",
                                (json_int_t)plan->unknown),
                      err);
    buf_release(&why);
    return rc;
}

/* ---- the command ------------------------------------------------------------------------------- */

static void release_world(struct world *w)
{
    plan_tasks_release(&w->plan);
    free(w->results);
    free(w->keyed);
    resolver_free(w->r);
    select_release(&w->s);
    ledger_close(w->l);
    store_close(w->st);
    pipeline_free(w->p);
}

static enum err_code look(struct world *w, struct err *err)
{
    const char **inputs = cli_values(w->c, "input");
    const struct resolver_options o = {
        .inputs = inputs, .ledger_read = true, .wanted = w->s.wanted};
    struct buf errors;
    enum err_code rc = resolver_new(w->st, w->l, w->p, &o, &w->r, err);

    buf_init(&errors, 1 << 20);
    w->results = mem_zero(w->p->task_count + 1, sizeof(*w->results));
    w->keyed = mem_zero(w->p->task_count + 1, sizeof(*w->keyed));
    if (!rc) {
        rc = program_check(resolver_programs(w->r), w->p, &errors, err);
        if (rc == ERR_INPUT && errors.n)
            (void)fprintf(stderr, "%s", errors.p);
    }
    if (!rc)
        rc = resolve_all(w->r, w->results, w->keyed, err);
    if (!rc)
        rc = plan_tasks_make(w->p, &w->s, w->results, w->keyed, w->l, &w->plan, err);
    buf_release(&errors);
    free(inputs);
    return rc;
}

static enum err_code plan_run(struct cli *c, struct err *err)
{
    struct world w = {.c = c};
    enum err_code rc =
        cli_open_pipeline(c, c->arg_count ? c->args[0] : NULL, STORE_WRITE, &w.st, &w.p, err);

    if (!rc)
        rc = cli_selection(c, w.p, &w.s, err);
    if (!rc)
        rc = cli_read_ledger(w.st, &w.l, err);
    if (!rc)
        rc = look(&w, err);
    if (!rc)
        rc = c->json ? tell_json(&w, err) : tell_text(&w, err);
    if (!rc)
        rc = resolver_save(w.r, err);
    release_world(&w);
    return rc;
}

static const struct cli_option plan_options[] = {
    CLI_PIPELINE_OPTIONS,
    CLI_SELECT_OPTIONS,
    {"explain", 0, NULL, "tell everything that differs from the last time"},
    {0},
};

const struct cli_command cli_plan = {
    .name = "plan",
    .args = "[FILE]",
    .args_max = 1,
    .summary = "tell what a run would do, and what it should cost, running nothing",
    .text = "cached: has a result.  run: has none, and why.  depends: an input is not known before "
            "another task has run;\n"
            "when that comes out as before, it turns out cached.  Times are means of earlier runs.",
    .example = "weir plan\nweir plan --set stages.sft.params.lr=2e-4 --explain\n"
               "weir plan --only 'sft[variant=realism]'",
    .json =
        "a line for each task: {\"differs\":[{\"new\":2e-4,\"old\":1e-4,\"path\":\"params.lr\"}],"
        "\"expected_ms\":1200|null,\"key\":\"sha256:...\"|null,\n"
        "\"reason\":\"...\"|null,\"state\":\"cached\"|\"run\"|\"depends\"|\"skipped\"|\"left "
        "out\",\"task\":\"sft[variant=realism]\"}\n"
        "and one for all: {\"cached\":2,\"critical_ms\":1,\"depends\":3,\"left_out\":0,\"run\":1,"
        "\"skipped\":0,\"total_ms\":1,\"without_history\":0}",
    .options = plan_options,
    .run = plan_run,
};
