/* The ledger under fire: every fallible call failed once, the process killed at each of them and at random instants, a full disk. */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <time.h>

#include "orchestrator/share.h"
#include "tests/ledger_rig.h"

#define BATCH 6
#define BATCHES 3
#define RANDOM_KILLS 25

/* What a session was told is done; in shared memory, because it may be killed. */
struct told {
    volatile int64_t run, batches, ended;
};

/* Begins a run, three commits of a few events with a view each, requests, a claim, and the run's end. */
static enum err_code session(const char *dir, struct told *told, struct err *err)
{
    const struct digest zero = {{0}}, key = {{4}};
    const struct share_limits limits = {4, 1000, 0};
    struct share_take take = {.cpus = 1};
    struct share_owner owner;
    struct ledger_request request;
    struct ledger_run row;
    struct ledger *l = NULL;
    struct share *s = NULL;
    int64_t run = 0, count = 0;
    bool got = false;
    enum err_code rc = ledger_open(dir, LEDGER_WRITE, &l, err);

    if (!rc)
        rc = ledger_begin(l, "flow", &zero, 0, &run, err);
    if (rc)
        goto out;
    told->run = run;
    rc = share_join(l, run, &limits, &s, err);
    if (!rc)
        rc = share_claim(s, &key, "a", &got, &owner, err);
    if (!rc)
        rc = share_take(s, &take, &got, err);
    for (int64_t b = 0; b < BATCHES && !rc; b++) {
        for (int64_t i = 0; i < BATCH && !rc; i++)
            rc = ledger_append(l, run, lrig_body(b * BATCH + i), err);
        ledger_view_set(l, VIEW_TASK, "flow", 4, &b, sizeof(b));
        if (!rc)
            rc = ledger_commit(l, err);
        if (!rc)
            told->batches = b + 1;
    }
    if (!rc)
        rc = ledger_request(l, run, LEDGER_ASK_STOP, NULL, err);
    if (!rc)
        rc = ledger_take_request(l, run, &request, &got, err);
    if (!rc)
        rc = ledger_replay(l, run, 0, lrig_count, &count, err);
    if (!rc)
        rc = ledger_get_run(l, run, &row, err);
    if (rc)
        goto out;
    row.state = RUN_SUCCEEDED;
    ledger_set_run(l, &row);
    rc = ledger_commit(l, err);
    if (!rc)
        told->ended = 1;
out:
    share_leave(s);
    ledger_close(l);
    return rc;
}

/* What was told is there; what was not is there whole or not at all. */
static void check(struct lrig *r, const struct told *told)
{
    struct ledger_run row;
    struct buf view;
    int64_t events, batch = -1;

    lrig_open(r, LEDGER_WRITE);
    EXPECT_OK(ledger_verify(r->l, 0, &events, &r->err), &r->err);
    buf_init(&view, 100);
    if (told->run > 0) {
        EXPECT_OK(ledger_get_run(r->l, told->run, &row, &r->err), &r->err);
        EXPECT_EQ(row.events % BATCH, 0);
        EXPECT(row.events >= told->batches * BATCH);
        EXPECT(row.events <= (told->batches + 1) * BATCH);
        EXPECT(!told->ended || row.state == RUN_SUCCEEDED);
        EXPECT_EQ(lrig_replay(r, told->run), row.events);
        /* The view is that of the last event. */
        if (row.events > 0 && told->run == 1) {
            EXPECT_OK(ledger_view_get(r->l, VIEW_TASK, "flow", 4, &view, &r->err), &r->err);
            EXPECT_EQ(view.n, sizeof(batch));
            memcpy(&batch, view.p, sizeof(batch));
            EXPECT_EQ(batch, row.events / BATCH - 1);
        }
    }
    buf_release(&view);
    ledger_close(r->l);
    r->l = NULL;
}

static void fresh(struct lrig *r)
{
    *r = (struct lrig){.err = ERR_INIT};
    tmpdir_new(r->dir);
}

TEST(every_call_fails_once)
{
    bool fired = true;
    int64_t n = 0;

    for (; fired; n++) {
        struct told told = {0}, again = {0};
        struct lrig r;
        struct err err = ERR_INIT, second = ERR_INIT;

        fresh(&r);
        fault_arm(n);
        const enum err_code rc = session(r.dir, &told, &err);
        fired = fault_disarm();
        if (!fired)
            EXPECT_OK(rc, &err);
        check(&r, &told);
        EXPECT_OK(session(r.dir, &again, &second),
                  &second); /* and the next one finds all in order */
        EXPECT(again.run > told.run);
        lrig_free(&r);
    }
    EXPECT(n > 50);
}

