/* weir logs, metrics: what a task has said. */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "cluster/executor.h"
#include "orchestrator/cli/commands.h"
#include "orchestrator/cli/live.h"
#include "orchestrator/record.h"
#include "orchestrator/run.h"
#include "store/reader.h"

#define FOLLOW_NS 200000000L
#define TEXT_MAX ((int64_t)256 << 20)
#define PLOT_COLUMNS 64
#define PLOT_ROWS 12
#define SERIES_MAX 64
#define RUNS_LOOKED_AT 100

struct said { /* what an attempt left; zero: nothing */
    struct digest log, events;
    int64_t run; /* of which run; 0: no run that is kept */
};
struct at {
    struct store *st;
    struct ledger *l;
    struct run_view *v;
    const struct run_task *t;
    struct said said;
};

enum err_code cli_unknown_task(const struct run_view *v, const char *task, bool sure,
                               struct err *err)
{
    const char **names, *near;
    enum err_code rc = OK;

    if (run_view_task(v, task))
        return OK;
    names = mem_zero(v->task_count + 1, sizeof(*names));
    for (size_t i = 0; i < v->task_count; i++)
        names[i] = v->tasks[i].name;
    near = str_nearest(task, names, v->task_count);
    if (!near) /* STAGE for STAGE[key=value] */
        for (size_t i = 0; i < v->task_count && !near; i++)
            if (strncmp(names[i], task, strlen(task)) == 0 && names[i][strlen(task)] == '[')
                near = names[i];
    if (near)
        rc = err_set(err, ERR_NOT_FOUND, "run-%lld has no task '%s'; did you mean '%s'?",
                     (long long)v->row.run, task, near);
    else if (sure)
        rc = err_set(err, ERR_NOT_FOUND,
                     "run-%lld has no record of a task '%s'; weir show run-%lld lists what it has",
                     (long long)v->row.run, task, (long long)v->row.run);
    free(names);
    return rc;
}

static enum err_code blob_of(struct store *st, int64_t run, const char *task, const char *what,
                             struct digest *out, struct err *err)
{
    struct buf name = {0};
    enum obj_kind kind;
    enum err_code rc;

    buf_init(&name, 8192);
    buf_printf(&name, "runs/run-%lld:", (long long)run);
    buf_str(&name, what ? "logs/" : "tasks/");
    rc = record_name_escape(task, &name, err);
    if (what)
        buf_printf(&name, "/%s", what);
    if (!rc)
        rc = buf_check(&name, "name of a log", err);
    if (!rc)
        rc = store_resolve(st, (struct str){name.p, name.n}, out, &kind, err);
    buf_release(&name);
    if (rc == ERR_NOT_FOUND) {
        *err = (struct err)ERR_INIT;
        *out = (struct digest){{0}};
        rc = OK;
    }
    return rc;
}

/* What was said by the attempt that made a result, in whichever kept run that was. */
static enum err_code find_maker(struct store *st, const struct run_task *t, int64_t before,
                                struct said *out, struct err *err)
{
    int64_t *runs = NULL;
    size_t n = 0;
    enum err_code rc = run_kept(st, &runs, &n, err);

    for (size_t i = 0; !rc && i < n && !out->run; i++) {
        struct digest result = {{0}};

        if (runs[i] >= before)
            continue;
        rc = blob_of(st, runs[i], t->name, NULL, &result, err);
        if (rc || !digest_eq(&result, &t->result))
            continue;
        rc = blob_of(st, runs[i], t->name, "log", &out->log, err);
        if (!rc)
            rc = blob_of(st, runs[i], t->name, "events", &out->events, err);
        if (!rc && !(digest_is_zero(&out->log) && digest_is_zero(&out->events)))
            out->run = runs[i];
    }
    free(runs);
    return rc;
}

static enum err_code find_said(struct store *st, const struct run_view *v, const struct run_task *t,
                               struct said *out, struct err *err)
{
    *out = (struct said){.log = t->log, .events = t->events};
    if (!digest_is_zero(&t->log) || !digest_is_zero(&t->events) || digest_is_zero(&t->result)) {
        out->run = v->row.run;
        return OK;
    }
    return find_maker(st, t, v->row.run, out, err);
}

