/* What concurrent runs agree about: claims, parts of the machine, and what the dead leave behind. */
#include <fcntl.h>
#include <signal.h>

#include "orchestrator/share.h"
#include "tests/ledger_rig.h"

static const struct share_limits machine = {4, 1000, 2};

static struct share *join(struct lrig *r, int64_t run)
{
    struct share *s = NULL;

    EXPECT_OK(share_join(r->l, run, &machine, &s, &r->err), &r->err);
    return s;
}

static bool take(struct lrig *r, struct share *s, int64_t cpus, int64_t memory, int64_t gpus,
                 struct share_take *out)
{
    struct share_take t = {.cpus = cpus, .memory_bytes = memory, .gpus = gpus};
    bool got;

    EXPECT_OK(share_take(s, &t, &got, &r->err), &r->err);
    if (out)
        *out = t;
    return got;
}

static bool claim(struct lrig *r, struct share *s, uint8_t key, struct share_owner *owner)
{
    const struct digest d = {{key}};
    struct share_owner mine;
    bool got;

    EXPECT_OK(share_claim(s, &d, "sft[variant=a]", &got, owner ? owner : &mine, &r->err), &r->err);
    return got;
}

TEST(a_claim_belongs_to_one)
{
    struct lrig r;
    struct share_owner owner;
    const struct digest key = {{1}};

    lrig_new(&r);
    struct share *a = join(&r, 1), *b = join(&r, 2);
    EXPECT(claim(&r, a, 1, NULL));
    EXPECT(claim(&r, a, 1, NULL)); /* again */
    EXPECT(!claim(&r, b, 1, &owner));
    EXPECT_EQ(owner.run, 1);
    EXPECT_EQ(owner.pid, getpid());
    EXPECT_STR(owner.task, "sft[variant=a]");
    EXPECT(claim(&r, b, 2, NULL));
    EXPECT_OK(share_release(b, &key, &r.err), &r.err); /* not its own: nothing happens */
    EXPECT(!claim(&r, b, 1, &owner));
    EXPECT_OK(share_release(a, &key, &r.err), &r.err);
    EXPECT(share_unsettled(a));
    EXPECT_OK(share_settle(a, &r.err), &r.err);
    EXPECT(!share_unsettled(a));
    EXPECT(claim(&r, b, 1, NULL));
    share_leave(b); /* with all its claims */
    EXPECT(claim(&r, a, 1, NULL));
    EXPECT(claim(&r, a, 2, NULL));
    share_leave(a);
    share_leave(NULL);
    lrig_free(&r);
}

TEST(the_machine_is_divided)
{
    struct lrig r;
    struct share_take x, y;

    lrig_new(&r);
    struct share *a = join(&r, 1), *b = join(&r, 2);
    EXPECT(take(&r, a, 3, 400, 1, &x));
    EXPECT_EQ(x.gpu_mask, 1);
    EXPECT(!take(&r, b, 2, 0, 0, NULL));
    EXPECT(!take(&r, b, 1, 601, 0, NULL));
    EXPECT(!take(&r, b, 1, 0, 2, NULL));
    EXPECT(take(&r, b, 1, 600, 1, &y));
    EXPECT_EQ(y.gpu_mask, 2);
    EXPECT(!take(&r, a, 1, 0, 0, NULL));
    EXPECT_OK(share_give(b, &y, &r.err), &r.err);
    EXPECT(take(&r, a, 1, 0, 0, NULL));
    EXPECT(!take(&r, b, 9, 0, 0, NULL)); /* larger than the machine, while others have something */
    share_leave(a);
    EXPECT(take(&r, b, 9, 5000, 5, &y));
    EXPECT_EQ(y.gpu_mask, 3); /* all there are */
    EXPECT_EQ(y.gpus, 2);
    EXPECT(!take(&r, b, 0, 0, 1, NULL)); /* a device is given once */
    share_leave(b);
    lrig_free(&r);
}

/* Who is alone writes nothing for what one attempt gives and the next one takes; a newcomer sees what was written last, never less. */
TEST(alone_or_not)
{
    const struct digest key = {{7}};
    struct lrig r;
    struct share_take x, y;

    lrig_new(&r);
    struct share *a = join(&r, 1);
    EXPECT(take(&r, a, 2, 100, 0, &x));
    EXPECT(take(&r, a, 2, 100, 1, &y));
    EXPECT_OK(share_give(a, &x, &r.err), &r.err);
    EXPECT_OK(share_give(a, &y, &r.err), &r.err);
    EXPECT(take(&r, a, 2, 100, 0, &x));
    struct share *b = join(&r, 2);
    EXPECT_OK(share_settle(a, &r.err), &r.err);
    EXPECT(!take(&r, b, 3, 0, 0, NULL)); /* a has two of the four */
    EXPECT(take(&r, b, 2, 900, 2, NULL));
    EXPECT_OK(share_give(a, &x, &r.err), &r.err);
    EXPECT_OK(share_settle(a, &r.err), &r.err);
    EXPECT(take(&r, b, 2, 100, 0, NULL));
    EXPECT(!take(&r, a, 1, 0, 0, NULL));
    EXPECT(!share_unsettled(a));
    EXPECT(claim(&r, a, 7, NULL));
    EXPECT_OK(share_release(a, &key, &r.err), &r.err);
    EXPECT(claim(&r, a, 7, NULL)); /* one's own order counts */
    EXPECT(!claim(&r, b, 7, NULL));
    share_leave(a);
    share_leave(b);
    lrig_free(&r);
}

