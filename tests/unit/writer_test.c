#include <pthread.h>
#include <stdatomic.h>

#include "store/writer_internal.h"
#include "tests/writer_rig.h"

#define MIB (1 << 20)

/* ---- small objects ----------------------------------------------------------------------------- */

TEST(small_objects_come_back)
{
    static const size_t sizes[] = {0,  1, 100, 5000, 70000, FRAME_RAW_TARGET, FRAME_RAW_TARGET + 1,
                                   MIB};
    struct digest ids[2][8];
    uint8_t *bytes[2][8];
    struct forge f;

    forge_new(&f);

    struct writer *w = rig_writer(&f);

    for (int text = 0; text < 2; text++)
        for (int i = 0; i < 8; i++) {
            uint64_t seed = 40 + i;

            bytes[text][i] = rig_noise(seed, sizes[i]);
            if (text && sizes[i] > 400)
                gen_json(&seed, (char *)bytes[text][i], sizes[i]);
            EXPECT_OK(writer_put(w, OBJ_BLOB, bytes[text][i], sizes[i], &ids[text][i], &f.err),
                      &f.err);
        }
    EXPECT_EQ(rig_where(&f, &ids[0][3]), 0); /* nothing is visible yet */
    rig_commit(&f, w);
    writer_release(w);
    for (int text = 0; text < 2; text++)
        for (int i = 0; i < 8; i++) {
            rig_expect_object(&f, &ids[text][i], bytes[text][i], sizes[i]);
            free(bytes[text][i]);
        }
    EXPECT_EQ(rig_where(&f, &ids[0][3]), LOC_BLOB);
    EXPECT_EQ(rig_where(&f, &ids[1][3]), LOC_FRAME);
    EXPECT_EQ(rig_where(&f, &ids[1][6]), LOC_BLOB);
    EXPECT(rig_stored(&f) < 2 * (MIB + FRAME_RAW_TARGET)); /* the texts cost next to nothing */
    forge_free(&f);
}

TEST(equal_objects_are_stored_once)
{
    uint8_t *p = rig_noise(1, 3000);
    struct writer_stats stats;
    struct digest a, b;
    struct forge f;
    bool has;

    forge_new(&f);

    struct writer *w = rig_writer(&f);

    EXPECT_OK(writer_put(w, OBJ_BLOB, p, 3000, &a, &f.err), &f.err);
    EXPECT_OK(writer_put(w, OBJ_BLOB, p, 3000, &b, &f.err), &f.err);
    EXPECT(digest_eq(&a, &b));
    EXPECT_OK(writer_has(w, &a, &has, &f.err), &f.err);
    EXPECT(has);
    p[0] ^= 1;
    sha256_of(p, 3000, &b);
    EXPECT_OK(writer_has(w, &b, &has, &f.err), &f.err);
    EXPECT(!has);
    p[0] ^= 1;
    rig_commit(&f, w);
    writer_get_stats(w, &stats);
    EXPECT_EQ(stats.new_objects, 1);
    EXPECT_EQ(stats.new_bytes, 3000);
    EXPECT_EQ(stats.reused_objects, 1);

    const int64_t stored = rig_stored(&f);

    /* Again in the same session after its commit, and in another one: found in the index, no new pack. */
    EXPECT_OK(writer_put(w, OBJ_BLOB, p, 3000, &a, &f.err), &f.err);
    rig_commit(&f, w);
    writer_release(w);
    w = rig_writer(&f);
    EXPECT_OK(writer_has(w, &a, &has, &f.err), &f.err);
    EXPECT(has);
    EXPECT_OK(writer_put(w, OBJ_BLOB, p, 3000, &a, &f.err), &f.err);
    rig_commit(&f, w);
    writer_release(w);
    EXPECT_EQ(rig_stored(&f), stored);
    EXPECT_EQ(forge_count_names(&f, f.st->tmp), 0);
    free(p);
    forge_free(&f);
}

TEST(what_is_not_committed_leaves_nothing)
{
    uint8_t *p = rig_noise(2, 3 * MIB);
    struct digest id;
    struct forge f;

    forge_new(&f);
    rig_write(&f, "large", p, 3 * MIB);

    const int fds = forge_fd_count();
    struct writer *w = rig_writer(&f);

    EXPECT_OK(writer_put(w, OBJ_BLOB, p, 3000, &id, &f.err), &f.err);
    EXPECT_OK(rig_put_file(&f, w, "large", &id, &f.err), &f.err);
    EXPECT_OK(writer_ref(w, STR("x"), OBJ_BLOB, &id, &f.err), &f.err);
    EXPECT(forge_count_names(&f, f.st->tmp) > 0);
    writer_release(w);
    EXPECT_EQ(forge_fd_count(), fds);
    EXPECT_EQ(forge_count_names(&f, f.st->tmp), 0);
    EXPECT_EQ(rig_stored(&f), 0);
    rig_check(&f);
    writer_release(NULL);
    /* An empty session commits nothing. */
    w = rig_writer(&f);
    rig_commit(&f, w);
    writer_release(w);
    EXPECT_EQ(rig_stored(&f), 0);
    free(p);
    forge_free(&f);
}

