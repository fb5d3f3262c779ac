/* The run loop: ends told once, tries counted on, results used only when they are theirs, and a run that is left anywhere gone on with. */
#include "tests/run_rig.h"

#define DONE(g) (g)->report.counts[SCHED_DONE]
#define CACHED(g) (g)->report.counts[SCHED_CACHED]
#define FAILED(g) (g)->report.counts[SCHED_FAILED]
#define BLOCKED(g) (g)->report.counts[SCHED_BLOCKED]
#define STOPPED(g) (g)->report.counts[SCHED_STOPPED]

static const char four[] =
    "weir: 1\nname: four\ndefaults: {retries: {attempts: 3, backoff: 0s}}\nstages:\n"
    "  a: {run: \"echo a > {outputs.x}\", outputs: [x]}\n"
    "  b: {run: \"echo b > {outputs.x}\", inputs: {i: a.x}, outputs: [x]}\n"
    "  c: {run: \"echo c > {outputs.x}\", inputs: {i: a.x}, outputs: [x]}\n"
    "  d: {run: \"echo d > {outputs.x}\", inputs: {b: b.x, c: c.x}, outputs: [x]}\n";
static const char wide[] =
    "weir: 1\nname: wide\ndefaults: {retries: {attempts: 3, backoff: 0s}}\nstages:\n"
    "  a: {run: \"echo {params.n} > {outputs.x}\", matrix: {n: [1, 2, 3, 4]}, outputs: [x], "
    "params: {n: \"${matrix.n}\"}}\n"
    "  b: {run: \"cat {inputs.i} > {outputs.x}\", matrix: {n: [1, 2, 3, 4]}, inputs: {i: "
    "\"a[n=${matrix.n}].x\"}, outputs: [x]}\n"
    "  all: {run: \"cat {inputs.i}/* > {outputs.x}\", inputs: {i: \"b[*].x\"}, outputs: [x]}\n";

TEST(all_run_then_none)
{
    struct rig *g = rig_new(wide);

    EXPECT_OK(rig_run(g, NULL), &g->err);
    EXPECT_EQ(DONE(g), 9);
    EXPECT_EQ(g->count, 9);
    rig_expect_clean(g);
    EXPECT_OK(rig_run(g, NULL), &g->err);
    EXPECT_EQ(CACHED(g), 9);
    EXPECT_EQ(g->count, 9);
    EXPECT_EQ(g->report.run, 2);
    rig_free(g);
}

TEST(tries)
{
    static const struct rig_script script[] = {{"a", "ffd"}, {"b", "4"}, {"c", "fff"}, {0}};
    struct rig *g = rig_new(four);

    g->script = script;
    EXPECT_ERR(rig_run(g, &(struct rig_said){.keep_going = true}), ERR_TASK, &g->err);
    EXPECT_EQ(rig_starts(g, "a"), 3);
    EXPECT_EQ(rig_starts(g, "b"), 1);
    EXPECT_EQ(rig_starts(g, "c"), 3);
    EXPECT_EQ(g->retries, 4);
    EXPECT_EQ(DONE(g), 1);
    EXPECT_EQ(FAILED(g), 2);
    EXPECT_EQ(BLOCKED(g), 1);
    rig_expect_clean(g);
    rig_free(g);
}

TEST(without_keep_going_the_first_failure_ends_it)
{
    static const struct rig_script script[] = {{"a[n=2]", "4"}, {0}};
    struct rig *g = rig_new(wide);

    g->script = script;
    EXPECT_ERR(rig_run(g, &(struct rig_said){.jobs = 1}), ERR_TASK, &g->err);
    EXPECT_EQ(FAILED(g), 1);
    EXPECT_EQ(DONE(g) + STOPPED(g) + BLOCKED(g), 8);
    EXPECT(STOPPED(g) > 0);
    g->script = NULL; /* what was not begun is free: nothing waits for a claim */
    EXPECT_OK(rig_run(g, NULL), &g->err);
    EXPECT_EQ(g->waits, 0);
    EXPECT_EQ(g->report.run, 2);
    rig_free(g);
}

