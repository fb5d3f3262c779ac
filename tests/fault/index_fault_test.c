/* The index under fire: every fallible call failed once, writers killed at every seam call and at
 * random instants. */
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/index_rig.h"

#define RANDOM_KILLS 20 /* each is checked against a rebuild of all that came before */

/* What every run starts from: three packs merged, two not; one loose file. */
struct scene {
    struct rig r;
    struct digest packs[5];
    struct digest loose;
    struct digest first; /* packs[1] holds no binds or refs: it may be deleted */
};

static void scene_new(struct scene *s)
{
    struct index *ix;
    struct err err = ERR_INIT;

    rig_new(&s->r);
    s->packs[0] = rig_pack_all_types(&s->r, 100);
    s->packs[1] = rig_pack_blobs(&s->r, 0, 20);
    s->packs[2] = rig_pack_blobs(&s->r, 10, 20);
    s->packs[3] = rig_pack_all_types(&s->r, 300);
    s->packs[4] = rig_pack_blobs(&s->r, 25, 20);
    s->loose = rig_id(106);
    rig_loose_file(&s->r, rig_id(106), 16);
    rig_loose_file(&s->r, rig_id(107), 1 << 21);
    rig_loose_file(&s->r, rig_id(306), 16);
    rig_loose_file(&s->r, rig_id(307), 1 << 21);
    EXPECT_OK(index_open(s->r.index, INDEX_WRITE, &ix, &err), &err);
    EXPECT_OK(rig_commit(&s->r, ix, s->packs, 3, &err), &err);
    index_close(ix);
}

static enum err_code delete_file(int dir, const char *name, struct err *err)
{
    const enum err_code rc = os_unlink(dir, name, err);

    return rc == ERR_NOT_FOUND ? OK : rc;
}

/* The end of a gc, as often as needed. */
static enum err_code finish_gc(struct rig *r, struct index *ix, struct err *err)
{
    char hex[DIGEST_HEX + 1], name[DIGEST_HEX + 2];
    struct condemned c;
    enum err_code rc = index_condemned(ix, &c, err);

    if (rc)
        return rc;
    rc = index_purge(ix, err);
    for (size_t i = 0; i < c.pack_count && !rc; i++) {
        digest_hex(&c.packs[i], hex);
        rc = delete_file(r->packs, hex, err);
    }
    for (size_t i = 0; i < c.loose_count && !rc; i++) {
        digest_hex(&c.loose[i], hex);
        snprintf(name, sizeof(name), "%.2s/%s", hex, hex + 2);
        rc = delete_file(r->loose, name, err);
    }
    if (!rc)
        rc = index_absolve(ix, &c, err);
    free(c.packs);
    free(c.loose);
    return rc;
}

static enum err_code commit_more(struct scene *s, struct index *ix, struct err *err)
{
    static const struct touch_row touch = {{{1}}, OBJ_BLOB, 77};
    static const struct memo_row memo[5] = {{{1, 1, 1, 1, 1}, {{1}}}, {{1, 2, 1, 1, 1}, {{2}}}};
    const struct digest reused = rig_id(25);
    struct pack *p = NULL;
    enum err_code rc = pack_open(s->r.packs, &s->packs[4], &p, err);

    if (!rc) {
        const struct index_commit c = {.packs = &p,
                                       .pack_count = 1,
                                       .reused = &reused,
                                       .reused_count = 1,
                                       .touch = &touch,
                                       .touch_count = 1,
                                       .memo = memo,
                                       .memo_count = 5};
        rc = index_commit(ix, &c, err);
    }
    pack_close(p);
    return rc;
}

static enum err_code collect(struct scene *s, struct index *ix, struct err *err)
{
    const struct condemned c = {&s->packs[1], 1, &s->loose, 1};
    struct index_stat st;
    int64_t commits;
    bool raced = false;
    enum err_code rc = index_stat(ix, &st, err);

    if (!rc)
        rc = index_condemn(ix, &c, st.commits, &raced, &commits, err);
    if (!rc)
        EXPECT(!raced);
    return rc ? rc : finish_gc(&s->r, ix, err);
}

static enum err_code ask(struct index *ix, struct err *err)
{
    const struct memo_key key = {1, 1, 1, 1, 1};
    const struct digest ids[3] = {rig_id(1), rig_id(101), rig_id(106)};
    struct digest cursor = {{0}}, got[4], memo;
    struct loc locs[4];
    struct ref_row *refs = NULL;
    struct pack_row *packs = NULL;
    bool started = false, found;
    size_t n = 1;
    enum err_code rc = index_get(ix, ids, 3, locs, err);

    while (!rc && n > 0)
        rc = index_scan(ix, &cursor, &started, got, locs, 4, &n, err);
    if (!rc)
        rc = index_memo_get(ix, &key, 1, &memo, &found, err);
    if (!rc)
        rc = index_refs(ix, STR(""), REF_ALL, &refs, &n, err);
    if (!rc)
        rc = index_packs(ix, &packs, &n, err);
    free(refs);
    free(packs);
    return rc;
}

