/* weir run, weir checkout: a pipeline here, and what it made. */
#include "orchestrator/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "orchestrator/cli/commands.h"
#include "orchestrator/pipeline.h"
#include "store/materialise.h"

/* ---- run --------------------------------------------------------------------------------------- */

static enum err_code run_line(void *arg, const struct run_event *e, struct err *err)
{
    const struct cli *c = arg;
    const bool has_result = e->end == TASK_CACHED || e->end == TASK_RAN;

    if (c->json)
        return cli_json(json_pack("{s:s, s:s, s:I, s:o, s:o*}", "task", e->task->name, "end",
                                  task_end_words[e->end], "wall_ms", (json_int_t)e->wall_ms,
                                  "result", has_result ? cli_json_digest(&e->result) : json_null(),
                                  "reason", e->reason ? json_string(e->reason) : NULL),
                        err);
    if (c->quiet && e->end != TASK_FAILED)
        return OK;
    printf(" %-40s %s", e->task->name, task_end_words[e->end]);
    if (e->end == TASK_RAN)
        printf(" %lld.%03llds", (long long)e->wall_ms / 1000, (long long)e->wall_ms % 1000);
    if (e->reason)
        printf("  %s", e->reason);
    if (e->log_path)
        printf("\n   log: %s", e->log_path);
    printf("\n");
    (void)fflush(stdout);
    return OK;
}

static void run_summary(const struct cli *c, const struct run_report *r)
{
    if (c->json || c->quiet)
        return;
    printf("%lld run, %lld reused", (long long)r->counts[TASK_RAN],
           (long long)r->counts[TASK_CACHED]);
    if (r->counts[TASK_SKIPPED])
        printf(", %lld skipped", (long long)r->counts[TASK_SKIPPED]);
    if (r->counts[TASK_FAILED])
        printf(", %lld failed", (long long)r->counts[TASK_FAILED]);
    if (r->counts[TASK_BLOCKED])
        printf(", %lld not tried", (long long)r->counts[TASK_BLOCKED]);
    if (r->number)
        printf("  (run-%lld)", (long long)r->number);
    printf("\n");
}

static enum err_code run_run(struct cli *c, struct err *err)
{
    const struct run_options o = {
        .keep_going = cli_flag(c, "keep-going"), .on_event = run_line, .arg = c};
    struct pipeline *p = NULL;
    struct store *st = NULL;
    struct run_report report = {0};
    enum err_code rc = cli_pipeline(c, c->arg_count ? c->args[0] : NULL, &p, err);

    if (!rc)
        rc = cli_open(c, STORE_WRITE, &st, err);
    if (!rc) {
        rc = run_pipeline(st, p, &o, &report, err);
        run_summary(c, &report);
    }
    store_close(st);
    pipeline_free(p);
    return rc;
}

static const struct cli_option run_options[] = {
    CLI_PIPELINE_OPTIONS,
    {"keep-going", 'k', NULL, "after a failure go on with what does not need it"},
    {0},
};

const struct cli_command cli_run = {
    .name = "run",
    .args = "[FILE]",
    .args_min = 0,
    .args_max = 1,
    .summary = "run a pipeline: what has a result already is reused",
    .text = "Without FILE: the only pipeline of this folder.  One task at a time, on this machine. "
            " A result is known by its action: program, "
            "parameters and\n"
            "inputs.  Interrupted anywhere, the same command goes on with the first task that has "
            "no result.\n"
            "When all went well the results are kept under the ref runs/run-N.",
    .example = "weir run pipelines/quickstart.yaml\nweir run train.yaml --set seed=8",
    .json = "{\"end\":\"cached\"|\"ran\"|\"failed\"|\"skipped\"|\"blocked\",\"reason\":\"...\","
            "\"result\":\"sha256:...\"|null,"
            "\"task\":\"sft[variant=realism]\",\"wall_ms\":12}",
    .options = run_options,
    .run = run_run,
};

/* ---- checkout ---------------------------------------------------------------------------------- */

static enum err_code checkout_run(struct cli *c, struct err *err)
{
    const char *what = c->args[0], *dot = strrchr(what, '.');
    const struct mat_options how = {.how = MAT_COPY};
    struct mat_result done;
    struct store *st = NULL;
    struct digest d;
    enum obj_kind kind;
    char *task = NULL;
    int64_t number = 0;
    enum err_code rc = OK;

    if (!dot || dot == what || !dot[1])
        return err_set(err, ERR_USAGE,
                       "'%s' is no output; write STAGE.OUTPUT or STAGE[key=value].OUTPUT", what);
    task = mem_strndup(what, (size_t)(dot - what));
    if (cli_value(c, "run"))
        rc = str_to_i64(str_of(cli_value(c, "run")), 1, INT64_MAX - 1, &number, err);
    if (!rc)
        rc = cli_open(c, STORE_READ, &st, err);
    if (!rc)
        rc = run_output(st, task, dot + 1, number, &d, &kind, err);
    if (!rc)
        rc = materialise(st, kind, &d, c->args[1], &how, &done, err);
    if (!rc && c->json)
        rc = cli_json(json_pack("{s:o, s:s, s:I, s:I}", "digest", cli_json_digest(&d), "kind",
                                cli_kind(kind), "files", (json_int_t)done.files, "bytes",
                                (json_int_t)done.bytes),
                      err);
    store_close(st);
    free(task);
    return rc;
}

static const struct cli_option checkout_options[] = {
    {"run", 0, "N", "from run-N instead of the newest that has it"},
    {0},
};

const struct cli_command cli_checkout = {
    .name = "checkout",
    .args = "TASK.OUTPUT DEST",
    .args_min = 2,
    .args_max = 2,
    .summary = "copy an output of a run to a file or folder",
    .example = "weir checkout merge.model out/\nweir checkout 'sft[variant=realism].model' "
               "realism/ --run 41",
    .json = "{\"bytes\":123,\"digest\":\"sha256:...\",\"files\":2,\"kind\":\"blob\"|\"tree\"}",
    .options = checkout_options,
    .run = checkout_run,
};
