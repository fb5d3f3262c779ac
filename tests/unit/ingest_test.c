#include <pthread.h>

#include "store/ingest_internal.h"
#include "store/tree.h"
#include "tests/writer_rig.h"

static const struct ingest_options plain = {.how = INGEST_COPY};

static enum err_code add(struct forge *f, const char *name, const struct ingest_options *o,
                         struct ingest_result *out)
{
    char path[RIG_PATH];

    rig_path(f, name, path);
    return store_add(f->st, path, o, out, &f->err);
}

static void expect_add(struct forge *f, const char *name, struct ingest_result *out)
{
    EXPECT_OK(add(f, name, &plain, out), &f->err);
    rig_check(f);
}

/* File times must be in the past for the memo to believe them. */
static void pretend_later(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    os_set_now((now.tv_sec + 3600) * 1000000000LL);
}

static void make_link(struct forge *f, const char *name, const char *target)
{
    char path[RIG_PATH];

    rig_path(f, name, path);
    EXPECT_EQ(symlink(target, path), 0);
}

static struct tree_entry entry(enum tree_mode mode, const char *name, const void *p, size_t n)
{
    struct tree_entry e = {.mode = mode, .name = str_of(name), .size = (int64_t)n};

    sha256_of(p, n, &e.digest);
    return e;
}

/* The manifest of these entries, by its own hash. */
static struct buf manifest(struct forge *f, const struct tree_entry *entries, size_t n, int depth,
                           struct digest *id)
{
    struct tree t;
    struct buf b;

    tree_init(&t);
    buf_init(&b, 1 << 20);
    for (size_t i = 0; i < n; i++)
        EXPECT_OK(tree_add(&t, &entries[i], depth, &f->err), &f->err);
    EXPECT_OK(tree_encode(&t, &b, &f->err), &f->err);
    sha256_of(b.p, b.n, id);
    tree_release(&t);
    return b;
}

/* ---- what is stored ---------------------------------------------------------------------------- */

TEST(a_directory_becomes_the_tree_of_its_contents)
{
    const size_t large_n = (size_t)2 << 20;
    uint8_t *large = rig_noise(1, large_n);
    struct digest empty_id, sub_id, top_id;
    struct ingest_result r;
    struct ref_row ref;
    char path[RIG_PATH];
    struct forge f;

    forge_new(&f);
    rig_mkdir(&f, "d");
    rig_mkdir(&f, "d/empty");
    rig_mkdir(&f, "d/sub");
    rig_write(&f, "d/sub/large.bin", large, large_n);
    rig_write(&f, "d/sub/none", "", 0);
    make_link(&f, "d/sub/up", "../a.txt");
    rig_write(&f, "d/a.txt", "hello\n", 6);
    rig_write(&f, "d/run.sh", "#!/bin/sh\n", 10);
    rig_write(&f, "d/\x01 \xff\"%\n", "odd", 3);
    rig_path(&f, "d/run.sh", path);
    EXPECT_EQ(chmod(path, 0755), 0);
    rig_path(&f, "d/a.txt", path);
    EXPECT_EQ(chmod(path, 0611), 0); /* the owner's bit counts */

    struct buf empty = manifest(&f, NULL, 0, 1, &empty_id);
    const struct tree_entry sub_entries[] = {
        entry(TREE_FILE, "large.bin", large, large_n),
        entry(TREE_FILE, "none", "", 0),
        {.mode = TREE_LINK, .name = STR("up"), .target = STR("../a.txt")},
    };
    struct buf sub = manifest(&f, sub_entries, 3, 1, &sub_id);
    const struct tree_entry top_entries[] = {
        {.mode = TREE_DIR, .name = STR("empty"), .digest = empty_id, .size = (int64_t)empty.n},
        {.mode = TREE_DIR, .name = STR("sub"), .digest = sub_id, .size = (int64_t)sub.n},
        entry(TREE_FILE, "a.txt", "hello\n", 6),
        entry(TREE_EXEC, "run.sh", "#!/bin/sh\n", 10),
        entry(TREE_FILE, "\x01 \xff\"%\n", "odd", 3),
    };
    struct buf top = manifest(&f, top_entries, 5, 0, &top_id);
    const struct ingest_options o = {.how = INGEST_COPY, .ref = "in/d"};

    EXPECT_OK(add(&f, "d", &o, &r), &f.err);
    rig_check(&f);
    EXPECT(digest_eq(&r.digest, &top_id));
    EXPECT_EQ(r.kind, OBJ_TREE);
    EXPECT_EQ(r.size, top.n);
    EXPECT_EQ(r.files, 5);
    EXPECT_EQ(r.bytes, large_n + 19);
    EXPECT_EQ(r.hashed_files, 5);
    EXPECT_EQ(r.stats.files, 5);
    rig_expect_object(&f, &top_id, top.p, top.n);
    rig_expect_object(&f, &sub_id, sub.p, sub.n);
    rig_expect_object(&f, &empty_id, empty.p, empty.n);
    rig_expect_object(&f, &sub_entries[0].digest, large, large_n);
    rig_expect_object(&f, &top_entries[4].digest, "odd", 3);
    EXPECT_OK(index_ref(f.st->index, STR("in/d"), &ref, &f.err), &f.err);
    EXPECT(digest_eq(&ref.digest, &top_id));
    EXPECT_EQ(ref.kind, OBJ_TREE);

    bool complete;
    struct digest missing;

    EXPECT_OK(store_complete(f.st, OBJ_TREE, &top_id, &complete, &missing, &f.err), &f.err);
    EXPECT(complete);
    buf_release(&empty);
    buf_release(&sub);
    buf_release(&top);
    free(large);
    forge_free(&f);
}

