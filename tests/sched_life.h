/* sched_life.h - a run of a made-up pipeline (sched_rig.h) as the real run loop makes it: records first, then effects, in virtual time.
 *
 * Every change of state comes from a record through sched_event_of, so what a replay makes of the records is what happened.  The records
 * are kept by the caller's `keep`; when it says false the process is dead at that instant: nothing more is done, posted or closed in order.
 *
 * Life:     life_begin (replays, adopts) -> life_run -> life_end, as often as the run is gone on with; the rig's world goes on meanwhile.
 * Owns:     scheduler and executor.
 * Threads:  one.
 * Errors:   every failure ends the test.
 */
/* long: one loop, read from top to bottom */
#ifndef WEIR_TESTS_SCHED_LIFE_H
#define WEIR_TESTS_SCHED_LIFE_H

#include <time.h>

#include "base/json.h"
#include "orchestrator/sched_replay.h"
#include "tests/sched_rig.h"

struct life;
struct life_hooks {
    bool (*keep)(void *arg, const json_t *body); /* false: killed now */
    void (*replay)(void *arg, struct life *l);   /* life_fold of every record */
    void (*effect)(void *arg, struct life *l, struct sched_effect e);      /* may be NULL */
    void (*event)(void *arg, struct life *l, const struct sched_event *e); /* was posted; NULL */
    void *arg;
};
struct life {
    struct rig *r;
    struct life_hooks hooks;
    struct sched *s;
    struct executor *exec;
    bool dead, finished, began;
    int64_t stop_at_ms; /* -1: never */
    int64_t steps;
};

static inline int64_t life_now(const struct life *l)
{
    return fake_now_ms(l->r->world);
}

static inline int life_find(void *arg, const char *name)
{
    const struct rig *r = arg;
    int task = -1;

    return sscanf(name, "t%d", &task) == 1 && (size_t)task < r->n ? task : -1;
}

static inline void life_post(struct life *l, const struct sched_event *e)
{
    const char *why;

    sched_post(l->s, e);
    if (!sched_check(l->s, &why))
        fail_msg("%s, after event %d of task %d", why, (int)e->kind, e->task);
    if (l->hooks.event)
        l->hooks.event(l->hooks.arg, l, e);
}

static inline void life_fold(struct life *l, const json_t *body)
{
    struct sched_event e;

    l->began = true;
    if (sched_event_of(body, life_find, l->r, &e))
        life_post(l, &e);
}

/* Takes body.  It is kept before anything follows from it. */
static inline bool life_record(struct life *l, json_t *body)
{
    char text[32], full[64];
    const time_t seconds = (time_t)(life_now(l) / 1000);
    struct tm tm;

    EXPECT(gmtime_r(&seconds, &tm));
    EXPECT(strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm));
    snprintf(full, sizeof(full), "%s.%03dZ", text, (int)(life_now(l) % 1000));
    EXPECT(body && json_object_set_new(body, "time", json_string(full)) == 0);
    if (!l->dead && !l->hooks.keep(l->hooks.arg, body))
        l->dead = true;
    if (!l->dead)
        life_fold(l, body);
    json_decref(body);
    return !l->dead;
}

static inline json_t *life_body(const char *event, int task)
{
    char name[16];

    snprintf(name, sizeof(name), "t%d", task);
    return json_pack("{s:s,s:s}", "event", event, "task", name);
}

static inline bool life_ended(struct life *l, int task, int attempt, const struct result_card *c)
{
    const bool final =
        c->status == ATTEMPT_FAILED && (c->exit_status == 64 || c->exit_status == 65);
    json_t *body = life_body("task.end", task);

    EXPECT(json_object_update_new(body, json_pack("{s:i,s:s,s:i,s:b,s:I,s:I}", "attempt", attempt,
                                                  "status", attempt_status_words[c->status], "exit",
                                                  c->exit_status, "final", (int) final, "wall_ms",
                                                  (json_int_t)c->wall_ms, "step",
                                                  (json_int_t)c->step)) == 0);
    return life_record(l, body);
}

/* ---- effects ----------------------------------------------------------------------------------- */

static inline uint64_t life_id(int task, int attempt)
{
    return (uint64_t)task * 1000 + (uint64_t)attempt;
}

static inline void life_key(struct life *l, int task)
{
    const struct rig_task *t = &l->r->about[task];
    struct sched_event e = {.kind = EV_MISS, .task = task, .now_ms = life_now(l)};

    if (rig_has_result(l->r, task)) {
        (void)life_record(l, life_body("task.cached", task));
    } else if (t->answer == RIG_REFUSED) {
        (void)life_record(l, life_body("task.refused", task));
    } else {
        if (t->answer == RIG_SHARED)
            e.kind = EV_SHARED;
        life_post(l, &e);
    }
}

