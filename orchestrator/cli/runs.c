/* weir runs, show, status, tag, rm, cancel: what has been run, what runs, and a word to it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/os.h"
#include "orchestrator/cli/commands.h"
#include "orchestrator/cli/live.h"
#include "orchestrator/record.h"
#include "orchestrator/share.h"

#define RUNS_SHOWN 20
#define NS_PER_S INT64_C(1000000000)

struct at { /* store and ledger, opened for one command */
    struct store *st;
    struct ledger *l;
};

static enum err_code open_both(const struct cli *c, enum store_mode mode, enum ledger_mode how,
                               struct at *at, struct err *err)
{
    enum err_code rc = cli_open(c, mode, &at->st, err);

    if (!rc)
        rc = ledger_open(at->st->root, how, &at->l, err);
    if (rc == ERR_NOT_FOUND && at->st)
        return err_set(err, ERR_NOT_FOUND, "nothing has been run here yet; weir run does");
    return rc;
}

static void close_both(struct at *at)
{
    ledger_close(at->l);
    store_close(at->st);
}

/* Local time for people; JSON has it in UTC. */
static void when(int64_t ns, char out[24])
{
    const time_t s = (time_t)(ns / NS_PER_S);
    struct tm tm;

    if (ns == 0 || !localtime_r(&s, &tm) || strftime(out, 24, "%Y-%m-%d %H:%M:%S", &tm) == 0)
        (void)snprintf(out, 24, "-");
}