static bool says_something(const struct run_task *t)
{
    return t && (!digest_is_zero(&t->log) || !digest_is_zero(&t->result) ||
                 strcmp(t->state, "running") == 0 || strcmp(t->state, "failed") == 0);
}

static enum err_code load(struct at *at, int64_t run, const char *task, struct err *err)
{
    run_view_free(at->v);
    at->v = NULL;
    at->t = NULL;
    const enum err_code rc = run_view_load(at->st, at->l, run, &at->v, err);
    if (!rc)
        at->t = run_view_task(at->v, task);
    return rc;
}

/* Without --run: the newest run that has to do with the task. */
static enum err_code find_newest(struct at *at, const char *task, struct err *err)
{
    struct ledger_run *rows = NULL;
    size_t n = 0;
    enum err_code rc = run_rows(at->st, at->l, RUNS_LOOKED_AT, &rows, &n, err);

    for (size_t i = 0; !rc && !says_something(at->t) && i < n; i++)
        rc = load(at, rows[i].run, task, err);
    if (!rc && n == 0)
        rc = err_set(err, ERR_NOT_FOUND, "nothing has run here yet; weir run does");
    if (!rc && !says_something(at->t)) /* the newest one says why */
        rc = load(at, rows[0].run, task, err);
    free(rows);
    return rc;
}

static enum err_code find(const struct cli *c, struct at *at, struct err *err)
{
    const char *run = cli_value(c, "run");
    int64_t number;
    enum err_code rc = cli_open(c, STORE_READ, &at->st, err);

    if (!rc)
        rc = cli_read_ledger(at->st, &at->l, err);
    if (!rc && !run)
        rc = find_newest(at, c->args[0], err);
    else if (!rc)
        rc = run_number(at->st, at->l, run, &number, err);
    if (!rc && run)
        rc = load(at, number, c->args[0], err);
    if (rc)
        return rc;
    if (!at->t)
        return cli_unknown_task(at->v, c->args[0], true, err);
    return find_said(at->st, at->v, at->t, &at->said, err);
}

static void release(struct at *at)
{
    run_view_free(at->v);
    ledger_close(at->l);
    store_close(at->st);
    *at = (struct at){0};
}

static bool runs(const struct run_task *t)
{
    return t->dir && strcmp(t->state, "running") == 0;
}

/* ---- logs -------------------------------------------------------------------------------------- */

static enum err_code copy_object(struct at *at, const struct digest *id, struct err *err)
{
    struct object *o = NULL;
    char part[1 << 16];
    enum err_code rc = object_open(at->st, id, &o, err);

    for (int64_t off = 0; !rc && off < object_bytes(o);) {
        const int64_t left = object_bytes(o) - off;
        const size_t n = left < (int64_t)sizeof(part) ? (size_t)left : sizeof(part);

        rc = object_pread(o, part, n, off, err);
        if (!rc)
            rc = cli_write(part, n, err);
        off += (int64_t)n;
    }
    object_close(o);
    return rc;
}

/* What the file has beyond *off; an attempt that has just ended has no file any more, which is fine. */
static enum err_code copy_new(int fd, int64_t *off, struct err *err)
{
    char part[1 << 16];
    size_t got = 1;
    enum err_code rc = OK;

    while (!rc && got > 0) {
        rc = os_pread(fd, part, sizeof(part), *off, &got, err);
        if (!rc)
            rc = cli_write(part, got, err);
        *off += (int64_t)got;
    }
    (void)fflush(stdout);
    return rc;
}

static enum err_code follow(struct at *at, bool on, struct err *err)
{
    const struct timespec nap = {.tv_nsec = FOLLOW_NS};
    struct buf path = {0};
    enum attempt_life life = ATTEMPT_ALIVE;
    int64_t off = 0;
    int dir = -1, fd = -1;
    enum err_code rc;

