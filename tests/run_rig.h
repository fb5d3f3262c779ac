/* run_rig.h - the run loop over a store, a ledger and a pipeline, with an executor that says at once what its script says.
 *
 * An attempt is what it is for weir-exec: its folder is locked while it is alive, its result is in the store before its card is written.  The
 * world of attempts outlives orchestrators.  script: one letter per attempt at a task, the last one for all that follow:
 *   d done   f exit status 1   4 exit status 64   l lost   s stopped, no checkpoint   c stopped with a newer checkpoint
 *   h it runs until it is asked to stop, and leaves a checkpoint then   i the same without one
 *
 * Life:     rig_new -> rig_run ... -> rig_free.
 * Owns:     a folder with .weir and pipe.yaml.
 * Threads:  one.
 * Errors:   every failure ends the test.
 */
/* long: a whole world of attempts, read side by side */
#ifndef WEIR_TESTS_RUN_RIG_H
#define WEIR_TESTS_RUN_RIG_H

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "cluster/executor.h"
#include "orchestrator/run.h"
#include "orchestrator/select.h"
#include "store/action.h"
#include "store/tree.h"
#include "store/writer.h"
#include "tests/check.h"

#define RIG_ATTEMPTS_MAX 4096

struct rig_script {
    const char *task, *letters;
};
struct rig_attempt {
    char dir[TMPDIR_MAX + 64], task[64];
    char letter;
    int lock; /* -1: over */
    int64_t step;
    bool asked;
};
struct rig {
    char dir[TMPDIR_MAX];
    struct store *st;
    const struct rig_script *script; /* ends with a NULL task */
    const char *salt;                /* part of what tasks make */
    struct rig_attempt attempts[RIG_ATTEMPTS_MAX];
    size_t count;
    /* what the run told */
    int events, die_at /* return an error at that event; 0: never */, interrupt_at;
    int ended, retries, waits, adopted, began;
    char last_reason[ERR_TEXT_MAX];
    struct run_report report;
    struct err err;
};
struct rig_executor {
    struct executor base;
    struct rig *g;
    struct {
        uint64_t id;
        char dir[TMPDIR_MAX + 64];
        bool heard;
    } watch[RIG_ATTEMPTS_MAX];
    size_t count;
};

/* ---- attempts ---------------------------------------------------------------------------------- */

static inline int rig_starts(const struct rig *g, const char *task)
{
    int n = 0;

    for (size_t i = 0; i < g->count; i++)
        n += strcmp(g->attempts[i].task, task) == 0;
    return n;
}

static inline struct rig_attempt *rig_attempt(struct rig *g, const char *dir)
{
    for (size_t i = g->count; i-- > 0;)
        if (strcmp(g->attempts[i].dir, dir) == 0)
            return &g->attempts[i];
    return NULL;
}

static inline char rig_letter(const struct rig *g, const char *task)
{
    for (const struct rig_script *s = g->script; s && s->task; s++)
        if (strcmp(s->task, task) == 0) {
            const size_t n = strlen(s->letters), at = (size_t)rig_starts(g, task);

            return s->letters[at < n ? at : n - 1];
        }
    return 'd';
}

static inline void rig_put(struct writer *w, struct tree *t, struct digest *out, struct err *err)
{
    struct buf text;

    buf_init(&text, TREE_BYTES_MAX);
    EXPECT_OK(tree_encode(t, &text, err), err);
    EXPECT_OK(writer_put(w, OBJ_TREE, text.p, text.n, out, err), err);
    buf_release(&text);
    tree_release(t);
}