/* A child that joins as run 9, takes claim 5 and three cpus, and waits to be killed. */
static pid_t holder(struct lrig *r)
{
    int ready[2];
    char byte;

    EXPECT_EQ(pipe(ready), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        struct lrig mine = *r;

        mine.l = NULL;
        lrig_open(&mine, LEDGER_WRITE);
        struct share *s = join(&mine, 9);
        if (!claim(&mine, s, 5, NULL) || !take(&mine, s, 3, 0, 1, NULL))
            _exit(1);
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    EXPECT_EQ(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

TEST(the_dead_hold_nothing)
{
    struct lrig r;
    struct share_owner owner;
    struct process_id runner;
    bool alive;

    lrig_new(&r);
    EXPECT_OK(share_runner(r.l, 9, &runner, &alive, &r.err), &r.err);
    EXPECT(!alive);
    const pid_t pid = holder(&r);
    struct share *s = join(&r, 1);
    EXPECT_OK(share_runner(r.l, 9, &runner, &alive, &r.err), &r.err);
    EXPECT(alive);
    EXPECT_EQ(runner.pid, pid);
    EXPECT(process_alive(&runner));
    EXPECT_OK(share_runner(r.l, 8, &runner, &alive, &r.err), &r.err);
    EXPECT(!alive);
    EXPECT(!claim(&r, s, 5, &owner));
    EXPECT_EQ(owner.run, 9);
    EXPECT_EQ(owner.pid, pid);
    EXPECT(!take(&r, s, 2, 0, 0, NULL));
    EXPECT_EQ(kill(pid, SIGKILL), 0);
    siginfo_t info;
    EXPECT_EQ(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0); /* a zombie has ended too */
    EXPECT_OK(share_runner(r.l, 9, &runner, &alive, &r.err), &r.err);
    EXPECT(!alive);
    EXPECT(claim(&r, s, 5, NULL));
    EXPECT(take(&r, s, 4, 0, 2, NULL));
    EXPECT_EQ(lrig_wait(pid), 128 + SIGKILL);
    share_leave(s);
    lrig_free(&r);
}

TEST(a_process_is_more_than_its_number)
{
    struct process_id self, other;

    process_self(&self);
    EXPECT_EQ(self.pid, getpid());
    EXPECT(self.start > 0);
    EXPECT_EQ(strlen(self.boot), 36);
    EXPECT(process_alive(&self));
    other = self;
    other.start++;
    EXPECT(!process_alive(&other));
    other = self;
    other.boot[0] = other.boot[0] == '0' ? '1' : '0';
    EXPECT(!process_alive(&other));
    other = self;
    other.pid = 0;
    EXPECT(!process_alive(&other));
}

TEST(earlier_boots_are_cleared_away)
{
    struct lrig r;
    char path[TMPDIR_MAX + 64];
    struct stat st;

    lrig_new(&r);
    snprintf(path, sizeof(path), "%s/ledger/share-00000000-dead", r.dir);
    EXPECT_OK(os_mkdirs(path, 0755, &r.err), &r.err);
    struct share *s = join(&r, 1);
    EXPECT(stat(path, &st) != 0);
    share_leave(s);
    lrig_free(&r);
}

#define RIVALS 4
#define KEYS 200
/* Each of several processes counts the keys that it got: together they got each once. */
TEST(rivals_get_each_claim_once)
{
    struct lrig r;
    int counts[2], got = 0, go[2];
    char byte;

    lrig_new(&r);
    ledger_close(r.l);
    r.l = NULL;
    EXPECT_EQ(pipe(counts), 0);
    EXPECT_EQ(pipe(go), 0);
    pid_t pids[RIVALS];
    for (int i = 0; i < RIVALS; i++) {
        pids[i] = fork();
        if (pids[i] > 0)
            continue;
        close(go[1]);
        lrig_open(&r, LEDGER_WRITE);
        struct share *s = join(&r, i + 1);
        for (int k = 0; k < KEYS; k++)
            if (claim(&r, s, (uint8_t)k, NULL) && write(counts[1], "x", 1) != 1)
                _exit(1);
        close(counts[1]);
        if (read(go[0], &byte, 1) != 0) /* nobody leaves before all are through */
            _exit(1);
        share_leave(s);
        ledger_close(r.l);
        _exit(0);
    }
    close(counts[1]);
    while (read(counts[0], &byte, 1) == 1)
        got++;
    close(go[1]);
    for (int i = 0; i < RIVALS; i++)
        EXPECT_EQ(lrig_wait(pids[i]), 0);
    EXPECT_EQ(got, KEYS);
    close(counts[0]);
    close(go[0]);
    lrig_free(&r);
}

RUN(a_claim_belongs_to_one, the_machine_is_divided, alone_or_not, the_dead_hold_nothing,
    a_process_is_more_than_its_number, earlier_boots_are_cleared_away, rivals_get_each_claim_once)