    buf_init(&path, 8192);
    buf_printf(&path, "%s/tasks/%s", at->st->root, at->t->dir);
    rc = os_open_dir(AT_FDCWD, path.p, &dir, err);
    if (!rc)
        rc = os_open(dir, "log", O_RDONLY | O_NOFOLLOW, 0, &fd, err);
    if (rc == ERR_NOT_FOUND) {
        *err = (struct err)ERR_INIT;
        rc = OK;
    }
    if (!rc && fd >= 0)
        rc = copy_new(fd, &off, err);
    while (!rc && on && fd >= 0 && life == ATTEMPT_ALIVE) {
        struct err ignored = ERR_INIT;

        (void)nanosleep(&nap, NULL);
        if (attempt_life(path.p, &life, &ignored))
            life = ATTEMPT_GONE;
        rc = copy_new(fd, &off, err);
    }
    os_close_quiet(&fd);
    os_close_quiet(&dir);
    buf_release(&path);
    return rc;
}

/* A task that was cached said nothing in this run: the words are those of the run that made the result. */
static enum err_code no_words(struct at *at, const char *what, struct err *err)
{
    const char *state = at->t->state;

    if (strcmp(state, "cached") == 0)
        return err_set(err, ERR_NOT_FOUND,
                       "%s was cached in run-%lld, and no run that is kept has a %s of it: it said "
                       "nothing, or that run was removed",
                       at->t->name, (long long)at->v->row.run, what);
    if (strcmp(state, "done") == 0 || strcmp(state, "failed") == 0 || strcmp(state, "stopped") == 0)
        return OK;
    return err_set(err, ERR_NOT_FOUND, "%s has not run in run-%lld (%s)", at->t->name,
                   (long long)at->v->row.run,
                   strcmp(state, "unselected") == 0 ? "left out" : state);
}

static enum err_code logs_run(struct cli *c, struct err *err)
{
    struct at at = {0};
    enum err_code rc = find(c, &at, err);

    if (!rc && runs(at.t)) {
        rc = follow(&at, cli_flag(c, "follow"), err);
    } else if (!rc && !digest_is_zero(&at.said.log)) {
        if (at.said.run != at.v->row.run && !c->quiet)
            (void)fprintf(stderr, "%s was cached in run-%lld; this is what it said in run-%lld\n",
                          c->args[0], (long long)at.v->row.run, (long long)at.said.run);
        rc = copy_object(&at, &at.said.log, err);
    } else if (!rc) {
        rc = no_words(&at, "log", err);
    }
    release(&at);
    return rc;
}

static const struct cli_option logs_options[] = {
    {"run", 0, "RUN", "of that run instead of the newest that has it"},
    {"follow", 'f', NULL, "go on until the attempt ends"},
    {0},
};
const struct cli_command cli_logs = {
    .name = "logs",
    .args = "TASK",
    .args_min = 1,
    .args_max = 1,
    .summary = "what a task wrote to its standard output and error",
    .text = "The first and the last 4 MiB are kept.",
    .example = "weir logs -f pretrain\nweir logs 'sft[variant=realism]' --run run-41",
    .json = "the bytes",
    .options = logs_options,
    .run = logs_run,
};

/* ---- metrics ----------------------------------------------------------------------------------- */

struct point {
    double step, value; /* NaN: the program said null */
};
struct series {
    char name[64];
    struct point *points; /* in the order of their steps as they came */
    size_t count, room;
};
struct metrics {
    struct series list[SERIES_MAX];
    size_t count;
};

static struct series *series_of(struct metrics *m, const char *name)
{
    for (size_t i = 0; i < m->count; i++)
        if (strcmp(m->list[i].name, name) == 0)
            return &m->list[i];
    if (m->count == SERIES_MAX || strlen(name) >= sizeof(m->list[0].name))
        return NULL;
    (void)snprintf(m->list[m->count].name, sizeof(m->list[0].name), "%s", name);
    return &m->list[m->count++];
}

/* The same name and step later replaces: a resumed attempt repeats some steps. */
static void take_point(struct series *s, double step, double value)
{
    while (s->count > 0 && s->points[s->count - 1].step >= step)
        s->count--;
    if (s->count == s->room) {
        s->room = s->room ? 2 * s->room : 256;
        s->points = mem_grow(s->points, s->room, sizeof(*s->points));
    }
    s->points[s->count++] = (struct point){step, value};
}