/* {"action.json", "out": {NAME: "TASK SALT"}}, bound to the key, as attempt_collect.c leaves it. */
static inline void rig_result(struct rig *g, const struct attempt_card *c, struct digest *result)
{
    struct tree outs, top;
    struct tree_entry e = {.mode = TREE_DIR, .name = STR("out")},
                      a = {.mode = TREE_FILE, .name = STR("action.json")};
    struct buf canonical;
    struct writer *w = NULL;
    struct digest key;
    char text[128];

    tree_init(&outs);
    tree_init(&top);
    buf_init(&canonical, ACTION_BYTES_MAX);
    (void)snprintf(text, sizeof(text), "%s %s", c->task, g->salt ? g->salt : "");
    EXPECT_OK(writer_open(g->st, &w, &g->err), &g->err);
    for (size_t i = 0; c->outputs[i]; i++) {
        struct tree_entry o = {.mode = TREE_FILE, .name = str_of(c->outputs[i])};

        o.size = (int64_t)strlen(text);
        EXPECT_OK(writer_put(w, OBJ_BLOB, text, strlen(text), &o.digest, &g->err), &g->err);
        EXPECT_OK(tree_add(&outs, &o, 0, &g->err), &g->err);
    }
    rig_put(w, &outs, &e.digest, &g->err);
    EXPECT_OK(action_key(c->action, &key, &canonical, &g->err), &g->err);
    EXPECT(digest_eq(&key, &c->key));
    EXPECT_OK(writer_put(w, OBJ_BLOB, canonical.p, canonical.n, &a.digest, &g->err), &g->err);
    a.size = (int64_t)canonical.n;
    EXPECT_OK(tree_add(&top, &e, 0, &g->err), &g->err);
    EXPECT_OK(tree_add(&top, &a, 0, &g->err), &g->err);
    rig_put(w, &top, result, &g->err);
    EXPECT_OK(writer_bind(w, &key, result, &g->err), &g->err);
    writer_touch(w, OBJ_TREE, result);
    EXPECT_OK(writer_commit(w, &g->err), &g->err);
    writer_release(w);
    buf_release(&canonical);
}

/* Its program has ended. */
static inline void rig_end(struct rig *g, struct rig_attempt *a)
{
    struct result_card r = {.error = "", .step = a->step, .wall_ms = 5};
    struct attempt_card card = {0};
    const char letter = a->letter;

    EXPECT_OK(attempt_card_read(a->lock, &card, &g->err), &g->err);
    if (letter == 'd') {
        rig_result(g, &card, &r.result);
    } else if (letter == 'f' || letter == '4') {
        r.status = ATTEMPT_FAILED;
        r.exit_status = letter == '4' ? 64 : 1;
        (void)snprintf(r.reason, sizeof(r.reason), "exit status %d", r.exit_status);
    } else {
        r.status = ATTEMPT_STOPPED;
        r.exit_status = 75;
        if (letter == 'c' || letter == 'h')
            r.step = a->step = 10 * rig_starts(g, a->task);
        (void)snprintf(r.reason, sizeof(r.reason), "stopped");
    }
    if (letter != 'l')
        EXPECT_OK(result_card_write(a->lock, &r, &g->err), &g->err);
    attempt_card_release(&card);
    os_close_quiet(&a->lock);
}

/* ---- the executor ------------------------------------------------------------------------------ */

static inline enum err_code rig_ex_adopt(struct executor *e, uint64_t id, const char *dir,
                                         struct err *err)
{
    struct rig_executor *x = (struct rig_executor *)e;

    (void)err;
    EXPECT(x->count < RIG_ATTEMPTS_MAX);
    x->watch[x->count].id = id;
    (void)snprintf(x->watch[x->count].dir, sizeof(x->watch[0].dir), "%s", dir);
    x->watch[x->count++].heard = false;
    return OK;
}

static inline enum err_code rig_ex_start(struct executor *e, uint64_t id, const char *dir,
                                         struct err *err)
{
    struct rig *g = ((struct rig_executor *)e)->g;
    struct rig_attempt *a = &g->attempts[g->count];
    struct attempt_card card = {0};

