/* Every fallible call of an add fails once.  Afterwards the store is consistent, nothing is half there, no descriptor or temporary
 * file is left, and the same add succeeds.  Each round adds other bytes, so that no round finds the work of the one before. */
#include "store/tree.h"
#include "store/writer_internal.h"
#include "tests/writer_rig.h"

#define CALLS_MAX 5000 /* far more than any add below makes */

/* Prepares round nth (sources on disk), then adds, and says which digest it expects. */
struct case_of_faults {
    void (*prepare)(struct forge *f, uint64_t seed);
    enum err_code (*add)(struct forge *f, struct digest *id, struct err *err);
    void (*expect)(struct forge *f, const struct digest *id, uint64_t seed);
    bool ends_the_source; /* the add removes it */
    void (*id)(uint64_t seed,
               struct digest *id); /* of the file "large", when it is all there is to move */
};

/* The bytes of a file that was to be moved in are in the store or still where they were. */
static void expect_not_lost(struct forge *f, const struct digest *id)
{
    char path[RIG_PATH];
    struct digest now;
    struct buf b;

    if (rig_where(f, id) != 0)
        return;
    buf_init(&b, 16 << 20);
    rig_path(f, "large", path);
    EXPECT_OK(os_read_file(AT_FDCWD, path, 16 << 20, &b, &f->err), &f->err);
    sha256_of(b.p, b.n, &now);
    EXPECT(digest_eq(&now, id));
    buf_release(&b);
}

static void run(const struct case_of_faults *c)
{
    bool fired = true;
    struct forge f;
    int quiet = 0, nth;

    forge_new(&f);
    for (nth = 0; fired && nth < CALLS_MAX; nth++) {
        const uint64_t seed = (uint64_t)nth + 1;
        struct err err = ERR_INIT;
        struct digest id;
        enum err_code rc;

        c->prepare(&f, seed);

        const int fds = forge_fd_count();

        fault_arm(nth);
        rc = c->add(&f, &id, &err);
        fired = fault_disarm();
        EXPECT(fired || rc == OK);
        EXPECT_EQ(rc, err.code);
        quiet += fired && rc == OK;          /* removing a temporary name, or the like */
        EXPECT(forge_fd_count() <= fds + 1); /* the reader may have opened a pack */
        rig_check(&f);
        if (rc && !c->ends_the_source) {
            err = (struct err)ERR_INIT;
            EXPECT_OK(c->add(&f, &id, &err), &err);
        } else if (rc) {
            if (c->id) {
                c->id(seed, &id);
                expect_not_lost(&f, &id);
            }
            c->prepare(&f, seed);
            err = (struct err)ERR_INIT;
            EXPECT_OK(c->add(&f, &id, &err), &err);
        }
        rig_check(&f);
        c->expect(&f, &id, seed);
    }
    print_message("%d calls, %d of them did not matter\n", nth, quiet);
    EXPECT(nth > 10);
    EXPECT(nth < CALLS_MAX);
    EXPECT(quiet * 4 < nth);
    forge_free(&f);
}

static enum err_code add_path(struct forge *f, const char *name, enum ingest_how how,
                              struct digest *id, struct err *err)
{
    const struct ingest_options o = {.how = how, .ref = "x"};
    struct ingest_result r;
    char path[RIG_PATH];
    enum err_code rc;

    rig_path(f, name, path);
    rc = store_add(f->st, path, &o, &r, err);
    *id = r.digest;
    return rc;
}

/* ---- a small file ------------------------------------------------------------------------------ */

static void prepare_small(struct forge *f, uint64_t seed)
{
    uint8_t *p = rig_noise(seed, 5000);

    rig_write(f, "small", p, 5000);
    free(p);
}

static enum err_code add_small(struct forge *f, struct digest *id, struct err *err)
{
    return add_path(f, "small", INGEST_COPY, id, err);
}

static void expect_small(struct forge *f, const struct digest *id, uint64_t seed)
{
    uint8_t *p = rig_noise(seed, 5000);

    rig_expect_object(f, id, p, 5000);
    free(p);
}

TEST(adding_a_small_file)
{
    run(&(struct case_of_faults){prepare_small, add_small, expect_small, false, NULL});
}

/* ---- a new large file -------------------------------------------------------------------------- */

#define LARGE (((size_t)1 << 20) + 77)

static void prepare_large(struct forge *f, uint64_t seed)
{
    uint8_t *p = rig_noise(seed, LARGE);

    rig_write(f, "large", p, LARGE);
    free(p);
}

static enum err_code add_large(struct forge *f, struct digest *id, struct err *err)
{
    return add_path(f, "large", INGEST_COPY, id, err);
}

static void expect_large(struct forge *f, const struct digest *id, uint64_t seed)
{
    uint8_t *p = rig_noise(seed, LARGE);

    rig_expect_object(f, id, p, LARGE);
    EXPECT_EQ(rig_where(f, id), LOC_LOOSE);
    free(p);
}

TEST(adding_a_large_file)
{
    run(&(struct case_of_faults){prepare_large, add_large, expect_large, false, NULL});
}

static enum err_code adopt_large(struct forge *f, struct digest *id, struct err *err)
{
    return add_path(f, "large", INGEST_ADOPT, id, err);
}

static void large_id(uint64_t seed, struct digest *id)
{
    uint8_t *p = rig_noise(seed, LARGE);

    sha256_of(p, LARGE, id);
    free(p);
}