TEST(a_single_file_becomes_a_blob)
{
    struct ingest_result r;
    struct forge f;

    forge_new(&f);
    rig_write(&f, "x", "abc", 3);
    for (int round = 0; round < 2; round++) {
        expect_add(&f, "x", &r);
        EXPECT_EQ(r.kind, OBJ_BLOB);
        EXPECT_EQ(r.size, 3);
        EXPECT_EQ(r.files, 1);
        EXPECT_EQ(r.bytes, 3);
        rig_expect_object(&f, &r.digest, "abc", 3);
    }
    forge_free(&f);
}

/* Any number of threads, any order of work: one directory has one id. */
TEST(the_result_does_not_depend_on_threads)
{
    struct digest first = {{0}};
    uint64_t seed = 5;
    struct forge f;

    forge_new(&f);
    rig_mkdir(&f, "d");
    for (int i = 0; i < 12; i++) {
        char name[64];

        snprintf(name, sizeof(name), "d/%d", i);
        rig_mkdir(&f, name);
        for (int k = 0; k < 150; k++) {
            const size_t n = gen_below(&seed, k == 70 ? 2000000 : 9000);
            uint8_t *p = rig_noise((uint64_t)(i * 37 + k % 100), n);

            snprintf(name, sizeof(name), "d/%d/f%d", i, k);
            rig_write(&f, name, p, n);
            free(p);
        }
    }
    for (int threads = 1; threads <= 5; threads += 2) {
        struct ingest_result r;
        struct forge g;
        char path[RIG_PATH];

        forge_new(&g);
        g.st->threads = threads;
        rig_path(&f, "d", path);
        EXPECT_OK(store_add(g.st, path, &plain, &r, &g.err), &g.err);
        rig_check(&g);
        EXPECT_EQ(r.files, 1800);
        if (threads == 1)
            first = r.digest;
        EXPECT(digest_eq(&r.digest, &first));
        forge_free(&g);
    }
    forge_free(&f);
}

/* ---- what is refused --------------------------------------------------------------------------- */

static void expect_refused(struct forge *f, const char *name, enum err_code code, const char *word)
{
    const int64_t stored = rig_stored(f);
    const int fds = forge_fd_count();
    struct ingest_result r;

    EXPECT_ERR(add(f, name, &plain, &r), code, &f->err);
    if (!strstr(f->err.text, word))
        EXPECT_STR(f->err.text, word);
    EXPECT_EQ(forge_fd_count(), fds);
    EXPECT_EQ(forge_count_names(f, f->st->tmp), 0);
    EXPECT_EQ(rig_stored(f), stored);
    rig_check(f);
    f->err = (struct err)ERR_INIT;
}

