/* weir run, retry, sweep: a pipeline here; again; and with many params. */
#include "orchestrator/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "orchestrator/cli/commands.h"
#include "orchestrator/cli/live.h"
#include "orchestrator/pipeline.h"
#include "orchestrator/record.h"
#include "orchestrator/select.h"

#define TICK_MS 200

struct asked { /* what was typed, as arrays */
    const char **only, **from, **until, **force, **inputs;
};

static void read_asked(const struct cli *c, struct asked *a)
{
    a->only = cli_values(c, "only");
    a->from = cli_values(c, "from");
    a->until = cli_values(c, "until");
    a->force = cli_values(c, "force");
    a->inputs = cli_values(c, "input");
}

static void release_asked(struct asked *a)
{
    free(a->only);
    free(a->from);
    free(a->until);
    free(a->force);
    free(a->inputs);
}

/* The options that decide what the run is, as they could be typed again: {"args":["--set","seed=8",..]}. */
static json_t *said(const struct cli *c)
{
    static const char *const kept[] = {"profile", "param-file", "set",    "only",
                                       "from",    "until",      "force",  "no-cache",
                                       "input",   "keep-going", "publish"};
    json_t *args = json_array();

    for (size_t i = 0; i < c->given_count; i++) {
        const struct cli_option *o = cli_option_at(c, c->given[i].place);

        for (size_t k = 0; o && k < sizeof(kept) / sizeof(kept[0]); k++)
            if (strcmp(o->name, kept[k]) == 0) {
                json_array_append_new(args, json_sprintf("--%s", o->name));
                if (o->value)
                    json_array_append_new(args, json_string(c->given[i].value));
            }
    }
    return json_pack("{s:o}", "args", args);
}

static bool in_plan(const char *option)
{
    return strcmp(option, "keep-going") != 0 && strcmp(option, "publish") != 0 &&
           strcmp(option, "jobs") != 0 && strcmp(option, "offline") != 0 &&
           strcmp(option, "dry-run") != 0;
}

static bool is_altered(const struct cli *c, const struct selection *s)
{
    return s->partial || cli_value(c, "set") || cli_value(c, "input") || cli_value(c, "param-file");
}

static enum err_code read_jobs(const struct cli *c, int64_t *jobs, struct err *err)
{
    struct err bad = ERR_INIT;

    *jobs = 0;
    if (!cli_value(c, "jobs"))
        return OK;
    if (str_to_i64(str_of(cli_value(c, "jobs")), 1, 100000, jobs, &bad) != OK)
        return err_set(err, ERR_USAGE, "--jobs: %s; write a number of tasks, as in --jobs 4",
                       bad.text);
    return OK;
}

/* `run` offers to make a store where there is none: on a terminal it asks, else it says how. */
static enum err_code open_store(const struct cli *c, struct store **st, struct err *err)
{
    enum err_code rc = cli_open(c, STORE_WRITE, st, err);
    char answer[16] = "";

    if (rc != ERR_NOT_FOUND || !isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
        return rc;
    (void)fprintf(stderr, "There is no .weir here or above.  Make one in this folder? [Y/n] ");
    if (!fgets(answer, sizeof(answer), stdin) || answer[0] == 'n' || answer[0] == 'N')
        return rc;
    *err = (struct err)ERR_INIT;
    rc = store_init(".", NULL, err);
    return rc ? rc : cli_open(c, STORE_WRITE, st, err);
}

static enum err_code run_loaded(struct cli *c, struct store *st, const struct pipeline *p,
                                struct err *err)
{
    struct asked a;
    struct selection s = {0};
    struct live live;
    struct run_report report = {0};
    struct buf problems;
    struct run_options o = {.problems = &problems,
                            .keep_going = cli_flag(c, "keep-going"),
                            .publish = cli_flag(c, "publish"),
                            .offline = cli_flag(c, "offline"),
                            .on_event = live_event,
                            .arg = &live};
    json_t *what = said(c);
    enum err_code rc;

