/* What the fake executor promises in fake.h: a world whose attempts go on when nobody listens. */
#include <stdlib.h>
#include <string.h>

#include "cluster/fake.h"
#include "tests/check.h"

static void script(void *arg, const char *task_dir, struct fake_script *out)
{
    (void)arg;
    *out = (struct fake_script){
        .start_ms = 10, .run_ms = 100, .step = 7, .stop_ms = 20, .stop_step = 9, .result = {{5}}};
    if (strcmp(task_dir, "fails") == 0) {
        out->end = ATTEMPT_FAILED;
        out->exit_status = 3;
    }
    out->no_card = strcmp(task_dir, "gone") == 0;
    out->end = out->no_card ? ATTEMPT_LOST : out->end;
    out->late_ms = strcmp(task_dir, "late") == 0 ? 1000 : 0;
    out->twice = strcmp(task_dir, "twice") == 0;
    out->refused = strcmp(task_dir, "refused") == 0;
    out->stop_ms = strcmp(task_dir, "deaf") == 0 ? -1 : out->stop_ms;
}

struct fixture {
    struct fake_world *w;
    struct executor *e;
    struct executor_event got;
    bool any;
};

static struct fixture begin(const char *dir)
{
    struct fixture f = {.w = fake_world_new(script, NULL)};
    struct err err = ERR_INIT;

    f.e = fake_executor(f.w);
    if (dir)
        EXPECT_OK(f.e->ops->start(f.e, 1, dir, &err), &err);
    return f;
}

static void finish(struct fixture *f)
{
    f->e->ops->close(f->e);
    fake_world_free(f->w);
}

/* The next event is of this kind and comes at this time. */
static void expect_event(struct fixture *f, enum executor_event_kind kind, int64_t at_ms)
{
    struct err err = ERR_INIT;

    EXPECT_OK(f->e->ops->poll(f->e, -1, -1, &f->got, &f->any, &err), &err);
    EXPECT(f->any);
    EXPECT_EQ(f->got.kind, kind);
    EXPECT_EQ(fake_now_ms(f->w), at_ms);
}

static void expect_silence(struct fixture *f, int64_t timeout_ms)
{
    struct err err = ERR_INIT;
    const int64_t before = fake_now_ms(f->w);

    EXPECT_OK(f->e->ops->poll(f->e, timeout_ms, -1, &f->got, &f->any, &err), &err);
    EXPECT(!f->any);
    EXPECT_EQ(fake_now_ms(f->w), before + (timeout_ms > 0 ? timeout_ms : 0));
}

TEST(an_attempt_starts_runs_and_ends)
{
    struct fixture f = begin("well");
    struct fake_look look;

    EXPECT(fake_look(f.w, "well", &look) && !look.begun && !look.over);
    EXPECT(!fake_look(f.w, "never", &look));
    expect_silence(&f, 9);
    expect_event(&f, EXEC_STARTED, 10);
    EXPECT_EQ(fake_alive(f.w), 1);
    expect_silence(&f, 50);
    expect_event(&f, EXEC_ENDED, 110);
    EXPECT_EQ(f.got.id, 1);
    EXPECT_EQ(f.got.card.status, ATTEMPT_DONE);
    EXPECT_EQ(f.got.card.wall_ms, 100);
    EXPECT_EQ(f.got.card.step, 7);
    EXPECT_EQ(f.got.card.result.b[0], 5);
    EXPECT_EQ(fake_alive(f.w), 0);
    EXPECT(fake_look(f.w, "well", &look) && look.over && !look.asked && look.end == ATTEMPT_DONE);
    expect_silence(&f, -1);
    finish(&f);
}