static void take_line(struct metrics *m, struct str line)
{
    json_t *v = json_loadb(line.p, line.n, 0, NULL), *value;
    const char *kind = json_string_value(json_object_get(v, "event")), *name;
    json_t *values = json_object_get(v, "values");

    if (kind && strcmp(kind, "metric") == 0 && json_is_object(values))
        json_object_foreach(values, name, value)
        {
            struct series *s = series_of(m, name);

            if (s)
                take_point(s, json_number_value(json_object_get(v, "step")),
                           json_is_number(value) ? json_number_value(value) : NAN);
        }
    json_decref(v);
}

static enum err_code read_events(struct at *at, struct buf *text, struct err *err)
{
    struct buf path = {0};
    int dir = -1;
    enum err_code rc;

    if (!runs(at->t)) {
        if (digest_is_zero(&at->said.events))
            return OK;
        return object_read(at->st, &at->said.events, TEXT_MAX, text, err);
    }
    buf_init(&path, 8192);
    buf_printf(&path, "%s/tasks/%s", at->st->root, at->t->dir);
    rc = os_open_dir(AT_FDCWD, path.p, &dir, err);
    if (!rc)
        rc = os_read_file(dir, "events.jsonl", (size_t)TEXT_MAX, text, err);
    if (rc == ERR_NOT_FOUND) { /* it has only just begun, or has just ended */
        *err = (struct err)ERR_INIT;
        rc = OK;
    }
    os_close_quiet(&dir);
    buf_release(&path);
    return rc;
}

enum err_code metric_last(struct store *st, struct ledger *l, const struct run_task *t,
                          struct run_view *v, const char *name, double *out, struct err *err)
{
    struct metrics *m = mem_zero(1, sizeof(*m));
    struct at at = {.st = st, .l = l, .v = v, .t = t};
    struct buf text = {0};
    struct str line;
    size_t k = 0;
    enum err_code rc;

    *out = NAN;
    buf_init(&text, (size_t)TEXT_MAX);
    rc = find_said(st, v, t, &at.said, err);
    if (!rc)
        rc = read_events(&at, &text, err);
    while (!rc && cli_next_line(&text, &k, &line))
        take_line(m, line);
    for (size_t i = 0; i < m->count; i++) {
        if (strcmp(m->list[i].name, name) == 0 && m->list[i].count > 0)
            *out = m->list[i].points[m->list[i].count - 1].value;
        free(m->list[i].points);
    }
    free(m);
    buf_release(&text);
    return rc;
}

static void plot(const struct series *s)
{
    char grid[PLOT_ROWS][PLOT_COLUMNS + 1];
    double low = INFINITY, high = -INFINITY;
    const double first = s->points[0].step, last = s->points[s->count - 1].step;
    struct buf name;

    buf_init(&name, 1 << 16);
    buf_str(&name, "");
    live_clean(&name, s->name, strlen(s->name));
    for (size_t i = 0; i < s->count; i++)
        if (isfinite(s->points[i].value)) {
            low = fmin(low, s->points[i].value);
            high = fmax(high, s->points[i].value);
        }
    if (!isfinite(low) || !isfinite(high - low)) {
        printf("%s: nothing to draw\n", name.p);
        buf_release(&name);
        return;
    }
    for (int y = 0; y < PLOT_ROWS; y++) {
        memset(grid[y], ' ', PLOT_COLUMNS);
        grid[y][PLOT_COLUMNS] = '\0';
    }
    for (size_t i = 0; i < s->count; i++) {
        const struct point *p = &s->points[i];
        const double x = last > first ? (p->step - first) / (last - first) : 0,
                     y = high > low ? (high - p->value) / (high - low) : 0;

        /* A NaN fails every comparison. */
        if (x >= 0 && x <= 1 && y >= 0 && y <= 1)
            grid[(int)(y * (PLOT_ROWS - 1))][(int)(x * (PLOT_COLUMNS - 1))] = '*';
    }
    printf("%s\n", name.p);
    buf_release(&name);
    for (int y = 0; y < PLOT_ROWS; y++)
        printf("%10.4g |%s\n", high - (high - low) * y / (PLOT_ROWS - 1), grid[y]);
    printf("%10s +%.*s\n%12s%-*.6g%*.6g\n", "", PLOT_COLUMNS,
           "----------------------------------------------------------------", "", PLOT_COLUMNS / 2,
           first, PLOT_COLUMNS / 2, last);
}