TEST(moving_a_large_file_in)
{
    run(&(struct case_of_faults){prepare_large, adopt_large, expect_large, true, large_id});
}

/* ---- a second version -------------------------------------------------------------------------- */

static const struct gen_tensor tensors[] = {{"a", "BF16", 1 << 20, 2}, {"b", "BF16", 1 << 19, 2}};

/* Tensor a is always the same, b is this round's. */
static void make_version(struct buf *b, uint64_t seed)
{
    uint64_t same = 4711;

    buf_init(b, 8 << 20);
    gen_safetensors(b, &same, tensors, 2, 0);
    gen_noise(&seed, b->p + b->n - (1 << 19), 1 << 19);
}

static void prepare_version(struct forge *f, uint64_t seed)
{
    struct ingest_result r;
    char path[RIG_PATH];
    struct buf b;

    if (seed == 1) {
        const struct ingest_options o = {.how = INGEST_COPY};

        make_version(&b, 1000000);
        rig_write(f, "first", b.p, b.n);
        buf_release(&b);
        rig_path(f, "first", path);
        EXPECT_OK(store_add(f->st, path, &o, &r, &f->err), &f->err);
    }
    make_version(&b, seed);
    rig_write(f, "version", b.p, b.n);
    buf_release(&b);
}

static enum err_code add_version(struct forge *f, struct digest *id, struct err *err)
{
    return add_path(f, "version", INGEST_COPY, id, err);
}

static void expect_version(struct forge *f, const struct digest *id, uint64_t seed)
{
    struct buf b;

    make_version(&b, seed);
    rig_expect_object(f, id, b.p, b.n);
    EXPECT_EQ(rig_where(f, id), LOC_RECIPE);
    buf_release(&b);
}

TEST(adding_a_second_version)
{
    run(&(struct case_of_faults){prepare_version, add_version, expect_version, false, NULL});
}

/* ---- a folder ---------------------------------------------------------------------------------- */

static void folder_bytes(uint64_t seed, int i, uint8_t p[3000])
{
    seed = seed * 100 + (uint64_t)i;
    if (i % 2)
        gen_json(&seed, (char *)p, 3000);
    else
        gen_noise(&seed, p, 3000);
}

static void prepare_folder(struct forge *f, uint64_t seed)
{
    uint8_t *large = rig_noise(seed, LARGE), p[3000];
    char name[32], path[RIG_PATH];

    rig_path(f, "d", path);
    EXPECT_OK(os_remove_tree(AT_FDCWD, path, &f->err), &f->err);
    rig_mkdir(f, "d");
    rig_mkdir(f, "d/s");
    for (int i = 0; i < 6; i++) {
        folder_bytes(seed, i, p);
        snprintf(name, sizeof(name), i % 3 ? "d/%d" : "d/s/%d", i);
        rig_write(f, name, p, sizeof(p));
    }
    rig_write(f, "d/large", large, LARGE);
    rig_path(f, "d/link", path);
    EXPECT_EQ(symlink("s/0", path), 0);
    free(large);
}

static enum err_code add_folder(struct forge *f, struct digest *id, struct err *err)
{
    return add_path(f, "d", INGEST_COPY, id, err);
}

static enum err_code adopt_folder(struct forge *f, struct digest *id, struct err *err)
{
    return add_path(f, "d", INGEST_ADOPT, id, err);
}

static void expect_folder(struct forge *f, const struct digest *id, uint64_t seed)
{
    struct digest missing, object;
    uint8_t p[3000];
    bool complete;

    EXPECT_OK(store_complete(f->st, OBJ_TREE, id, &complete, &missing, &f->err), &f->err);
    EXPECT(complete);
    for (int i = 0; i < 6; i++) {
        folder_bytes(seed, i, p);
        sha256_of(p, sizeof(p), &object);
        rig_expect_object(f, &object, p, sizeof(p));
    }
}

TEST(adding_a_folder)
{
    run(&(struct case_of_faults){prepare_folder, add_folder, expect_folder, false, NULL});
}

TEST(moving_a_folder_in)
{
    run(&(struct case_of_faults){prepare_folder, adopt_folder, expect_folder, true, NULL});
}

/* ---- a long session ---------------------------------------------------------------------------- */

static uint64_t parts_seed;

static void prepare_parts(struct forge *f, uint64_t seed)
{
    (void)f;
    parts_seed = seed;
}

static enum err_code add_parts(struct forge *f, struct digest *id, struct err *err)
{
    struct writer *w = NULL;
    enum err_code rc = writer_open(f->st, &w, err);

    if (!rc) {
        w->pack_bytes_max = 8000;
        w->packs_pending_max = 1;
    }
    for (uint64_t i = 0; !rc && i < 6; i++) {
        uint8_t *p = rig_noise(parts_seed * 100 + i, 5000);

        rc = writer_put(w, OBJ_BLOB, p, 5000, id, err);
        free(p);
    }
    if (!rc)
        rc = writer_commit(w, err);
    writer_release(w);
    return rc;
}

static void expect_parts(struct forge *f, const struct digest *id, uint64_t seed)
{
    uint8_t *p = rig_noise(seed * 100 + 5, 5000);

    rig_expect_object(f, id, p, 5000);
    free(p);
}

TEST(committing_in_parts)
{
    run(&(struct case_of_faults){prepare_parts, add_parts, expect_parts, false, NULL});
}

RUN(adding_a_small_file, adding_a_large_file, moving_a_large_file_in, adding_a_second_version,
    adding_a_folder, moving_a_folder_in, committing_in_parts)
