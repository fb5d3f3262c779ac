/* Every fallible call of an attempt failing once: a right result, a lost attempt, or none; never a wrong one. */
#include <sys/wait.h>

#include "tests/attempt_rig.h"

static int run_exec(const struct rig *r, const char *path, int fault)
{
    const pid_t pid = fork();
    int status = -1;

    if (pid == 0) {
        char text[32];
        const int null = open("/dev/null", O_WRONLY);

        (void)snprintf(text, sizeof(text), "%d", fault);
        if (fault >= 0)
            (void)setenv("WEIR_FAULT", text, 1);
        (void)dup2(null, 2);
        (void)execl(r->exec, r->exec, path, (char *)NULL);
        _exit(99);
    }
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT(WIFEXITED(status));
    return WEXITSTATUS(status);
}

#define QUIET_MAX 40 /* so many good ones in a row: past the last call that counts */

static void sweep(const char *shell, enum attempt_status usual)
{
    int quiet = 0, lost = 0, none = 0;
    struct digest right = {{0}};
    struct rig r;

    rig_new(&r);
    for (int nth = -1; quiet < QUIET_MAX; nth++) {
        struct result_card card = {0};
        enum attempt_life life;
        struct err err = ERR_INIT;
        char path[RIG_PATH];
        int dir = -1, status;

        EXPECT(nth < 5000);
        rig_task(&r, shell, NULL, path);
        r.tasks = 0; /* the same action and folder each time */
        status = run_exec(&r, path, nth);
        EXPECT_OK(attempt_life(path, &life, &err), &err);
        EXPECT(life != ATTEMPT_ALIVE);
        if (status == 0)
            EXPECT_EQ(life, ATTEMPT_OVER);
        if (life == ATTEMPT_GONE) {
            none++;
            quiet = 0;
        } else {
            EXPECT_OK(os_open_dir(AT_FDCWD, path, &dir, &err), &err);
            EXPECT_OK(result_card_read(dir, &card, &err), &err);
            if (card.status == ATTEMPT_LOST) {
                lost++;
                quiet = 0;
            } else {
                EXPECT_EQ(card.status, usual);
                quiet++;
            }
            if (card.status == ATTEMPT_DONE) {
                if (nth < 0)
                    right = card.result;
                EXPECT_MEM(card.result.b, right.b, DIGEST_BYTES);
            }
            result_card_release(&card);
            os_close_quiet(&dir);
        }
        EXPECT_OK(os_remove_tree(AT_FDCWD, path, &err), &err);
    }
    EXPECT(lost > 5);
    EXPECT(none > 0);
    rig_free(&r);
}

TEST(an_attempt_survives_any_single_fault)
{
    sweep("mkdir ../out/o; echo hi > ../out/o/a; head -c 1500000 /dev/zero > ../out/o/b; echo said",
          ATTEMPT_DONE);
}

TEST(a_failure_stays_a_failure)
{
    sweep("echo no; exit 3", ATTEMPT_FAILED);
}

RUN(an_attempt_survives_any_single_fault, a_failure_stays_a_failure)