TEST(what_is_lost_uses_no_try_and_is_no_end)
{
    static const struct rig_script script[] = {{"a", "llfflld"}, {"b", "lllll"}, {0}};
    struct rig *g = rig_new(four);

    g->script = script;
    EXPECT_ERR(rig_run(g, &(struct rig_said){.keep_going = true}), ERR_TASK, &g->err);
    EXPECT_EQ(rig_starts(g, "a"), 7);
    EXPECT_EQ(rig_starts(g, "b"), SCHED_LOST_MAX);
    EXPECT_STR(g->last_reason, "gone");
    rig_expect_clean(g);
    rig_free(g);
}

TEST(a_stop_with_a_newer_checkpoint_uses_no_try)
{
    static const struct rig_script script[] = {{"a", "ccccccd"}, {"b", "sss"}, {0}};
    struct rig *g = rig_new(four);

    g->script = script;
    EXPECT_ERR(rig_run(g, &(struct rig_said){.keep_going = true}), ERR_TASK, &g->err);
    EXPECT_EQ(rig_starts(g, "a"), 7);
    EXPECT_EQ(rig_starts(g, "b"), 3);
    EXPECT(strstr(g->last_reason, "no newer checkpoint") != NULL);
    rig_free(g);
}

TEST(equal_actions_run_once)
{
    struct rig *g = rig_new("weir: 1\nname: twins\nstages:\n"
                            "  one: {run: \"echo a > {outputs.x}\", outputs: [x]}\n"
                            "  two: {run: \"echo a > {outputs.x}\", outputs: [x]}\n"
                            "  both: {run: \"cat {inputs.a} {inputs.b} > {outputs.x}\", inputs: "
                            "{a: one.x, b: two.x}, outputs: [x]}\n");

    EXPECT_OK(rig_run(g, NULL), &g->err);
    EXPECT_EQ(g->count, 2);
    EXPECT_EQ(DONE(g), 2);
    EXPECT_EQ(CACHED(g), 1);
    rig_free(g);
}

TEST(equal_actions_that_fail_each_fail)
{
    static const struct rig_script script[] = {{"one", "f"}, {"two", "d"}, {0}};
    struct rig *g = rig_new("weir: 1\nname: twins\nstages:\n"
                            "  one: {run: \"echo a > {outputs.x}\", outputs: [x]}\n"
                            "  two: {run: \"echo a > {outputs.x}\", outputs: [x]}\n");

    g->script = script;
    EXPECT_ERR(rig_run(g, &(struct rig_said){.keep_going = true}), ERR_TASK, &g->err);
    EXPECT_EQ(g->count, 2);
    EXPECT_EQ(DONE(g), 1);
    rig_free(g);
}

TEST(a_forced_task_that_comes_out_otherwise_takes_its_users_along)
{
    static const char *const force[] = {"a", NULL};
    struct rig *g = rig_new(four);

    g->salt = "first";
    EXPECT_OK(rig_run(g, NULL), &g->err);
    EXPECT_OK(rig_run(g, &(struct rig_said){.force = force}), &g->err); /* the same again */
    EXPECT_EQ(g->count, 5);
    EXPECT_EQ(DONE(g), 1);
    g->salt = "second";
    EXPECT_OK(rig_run(g, &(struct rig_said){.force = force}), &g->err);
    EXPECT_EQ(DONE(g), 4); /* what was known of b, c and d was of the first a */
    EXPECT_OK(rig_run(g, NULL), &g->err);
    EXPECT_EQ(CACHED(g), 4);
    rig_free(g);
}

TEST(a_forced_task_is_not_forced_again_when_the_run_goes_on)
{
    static const char *const force[] = {"a", NULL};
    static const struct rig_script script[] = {{"b", "h"}, {0}};
    struct rig *g = rig_new(four);

    EXPECT_OK(rig_run(g, &(struct rig_said){.only = force}), &g->err);
    g->script = script;
    g->salt = "second";
    g->interrupt_at = 5; /* begun, a, b and c have started, a has ended */
    EXPECT_ERR(rig_run(g, &(struct rig_said){.force = force}), ERR_STOPPED, &g->err);
    EXPECT_EQ(rig_starts(g, "a"), 2);
    g->interrupt_at = 0;
    g->script = NULL;
    EXPECT_OK(rig_run(g, &(struct rig_said){.force = force}), &g->err);
    EXPECT(g->report.resumed);
    EXPECT_EQ(g->report.run, 2);
    EXPECT_EQ(rig_starts(g, "a"), 2);
    rig_free(g);
}

