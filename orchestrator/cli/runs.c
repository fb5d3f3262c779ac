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
#define FOLD_MIN 10 /* cached instances of a stage take one line from here on */
#define BUSY_MAX 50 /* lines of weir status */
#define NS_PER_S INT64_C(1000000000)

struct at { /* store and ledger, opened for one command */
    struct store *st;
    struct ledger *l;
};

/* Without a ledger there may still be runs: pulled ones are kept by refs. */
static enum err_code open_both(const struct cli *c, enum store_mode mode, struct at *at,
                               struct err *err)
{
    enum err_code rc = cli_open(c, mode, &at->st, err);

    return rc ? rc : cli_read_ledger(at->st, &at->l, err);
}

/* For what is written into the ledger: who asks for that must not make one where nothing has run. */
static enum err_code write_ledger(struct at *at, struct err *err)
{
    if (!at->l)
        return OK;
    ledger_close(at->l);
    at->l = NULL;
    return ledger_open(at->st->root, LEDGER_WRITE, &at->l, err);
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

    if (row->state == RUN_RUNNING && at->l)
        rc = share_runner(at->l, row->run, &runner, &alive, err);
    *out = alive ? run_state_words[row->state] : "interrupted";
    return rc;
}

static json_t *row_json(const struct ledger_run *r, const char *state)
{
    return json_pack(
        "{s:I, s:o, s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I}", "run", (json_int_t)r->run,
        "pipeline", cli_json_name(r->pipeline, strlen(r->pipeline)), "state", state, "begun",
        when_json(r->begun_ns), "ended", when_json(r->ended_ns), "tasks", (json_int_t)r->tasks,
        "cached", (json_int_t)r->cached, "ran", (json_int_t)r->ran, "failed", (json_int_t)r->failed,
        "skipped", (json_int_t)r->skipped, "blocked", (json_int_t)r->blocked);
}

/* ---- runs -------------------------------------------------------------------------------------- */

static void print_row(const struct ledger_run *r, const char *state)
{
    char name[32], begun[24], took[24] = "-";
    const int pad = 20 - (int)strlen(r->pipeline);

    (void)snprintf(name, sizeof(name), "run-%lld", (long long)r->run);
    when(r->begun_ns, begun);
    if (r->ended_ns)
        live_duration((r->ended_ns - r->begun_ns) / 1000000, took);
    printf("%-8s ", name);
    cli_name(r->pipeline, strlen(r->pipeline));
    printf("%*s %-11s %s %8s  %lld task%s: %lld ran, %lld cached", pad > 0 ? pad : 0, "", state,
           begun, took, (long long)r->tasks, r->tasks == 1 ? "" : "s", (long long)r->ran,
           (long long)r->cached);
    if (r->failed)
        printf(", %lld failed", (long long)r->failed);
    if (r->blocked)
        printf(", %lld not tried", (long long)r->blocked);
    if (r->skipped)
        printf(", %lld skipped", (long long)r->skipped);
}

static enum err_code runs_run(struct cli *c, struct err *err)
{
    struct at at = {0};
    struct ledger_run *rows = NULL;
    struct err bad = ERR_INIT;
    int64_t max = RUNS_SHOWN;
    size_t n = 0;
    enum err_code rc = OK;

