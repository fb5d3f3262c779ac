/* A folder is used again when nothing in it can be told from a new one, and only then. */
#include <signal.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "tests/attempt_rig.h"

/* What a program can see of its folder: names, modes, link counts of files, sizes but that of its own output. */
#define LOOK                                                                                       \
    "cd $WEIR_TASK_DIR; seen=$(LC_ALL=C find . ! -name attempt.json -printf '%P %y %m %U %G ' "    \
    "\\( -type f -printf '%n %s\\n' -o -printf '\\n' \\) | sort; cat task.json); "                 \
    "printf '%s\\n' \"$seen\" | sed s,$WEIR_TASK_DIR,X,g > out/o"

static void finish(struct executor *e, struct executor_event *ev)
{
    rig_end(e, ev);
    EXPECT_EQ(ev->kind, EXEC_ENDED);
}

/* As an orchestrator does: a new card, a new name. */
static void again(struct rig *r, struct executor *e, const char *old, const char *shell,
                  char path[RIG_PATH])
{
    struct err err = ERR_INIT;

    rig_task_at(r, shell, NULL, old);
    (void)snprintf(path, RIG_PATH, "%s/task-%d", r->dir, r->tasks);
    EXPECT_EQ(rename(old, path), 0);
    EXPECT_OK(e->ops->start_again(e, 2, path, &err), &err);
}

static struct digest look(struct executor *e, bool *spare)
{
    struct executor_event ev;
    struct digest d;

    finish(e, &ev);
    EXPECT_EQ(ev.card.status, ATTEMPT_DONE);
    EXPECT_EQ(ev.card.output_count, 1);
    d = ev.card.outputs[0].digest;
    *spare = ev.spare;
    result_card_release(&ev.card);
    return d;
}

TEST(nothing_is_seen_of_the_attempt_before)
{
    static const char *const before[] = {
        ": > ../out/o",
        "echo secret > ../out/o; echo secret > ../out/other; mkdir -p ../out/d/e; : > ../out/d/e/f",
        "touch .hidden x; mkdir -p a/b; touch a/b/c; chmod 0 x; chmod 500 a; : > ../out/o",
        "for i in 1 2 3; do mkdir ../tmp/$i; ln -s /nowhere ../tmp/$i/l; done; : > ../out/o",
        "for i in $(seq 300); do : > ../tmp/a-long-name-for-a-file-$i; done; : > ../out/o",
        "mkdir ../ckpt/half ../mine; touch ../mine/x ../log.old ../result.json.tmp; : > ../out/o",
        "mkfifo p ../q; ln -s work ../w; : > ../out/o",
        "rm ../task.json ../attempt.json; : > ../out/o",
    };
    struct rig r;
    struct executor *e;
    struct digest fresh;
    bool spare;

    rig_new(&r);
    e = rig_executor(&r, 1);
    {
        struct err err = ERR_INIT;
        char path[RIG_PATH];

        rig_task(&r, LOOK, NULL, path);
        EXPECT_OK(e->ops->start(e, 1, path, &err), &err);
        fresh = look(e, &spare);
        EXPECT(spare);
    }
    for (size_t i = 0; i < sizeof(before) / sizeof(before[0]); i++) {
        struct executor_event ev;
        struct err err = ERR_INIT;
        char path[RIG_PATH], next[RIG_PATH];
        struct digest d;

        rig_task(&r, before[i], NULL, path);
        EXPECT_OK(e->ops->start(e, 1, path, &err), &err);
        finish(e, &ev);
        EXPECT_EQ(ev.card.status, ATTEMPT_DONE);
        if (!ev.spare)
            check_true(false, before[i], __FILE__, __LINE__);
        result_card_release(&ev.card);
        again(&r, e, path, LOOK, next);
        d = look(e, &spare);
        if (!digest_eq(&d, &fresh))
            check_true(false, before[i], __FILE__, __LINE__);
        EXPECT(spare);
    }
    e->ops->close(e);
    rig_free(&r);
}

