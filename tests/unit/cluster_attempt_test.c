/* What programs do to themselves and to us, and what is said about it. */
#include <sys/mount.h>

#include "cluster/checkpoint.h"
#include "store/materialise.h"
#include "store/reader.h"
#include "tests/attempt_rig.h"

struct misdeed {
    const char *shell;
    const char *extra; /* JSON */
    enum attempt_status status;
    const char *reason; /* a part of it */
};

static void check_misdeeds(const struct misdeed *list, size_t n)
{
    struct rig r;

    rig_new(&r);
    for (size_t i = 0; i < n; i++) {
        json_t *extra = list[i].extra ? json_loads(list[i].extra, 0, NULL) : NULL;
        struct executor_event e;
        char path[RIG_PATH];

        rig_run(&r, list[i].shell, extra, &e, path);
        if (e.kind != EXEC_ENDED || e.card.status != list[i].status ||
            !strstr(e.card.reason, list[i].reason))
            print_message("%s: kind %d status %d '%s' %s\n", list[i].shell, (int)e.kind,
                          (int)e.card.status, e.kind == EXEC_ENDED ? e.card.reason : "", e.reason);
        EXPECT_EQ(e.kind, EXEC_ENDED);
        EXPECT_EQ(e.card.status, list[i].status);
        EXPECT(strstr(e.card.reason, list[i].reason));
        result_card_release(&e.card);
    }
    rig_free(&r);
}

TEST(ends_are_told)
{
    static const struct misdeed list[] = {
        {"echo hi > ../out/o", NULL, ATTEMPT_DONE, ""},
        {"true", NULL, ATTEMPT_FAILED, "output 'o' is not there"},
        {"exit 3", NULL, ATTEMPT_FAILED, "exit status 3"},
        {"exit 64", NULL, ATTEMPT_FAILED, "exit status 64: its card"},
        {"exit 65", NULL, ATTEMPT_FAILED, "exit status 65: its input data"},
        {"exit 75", NULL, ATTEMPT_STOPPED, "by itself"},
        {"kill -SEGV $$", NULL, ATTEMPT_FAILED, "signal 11"},
        {"kill -KILL $$", NULL, ATTEMPT_FAILED, "perhaps the kernel ran out of memory"},
        {"sleep 100", "{\"time_s\":1}", ATTEMPT_STOPPED, "its time was up"},
        {"sleep 100", "{\"timeout_s\":1}", ATTEMPT_FAILED, "its timeout of 1 s was up"},
        {"trap '' TERM; while :; do sleep 0.1; done", "{\"time_s\":1}", ATTEMPT_STOPPED,
         "ignored SIGTERM and was killed"},
        {"trap 'exit 75' TERM; while :; do sleep 0.1; done", "{\"time_s\":1}", ATTEMPT_STOPPED,
         "its time was up"},
        {"exec <&- >&- 2>&- 3>&-; sleep 0.2; echo x > ../out/o", NULL, ATTEMPT_DONE, ""},
        {"[ -z \"$CUDA_VISIBLE_DEVICES\" ] && touch ../out/o", NULL, ATTEMPT_DONE, ""},
        {"[ \"$CUDA_VISIBLE_DEVICES\" = 0,2 ] && touch ../out/o", "{\"gpus\":2,\"gpu_mask\":5}",
         ATTEMPT_DONE, ""},
    };

    check_misdeeds(list, sizeof(list) / sizeof(list[0]));
}

TEST(bad_outputs_are_refused)
{
    static const struct misdeed list[] = {
        {"mkfifo ../out/o", NULL, ATTEMPT_FAILED, "its output cannot be kept"},
        {"mkdir ../out/o; ln -s /etc/passwd ../out/o/p", NULL, ATTEMPT_FAILED,
         "its output cannot be kept"},
        {"mkdir ../out/o; mkfifo ../out/o/p", NULL, ATTEMPT_FAILED, "its output cannot be kept"},
        {"rm -rf \"$WEIR_TASK_DIR\"", NULL, ATTEMPT_FAILED, "output 'o' is not there"},
        {"head -c 2000000 /dev/zero > big; ln big ../out/o", NULL, ATTEMPT_DONE, ""},
    };

    check_misdeeds(list, sizeof(list) / sizeof(list[0]));
}

