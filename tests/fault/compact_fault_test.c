/* A compaction, with each of its fallible calls failing once: the store is whole, every byte reads as before, and the next compaction
 * finishes the work. */
#include "tests/store_life.h"

static struct digest lay_out(struct forge *f)
{
    static const size_t cut[] = {3000, 5000};
    struct digest a, b;
    char noise[20000];
    uint64_t seed = 4;

    forge_new(f);
    gen_noise(&seed, noise, sizeof(noise));
    forge_begin(f);
    a = forge_loose(f, noise, 8000, cut, 2);
    forge_ref(f, "a", OBJ_BLOB, &a);
    forge_commit(f);
    forge_begin(f);
    b = forge_loose(f, noise + 5000, 9000, NULL, 0);
    forge_ref(f, "b", OBJ_BLOB, &b);
    forge_bind(f, &(struct digest){{1}}, &b);
    forge_commit(f);
    life_tree(f, "tree", 200, 5, 100);
    life_tree(f, "tree2", 202, 5, 100);
    return a;
}

/* A recipe whose chunks lie raw in its pack, and a loose file beside it. */
static struct digest lay_out_second_version(struct forge *f)
{
    enum { CHUNKS = 3, CHUNK = 20000 };
    struct recipe_chunk chunks[CHUNKS];
    uint8_t weights[CHUNKS * CHUNK];
    uint64_t seed = 4;
    struct digest a, b;

    forge_new(f);
    gen_weights(&seed, weights, sizeof(weights), 2);
    forge_begin(f);
    a = forge_loose(f, (char *)weights + 10, CHUNK, NULL, 0);
    forge_ref(f, "a", OBJ_BLOB, &a);
    for (int i = 0; i < CHUNKS; i++)
        chunks[i] =
            (struct recipe_chunk){.id = forge_blob(f, ENC_RAW, 0, weights + i * CHUNK, CHUNK),
                                  .len = CHUNK,
                                  .hint = HINT_WORDS2};
    b = forge_recipe(f, (char *)weights, sizeof(weights), chunks, CHUNKS);
    forge_ref(f, "b", OBJ_BLOB, &b);
    forge_bind(f, &(struct digest){{1}}, &b);
    forge_commit(f);
    return a;
}

static void sweep(struct digest (*lay_out_store)(struct forge *f), int calls_min)
{
    bool fired = true;
    int n = 0;

    for (; fired; n++) {
        struct compact_report r;
        struct digest a;
        struct forge f;
        enum err_code rc;
        int fds;

        a = lay_out_store(&f);
        fds = forge_fd_count();
        fault_arm(n);
        rc = store_compact(f.st, NULL, &r, &f.err);
        fired = fault_disarm();
        if (!fired)
            EXPECT_OK(rc, &f.err);
        f.err = (struct err)ERR_INIT;
        EXPECT(forge_fd_count() <= fds + 2); /* open packs may be kept for the next reader */
        life_check(&f);
        forge_open(&f, STORE_WRITE);
        life_check(&f);
        EXPECT_OK(store_compact(f.st, NULL, &r, &f.err), &f.err);
        life_gc(&f, 0); /* a file that was packed before the fault, and kept */
        EXPECT(!forge_loose_there(&f, &a));
        life_check(&f);
        life_fsck_clean(&f);
        EXPECT_OK(store_compact(f.st, NULL, &r, &f.err), &f.err);
        EXPECT_EQ(r.packs_compressed, 0);
        if (n % 16 == 0)
            life_rebuild_is_equal(&f);
        forge_free(&f);
    }
    print_message("%d calls\n", n - 1);
    EXPECT(n > calls_min);
}

TEST(any_single_fault)
{
    sweep(lay_out, 50);
}

TEST(any_single_fault_with_raw_chunks)
{
    sweep(lay_out_second_version, 50);
}

RUN(any_single_fault, any_single_fault_with_raw_chunks)