TEST(what_cannot_be_stored_is_refused_by_name)
{
    char path[RIG_PATH];
    struct forge f;

    forge_new(&f);
    rig_mkdir(&f, "d");
    rig_mkdir(&f, "d/s");
    rig_write(&f, "d/s/fine", "x", 1);
    make_link(&f, "top", "d");
    expect_refused(&f, "top", ERR_INPUT, "symbolic link");
    expect_refused(&f, "absent", ERR_NOT_FOUND, "absent");
    make_link(&f, "d/s/out", "../../x");
    expect_refused(&f, "d", ERR_INPUT, "d/s/out");
    rig_path(&f, "d/s/out", path);
    EXPECT_EQ(unlink(path), 0);
    make_link(&f, "d/s/out", "/etc/passwd");
    expect_refused(&f, "d", ERR_INPUT, "d/s/out");
    EXPECT_EQ(unlink(path), 0);
    EXPECT_EQ(mkfifo(path, 0600), 0);
    expect_refused(&f, "d", ERR_INPUT, "d/s/out");
    expect_refused(&f, "d/s/out", ERR_INPUT, "neither");
    EXPECT_EQ(unlink(path), 0);
    expect_refused(&f, "", ERR_INPUT, "store itself");

    struct ingest_result r;

    expect_add(&f, "d", &r);
    EXPECT_EQ(r.files, 1);

    const struct ingest_options bad = {.how = INGEST_COPY, .ref = "/x"};

    EXPECT_ERR(add(&f, "d", &bad, &r), ERR_INPUT, &f.err);
    forge_free(&f);
}

TEST(directories_have_a_greatest_depth)
{
    struct err err = ERR_INIT;
    char path[RIG_PATH];
    struct forge f;
    int dir = -1;

    forge_new(&f);
    rig_mkdir(&f, "d");
    rig_path(&f, "d", path);
    EXPECT_OK(os_open_dir(AT_FDCWD, path, &dir, &err), &err);
    for (int i = 0; i < TREE_DEPTH_MAX + 1; i++) {
        int below = -1;

        EXPECT_OK(os_mkdir(dir, "d", 0755, &err), &err);
        EXPECT_OK(os_open_dir(dir, "d", &below, &err), &err);
        os_close_quiet(&dir);
        dir = below;
    }
    os_close_quiet(&dir);
    expect_refused(&f, "d", ERR_LIMIT, "deep");
    forge_free(&f);
}

static atomic_bool stop_changing;

/* Makes and removes a file in the folder without a pause. */
static void *change_folder(void *arg)
{
    const char *path = arg;

    while (!atomic_load(&stop_changing)) {
        const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        if (fd >= 0)
            close(fd);
        unlink(path);
    }
    return NULL;
}

/* A folder that gains and loses files meanwhile is not a state that it ever had. */
TEST(a_folder_that_changes_meanwhile_is_refused)
{
    enum { TRIES = 1000 };
    uint8_t *p = rig_noise(3, 900000);
    struct ingest_result r;
    char path[RIG_PATH];
    enum err_code rc = OK;
    pthread_t thread;
    struct forge f;

    forge_new(&f);
    rig_mkdir(&f, "d");
    rig_write(&f, "d/x", p, 900000);
    rig_path(&f, "d/coming-and-going", path);
    atomic_store(&stop_changing, false);
    EXPECT_EQ(pthread_create(&thread, NULL, change_folder, path), 0);
    for (int i = 0; i < TRIES && !rc; i++)
        rc = add(&f, "d", &plain, &r);
    atomic_store(&stop_changing, true);
    EXPECT_EQ(pthread_join(thread, NULL), 0);
    EXPECT_ERR(rc, ERR_CHANGED, &f.err);
    EXPECT(strstr(f.err.text, "/d") != NULL);
    rig_check(&f);
    free(p);
    forge_free(&f);
}

