/* The ledger: appending, the chain, rows, views, requests, text and back, other processes, flipped bytes. */
#include <fcntl.h>
#include <lmdb.h>
#include <signal.h>

#include "orchestrator/ledger_internal.h"
#include "tests/ledger_rig.h"

TEST(what_was_committed_is_there_and_nothing_else)
{
    struct lrig r;
    struct ledger_run row;

    lrig_new(&r);
    const int64_t run = lrig_begin(&r, "flow");
    EXPECT_EQ(run, 1);
    lrig_events(&r, run, 0, 10);
    EXPECT(!ledger_dirty(r.l));
    EXPECT_OK(ledger_append(r.l, run, lrig_body(10), &r.err), &r.err);
    EXPECT(ledger_dirty(r.l));
    EXPECT_EQ(lrig_replay(&r, run), 10); /* readers see what is committed */
    lrig_open(&r, LEDGER_WRITE);
    EXPECT_EQ(lrig_replay(&r, run), 10);
    lrig_events(&r, run, 10, 5); /* another process goes on */
    EXPECT_EQ(lrig_replay(&r, run), 15);
    EXPECT_OK(ledger_get_run(r.l, run, &row, &r.err), &r.err);
    EXPECT_EQ(row.events, 15);
    EXPECT_EQ(row.state, RUN_RUNNING);
    EXPECT_EQ(row.options.b[0], 7);
    EXPECT_STR(row.pipeline, "flow");
    EXPECT(row.begun_ns > 0);
    EXPECT_ERR(ledger_get_run(r.l, 2, &row, &r.err), ERR_NOT_FOUND, &r.err);
    EXPECT_ERR(ledger_append(r.l, 2, lrig_body(0), &r.err), ERR_NOT_FOUND, &r.err);
    lrig_free(&r);
}

static enum err_code keep(void *arg, int64_t seq, const json_t *body, struct err *err)
{
    (void)err;
    if (seq == 1)
        *(json_t **)arg = json_deep_copy(body);
    return OK;
}

TEST(an_event_is_canonical_and_names_the_one_before)
{
    struct lrig r;
    struct buf text;
    struct digest first;
    char prev[DIGEST_TEXT + 1], want[512];
    json_t *body = NULL;

    lrig_new(&r);
    os_set_now(INT64_C(1767323045678999999));
    const int64_t run = lrig_begin(&r, "flow");
    EXPECT_OK(ledger_append(r.l, run, json_pack("{s:s}", "event", "run.begin"), &r.err), &r.err);
    EXPECT_OK(ledger_append(r.l, run,
                            json_pack("{s:s, s:f, s:[i,n], s:i, s:s}", "zeta", "\"\n\x01", "real",
                                      0.5, "list", 1, "aa", -7, "event", "task.start"),
                            &r.err),
              &r.err);
    EXPECT_OK(ledger_commit(r.l, &r.err), &r.err);
    os_set_now(0);
    buf_init(&text, 1 << 20);
    EXPECT_OK(ledger_export(r.l, run, &text, &r.err), &r.err);
    const size_t line = (size_t)(strchr(text.p, '\n') - text.p);
    sha256_of(text.p, line, &first);
    digest_text(&first, prev);
    snprintf(want, sizeof(want),
             "{\"aa\":-7,\"event\":\"task.start\",\"list\":[1,null],\"prev\":\"%s\",\"real\":0.5,"
             "\"seq\":1,\"time\":\"2026-01-02T03:04:05.678Z\",\"zeta\":\"\\\"\\n\\u0001\"}\n",
             prev);
    EXPECT_STR(text.p + line + 1, want);
    EXPECT_OK(ledger_replay(r.l, run, 1, keep, &body, &r.err), &r.err);
    EXPECT_STR(json_string_value(json_object_get(body, "prev")), prev);
    json_decref(body);
    buf_release(&text);
    lrig_free(&r);
}

