/* sched_rig.h - a made-up pipeline with a script of what happens to every attempt, and what must become of each task in the end.
 *
 * A task goes through its list of outcomes, whatever the attempts are called: one that was asked to stop has not used its outcome up, and
 * neither has one that was recorded and never begun.  So the end of each task is known without any clock (rig_model), and a run that was
 * stopped or killed must come to the same.
 *
 * Life:     rig_random or rig_fixed -> fake world, rig_lookup -> rig_free.
 * Owns:     the rig owns its world.
 * Threads:  one.
 * Errors:   every failure ends the test.
 */
/* long: a generator and its model are read side by side */
#ifndef WEIR_TESTS_SCHED_RIG_H
#define WEIR_TESTS_SCHED_RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "cluster/fake.h"
#include "orchestrator/sched.h"
#include "tests/check.h"

#define RIG_OUTCOMES 10
#define RIG_ATTEMPTS 64

enum rig_answer { RIG_MISS, RIG_HIT, RIG_REFUSED, RIG_SHARED /* until another run has done it */ };
struct rig_outcome {
    enum attempt_status end;
    int exit_status;
    int64_t step;
    bool no_card, committed; /* lost, but its result is there */
};
struct rig_task {
    enum rig_answer answer;
    int64_t shared_until_ms;
    struct rig_outcome outcomes[RIG_OUTCOMES]; /* the last one stays */
    size_t outcome_count;
    int64_t stop_ms, stop_step;
    bool late, twice;
    size_t used[RIG_ATTEMPTS]; /* outcome + 1 of each attempt that began */
    bool refuse_once;          /* its first start finds no room */
};
struct rig {
    size_t n;
    struct sched_task *tasks;
    int **needs;
    struct rig_task *about;
    struct sched_options o;
    struct fake_world *world;
    uint64_t random;
    bool done_twice; /* a task was begun again though its result was there */
};