/* A commit that failed is tried again in the same process, and nothing is lost or doubled. */
TEST(a_failed_commit_may_be_repeated)
{
    bool fired = true;

    for (int64_t n = 0; fired; n++) {
        struct lrig r;

        setenv("WEIR_LEDGER_BATCH", "2000", 1); /* several transactions */
        lrig_new(&r);
        unsetenv("WEIR_LEDGER_BATCH");
        const int64_t run = lrig_begin(&r, "flow");
        for (int64_t i = 0; i < 20; i++)
            EXPECT_OK(ledger_append(r.l, run, lrig_body(i), &r.err), &r.err);
        fault_arm(n);
        const enum err_code rc = ledger_commit(r.l, &r.err);
        fired = fault_disarm();
        EXPECT_EQ(rc != OK, fired);
        EXPECT_EQ(ledger_dirty(r.l), fired);
        EXPECT_OK(ledger_commit(r.l, &r.err), &r.err);
        lrig_events(&r, run, 20, 5);
        EXPECT_EQ(lrig_replay(&r, run), 25);
        lrig_free(&r);
    }
}

static struct told *told_new(void)
{
    struct told *t =
        mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    EXPECT(t != MAP_FAILED);
    return t;
}

TEST(killed_at_every_call)
{
    struct told *told = told_new();
    int status = 128 + SIGKILL;
    int64_t n = 0;

    for (; status != 0; n++) {
        struct lrig r;
        char fault[32];

        fresh(&r);
        *told = (struct told){0};
        snprintf(fault, sizeof(fault), "%lld:kill", (long long)n);
        const pid_t pid = fork();
        if (pid == 0) {
            struct err err = ERR_INIT;

            setenv("WEIR_FAULT", fault, 1);
            fault_from_env();
            _exit(session(r.dir, told, &err) == OK ? 0 : 1);
        }
        status = lrig_wait(pid);
        EXPECT(status == 0 || status == 128 + SIGKILL);
        check(&r, told);
        lrig_free(&r);
    }
    EXPECT(n > 50);
    munmap(told, sizeof(*told));
}

/* Between the calls of LMDB's own that the seam does not see. */
TEST(killed_at_random_instants)
{
    struct told *told = told_new();
    uint64_t seed = (uint64_t)os_now_ns();
    struct lrig r;

    printf("seed %llu\n", (unsigned long long)seed);
    fresh(&r);
    for (int i = 0; i < RANDOM_KILLS; i++) {
        struct timespec delay = {0};

        *told = (struct told){0};
        const pid_t pid = fork();
        if (pid == 0) {
            struct err err = ERR_INIT;

            while (session(r.dir, told, &err) == OK)
                *told = (struct told){0};
            fprintf(stderr, "%s\n", err.text);
            _exit(1);
        }
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        delay.tv_nsec = (long)(seed >> 33) % 30000000;
        nanosleep(&delay, NULL);
        EXPECT_EQ(kill(pid, SIGKILL), 0);
        EXPECT_EQ(lrig_wait(pid), 128 + SIGKILL);
        check(&r, told);
    }
    lrig_free(&r);
    munmap(told, sizeof(*told));
}

#define NO_MOUNT 77
/* In a child with a tiny file system of its own. */
static int on_a_full_disk(struct lrig *r)
{
    char path[TMPDIR_MAX + 16];
    int64_t appended = 0, committed = 0;
    enum err_code rc = OK;

    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
        return NO_MOUNT;
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", r->dir, "tmpfs", 0, "size=1m") != 0)
        return NO_MOUNT;
    lrig_open(r, LEDGER_WRITE);
    const int64_t run = lrig_begin(r, "flow");
    snprintf(path, sizeof(path), "%s/ballast", r->dir);
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || posix_fallocate(fd, 0, 300 << 10) != 0)
        return 2;
    while (!rc && appended < 100000) {
        for (int i = 0; i < 50; i++)
            if (ledger_append(r->l, run, lrig_body(appended++), &r->err))
                return 3;
        rc = ledger_commit(r->l, &r->err);
        if (!rc)
            committed = appended;
    }
    if (rc != ERR_FULL || lrig_replay(r, run) != committed)
        return 4;
    if (ftruncate(fd, 0) != 0) /* room again: the same process goes on */
        return 5;
    close(fd);
    r->err = (struct err)ERR_INIT;
    if (ledger_commit(r->l, &r->err) || lrig_replay(r, run) != appended)
        return 6;
    lrig_open(r, LEDGER_READ);
    if (lrig_replay(r, run) != appended)
        return 7;
    ledger_close(r->l);
    return 0;
}

TEST(a_full_disk_loses_nothing)
{
    struct lrig r;

    fresh(&r);
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0)
        _exit(on_a_full_disk(&r));
    const int status = lrig_wait(pid);
    if (status == NO_MOUNT)
        printf("a_full_disk_loses_nothing: not tried, no right to mount\n");
    else
        EXPECT_EQ(status, 0);
    lrig_free(&r);
}

RUN(every_call_fails_once, a_failed_commit_may_be_repeated, killed_at_every_call,
    killed_at_random_instants, a_full_disk_loses_nothing)