TEST(a_refused_event_leaves_no_trace)
{
    struct lrig r;
    char *big = mem_alloc(LEDGER_EVENT_MAX + 1);

    lrig_new(&r);
    const int64_t run = lrig_begin(&r, "flow");
    memset(big, 'x', LEDGER_EVENT_MAX);
    big[LEDGER_EVENT_MAX] = '\0';
    EXPECT_OK(ledger_append(r.l, run, lrig_body(0), &r.err), &r.err);
    EXPECT_ERR(ledger_append(r.l, run, json_pack("{s:s,s:s}", "event", "a", "b", big), &r.err),
               ERR_LIMIT, &r.err);
    EXPECT_ERR(ledger_append(r.l, run,
                             json_pack("{s:s,s:I}", "event", "a", "b", (json_int_t)1 << 54),
                             &r.err),
               ERR_INPUT, &r.err);
    EXPECT_ERR(ledger_append(r.l, run, json_pack("{s:s,s:i}", "event", "a", "seq", 1), &r.err),
               ERR_BUG, &r.err);
    EXPECT_OK(ledger_append(r.l, run, lrig_body(1), &r.err), &r.err);
    EXPECT_OK(ledger_commit(r.l, &r.err), &r.err);
    EXPECT_EQ(lrig_replay(&r, run), 2);
    big[1 << 20] = '\0'; /* a large one is fine */
    EXPECT_OK(ledger_append(r.l, run, json_pack("{s:s,s:s}", "event", "a", "b", big), &r.err),
              &r.err);
    EXPECT_OK(ledger_commit(r.l, &r.err), &r.err);
    free(big);
    lrig_free(&r);
}

TEST(rows_of_runs_and_their_order)
{
    struct lrig r;
    struct ledger_run *rows, row;
    int64_t run;
    size_t n;
    const struct digest zero = {{0}};

    lrig_new(&r);
    for (int i = 0; i < 3; i++)
        lrig_run(&r, 2, RUN_SUCCEEDED);
    EXPECT_OK(ledger_begin(r.l, "other", &zero, 41, &run, &r.err), &r.err);
    EXPECT_EQ(run, 41);
    EXPECT_OK(ledger_get_run(r.l, run, &row, &r.err), &r.err);
    row.tasks = 9;
    row.blocked = 3;
    row.events = 999; /* the ledger's own business */
    row.state = RUN_FAILED;
    row.ended_ns = 5;
    ledger_set_run(r.l, &row);
    EXPECT(ledger_dirty(r.l));
    EXPECT_OK(ledger_commit(r.l, &r.err), &r.err);
    EXPECT_OK(ledger_begin(r.l, "other", &zero, 0, &run, &r.err), &r.err);
    EXPECT_EQ(run, 42);
    EXPECT_OK(ledger_list_runs(r.l, 100, &rows, &n, &r.err), &r.err);
    EXPECT_EQ(n, 5);
    EXPECT_EQ(rows[0].run, 42);
    EXPECT_EQ(rows[1].run, 41);
    EXPECT_EQ(rows[1].events, 0);
    EXPECT_EQ(rows[1].tasks, 9);
    EXPECT_EQ(rows[1].blocked, 3);
    EXPECT_EQ(rows[1].state, RUN_FAILED);
    EXPECT_EQ(rows[4].run, 1);
    EXPECT_EQ(rows[4].state, RUN_SUCCEEDED);
    free(rows);
    EXPECT_OK(ledger_list_runs(r.l, 2, &rows, &n, &r.err), &r.err);
    EXPECT_EQ(n, 2);
    free(rows);
    lrig_free(&r);
}

static enum err_code collect(void *arg, struct str key, struct str value, struct err *err)
{
    struct buf *b = arg;

    buf_add(b, key.p, key.n < 6 ? key.n : 6);
    buf_char(b, '=');
    buf_add(b, value.p, value.n);
    buf_char(b, ' ');
    return buf_check(b, "out", err);
}

