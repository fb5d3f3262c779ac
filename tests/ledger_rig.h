/* ledger_rig.h - a ledger in a folder of its own, with runs of events that tell their own number.
 *
 * Life:     lrig_new -> lrig_open, lrig_event, ... -> lrig_free.
 * Owns:     the folder and the open ledger.
 * Threads:  one.
 * Errors:   every failure ends the test.
 */
#ifndef WEIR_TESTS_LEDGER_RIG_H
#define WEIR_TESTS_LEDGER_RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "orchestrator/ledger.h"
#include "tests/check.h"

struct lrig {
    char dir[TMPDIR_MAX];
    struct ledger *l;
    struct err err;
};

static inline void lrig_open(struct lrig *r, enum ledger_mode mode)
{
    ledger_close(r->l);
    r->l = NULL;
    EXPECT_OK(ledger_open(r->dir, mode, &r->l, &r->err), &r->err);
}

static inline void lrig_new(struct lrig *r)
{
    *r = (struct lrig){.err = ERR_INIT};
    tmpdir_new(r->dir);
    lrig_open(r, LEDGER_WRITE);
}

static inline void lrig_free(struct lrig *r)
{
    ledger_close(r->l);
    tmpdir_free(r->dir);
}

static inline json_t *lrig_body(int64_t i)
{
    char name[64];

    snprintf(name, sizeof(name), "sft[variant=v%lld]", (long long)i);
    return json_pack("{s:s, s:s, s:I, s:s, s:i, s:b}", "event", "task.end", "task", name, "attempt",
                     (json_int_t)i, "status", "done", "wall_ms", 1234, "zero", 0);
}

static inline int64_t lrig_begin(struct lrig *r, const char *pipeline)
{
    const struct digest options = {{7}};
    int64_t run = 0;

    EXPECT_OK(ledger_begin(r->l, pipeline, &options, 0, &run, &r->err), &r->err);
    return run;
}

/* n events whose attempt is their seq, committed. */
static inline void lrig_events(struct lrig *r, int64_t run, int64_t from, int64_t n)
{
    for (int64_t i = from; i < from + n; i++)
        EXPECT_OK(ledger_append(r->l, run, lrig_body(i), &r->err), &r->err);
    EXPECT_OK(ledger_commit(r->l, &r->err), &r->err);
}

static inline void lrig_end(struct lrig *r, int64_t run, enum run_state state)
{
    struct ledger_run row;

    EXPECT_OK(ledger_get_run(r->l, run, &row, &r->err), &r->err);
    row.state = state;
    row.ended_ns = os_now_ns();
    ledger_set_run(r->l, &row);
    EXPECT_OK(ledger_commit(r->l, &r->err), &r->err);
}

static inline int64_t lrig_run(struct lrig *r, int64_t events, enum run_state state)
{
    const int64_t run = lrig_begin(r, "flow");

    lrig_events(r, run, 0, events);
    lrig_end(r, run, state);
    return run;
}

/* Counts; an event that is not the one that lrig_body made is ERR_BUG. */
static inline enum err_code lrig_count(void *arg, int64_t seq, const json_t *body, struct err *err)
{
    int64_t *count = arg;

    if (json_integer_value(json_object_get(body, "attempt")) != seq ||
        json_integer_value(json_object_get(body, "seq")) != seq ||
        json_integer_value(json_object_get(body, "wall_ms")) != 1234)
        return err_set(err, ERR_BUG, "a wrong event %lld", (long long)seq);
    ++*count;
    return OK;
}

static inline int64_t lrig_replay(struct lrig *r, int64_t run)
{
    int64_t count = 0;

    EXPECT_OK(ledger_replay(r->l, run, 0, lrig_count, &count, &r->err), &r->err);
    return count;
}

/* Runs fn in a child of its own, whose exit status comes back (128 + signal when it was killed). */
static inline int lrig_wait(pid_t pid)
{
    int status = 0;

    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#endif