TEST(memory_is_limited)
{
    static const struct misdeed list[] = {
        {"echo 'terminate called after std::bad_alloc' >&2; exit 1", "{\"memory_bytes\":67108864}",
         ATTEMPT_FAILED, "probably out of memory"},
        {"head -c 300000000 /dev/zero | tail -c 300000000 > ../out/o; exit ${PIPESTATUS:-1}",
         "{\"memory_bytes\":33554432}", ATTEMPT_FAILED, "exit status 1"},
    };

    check_misdeeds(list, sizeof(list) / sizeof(list[0]));
}

TEST(strays_are_killed_and_counted)
{
    struct executor_event e;
    char path[RIG_PATH];
    struct rig r;

    rig_new(&r);
    rig_run(&r, "setsid sh -c 'while :; do sleep 1; done' & sleep 1000 & touch ../out/o", NULL, &e,
            path);
    EXPECT_EQ(e.kind, EXEC_ENDED);
    EXPECT_EQ(e.card.status, ATTEMPT_DONE);
    EXPECT(e.card.strays >= 2);
    result_card_release(&e.card);
    rig_free(&r);
}

TEST(log_is_bounded_and_holds_what_is_no_event)
{
    struct executor_event e;
    char path[RIG_PATH], file[RIG_PATH + 8];
    struct stat st;
    struct rig r;

    rig_new(&r);
    rig_run(&r,
            "echo first; head -c 30000000 /dev/zero | tr '\\0' x; echo last; head -c 30000000 "
            "/dev/zero | tr '\\0' y >&3; echo >&3; echo '{\"event\":\"progress\",\"done\":1}' >&3; "
            "echo nonsense >&3; touch ../out/o",
            json_pack("{s:i}", "log_max", 1 << 20), &e, path);
    EXPECT_EQ(e.kind, EXEC_ENDED);
    EXPECT_EQ(e.card.status, ATTEMPT_DONE);
    (void)snprintf(file, sizeof(file), "%s/log", path);
    EXPECT_EQ(stat(file, &st), 0);
    EXPECT(st.st_size > (1 << 20));
    EXPECT(st.st_size < (1 << 20) + 200);
    EXPECT(e.card.log_bytes > 60000000);
    EXPECT_EQ(e.card.log.size, st.st_size);
    EXPECT(e.card.events.size > 40);
    EXPECT(e.card.events.size < 200);
    result_card_release(&e.card);
    rig_free(&r);
}

/* ---- checkpoints and images -------------------------------------------------------------------- */

static const char trains[] =
    "for i in 1 2 3; do mkdir -p ../ckpt/c$i; echo $i > ../ckpt/c$i/w; "
    "echo \"{\\\"event\\\":\\\"checkpoint\\\",\\\"step\\\":$i,\\\"path\\\":\\\"ckpt/c$i\\\"}\" "
    ">&3; done; "
    "echo '{\"event\":\"checkpoint\",\"step\":9,\"path\":\"../../etc\"}' >&3; "
    "echo '{\"event\":\"checkpoint\",\"step\":9,\"path\":\"/etc/passwd\"}' >&3; ln -s /etc l; "
    "echo '{\"event\":\"checkpoint\",\"step\":9,\"path\":\"work/l\"}' >&3; "
    "echo pic > p.png; "
    "echo '{\"event\":\"image\",\"step\":2,\"path\":\"work/p.png\",\"caption\":\"a cat\"}' >&3; "
    "exit 75";