TEST(views_come_with_their_event_and_in_order)
{
    struct lrig r;
    struct buf b;
    char longest[2000];

    lrig_new(&r);
    buf_init(&b, 1 << 20);
    memset(longest, 'k', sizeof(longest));
    longest[0] = 'c';
    ledger_view_set(r.l, VIEW_TASK, "b1", 2, "one", 3);
    ledger_view_set(r.l, VIEW_TASK, "b2", 2, "two", 3);
    ledger_view_set(r.l, VIEW_TASK, "b1", 2, "three", 5);
    ledger_view_set(r.l, VIEW_TASK, "a", 1, "", 0);
    ledger_view_set(r.l, VIEW_RESULT, "b1", 2, "other", 5);
    ledger_view_set(r.l, VIEW_TASK, longest, sizeof(longest), "L", 1);
    longest[1999] = 'z';
    ledger_view_set(r.l, VIEW_TASK, longest, sizeof(longest), "M", 1);
    EXPECT_ERR(ledger_view_get(r.l, VIEW_TASK, "b1", 2, &b, &r.err), ERR_NOT_FOUND, &r.err);
    EXPECT_OK(ledger_commit(r.l, &r.err), &r.err);
    EXPECT_OK(ledger_view_get(r.l, VIEW_TASK, "b1", 2, &b, &r.err), &r.err);
    EXPECT_STR(b.p, "three");
    buf_clear(&b);
    EXPECT_OK(ledger_view_get(r.l, VIEW_TASK, longest, sizeof(longest), &b, &r.err), &r.err);
    EXPECT_STR(b.p, "M");
    buf_clear(&b);
    EXPECT_OK(ledger_view_scan(r.l, VIEW_TASK, STR("b"), collect, &b, &r.err), &r.err);
    EXPECT_STR(b.p, "b1=three b2=two ");
    buf_clear(&b);
    EXPECT_OK(ledger_view_scan(r.l, VIEW_TASK, STR(""), collect, &b, &r.err), &r.err);
    EXPECT_EQ(strncmp(b.p, "a= b1=three b2=two ckkkkk=", 26), 0);
    buf_clear(&b);
    EXPECT_OK(ledger_view_scan(r.l, VIEW_TASK, (struct str){longest, sizeof(longest)}, collect, &b,
                               &r.err),
              &r.err);
    EXPECT_STR(b.p, "ckkkkk=M ");
    buf_clear(&b);
    for (int i = 0; i < 5000; i++) { /* several batches of reading */
        char key[16];

        ledger_view_set(r.l, VIEW_RESULT, key, (size_t)snprintf(key, sizeof(key), "n%05d", i), "v",
                        1);
    }
    EXPECT_OK(ledger_commit(r.l, &r.err), &r.err);
    EXPECT_OK(ledger_view_scan(r.l, VIEW_RESULT, STR("n"), collect, &b, &r.err), &r.err);
    EXPECT_EQ(b.n, 5000 * 9);
    buf_release(&b);
    lrig_free(&r);
}

TEST(a_large_batch_takes_several_transactions)
{
    struct lrig r;
    struct ledger_run row;

    setenv("WEIR_LEDGER_BATCH", "5000", 1);
    setenv("WEIR_LEDGER_MAP", "65536", 1); /* and the map grows on the way */
    lrig_new(&r);
    const int64_t run = lrig_begin(&r, "flow");
    for (int64_t i = 0; i < 3000; i++)
        EXPECT_OK(ledger_append(r.l, run, lrig_body(i), &r.err), &r.err);
    EXPECT_OK(ledger_get_run(r.l, run, &row, &r.err), &r.err);
    row.state = RUN_SUCCEEDED;
    ledger_set_run(r.l, &row);
    EXPECT_OK(ledger_commit(r.l, &r.err), &r.err);
    EXPECT_EQ(lrig_replay(&r, run), 3000);
    EXPECT_OK(ledger_get_run(r.l, run, &row, &r.err), &r.err);
    EXPECT_EQ(row.state, RUN_SUCCEEDED);
    EXPECT_EQ(row.events, 3000);
    unsetenv("WEIR_LEDGER_BATCH");
    unsetenv("WEIR_LEDGER_MAP");
    lrig_free(&r);
}