/* ---- the memo ---------------------------------------------------------------------------------- */

static int64_t bytes_read(void)
{
    struct err err = ERR_INIT;
    long long n = -1;
    struct buf b;

    buf_init(&b, 4096);
    EXPECT_OK(os_read_file(AT_FDCWD, "/proc/self/io", 4095, &b, &err), &err);
    EXPECT_EQ(sscanf(b.p, "rchar: %lld", &n), 1);
    buf_release(&b);
    return n;
}

TEST(unchanged_files_are_not_read_again)
{
    enum { FILES = 40, BYTES = 50000 };
    const size_t large_n = (size_t)4 << 20;
    uint8_t *large = rig_noise(8, large_n);
    struct ingest_result r;
    struct digest first;
    char name[32];
    struct forge f;

    forge_new(&f);
    rig_mkdir(&f, "d");
    rig_mkdir(&f, "d/s");
    for (int i = 0; i < FILES; i++) {
        uint8_t *p = rig_noise(i, BYTES);

        snprintf(name, sizeof(name), i % 2 ? "d/f%d" : "d/s/f%d", i);
        rig_write(&f, name, p, BYTES);
        free(p);
    }
    rig_write(&f, "d/large", large, large_n);
    pretend_later();
    expect_add(&f, "d", &r);
    EXPECT_EQ(r.hashed_files, FILES + 1);
    first = r.digest;

    /* Again, and in a store that was opened anew. */
    for (int round = 0; round < 2; round++) {
        const int64_t before = bytes_read(), stored = rig_stored(&f);

        EXPECT_OK(add(&f, "d", &plain, &r), &f.err);
        EXPECT(bytes_read() - before < BYTES);
        EXPECT_EQ(rig_stored(&f), stored);
        rig_check(&f);
        EXPECT_EQ(r.hashed_files, 0);
        EXPECT_EQ(r.files, FILES + 1);
        EXPECT_EQ(r.stats.files, FILES + 1);
        EXPECT_EQ(r.stats.new_objects, 0);
        EXPECT(digest_eq(&r.digest, &first));
        forge_open(&f, STORE_WRITE);
    }

    /* One is rewritten, with as many bytes. */
    rig_write(&f, "d/s/f4", large, BYTES);
    expect_add(&f, "d", &r);
    EXPECT_EQ(r.hashed_files, 1);
    EXPECT(!digest_eq(&r.digest, &first));

    /* Only its mode: nothing is hashed for that either, but it is another tree.  (chmod moves the ctime.) */
    const struct ingest_options all = {.how = INGEST_COPY, .no_memo = true};
    const struct digest second = r.digest;

    EXPECT_OK(add(&f, "d", &all, &r), &f.err);
    EXPECT_EQ(r.hashed_files, FILES + 1);
    EXPECT(digest_eq(&r.digest, &second));
    os_set_now(0);
    free(large);
    forge_free(&f);
}

/* A file of this very moment may be written again within the same tick of the clock: not remembered. */
TEST(a_file_touched_just_now_is_read_again)
{
    struct ingest_result r;
    char path[RIG_PATH];
    struct stat st;
    struct forge f;

    forge_new(&f);
    rig_mkdir(&f, "d");
    rig_write(&f, "d/x", "1", 1);
    rig_path(&f, "d/x", path);
    EXPECT_EQ(stat(path, &st), 0);
    for (int round = 0; round < 2; round++) {
        /* Hashed 5 ms after its last change. */
        os_set_now(st.st_ctim.tv_sec * 1000000000LL + st.st_ctim.tv_nsec + 5000000);
        expect_add(&f, "d", &r);
        EXPECT_EQ(r.hashed_files, 1);
        expect_add(&f, "d/x", &r);
        EXPECT_EQ(r.hashed_files, 1);
    }
    os_set_now(st.st_ctim.tv_sec * 1000000000LL + st.st_ctim.tv_nsec + 500000000);
    expect_add(&f, "d/x", &r);
    EXPECT_EQ(r.hashed_files, 1);
    expect_add(&f, "d", &r); /* a file alone and a file in a folder share the memo */
    EXPECT_EQ(r.hashed_files, 0);
    os_set_now(0);
    forge_free(&f);
}