    if (cli_value(c, "limit") &&
        str_to_i64(str_of(cli_value(c, "limit")), 1, 1000000, &max, &bad) != OK)
        rc = err_set(err, ERR_USAGE, "--limit: %s", bad.text);
    if (!rc)
        rc = open_both(c, STORE_READ, &at, err);
    if (!rc)
        rc = run_rows(at.st, at.l, (size_t)max, &rows, &n, err);
    for (size_t i = 0; !rc && i < n; i++) {
        const char *state;

        rc = state_word(&at, &rows[i], &state, err);
        if (!rc && c->json)
            rc = cli_json(row_json(&rows[i], state), err);
        else if (!rc) {
            print_row(&rows[i], state);
            printf("\n");
        }
    }
    if (!rc && n == 0 && !c->json && !c->quiet)
        printf("nothing has been run here yet\n");
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
    enum err_code rc = open_both(c, STORE_READ, at, err);

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
    printf(" %-32s %-10s", name.p ? name.p : "",
           strcmp(t->state, "unselected") == 0 ? "left out" : t->state);
    if (took[0])
        printf(" %8s", took);
    if (t->attempt > 1)
        printf("  attempt %d", t->attempt);
    if (runs) {
        struct live_progress p;

        live_progress_read(task_dir(at, t, &path), &p);
        if (p.known && p.total > 0)
            printf("  %.0f%%  %.0f/%.0f %s", 100 * p.done / p.total, p.done, p.total, p.unit);
        printf("  %s", p.metrics);
    }
    if (t->reason && t->reason[0]) {
        buf_clear(&name);
        live_clean(&name, t->reason, strlen(t->reason));
        printf("  %s", name.p ? name.p : "");
    }
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

static int64_t count_state(const struct run_view *v, const char *state)
{
    int64_t n = 0;

    for (size_t i = 0; i < v->task_count; i++)
        n += strcmp(v->tasks[i].state, state) == 0;
    return n;
}

/* How many tasks from here on are instances of one stage that were all cached. */
static size_t cached_together(const struct run_view *v, size_t from, int *stage)
{
    const char *name = v->tasks[from].name, *bracket = strchr(name, '[');
    size_t n = 0;

    *stage = bracket ? (int)(bracket - name) : 0;
    if (!bracket)
        return 0;
    while (from + n < v->task_count &&
           strncmp(v->tasks[from + n].name, name, (size_t)*stage + 1) == 0)
        if (strcmp(v->tasks[from + n++].state, "cached") != 0)
            return 0;
    return n;
}

static void print_tasks(struct at *at, const struct run_view *v, bool whole)
{
    int64_t busy = 0;

    for (size_t i = 0; i < v->task_count; i++) {
        int stage = 0;
        const size_t n = whole ? cached_together(v, i, &stage) : 0;

        if (n >= FOLD_MIN) {
            printf(" %.*s[*]%*s cached     %zu tasks\n", stage, v->tasks[i].name,
                   stage < 29 ? 29 - stage : 0, "", n);
            i += n - 1;
        } else if (whole || (is_busy(&v->tasks[i]) && busy++ < BUSY_MAX)) {
            print_task(at, &v->tasks[i]);
        }
    }
    if (busy > BUSY_MAX)
        printf(" ... and %lld more\n", (long long)(busy - BUSY_MAX));
}

/* Events do not name what was cached at the start; a run in progress has no tree that does. */
static void print_rest(const struct run_view *v, bool whole)
{
    const int64_t running = count_state(v, "running"), left = count_state(v, "unselected"),
                  ended =
                      v->row.cached + v->row.ran + v->row.failed + v->row.skipped + v->row.blocked;
    const int64_t waiting = v->row.tasks - ended - running - left;

    if (v->row.state != RUN_RUNNING)
        return;
    if (whole && v->known > 0)
        printf(" %lld %s a result when it began\n", (long long)v->known,
               v->known == 1 ? "task had" : "tasks had");
    if (waiting > 0)
        printf(" %lld %s for %s turn\n", (long long)waiting, waiting == 1 ? "waits" : "wait",
               waiting == 1 ? "its" : "their");
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

    printf(" file      ");
    cli_name(file ? file : "-", strlen(file ? file : "-"));
    printf("\n");
    if (json_array_size(args) > 0) {
        printf(" options  ");
        json_array_foreach((json_t *)(uintptr_t)args, i, arg)
        {
            const char *text = json_string_value(arg);

            printf(" ");
            cli_name(text ? text : "", text ? strlen(text) : 0);
        }
        printf("\n");
    }
    if (commit)
        printf(" git       %.12s%s%s%s\n", commit, branch ? " on " : "", branch ? branch : "",
               json_is_true(json_object_get(git, "dirty")) ? ", with changes not committed" : "");
}

static enum err_code print_json(struct at *at, struct run_view *v, const char *state, bool whole,
                                struct err *err)
{
    json_t *tasks = json_array(), *top;
    enum err_code rc = OK;

    for (size_t i = 0; !rc && i < v->task_count; i++) {
        if (!whole && !is_busy(&v->tasks[i]))
            continue;
        rc = run_view_result(v, &v->tasks[i], err);
        if (!rc)
            json_array_append_new(tasks, task_json(at, &v->tasks[i]));
    }
    top = row_json(&v->row, state);
    json_object_set(top, "list", tasks);
    json_decref(tasks);
    json_object_set_new(top, "running", json_integer(count_state(v, "running")));
    if (whole && v->begin)
        json_object_set(top, "begin", v->begin);
    if (!rc)
        return cli_json(top, err);
    json_decref(top);
    return rc;
}

static enum err_code print_view(struct cli *c, struct at *at, struct run_view *v, bool whole,
                                struct err *err)
{
    const char *state;
    enum err_code rc = state_word(at, &v->row, &state, err);
    const int64_t running = rc ? 0 : count_state(v, "running");