TEST(a_full_map_loses_nothing)
{
    struct lrig r;
    int64_t appended = 0;
    enum err_code rc = OK;

    setenv("WEIR_LEDGER_MAP", "262144", 1);
    setenv("WEIR_LEDGER_MAP_MAX", "262144", 1);
    lrig_new(&r);
    const int64_t run = lrig_begin(&r, "flow");
    for (int i = 0; i < 10000 && !rc; i++) {
        EXPECT_OK(ledger_append(r.l, run, lrig_body(appended++), &r.err), &r.err);
        if (i % 50 == 49)
            rc = ledger_commit(r.l, &r.err);
    }
    EXPECT_ERR(rc, ERR_FULL, &r.err);
    EXPECT(ledger_dirty(r.l));
    EXPECT_EQ(lrig_replay(&r, run), appended - 50);
    EXPECT_ERR(ledger_commit(r.l, &r.err), ERR_FULL, &r.err);
    unsetenv("WEIR_LEDGER_MAP_MAX");
    unsetenv("WEIR_LEDGER_MAP");
    lrig_open(&r, LEDGER_WRITE);
    EXPECT_EQ(lrig_replay(&r, run), appended - 50);
    lrig_events(&r, run, appended - 50, 50);
    EXPECT_EQ(lrig_replay(&r, run), appended);
    lrig_free(&r);
}

TEST(requests_are_taken_once)
{
    struct lrig r;
    struct ledger_request q;
    bool got;

    lrig_new(&r);
    const int64_t run = lrig_begin(&r, "flow"), other = lrig_begin(&r, "flow");
    EXPECT_OK(ledger_take_request(r.l, run, &q, &got, &r.err), &r.err);
    EXPECT(!got);
    EXPECT_OK(ledger_request(r.l, other, LEDGER_ASK_CANCEL, NULL, &r.err), &r.err);
    EXPECT_OK(ledger_take_request(r.l, run, &q, &got, &r.err), &r.err);
    EXPECT(!got);
    EXPECT_OK(ledger_request(r.l, run, LEDGER_ASK_CANCEL, "sft[variant=a]", &r.err), &r.err);
    EXPECT_OK(ledger_request(r.l, run, LEDGER_ASK_CANCEL, "sft[variant=a]", &r.err), &r.err);
    EXPECT_OK(ledger_request(r.l, run, LEDGER_ASK_STOP, NULL, &r.err), &r.err);
    EXPECT_OK(ledger_take_request(r.l, run, &q, &got, &r.err), &r.err);
    EXPECT(got);
    EXPECT_EQ(q.ask, LEDGER_ASK_STOP);
    EXPECT_STR(q.task, "");
    EXPECT(q.time_ns > 0);
    EXPECT_OK(ledger_take_request(r.l, run, &q, &got, &r.err), &r.err);
    EXPECT(got);
    EXPECT_EQ(q.ask, LEDGER_ASK_CANCEL);
    EXPECT_STR(q.task, "sft[variant=a]");
    EXPECT_OK(ledger_take_request(r.l, run, &q, &got, &r.err), &r.err);
    EXPECT(!got);
    EXPECT_ERR(ledger_request(r.l, 77, LEDGER_ASK_STOP, NULL, &r.err), ERR_NOT_FOUND, &r.err);
    lrig_end(&r, run, RUN_SUCCEEDED);
    EXPECT_ERR(ledger_request(r.l, run, LEDGER_ASK_STOP, NULL, &r.err), ERR_NOT_FOUND, &r.err);
    lrig_free(&r);
}