TEST(a_read_only_store_has_no_writer)
{
    struct writer *w;
    struct forge f;

    forge_new(&f);
    forge_open(&f, STORE_READ);
    EXPECT_ERR(writer_open(f.st, &w, &f.err), ERR_BUG, &f.err);
    forge_free(&f);
}

/* ---- large files ------------------------------------------------------------------------------- */

TEST(a_new_large_file_is_loose_and_its_chunks_are_known)
{
    const size_t n = 9 * MIB + 12345;
    uint8_t *p = rig_noise(3, n);
    struct digest id, part;
    enum cut_rule rule;
    struct forge f;
    size_t count;

    forge_new(&f);
    rig_write(&f, "f", p, n);

    struct writer *w = rig_writer(&f);

    EXPECT_OK(rig_put_file(&f, w, "f", &id, &f.err), &f.err);
    rig_commit(&f, w);
    writer_release(w);
    rig_expect_object(&f, &id, p, n);
    EXPECT_EQ(rig_where(&f, &id), LOC_LOOSE);

    size_t *ends = gen_cuts(p, n, &rule, &count);

    EXPECT(count > 2);
    sha256_of(p + ends[0], ends[1] - ends[0], &part);
    EXPECT_EQ(rig_where(&f, &part), LOC_SLICE);
    rig_expect_object(&f, &part, p + ends[0], ends[1] - ends[0]);
    free(ends);
    free(p);
    forge_free(&f);
}

/* One chunk: the recipe would consist of the file itself. */
TEST(a_file_of_one_chunk_needs_no_recipe)
{
    uint8_t *p = mem_zero(1, 2 * MIB);
    struct digest id;
    struct forge f;

    forge_new(&f);
    rig_write(&f, "f", p, 2 * MIB);
    for (int round = 0; round < 2; round++) {
        struct writer *w = rig_writer(&f);

        EXPECT_OK(rig_put_file(&f, w, "f", &id, &f.err), &f.err);
        rig_commit(&f, w);
        writer_release(w);
        rig_expect_object(&f, &id, p, 2 * MIB);
        EXPECT_EQ(rig_where(&f, &id), LOC_LOOSE);
    }
    free(p);
    forge_free(&f);
}

static const struct gen_tensor model[] = {
    {"a", "BF16", 9 << 20, 2}, {"b", "BF16", 3 << 20, 2},  {"c", "F32", 4 << 20, 4},
    {"d", "BF16", 2048, 2},    {"e", "BF16", 17 << 20, 2}, {"f", "U8", 3 << 20, 1},
};

/* The model again, with longer header and tensors b and e drawn anew. */
static void make_models(struct buf *one, struct buf *two, size_t pad)
{
    const size_t data = (size_t)(36 << 20) + 2048;
    uint64_t seed = 70, other = 71;

    buf_init(one, 64 << 20);
    buf_init(two, 64 << 20);
    gen_safetensors(one, &seed, model, 6, 0);
    seed = 70;
    gen_safetensors(two, &seed, model, 6, pad);
    gen_noise(&other, two->p + two->n - data + (9 << 20), 3 << 20);
    gen_noise(&other, two->p + two->n - (20 << 20), 17 << 20);
}

/* Whatever the order and the shift of the header: what is stored of the second is what has changed. */
TEST(a_second_version_costs_what_has_changed)
{
    for (size_t pad = 0; pad <= 64; pad += 64) {
        struct digest id1, id2;
        struct buf one, two;
        struct forge f;

        make_models(&one, &two, pad);
        forge_new(&f);
        rig_write(&f, "one", one.p, one.n);
        rig_write(&f, "two", two.p, two.n);

        struct writer *w = rig_writer(&f);

        EXPECT_OK(rig_put_file(&f, w, "one", &id1, &f.err), &f.err);
        rig_commit(&f, w);

        const int64_t before = rig_stored(&f);

        EXPECT_OK(rig_put_file(&f, w, "two", &id2, &f.err), &f.err);
        rig_commit(&f, w);
        writer_release(w);
        EXPECT(rig_stored(&f) - before < (int64_t)(20 << 20) + 8192);
        EXPECT_EQ(rig_where(&f, &id1), LOC_LOOSE);
        EXPECT_EQ(rig_where(&f, &id2), LOC_RECIPE);
        rig_expect_object(&f, &id1, one.p, one.n);
        rig_expect_object(&f, &id2, two.p, two.n);
        buf_release(&one);
        buf_release(&two);
        forge_free(&f);
    }
}

