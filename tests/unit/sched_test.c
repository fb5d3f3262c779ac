/* Each rule of sched.h, one little play each.  A line is one of
 *
 *   machine cpus=8 memory=100 gpus=1 jobs=2 keep_going       before the tasks; what is not said is 0: not counted
 *   task b needs=a,x cpus=2 attempts=3 unselected            as the members of struct sched_task
 *   at 5000                                                  it is that many ms now
 *   hit|miss|shared|refused|recheck TASK                     events; also: stop, cancel TASK, cancel all, resume, time
 *   started TASK ATTEMPT, ended TASK ATTEMPT done|failed|fatal|stopped|lost [step=N] [wall=MS]
 *   > key TASK, > start TASK ATTEMPT, > halt TASK ATTEMPT, > wait MS|ever, > finish     the next effect is this one
 *   defer key|start|halt TASK ATTEMPT UNTIL                  that effect was not possible
 *   run TASK ATTEMPT                                         > key, miss, > start, started
 *   is TASK STATE [by TASK]
 *
 * After every line sched_check holds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "orchestrator/sched.h"
#include "orchestrator/sched_replay.h"
#include "tests/check.h"

#define TASKS_MAX 200
#define NEEDS_MAX 8

struct play {
    struct sched *s;
    struct sched_options o;
    struct sched_task tasks[TASKS_MAX];
    int needs[TASKS_MAX][NEEDS_MAX];
    char names[TASKS_MAX][16];
    size_t n;
    int64_t now;
    const char *line; /* the one at work, for messages */
};

static int64_t value_of(const char *word, const char *name, int64_t otherwise)
{
    const size_t n = strlen(name);

    return strncmp(word, name, n) == 0 && word[n] == '=' ? strtoll(word + n + 1, NULL, 10)
                                                         : otherwise;
}

static int task_of(const struct play *p, const char *name)
{
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->names[i], name) == 0)
            return (int)i;
    fail_msg("there is no task '%s' in: %s", name, p->line);
    return -1;
}

static void add_machine(struct play *p, char *const *w, int n)
{
    for (int i = 1; i < n; i++) {
        p->o.cpus = value_of(w[i], "cpus", p->o.cpus);
        p->o.memory_bytes = value_of(w[i], "memory", p->o.memory_bytes);
        p->o.gpus = value_of(w[i], "gpus", p->o.gpus);
        p->o.jobs = value_of(w[i], "jobs", p->o.jobs);
        p->o.keep_going |= strcmp(w[i], "keep_going") == 0;
    }
}

static void add_task(struct play *p, char *const *w, int n)
{
    struct sched_task *t = &p->tasks[p->n];

    *t = (struct sched_task){.needs = p->needs[p->n], .cpus = 1, .attempts = 1, .selected = true};
    EXPECT(n > 1);
    snprintf(p->names[p->n], sizeof(p->names[0]), "%s", w[1]);
    for (int i = 2; i < n; i++) {
        t->cpus = value_of(w[i], "cpus", t->cpus);
        t->memory_bytes = value_of(w[i], "memory", t->memory_bytes);
        t->gpus = value_of(w[i], "gpus", t->gpus);
        t->attempts = value_of(w[i], "attempts", t->attempts);
        t->backoff_s = value_of(w[i], "backoff", t->backoff_s);
        t->timeout_s = value_of(w[i], "timeout", t->timeout_s);
        t->expected_ms = value_of(w[i], "expected", t->expected_ms);
        t->priority = value_of(w[i], "priority", t->priority);
        t->skipped |= strcmp(w[i], "skipped") == 0;
        if (strcmp(w[i], "unselected") == 0)
            t->selected = false;
        if (strncmp(w[i], "needs=", 6) == 0) {
            char *rest = NULL;

            for (char *name = strtok_r(w[i] + 6, ",", &rest); name;
                 name = strtok_r(NULL, ",", &rest))
                p->needs[p->n][t->need_count++] = task_of(p, name);
        }
    }
    p->n++;
}

static void effect_text(const struct play *p, const struct sched_effect *e, char out[64])
{
    static const char *const words[] = {"key", "start", "halt", "wait", "finish"};

    if (e->kind == DO_WAIT && e->until_ms < 0)
        snprintf(out, 64, "wait ever");
    else if (e->kind == DO_WAIT)
        snprintf(out, 64, "wait %lld", (long long)e->until_ms);
    else if (e->kind == DO_FINISH)
        snprintf(out, 64, "finish");
    else if (e->kind == DO_KEY)
        snprintf(out, 64, "key %s", p->names[e->task]);
    else
        snprintf(out, 64, "%s %s %d", words[e->kind], p->names[e->task], e->attempt);
}

static void expect_effect(struct play *p, const char *wanted)
{
    const struct sched_effect e = sched_next(p->s, p->now);
    char got[64];

    effect_text(p, &e, got);
    if (strcmp(got, wanted) != 0)
        fail_msg("wanted '%s', got '%s', at: %s", wanted, got, p->line);
}

