#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

#include "base/os.h"
#include "base/pool.h"
#include "tests/check.h"

struct count {
    atomic_int ran, cancelled;
};

static enum err_code count_job(void *arg, bool cancelled, struct err *err)
{
    struct count *c = arg;

    (void)err;
    atomic_fetch_add(cancelled ? &c->cancelled : &c->ran, 1);
    return OK;
}

static enum err_code fail_job(void *arg, bool cancelled, struct err *err)
{
    (void)cancelled;
    return err_set(err, ERR_INPUT, "job %s", (const char *)arg);
}

TEST(every_job_runs_once)
{
    static const struct {
        int threads, queue, jobs;
    } cases[] = {{1, 1, 0}, {1, 1, 100}, {4, 1, 1000}, {2, 64, 1000}, {8, 3, 5000}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = ERR_INIT;
        struct count c = {0};
        struct pool *p;

        EXPECT_OK(pool_new(cases[i].threads, cases[i].queue, &p, &err), &err);
        for (int round = 1; round <= 3; round++) { /* a pool goes on after a wait */
            for (int job = 0; job < cases[i].jobs; job++)
                pool_submit(p, count_job, &c);
            EXPECT_OK(pool_wait(p, &err), &err);
            EXPECT_EQ(c.ran, round * cases[i].jobs);
        }
        EXPECT_OK(pool_wait(p, &err), &err);
        EXPECT_EQ(c.cancelled, 0);
        pool_free(p);
    }
}

TEST(free_waits_for_what_is_queued)
{
    struct err err = ERR_INIT;
    struct count c = {0};
    struct pool *p;

    EXPECT_OK(pool_new(2, 200, &p, &err), &err);
    for (int job = 0; job < 200; job++)
        pool_submit(p, count_job, &c);
    pool_free(p);
    EXPECT_EQ(c.ran, 200);
    pool_free(NULL);
}

TEST(after_an_error_jobs_are_cancelled_until_the_wait)
{
    struct err err = ERR_INIT;
    struct count c = {0};
    char first[] = "1", last[] = "50";
    struct pool *p;

    EXPECT_OK(pool_new(1, 100, &p, &err), &err);
    pool_submit(p, count_job, &c);
    pool_submit(p, fail_job, first);
    for (int job = 2; job < 50; job++)
        pool_submit(p, count_job, &c);
    pool_submit(p, fail_job, last); /* cancelled, so what it says does not count */
    EXPECT_ERR(pool_wait(p, &err), ERR_INPUT, &err);
    EXPECT_STR(err.text, "job 1");
    EXPECT_EQ(c.ran, 1);
    EXPECT_EQ(c.cancelled, 48);

    pool_submit(p, count_job, &c);
    EXPECT_OK(pool_wait(p, &err), &err);
    EXPECT_EQ(c.ran, 2);
    pool_free(p);
}

/* The first of two jobs fails only after the second one has. */
struct race {
    atomic_bool second_failed;
    struct pool *pool;
};

static enum err_code first_job(void *arg, bool cancelled, struct err *err)
{
    struct race *r = arg;

    EXPECT(!cancelled);
    while (!atomic_load(&r->second_failed))
        sched_yield();
    return err_set(err, ERR_IO, "first");
}

static enum err_code second_job(void *arg, bool cancelled, struct err *err)
{
    struct race *r = arg;

    EXPECT(!cancelled);
    atomic_store(&r->second_failed, true);
    return err_set(err, ERR_LIMIT, "second");
}

TEST(the_lowest_submission_wins_whichever_fails_first)
{
    for (int round = 0; round < 200; round++) {
        struct err err = ERR_INIT;
        struct race r = {0};

        EXPECT_OK(pool_new(2, 2, &r.pool, &err), &err);
        pool_submit(r.pool, first_job, &r);
        pool_submit(r.pool, second_job, &r);
        EXPECT_ERR(pool_wait(r.pool, &err), ERR_IO, &err);
        EXPECT_STR(err.text, "first");
        pool_free(r.pool);
    }
}

/* Both jobs must be running at once, or neither comes back. */
static enum err_code meet_job(void *arg, bool cancelled, struct err *err)
{
    atomic_int *here = arg;

    (void)cancelled;
    (void)err;
    atomic_fetch_add(here, 1);
    while (atomic_load(here) < 2)
        sched_yield();
    return OK;
}

static enum err_code signals_job(void *arg, bool cancelled, struct err *err)
{
    sigset_t *blocked = arg;

    (void)cancelled;
    (void)err;
    pthread_sigmask(SIG_BLOCK, NULL, blocked);
    return OK;
}

TEST(jobs_run_side_by_side_without_signals)
{
    struct err err = ERR_INIT;
    atomic_int here = 0;
    sigset_t blocked, before, after;
    struct pool *p;

    pthread_sigmask(SIG_BLOCK, NULL, &before);
    EXPECT_OK(pool_new(2, 2, &p, &err), &err);
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    EXPECT_EQ(sigismember(&after, SIGTERM), sigismember(&before, SIGTERM));
    pool_submit(p, meet_job, &here);
    pool_submit(p, meet_job, &here);
    EXPECT_OK(pool_wait(p, &err), &err);
    pool_submit(p, signals_job, &blocked);
    EXPECT_OK(pool_wait(p, &err), &err);
    EXPECT_EQ(sigismember(&blocked, SIGTERM), 1);
    EXPECT_EQ(sigismember(&blocked, SIGINT), 1);
    EXPECT_EQ(sigismember(&blocked, SIGCHLD), 1);
    pool_free(p);
}

TEST(threads_that_cannot_start_are_an_error)
{
    bool fired = true;

    for (int64_t nth = 0; fired; nth++) {
        struct err err = ERR_INIT;
        struct pool *p;

        fault_arm(nth);
        const enum err_code rc = pool_new(3, 4, &p, &err);

        fired = fault_disarm();
        EXPECT_EQ(fired, rc != OK);
        if (fired) {
            EXPECT_ERR(rc, ERR_IO, &err);
            EXPECT(p == NULL);
        } else {
            EXPECT_EQ(nth, 3);
        }
        pool_free(p);
    }
}

RUN(every_job_runs_once, free_waits_for_what_is_queued,
    after_an_error_jobs_are_cancelled_until_the_wait,
    the_lowest_submission_wins_whichever_fails_first, jobs_run_side_by_side_without_signals,
    threads_that_cannot_start_are_an_error)