    buf_init(&problems, 1 << 20);
    read_asked(c, &a);
    rc = select_tasks(p,
                      &(struct select_options){.only = a.only,
                                               .from = a.from,
                                               .until = a.until,
                                               .force = a.force,
                                               .no_cache = cli_flag(c, "no-cache")},
                      &s, err);
    if (!rc)
        rc = read_jobs(c, &o.jobs, err);
    if (!rc) {
        o.wanted = s.wanted;
        o.forced = s.forced;
        o.inputs = a.inputs;
        o.said = what;
        o.altered = is_altered(c, &s);
        live_begin(&live, c, p);
        o.tick_ms = live.terminal ? TICK_MS : 0;
        o.quiet_cached = !c->json && p->task_count > 100;
        rc = run_pipeline(st, p, &o, &report, err);
        live_end(&live);
        if (rc == ERR_INPUT && problems.n) {
            struct err shown = ERR_INIT;
            const size_t n = cli_tell_problems(c, &problems, &shown);

            (void)err_set(err, rc, "%s: %zu problem%s", p->file, n, n == 1 ? "" : "s");
        }
        if (report.run) {
            struct err shown = ERR_INIT;
            const enum err_code said_rc = live_summary(&live, &report, rc ? &shown : err);

            rc = rc ? rc : said_rc;
        }
    }
    buf_release(&problems);
    json_decref(what);
    select_release(&s);
    release_asked(&a);
    return rc;
}

/* The words of another command with what both understand, parsed and performed. */
static enum err_code run_as(const struct cli *c, const char *verb, const char *const *args,
                            size_t n, const char *file, struct err *err)
{
    struct cli again = {0};
    const char **argv = mem_zero(n + 8, sizeof(*argv));
    int argc = 0;
    enum err_code rc;

    argv[argc++] = "weir";
    argv[argc++] = verb;
    if (c->dir) {
        argv[argc++] = "--dir";
        argv[argc++] = c->dir;
    }
    if (c->json)
        argv[argc++] = "--json";
    if (c->quiet)
        argv[argc++] = "--quiet";
    for (size_t i = 0; i < n; i++)
        argv[argc++] = args[i];
    if (file)
        argv[argc++] = file;
    rc = cli_parse(argc, (char **)(uintptr_t)argv, &again, err);
    if (!rc)
        rc = again.command->run(&again, err);
    cli_release(&again);
    free(argv);
    return rc;
}

/* What weir plan knows of what was typed. */
static enum err_code dry_run(struct cli *c, struct err *err)
{
    const char **args = mem_zero(2 * c->given_count + 1, sizeof(*args));
    struct buf *names = mem_zero(c->given_count + 1, sizeof(*names));
    size_t n = 0;
    enum err_code rc;

    for (size_t i = 0; i < c->given_count; i++) {
        const struct cli_option *o = cli_option_at(c, c->given[i].place);

        if (!o || !in_plan(o->name))
            continue;
        buf_init(&names[i], 64);
        buf_printf(&names[i], "--%s", o->name);
        args[n++] = names[i].p;
        if (o->value)
            args[n++] = c->given[i].value;
    }
    rc = run_as(c, "plan", args, n, c->arg_count ? c->args[0] : NULL, err);
    for (size_t i = 0; i < c->given_count; i++)
        buf_release(&names[i]);
    free(names);
    free(args);
    return rc;
}

static enum err_code run_run(struct cli *c, struct err *err)
{
    struct pipeline *p = NULL;
    struct store *st = NULL;
    struct err none = ERR_INIT;
    enum err_code rc;