TEST(checkpoints_and_images_are_kept)
{
    struct checkpoint *list = NULL;
    struct executor_event e;
    struct err err = ERR_INIT;
    struct store *st = NULL;
    char path[RIG_PATH];
    struct rig r;
    size_t n = 0;

    rig_new(&r);
    rig_run(&r, trains,
            json_pack("{s:{s:s, s:i}}", "checkpoints", "ref", "checkpoints/a", "keep", 2), &e,
            path);
    EXPECT_EQ(e.kind, EXEC_ENDED);
    EXPECT_EQ(e.card.status, ATTEMPT_STOPPED);
    EXPECT_EQ(e.card.step, 3);
    EXPECT_EQ(e.card.image_count, 1);
    EXPECT_STR(e.card.images[0].caption, "a cat");
    EXPECT_EQ(e.card.images[0].size, 4);
    EXPECT(e.card.log.size > 0); /* three refusals */
    result_card_release(&e.card);
    EXPECT_OK(store_open(r.dir, STORE_READ, &st, &err), &err);
    EXPECT_OK(checkpoint_list(st, "checkpoints/a", &list, &n, &err), &err);
    store_close(st);
    EXPECT_EQ(n, 2);
    EXPECT_EQ(list[0].step, 2);
    EXPECT_EQ(list[1].step, 3);
    EXPECT_EQ(list[1].kind, OBJ_TREE);

    char digest[DIGEST_TEXT + 1];
    digest_text(&list[1].digest, digest);
    free(list);
    rig_run(&r, "[ \"$(cat $WEIR_RESUME/w)\" = 3 ] && cat $WEIR_TASK > ../out/o",
            json_pack("{s:{s:s, s:s, s:i}}", "resume", "kind", "tree", "digest", digest, "step", 3),
            &e, path);
    EXPECT_EQ(e.kind, EXEC_ENDED);
    EXPECT_EQ(e.card.status, ATTEMPT_DONE);
    EXPECT_EQ(e.card.step, 3);
    result_card_release(&e.card);
    /* one that is gone costs time, nothing else */
    rig_run(&r, "[ -z \"$WEIR_RESUME\" ] && touch ../out/o",
            json_pack("{s:{s:s, s:s, s:i}}", "resume", "kind", "tree", "digest",
                      "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                      "step", 3),
            &e, path);
    EXPECT_EQ(e.card.status, ATTEMPT_DONE);
    EXPECT_EQ(e.card.step, -1);
    result_card_release(&e.card);
    rig_free(&r);
}

/* ---- disks ------------------------------------------------------------------------------------- */

TEST(a_full_scratch_disk_is_nobodys_fault)
{
    char scratch[RIG_PATH], path[RIG_PATH + 8];
    struct executor_event out;
    struct executor *e;
    struct err err = ERR_INIT;
    struct rig r;

    rig_new(&r);
    (void)snprintf(scratch, sizeof(scratch), "%s/scratch", r.dir);
    EXPECT_EQ(mkdir(scratch, 0755), 0);
    if (mount("none", scratch, "tmpfs", 0, "size=2m") != 0) {
        rig_free(&r);
        skip(); /* not root, or a container */
    }
    (void)snprintf(path, sizeof(path), "%s/t", scratch);
    rig_task_at(&r, "head -c 9000000 /dev/zero > ../out/o", NULL, path);
    e = rig_executor(&r, 1);
    EXPECT_OK(e->ops->start(e, 1, path, &err), &err);
    rig_end(e, &out);
    e->ops->close(e);
    EXPECT_EQ(umount2(scratch, MNT_DETACH), 0);
    EXPECT_EQ(out.kind, EXEC_ENDED);
    EXPECT_EQ(out.card.status, ATTEMPT_LOST);
    EXPECT(strstr(out.card.reason, "scratch disk full"));
    EXPECT_STR(out.card.error, err_word(ERR_FULL));
    result_card_release(&out.card);
    rig_free(&r);
}

RUN(ends_are_told, bad_outputs_are_refused, memory_is_limited, strays_are_killed_and_counted,
    log_is_bounded_and_holds_what_is_no_event, checkpoints_and_images_are_kept,
    a_full_scratch_disk_is_nobodys_fault)