/* The first part is new and of another length; what follows is known. */
static void expect_shared_middle(struct forge *f, const struct buf *one, const struct buf *two,
                                 int64_t new_bytes)
{
    struct digest id1, id2;

    rig_write(f, "one", one->p, one->n);
    rig_write(f, "two", two->p, two->n);

    struct writer *w = rig_writer(f);

    EXPECT_OK(rig_put_file(f, w, "one", &id1, &f->err), &f->err);
    rig_commit(f, w);

    const int64_t before = rig_stored(f);

    EXPECT_OK(rig_put_file(f, w, "two", &id2, &f->err), &f->err);
    rig_commit(f, w);
    writer_release(w);
    EXPECT_EQ(rig_where(f, &id2), LOC_RECIPE);
    EXPECT(rig_stored(f) - before < new_bytes + (16 << 20)); /* until the cuts agree again */
    rig_expect_object(f, &id2, two->p, two->n);
}

TEST(a_file_with_a_new_start_shares_its_middle)
{
    const size_t n = (size_t)66 << 20, fresh = ((size_t)13 << 20) + 333;
    uint64_t seed = 90, other = 91;
    struct buf one, two;
    struct forge f;

    buf_init(&one, n);
    buf_init(&two, n + fresh);
    gen_noise(&seed, buf_room(&one, n), n);
    gen_noise(&other, buf_room(&two, fresh), fresh);
    buf_add(&two, one.p + 1000, n - 1000);
    forge_new(&f);
    expect_shared_middle(&f, &one, &two, (int64_t)fresh);
    buf_release(&one);
    buf_release(&two);
    forge_free(&f);
}

TEST(an_archive_with_new_first_members_shares_its_middle)
{
    enum { MEMBERS = 700 };
    uint64_t other = 93;
    struct buf one, two;
    struct forge f;
    char name[16];

    buf_init(&one, 128 << 20);
    buf_init(&two, 128 << 20);
    for (int i = 0; i < 120; i++) {
        snprintf(name, sizeof(name), "new%d", i);
        gen_tar_file(&two, &other, name, 100000);
    }
    for (int i = 0; i < MEMBERS; i++) {
        uint64_t seed = 1000 + i, same = seed;
        const size_t size = 50000 + gen_below(&same, 100000);

        snprintf(name, sizeof(name), "m%d", i);
        same = seed;
        gen_tar_file(&one, &seed, name, size);
        gen_tar_file(&two, &same, name, size);
    }
    gen_tar_end(&one);
    gen_tar_end(&two);
    EXPECT(one.n > (size_t)64 << 20);
    forge_new(&f);
    expect_shared_middle(&f, &one, &two, 120 * 101000);
    buf_release(&one);
    buf_release(&two);
    forge_free(&f);
}

/* Both in one session: the first one's chunks count, although nothing is committed yet. */
TEST(versions_of_one_session_share_chunks)
{
    struct digest id1, id2, id3;
    struct buf one, two;
    struct forge f;

    make_models(&one, &two, 64);
    forge_new(&f);
    rig_write(&f, "one", one.p, one.n);
    rig_write(&f, "two", two.p, two.n);

    struct writer *w = rig_writer(&f);

    EXPECT_OK(rig_put_file(&f, w, "one", &id1, &f.err), &f.err);
    EXPECT_OK(rig_put_file(&f, w, "two", &id2, &f.err), &f.err);
    EXPECT_OK(rig_put_file(&f, w, "one", &id3, &f.err), &f.err);
    EXPECT(digest_eq(&id1, &id3));
    rig_commit(&f, w);
    writer_release(w);
    EXPECT(rig_stored(&f) < (int64_t)one.n + (20 << 20) + 16384);
    rig_expect_object(&f, &id1, one.p, one.n);
    rig_expect_object(&f, &id2, two.p, two.n);
    buf_release(&one);
    buf_release(&two);
    forge_free(&f);
}

TEST(a_known_large_file_is_not_stored_again)
{
    const size_t n = 5 * MIB;
    uint8_t *p = rig_noise(5, n);
    struct writer_stats stats;
    struct digest id;
    struct forge f;

    forge_new(&f);
    rig_write(&f, "f", p, n);
    for (int round = 0; round < 3; round++) {
        struct writer *w = rig_writer(&f);

        EXPECT_OK(rig_put_file(&f, w, "f", &id, &f.err), &f.err);
        rig_commit(&f, w);
        writer_get_stats(w, &stats);
        EXPECT_EQ(stats.new_objects, round == 0);
        EXPECT_EQ(stats.reused_objects, round > 0);
        writer_release(w);
        EXPECT(rig_stored(&f) < (int64_t)n + 4096);
    }
    free(p);
    forge_free(&f);
}