static inline uint64_t rig_u64(struct rig *r)
{
    uint64_t z = (r->random += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline int64_t rig_below(struct rig *r, int64_t n)
{
    return (int64_t)(rig_u64(r) % (uint64_t)n);
}

static inline bool rig_chance(struct rig *r, int percent)
{
    return rig_below(r, 100) < percent;
}

/* ---- attempts ---------------------------------------------------------------------------------- */

static inline void rig_dir(int task, int attempt, char out[32])
{
    snprintf(out, 32, "t%d/%d", task, attempt);
}

/* The result of a task is there once an attempt has done its work, whoever has heard of it. */
static inline bool rig_has_result(const struct rig *r, int task)
{
    const struct rig_task *t = &r->about[task];

    if (t->answer == RIG_HIT ||
        (t->answer == RIG_SHARED && fake_now_ms(r->world) >= t->shared_until_ms))
        return true;
    for (int a = 1; a < RIG_ATTEMPTS; a++) {
        struct fake_look look;
        char dir[32];

        rig_dir(task, a, dir);
        if (t->used[a] && fake_look(r->world, dir, &look) && look.over && !look.asked &&
            (look.end == ATTEMPT_DONE || t->outcomes[t->used[a] - 1].committed))
            return true;
    }
    return false;
}

static inline void rig_script(void *arg, const char *task_dir, struct fake_script *out)
{
    struct rig *r = arg;
    int task = 0, attempt = 0;
    size_t used = 0;
    struct rig_task *t;
    const struct rig_outcome *o;

    EXPECT_EQ(sscanf(task_dir, "t%d/%d", &task, &attempt), 2);
    EXPECT(attempt >= 1 && attempt < RIG_ATTEMPTS);
    t = &r->about[task];
    r->done_twice |= rig_has_result(r, task);
    for (int a = 1; a < attempt; a++) {
        struct fake_look look;
        char dir[32];

        rig_dir(task, a, dir);
        if (t->used[a] && fake_look(r->world, dir, &look)) {
            EXPECT(look.over); /* never two at once */
            used += !look.asked;
        }
    }
    if (t->refuse_once) {
        t->refuse_once = false;
        out->refused = true;
        return;
    }
    used = used < t->outcome_count ? used : t->outcome_count - 1;
    t->used[attempt] = used + 1;
    o = &t->outcomes[used];
    *out = (struct fake_script){.start_ms = 1 + (task * 7 + attempt) % 5,
                                .run_ms = 50 + (task * 131 + attempt * 37) % 900,
                                .late_ms = t->late ? 333 : 0,
                                .end = o->end,
                                .exit_status = o->exit_status,
                                .step = o->step,
                                .stop_ms = t->stop_ms,
                                .stop_step = t->stop_step,
                                .no_card = o->no_card,
                                .twice = t->twice};
}

/* ---- the model --------------------------------------------------------------------------------- */

static inline enum sched_state rig_alone(const struct rig *r, int task)
{
    const struct rig_task *t = &r->about[task];
    const int64_t most = r->tasks[task].attempts;
    int64_t step = -1, tries = 0, lost = t->refuse_once;

    if (t->answer == RIG_HIT || t->answer == RIG_SHARED)
        return SCHED_CACHED;
    if (t->answer == RIG_REFUSED)
        return SCHED_FAILED;
    if (!r->tasks[task].selected)
        return SCHED_UNSELECTED;
    for (size_t i = 0; i < t->outcome_count; i++) {
        const struct rig_outcome *o = &t->outcomes[i];
        const bool newer = o->step > step;

        if (o->end == ATTEMPT_DONE)
            return SCHED_DONE;
        if (newer)
            step = o->step;
        lost = newer ? 0 : lost;
        if (o->end == ATTEMPT_LOST && !newer && ++lost == SCHED_LOST_MAX)
            return SCHED_FAILED;
        if (o->end == ATTEMPT_LOST && o->committed)
            return SCHED_CACHED;
        if (o->end == ATTEMPT_FAILED && (o->exit_status == 64 || o->exit_status == 65))
            return SCHED_FAILED;
        tries += o->end == ATTEMPT_FAILED || (o->end == ATTEMPT_STOPPED && !newer);
        if (tries == most)
            return SCHED_FAILED;
    }
    fail_msg("the outcomes of task %d never end", task);
    return SCHED_FAILED;
}

static inline bool rig_wanted(const struct rig *r, int task, const bool *wanted)
{
    for (size_t i = 0; i < r->n; i++)
        for (size_t k = 0; k < r->tasks[i].need_count; k++)
            if (r->tasks[i].needs[k] == task && wanted[i])
                return true;
    return r->tasks[task].selected;
}

static inline enum sched_state rig_end(const struct rig *r, int task, bool wanted,
                                       const enum sched_state *ends)
{
    const struct sched_task *t = &r->tasks[task];

    if (t->skipped)
        return SCHED_SKIPPED;
    if (!wanted)
        return SCHED_UNSELECTED;
    for (size_t k = 0; k < t->need_count; k++) {
        const enum sched_state need = ends[t->needs[k]];

        if (need != SCHED_DONE && need != SCHED_CACHED && need != SCHED_SKIPPED)
            return t->selected ? SCHED_BLOCKED : SCHED_UNSELECTED;
    }
    return rig_alone(r, task);
}

/* The state that each task ends in when the run goes on after failures; free() it.  Slow and plain: rounds until nothing changes. */
static inline enum sched_state *rig_model(const struct rig *r)
{
    enum sched_state *ends = mem_zero(r->n + 1, sizeof(*ends));
    bool *wanted = mem_zero(r->n + 1, sizeof(*wanted));

    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < r->n; i++)
            if (!wanted[i] && !r->tasks[i].skipped && rig_wanted(r, (int)i, wanted))
                more = wanted[i] = true;
    }
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < r->n; i++) {
            const enum sched_state end = rig_end(r, (int)i, wanted[i], ends);

            more |= end != ends[i];
            ends[i] = end;
        }
    }
    free(wanted);
    return ends;
}

/* ---- generators -------------------------------------------------------------------------------- */

static inline void rig_alloc(struct rig *r, size_t n, uint64_t seed)
{
    *r = (struct rig){.n = n, .random = seed};
    r->tasks = mem_zero(n + 1, sizeof(*r->tasks));
    r->needs = mem_zero(n + 1, sizeof(*r->needs));
    r->about = mem_zero(n + 1, sizeof(*r->about));
    r->world = fake_world_new(rig_script, r);
    for (size_t i = 0; i < n; i++) {
        r->tasks[i] = (struct sched_task){.cpus = 1, .attempts = 1, .selected = true};
        r->about[i] = (struct rig_task){
            .outcomes = {{.end = ATTEMPT_DONE, .step = -1}}, .outcome_count = 1, .stop_step = -1};
    }
}

static inline void rig_free(struct rig *r)
{
    fake_world_free(r->world);
    for (size_t i = 0; i < r->n; i++)
        free(r->needs[i]);
    free(r->tasks);
    free(r->needs);
    free(r->about);
}

static inline void rig_need(struct rig *r, int task, int need)
{
    struct sched_task *t = &r->tasks[task];

    r->needs[task] = mem_grow(r->needs[task], t->need_count + 1, sizeof(**r->needs));
    r->needs[task][t->need_count++] = need;
    t->needs = r->needs[task];
}

/* Before what the task ends with: another outcome. */
static inline void rig_first(struct rig *r, int task, const struct rig_outcome *o)
{
    struct rig_task *t = &r->about[task];

    EXPECT(t->outcome_count < RIG_OUTCOMES);
    memmove(t->outcomes + 1, t->outcomes, t->outcome_count * sizeof(*o));
    t->outcomes[0] = *o;
    t->outcome_count++;
}