static void post(struct play *p, enum sched_event_kind kind, int task, int attempt)
{
    const struct sched_event e = {
        .kind = kind, .task = task, .attempt = attempt, .checkpoint_step = -1, .now_ms = p->now};

    sched_post(p->s, &e);
}

static void post_end(struct play *p, char *const *w, int n)
{
    static const char *const words[] = {"done", "failed", "fatal", "stopped", "lost"};
    struct sched_event e = {.kind = EV_ENDED,
                            .task = task_of(p, w[1]),
                            .attempt = (int)strtol(w[2], NULL, 10),
                            .checkpoint_step = -1,
                            .now_ms = p->now};

    while (e.end < END_LOST && strcmp(words[e.end], w[3]) != 0)
        e.end++;
    EXPECT_STR(words[e.end], w[3]);
    for (int i = 4; i < n; i++) {
        e.checkpoint_step = value_of(w[i], "step", e.checkpoint_step);
        e.wall_ms = value_of(w[i], "wall", e.wall_ms);
    }
    sched_post(p->s, &e);
}

static void defer(struct play *p, char *const *w)
{
    struct sched_effect e = {.kind = DO_KEY, .task = task_of(p, w[2])};

    if (strcmp(w[1], "key") != 0)
        e.kind = strcmp(w[1], "start") == 0 ? DO_START : DO_STOP;
    e.attempt = (int)strtol(w[3], NULL, 10);
    sched_defer(p->s, &e, strtoll(w[4], NULL, 10));
}

static void expect_state(struct play *p, char *const *w, int n)
{
    const int task = task_of(p, w[1]);
    const char *got = sched_state_words[sched_state_of(p->s, task)];
    const int blocker = n > 4 ? task_of(p, w[4]) : -1;

    if (strcmp(got, w[2]) != 0)
        fail_msg("%s is '%s', at: %s", w[1], got, p->line);
    if (sched_blocker_of(p->s, task) != blocker)
        fail_msg("the blocker of %s is task %d, at: %s", w[1], sched_blocker_of(p->s, task),
                 p->line);
}

static void run_task(struct play *p, const char *name, const char *attempt)
{
    char wanted[64];

    snprintf(wanted, sizeof(wanted), "key %s", name);
    expect_effect(p, wanted);
    post(p, EV_MISS, task_of(p, name), 0);
    snprintf(wanted, sizeof(wanted), "start %s %s", name, attempt);
    expect_effect(p, wanted);
    post(p, EV_STARTED, task_of(p, name), (int)strtol(attempt, NULL, 10));
}

static bool plain_event(struct play *p, char *const *w, int n)
{
    static const struct {
        const char *word;
        enum sched_event_kind kind;
    } events[] = {{"hit", EV_HIT},         {"miss", EV_MISS},
                  {"shared", EV_SHARED},   {"refused", EV_KEY_FAILED},
                  {"recheck", EV_RECHECK}, {"started", EV_STARTED},
                  {"stop", EV_STOP},       {"cancel", EV_CANCEL},
                  {"resume", EV_RESUME},   {"time", EV_TIME},
                  {"exited", EV_EXITED}};

    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
        if (strcmp(w[0], events[i].word) == 0) {
            post(p, events[i].kind, n > 1 && strcmp(w[1], "all") != 0 ? task_of(p, w[1]) : -1,
                 n > 2 ? (int)strtol(w[2], NULL, 10) : 0);
            return true;
        }
    return false;
}

static void one_line(struct play *p, char *const *w, int n)
{
    const char *why;

    if (strcmp(w[0], "machine") == 0) {
        add_machine(p, w, n);
        return;
    }
    if (strcmp(w[0], "task") == 0) {
        add_task(p, w, n);
        return;
    }
    if (!p->s)
        p->s = sched_new(p->tasks, p->n, &p->o);
    if (strcmp(w[0], ">") == 0)
        expect_effect(p, strchr(p->line, '>') + 2);
    else if (strcmp(w[0], "at") == 0)
        p->now = strtoll(w[1], NULL, 10);
    else if (strcmp(w[0], "ended") == 0)
        post_end(p, w, n);
    else if (strcmp(w[0], "defer") == 0)
        defer(p, w);
    else if (strcmp(w[0], "is") == 0)
        expect_state(p, w, n);
    else if (strcmp(w[0], "run") == 0)
        run_task(p, w[1], w[2]);
    else if (!plain_event(p, w, n))
        fail_msg("cannot read: %s", p->line);
    if (!sched_check(p->s, &why))
        fail_msg("%s, after: %s", why, p->line);
}