TEST(the_margin_depends_on_the_clock_of_the_times)
{
    const int64_t ms = 1000000, s = 1000 * ms, now = 1000 * s + 123 * ms;
    const struct {
        int64_t mtime, ctime;
        bool remote, safe;
    } cases[] = {
        {now - 19 * ms, now - 500 * ms, false, false},
        {now - 500 * ms, now - 19 * ms, false, false},
        {now - 21 * ms, now - 21 * ms, false, true},
        {999 * s, 999 * s, false, false},
        {998 * s, 997 * s, false, true},
        {now - 9 * s, now - 9 * s, true, false},
        {now - 11 * s, now - 11 * s, true, true},
        {now + 5 * s, 0, false, false},
        {now, now, false, false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct memo_key key = {.mtime_ns = cases[i].mtime, .ctime_ns = cases[i].ctime};

        EXPECT_EQ(memo_is_safe(&key, now, cases[i].remote), cases[i].safe);
    }
}

/* The memo still knows a file whose object is gone. */
TEST(a_gone_object_is_read_and_stored_again)
{
    struct ingest_result r;
    struct forge f;

    forge_new(&f);
    rig_mkdir(&f, "d");
    rig_write(&f, "d/x", "hello", 5);
    rig_write(&f, "d/y", "there", 5);
    pretend_later();
    expect_add(&f, "d", &r);

    const struct tree_entry x = entry(TREE_FILE, "x", "hello", 5);

    EXPECT_OK(index_drop_objects(f.st->index, &x.digest, 1, &f.err), &f.err);
    expect_add(&f, "d", &r);
    rig_expect_object(&f, &x.digest, "hello", 5);
    os_set_now(0);
    forge_free(&f);
}

/* ---- moving in --------------------------------------------------------------------------------- */

TEST(a_folder_moves_in)
{
    const struct ingest_options o = {.how = INGEST_ADOPT};
    const size_t large_n = (size_t)3 << 20;
    uint8_t *large = rig_noise(9, large_n);
    struct ingest_result copied, moved;
    struct forge f, g;
    char path[RIG_PATH];

    forge_new(&f);
    forge_new(&g);
    rig_mkdir(&f, "d");
    rig_mkdir(&f, "d/s");
    rig_write(&f, "d/large", large, large_n);
    rig_write(&f, "d/s/small", "abc", 3);
    make_link(&f, "d/s/l", "small");
    rig_path(&f, "d", path);
    EXPECT_OK(store_add(g.st, path, &plain, &copied, &g.err), &g.err);
    EXPECT(rig_there(&f, "d/large"));
    EXPECT_OK(add(&f, "d", &o, &moved), &f.err);
    rig_check(&f);
    EXPECT(digest_eq(&copied.digest, &moved.digest));
    EXPECT(!rig_there(&f, "d/large"));
    EXPECT(!rig_there(&f, "d/s/small"));
    EXPECT(rig_there(&f, "d/s/l"));
    rig_path(&f, "one", path);
    rig_write(&f, "one", "1", 1);
    EXPECT_OK(add(&f, "one", &o, &moved), &f.err);
    EXPECT(!rig_there(&f, "one"));
    rig_expect_object(&f, &moved.digest, "1", 1);
    free(large);
    forge_free(&f);
    forge_free(&g);
}

RUN(a_directory_becomes_the_tree_of_its_contents, a_single_file_becomes_a_blob,
    the_result_does_not_depend_on_threads, what_cannot_be_stored_is_refused_by_name,
    directories_have_a_greatest_depth, a_folder_that_changes_meanwhile_is_refused,
    unchanged_files_are_not_read_again, a_file_touched_just_now_is_read_again,
    the_margin_depends_on_the_clock_of_the_times, a_gone_object_is_read_and_stored_again,
    a_folder_moves_in)