TEST(a_run_travels_as_text)
{
    struct lrig a, b;
    struct ledger_run row, twin;
    struct buf text, again;
    int64_t events, run;

    lrig_new(&a);
    lrig_new(&b);
    buf_init(&text, 1 << 20);
    buf_init(&again, 1 << 20);
    run = lrig_run(&a, 3, RUN_SUCCEEDED);
    run = lrig_run(&a, 40, RUN_FAILED);
    EXPECT_OK(ledger_get_run(a.l, run, &row, &a.err), &a.err);
    EXPECT_OK(ledger_export(a.l, run, &text, &a.err), &a.err);
    setenv("WEIR_LEDGER_BATCH", "1000", 1);
    lrig_open(&b, LEDGER_WRITE);
    unsetenv("WEIR_LEDGER_BATCH");
    EXPECT_OK(ledger_import(b.l, &row, text.p, text.n, &b.err), &b.err);
    EXPECT_OK(ledger_import(b.l, &row, text.p, text.n, &b.err), &b.err);
    EXPECT_EQ(lrig_replay(&b, run), 40);
    EXPECT_OK(ledger_export(b.l, run, &again, &b.err), &b.err);
    EXPECT_STR(text.p, again.p);
    EXPECT_OK(ledger_get_run(b.l, run, &twin, &b.err), &b.err);
    EXPECT_MEM(&row, &twin, sizeof(row));
    EXPECT_OK(ledger_verify(b.l, 0, &events, &b.err), &b.err);
    EXPECT_EQ(events, 40);
    EXPECT_EQ(lrig_begin(&b, "flow"), run + 1);
    lrig_events(&b, run + 1, 0, 3);
    EXPECT_OK(ledger_verify(b.l, 0, &events, &b.err), &b.err);
    /* the other run 1 is another run */
    EXPECT_OK(ledger_get_run(a.l, 1, &row, &a.err), &a.err);
    row.run = run;
    buf_clear(&text);
    EXPECT_OK(ledger_export(a.l, 1, &text, &a.err), &a.err);
    EXPECT_ERR(ledger_import(b.l, &row, text.p, text.n, &b.err), ERR_EXISTS, &b.err);
    row.run = 1;
    row.last.b[0] ^= 1;
    EXPECT_ERR(ledger_import(b.l, &row, text.p, text.n, &b.err), ERR_DAMAGED, &b.err);
    EXPECT_ERR(ledger_import(b.l, &row, text.p, text.n - 1, &b.err), ERR_INPUT, &b.err);
    EXPECT_ERR(ledger_import(b.l, &row, "", 0, &b.err), ERR_INPUT, &b.err);
    for (size_t i = 0; i < text.n; i++) { /* every byte is protected */
        text.p[i] ^= 1;
        row.last = (struct digest){{0}};
        row.last.b[0] = 1;
        const enum err_code rc = ledger_import(b.l, &row, text.p, text.n, &b.err);
        text.p[i] ^= 1;
        EXPECT(rc == ERR_DAMAGED || rc == ERR_INPUT);
    }
    EXPECT_ERR(ledger_get_run(b.l, 1, &twin, &b.err), ERR_NOT_FOUND, &b.err);
    buf_release(&text);
    buf_release(&again);
    lrig_free(&a);
    lrig_free(&b);
}

TEST(removed_runs_are_gone_and_the_rest_verifies)
{
    struct lrig r;
    struct ledger_run row;
    int64_t events;

    lrig_new(&r);
    for (int i = 0; i < 4; i++)
        lrig_run(&r, 5, RUN_SUCCEEDED);
    const int64_t running = lrig_begin(&r, "flow");
    EXPECT_ERR(ledger_remove_run(r.l, running, &r.err), ERR_AGAIN, &r.err);
    EXPECT_OK(ledger_remove_run(r.l, 2, &r.err), &r.err);
    EXPECT_OK(ledger_remove_run(r.l, 4, &r.err), &r.err); /* the head */
    EXPECT_OK(ledger_remove_run(r.l, 1, &r.err), &r.err);
    EXPECT_ERR(ledger_remove_run(r.l, 1, &r.err), ERR_NOT_FOUND, &r.err);
    EXPECT_ERR(ledger_replay(r.l, 2, 0, lrig_count, &events, &r.err), ERR_NOT_FOUND, &r.err);
    lrig_events(&r, running, 0, 3);
    EXPECT_OK(ledger_verify(r.l, 0, &events, &r.err), &r.err);
    EXPECT_EQ(events, 8);
    EXPECT_ERR(ledger_get_run(r.l, 4, &row, &r.err), ERR_NOT_FOUND, &r.err);
    EXPECT_EQ(lrig_begin(&r, "flow"), 6); /* numbers are not used again */
    lrig_free(&r);
}

/* Rows written behind the ledger's back, with good checksums. */
struct forgery {
    int64_t run, seq;
    const char *from, *to;
};

static enum err_code forge(struct txn *t, void *arg, struct err *err)
{
    const struct forgery *g = arg;
    struct str text;
    uint8_t key[EVENT_KEY];
    char copy[4096], *at;
    enum err_code rc = event_get(t, g->run, g->seq, &text, err);