/* Somebody removed the loose file by hand: the index still names it and its chunks, but adding the file heals it. */
TEST(adding_a_file_again_replaces_a_lost_loose_file)
{
    const size_t n = 6 * MIB;
    uint8_t *p = rig_noise(6, n);
    char name[LOOSE_NAME];
    struct digest id;
    struct forge f;

    forge_new(&f);
    rig_write(&f, "f", p, n);
    for (int round = 0; round < 2; round++) {
        struct writer *w = rig_writer(&f);

        EXPECT_OK(rig_put_file(&f, w, "f", &id, &f.err), &f.err);
        EXPECT_OK(writer_commit(w, &f.err), &f.err);
        writer_release(w);
        rig_check(&f);
        rig_expect_object(&f, &id, p, n);
        loose_name(&id, name);
        if (round == 0)
            EXPECT_EQ(unlinkat(f.st->loose, name, 0), 0);
    }
    free(p);
    forge_free(&f);
}

TEST(a_tree_past_the_limit_of_one_record_is_cut)
{
    enum { ENTRIES = 150000 };
    struct digest blob, id;
    struct tree t, back;
    struct forge f;
    struct buf b;

    forge_new(&f);

    struct writer *w = rig_writer(&f);

    EXPECT_OK(writer_put(w, OBJ_BLOB, "x", 1, &blob, &f.err), &f.err);
    tree_init(&t);
    for (int i = 0; i < ENTRIES; i++) {
        char name[32];
        const struct tree_entry e = {
            .mode = TREE_FILE,
            .name = {name, (size_t)snprintf(name, sizeof(name), "%06d-%x", i, i * 2654435761u)},
            .digest = blob,
            .size = 1,
        };

        EXPECT_OK(tree_add(&t, &e, 0, &f.err), &f.err);
    }
    buf_init(&b, TREE_BYTES_MAX);
    EXPECT_OK(tree_encode(&t, &b, &f.err), &f.err);
    EXPECT(b.n > CODEC_RAW_MAX);
    EXPECT_OK(writer_put(w, OBJ_TREE, b.p, b.n, &id, &f.err), &f.err);
    writer_touch(w, OBJ_TREE, &id);
    rig_commit(&f, w);
    writer_release(w);
    EXPECT_EQ(rig_where(&f, &id), LOC_RECIPE);
    rig_expect_object(&f, &id, b.p, b.n);
    EXPECT_OK(tree_decode(b.p, b.n, 0, "tree", &back, &f.err), &f.err);
    EXPECT_EQ(back.count, ENTRIES);
    tree_release(&back);
    tree_release(&t);
    buf_release(&b);
    forge_free(&f);
}

TEST(objects_past_the_limits_are_refused)
{
    struct digest id;
    struct forge f;

    forge_new(&f);

    struct writer *w = rig_writer(&f);

    EXPECT_ERR(writer_put(w, OBJ_BLOB, "", (size_t)CODEC_RAW_MAX + 1, &id, &f.err), ERR_LIMIT,
               &f.err);
    EXPECT_ERR(writer_put(w, OBJ_TREE, "", (size_t)TREE_BYTES_MAX + 1, &id, &f.err), ERR_LIMIT,
               &f.err);
    /* The session goes on. */
    f.err = (struct err)ERR_INIT;
    EXPECT_OK(writer_put(w, OBJ_BLOB, "x", 1, &id, &f.err), &f.err);
    rig_commit(&f, w);
    writer_release(w);
    forge_free(&f);
}

/* ---- inputs that change ------------------------------------------------------------------------ */

TEST(a_large_file_that_changed_meanwhile_is_refused)
{
    const size_t n = 2 * MIB;
    uint8_t *p = rig_noise(7, n);
    char path[RIG_PATH];
    struct stat before;
    struct digest id;
    struct forge f;
    int fd = -1;

    forge_new(&f);
    rig_write(&f, "f", p, n);
    rig_path(&f, "f", path);
    EXPECT_OK(os_open(AT_FDCWD, path, O_RDWR, 0, &fd, &f.err), &f.err);
    EXPECT_OK(os_stat(fd, &before, &f.err), &f.err);

    struct writer *w = rig_writer(&f);
    const struct large_source from = {.fd = fd, .path = path, .before = &before};

    /* Touched, grown, cut short after it was looked at. */
    EXPECT_OK(os_set_mtime(fd, 5, &f.err), &f.err);
    EXPECT_ERR(large_put(w, &from, &id, &f.err), ERR_CHANGED, &f.err);
    EXPECT(strstr(f.err.text, path) != NULL);
    EXPECT_OK(os_stat(fd, &before, &f.err), &f.err);
    EXPECT_OK(os_truncate(fd, (int64_t)n + 1, &f.err), &f.err);
    EXPECT_ERR(large_put(w, &from, &id, &f.err), ERR_CHANGED, &f.err);
    EXPECT_OK(os_stat(fd, &before, &f.err), &f.err);
    EXPECT_OK(os_truncate(fd, 1000, &f.err), &f.err);
    EXPECT_ERR(large_put(w, &from, &id, &f.err), ERR_CHANGED, &f.err);
    EXPECT(strstr(f.err.text, path) != NULL);
    EXPECT_EQ(forge_count_names(&f, f.st->tmp), 0);
    /* The session goes on, and the file can be added once it is at rest. */
    EXPECT_OK(os_truncate(fd, (int64_t)n, &f.err), &f.err);
    f.err = (struct err)ERR_INIT;
    EXPECT_OK(rig_put_file(&f, w, "f", &id, &f.err), &f.err);
    rig_commit(&f, w);
    writer_release(w);
    memset(p + 1000, 0, n - 1000);
    rig_expect_object(&f, &id, p, n);
    os_close_quiet(&fd);
    free(p);
    forge_free(&f);
}