static void play(const char *text)
{
    struct play p = {.now = 0};
    char *lines = mem_strdup(text);
    char *rest = NULL;

    for (char *line = strtok_r(lines, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *words[16], *more = NULL;
        char none[] = "";
        char *copy = mem_strdup(line);
        int n = 0;

        p.line = line;
        for (int i = 0; i < 16; i++)
            words[i] = none;
        for (char *w = strtok_r(copy, " ", &more); w && n < 16; w = strtok_r(NULL, " ", &more))
            words[n++] = w;
        EXPECT(n > 0);
        one_line(&p, words, n);
        free(copy);
    }
    sched_free(p.s);
    free(lines);
}

/* ---- the graph --------------------------------------------------------------------------------- */

TEST(nothing_to_do_is_finished)
{
    const struct sched_options o = {.cpus = 1};
    struct sched *s = sched_new(NULL, 0, &o);

    EXPECT_EQ(sched_next(s, 0).kind, DO_FINISH);
    EXPECT(sched_check(s, NULL));
    sched_free(s);
    sched_free(NULL);
}

TEST(inputs_come_first)
{
    play(
        "machine cpus=4\ntask a\ntask b needs=a\ntask c needs=a,b\n"
        "is b waiting\nrun a 1\n> wait ever\nended a 1 done\nis a done\nis b keying\nis c waiting\n"
        "run b 1\n> wait ever\nended b 1 done\nrun c 1\nended c 1 done\n> finish\n> finish\n");
}

TEST(a_hit_needs_no_start)
{
    play("machine cpus=4\ntask a\ntask b needs=a\n"
         "> key a\nhit a\nis a cached\n> key b\nhit b\nis b cached\n> finish\n");
}

TEST(hits_may_come_unasked_and_in_any_order)
{
    play("machine cpus=4\ntask a\ntask b needs=a\ntask c needs=b\n"
         "hit b\nis b cached\nhit a\nis a cached\nhit a\n> key c\nmiss c\n> start c 1\n");
}

TEST(an_input_named_twice_is_one_task)
{
    play("machine cpus=4\ntask a\ntask b needs=a,a\nrun a 1\nended a 1 done\nrun b 1\n");
}

TEST(skipped_inputs_count_as_there)
{
    play("machine cpus=4\ntask a skipped\ntask b\ntask c needs=a,b\n"
         "is a skipped\nrun b 1\nended b 1 done\n> key c\nmiss c\n> start c 1\n");
}

/* ---- order and resources ----------------------------------------------------------------------- */

TEST(the_longest_path_goes_first)
{
    play("machine cpus=1\ntask a expected=50\ntask b expected=10\ntask c needs=b expected=45\n"
         "> key b\n> key a\nmiss a\nmiss b\n> start b 1\nstarted b 1\n> wait ever\n"
         "ended b 1 done\n> key c\nmiss c\n> start a 1\n");
}

TEST(an_unknown_time_is_the_median_of_the_known)
{
    /* x is taken for 30: before b with 20, after c with 40. */
    play("machine cpus=1\ntask a expected=30\ntask b expected=20\ntask c expected=40\ntask x\n"
         "> key c\n> key a\n> key x\n> key b\n");
    play("machine cpus=1\ntask a\ntask b\ntask c needs=b\n> key b\n> key a\n");
}

TEST(priority_goes_before_length_and_declared_order_last)
{
    play("machine cpus=1\ntask a expected=90\ntask b priority=1\ntask c expected=90\n"
         "> key b\n> key a\n> key c\n");
}

TEST(what_fits_starts)
{
    play("machine cpus=4 memory=100 gpus=1\n"
         "task a cpus=3 expected=9\ntask b cpus=2 expected=8\ntask c memory=60 expected=7\n"
         "task d cpus=0 memory=50 expected=6\ntask e cpus=0 gpus=1 expected=5\n"
         "> key a\n> key b\n> key c\n> key d\n> key e\nmiss a\nmiss b\nmiss c\nmiss d\nmiss e\n"
         "> start a 1\n> start c 1\n> start e 1\n> wait ever\nstarted a 1\nstarted c 1\n"
         "started e 1\nended a 1 done\n> start b 1\nstarted b 1\nended c 1 done\n> start d 1\n");
}

/* What its program used is free when it has ended, its users wait until the result is durable. */
TEST(an_ended_program_makes_room_before_its_result_counts)
{
    play("machine cpus=1\ntask a\ntask b needs=a\ntask c\n"
         "> key a\nmiss a\n> key c\nmiss c\n> start a 1\nstarted a 1\n> wait ever\n"
         "exited a 2\n> wait ever\nexited a 1\nis a running\n> start c 1\nstarted c 1\n"
         "is b waiting\nended a 1 done\nis a done\n> key b\nmiss b\n> wait ever\n"
         "exited c 1\nexited c 1\n> start b 1\n");
    /* A stop leaves it to its end; a failure of it is one like any other. */
    play("machine cpus=1\ntask a attempts=2\n"
         "> key a\nmiss a\n> start a 1\nstarted a 1\nexited a 1\nstop\nis a running\n"
         "ended a 1 done\nis a done\n");
    play("machine cpus=1\ntask a attempts=2\n"
         "> key a\nmiss a\n> start a 1\nstarted a 1\nexited a 1\nended a 1 failed\n"
         "> start a 2\nstarted a 2\n> wait ever\n");
}

TEST(jobs_limits_attempts_at_once)
{
    play("machine cpus=9 jobs=2\ntask a\ntask b\ntask c\n> key a\n> key b\n> key c\n"
         "miss a\nmiss b\nmiss c\n> start a 1\n> start b 1\n> wait ever\n"
         "ended a 1 done\n> start c 1\n");
}

TEST(more_than_there_is_runs_alone)
{
    play("machine cpus=2\ntask a cpus=64 expected=9 gpus=3\ntask b\n> key a\n> key b\nmiss a\n"
         "miss b\n> start a 1\n> wait ever\nended a 1 done\n> start b 1\n");
}

TEST(resources_not_counted_limit_nothing)
{
    play("machine jobs=3\ntask a cpus=64\ntask b memory=9\n> key a\n> key b\nmiss a\nmiss b\n"
         "> start a 1\n> start b 1\n");
}

/* A large task of two cpus at the head, small ones of one cpu that come and go, and g, which needs none of it. */
TEST(a_large_task_is_not_overtaken_for_ever)
{
    struct sched_task tasks[TASKS_MAX];
    const struct sched_options o = {.cpus = 2, .gpus = 2};
    const size_t n = SCHED_OVERTAKE + 10;
    struct sched *s;
    int passed = 0;
    bool large = false;

    for (size_t i = 0; i < n; i++)
        tasks[i] = (struct sched_task){.cpus = i == 1 ? 2 : 1, .attempts = 1, .selected = true};
    tasks[0].priority = 2;
    tasks[1].priority = 1;
    tasks[1].attempts = 2;
    tasks[2].priority = 2; /* its key comes late */
    tasks[n - 1] = (struct sched_task){.gpus = 1, .attempts = 1, .selected = true, .priority = -1};
    s = sched_new(tasks, n, &o);
    for (size_t i = 0; i < n; i++) {
        const struct sched_effect e = sched_next(s, 0);

        EXPECT_EQ(e.kind, DO_KEY);
        if (e.task != 2)
            sched_post(s, &(struct sched_event){.kind = EV_MISS, .task = e.task});
    }
    EXPECT_EQ(sched_next(s, 0).task, 0); /* keeps one cpu until the end of the test */
    for (;;) {
        const struct sched_effect e = sched_next(s, 0);

        if (e.kind != DO_START)
            break;
        large |= e.task == 1;
        passed++;
        if (e.task != (int)n - 1)
            sched_post(s, &(struct sched_event){
                              .kind = EV_ENDED, .task = e.task, .attempt = 1, .end = END_DONE});
    }
    EXPECT(!large);
    EXPECT_EQ(passed, SCHED_OVERTAKE + 1); /* and g */
    EXPECT_EQ(sched_state_of(s, (int)n - 1), SCHED_READY);
    sched_post(s, &(struct sched_event){.kind = EV_ENDED, .attempt = 1, .end = END_DONE});
    EXPECT_EQ(sched_next(s, 0).task, 1);
    /* The next time it is an ordinary task again. */
    sched_post(s, &(struct sched_event){.kind = EV_STARTED, .task = 1, .attempt = 1});
    sched_post(s, &(struct sched_event){.kind = EV_MISS, .task = 2});
    sched_post(s,
               &(struct sched_event){.kind = EV_ENDED, .task = 1, .attempt = 1, .end = END_FAILED});
    EXPECT_EQ(sched_next(s, 0).task, 2);
    EXPECT(sched_next(s, 0).task > 2);
    EXPECT(sched_check(s, NULL));
    sched_free(s);
}

/* ---- retries ----------------------------------------------------------------------------------- */

TEST(a_failure_is_tried_again_with_doubling_backoff)
{
    play("machine cpus=1\ntask a attempts=4 backoff=10\nrun a 1\nat 1000\nended a 1 failed\n"
         "is a ready\n> wait 11000\nat 10999\n> wait 11000\nat 11000\n> start a 2\nstarted a 2\n"
         "ended a 2 failed\n> wait 31000\nat 31000\n> start a 3\nstarted a 3\nended a 3 failed\n"
         "> wait 71000\nat 71000\ntime\n> start a 4\nstarted a 4\nended a 4 failed\nis a failed\n"
         "> finish\n");
}

TEST(backoff_ends_at_an_hour)
{
    play("machine cpus=1\ntask a attempts=9 backoff=3000\nrun a 1\nended a 1 failed\n"
         "> wait 3000000\nat 3000000\n> start a 2\nstarted a 2\nended a 2 failed\n"
         "> wait 6600000\nat 6600000\n> start a 3\nstarted a 3\nended a 3 failed\n> wait "
         "10200000\n");
}

TEST(some_ends_are_final)
{
    play("machine cpus=1\ntask a attempts=9\nrun a 1\nended a 1 fatal\nis a failed\n> finish\n");
}

TEST(what_is_lost_uses_no_try_and_is_looked_up_again)
{
    play("machine cpus=1\ntask a\nrun a 1\nended a 1 lost\nis a keying\n> key a\nhit a\nis a "
         "cached\n");
    play("machine cpus=1\ntask a\n"
         "run a 1\nended a 1 lost\nrun a 2\nended a 2 lost\nrun a 3\nended a 3 lost\n"
         "run a 4\nended a 4 lost\nrun a 5\nended a 5 lost\nis a failed\n> finish\n");
}

TEST(a_newer_checkpoint_makes_losses_count_from_the_start)
{
    play("machine cpus=1\ntask a\n"
         "run a 1\nended a 1 lost\nrun a 2\nended a 2 lost step=10\nrun a 3\nended a 3 lost "
         "step=10\n"
         "run a 4\nended a 4 lost step=10\nrun a 5\nended a 5 lost step=9\nrun a 6\n"
         "ended a 6 lost\nis a keying\nrun a 7\nended a 7 lost step=10\nis a failed\n");
}

TEST(stopped_with_a_newer_checkpoint_uses_no_try)
{
    play("machine cpus=1\ntask a backoff=10\nrun a 1\nended a 1 stopped step=5\n> start a 2\n"
         "started a 2\nended a 2 stopped step=7\n> start a 3\nstarted a 3\n"
         "ended a 3 stopped step=7\nis a failed\n");
}

TEST(a_start_that_never_was_is_an_end)
{
    play("machine cpus=1\ntask a attempts=2\n> key a\nmiss a\n> start a 1\nended a 1 failed\n"
         "is a ready\n> start a 2\n");
}

TEST(timeout_counts_all_attempts_but_not_the_waits)
{
    play("machine cpus=1\ntask a attempts=5 backoff=100 timeout=10\nrun a 1\n> wait 10000\n"
         "at 6000\nended a 1 failed\n> wait 106000\nat 106000\n> start a 2\nstarted a 2\n"
         "> wait 110000\nat 110000\n> halt a 2\n> wait ever\nended a 2 stopped step=9\n"
         "is a failed\n> finish\n");
}

TEST(timeout_does_not_spoil_a_good_end_and_forgets_what_was_lost)
{
    play("machine cpus=1\ntask a timeout=10\nrun a 1\nat 10000\n> halt a 1\nended a 1 done\n"
         "is a done\n");
    play("machine cpus=1\ntask a timeout=10\nrun a 1\nat 9000\nended a 1 lost\nrun a 2\n"
         "> wait 19000\nat 19000\n> halt a 2\nended a 2 lost\nrun a 3\n> wait 29000\n");
    play("machine cpus=1\ntask a timeout=10 attempts=2\nrun a 1\nat 900000\n"
         "ended a 1 failed wall=4000\nis a ready\n> start a 2\nstarted a 2\n> wait 906000\n");
}

/* ---- others, failures, selection --------------------------------------------------------------- */

TEST(another_run_does_it)
{
    play("machine cpus=1\ntask a\ntask b needs=a\n> key a\nshared a\nis a shared\n> wait ever\n"
         "recheck a\n> key a\nshared a\n> wait ever\nrecheck a\n> key a\nhit a\n> key b\n");
    play("machine cpus=1\ntask a\n> key a\nshared a\nrecheck a\n> key a\nmiss a\n> start a 1\n");
}

TEST(a_key_that_cannot_be_had_fails_the_task)
{
    play("machine cpus=1 keep_going\ntask a\ntask b needs=a\n> key a\nrefused a\nis a failed\n"
         "is b blocked by a\n> finish\n");
}

TEST(a_failure_blocks_what_needs_it_and_ends_the_run)
{
    play("machine cpus=4\ntask a\ntask b needs=a\ntask c needs=b\ntask d\ntask e needs=d\ntask f\n"
         "> key a\n> key d\n> key f\nmiss a\nmiss d\n> start a 1\n> start d 1\nstarted a 1\n"
         "started d 1\nended a 1 failed\nis b blocked by a\nis c blocked by a\nis f stopped by a\n"
         "is e stopped by a\nis d running\n> wait ever\nended d 1 done\nis d done\n> finish\n");
}

TEST(keep_going_does_all_that_can_be_done)
{
    play("machine cpus=1 keep_going\ntask a\ntask b needs=a\ntask c needs=b\ntask d\n"
         "> key a\n> key d\nmiss a\nmiss d\n> start a 1\nstarted a 1\nended a 1 failed\n"
         "is b blocked by a\nis c blocked by a\n> start d 1\nstarted d 1\nended d 1 done\n> "
         "finish\n");
}

TEST(what_runs_when_the_run_has_failed_is_not_tried_again)
{
    play("machine cpus=4\ntask a\ntask b attempts=3\ntask c attempts=3\ntask d needs=c\n"
         "> key c\n> key a\n> key b\nmiss a\nmiss b\nmiss c\n> start c 1\n> start a 1\n"
         "> start b 1\nstarted a 1\nstarted b 1\nstarted c 1\nended a 1 failed\n"
         "is d stopped by a\nended b 1 failed\nis b failed\nended c 1 lost\nis c stopped by a\n"
         "> finish\n");
}

TEST(not_selected_means_looked_up_only)
{
    play("machine cpus=1\ntask a unselected\ntask b needs=a\ntask x unselected\n"
         "is x unselected\n> key a\nhit a\nis a cached\nrun b 1\nended b 1 done\n> finish\n");
    play("machine cpus=1\ntask a unselected\ntask b unselected needs=a\ntask c needs=b\ntask d\n"
         "> key a\nmiss a\nis a unselected\nis b unselected by a\nis c blocked by a\n"
         "> key d\nmiss d\n> start d 1\nstarted d 1\nended d 1 done\n> finish\n");
}

/* ---- stop, cancel, resume ---------------------------------------------------------------------- */

TEST(stop_asks_what_runs_and_starts_nothing)
{
    play("machine cpus=4\ntask a backoff=60\ntask b\ntask c needs=a\n> key a\n> key b\nmiss a\n"
         "> start a 1\nstarted a 1\nstop\nis b stopped\nis c stopped\n> halt a 1\n> wait ever\n"
         "miss b\nis b stopped\nended a 1 stopped\nis a stopped\n> finish\n");
}

TEST(a_hit_after_the_stop_still_counts)
{
    play("machine cpus=4\ntask a\ntask b needs=a\n> key a\nstop\nis a stopped\nhit a\nis a cached\n"
         "is b stopped\n> finish\nresume\n> key b\n");
}

TEST(a_second_stop_asks_again)
{
    play("machine cpus=4\ntask a\nrun a 1\nstop\n> halt a 1\n> wait ever\nstop\n> halt a 1\n"
         "defer halt a 1 500\n> wait 500\nat 500\n> halt a 1\nended a 1 done\nis a done\n> "
         "finish\n");
}

TEST(a_start_on_its_way_is_stopped_when_it_has_begun)
{
    play("machine cpus=4\ntask a\n> key a\nmiss a\n> start a 1\nstop\nis a ready\n> wait ever\n"
         "started a 1\n> halt a 1\nended a 1 stopped\nis a stopped\n> finish\n");
    play("machine cpus=4\ntask a\n> key a\nmiss a\n> start a 1\nstop\ndefer start a 1 900\n"
         "is a stopped\n> finish\n");
    play("machine cpus=4\ntask a\n> key a\nmiss a\n> start a 1\ncancel a\ndefer start a 1 900\n"
         "is a failed\n> finish\n");
}

TEST(resume_wants_again_what_was_stopped)
{
    play("machine cpus=4\ntask a backoff=60\ntask b needs=a\ntask u unselected\ntask v needs=u\n"
         "> key a\nmiss a\n> key u\n> start a 1\nstarted a 1\nstop\n> halt a 1\nis u unselected\n"
         "ended a 1 stopped\n> finish\nresume\n> key a\nmiss a\n> key u\n> start a 2\nstarted a 2\n"
         "ended a 2 done\nis v waiting\nhit u\n> key b\n> key v\n");
    /* A stop that was not performed yet is not wanted any more. */
    play("machine cpus=4\ntask a\nrun a 1\nstop\nresume\n> wait ever\nended a 1 done\nis a done\n");
    /* What a failure after the stop has blocked does not come back. */
    play("machine cpus=4 keep_going\ntask a\ntask b needs=a\nrun a 1\nstop\nis b stopped\n"
         "ended a 1 failed\nis a failed\nis b blocked by a\nresume\n> finish\n");
    /* A run that a failure has ended has ended. */
    play("machine cpus=4\ntask a\ntask b\n> key a\n> key b\nmiss a\n> start a 1\nended a 1 failed\n"
         "is b stopped by a\nresume\nis b stopped by a\n> finish\n");
}

TEST(cancel_of_one_leaves_the_others)
{
    play("machine cpus=4\ntask a\ntask b needs=a\ntask c attempts=5\n> key a\n> key c\nmiss c\n"
         "> start c 1\nstarted c 1\ncancel a\nis a failed\nis b blocked by a\n> wait ever\n"
         "cancel c\n> halt c 1\nended c 1 stopped step=4\nis c failed\n> finish\n");
}

TEST(cancel_of_all_fails_what_is_left)
{
    play("machine cpus=4\ntask a\ntask b needs=a\ntask d needs=b\ntask c\ntask u unselected\ntask "
         "v needs=u\n"
         "> key a\nmiss a\n> key u\n> key c\n> start a 1\nstarted a 1\ncancel all\nis b failed\nis "
         "d failed\n"
         "is c failed\nis v failed\nis u unselected\n> halt a 1\nended a 1 stopped\nis a failed\n"
         "resume\n> finish\n");
    play("machine cpus=4\ntask a\nrun a 1\ncancel all\nended a 1 done\nis a done\n> finish\n");
    play("machine cpus=4\ntask a\nstop\nis a stopped\ncancel all\nis a failed\n");
}

/* ---- news and no news -------------------------------------------------------------------------- */

TEST(an_effect_that_is_not_possible_now_is_wanted_later)
{
    play("machine cpus=1\ntask a\ntask b\n> key a\ndefer key a 0 50\n> key b\nmiss b\n> start b 1\n"
         "defer start b 1 70\n> wait 50\nat 50\n> key a\nmiss a\n> start a 1\nstarted a 1\n"
         "ended a 1 done\n> wait 70\nat 70\n> start b 1\n");
    play("machine cpus=1\ntask a\nrun a 1\ndefer start a 1 99\nis a running\ndefer key a 0 99\n"
         "> wait ever\n");
}

TEST(stale_events_change_nothing)
{
    play(
        "machine cpus=4\ntask a attempts=3\n> key a\nmiss a\nmiss a\nshared a\nrecheck a\nis a "
        "ready\n"
        "> start a 1\nrefused a\nhit a\nstarted a 1\nstarted a 1\nmiss a\nhit a\nis a running\n"
        "ended a 1 failed\nended a 1 failed\nended a 1 done\nis a ready\n> start a 2\nstarted a 2\n"
        "started a 1\nended a 1 done\nis a running\nended a 2 done\nis a done\nended a 2 failed\n"
        "started a 3\nhit a\nrefused a\ncancel a\nstop\nis a done\n> finish\n");
}

TEST(a_replay_needs_no_effects)
{
    play("machine cpus=1 jobs=1\ntask a attempts=2\ntask b needs=a attempts=2\ntask c\n"
         "started a 1\nended a 1 failed\nstarted a 2\nended a 2 done\nstarted b 1\nstarted c 1\n"
         "is b running\nis c running\nresume\n> wait ever\nended c 1 done\nended b 1 failed\n"
         "> start b 2\n");
}

static int find_task(void *arg, const char *name)
{
    return strcmp(name, arg) == 0 ? 7 : -1;
}

static const struct {
    const char *record;
    bool is;
    struct sched_event e;
} records[] = {
    {"{'event':'task.cached','task':'t','time':'1970-01-02T00:00:01.500Z'}",
     true,
     {.kind = EV_HIT, .task = 7, .now_ms = 86401500, .checkpoint_step = -1}},
    {"{'event':'task.start','task':'t','attempt':3,'time':'2026-01-02T03:04:05.678Z'}",
     true,
     {.kind = EV_STARTED, .task = 7, .attempt = 3, .now_ms = 1767323045678, .checkpoint_step = -1}},
    {"{'event':'task.start','task':'t','attempt':3,'time':'2024-02-29T23:59:59.999Z'}",
     true,
     {.kind = EV_STARTED, .task = 7, .attempt = 3, .now_ms = 1709251199999, .checkpoint_step = -1}},
    {"{'event':'task.end','task':'t','attempt':1,'status':'done','wall_ms':12,'step':4}",
     true,
     {.kind = EV_ENDED,
      .task = 7,
      .attempt = 1,
      .end = END_DONE,
      .wall_ms = 12,
      .checkpoint_step = 4}},
    {"{'event':'task.end','task':'t','attempt':1,'status':'failed','exit':1}",
     true,
     {.kind = EV_ENDED, .task = 7, .attempt = 1, .end = END_FAILED, .checkpoint_step = -1}},
    {"{'event':'task.end','task':'t','attempt':1,'status':'failed','exit':64}",
     true,
     {.kind = EV_ENDED, .task = 7, .attempt = 1, .end = END_FATAL, .checkpoint_step = -1}},
    {"{'event':'task.end','task':'t','attempt':1,'status':'stopped','final':true}",
     true,
     {.kind = EV_ENDED, .task = 7, .attempt = 1, .end = END_FATAL, .checkpoint_step = -1}},
    {"{'event':'task.end','task':'t','attempt':1,'status':'stopped','final':false}",
     true,
     {.kind = EV_ENDED, .task = 7, .attempt = 1, .end = END_STOPPED, .checkpoint_step = -1}},
    {"{'event':'task.end','task':'t','attempt':1,'status':'lost'}",
     true,
     {.kind = EV_ENDED, .task = 7, .attempt = 1, .end = END_LOST, .checkpoint_step = -1}},
    {"{'event':'task.refused','task':'t'}",
     true,
     {.kind = EV_KEY_FAILED, .task = 7, .checkpoint_step = -1}},
    {"{'event':'run.stop','reason':'x'}",
     true,
     {.kind = EV_STOP, .task = -1, .checkpoint_step = -1}},
    {"{'event':'run.cancel','task':null}",
     true,
     {.kind = EV_CANCEL, .task = -1, .checkpoint_step = -1}},
    {"{'event':'run.cancel','task':'t'}",
     true,
     {.kind = EV_CANCEL, .task = 7, .checkpoint_step = -1}},
    {"{'event':'run.resume','pid':3}",
     true,
     {.kind = EV_RESUME, .task = -1, .checkpoint_step = -1}},
    {"{'event':'run.cancel','task':'unknown'}", false, {.kind = EV_HIT}},
    {"{'event':'task.cached','task':'unknown'}", false, {.kind = EV_HIT}},
    {"{'event':'task.cached'}", false, {.kind = EV_HIT}},
    {"{'event':'task.start','task':'t'}", false, {.kind = EV_HIT}},
    {"{'event':'task.start','task':'t','attempt':99999999999}", false, {.kind = EV_HIT}},
    {"{'event':'task.end','task':'t','attempt':1,'status':'well'}", false, {.kind = EV_HIT}},
    {"{'event':'task.block','task':'t','by':'u'}", false, {.kind = EV_HIT}},
    {"{'event':'task.shared','task':'t','run':3}", false, {.kind = EV_HIT}},
    {"{'event':'run.cached','count':3}", false, {.kind = EV_HIT}},
    {"{'task':'t'}", false, {.kind = EV_HIT}},
    {"[]", false, {.kind = EV_HIT}},
};

TEST(records_become_events)
{
    char name[] = "t";

    for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++) {
        json_error_t where;
        char *text = mem_strdup(records[i].record);
        struct sched_event e = {.kind = EV_TIME};
        json_t *body;

        for (char *p = text; *p; p++)
            if (*p == '\'')
                *p = '"';
        body = json_loads(text, 0, &where);
        EXPECT(body);
        if (sched_event_of(body, find_task, name, &e) != records[i].is)
            fail_msg("%s", text);
        if (records[i].is &&
            (e.kind != records[i].e.kind || e.task != records[i].e.task ||
             e.end != records[i].e.end || e.attempt != records[i].e.attempt ||
             e.wall_ms != records[i].e.wall_ms || e.now_ms != records[i].e.now_ms ||
             e.checkpoint_step != records[i].e.checkpoint_step))
            fail_msg("%s: another event", text);
        json_decref(body);
        free(text);
    }
}