    if (rc)
        return rc;
    EXPECT(text.n < sizeof(copy));
    memcpy(copy, text.p, text.n);
    copy[text.n] = '\0';
    at = strstr(copy, g->from);
    EXPECT(at);
    memcpy(at, g->to, strlen(g->to));
    event_key(g->run, g->seq, key);
    return env_put(t, T_EVENT, env_bytes(key, sizeof(key)), env_bytes(copy, strlen(copy)), err);
}

TEST(tampering_is_found_and_named)
{
    struct lrig r;
    struct forgery g = {2, 3, "\"done\"", "\"gone\""};
    int64_t events, count = 0;

    lrig_new(&r);
    lrig_run(&r, 5, RUN_SUCCEEDED);
    lrig_run(&r, 5, RUN_SUCCEEDED);
    EXPECT_OK(ledger_verify(r.l, 0, &events, &r.err), &r.err);
    EXPECT_EQ(events, 10);
    EXPECT_OK(env_write(r.l->env, forge, &g, &r.err), &r.err);
    EXPECT_OK(ledger_verify(r.l, 1, &events, &r.err), &r.err);
    EXPECT_ERR(ledger_verify(r.l, 0, &events, &r.err), ERR_DAMAGED, &r.err);
    EXPECT(strstr(r.err.text, "run-2, event 4"));
    EXPECT_ERR(ledger_replay(r.l, 2, 0, lrig_count, &count, &r.err), ERR_DAMAGED, &r.err);
    EXPECT_EQ(count, 4); /* those before it are still readable */
    g = (struct forgery){2, 3, "\"gone\"", "\"done\""};
    EXPECT_OK(env_write(r.l->env, forge, &g, &r.err), &r.err);
    EXPECT_OK(ledger_verify(r.l, 0, &events, &r.err), &r.err);
    g = (struct forgery){2, 4, "\"done\"", "\"gone\""}; /* the last one: nothing follows it */
    EXPECT_OK(env_write(r.l->env, forge, &g, &r.err), &r.err);
    EXPECT_ERR(ledger_verify(r.l, 0, &events, &r.err), ERR_DAMAGED, &r.err);
    EXPECT(strstr(r.err.text, "run-2, event 4"));
    lrig_free(&r);
}

/* A whole run replaced by a consistent one: what begins after it names an event that is no more. */
TEST(a_replaced_run_is_found)
{
    struct lrig r;
    int64_t events;
    struct forgery g = {1, 0, "\"done\"", "\"gone\""};
    struct run_row row;
    struct txn t;
    struct str text;
    bool found;

    lrig_new(&r);
    lrig_run(&r, 1, RUN_SUCCEEDED);
    lrig_run(&r, 1, RUN_SUCCEEDED);
    EXPECT_OK(env_write(r.l->env, forge, &g, &r.err), &r.err);
    EXPECT_OK(env_read(r.l->env, &t, &r.err), &r.err);
    EXPECT_OK(run_row_get(&t, 1, &row, &found, &r.err), &r.err);
    EXPECT_OK(event_get(&t, 1, 0, &text, &r.err), &r.err);
    sha256_of(text.p, text.n, &row.run.last);
    env_done(&t);
    MDB_txn *txn;
    struct txn w = {.env = r.l->env};
    EXPECT_EQ(mdb_txn_begin(r.l->env->mdb, NULL, 0, &txn), 0);
    w.mdb = txn;
    EXPECT_OK(run_row_put(&w, &row, &r.err), &r.err);
    EXPECT_EQ(mdb_txn_commit(txn), 0);
    EXPECT_OK(ledger_verify(r.l, 1, &events, &r.err), &r.err);
    EXPECT_ERR(ledger_verify(r.l, 0, &events, &r.err), ERR_DAMAGED, &r.err);
    EXPECT(strstr(r.err.text, "run-2, event 0"));
    lrig_free(&r);
}