    if (rc)
        return rc;
    if (c->json)
        return print_json(at, v, state, whole, err);
    print_row(&v->row, state);
    if (running > 0)
        printf(", %lld %s", (long long)running,
               strcmp(state, "interrupted") == 0 ? "were running" : "running");
    printf("\n");
    if (whole)
        print_begin(v);
    print_tasks(at, v, whole);
    print_rest(v, whole);
    return OK;
}

static enum err_code show_run(struct cli *c, struct err *err)
{
    struct at at = {0};
    struct run_view *v = NULL;
    enum err_code rc = load_view(c, &at, &v, err);

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
    "as weir runs, and "                                                                           \
    "\"running\":N,\"list\":[{\"attempt\":1,\"key\":\"sha256:...\",\"state\":\"done\","            \
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
    enum err_code rc = open_both(c, STORE_WRITE, &at, err);

    buf_init(&name, 512);
    buf_printf(&name, "tags/%s", c->args[1]);
    if (!rc)
        rc = run_number(at.st, at.l, c->args[0], &run, err);
    if (!rc)
        rc = run_ref(at.st, run, &tree, err);
    if (!rc)
        rc = buf_check(&name, "tag", err);
    if (!rc)
        rc = store_ref_check((struct str){name.p, name.n}, err);
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

/* The events, then the ref: killed in between, the run is still listed, from its tree, and can be removed again. */
static enum err_code rm_one(const struct cli *c, struct at *at, const char *what, struct err *err)
{
    char name[40];
    int64_t run;
    enum err_code rc = run_number(at->st, at->l, what, &run, err);

    if (!rc && at->l)
        rc = ledger_remove_run(at->l, run, err);
    if (rc == ERR_NOT_FOUND && run > 0) { /* known by its ref alone */
        struct digest tree;

        *err = (struct err)ERR_INIT;
        rc = run_ref(at->st, run, &tree, err);
    } else if (rc == ERR_AGAIN) {
        return err_set(err, ERR_AGAIN,
                       "run-%lld has not ended; weir cancel run-%lld ends it, and the same command "
                       "as then goes on with it",
                       (long long)run, (long long)run);
    }
    if (rc)
        return rc;
    (void)snprintf(name, sizeof(name), "runs/run-%lld", (long long)run);
    rc = store_ref_set(at->st, str_of(name), OBJ_NONE, &(struct digest){{0}}, err);
    if (rc == ERR_NOT_FOUND) {
        *err = (struct err)ERR_INIT;
        rc = OK;
    }
    if (!rc && c->json)
        rc = cli_json(json_pack("{s:I, s:b}", "run", (json_int_t)run, "removed", 1), err);
    return rc;
}

static enum err_code rm_run(struct cli *c, struct err *err)
{
    struct at at = {0};
    enum err_code rc = open_both(c, STORE_WRITE, &at, err);

    if (!rc)
        rc = write_ledger(&at, err);
    for (size_t i = 0; !rc && i < c->arg_count; i++)
        rc = rm_one(c, &at, c->args[i], err);
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
    .json = "per run: {\"removed\":true,\"run\":3}",
    .run = rm_run,
};

/* A name that the run has no record of: a task that waits, or a slip.  Only the pipeline of that run can tell, so a close name is a hint. */
static enum err_code check_task(struct at *at, int64_t run, const char *task, struct err *err)
{
    struct run_view *v = NULL;
    enum err_code rc = run_view_load(at->st, at->l, run, &v, err);

    if (!rc)
        rc = cli_unknown_task(v, task, false, err);
    run_view_free(v);
    return rc;
}

static enum err_code cancel_run(struct cli *c, struct err *err)
{
    const bool stop = cli_flag(c, "stop");
    const char *task = c->arg_count > 1 ? c->args[1] : NULL;
    struct at at = {0};
    struct process_id runner;
    bool alive = false;
    int64_t run = 0;
    enum err_code rc = open_both(c, STORE_READ, &at, err);

    if (!rc && stop && task)
        rc = err_set(err, ERR_USAGE, "--stop is for whole runs: leave out '%s', or --stop", task);
    if (!rc)
        rc = run_number(at.st, at.l, c->args[0], &run, err);
    if (!rc && task)
        rc = check_task(&at, run, task, err);
    if (!rc)
        rc = write_ledger(&at, err);
    if (!rc && at.l)
        rc = share_runner(at.l, run, &runner, &alive, err);
    if (!rc && !alive)
        rc = err_set(err, ERR_NOT_FOUND, "nobody runs run-%lld now, so there is nothing to cancel",
                     (long long)run);
    if (!rc)
        rc = ledger_request(at.l, run, stop ? LEDGER_ASK_STOP : LEDGER_ASK_CANCEL, task, err);
    if (!rc && c->json)
        rc = cli_json(json_pack("{s:s, s:I, s:s*}", "asked", stop ? "stop" : "cancel", "run",
                                (json_int_t)run, "task", task),
                      err);
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
    .json = "{\"asked\":\"cancel\"|\"stop\",\"run\":41}, \"task\" when one was named",
    .options = cancel_options,
    .run = cancel_run,
};
