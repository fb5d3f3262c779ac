/* weir sweep: one stage with many params, and a table of what came of each. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/cli/commands.h"
#include "orchestrator/cli/live.h"
#include "orchestrator/pipeline.h"
#include "orchestrator/record.h"
#include "orchestrator/run.h"
#include "orchestrator/select.h"

#define POINTS_MAX 10000
#define AXES_MAX 16

struct axis { /* --set name=a,b,c */
    char *name;
    char **values;
    size_t count;
};
struct point {
    char *sets[AXES_MAX + 1]; /* "name=a", NULL at the end */
    int64_t run;
    double metric; /* NaN: none */
    const char *end;
};
struct sweep {
    struct cli *c;
    const char *stage, *file;
    struct axis axes[AXES_MAX];
    size_t axis_count;
    struct point *points;
    size_t count;
};

/* ---- what to try ------------------------------------------------------------------------------- */

/* Commas inside brackets, braces and quotes belong to the value. */
static size_t value_length(const char *s)
{
    int depth = 0;
    char quote = 0;
    size_t n = 0;

    for (; s[n] && (s[n] != ',' || depth > 0 || quote); n++) {
        if (quote)
            quote = s[n] == quote ? 0 : quote;
        else if (s[n] == '"' || s[n] == '\'')
            quote = s[n];
        else
            depth += (s[n] == '[' || s[n] == '{') - (s[n] == ']' || s[n] == '}');
    }
    return n;
}

static enum err_code add_axis(struct sweep *s, const char *set, struct err *err)
{
    const char *equals = strchr(set, '=');
    struct axis *a = &s->axes[s->axis_count];

    if (!equals || equals == set || !equals[1])
        return err_set(err, ERR_USAGE, "--set %s: write --set NAME=VALUE,VALUE,...", set);
    if (s->axis_count == AXES_MAX)
        return err_set(err, ERR_LIMIT, "more than %d params to sweep over", AXES_MAX);
    a->name = mem_strndup(set, (size_t)(equals - set));
    for (const char *at = equals + 1;;) {
        const size_t n = value_length(at);

        a->values = mem_grow(a->values, a->count + 1, sizeof(*a->values));
        a->values[a->count++] = mem_strndup(at, n);
        at += n;
        if (*at++ != ',')
            break;
        if (a->count == POINTS_MAX)
            break;
    }
    s->axis_count++;
    return OK;
}

static void set_point(struct sweep *s, struct point *p, const size_t *which)
{
    for (size_t i = 0; i < s->axis_count; i++) {
        const struct axis *a = &s->axes[i];
        const size_t n = strlen(a->name) + strlen(a->values[which[i]]) + 2;

        p->sets[i] = mem_alloc(n);
        (void)snprintf(p->sets[i], n, "%s=%s", a->name, a->values[which[i]]);
    }
    p->metric = NAN;
}

/* Every combination, the last param turning fastest; or, with --list, the first values together, then the second ones .. */
static enum err_code make_points(struct sweep *s, struct err *err)
{
    const bool list = cli_flag(s->c, "list");
    size_t n = list ? s->axes[0].count : 1;

    for (size_t i = 0; i < s->axis_count; i++) {
        if (list && s->axes[i].count != n)
            return err_set(err, ERR_USAGE,
                           "--list: %s has %zu values and %s has %zu; they go in step",
                           s->axes[0].name, n, s->axes[i].name, s->axes[i].count);
        if (!list)
            n *= s->axes[i].count;
        if (n > POINTS_MAX)
            return err_set(err, ERR_LIMIT, "more than %d combinations", POINTS_MAX);
    }
    s->points = mem_zero(n, sizeof(*s->points));
    for (; s->count < n; s->count++) {
        size_t which[AXES_MAX], rest = s->count;

        for (size_t i = s->axis_count; i-- > 0;) {
            which[i] = list ? s->count : rest % s->axes[i].count;
            rest /= s->axes[i].count;
        }
        set_point(s, &s->points[s->count], which);
    }
    return OK;
}

/* ---- one run ----------------------------------------------------------------------------------- */

static json_t *said(const struct sweep *s, const struct point *p)
{
    json_t *args = json_array();

    for (size_t i = 0; p->sets[i]; i++) {
        json_array_append_new(args, json_string("--set"));
        json_array_append_new(args, json_string(p->sets[i]));
    }
    json_array_append_new(args, json_string("--until"));
    json_array_append_new(args, json_string(s->stage));
    return json_pack("{s:o}", "args", args);
}

/* The mean over the stage's instances that reported it: one number a row. */
static enum err_code read_metric(struct sweep *s, struct store *st, struct point *p,
                                 struct err *err)
{
    const char *name = cli_value(s->c, "metric");
    const size_t n = strlen(s->stage);
    struct ledger *l = NULL;
    struct run_view *v = NULL;
    double sum = 0;
    int found = 0;
    enum err_code rc;

    if (!name || !p->run)
        return OK;
    rc = ledger_open(st->root, LEDGER_READ, &l, err);
    if (!rc)
        rc = run_view_load(st, l, p->run, &v, err);
    for (size_t i = 0; !rc && i < v->task_count; i++) {
        const struct run_task *t = &v->tasks[i];
        double last;

        if (strncmp(t->name, s->stage, n) != 0 || (t->name[n] && t->name[n] != '['))
            continue;
        rc = metric_last(st, l, t, v, name, &last, err);
        if (!rc && isfinite(last)) {
            sum += last;
            found++;
        }
    }
    if (found)
        p->metric = sum / found;
    run_view_free(v);
    ledger_close(l);
    return rc;
}