static enum err_code print_series(struct cli *c, const struct series *s, struct err *err)
{
    struct buf name;
    enum err_code rc = OK;

    if (cli_flag(c, "plot") && !c->json) {
        plot(s);
        return OK;
    }
    buf_init(&name, 1 << 16);
    buf_str(&name, "");
    live_clean(&name, s->name, strlen(s->name));
    for (size_t i = 0; !rc && i < s->count; i++) {
        const double v = s->points[i].value, step = s->points[i].step;

        if (c->json)
            rc = cli_json(json_pack("{s:s, s:o, s:o}", "name", s->name, "step",
                                    isfinite(step) ? json_real(step) : json_null(), "value",
                                    isfinite(v) ? json_real(v) : json_null()),
                          err);
        else
            printf("%-24s %10.10g %14.6g\n", name.p, step, v);
    }
    buf_release(&name);
    return rc;
}

static enum err_code no_metric(const struct metrics *m, struct at *at, const char *only,
                               struct err *err)
{
    const char *names[SERIES_MAX], *near;

    for (size_t i = 0; i < m->count; i++)
        names[i] = m->list[i].name;
    near = only ? str_nearest(only, names, m->count) : NULL;
    if (!only && m->count == 0 && !runs(at->t)) {
        const enum err_code rc = no_words(at, "record of metrics", err);

        if (rc)
            return rc;
    }
    if (near)
        return err_set(err, ERR_NOT_FOUND, "%s has no metric '%s' in run-%lld; did you mean '%s'?",
                       at->t->name, only, (long long)at->v->row.run, near);
    return err_set(err, ERR_NOT_FOUND, "%s has reported no metric%s%s in run-%lld%s%s", at->t->name,
                   only ? " " : "", only ? only : "", (long long)at->v->row.run,
                   m->count ? "; it has " : "", m->count ? names[0] : "");
}

static enum err_code metrics_run(struct cli *c, struct err *err)
{
    const char *only = cli_value(c, "metric");
    struct metrics *m = mem_zero(1, sizeof(*m));
    struct at at = {0};
    struct buf text = {0};
    struct str line;
    size_t k = 0;
    bool any = false;
    enum err_code rc = find(c, &at, err);

    buf_init(&text, (size_t)TEXT_MAX);
    if (!rc)
        rc = read_events(&at, &text, err);
    while (!rc && cli_next_line(&text, &k, &line))
        take_line(m, line);
    for (size_t i = 0; !rc && i < m->count; i++)
        if (m->list[i].count > 0 && (!only || strcmp(only, m->list[i].name) == 0)) {
            any = true;
            rc = print_series(c, &m->list[i], err);
        }
    if (!rc && !any)
        rc = no_metric(m, &at, only, err);
    for (size_t i = 0; i < m->count; i++)
        free(m->list[i].points);
    free(m);
    buf_release(&text);
    release(&at);
    return rc;
}

static const struct cli_option metrics_options[] = {
    {"run", 0, "RUN", "of that run instead of the newest that has it"},
    {"metric", 0, "NAME", "only this one"},
    {"plot", 0, NULL, "draw it"},
    {0},
};
const struct cli_command cli_metrics = {
    .name = "metrics",
    .args = "TASK",
    .args_min = 1,
    .args_max = 1,
    .summary = "the numbers that a task has reported, by step",
    .example = "weir metrics pretrain --plot\nweir metrics pretrain --metric loss --json",
    .json = "{\"name\":\"loss\",\"step\":100,\"value\":0.412}; value is null for NaN",
    .options = metrics_options,
    .run = metrics_run,
};