TEST(a_time_that_is_up_is_told)
{
    const struct sched_task t = {.attempts = 2, .timeout_s = 3, .selected = true};
    const struct sched_options o = {.cpus = 1};
    struct sched *s = sched_new(&t, 1, &o);

    sched_post(s, &(struct sched_event){.kind = EV_STARTED, .attempt = 1, .now_ms = 1000});
    EXPECT_EQ(sched_next(s, 3999).until_ms, 4000);
    EXPECT(!sched_timed_out(s, 0));
    EXPECT_EQ(sched_next(s, 4000).kind, DO_STOP);
    EXPECT(sched_timed_out(s, 0));
    EXPECT_EQ(sched_attempts_of(s, 0), 1);
    EXPECT_EQ(sched_running(s), 1);
    sched_post(s, &(struct sched_event){.kind = EV_ENDED,
                                        .attempt = 1,
                                        .end = END_LOST,
                                        .checkpoint_step = -1,
                                        .now_ms = 5000});
    sched_post(s, &(struct sched_event){.kind = EV_STARTED, .attempt = 2, .now_ms = 6000});
    EXPECT(!sched_timed_out(s, 0));
    EXPECT_EQ(sched_next(s, 6000).kind, DO_WAIT);
    EXPECT(sched_check(s, NULL));
    sched_free(s);
}