    if (cli_flag(c, "dry-run"))
        return dry_run(c, err);
    rc = cli_open(c, STORE_WRITE, &st, &none); /* its cache may hold the pipeline */
    if (rc)
        st = NULL;
    rc = cli_pipeline_kept(c, c->arg_count ? c->args[0] : NULL, st ? st->root : NULL, &p, err);
    if (!rc && !st)
        rc = open_store(c, &st, err);
    if (!rc)
        rc = run_loaded(c, st, p, err);
    store_close(st);
    pipeline_free(p);
    return rc;
}

static const struct cli_option run_options[] = {
    CLI_PIPELINE_OPTIONS,
    CLI_SELECT_OPTIONS,
    {"keep-going", 'k', NULL, "after a failure go on with what does not need it"},
    {"dry-run", 'n', NULL, "run nothing: tell what would be done, as weir plan does"},
    {"jobs", 'j', "N", "at most so many tasks at once"},
    {"publish", 0, NULL, "move published refs though the run was altered"},
    {"offline", 0, NULL, "fetch nothing: deb: and url: sources must be here already"},
    {0},
};

const struct cli_command cli_run = {
    .name = "run",
    .args = "[FILE]",
    .args_min = 0,
    .args_max = 1,
    .summary = "run a pipeline: what has a result already is reused",
    .text = "Without FILE: the only pipeline of this folder.  A result is known by its action: "
            "program, code, params and inputs.\n"
            "Interrupted anywhere, the same command goes on with the same run, each task from its "
            "last checkpoint.  The first\n"
            "Ctrl-C asks tasks to checkpoint and stop, the second leaves them running and goes.  "
            "What the run made is kept by\n"
            "the ref runs/run-N.",
    .example = "weir run pipelines/quickstart.yaml\nweir run train.yaml --set seed=8 --only "
               "'sft[variant=realism]'",
    .json = "events as they happen, then {\"counts\":{\"cached\":3,\"done\":2},\"detached\":false,"
            "\"kind\":\"summary\",\n\"resumed\":false,\"retries\":0,\"run\":41,\"wall_ms\":12}\n"
            "{\"kind\":\"begun\"|\"started\"|\"ended\"|\"retry\"|\"waits\"|\"adopted\",\"run\":41,"
            "\"state\":\"done\"|\"cached\"|"
            "\"failed\"|...,\"task\":\"...\",\"attempt\":1,\"wall_ms\":12,\"result\":\"sha256:..."
            "\",\"reason\":\"...\"}",
    .options = run_options,
    .run = run_run,
};

/* ---- retry ------------------------------------------------------------------------------------- */

static enum err_code again(struct cli *c, const struct run_view *v, struct err *err)
{
    const json_t *args = json_object_get(json_object_get(v->begin, "said"), "args");
    const char *file = json_string_value(json_object_get(v->begin, "file"));
    const size_t n = json_array_size(args);
    const char **list;
    enum err_code rc;

    if (!file)
        return err_set(err, ERR_DAMAGED, "run-%lld does not say which file it ran",
                       (long long)v->row.run);
    if (access(file, F_OK) != 0)
        return err_set(err, ERR_NOT_FOUND,
                       "run-%lld ran %s, which is not there any more; weir cat "
                       "runs/run-%lld:pipeline.yaml shows it as it was",
                       (long long)v->row.run, file, (long long)v->row.run);
    list = mem_zero(n + 1, sizeof(*list));
    for (size_t i = 0; i < n; i++)
        list[i] = json_string_value(json_array_get(args, i));
    rc = run_as(c, "run", list, n, file, err);
    free(list);
    return rc;
}

static enum err_code retry_run(struct cli *c, struct err *err)
{
    struct store *st = NULL;
    struct ledger *l = NULL;
    struct run_view *v = NULL;
    int64_t number;
    enum err_code rc = cli_open(c, STORE_READ, &st, err);

    if (!rc)
        rc = cli_read_ledger(st, &l, err);
    if (!rc)
        rc = run_number(st, l, c->arg_count ? c->args[0] : "last", &number, err);
    if (!rc)
        rc = run_view_load(st, l, number, &v, err);
    ledger_close(l);
    store_close(st);
    if (!rc)
        rc = again(c, v, err);
    run_view_free(v);
    return rc;
}

const struct cli_command cli_retry = {
    .name = "retry",
    .args = "[RUN]",
    .args_max = 1,
    .summary = "the command of an earlier run, once more: what failed is tried again",
    .text = "RUN is run-41, 41, last (the newest; also without RUN) or @TAG.  The pipeline is read "
            "as it is now.",
    .example = "weir retry\nweir retry run-41",
    .json = "as weir run",
    .run = retry_run,
};
