/* Every fallible call of a push and of a pull fails once, in turn; and both are cut in the middle of something large. */
#include "tests/transfer_world.h"

static void fill_a_little(struct world *w)
{
    char name[32], text[2048];
    uint64_t seed = 7;

    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof(name), "c/%d.json", i);
        gen_json(&seed, text, sizeof(text));
        world_file(w, name, text, sizeof(text));
    }
    world_noise(w, "noise.bin", 8, 5000);
    world_noise(w, "large.bin", 9, 3 << 19);
}

/* What is on the remote is whole packs, and everything that a recipe there is made of. */
static void expect_sound(struct world *w)
{
    struct os_entry *entries = NULL;
    size_t n = 0;
    char path[WORLD_PATH + 16];
    int fd = -1;

    snprintf(path, sizeof(path), "%s/packs", w->remote);
    if (access(path, F_OK) != 0)
        return;
    EXPECT_OK(os_open_dir(AT_FDCWD, path, &fd, &w->err), &w->err);
    EXPECT_OK(os_list(fd, &entries, &n, &w->err), &w->err);
    for (size_t i = 0; i < n; i++) {
        const struct pack_entry *toc;
        struct pack *pack = NULL;
        struct digest name;
        struct buf payload;
        size_t count;

        buf_init(&payload, PACK_PAYLOAD_MAX);
        EXPECT_OK(digest_parse(entries[i].name, strlen(entries[i].name), &name, &w->err), &w->err);
        EXPECT_OK(pack_open(fd, &name, &pack, &w->err), &w->err);
        EXPECT_OK(pack_toc(pack, &toc, &count, &w->err), &w->err);
        for (size_t e = 0; e < count; e++) {
            struct pack_entry entry;

            buf_clear(&payload);
            EXPECT_OK(pack_read(pack, toc[e].off, &entry, &payload, &w->err), &w->err);
        }
        pack_close(pack);
        buf_release(&payload);
    }
    free(entries);
    os_close_quiet(&fd);
}

static void forget_remote(struct world *w)
{
    char path[2 * WORLD_PATH];

    EXPECT_OK(os_remove_tree(AT_FDCWD, w->remote, &w->err), &w->err);
    snprintf(path, sizeof(path), "%s/remotes", w->a->root);
    EXPECT_OK(os_remove_tree(AT_FDCWD, path, &w->err), &w->err);
}

TEST(push_survives_any_single_fault)
{
    struct world w;
    struct digest root;
    bool fired = true;
    int nth, fds;

    world_new(&w);
    fill_a_little(&w);
    root = world_add(&w, w.a, "data");
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err); /* what is kept open from now on is */
    fds = world_fd_count();
    for (nth = 0; fired; nth++) {
        forget_remote(&w);
        fault_arm(nth);

        const enum err_code rc = world_push(&w, w.a, NULL);

        fired = fault_disarm();
        EXPECT(rc == OK || fired);
        EXPECT_EQ(world_fd_count(), fds);
        expect_sound(&w);
        EXPECT_OK(store_check(w.a, &w.err), &w.err);
        EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
        if (nth % 8 == 0 || !fired) {
            world_fresh_b(&w);
            EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
            world_expect_whole(&w, w.b, "data", &root);
            fds = world_fd_count();
        }
    }
    EXPECT(nth > 50);
    world_free(&w);
}

TEST(pull_survives_any_single_fault)
{
    struct world w;
    struct digest root;
    bool fired = true;
    int nth;

    world_new(&w);
    fill_a_little(&w);
    root = world_add(&w, w.a, "data");
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    for (nth = 0; fired; nth++) {
        world_fresh_b(&w);

        const int fds = world_fd_count();

        fault_arm(nth);

        const enum err_code rc = world_pull(&w, w.b, NULL);

        fired = fault_disarm();
        EXPECT(rc == OK || fired);
        EXPECT(world_fd_count() <= fds + 2); /* packs that the store keeps open */
        EXPECT_OK(store_check(w.b, &w.err), &w.err);
        /* The ref is the last thing to come. */
        if (world_ref(&w, w.b, "data", NULL))
            world_expect_whole(&w, w.b, "data", &root);
        EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
        if (nth % 8 == 0 || !fired)
            world_expect_whole(&w, w.b, "data", &root);
    }
    EXPECT(nth > 50);
    world_free(&w);
}