/* One of everything. */
static enum err_code session(struct scene *s, struct err *err)
{
    char name[] = "lease";
    const struct lease_row lease = {
        .name = name, .expiry_ns = 5, .kind = OBJ_BLOB, .digest = rig_id(26)};
    const struct digest drop = rig_id(99999);
    struct index *ix;
    int64_t merged;
    enum err_code rc = index_open(s->r.index, INDEX_WRITE, &ix, err);

    if (!rc)
        rc = commit_more(s, ix, err);
    if (!rc)
        rc = index_lease(ix, &lease, err);
    if (!rc)
        rc = index_sync(ix, s->r.packs, &merged, err);
    if (!rc)
        rc = collect(s, ix, err);
    if (!rc)
        rc = index_drop_objects(ix, &drop, 1, err);
    if (!rc)
        rc = index_forget_touch(ix, 78, err);
    if (!rc)
        rc = index_drop_memo(ix, err);
    if (!rc)
        rc = ask(ix, err);
    index_close(ix);
    return rc;
}

/* After anything: it opens, what was begun can be ended, and it says what the files say. */
static void check_scene(struct scene *s)
{
    struct err err = ERR_INIT;
    struct index *ix;
    int64_t merged;

    EXPECT_OK(index_open(s->r.index, INDEX_WRITE, &ix, &err), &err);
    EXPECT_OK(finish_gc(&s->r, ix, &err), &err);
    EXPECT_OK(index_sync(ix, s->r.packs, &merged, &err), &err);
    rig_same_as_rebuilt(&s->r, ix);
    index_close(ix);
}

TEST(the_index_survives_any_single_fault)
{
    bool fired = true;
    int nth;

    EXPECT_EQ(setenv("WEIR_INDEX_BATCH", "6", 1), 0);
    for (nth = 0; fired; nth++) {
        struct err err = ERR_INIT;
        struct scene s;

        scene_new(&s);
        fault_arm(nth);
        const enum err_code rc = session(&s, &err);
        fired = fault_disarm();
        if (fired != (rc != OK))
            print_error("call %d: %d %s\n", nth, (int)rc, err.text);
        EXPECT_EQ(fired, rc != OK);
        if (rc)
            EXPECT(rc == ERR_IO || rc == ERR_FULL);
        check_scene(&s);
        rig_close(&s.r);
    }
    EXPECT(nth > 100); /* it did count the calls of LMDB */
    EXPECT_EQ(unsetenv("WEIR_INDEX_BATCH"), 0);
}

TEST(rebuild_survives_any_single_fault)
{
    struct err err = ERR_INIT;
    struct rebuild_report report;
    bool fired = true;
    char *before, *after;
    struct index *ix;
    struct scene s;

    scene_new(&s);
    check_scene(&s);
    EXPECT_OK(index_open(s.r.index, INDEX_READ, &ix, &err), &err);
    before = rig_dump(&s.r, ix);
    index_close(ix);
    for (int nth = 0; fired; nth++) {
        fault_arm(nth);
        const enum err_code rc = index_rebuild(s.r.index, s.r.packs, s.r.loose, &report, &err);
        fired = fault_disarm();
        EXPECT(fired || rc == OK);
        EXPECT(rc != OK || !fired ||
               report.problems.n > 0); /* only cleaning up may fail unpunished */
        buf_release(&report.problems);
        EXPECT_OK(index_open(s.r.index, INDEX_WRITE, &ix, &err), &err);
        after = rig_dump(&s.r, ix);
        rig_same_lines(after, before);
        free(after);
        index_close(ix);
    }
    free(before);
    EXPECT_OK(index_rebuild(s.r.index, s.r.packs, s.r.loose, &report, &err), &err);
    buf_release(&report.problems);
    rig_close(&s.r);
}

/* ---- kill -9 ---- */

static void kill_at_call(struct scene *s, int nth, bool rebuild, bool *killed)
{
    char text[32];
    int status;

    snprintf(text, sizeof(text), "%d:kill", nth);
    const pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        struct rebuild_report report;
        struct err err = ERR_INIT;

        if (setenv("WEIR_FAULT", text, 1) != 0)
            _exit(9);
        fault_from_env();
        const enum err_code rc =
            rebuild ? index_rebuild(s->r.index, s->r.packs, s->r.loose, &report, &err)
                    : session(s, &err);
        _exit(rc != OK);
    }
    EXPECT_EQ(waitpid(child, &status, 0), child);
    *killed = WIFSIGNALED(status);
    EXPECT(*killed ? WTERMSIG(status) == SIGKILL : status == 0);
}

TEST(killed_at_every_call)
{
    EXPECT_EQ(setenv("WEIR_INDEX_BATCH", "6", 1), 0);
    for (int rebuild = 0; rebuild < 2; rebuild++) {
        bool killed = true;

        for (int nth = 0; killed; nth++) {
            struct scene s;

            scene_new(&s);
            kill_at_call(&s, nth, rebuild, &killed);
            check_scene(&s);
            rig_close(&s.r);
        }
    }
    EXPECT_EQ(unsetenv("WEIR_INDEX_BATCH"), 0);
}