    EXPECT(g->count < RIG_ATTEMPTS_MAX);
    (void)snprintf(a->dir, sizeof(a->dir), "%s", dir);
    EXPECT_OK(os_open_dir(AT_FDCWD, dir, &a->lock, err), err);
    EXPECT_EQ(flock(a->lock, LOCK_EX | LOCK_NB), 0);
    EXPECT_OK(attempt_card_read(a->lock, &card, err), err);
    (void)snprintf(a->task, sizeof(a->task), "%s", card.task);
    a->letter = rig_letter(g, card.task);
    a->step = card.resume.kind ? card.resume_step : -1;
    a->asked = false;
    g->count++;
    attempt_card_release(&card);
    return rig_ex_adopt(e, id, dir, err);
}

static inline void rig_ex_stop(struct executor *e, uint64_t id, bool kill)
{
    struct rig_executor *x = (struct rig_executor *)e;

    (void)kill;
    for (size_t i = 0; i < x->count; i++) {
        struct rig_attempt *a = rig_attempt(x->g, x->watch[i].dir);

        if (x->watch[i].id == id && a && a->lock >= 0) {
            a->asked = true;
            if (a->letter != 'h')
                a->letter = 'i';
        }
    }
}

static inline enum err_code rig_ex_poll(struct executor *e, int64_t timeout_ms, int wake,
                                        struct executor_event *out, bool *got, struct err *err)
{
    struct rig_executor *x = (struct rig_executor *)e;
    const struct timespec moment = {.tv_nsec = timeout_ms > 0 ? 1000000 : 0};

    (void)wake;
    *got = false;
    for (size_t i = 0; i < x->count; i++) {
        struct rig_attempt *a = rig_attempt(x->g, x->watch[i].dir);
        int dir = -1;

        if (x->watch[i].heard || (a && a->lock >= 0 && strchr("hi", a->letter) && !a->asked))
            continue;
        if (a && a->lock >= 0)
            rig_end(x->g, a);
        x->watch[i].heard = *got = true;
        *out = (struct executor_event){.kind = EXEC_LOST, .id = x->watch[i].id, .reason = "gone"};
        if (os_open_dir(AT_FDCWD, x->watch[i].dir, &dir, err) == OK &&
            result_card_read(dir, &out->card, err) == OK)
            out->kind = EXEC_ENDED;
        os_close_quiet(&dir);
        *err = (struct err)ERR_INIT;
        return OK;
    }
    for (size_t i = 0; i < x->g->count; i++) { /* what nobody listens to ends all the same */
        struct rig_attempt *a = &x->g->attempts[i];
        bool watched = false;

        for (size_t k = 0; k < x->count; k++)
            watched = watched || strcmp(x->watch[k].dir, a->dir) == 0;
        if (!watched && a->lock >= 0 && !strchr("hi", a->letter))
            rig_end(x->g, a);
    }
    (void)nanosleep(&moment, NULL);
    return OK;
}

static inline void rig_ex_close(struct executor *e)
{
    free(e);
}

static inline struct executor *rig_executor(struct rig *g)
{
    static const struct executor_ops ops = {.name = "rig",
                                            .start = rig_ex_start,
                                            .adopt = rig_ex_adopt,
                                            .stop = rig_ex_stop,
                                            .poll = rig_ex_poll,
                                            .close = rig_ex_close};
    struct rig_executor *x = mem_zero(1, sizeof(*x));

    x->base.ops = &ops;
    x->g = g;
    return &x->base;
}

/* ---- runs -------------------------------------------------------------------------------------- */

static inline void rig_write(const struct rig *g, const char *name, const char *text)
{
    char path[TMPDIR_MAX + 64];
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s/%s", g->dir, name);
    f = fopen(path, "w");
    EXPECT(f != NULL);
    EXPECT(fputs(text, f) >= 0);
    EXPECT_EQ(fclose(f), 0);
}