TEST(what_is_left_out_and_unknown_blocks)
{
    static const char *const only[] = {"d", NULL}, *const first[] = {"a", "b", "c", NULL};
    struct rig *g = rig_new(four);

    EXPECT_ERR(rig_run(g, &(struct rig_said){.only = only}), ERR_TASK, &g->err);
    EXPECT(strstr(g->err.text, "left out") != NULL);
    EXPECT_EQ(BLOCKED(g), 1);
    EXPECT_EQ(g->count, 0);
    EXPECT_OK(rig_run(g, &(struct rig_said){.only = first}), &g->err);
    EXPECT_OK(rig_run(g, &(struct rig_said){.only = only}), &g->err);
    EXPECT_EQ(rig_starts(g, "d"), 1);
    EXPECT_EQ(g->count, 4);
    rig_free(g);
}

TEST(sources_of_what_is_not_wanted_are_not_missed)
{
    static const char *const only[] = {"a", NULL};
    struct rig *g = rig_new("weir: 1\nname: lacks\nsources:\n"
                            "  here: {path: here.txt, license: MIT}\n"
                            "  gone: {path: gone.txt, license: MIT}\nstages:\n"
                            "  a: {run: \"cp {inputs.i} {outputs.x}\", inputs: {i: sources.here}, "
                            "outputs: [x]}\n"
                            "  b: {run: \"cp {inputs.i} {outputs.x}\", inputs: {i: sources.gone}, "
                            "outputs: [x]}\n");

    rig_write(g, "here.txt", "here\n");
    EXPECT_OK(rig_run(g, &(struct rig_said){.only = only}), &g->err);
    EXPECT_EQ(DONE(g), 1);
    EXPECT_ERR(rig_run(g, NULL), ERR_NOT_FOUND, &g->err);
    EXPECT(strstr(g->err.text, "pipe.yaml:5:") != NULL);
    rig_free(g);
}

TEST(policy_is_asked_before_anything_runs)
{
    struct rig *g = rig_new("weir: 1\nname: strict\nsources:\n"
                            "  mine: {path: here.txt, license: CC-BY-NC-4.0}\n"
                            "policy: {licenses: {deny: [CC-BY-NC-4.0]}}\nstages:\n"
                            "  a: {run: \"cp {inputs.i} {outputs.x}\", inputs: {i: sources.mine}, "
                            "outputs: [x]}\n");

    rig_write(g, "here.txt", "here\n");
    EXPECT_ERR(rig_run(g, NULL), ERR_DENIED, &g->err);
    EXPECT(strstr(g->err.text, "pipe.yaml:4:") != NULL);
    EXPECT(strstr(g->err.text, "CC-BY-NC-4.0 is denied") != NULL);
    EXPECT_EQ(g->count, 0);
    rig_free(g);
}

/* One try each: being asked to stop must not use it up, with a checkpoint or without. */
TEST(stopped_by_a_signal_it_goes_on_with_the_same_run)
{
    static const char once[] = "weir: 1\nname: once\nstages:\n"
                               "  a: {run: \"echo a > {outputs.x}\", outputs: [x]}\n"
                               "  b: {run: \"echo b > {outputs.x}\", outputs: [x]}\n";
    static const struct rig_script script[] = {{"a", "hhd"}, {"b", "iid"}, {0}};
    struct rig *g = rig_new(once);

    g->script = script;
    for (int i = 0; i < 2; i++) {
        g->interrupt_at = 3;
        EXPECT_ERR(rig_run(g, NULL), ERR_STOPPED, &g->err);
        EXPECT_EQ(g->report.run, 1);
        EXPECT_EQ(STOPPED(g), 2);
        rig_expect_clean(g);
    }
    g->interrupt_at = 0;
    EXPECT_OK(rig_run(g, NULL), &g->err);
    EXPECT_EQ(g->report.run, 1);
    EXPECT(g->report.resumed);
    EXPECT_EQ(DONE(g), 2);
    rig_free(g);
}