static enum err_code run_point(struct sweep *s, struct store *st, struct point *p, struct err *err)
{
    const char *until[] = {s->stage, NULL};
    const struct pipeline_options po = {.sets = (const char *const *)p->sets};
    struct buf problems = {0};
    struct pipeline *pipe = NULL;
    struct selection sel = {0};
    struct live live;
    struct run_report report = {0};
    json_t *what = said(s, p);
    enum err_code rc;

    buf_init(&problems, 1 << 20);
    rc = pipeline_load(s->file, &po, &pipe, &problems, err);
    if (!rc)
        rc = select_tasks(pipe, &(struct select_options){.until = until}, &sel, err);
    if (!rc) {
        struct run_options o = {.wanted = sel.wanted,
                                .forced = sel.forced,
                                .said = what,
                                .altered = true,
                                .quiet_cached = true,
                                .on_event = live_event,
                                .arg = &live};

        live_begin(&live, s->c, pipe);
        o.tick_ms = live.terminal ? 200 : 0;
        if (!s->c->json && !s->c->quiet)
            for (size_t i = 0; p->sets[i]; i++)
                printf("%s%s", p->sets[i], p->sets[i + 1] ? "  " : "\n");
        rc = run_pipeline(st, pipe, &o, &report, err);
        live_end(&live);
    }
    p->run = report.run;
    p->end = rc == OK ? "succeeded" : rc == ERR_TASK ? "failed" : "stopped";
    if (rc == ERR_TASK) { /* one bad combination is a row of the table */
        *err = (struct err)ERR_INIT;
        rc = OK;
    }
    json_decref(what);
    select_release(&sel);
    pipeline_free(pipe);
    buf_release(&problems);
    return rc ? rc : read_metric(s, st, p, err);
}

/* ---- the table --------------------------------------------------------------------------------- */

static enum err_code print_points(const struct sweep *s, struct err *err)
{
    const char *metric = cli_value(s->c, "metric");
    enum err_code rc = OK;

    for (size_t k = 0; !rc && k < s->count; k++) {
        const struct point *p = &s->points[k];

        if (s->c->json) {
            json_t *sets = json_array();

            for (size_t i = 0; p->sets[i]; i++)
                json_array_append_new(sets, json_string(p->sets[i]));
            rc = cli_json(json_pack("{s:o, s:I, s:s, s:o}", "set", sets, "run", (json_int_t)p->run,
                                    "end", p->end, "metric",
                                    isfinite(p->metric) ? json_real(p->metric) : json_null()),
                          err);
            continue;
        }
        printf("run-%-6lld %-10s", (long long)p->run, p->end);
        for (size_t i = 0; p->sets[i]; i++)
            printf(" %-24s", p->sets[i]);
        if (metric && isfinite(p->metric))
            printf(" %s %.6g", metric, p->metric);
        printf("\n");
    }
    return rc;
}

static void release(struct sweep *s)
{
    for (size_t i = 0; i < s->axis_count; i++) {
        for (size_t k = 0; k < s->axes[i].count; k++)
            free(s->axes[i].values[k]);
        free(s->axes[i].values);
        free(s->axes[i].name);
    }
    for (size_t k = 0; k < s->count; k++)
        for (size_t i = 0; s->points[k].sets[i]; i++)
            free(s->points[k].sets[i]);
    free(s->points);
}

static enum err_code sweep_run(struct cli *c, struct err *err)
{
    struct sweep s = {.c = c, .stage = c->args[0]};
    const char **sets = cli_values(c, "set");
    struct store *st = NULL;
    struct buf path = {0};
    enum err_code rc = OK;

    buf_init(&path, 4096);
    if (c->arg_count > 1)
        buf_str(&path, c->args[1]);
    else
        rc = pipeline_find_file(".", &path, err);
    s.file = path.p;
    for (size_t i = 0; !rc && sets && sets[i]; i++)
        rc = add_axis(&s, sets[i], err);
    if (!rc && s.axis_count == 0)
        rc = err_set(err, ERR_USAGE, "say what to change: --set NAME=VALUE,VALUE,...");
    if (!rc)
        rc = make_points(&s, err);
    if (!rc)
        rc = cli_open(c, STORE_WRITE, &st, err);
    for (size_t i = 0; !rc && i < s.count; i++)
        rc = run_point(&s, st, &s.points[i], err);
    if (!rc)
        rc = print_points(&s, err);
    for (size_t i = 0; !rc && i < s.count; i++)
        if (strcmp(s.points[i].end, "succeeded") != 0)
            rc = err_set(err, ERR_TASK, "not every combination succeeded");
    store_close(st);
    release(&s);
    free(sets);
    buf_release(&path);
    return rc;
}

static const struct cli_option sweep_options[] = {
    {"set", 0, "NAME=VALUE...", "the values to try, with commas between them"},
    {"list", 0, NULL, "first values together, then second ones; without it every combination"},
    {"metric", 0, "NAME", "the last value of this metric goes into the table"},
    {0},
};
const struct cli_command cli_sweep = {
    .name = "sweep",
    .args = "STAGE [FILE]",
    .args_min = 1,
    .args_max = 2,
    .summary = "run up to a stage with many params, and compare",
    .text = "One run for each combination; what they have in common is computed once.",
    .example = "weir sweep pretrain --set stages.pretrain.params.lr=1e-4,3e-4,1e-3 --metric "
               "eval.alignment",
    .json = "{\"end\":\"succeeded\"|\"failed\",\"metric\":0.4,\"run\":41,\"set\":[\"lr=1e-4\"]}",
    .options = sweep_options,
    .run = sweep_run,
};