TEST(two_processes_on_one_run_are_refused)
{
    struct lrig r;
    int ready[2];
    char byte;

    lrig_new(&r);
    const int64_t run = lrig_begin(&r, "flow");
    lrig_events(&r, run, 0, 3);
    EXPECT_EQ(pipe(ready), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        struct ledger *l;
        struct err err = ERR_INIT;

        if (ledger_open(r.dir, LEDGER_WRITE, &l, &err) ||
            ledger_append(l, run, lrig_body(3), &err) || ledger_commit(l, &err))
            _exit(1);
        ledger_close(l);
        _exit(0);
    }
    EXPECT_EQ(lrig_wait(pid), 0);
    (void)byte;
    close(ready[0]);
    close(ready[1]);
    EXPECT_OK(ledger_append(r.l, run, lrig_body(3), &r.err), &r.err);
    EXPECT_ERR(ledger_commit(r.l, &r.err), ERR_CHANGED, &r.err);
    EXPECT_EQ(lrig_replay(&r, run), 4);
    lrig_free(&r);
}

TEST(runs_of_several_processes_have_numbers_of_their_own)
{
    struct lrig r;
    pid_t pids[4];
    struct ledger_run *rows;
    int64_t events;
    size_t n;

    lrig_new(&r);
    ledger_close(r.l);
    r.l = NULL;
    for (int i = 0; i < 4; i++) {
        pids[i] = fork();
        if (pids[i] > 0)
            continue;
        lrig_open(&r, LEDGER_WRITE);
        for (int k = 0; k < 10; k++)
            lrig_run(&r, 7, RUN_SUCCEEDED);
        ledger_close(r.l);
        _exit(0);
    }
    for (int i = 0; i < 4; i++)
        EXPECT_EQ(lrig_wait(pids[i]), 0);
    lrig_open(&r, LEDGER_READ);
    EXPECT_OK(ledger_list_runs(r.l, 1000, &rows, &n, &r.err), &r.err);
    EXPECT_EQ(n, 40);
    for (size_t i = 0; i < n; i++) {
        EXPECT_EQ(rows[i].run, 40 - (int64_t)i);
        EXPECT_EQ(rows[i].events, 7);
        EXPECT_EQ(lrig_replay(&r, rows[i].run), 7);
    }
    free(rows);
    EXPECT_OK(ledger_verify(r.l, 0, &events, &r.err), &r.err);
    EXPECT_EQ(events, 280);
    lrig_free(&r);
}

#define CONCURRENT 10000
/* In a child: replays until all events are there; what it sees only grows. */
static void follow(struct lrig *r)
{
    int64_t seen = 0, rounds = 0;

    lrig_open(r, LEDGER_READ);
    while (seen < CONCURRENT) {
        const int64_t now = lrig_replay(r, 1);

        if (now < seen)
            _exit(3);
        seen = now;
        rounds++;
    }
    ledger_close(r->l);
    _exit(rounds > 1 ? 0 : 4);
}

TEST(readers_follow_while_one_writes)
{
    struct lrig r;
    MDB_envinfo info;

    setenv("WEIR_LEDGER_MAP", "65536", 1);
    lrig_new(&r);
    EXPECT_EQ(lrig_begin(&r, "flow"), 1);
    ledger_close(r.l);
    r.l = NULL;
    const pid_t pid = fork();
    if (pid == 0)
        follow(&r);
    lrig_open(&r, LEDGER_WRITE);
    for (int64_t i = 0; i < CONCURRENT; i += 100)
        lrig_events(&r, 1, i, 100);
    EXPECT_EQ(lrig_wait(pid), 0);
    unsetenv("WEIR_LEDGER_MAP");
    /* Readers keep no old pages alive: the file is about as large as its content. */
    EXPECT_EQ(mdb_env_info(r.l->env->mdb, &info), 0);
    EXPECT(info.me_last_pgno * 4096 < (size_t)CONCURRENT * 500 * 3);
    lrig_free(&r);
}