struct toucher {
    int fd;
    atomic_bool stop;
};

static void *touch(void *arg)
{
    struct toucher *t = arg;

    for (int64_t ns = 1; !atomic_load(&t->stop); ns++) {
        const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
                                          {.tv_sec = ns / 1000, .tv_nsec = ns % 1000}};

        futimens(t->fd, times);
    }
    return NULL;
}

/* Another thread touches it without a pause: sooner or later between the two looks. */
TEST(a_small_file_that_changes_meanwhile_is_refused)
{
    enum { TRIES = 100000 };
    static uint8_t bytes[900000];
    struct toucher t = {.fd = -1};
    struct stat before;
    pthread_t thread;
    char path[RIG_PATH];
    struct forge f;
    enum err_code rc = OK;
    size_t n;

    forge_new(&f);
    rig_write(&f, "f", bytes, sizeof(bytes));
    rig_path(&f, "f", path);
    EXPECT_OK(os_open(AT_FDCWD, path, O_RDWR, 0, &t.fd, &f.err), &f.err);
    EXPECT_EQ(pthread_create(&thread, NULL, touch, &t), 0);
    for (int i = 0; i < TRIES && !rc; i++)
        rc = small_read(t.fd, path, bytes, sizeof(bytes), &before, &n, &f.err);
    atomic_store(&t.stop, true);
    EXPECT_EQ(pthread_join(thread, NULL), 0);
    EXPECT_ERR(rc, ERR_CHANGED, &f.err);
    EXPECT(strstr(f.err.text, path) != NULL);
    os_close_quiet(&t.fd);
    forge_free(&f);
}

TEST(only_regular_files_are_read)
{
    struct digest id;
    struct forge f;
    int64_t size;
    int fd = -1;

    forge_new(&f);

    struct writer *w = rig_writer(&f);

    EXPECT_OK(os_open_dir(AT_FDCWD, f.dir, &fd, &f.err), &f.err);
    EXPECT_ERR(writer_put_file(w, fd, "folder", &id, &size, &f.err), ERR_INPUT, &f.err);
    os_close_quiet(&fd);
    /* These say that they are empty and are not. */
    EXPECT_OK(os_open(AT_FDCWD, "/proc/self/maps", O_RDONLY, 0, &fd, &f.err), &f.err);
    EXPECT_ERR(writer_put_file(w, fd, "/proc/self/maps", &id, &size, &f.err), ERR_INPUT, &f.err);
    os_close_quiet(&fd);
    writer_release(w);
    forge_free(&f);
}

/* ---- refs, binds, gc --------------------------------------------------------------------------- */