static inline void rig_fate(struct rig *r, int task, int trouble_percent)
{
    struct rig_task *t = &r->about[task];
    bool steps = false;

    t->answer = rig_chance(r, 8) ? (enum rig_answer)(1 + rig_below(r, 3)) : RIG_MISS;
    if (!r->tasks[task].selected && rig_chance(r, 80))
        t->answer = RIG_HIT;
    t->shared_until_ms = rig_below(r, 3000);
    t->late = rig_chance(r, 10);
    t->twice = rig_chance(r, 10);
    t->refuse_once = rig_chance(r, 3);
    while (t->outcome_count < RIG_OUTCOMES && rig_chance(r, trouble_percent)) {
        struct rig_outcome o = {.end = (enum attempt_status)(ATTEMPT_FAILED + rig_below(r, 3)),
                                .step = rig_chance(r, 60) ? -1 : rig_below(r, 50)};

        if (o.end == ATTEMPT_FAILED)
            o.exit_status = rig_chance(r, 10) ? 65 : 1;
        if (o.end == ATTEMPT_LOST) {
            o.no_card = rig_chance(r, 50);
            o.committed = rig_chance(r, 10);
            o.step = o.no_card ? -1 : o.step;
        }
        steps |= o.end != ATTEMPT_FAILED || o.step >= 0;
        rig_first(r, task, &o);
    }
    t->stop_ms = rig_chance(r, 15) ? -1 : rig_below(r, 200);
    t->stop_step =
        steps || rig_chance(r, 50) ? -1 : 1000; /* else a stop would change what counts as newer */
}

static inline void rig_random(struct rig *r, uint64_t seed, size_t most, int trouble_percent)
{
    struct rig first = {.random = seed};
    const size_t n = 1 + (size_t)rig_below(&first, (int64_t)most);
    int *shuffled = mem_zero(n, sizeof(*shuffled));

    rig_alloc(r, n, seed);
    r->o = (struct sched_options){.cpus = 1 + rig_below(r, 8),
                                  .memory_bytes = rig_chance(r, 50) ? 100 : 0,
                                  .gpus = rig_below(r, 3),
                                  .jobs = rig_below(r, 5),
                                  .keep_going = true};
    for (size_t i = 0; i < n; i++) {
        const size_t at = (size_t)rig_below(r, (int64_t)i + 1);

        shuffled[i] = shuffled[at];
        shuffled[at] = (int)i;
    }
    for (size_t i = 0; i < n; i++) {
        const int task = shuffled[i];
        const int64_t count = i == 0 ? 0 : rig_below(r, rig_chance(r, 10) ? 20 : 3);
        struct sched_task *t = &r->tasks[task];

        for (int64_t k = 0; k < count; k++)
            rig_need(r, task, shuffled[rig_below(r, (int64_t)i)]);
        t->cpus = rig_below(r, 5) + (rig_chance(r, 10) ? rig_below(r, 9) : 0);
        t->memory_bytes = rig_chance(r, 40) ? rig_below(r, 130) : 0;
        t->gpus = rig_chance(r, 20);
        t->attempts = rig_below(r, 5);
        t->attempts += !t->attempts;
        t->backoff_s = rig_below(r, 3);
        t->expected_ms = rig_chance(r, 50) ? rig_below(r, 900) : 0;
        t->priority = rig_chance(r, 20) ? rig_below(r, 3) : 0;
        t->selected = rig_chance(r, 90);
        t->skipped = rig_chance(r, 4);
        rig_fate(r, task, trouble_percent);
    }
    free(shuffled);
}

/* prepare -> train[20] -> eval[20] -> merge -> report -> publish; best of all train -> card; four more in a row: 50 tasks. */
static inline void rig_fixed(struct rig *r, uint64_t seed, int trouble_percent)
{
    rig_alloc(r, 50, seed);
    r->o = (struct sched_options){.cpus = 6, .memory_bytes = 100, .gpus = 1, .keep_going = true};
    for (int i = 1; i <= 20; i++) {
        rig_need(r, i, 0);
        rig_need(r, 20 + i, i);
        rig_need(r, 41, 20 + i);
        rig_need(r, 44, i);
    }
    rig_need(r, 42, 41);
    rig_need(r, 43, 42);
    rig_need(r, 45, 44);
    for (int i = 46; i < 50; i++)
        rig_need(r, i, i == 46 ? 0 : i - 1);
    for (int i = 0; i < 50; i++) {
        r->tasks[i].cpus = 1 + i % 3;
        r->tasks[i].memory_bytes = i % 4 * 20;
        r->tasks[i].attempts = 3;
        r->tasks[i].backoff_s = i % 2;
        r->tasks[i].gpus = i % 7 == 3;
        rig_fate(r, i, i == 0 ? 0 : trouble_percent);
    }
    r->about[0].answer = RIG_MISS;
}

#endif