static inline void life_start(struct life *l, int task, int attempt)
{
    const struct result_card lost = {.status = ATTEMPT_LOST, .step = -1};
    json_t *body = life_body("task.start", task);
    struct err err = ERR_INIT;
    char dir[32];
    enum err_code rc;

    EXPECT(json_object_set_new(body, "attempt", json_integer(attempt)) == 0);
    if (!life_record(l, body))
        return;
    rig_dir(task, attempt, dir);
    rc = l->exec->ops->start(l->exec, life_id(task, attempt), dir, &err);
    if (rc)
        EXPECT_ERR(rc, ERR_FULL, &err);
    if (rc)
        (void)life_ended(l, task, attempt, &lost);
}

/* Other runs are asked now and then. */
static inline void life_recheck(struct life *l)
{
    for (size_t i = 0; i < l->r->n && !l->dead; i++) {
        const struct sched_event e = {.kind = EV_RECHECK, .task = (int)i, .now_ms = life_now(l)};

        if (sched_state_of(l->s, (int)i) == SCHED_SHARED &&
            l->r->about[i].shared_until_ms <= life_now(l))
            life_post(l, &e);
    }
}

static inline void life_wait(struct life *l, int64_t until_ms)
{
    const int64_t now = life_now(l);
    int64_t most = until_ms < 0 || until_ms - now > 100 ? 100 : until_ms - now;
    struct executor_event e;
    struct err err = ERR_INIT;
    bool got;

    EXPECT(most > 0); /* else nothing would ever change */
    if (l->stop_at_ms >= now && l->stop_at_ms - now < most)
        most = l->stop_at_ms - now;
    EXPECT_OK(l->exec->ops->poll(l->exec, most, -1, &e, &got, &err), &err);
    if (got && e.kind != EXEC_STARTED) {
        const struct result_card lost = {.status = ATTEMPT_LOST, .step = -1};

        (void)life_ended(l, (int)(e.id / 1000), (int)(e.id % 1000),
                         e.kind == EXEC_LOST ? &lost : &e.card);
    }
    life_recheck(l);
}

static inline void life_perform(struct life *l, struct sched_effect e)
{
    switch (e.kind) {
    case DO_KEY:
        life_key(l, e.task);
        break;
    case DO_START:
        life_start(l, e.task, e.attempt);
        break;
    case DO_STOP:
        l->exec->ops->stop(l->exec, life_id(e.task, e.attempt), false);
        break;
    case DO_WAIT:
        life_wait(l, e.until_ms);
        break;
    case DO_FINISH:
        l->finished = life_record(l, json_pack("{s:s}", "event", "run.end"));
        break;
    }
}

/* ---- the loop ---------------------------------------------------------------------------------- */

static inline void life_begin(struct life *l, struct rig *r, const struct life_hooks *hooks)
{
    struct err err = ERR_INIT;
    char dir[32];

    *l = (struct life){.r = r, .hooks = *hooks, .stop_at_ms = -1};
    l->s = sched_new(r->tasks, r->n, &r->o);
    l->exec = fake_executor(r->world);
    if (l->hooks.replay)
        l->hooks.replay(l->hooks.arg, l);
    (void)life_record(l, json_pack("{s:s}", "event", l->began ? "run.resume" : "run.begin"));
    for (size_t i = 0; i < r->n && !l->dead; i++) {
        const int attempt = sched_attempts_of(l->s, (int)i);

        if (sched_state_of(l->s, (int)i) != SCHED_RUNNING)
            continue;
        rig_dir((int)i, attempt, dir);
        EXPECT_OK(l->exec->ops->adopt(l->exec, life_id((int)i, attempt), dir, &err), &err);
    }
}

static inline void life_run(struct life *l)
{
    while (!l->dead && !l->finished) {
        struct sched_effect e;

        EXPECT(l->steps++ < 1000000); /* a loop that comes to no end */
        if (l->stop_at_ms >= 0 && life_now(l) >= l->stop_at_ms) {
            l->stop_at_ms = -1;
            (void)life_record(l, json_pack("{s:s}", "event", "run.stop"));
            continue;
        }
        e = sched_next(l->s, life_now(l));
        if (l->hooks.effect)
            l->hooks.effect(l->hooks.arg, l, e);
        life_perform(l, e);
    }
}

static inline void life_end(struct life *l)
{
    l->exec->ops->close(l->exec);
    sched_free(l->s);
}

#endif