TEST(refs_and_binds_come_with_the_commit)
{
    const struct digest key = {{9}};
    struct digest id, id2, result;
    struct ref_row ref;
    struct forge f;
    int64_t stamp;

    forge_new(&f);

    struct writer *w = rig_writer(&f);

    EXPECT_OK(writer_put(w, OBJ_BLOB, "one", 3, &id, &f.err), &f.err);
    EXPECT_OK(writer_put(w, OBJ_BLOB, "two", 3, &id2, &f.err), &f.err);
    EXPECT_OK(writer_ref(w, STR("r/x"), OBJ_BLOB, &id, &f.err), &f.err);
    EXPECT_OK(writer_bind(w, &key, &id, &f.err), &f.err);
    EXPECT_ERR(writer_ref(w, STR("/bad"), OBJ_BLOB, &id, &f.err), ERR_INPUT, &f.err);
    EXPECT_ERR(index_ref(f.st->index, STR("r/x"), &ref, &f.err), ERR_NOT_FOUND, &f.err);
    rig_commit(&f, w);
    EXPECT_OK(index_ref(f.st->index, STR("r/x"), &ref, &f.err), &f.err);
    EXPECT(digest_eq(&ref.digest, &id));
    EXPECT_OK(index_action(f.st->index, &key, &result, &stamp, &f.err), &f.err);
    EXPECT(digest_eq(&result, &id));

    /* The same again is no new record; another value wins although the clock was set back. */
    const int64_t stored = rig_stored(&f);

    EXPECT_OK(writer_ref(w, STR("r/x"), OBJ_BLOB, &id, &f.err), &f.err);
    EXPECT_OK(writer_bind(w, &key, &id, &f.err), &f.err);
    rig_commit(&f, w);
    EXPECT_EQ(rig_stored(&f), stored);
    os_set_now(1000000000);
    EXPECT_OK(writer_ref(w, STR("r/x"), OBJ_BLOB, &id2, &f.err), &f.err);
    EXPECT_OK(writer_bind(w, &key, &id2, &f.err), &f.err);
    rig_commit(&f, w);
    EXPECT_OK(index_ref(f.st->index, STR("r/x"), &ref, &f.err), &f.err);
    EXPECT(digest_eq(&ref.digest, &id2));
    EXPECT_OK(index_action(f.st->index, &key, &result, &stamp, &f.err), &f.err);
    EXPECT(digest_eq(&result, &id2));
    EXPECT_OK(writer_ref(w, STR("r/x"), OBJ_NONE, NULL, &f.err), &f.err);
    rig_commit(&f, w);
    EXPECT_ERR(index_ref(f.st->index, STR("r/x"), &ref, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_OK(writer_ref(w, STR("r/x"), OBJ_BLOB, &id, &f.err), &f.err);
    rig_commit(&f, w);
    EXPECT_OK(index_ref(f.st->index, STR("r/x"), &ref, &f.err), &f.err);
    os_set_now(0);
    writer_release(w);
    forge_free(&f);
}

/* A gc takes away what the session has found: the commit is refused, and nothing of it is visible. */
TEST(a_reused_object_that_vanishes_refuses_the_commit)
{
    struct ref_row ref;
    struct digest id;
    struct forge f;

    forge_new(&f);

    struct writer *w = rig_writer(&f);

    EXPECT_OK(writer_put(w, OBJ_BLOB, "one", 3, &id, &f.err), &f.err);
    rig_commit(&f, w);
    EXPECT_OK(writer_put(w, OBJ_BLOB, "one", 3, &id, &f.err), &f.err);
    EXPECT_OK(writer_ref(w, STR("x"), OBJ_BLOB, &id, &f.err), &f.err);
    EXPECT_OK(index_drop_objects(f.st->index, &id, 1, &f.err), &f.err);
    EXPECT_ERR(writer_commit(w, &f.err), ERR_CHANGED, &f.err);
    EXPECT(writer_raced(w));
    /* The session is over. */
    EXPECT_ERR(writer_put(w, OBJ_BLOB, "two", 3, &id, &f.err), ERR_CHANGED, &f.err);
    EXPECT_ERR(writer_commit(w, &f.err), ERR_CHANGED, &f.err);
    writer_release(w);
    EXPECT_ERR(index_ref(f.st->index, STR("x"), &ref, &f.err), ERR_NOT_FOUND, &f.err);
    forge_free(&f);
}

/* ---- sessions that are too large for one commit ------------------------------------------------ */

TEST(a_session_commits_in_parts)
{
    enum { OBJECTS = 200, BYTES = 40000 };
    struct digest ids[OBJECTS], again;
    struct writer_stats stats;
    struct index_stat stat;
    struct forge f;

    forge_new(&f);

    struct writer *w = rig_writer(&f);

    w->pack_bytes_max = 4 * BYTES;
    w->packs_pending_max = 3;
    for (int i = 0; i < OBJECTS; i++) {
        uint8_t *p = rig_noise(1000 + i, BYTES);

        EXPECT_OK(writer_put(w, OBJ_BLOB, p, BYTES, &ids[i], &f.err), &f.err);
        if (i == 150) {
            /* From the first part, which is in the index by now, and from this one. */
            EXPECT_OK(writer_put(w, OBJ_BLOB, p, BYTES, &again, &f.err), &f.err);
            free(p);
            p = rig_noise(1000, BYTES);
            EXPECT_OK(writer_put(w, OBJ_BLOB, p, BYTES, &again, &f.err), &f.err);
            EXPECT(digest_eq(&again, &ids[0]));
        }
        free(p);
        EXPECT(forge_count_names(&f, f.st->tmp) <= 4);
    }
    EXPECT_OK(index_stat(f.st->index, &stat, &f.err), &f.err);
    EXPECT(stat.objects > OBJECTS / 2);
    rig_check(&f);
    rig_commit(&f, w);
    writer_get_stats(w, &stats);
    EXPECT_EQ(stats.new_objects, OBJECTS);
    EXPECT_EQ(stats.reused_objects, 2);
    writer_release(w);
    for (int i = 0; i < OBJECTS; i++) {
        uint8_t *p = rig_noise(1000 + i, BYTES);

        rig_expect_object(&f, &ids[i], p, BYTES);
        free(p);
    }
    forge_free(&f);
}

/* A gc without any grace period between a part and the end is noticed. */
TEST(a_part_that_vanishes_refuses_the_commit)
{
    enum { OBJECTS = 20, BYTES = 40000 };
    struct digest ids[OBJECTS];
    struct forge f;

    forge_new(&f);

    struct writer *w = rig_writer(&f);

    w->pack_bytes_max = 4 * BYTES;
    w->packs_pending_max = 1;
    for (int i = 0; i < OBJECTS; i++) {
        uint8_t *p = rig_noise(2000 + i, BYTES);

        EXPECT_OK(writer_put(w, OBJ_BLOB, p, BYTES, &ids[i], &f.err), &f.err);
        free(p);
    }
    EXPECT_OK(index_drop_objects(f.st->index, ids, 4, &f.err), &f.err);
    EXPECT_ERR(writer_commit(w, &f.err), ERR_CHANGED, &f.err);
    writer_release(w);
    forge_free(&f);
}

TEST(many_reused_ids_are_committed_in_parts)
{
    enum { OBJECTS = 300 };
    struct touch_row *touches = NULL;
    struct digest id;
    struct forge f;
    size_t n;

    forge_new(&f);

    struct writer *w = rig_writer(&f);

    w->ids_max = 100;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < OBJECTS; i++)
            EXPECT_OK(writer_put(w, OBJ_BLOB, &i, sizeof(i), &id, &f.err), &f.err);
        if (round == 0)
            rig_commit(&f, w);
    }
    EXPECT(claims_count(w->ids, ID_REUSED) <= 100);
    rig_commit(&f, w);
    writer_release(w);
    EXPECT_OK(index_touches(f.st->index, &touches, &n, &f.err), &f.err);
    EXPECT(n >= OBJECTS - 100); /* what left the session's memory is kept by the index */
    free(touches);
    forge_free(&f);
}

