/* Start, stop, kill; a resident that dies; an orchestrator that dies and is followed by another one. */
#include <signal.h>
#include <sys/wait.h>

#include "tests/attempt_rig.h"

TEST(many_attempts_share_residents)
{
    struct executor *e;
    struct err err = ERR_INIT;
    int ended = 0;
    struct rig r;

    rig_new(&r);
    e = rig_executor(&r, 2);
    for (int i = 0; i < 20; i++) {
        char path[RIG_PATH];

        rig_task(&r, "echo $WEIR_TASK_DIR > ../out/o", NULL, path);
        EXPECT_OK(e->ops->start(e, (uint64_t)i, path, &err), &err);
    }
    while (ended < 20) {
        struct executor_event ev;

        rig_end(e, &ev);
        EXPECT_EQ(ev.kind, EXEC_ENDED);
        EXPECT_EQ(ev.card.status, ATTEMPT_DONE);
        EXPECT_EQ(ev.card.output_count, 1);
        result_card_release(&ev.card);
        ended++;
    }
    e->ops->close(e);
    rig_free(&r);
}

/* Starts an attempt that says when it runs, and waits for that. */
static void begin(struct rig *r, struct executor *e, const char *shell, char path[RIG_PATH])
{
    struct executor_event ev;
    struct err err = ERR_INIT;

    rig_task(r, shell, NULL, path);
    EXPECT_OK(e->ops->start(e, 1, path, &err), &err);
    rig_next(e, &ev);
    EXPECT_EQ(ev.kind, EXEC_STARTED);
    EXPECT(ev.pid > 1);
    rig_wait_file(path, "work/runs");
}

TEST(stop_and_kill)
{
    struct executor_event ev;
    enum attempt_life life;
    struct executor *e;
    struct err err = ERR_INIT;
    char path[RIG_PATH];
    struct rig r;

    rig_new(&r);
    e = rig_executor(&r, 1);
    begin(&r, e, "trap 'exit 75' TERM; touch runs; while :; do sleep 0.05; done", path);
    EXPECT_OK(attempt_life(path, &life, &err), &err);
    EXPECT_EQ(life, ATTEMPT_ALIVE);
    e->ops->stop(e, 1, false);
    rig_end(e, &ev);
    EXPECT_EQ(ev.kind, EXEC_ENDED);
    EXPECT_EQ(ev.card.status, ATTEMPT_STOPPED);
    EXPECT_EQ(ev.card.exit_status, 75);
    result_card_release(&ev.card);
    EXPECT_OK(attempt_life(path, &life, &err), &err);
    EXPECT_EQ(life, ATTEMPT_OVER);

    begin(&r, e, "trap '' TERM; touch runs; while :; do sleep 0.05; done", path);
    e->ops->stop(e, 1, true);
    rig_end(e, &ev);
    EXPECT_EQ(ev.kind, EXEC_ENDED);
    EXPECT_EQ(ev.card.status, ATTEMPT_STOPPED);
    EXPECT_STR(ev.card.reason, "killed on request");
    result_card_release(&ev.card);
    e->ops->stop(e, 1, true); /* over: fine */
    e->ops->close(e);
    rig_free(&r);
}

TEST(a_killed_resident_loses_its_attempt_only)
{
    struct executor_event ev;
    enum attempt_life life;
    struct executor *e;
    struct err err = ERR_INIT;
    char path[RIG_PATH];
    struct rig r;

    rig_new(&r);
    e = rig_executor(&r, 1);
    begin(&r, e, "touch runs; sleep 1000", path);
    rig_wait_file(path, ATTEMPT_PID);
    EXPECT(attempt_supervisor(path) > 1);
    EXPECT_EQ(kill(attempt_supervisor(path), SIGKILL), 0);
    rig_end(e, &ev);
    EXPECT_EQ(ev.kind, EXEC_LOST);
    EXPECT(strstr(ev.reason, "killed by signal 9"));
    EXPECT_OK(attempt_life(path, &life, &err), &err);
    EXPECT_EQ(life, ATTEMPT_GONE);
    rig_task(&r, "touch ../out/o", NULL, path);
    EXPECT_OK(e->ops->start(e, 2, path, &err), &err);
    rig_end(e, &ev);
    EXPECT_EQ(ev.kind, EXEC_ENDED);
    EXPECT_EQ(ev.card.status, ATTEMPT_DONE);
    result_card_release(&ev.card);
    e->ops->close(e);
    rig_free(&r);
}

/* An orchestrator that starts an attempt and is killed. */
static void orphan(struct rig *r, const char *shell, char path[RIG_PATH])
{
    pid_t pid;

    rig_task(r, shell, NULL, path);
    pid = fork();
    if (pid == 0) {
        struct executor *e = rig_executor(r, 1);
        struct executor_event ev;
        struct err err = ERR_INIT;

        if (e->ops->start(e, 1, path, &err))
            _exit(1);
        rig_next(e, &ev);
        rig_wait_file(path, "work/runs");
        (void)raise(SIGKILL);
    }
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT(WIFSIGNALED(status));
}

TEST(another_orchestrator_adopts)
{
    struct executor_event ev;
    struct executor *e;
    struct err err = ERR_INIT;
    char path[RIG_PATH];
    FILE *go;
    struct rig r;

    rig_new(&r);
    e = rig_executor(&r, 1);
    orphan(&r, "touch runs; until [ -e go ]; do sleep 0.02; done; touch ../out/o", path);
    EXPECT_OK(e->ops->adopt(e, 5, path, &err), &err);
    {
        char name[RIG_PATH + 16];

        (void)snprintf(name, sizeof(name), "%s/work/go", path);
        go = fopen(name, "w");
        assert_non_null(go);
        (void)fclose(go);
    }
    rig_end(e, &ev);
    EXPECT_EQ(ev.kind, EXEC_ENDED);
    EXPECT_EQ(ev.id, 5);
    EXPECT_EQ(ev.card.status, ATTEMPT_DONE);
    result_card_release(&ev.card);
    EXPECT_OK(e->ops->adopt(e, 6, path, &err), &err); /* over already: at once */
    rig_end(e, &ev);
    EXPECT_EQ(ev.kind, EXEC_ENDED);
    result_card_release(&ev.card);

    orphan(&r, "trap 'exit 75' TERM; touch runs; while :; do sleep 0.02; done", path);
    EXPECT_OK(e->ops->adopt(e, 7, path, &err), &err);
    e->ops->stop(e, 7, false);
    rig_end(e, &ev);
    EXPECT_EQ(ev.kind, EXEC_ENDED);
    EXPECT_EQ(ev.card.status, ATTEMPT_STOPPED);
    result_card_release(&ev.card);

    orphan(&r, "touch runs; sleep 1000", path);
    rig_wait_file(path, ATTEMPT_PID);
    EXPECT_OK(e->ops->adopt(e, 8, path, &err), &err);
    EXPECT_EQ(kill(attempt_supervisor(path), SIGKILL), 0);
    rig_end(e, &ev);
    EXPECT_EQ(ev.kind, EXEC_LOST);
    e->ops->close(e);
    rig_free(&r);
}

RUN(many_attempts_share_residents, stop_and_kill, a_killed_resident_loses_its_attempt_only,
    another_orchestrator_adopts)