/* In a child, since LMDB may not survive it: every answer about a damaged file is right or an error. */
static void judge(struct lrig *r, int64_t runs, int64_t events)
{
    struct ledger *l = NULL;
    struct err err = ERR_INIT;
    struct ledger_run row;

    if (ledger_open(r->dir, LEDGER_READ, &l, &err))
        _exit(1);
    for (int64_t run = 1; run <= runs; run++) {
        int64_t count = 0;
        enum err_code rc = ledger_replay(l, run, 0, lrig_count, &count, &err);

        if (rc == ERR_BUG)
            _exit(9); /* a wrong event */
        if (rc == OK && (ledger_get_run(l, run, &row, &err) || row.events != count))
            _exit(1);
        if (rc == OK && count != events) /* a whole older version would be a wrong answer */
            _exit(9);
        if (rc != OK)
            _exit(1);
    }
    ledger_close(l);
    _exit(0);
}

TEST(a_flipped_byte_never_gives_a_wrong_event)
{
    struct lrig r;
    char path[TMPDIR_MAX + 32];
    int64_t found = 0, harmless = 0, stopped = 0;
    struct stat st;

    lrig_new(&r);
    for (int i = 0; i < 2; i++)
        lrig_run(&r, 12, RUN_SUCCEEDED);
    ledger_close(r.l);
    r.l = NULL;
    snprintf(path, sizeof(path), "%s/ledger/data.mdb", r.dir);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    EXPECT(fd >= 0);
    EXPECT_EQ(fstat(fd, &st), 0);
    /* Every 29th byte, another one of each page: a child for each. */
    for (off_t at = 2 * 4096; at < st.st_size; at += 29) {
        uint8_t was, now;

        EXPECT_EQ(pread(fd, &was, 1, at), 1);
        now = was ^ (uint8_t)(1 << at % 8);
        EXPECT_EQ(pwrite(fd, &now, 1, at), 1);
        const pid_t pid = fork();
        if (pid == 0) {
            for (int sig = 1; sig < 32; sig++) /* the test library catches some */
                (void)signal(sig, SIG_DFL);
            judge(&r, 2, 12);
        }
        const int status = lrig_wait(pid);
        EXPECT(status != 9);
        found += status == 1;
        harmless += status == 0;
        stopped += status > 1;
        EXPECT_EQ(pwrite(fd, &was, 1, at), 1);
    }
    printf("flips: %lld found, %lld harmless, %lld stopped the process\n", (long long)found,
           (long long)harmless, (long long)stopped);
    EXPECT(found > 0);
    EXPECT(harmless > 0);
    close(fd);
    lrig_open(&r, LEDGER_READ);
    EXPECT_EQ(lrig_replay(&r, 2), 12);
    lrig_free(&r);
}

static enum err_code newer(struct txn *t, void *arg, struct err *err)
{
    uint8_t v[8];

    (void)arg;
    env_i64(v, LEDGER_FORMAT + 1);
    return env_put(t, T_META, STR("format"), env_bytes(v, 8), err);
}

TEST(what_is_not_there_or_newer_is_refused)
{
    struct lrig r;
    struct ledger *l;
    char dir[TMPDIR_MAX];

    tmpdir_new(dir);
    lrig_new(&r);
    EXPECT_ERR(ledger_open(dir, LEDGER_READ, &l, &r.err), ERR_NOT_FOUND, &r.err);
    EXPECT_OK(env_write(r.l->env, newer, NULL, &r.err), &r.err);
    ledger_close(r.l);
    r.l = NULL;
    EXPECT_ERR(ledger_open(r.dir, LEDGER_WRITE, &l, &r.err), ERR_VERSION, &r.err);
    EXPECT_ERR(ledger_open(r.dir, LEDGER_READ, &l, &r.err), ERR_VERSION, &r.err);
    lrig_free(&r);
    tmpdir_free(dir);
}

RUN(what_was_committed_is_there_and_nothing_else, an_event_is_canonical_and_names_the_one_before,
    a_refused_event_leaves_no_trace, rows_of_runs_and_their_order,
    views_come_with_their_event_and_in_order, a_large_batch_takes_several_transactions,
    a_full_map_loses_nothing, requests_are_taken_once, a_run_travels_as_text,
    removed_runs_are_gone_and_the_rest_verifies, tampering_is_found_and_named,
    a_replaced_run_is_found, two_processes_on_one_run_are_refused,
    runs_of_several_processes_have_numbers_of_their_own, readers_follow_while_one_writes,
    a_flipped_byte_never_gives_a_wrong_event, what_is_not_there_or_newer_is_refused)