static json_t *when_json(int64_t ns)
{
    const time_t s = (time_t)(ns / NS_PER_S);
    char text[32];
    struct tm tm;

    if (ns == 0 || !gmtime_r(&s, &tm) ||
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        return json_null();
    return json_string(text);
}

/* A run that says "running" though nobody runs it was interrupted. */
static enum err_code state_word(struct at *at, const struct ledger_run *row, const char **out,
                                struct err *err)
{
    struct process_id runner;
    bool alive = true;
    enum err_code rc = OK;

    if (row->state == RUN_RUNNING)
        rc = share_runner(at->l, row->run, &runner, &alive, err);
    *out = alive ? run_state_words[row->state] : "interrupted";
    return rc;
}

static json_t *row_json(const struct ledger_run *r, const char *state)
{
    return json_pack("{s:I, s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I}", "run",
                     (json_int_t)r->run, "pipeline", r->pipeline, "state", state, "begun",
                     when_json(r->begun_ns), "ended", when_json(r->ended_ns), "tasks",
                     (json_int_t)r->tasks, "cached", (json_int_t)r->cached, "ran",
                     (json_int_t)r->ran, "failed", (json_int_t)r->failed, "skipped",
                     (json_int_t)r->skipped, "blocked", (json_int_t)r->blocked);
}

/* ---- runs -------------------------------------------------------------------------------------- */

static void print_row(const struct ledger_run *r, const char *state)
{
    char name[32], begun[24], took[24] = "-";

    (void)snprintf(name, sizeof(name), "run-%lld", (long long)r->run);
    when(r->begun_ns, begun);
    if (r->ended_ns)
        live_duration((r->ended_ns - r->begun_ns) / 1000000, took);
    printf("%-8s %-20s %-11s %s %8s  %lld tasks: %lld ran, %lld cached", name, r->pipeline, state,
           begun, took, (long long)r->tasks, (long long)r->ran, (long long)r->cached);
    if (r->failed)
        printf(", %lld failed", (long long)r->failed);
    printf("\n");
}

static enum err_code runs_run(struct cli *c, struct err *err)
{
    struct at at = {0};
    struct ledger_run *rows = NULL;
    int64_t max = RUNS_SHOWN;
    size_t n = 0;
    enum err_code rc = OK;

    if (cli_value(c, "limit"))
        rc = str_to_i64(str_of(cli_value(c, "limit")), 1, 1000000, &max, err);
    if (!rc)
        rc = open_both(c, STORE_READ, LEDGER_READ, &at, err);
    if (!rc)
        rc = ledger_list_runs(at.l, (size_t)max, &rows, &n, err);
    for (size_t i = 0; !rc && i < n; i++) {
        const char *state;

        rc = state_word(&at, &rows[i], &state, err);
        if (!rc && c->json)
            rc = cli_json(row_json(&rows[i], state), err);
        else if (!rc)
            print_row(&rows[i], state);
    }
    free(rows);
    close_both(&at);
    return rc;
}

static const struct cli_option runs_options[] = {
    {"limit", 0, "N", "how many; 20"},
    {0},
};
const struct cli_command cli_runs = {
    .name = "runs",
    .args = "",
    .args_max = 0,
    .summary = "list runs, the newest first",
    .example = "weir runs\nweir runs --limit 100 --json",
    .json = "{\"begun\":\"2026-01-02T03:04:05Z\",\"blocked\":0,\"cached\":3,\"ended\":\"...\","
            "\"failed\":0,"
            "\"pipeline\":\"...\",\"ran\":2,\"run\":41,\"skipped\":0,\"state\":\"succeeded\","
            "\"tasks\":5}",
    .options = runs_options,
    .run = runs_run,
};

/* ---- show, status ------------------------------------------------------------------------------ */

static enum err_code load_view(const struct cli *c, struct at *at, struct run_view **v,
                               struct err *err)
{
    int64_t number;
    enum err_code rc = open_both(c, STORE_READ, LEDGER_READ, at, err);

    if (!rc)
        rc = run_number(at->st, at->l, c->arg_count ? c->args[0] : "last", &number, err);
    return rc ? rc : run_view_load(at->st, at->l, number, v, err);
}

static const char *task_dir(struct at *at, const struct run_task *t, struct buf *path)
{
    buf_clear(path);
    buf_printf(path, "%s/tasks/%s", at->st->root, t->dir);
    return path->p;
}

static void print_task(struct at *at, const struct run_task *t)
{
    struct buf name = {0}, path = {0};
    char took[24] = "";
    const bool runs = t->dir && strcmp(t->state, "running") == 0;

    buf_init(&name, 4096);
    buf_init(&path, 8192);
    cli_escape(&name, t->name, strlen(t->name));
    if (t->wall_ms > 0)
        live_duration(t->wall_ms, took);
    else if (runs)
        live_duration((os_now_ns() - t->started_ns) / 1000000, took);
    printf(" %-32s %-10s %8s", name.p ? name.p : "", t->state, took);
    if (t->attempt > 1)
        printf("  attempt %d", t->attempt);
    if (runs) {
        struct live_progress p;

        live_progress_read(task_dir(at, t, &path), &p);
        if (p.known && p.total > 0)
            printf("  %.0f%%  %.0f/%.0f %s", 100 * p.done / p.total, p.done, p.total, p.unit);
        printf("  %s", p.metrics);
    }
    if (t->reason && t->reason[0])
        printf("  %s", t->reason);
    printf("\n");
    buf_release(&name);
    buf_release(&path);
}

static json_t *task_json(struct at *at, const struct run_task *t)
{
    json_t *v =
        json_pack("{s:o, s:s, s:i, s:I}", "task", cli_json_name(t->name, strlen(t->name)), "state",
                  t->state, "attempt", t->attempt, "wall_ms", (json_int_t)t->wall_ms);
    struct buf path = {0};

    CHECK(v);
    buf_init(&path, 8192);
    if (!digest_is_zero(&t->key))
        json_object_set_new(v, "key", cli_json_digest(&t->key));
    if (!digest_is_zero(&t->result))
        json_object_set_new(v, "result", cli_json_digest(&t->result));
    if (t->reason && t->reason[0])
        json_object_set_new(v, "reason", json_string(t->reason));
    if (t->outputs)
        json_object_set(v, "outputs", (json_t *)(uintptr_t)t->outputs);
    if (t->dir && strcmp(t->state, "running") == 0) {
        struct live_progress p;

        live_progress_read(task_dir(at, t, &path), &p);
        if (p.known)
            json_object_set_new(
                v, "progress",
                json_pack("{s:f, s:f, s:s}", "done", p.done, "total", p.total, "unit", p.unit));
    }
    buf_release(&path);
    return v;
}

static bool is_busy(const struct run_task *t)
{
    return strcmp(t->state, "running") == 0 || strcmp(t->state, "failed") == 0;
}

static enum err_code print_view(struct cli *c, struct at *at, const struct run_view *v, bool whole,
                                struct err *err)
{
    const char *state;
    json_t *tasks = json_array(), *top;
    enum err_code rc = state_word(at, &v->row, &state, err);

    if (rc) {
        json_decref(tasks);
        return rc;
    }
    if (!c->json) {
        json_decref(tasks);
        print_row(&v->row, state);
        for (size_t i = 0; i < v->task_count; i++)
            if (whole || is_busy(&v->tasks[i]))
                print_task(at, &v->tasks[i]);
        return OK;
    }
    for (size_t i = 0; i < v->task_count; i++)
        if (whole || is_busy(&v->tasks[i]))
            json_array_append_new(tasks, task_json(at, &v->tasks[i]));
    top = row_json(&v->row, state);
    json_object_set_new(top, "list", tasks);
    if (whole && v->begin)
        json_object_set(top, "begin", v->begin);
    return cli_json(top, err);
}

static void print_begin(const struct run_view *v)
{
    const json_t *git = json_object_get(v->begin, "git"), *said = json_object_get(v->begin, "said"),
                 *args = json_object_get(said, "args");
    const char *file = json_string_value(json_object_get(v->begin, "file")),
               *commit = json_string_value(json_object_get(git, "commit")),
               *branch = json_string_value(json_object_get(git, "branch"));
    size_t i;
    json_t *arg;

    printf(" file      %s\n", file ? file : "-");
    if (json_array_size(args) > 0) {
        printf(" options  ");
        json_array_foreach((json_t *)(uintptr_t)args, i, arg)
            printf(" %s", json_string_value(arg) ? json_string_value(arg) : "");
        printf("\n");
    }
    if (commit)
        printf(" git       %.12s%s%s%s\n", commit, branch ? " on " : "", branch ? branch : "",
               json_is_true(json_object_get(git, "dirty")) ? ", with changes not committed" : "");
}

static enum err_code show_run(struct cli *c, struct err *err)
{
    struct at at = {0};
    struct run_view *v = NULL;
    enum err_code rc = load_view(c, &at, &v, err);

    if (!rc && !c->json)
        print_begin(v);
    if (!rc)
        rc = print_view(c, &at, v, true, err);
    run_view_free(v);
    close_both(&at);
    return rc;
}

static enum err_code status_run(struct cli *c, struct err *err)
{
    struct at at = {0};
    struct run_view *v = NULL;
    enum err_code rc = load_view(c, &at, &v, err);

    if (!rc)
        rc = print_view(c, &at, v, false, err);
    run_view_free(v);
    close_both(&at);
    return rc;
}

#define RUN_ARG "RUN is run-41, 41, last (the newest; also without RUN) or @TAG."
#define RUN_JSON                                                                                   \
    "as weir runs, and \"list\":[{\"attempt\":1,\"key\":\"sha256:...\",\"state\":\"done\","        \
    "\"task\":\"vae\",\"wall_ms\":12}]"

const struct cli_command cli_show = {
    .name = "show",
    .args = "[RUN]",
    .args_max = 1,
    .summary = "everything about a run: options, commit, every task",
    .text = RUN_ARG,
    .example = "weir show\nweir show run-41 --json",
    .json = RUN_JSON ", \"begin\":{...}",
    .run = show_run,
};
const struct cli_command cli_status = {
    .name = "status",
    .args = "[RUN]",
    .args_max = 1,
    .summary = "how a run is doing: what runs and what failed",
    .text = RUN_ARG "  Works from any terminal while the run goes on.",
    .example = "weir status\nwatch weir status",
    .json = RUN_JSON,
    .run = status_run,
};

/* ---- tag, rm, cancel --------------------------------------------------------------------------- */

static enum err_code run_ref(struct store *st, int64_t run, struct digest *tree, struct err *err)
{
    enum obj_kind kind;
    char name[40];
    enum err_code rc;

    (void)snprintf(name, sizeof(name), "runs/run-%lld", (long long)run);
    rc = store_resolve(st, str_of(name), tree, &kind, err);
    if (rc == ERR_NOT_FOUND)
        return err_set(err, ERR_NOT_FOUND, "run-%lld has not ended, or was removed",
                       (long long)run);
    return rc;
}

static enum err_code tag_run(struct cli *c, struct err *err)
{
    struct at at = {0};
    struct digest tree;
    struct buf name = {0};
    int64_t run;
    enum err_code rc = open_both(c, STORE_WRITE, LEDGER_READ, &at, err);

    buf_init(&name, 512);
    buf_printf(&name, "tags/%s", c->args[1]);
    if (!rc)
        rc = run_number(at.st, at.l, c->args[0], &run, err);
    if (!rc)
        rc = run_ref(at.st, run, &tree, err);
    if (!rc)
        rc = buf_check(&name, "tag", err);
    if (!rc)
        rc = store_ref_set(at.st, (struct str){name.p, name.n}, OBJ_TREE, &tree, err);
    if (!rc && c->json)
        rc = cli_json(json_pack("{s:I, s:s, s:o}", "run", (json_int_t)run, "tag", c->args[1],
                                "digest", cli_json_digest(&tree)),
                      err);
    buf_release(&name);
    close_both(&at);
    return rc;
}

const struct cli_command cli_tag = {
    .name = "tag",
    .args = "RUN NAME",
    .args_min = 2,
    .args_max = 2,
    .summary = "give a run a name that keeps it: @NAME",
    .text = RUN_ARG "  A tag is the ref tags/NAME: weir ref rm tags/NAME takes it away.",
    .example = "weir tag run-42 exp-12\nweir run --from merge --input 'merge.models=@exp-12'",
    .json = "{\"digest\":\"sha256:...\",\"run\":42,\"tag\":\"exp-12\"}",
    .run = tag_run,
};

static enum err_code rm_one(struct at *at, const char *what, struct err *err)
{
    char name[40];
    int64_t run;
    enum err_code rc = run_number(at->st, at->l, what, &run, err);

    if (rc)
        return rc;
    rc = ledger_remove_run(at->l, run, err);
    if (rc)
        return rc;
    (void)snprintf(name, sizeof(name), "runs/run-%lld", (long long)run);
    rc = store_ref_set(at->st, str_of(name), OBJ_NONE, &(struct digest){{0}}, err);
    return rc == ERR_NOT_FOUND ? OK : rc;
}

static enum err_code rm_run(struct cli *c, struct err *err)
{
    struct at at = {0};
    enum err_code rc = open_both(c, STORE_WRITE, LEDGER_WRITE, &at, err);

    for (size_t i = 0; !rc && i < c->arg_count; i++)
        rc = rm_one(&at, c->args[i], err);
    close_both(&at);
    return rc;
}

const struct cli_command cli_rm = {
    .name = "rm",
    .args = "RUN...",
    .args_min = 1,
    .args_max = -1,
    .summary = "forget runs: their events go, and their results when nothing else keeps them",
    .text = RUN_ARG
    "  Results are deleted by weir gc, later, unless a tag, a ref or another run keeps them.",
    .example = "weir rm run-3 run-4",
    .json = "nothing",
    .run = rm_run,
};

static enum err_code cancel_run(struct cli *c, struct err *err)
{
    struct at at = {0};
    struct process_id runner;
    bool alive = false;
    int64_t run = 0;
    enum err_code rc = open_both(c, STORE_READ, LEDGER_WRITE, &at, err);

    if (!rc)
        rc = run_number(at.st, at.l, c->args[0], &run, err);
    if (!rc)
        rc = share_runner(at.l, run, &runner, &alive, err);
    if (!rc && !alive)
        rc = err_set(err, ERR_NOT_FOUND, "nobody runs run-%lld now, so there is nothing to cancel",
                     (long long)run);
    if (!rc)
        rc = ledger_request(at.l, run, cli_flag(c, "stop") ? LEDGER_ASK_STOP : LEDGER_ASK_CANCEL,
                            c->arg_count > 1 ? c->args[1] : NULL, err);
    close_both(&at);
    return rc;
}

static const struct cli_option cancel_options[] = {
    {"stop", 0, NULL, "as Ctrl-C there: checkpoint, stop, and the same command goes on later"},
    {0},
};
const struct cli_command cli_cancel = {
    .name = "cancel",
    .args = "RUN [TASK]",
    .args_min = 1,
    .args_max = 2,
    .summary = "end a run, or one of its tasks, from another terminal",
    .text = RUN_ARG "  What runs is asked to checkpoint and end; the run counts as cancelled.",
    .example =
        "weir cancel last\nweir cancel run-41 'sft[variant=realism]'\nweir cancel last --stop",
    .json = "nothing",
    .options = cancel_options,
    .run = cancel_run,
};