/* ---- going on ---------------------------------------------------------------------------------- */

#define FILES 9
#define FILE_BYTES (16 << 20)
#define ALL_BYTES ((int64_t)FILES * FILE_BYTES) /* two packs and a bit */
#define SLACK (1 << 20)

static void fill_a_lot(struct world *w)
{
    for (int i = 0; i < FILES; i++) {
        char name[32];

        snprintf(name, sizeof(name), "%d.bin", i);
        world_noise(w, name, (uint64_t)(100 + i), FILE_BYTES);
    }
}

static int64_t remote_bytes(struct world *w)
{
    char path[WORLD_PATH + 128];
    int64_t sum = 0;
    struct stat info;

    for (size_t i = 0; world_pack(w, i, path); i++) {
        EXPECT_EQ(stat(path, &info), 0);
        sum += info.st_size;
    }
    return sum;
}

TEST(a_cut_push_goes_on)
{
    struct world w;
    struct digest root;
    int64_t calls, there;

    world_new(&w);
    fill_a_lot(&w);
    root = world_add(&w, w.a, "data");
    fault_arm(INT64_MAX);
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    calls = fault_count();
    EXPECT(!fault_disarm());
    EXPECT(w.report.bytes_moved >= ALL_BYTES);
    EXPECT(w.report.bytes_moved < ALL_BYTES + SLACK);

    forget_remote(&w);
    fault_arm(calls * 3 / 4);
    EXPECT(world_push(&w, w.a, NULL) != OK);
    EXPECT(fault_disarm());
    there = remote_bytes(&w);
    EXPECT(there > PACK_TARGET_BYTES);
    EXPECT(there < ALL_BYTES);
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    EXPECT(w.report.bytes_moved <= ALL_BYTES - there + SLACK);
    EXPECT_EQ(remote_bytes(&w) / SLACK, ALL_BYTES / SLACK); /* nothing twice */
    EXPECT_OK(world_pull(&w, w.b, NULL), &w.err);
    world_expect_whole(&w, w.b, "data", &root);
    world_free(&w);
}

TEST(a_cut_pull_goes_on)
{
    const struct transfer_options o = {.commit_bytes = FILE_BYTES};
    struct world w;
    struct digest root;
    int64_t calls;

    world_new(&w);
    fill_a_lot(&w);
    root = world_add(&w, w.a, "data");
    EXPECT_OK(world_push(&w, w.a, NULL), &w.err);
    fault_arm(INT64_MAX);
    EXPECT_OK(store_pull(w.b, w.remote, &o, &w.report, &w.err), &w.err);
    calls = fault_count();
    EXPECT(!fault_disarm());
    EXPECT(w.report.bytes_moved < ALL_BYTES + SLACK);

    world_fresh_b(&w);
    fault_arm(calls / 2);
    EXPECT(store_pull(w.b, w.remote, &o, &w.report, &w.err) != OK);
    EXPECT(fault_disarm());
    EXPECT(!world_ref(&w, w.b, "data", NULL));
    EXPECT_OK(store_check(w.b, &w.err), &w.err);
    EXPECT_OK(store_pull(w.b, w.remote, &o, &w.report, &w.err), &w.err);
    EXPECT(w.report.bytes_moved < ALL_BYTES * 3 / 4);
    world_expect_whole(&w, w.b, "data", &root);
    world_free(&w);
}

RUN(push_survives_any_single_fault, pull_survives_any_single_fault, a_cut_push_goes_on,
    a_cut_pull_goes_on)