/* ---- nodes ------------------------------------------------------------------------------------- */

TEST(a_node_writes_without_an_index)
{
    const struct digest key = {{3}};
    const size_t n = 3 * MIB;
    uint8_t *p = rig_noise(11, n);
    struct digest small, large, result;
    struct forge f;
    int64_t stamp;

    forge_new(&f);
    rig_write(&f, "f", p, n);
    for (int round = 0; round < 2; round++) {
        forge_open(&f, STORE_NODE);
        EXPECT(f.st->index == NULL);

        struct writer *w = rig_writer(&f);

        EXPECT_OK(writer_put(w, OBJ_BLOB, p, 5000, &small, &f.err), &f.err);
        EXPECT_OK(rig_put_file(&f, w, "f", &large, &f.err), &f.err);
        EXPECT_OK(writer_bind(w, &key, &large, &f.err), &f.err);
        EXPECT_OK(writer_commit(w, &f.err), &f.err);
        writer_release(w);
        forge_open(&f, STORE_WRITE); /* the head finds it */
        rig_check(&f);
        rig_expect_object(&f, &small, p, 5000);
        rig_expect_object(&f, &large, p, n);
        EXPECT_OK(index_action(f.st->index, &key, &result, &stamp, &f.err), &f.err);
        EXPECT(digest_eq(&result, &large));
    }
    EXPECT(rig_stored(&f) < (int64_t)n + 50000); /* the large file once */
    free(p);
    forge_free(&f);
}

/* ---- stored as they are ------------------------------------------------------------------------ */

TEST(encoded_objects_and_recipes_are_stored_as_given)
{
    static const size_t sizes[] = {1000, 2000};
    uint8_t *p = rig_noise(12, 3000);
    struct digest id;
    struct forge f;

    forge_new(&f);

    struct recipe_chunk *chunks = forge_chunks((const char *)p, sizes, 2);
    struct writer *w = rig_writer(&f);

    sha256_of(p, 3000, &id);
    for (int i = 0; i < 2; i++)
        EXPECT_OK(writer_put_encoded(w, &chunks[i].id, 0, ENC_RAW, sizes[i], p + 1000 * i, sizes[i],
                                     &f.err),
                  &f.err);
    EXPECT_OK(writer_put_recipe(w, &id, 0, 3000, chunks, 2, &f.err), &f.err);
    EXPECT_OK(writer_put_recipe(w, &id, 0, 3000, chunks, 2, &f.err), &f.err);
    rig_commit(&f, w);
    EXPECT_EQ(rig_where(&f, &id), LOC_RECIPE);
    rig_expect_object(&f, &id, p, 3000);

    /* Compaction stores what the index has already: another copy is another copy. */
    const int64_t before = rig_stored(&f);

    EXPECT_OK(writer_put_encoded(w, &chunks[1].id, 0, ENC_RAW, 2000, p + 1000, 2000, &f.err),
              &f.err);
    rig_commit(&f, w);
    EXPECT(rig_stored(&f) > before + 2000);
    writer_release(w);
    free(chunks);
    free(p);
    forge_free(&f);
}

/* ---- threads ----------------------------------------------------------------------------------- */

struct putter {
    struct forge *f;
    struct writer *w;
    uint64_t seed;
    struct digest ids[64];
    struct err err;
    enum err_code rc;
};

