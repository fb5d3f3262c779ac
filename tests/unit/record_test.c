/* The record of a task, the fold of a run, run.json, and what runs are called. */
#include <fcntl.h>

#include "orchestrator/record.h"
#include "store/tree.h"
#include "store/writer.h"
#include "tests/check.h"
#include "tests/ledger_rig.h"

struct world {
    char dir[TMPDIR_MAX];
    struct store *st;
    struct ledger *l;
    struct err err;
};

static void world_new(struct world *w)
{
    char weir[TMPDIR_MAX + 8];

    *w = (struct world){.err = ERR_INIT};
    tmpdir_new(w->dir);
    EXPECT_OK(store_init(w->dir, NULL, &w->err), &w->err);
    EXPECT_OK(store_open(w->dir, STORE_WRITE, &w->st, &w->err), &w->err);
    snprintf(weir, sizeof(weir), "%s/.weir", w->dir);
    EXPECT_OK(ledger_open(weir, LEDGER_WRITE, &w->l, &w->err), &w->err);
}

static void world_free(struct world *w)
{
    ledger_close(w->l);
    store_close(w->st);
    tmpdir_free(w->dir);
}

TEST(records_of_tasks)
{
    struct world w;
    struct task_record r = {.run = 41,
                            .attempt = 2,
                            .status = "failed",
                            .key = {{1, 2}},
                            .wall_ms = 1500,
                            .mean_ms = 1200,
                            .action = json_pack("{s:s}", "weir", "action/1")};
    struct task_record out;

    world_new(&w);
    EXPECT_ERR(task_record_get(w.l, "flow", "a", &out, &w.err), ERR_NOT_FOUND, &w.err);
    task_record_set(w.l, "flow", "a", &r);
    json_decref(r.action);
    r.action = NULL;
    r.status = "done";
    r.result.b[0] = 9;
    task_record_set(w.l, "flow", "b", &r);
    EXPECT_OK(ledger_commit(w.l, &w.err), &w.err);
    EXPECT_OK(task_record_get(w.l, "flow", "a", &out, &w.err), &w.err);
    EXPECT_EQ(out.run, 41);
    EXPECT_EQ(out.attempt, 2);
    EXPECT_STR(out.status, "failed");
    EXPECT_EQ(out.wall_ms, 1500);
    EXPECT_EQ(out.mean_ms, 1200);
    EXPECT(digest_eq(&out.key, &r.key));
    EXPECT(digest_is_zero(&out.result));
    EXPECT_STR(json_string_value(json_object_get(out.action, "weir")), "action/1");
    task_record_release(&out);
    EXPECT_OK(task_record_get(w.l, "flow", "b", &out, &w.err), &w.err);
    EXPECT(!out.action);
    EXPECT(digest_eq(&out.result, &r.result));
    task_record_release(&out);
    EXPECT_ERR(task_record_get(w.l, "flo", "wa", &out, &w.err), ERR_NOT_FOUND, &w.err);
    world_free(&w);
}