/* The process is left at each thing that it tells: what was not committed is forgotten, attempts live on. */
TEST(left_anywhere_it_comes_to_the_same_end)
{
    static const struct rig_script script[] = {
        {"a[n=1]", "fd"}, {"a[n=2]", "lcd"}, {"b[n=3]", "ffd"}, {"b[n=4]", "sd"}, {0}};
    int count = 0;

    for (int at = 1; count == 0; at++) {
        struct rig *g = rig_new(wide);
        enum err_code rc;

        g->script = script;
        g->die_at = at;
        rc = rig_run(g, NULL);
        if (rc == OK)
            count = at;
        else
            EXPECT_ERR(rc, ERR_IO, &g->err);
        g->die_at = 0;
        if (rc) {
            EXPECT_OK(rig_run(g, NULL), &g->err);
            EXPECT_EQ(g->report.run, 1);
            EXPECT_EQ(DONE(g) + CACHED(g), 9);
        }
        EXPECT_EQ(rig_starts(g, "all"), 1);
        EXPECT_EQ(rig_starts(g, "a[n=3]"), 1);
        rig_expect_clean(g);
        rig_free(g);
    }
    EXPECT(count > 20);
}

/* The same, left again and again. */
TEST(left_again_and_again)
{
    static const struct rig_script script[] = {
        {"a[n=1]", "fd"}, {"a[n=2]", "lcd"}, {"b[n=3]", "ffd"}, {0}};

    for (int at = 12; at < 18; at++) { /* what is not durable is told again, in each life */
        struct rig *g = rig_new(wide);
        enum err_code rc;
        int lives = 0;

        g->script = script;
        do {
            g->die_at = at + lives % 3;
            rc = rig_run(g, NULL);
        } while (rc == ERR_IO && ++lives < 100);
        EXPECT_OK(rc, &g->err);
        EXPECT_EQ(g->report.run, 1);
        EXPECT_EQ(rig_starts(g, "all"), 1);
        rig_expect_clean(g);
        rig_free(g);
    }
}

/* The pipeline's input has changed between: what is still at work is of no use any more, and harms nobody. */
TEST(attempts_of_another_action_are_not_adopted)
{
    static const struct rig_script script[] = {{"a", "h"}, {0}};
    struct rig *g = rig_new("weir: 1\nname: other\nsources: {s: {path: in.txt, license: MIT}}\n"
                            "stages:\n  a: {run: \"cp {inputs.i} {outputs.x}\", inputs: {i: "
                            "sources.s}, outputs: [x]}\n");

    rig_write(g, "in.txt", "one\n");
    g->script = script;
    g->die_at = 2; /* when a has started */
    EXPECT_ERR(rig_run(g, NULL), ERR_IO, &g->err);
    g->die_at = 0;
    g->script = NULL;
    rig_write(g, "in.txt", "two, and longer\n");
    EXPECT_OK(rig_run(g, NULL), &g->err);
    EXPECT_EQ(g->adopted, 0);
    EXPECT_EQ(DONE(g), 1);
    EXPECT_EQ(rig_starts(g, "a"), 2);
    EXPECT(g->attempts[0].lock >= 0); /* still at it */
    rig_free(g);
}

RUN(all_run_then_none, tries, without_keep_going_the_first_failure_ends_it,
    what_is_lost_uses_no_try_and_is_no_end, a_stop_with_a_newer_checkpoint_uses_no_try,
    equal_actions_run_once, equal_actions_that_fail_each_fail,
    a_forced_task_that_comes_out_otherwise_takes_its_users_along,
    a_forced_task_is_not_forced_again_when_the_run_goes_on, what_is_left_out_and_unknown_blocks,
    sources_of_what_is_not_wanted_are_not_missed, policy_is_asked_before_anything_runs,
    stopped_by_a_signal_it_goes_on_with_the_same_run, left_anywhere_it_comes_to_the_same_end,
    left_again_and_again, attempts_of_another_action_are_not_adopted)