TEST(ends_are_as_the_script_says)
{
    struct fixture f = begin("fails");
    struct err err = ERR_INIT;

    expect_event(&f, EXEC_STARTED, 10);
    expect_event(&f, EXEC_ENDED, 110);
    EXPECT_EQ(f.got.card.status, ATTEMPT_FAILED);
    EXPECT_EQ(f.got.card.exit_status, 3);
    EXPECT_OK(f.e->ops->start(f.e, 2, "gone", &err), &err);
    expect_event(&f, EXEC_STARTED, 120);
    expect_event(&f, EXEC_LOST, 220);
    EXPECT_OK(f.e->ops->start(f.e, 3, "late", &err), &err);
    expect_event(&f, EXEC_STARTED, 230);
    expect_event(&f, EXEC_ENDED, 1330);
    EXPECT_EQ(f.got.card.wall_ms, 100);
    EXPECT_OK(f.e->ops->start(f.e, 4, "twice", &err), &err);
    expect_event(&f, EXEC_STARTED, 1340);
    expect_event(&f, EXEC_ENDED, 1440);
    expect_event(&f, EXEC_ENDED, 1440);
    expect_silence(&f, -1);
    EXPECT_ERR(f.e->ops->start(f.e, 5, "refused", &err), ERR_FULL, &err);
    err = (struct err)ERR_INIT;
    EXPECT_ERR(f.e->ops->start(f.e, 6, "late", &err), ERR_EXISTS, &err);
    finish(&f);
}

TEST(stop_is_a_request_and_kill_is_not)
{
    static const struct {
        const char *dir;
        bool kill;
        int64_t ends_ms, step;
        enum attempt_status end;
    } cases[] = {{"well", false, 60, 9, ATTEMPT_STOPPED},
                 {"well", true, 40, 7, ATTEMPT_STOPPED},
                 {"deaf", false, 110, 7, ATTEMPT_DONE},
                 {"deaf", true, 40, 7, ATTEMPT_STOPPED},
                 {"gone", false, 60, 9, ATTEMPT_STOPPED}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture f = begin(cases[i].dir);

        expect_event(&f, EXEC_STARTED, 10);
        expect_silence(&f, 30);
        f.e->ops->stop(f.e, 99, true); /* somebody else's */
        f.e->ops->stop(f.e, 1, cases[i].kill);
        expect_event(&f, EXEC_ENDED, cases[i].ends_ms);
        EXPECT_EQ(f.got.card.status, cases[i].end);
        EXPECT_EQ(f.got.card.step, cases[i].step);
        f.e->ops->stop(f.e, 1, true); /* over: fine */
        finish(&f);
    }
}

TEST(a_stop_that_comes_too_late_changes_nothing)
{
    struct fixture f = begin("well");

    expect_event(&f, EXEC_STARTED, 10);
    expect_silence(&f, 95);
    f.e->ops->stop(f.e, 1, false);
    expect_event(&f, EXEC_ENDED, 110);
    EXPECT_EQ(f.got.card.status, ATTEMPT_DONE);
    finish(&f);
}

TEST(the_world_goes_on_and_the_next_one_adopts)
{
    struct fixture f = begin("well");
    struct err err = ERR_INIT;

    EXPECT_OK(f.e->ops->start(f.e, 2, "fails", &err), &err);
    f.e->ops->close(f.e);
    fake_pass(f.w, 50);
    f.e = fake_executor(f.w);
    EXPECT_OK(f.e->ops->adopt(f.e, 7, "well", &err), &err);
    expect_event(&f, EXEC_STARTED, 50);
    EXPECT_EQ(f.got.id, 7);
    f.e->ops->close(f.e);
    fake_pass(f.w, 500);
    f.e = fake_executor(f.w);
    EXPECT_OK(f.e->ops->adopt(f.e, 8, "fails", &err), &err);
    expect_event(&f, EXEC_ENDED, 550);
    EXPECT_EQ(f.got.card.status, ATTEMPT_FAILED);
    EXPECT_OK(f.e->ops->adopt(f.e, 9, "never", &err), &err);
    expect_event(&f, EXEC_LOST, 550);
    EXPECT_EQ(f.got.id, 9);
    finish(&f);
}

RUN(an_attempt_starts_runs_and_ends, ends_are_as_the_script_says, stop_is_a_request_and_kill_is_not,
    a_stop_that_comes_too_late_changes_nothing, the_world_goes_on_and_the_next_one_adopts)