#define ROUNDS_MAX 2 /* where an fsync costs nothing, the store would outgrow the test */

/* Commits and syncs until it is killed. */
static void work_for_ever(struct rig *r, uint64_t seed)
{
    struct err err = ERR_INIT;
    struct index *ix;
    int64_t merged;

    if (index_open(r->index, INDEX_WRITE, &ix, &err) != OK)
        _exit(1);
    for (int round = 0;; round++) {
        struct digest names[3];
        const size_t n = 1 + gen_below(&seed, 3);

        if (round >= ROUNDS_MAX)
            pause();
        for (size_t i = 0; i < n; i++)
            names[i] = rig_pack_blobs(r, gen_below(&seed, 3000), 1 + gen_below(&seed, 60));
        const enum err_code rc = gen_below(&seed, 3) ? rig_commit(r, ix, names, n, &err)
                                                     : index_sync(ix, r->packs, &merged, &err);
        if (rc != OK) {
            fprintf(stderr, "%s\n", err.text);
            _exit(1);
        }
    }
}

TEST(killed_at_random)
{
    struct err err = ERR_INIT;
    uint64_t seed = 424242;
    struct index *ix;
    struct rig r;

    rig_new(&r);
    EXPECT_EQ(setenv("WEIR_INDEX_BATCH", "20", 1), 0);
    for (int i = 0; i < RANDOM_KILLS; i++) {
        pid_t children[2];
        int64_t merged;
        int status;

        for (int c = 0; c < 2; c++) {
            children[c] = fork();
            EXPECT(children[c] >= 0);
            if (children[c] == 0)
                work_for_ever(&r, gen_u64(&seed) + (uint64_t)c);
            gen_u64(&seed);
        }
        /* The point is the random instant, so time it is. */
        const struct timespec wait = {0, 1000 + (long)gen_below(&seed, 30000000)};
        nanosleep(&wait, NULL);
        for (int c = 0; c < 2; c++) {
            kill(children[c], SIGKILL);
            EXPECT_EQ(waitpid(children[c], &status, 0), children[c]);
            EXPECT(WIFSIGNALED(status));
        }
        EXPECT_OK(index_open(r.index, INDEX_WRITE, &ix, &err), &err);
        EXPECT_OK(index_sync(ix, r.packs, &merged, &err), &err);
        if (i % 5 == 0 || i == RANDOM_KILLS - 1)
            rig_same_as_rebuilt(&r, ix);
        index_close(ix);
    }
    EXPECT_EQ(unsetenv("WEIR_INDEX_BATCH"), 0);
    rig_close(&r);
}

#define NO_MOUNT 77
/* In a child with a tiny file system of its own, which a file fills until little is left. */
static int on_a_full_disk(struct rig *r)
{
    char path[TMPDIR_MAX + 32];
    struct index *ix;
    struct err err = ERR_INIT;
    enum err_code rc = OK;
    uint64_t blobs = 0, known = 0;

    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
        return NO_MOUNT;
    if (mkdir(r->index, 0755) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", r->index, "tmpfs", 0, "size=1m") != 0)
        return NO_MOUNT;
    EXPECT_OK(index_open(r->index, INDEX_WRITE, &ix, &err), &err);
    snprintf(path, sizeof(path), "%s/ballast", r->index);
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || posix_fallocate(fd, 0, 600 << 10) != 0)
        return 2;
    while (!rc && blobs < 100000) {
        const struct digest name = rig_pack_blobs(r, blobs, 500);

        blobs += 500;
        rc = rig_commit(r, ix, &name, 1, &err);
        if (!rc)
            known = blobs;
    }
    if (rc != ERR_FULL)
        return 3;
    for (uint64_t i = 0; i < blobs; i++)
        if ((rig_get(ix, rig_id(i)).type != 0) != (i < known))
            return 4;
    if (ftruncate(fd, 0) != 0) /* room again: the same process goes on */
        return 5;
    close(fd);
    err = (struct err)ERR_INIT;
    EXPECT_OK(index_sync(ix, r->packs, &(int64_t){0}, &err), &err);
    if (rig_get(ix, rig_id(blobs - 1)).type == 0)
        return 6;
    rig_same_as_rebuilt(r, ix);
    index_close(ix);
    return 0;
}

TEST(a_full_disk_loses_nothing)
{
    struct rig r;
    int status;

    rig_new(&r);
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0)
        _exit(on_a_full_disk(&r));
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_MOUNT)
        printf("a_full_disk_loses_nothing: not tried, no right to mount\n");
    else
        EXPECT_EQ(status, 0);
    rig_close(&r);
}

RUN(the_index_survives_any_single_fault, rebuild_survives_any_single_fault, killed_at_every_call,
    killed_at_random, a_full_disk_loses_nothing)