TEST(times_and_names)
{
    struct err err = ERR_INIT;
    struct buf b;
    int64_t ns;

    EXPECT_OK(record_time_parse("2026-01-02T03:04:05.678Z", &ns, &err), &err);
    EXPECT_EQ(ns, INT64_C(1767323045678000000));
    static const char *const bad[] = {"",
                                      "2026-01-02T03:04:05.678",
                                      "2026-13-02T03:04:05.678Z",
                                      "2026-01-02 03:04:05.678Z",
                                      "2026-01-02T03:04:05.678Zx",
                                      "2026-01-02T03:04:05.67xZ"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        EXPECT_ERR(record_time_parse(bad[i], &ns, &err), ERR_INPUT, &err);
    buf_init(&b, 100);
    EXPECT_OK(record_name_escape("a/b%2F[x=1]", &b, &err), &err);
    EXPECT_STR(b.p, "a%2Fb%252F[x=1]");
    buf_release(&b);
}

/* {TASK: result} of one task as a tree in the store. */
static struct digest cached_tree(struct world *w, const char *escaped)
{
    struct writer *wr = NULL;
    struct tree t = {0};
    struct buf text;
    struct digest d;
    struct tree_entry e = {.mode = TREE_FILE, .name = str_of(escaped), .size = 2};

    tree_init(&t);
    buf_init(&text, 1 << 20);
    EXPECT_OK(writer_open(w->st, &wr, &w->err), &w->err);
    EXPECT_OK(writer_put(wr, OBJ_BLOB, "hi", 2, &e.digest, &w->err), &w->err);
    EXPECT_OK(tree_add(&t, &e, 0, &w->err), &w->err);
    EXPECT_OK(tree_encode(&t, &text, &w->err), &w->err);
    EXPECT_OK(writer_put(wr, OBJ_TREE, text.p, text.n, &d, &w->err), &w->err);
    EXPECT_OK(writer_commit(wr, &w->err), &w->err);
    writer_release(wr);
    tree_release(&t);
    buf_release(&text);
    return d;
}

static void append(struct world *w, int64_t run, json_t *body)
{
    EXPECT(body);
    EXPECT_OK(ledger_append(w->l, run, body, &w->err), &w->err);
}

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
static int64_t history(struct world *w, bool over)
{
    const struct digest options = {{3}}, tree = cached_tree(w, "pre%2Fp%25");
    char text[DIGEST_TEXT + 1];
    struct ledger_run row;
    int64_t run;

    digest_text(&tree, text);
    EXPECT_OK(ledger_begin(w->l, "flow", &options, 0, &run, &w->err), &w->err);
    append(w, run,
           json_pack("{s:s, s:s, s:[s,s,s]}", "event", "run.begin", "file", "flow.yaml", "tasks",
                     "first", "pre/p%", "a"));
    append(w, run, json_pack("{s:s, s:i, s:s}", "event", "run.cached", "count", 1, "tree", text));
    append(w, run,
           json_pack("{s:s, s:s, s:i, s:s}", "event", "task.start", "task", "a", "attempt", 1,
                     "dir", "/t/a.1"));
    append(w, run,
           json_pack("{s:s, s:s, s:i, s:s, s:s}", "event", "task.end", "task", "a", "attempt", 1,
                     "status", "lost", "reason", "node gone"));
    append(w, run,
           json_pack("{s:s, s:s, s:i, s:s}", "event", "task.start", "task", "a", "attempt", 2,
                     "dir", "/t/a.2"));
    append(w, run,
           json_pack("{s:s, s:s, s:i, s:s, s:s, s:s, s:i, s:{s:s}}", "event", "task.end", "task",
                     "a", "attempt", 2, "status", "done", "result", HEX, "log", "sha256:" HEX,
                     "wall_ms", 77, "outputs", "x", "y"));
    append(w, run,
           json_pack("{s:s, s:s, s:i, s:s}", "event", "task.end", "task", "a", "attempt", 1,
                     "status", "failed")); /* stale */
    append(w, run,
           json_pack("{s:s, s:s, s:i, s:s}", "event", "task.start", "task", "b", "attempt", 1,
                     "dir", "/t/b.1"));
    append(w, run, json_pack("{s:s, s:s, s:s}", "event", "task.block", "task", "c", "by", "b"));
    append(w, run,
           json_pack("{s:s, s:s, s:s}", "event", "task.skip", "task", "d", "reason", "when"));
    EXPECT_OK(ledger_commit(w->l, &w->err), &w->err);
    if (!over)
        return run;
    EXPECT_OK(ledger_get_run(w->l, run, &row, &w->err), &w->err);
    row.state = RUN_FAILED;
    row.tasks = 6;
    row.ended_ns = INT64_C(1767323045678000000);
    ledger_set_run(w->l, &row);
    EXPECT_OK(ledger_commit(w->l, &w->err), &w->err);
    return run;
}

static void check_view(const struct run_view *v, bool over)
{
    const struct run_task *t;

    EXPECT_EQ(v->task_count, 6);
    EXPECT_STR(v->tasks[0].name, "first");
    EXPECT_STR(v->tasks[0].state, "waiting");
    EXPECT_STR(v->tasks[1].name, "pre/p%");
    EXPECT_STR(v->tasks[1].state, "cached");
    EXPECT(!digest_is_zero(&v->tasks[1].result));
    t = run_view_task(v, "a");
    EXPECT(t == &v->tasks[2]);
    EXPECT_STR(t->state, "done");
    EXPECT_EQ(t->attempt, 2);
    EXPECT_EQ(t->wall_ms, 77);
    EXPECT_EQ(t->log.b[1], 0x23);
    EXPECT(!t->reason);
    EXPECT(!t->dir);
    EXPECT(t->ended_ns >= t->started_ns);
    EXPECT_STR(json_string_value(json_object_get(t->outputs, "x")), "y");
    t = run_view_task(v, "b");
    EXPECT_STR(t->state, over ? "stopped" : "running");
    EXPECT_STR(t->dir, "/t/b.1");
    EXPECT_STR(run_view_task(v, "c")->state, "blocked");
    EXPECT_STR(run_view_task(v, "c")->reason, "b");
    EXPECT_STR(run_view_task(v, "d")->reason, "when");
    EXPECT(!run_view_task(v, "e"));
    EXPECT_STR(json_string_value(json_object_get(v->begin, "file")), "flow.yaml");
}

TEST(a_run_in_progress_is_the_fold_of_its_events)
{
    struct world w;
    struct run_view *v;

    world_new(&w);
    const int64_t run = history(&w, false);
    EXPECT_OK(run_view_load(w.st, w.l, run, &v, &w.err), &w.err);
    EXPECT_EQ(v->row.state, RUN_RUNNING);
    check_view(v, false);
    run_view_free(v);
    run_view_free(NULL);
    EXPECT_ERR(run_view_load(w.st, w.l, 99, &v, &w.err), ERR_NOT_FOUND, &w.err);
    EXPECT_ERR(run_view_load(NULL, w.l, 99, &v, &w.err), ERR_NOT_FOUND, &w.err);
    world_free(&w);
}

static void put(struct world *w, struct writer *wr, struct tree *t, const char *name,
                const struct buf *b)
{
    struct tree_entry e = {.mode = TREE_FILE, .name = str_of(name), .size = (int64_t)b->n};

    EXPECT_OK(writer_put(wr, OBJ_BLOB, b->p, b->n, &e.digest, &w->err), &w->err);
    EXPECT_OK(tree_add(t, &e, 0, &w->err), &w->err);
}

/* The tree of a run under its ref and a tag. */
static void keep_run(struct world *w, int64_t run, const char *tag)
{
    struct writer *wr = NULL;
    struct tree t = {0};
    struct buf b;
    struct ledger_run row;
    struct digest d;
    char ref[64];

    tree_init(&t);
    buf_init(&b, 1 << 20);
    EXPECT_OK(writer_open(w->st, &wr, &w->err), &w->err);
    EXPECT_OK(ledger_export(w->l, run, &b, &w->err), &w->err);
    put(w, wr, &t, "events", &b);
    buf_clear(&b);
    EXPECT_OK(ledger_get_run(w->l, run, &row, &w->err), &w->err);
    json_t *o = run_row_json(&row);
    EXPECT_OK(json_canonical(o, &b, &w->err), &w->err);
    json_decref(o);
    put(w, wr, &t, "run.json", &b);
    buf_clear(&b);
    EXPECT_OK(tree_encode(&t, &b, &w->err), &w->err);
    EXPECT_OK(writer_put(wr, OBJ_TREE, b.p, b.n, &d, &w->err), &w->err);
    snprintf(ref, sizeof(ref), "runs/run-%lld", (long long)run);
    EXPECT_OK(writer_ref(wr, str_of(ref), OBJ_TREE, &d, &w->err), &w->err);
    snprintf(ref, sizeof(ref), "tags/%s", tag);
    EXPECT_OK(writer_ref(wr, str_of(ref), OBJ_TREE, &d, &w->err), &w->err);
    EXPECT_OK(writer_commit(wr, &w->err), &w->err);
    writer_release(wr);
    tree_release(&t);
    buf_release(&b);
}

TEST(a_finished_run_is_the_same_from_its_tree)
{
    struct world w;
    struct run_view *v;
    struct ledger_run row, again;
    char weir[TMPDIR_MAX + 16];

    world_new(&w);
    const int64_t run = history(&w, true);
    keep_run(&w, run, "exp-12");
    EXPECT_OK(run_view_load(w.st, NULL, run, &v, &w.err), &w.err);
    EXPECT_EQ(v->row.state, RUN_FAILED);
    EXPECT(!digest_is_zero(&v->tree));
    check_view(v, true);
    run_view_free(v);
    /* into another ledger */
    EXPECT_OK(ledger_get_run(w.l, run, &row, &w.err), &w.err);
    ledger_close(w.l);
    snprintf(weir, sizeof(weir), "%s/.weir/other", w.dir);
    EXPECT_OK(ledger_open(weir, LEDGER_WRITE, &w.l, &w.err), &w.err);
    EXPECT_OK(run_view_load(w.st, w.l, run, &v, &w.err), &w.err); /* not there yet: from the tree */
    run_view_free(v);
    EXPECT_OK(run_import(w.st, w.l, run, &w.err), &w.err);
    EXPECT_OK(ledger_get_run(w.l, run, &again, &w.err), &w.err);
    EXPECT_EQ(again.begun_ns, row.begun_ns / 1000000 * 1000000);
    again.begun_ns = row.begun_ns;
    EXPECT_MEM(&row, &again, sizeof(row));
    EXPECT_OK(run_view_load(w.st, w.l, run, &v, &w.err), &w.err);
    check_view(v, true);
    run_view_free(v);
    world_free(&w);
}

TEST(runs_are_called_by_number_last_or_tag)
{
    struct world w;
    int64_t n;

    world_new(&w);
    EXPECT_ERR(run_number(w.st, w.l, "last", &n, &w.err), ERR_NOT_FOUND, &w.err);
    EXPECT_ERR(run_number(NULL, NULL, "1", &n, &w.err), ERR_NOT_FOUND, &w.err);
    const int64_t first = history(&w, true), second = history(&w, false);
    keep_run(&w, first, "exp-12");
    EXPECT_OK(run_number(w.st, w.l, "last", &n, &w.err), &w.err);
    EXPECT_EQ(n, second);
    EXPECT_OK(run_number(w.st, NULL, "last", &n, &w.err), &w.err);
    EXPECT_EQ(n, first);
    EXPECT_OK(run_number(w.st, w.l, "run-2", &n, &w.err), &w.err);
    EXPECT_EQ(n, 2);
    EXPECT_OK(run_number(w.st, w.l, "1", &n, &w.err), &w.err);
    EXPECT_EQ(n, 1);
    EXPECT_OK(run_number(w.st, w.l, "@exp-12", &n, &w.err), &w.err);
    EXPECT_EQ(n, first);
    EXPECT_ERR(run_number(w.st, w.l, "@exp-13", &n, &w.err), ERR_NOT_FOUND, &w.err);
    EXPECT_ERR(run_number(w.st, w.l, "run-9", &n, &w.err), ERR_NOT_FOUND, &w.err);
    static const char *const bad[] = {"", "run-", "run", "0", "-1", "1x", "Last", "run-run-1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        EXPECT_ERR(run_number(w.st, w.l, bad[i], &n, &w.err), ERR_INPUT, &w.err);
    world_free(&w);
}

TEST(kept_runs_come_back)
{
    struct world w;
    struct ledger_run *rows, row;
    struct buf notes;
    size_t n;
    int64_t imported;
    char path[TMPDIR_MAX + 16];

    world_new(&w);
    const int64_t first = history(&w, true), second = history(&w, false);
    keep_run(&w, first, "exp-12");
    EXPECT_OK(run_rows(w.st, w.l, 10, &rows, &n, &w.err), &w.err);
    EXPECT_EQ(n, 2); /* in the ledger and kept: once */
    EXPECT_EQ(rows[0].run, second);
    free(rows);
    EXPECT_OK(run_rows(w.st, w.l, 1, &rows, &n, &w.err), &w.err);
    EXPECT_EQ(n, 1);
    EXPECT_EQ(rows[0].run, second);
    free(rows);
    EXPECT_OK(run_rows(w.st, NULL, 10, &rows, &n, &w.err), &w.err);
    EXPECT_EQ(n, 1);
    EXPECT_EQ(rows[0].run, first);
    EXPECT_EQ(rows[0].state, RUN_FAILED);
    free(rows);
    /* the ledger is lost */
    ledger_close(w.l);
    w.l = NULL;
    snprintf(path, sizeof(path), "%s/.weir/ledger", w.dir);
    EXPECT_OK(os_remove_tree(AT_FDCWD, path, &w.err), &w.err);
    buf_init(&notes, 4096);
    EXPECT_OK(run_import_kept(w.st, &imported, &notes, &w.err), &w.err);
    EXPECT_EQ(imported, 1);
    EXPECT_EQ(notes.n, 0);
    EXPECT_OK(run_import_kept(w.st, &imported, &notes, &w.err), &w.err);
    EXPECT_EQ(imported, 0);
    snprintf(path, sizeof(path), "%s/.weir", w.dir);
    EXPECT_OK(ledger_open(path, LEDGER_WRITE, &w.l, &w.err), &w.err);
    EXPECT_OK(ledger_get_run(w.l, first, &row, &w.err), &w.err);
    EXPECT_ERR(ledger_get_run(w.l, second, &row, &w.err), ERR_NOT_FOUND, &w.err);
    buf_release(&notes);
    world_free(&w);
}

RUN(records_of_tasks, times_and_names, kept_runs_come_back,
    a_run_in_progress_is_the_fold_of_its_events, a_finished_run_is_the_same_from_its_tree,
    runs_are_called_by_number_last_or_tag)