TEST(what_was_altered_is_not_used_again)
{
    static const char *const shells[] = {
        "chmod 700 ../tmp; : > ../out/o",
        "chmod 777 ..; : > ../out/o",
        "chmod 2755 ../ckpt; : > ../out/o",
        "rmdir ../ckpt; : > ../out/o",
        "rmdir ../tmp; ln -s /tmp ../tmp; : > ../out/o",
        "rm ../task.json; ln -s /etc/passwd ../task.json; : > ../out/o",
        "ln ../task.json ../../kept-$$; : > ../out/o",
        "ln ../attempt.json ../../kept-$$; : > ../out/o",
        "chmod 600 ../task.json; : > ../out/o",
    };
    struct rig r;
    struct executor *e;

    rig_new(&r);
    e = rig_executor(&r, 1);
    for (size_t i = 0; i < sizeof(shells) / sizeof(shells[0]); i++) {
        struct executor_event ev;
        struct err err = ERR_INIT;
        char path[RIG_PATH];

        rig_task(&r, shells[i], NULL, path);
        EXPECT_OK(e->ops->start(e, 1, path, &err), &err);
        finish(e, &ev);
        EXPECT_EQ(ev.card.status, ATTEMPT_DONE);
        if (ev.spare)
            check_true(false, shells[i], __FILE__, __LINE__);
        result_card_release(&ev.card);
    }
    e->ops->close(e);
    rig_free(&r);
}

/* Attributes, by us while the program waits; where the file system has none, there is nothing to be seen either. */
TEST(attributes_are_seen)
{
    struct executor_event ev;
    struct executor *e;
    struct err err = ERR_INIT;
    char path[RIG_PATH], name[RIG_PATH + 16];
    struct rig r;
    bool set;

    rig_new(&r);
    e = rig_executor(&r, 1);
    rig_task(&r, "touch runs; until [ -e go ]; do sleep 0.02; done; : > ../out/o", NULL, path);
    EXPECT_OK(e->ops->start(e, 1, path, &err), &err);
    rig_wait_file(path, "work/runs");
    (void)snprintf(name, sizeof(name), "%s/tmp", path);
    set = setxattr(name, "user.note", "x", 1, 0) == 0;
    (void)snprintf(name, sizeof(name), "%s/work/go", path);
    EXPECT_EQ(mkdir(name, 0755), 0);
    finish(e, &ev);
    EXPECT_EQ(ev.spare, !set);
    result_card_release(&ev.card);
    e->ops->close(e);
    rig_free(&r);
}

/* Without a card the store says it all; where it does not, there is a card, and the folder is not spare. */
TEST(a_card_is_left_where_it_says_more)
{
    static const struct {
        const char *shell, *extra;
        enum attempt_status status;
        bool card;
    } cases[] = {
        {": > ../out/o", "{}", ATTEMPT_DONE, false},
        {"echo words; : > ../out/o", "{}", ATTEMPT_DONE, true},
        {"echo '{\"event\":\"progress\",\"done\":1,\"total\":2,\"unit\":\"x\"}' >&3; : > ../out/o",
         "{}", ATTEMPT_DONE, true},
        {": > ../out/o", "{\"bind\":false}", ATTEMPT_DONE, true},
        {"exit 3", "{}", ATTEMPT_FAILED, true},
        {":", "{}", ATTEMPT_FAILED, true},
    };
    struct rig r;

    rig_new(&r);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct executor_event ev;
        enum attempt_life life;
        struct err err = ERR_INIT;
        char path[RIG_PATH];

        rig_run(&r, cases[i].shell, json_loads(cases[i].extra, 0, NULL), &ev, path);
        EXPECT_EQ(ev.kind, EXEC_ENDED);
        EXPECT_EQ(ev.card.status, cases[i].status);
        EXPECT_EQ(ev.spare, !cases[i].card);
        EXPECT_OK(attempt_life(path, &life, &err), &err);
        EXPECT_EQ(life, cases[i].card ? ATTEMPT_OVER : ATTEMPT_GONE);
        if (!cases[i].card) {
            struct store *st = NULL;
            struct digest found;

            EXPECT_OK(store_open(r.store, STORE_READ, &st, &err), &err);
            /* the key is in the card, which nobody has taken away */
            struct attempt_card card;
            int dir = -1;
            EXPECT_OK(os_open_dir(AT_FDCWD, path, &dir, &err), &err);
            EXPECT_OK(attempt_card_read(dir, &card, &err), &err);
            EXPECT_OK(action_lookup(st, &card.key, &found, &err), &err);
            EXPECT(digest_eq(&found, &ev.card.result));
            attempt_card_release(&card);
            os_close_quiet(&dir);
            store_close(st);
        }
        result_card_release(&ev.card);
    }
    rig_free(&r);
}

RUN(nothing_is_seen_of_the_attempt_before, what_was_altered_is_not_used_again, attributes_are_seen,
    a_card_is_left_where_it_says_more)