TEST(ends_are_told_apart)
{
    EXPECT_EQ(sched_end_of(ATTEMPT_DONE, 0, true), END_DONE);
    EXPECT_EQ(sched_end_of(ATTEMPT_FAILED, 1, false), END_FAILED);
    EXPECT_EQ(sched_end_of(ATTEMPT_FAILED, 65, false), END_FATAL);
    EXPECT_EQ(sched_end_of(ATTEMPT_FAILED, 1, true), END_FATAL);
    EXPECT_EQ(sched_end_of(ATTEMPT_STOPPED, 65, false), END_STOPPED);
    EXPECT_EQ(sched_end_of(ATTEMPT_STOPPED, 0, true), END_FATAL);
    EXPECT_EQ(sched_end_of(ATTEMPT_LOST, 64, true), END_LOST);
}

RUN(nothing_to_do_is_finished, inputs_come_first, a_hit_needs_no_start,
    hits_may_come_unasked_and_in_any_order, an_input_named_twice_is_one_task,
    skipped_inputs_count_as_there, the_longest_path_goes_first,
    an_unknown_time_is_the_median_of_the_known, priority_goes_before_length_and_declared_order_last,
    what_fits_starts, an_ended_program_makes_room_before_its_result_counts,
    jobs_limits_attempts_at_once, more_than_there_is_runs_alone,
    resources_not_counted_limit_nothing, a_large_task_is_not_overtaken_for_ever,
    a_failure_is_tried_again_with_doubling_backoff, backoff_ends_at_an_hour, some_ends_are_final,
    what_is_lost_uses_no_try_and_is_looked_up_again,
    a_newer_checkpoint_makes_losses_count_from_the_start,
    stopped_with_a_newer_checkpoint_uses_no_try, a_start_that_never_was_is_an_end,
    timeout_counts_all_attempts_but_not_the_waits,
    timeout_does_not_spoil_a_good_end_and_forgets_what_was_lost, another_run_does_it,
    a_key_that_cannot_be_had_fails_the_task, a_failure_blocks_what_needs_it_and_ends_the_run,
    keep_going_does_all_that_can_be_done, what_runs_when_the_run_has_failed_is_not_tried_again,
    not_selected_means_looked_up_only, stop_asks_what_runs_and_starts_nothing,
    a_hit_after_the_stop_still_counts, a_second_stop_asks_again,
    a_start_on_its_way_is_stopped_when_it_has_begun, resume_wants_again_what_was_stopped,
    cancel_of_one_leaves_the_others, cancel_of_all_fails_what_is_left,
    an_effect_that_is_not_possible_now_is_wanted_later, stale_events_change_nothing,
    a_replay_needs_no_effects, records_become_events, a_time_that_is_up_is_told,
    ends_are_told_apart)