static inline struct rig *rig_new(const char *pipeline)
{
    struct rig *g = mem_zero(1, sizeof(*g));

    tmpdir_new(g->dir);
    EXPECT_OK(store_init(g->dir, NULL, &g->err), &g->err);
    rig_write(g, ".weir/config.yaml", "slots: {cpus: 4, memory: 8GiB, gpus: 0}\n");
    EXPECT_OK(store_open(g->dir, STORE_WRITE, &g->st, &g->err), &g->err);
    rig_write(g, "pipe.yaml", pipeline);
    return g;
}

static inline void rig_free(struct rig *g)
{
    for (size_t i = 0; i < g->count; i++)
        os_close_quiet(&g->attempts[i].lock);
    store_close(g->st);
    tmpdir_free(g->dir);
    free(g);
}

static inline enum err_code rig_told(void *arg, const struct run_event *e, struct err *err)
{
    struct rig *g = arg;

    g->ended += e->kind == RUN_ENDED;
    g->retries += e->kind == RUN_RETRY;
    g->waits += e->kind == RUN_WAITS;
    g->adopted += e->kind == RUN_ADOPTED;
    g->began += e->kind == RUN_STARTED;
    if (e->kind == RUN_ENDED && e->state == SCHED_FAILED)
        (void)snprintf(g->last_reason, sizeof(g->last_reason), "%s", e->reason ? e->reason : "");
    if (++g->events == g->interrupt_at)
        (void)raise(SIGINT);
    return g->events == g->die_at ? err_set(err, ERR_IO, "the view is gone") : OK;
}

struct rig_said { /* of one command */
    const char *const *only, *const *force;
    bool keep_going;
    int64_t jobs;
};
static inline enum err_code rig_run(struct rig *g, const struct rig_said *said)
{
    static const struct rig_said nothing = {0};
    struct run_options o = {.on_event = rig_told, .arg = g, .executor = rig_executor(g)};
    struct selection s = {0};
    struct pipeline *p = NULL;
    char path[TMPDIR_MAX + 64];
    enum err_code rc;

    said = said ? said : &nothing;
    g->events = g->ended = g->retries = g->waits = g->adopted = g->began = 0;
    g->last_reason[0] = '\0';
    g->err = (struct err)ERR_INIT;
    (void)snprintf(path, sizeof(path), "%s/pipe.yaml", g->dir);
    EXPECT_OK(pipeline_load(path, NULL, &p, NULL, &g->err), &g->err);
    EXPECT_OK(select_tasks(p, &(struct select_options){.only = said->only, .force = said->force},
                           &s, &g->err),
              &g->err);
    o.wanted = s.wanted;
    o.forced = s.forced;
    o.keep_going = said->keep_going;
    o.jobs = said->jobs;
    rc = run_pipeline(g->st, p, &o, &g->report, &g->err);
    if (rc == OK || rc == ERR_TASK) { /* told of each task once */
        int64_t sum = 0;

        for (int i = 0; i < SCHED_STATE_COUNT; i++)
            sum += g->report.counts[i];
        EXPECT_EQ(sum, p->task_count);
        EXPECT_EQ(g->ended, p->task_count);
        for (int i = 0; i < SCHED_CACHED; i++)
            EXPECT_EQ(g->report.counts[i], 0);
    }
    select_release(&s);
    pipeline_free(p);
    return rc;
}

/* No attempt runs, and no folder of one is left. */
static inline void rig_expect_clean(struct rig *g)
{
    struct os_entry *entries = NULL;
    char path[TMPDIR_MAX + 64];
    size_t n = 0;
    int fd = -1;

    for (size_t i = 0; i < g->count; i++)
        EXPECT_EQ(g->attempts[i].lock, -1);
    (void)snprintf(path, sizeof(path), "%s/.weir/tasks", g->dir);
    EXPECT_OK(os_open_dir(AT_FDCWD, path, &fd, &g->err), &g->err);
    EXPECT_OK(os_list(fd, &entries, &n, &g->err), &g->err);
    EXPECT_EQ(n, 0);
    free(entries);
    os_close_quiet(&fd);
}

#endif