static void *put_many(void *arg)
{
    struct putter *t = arg;
    uint64_t seed = t->seed;

    for (int i = 0; i < 64 && !t->rc; i++) {
        const size_t n = 1 + gen_below(&seed, 60000);
        uint8_t *p = rig_noise(500 + i, n);

        /* Every other one the same in all threads. */
        if (i % 2 == 0)
            memset(p, i, n < 30000 ? n : 30000);
        if (i % 2 == 0)
            t->rc = writer_put(t->w, OBJ_BLOB, p, 1, &t->ids[i], &t->err);
        else
            t->rc = writer_put(t->w, OBJ_BLOB, p, n, &t->ids[i], &t->err);
        free(p);
        if (!t->rc && i % 16 == 0)
            t->rc = rig_put_file(t->f, t->w, i % 32 ? "a" : "b", &t->ids[i], &t->err);
    }
    return NULL;
}

/* It would be believed: the chunk that it needs is there, as soon as the recipe is. */
TEST(a_recipe_of_itself_is_refused)
{
    const char *text = "a chunk";
    struct recipe_chunk chunk = {.len = 7};
    struct writer *w = NULL;
    struct forge f;
    bool has;

    forge_new(&f);
    sha256_of(text, 7, &chunk.id);
    EXPECT_OK(writer_open(f.st, &w, &f.err), &f.err);
    EXPECT_ERR(writer_put_recipe(w, &chunk.id, 0, 7, &chunk, 1, &f.err), ERR_CHANGED, &f.err);
    EXPECT(strstr(f.err.text, "recipe of itself"));
    f.err = (struct err)ERR_INIT;
    EXPECT_OK(writer_has(w, &chunk.id, &has, &f.err), &f.err); /* the session goes on */
    EXPECT(!has);
    EXPECT_OK(writer_put(w, OBJ_BLOB, text, 7, &chunk.id, &f.err), &f.err);
    EXPECT_OK(writer_commit(w, &f.err), &f.err);
    writer_release(w);
    EXPECT_OK(store_check(f.st, &f.err), &f.err);
    forge_free(&f);
}

TEST(many_threads_put_at_once)
{
    enum { THREADS = 4 };
    const size_t n = 3 * MIB;
    uint8_t *a = rig_noise(13, n), *b = rig_noise(14, n);
    static struct putter putters[THREADS];
    pthread_t threads[THREADS];
    struct forge f;

    forge_new(&f);
    rig_write(&f, "a", a, n);
    rig_write(&f, "b", b, n);

    struct writer *w = rig_writer(&f);

    for (int i = 0; i < THREADS; i++) {
        putters[i] = (struct putter){.f = &f, .w = w, .seed = 900 + i, .err = ERR_INIT};
        EXPECT_EQ(pthread_create(&threads[i], NULL, put_many, &putters[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        EXPECT_EQ(pthread_join(threads[i], NULL), 0);
        EXPECT_OK(putters[i].rc, &putters[i].err);
    }
    rig_commit(&f, w);
    writer_release(w);
    for (int i = 0; i < THREADS; i++) {
        uint64_t seed = 900 + i;

        for (int k = 0; k < 64; k++) {
            const size_t size = 1 + gen_below(&seed, 60000);
            uint8_t *p = rig_noise(500 + k, size);

            if (k % 16 == 0)
                rig_expect_object(&f, &putters[i].ids[k], k % 32 ? a : b, n);
            else if (k % 2)
                rig_expect_object(&f, &putters[i].ids[k], p, size);
            free(p);
        }
    }
    EXPECT(rig_stored(&f) < (int64_t)(2 * n) + THREADS * 32 * 61000);
    free(a);
    free(b);
    forge_free(&f);
}

RUN(small_objects_come_back, equal_objects_are_stored_once, what_is_not_committed_leaves_nothing,
    a_read_only_store_has_no_writer, a_new_large_file_is_loose_and_its_chunks_are_known,
    a_file_of_one_chunk_needs_no_recipe, a_second_version_costs_what_has_changed,
    a_file_with_a_new_start_shares_its_middle, an_archive_with_new_first_members_shares_its_middle,
    versions_of_one_session_share_chunks, a_known_large_file_is_not_stored_again,
    adding_a_file_again_replaces_a_lost_loose_file, a_tree_past_the_limit_of_one_record_is_cut,
    objects_past_the_limits_are_refused, a_large_file_that_changed_meanwhile_is_refused,
    a_small_file_that_changes_meanwhile_is_refused, only_regular_files_are_read,
    refs_and_binds_come_with_the_commit, a_reused_object_that_vanishes_refuses_the_commit,
    a_session_commits_in_parts, a_part_that_vanishes_refuses_the_commit,
    many_reused_ids_are_committed_in_parts, a_node_writes_without_an_index,
    encoded_objects_and_recipes_are_stored_as_given, a_recipe_of_itself_is_refused,
    many_threads_put_at_once)
