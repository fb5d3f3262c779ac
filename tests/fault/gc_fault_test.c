/* A gc, with each of its fallible calls failing once: whatever it had done by then, the store is whole, nothing alive is lost, and the
 * next gc finishes the work. */
#include "tests/store_life.h"

static void lay_out(struct forge *f, struct digest *dead)
{
    static const size_t frame[] = {800, 700, 900}, cut[] = {2000, 6000, 3000};
    struct recipe_chunk *chunks;
    struct digest members[3], a, user;
    char text[2400], noise[40000];
    uint64_t seed = 4;

    forge_new(f);
    gen_noise(&seed, noise, sizeof(noise));
    life_text(1, text, sizeof(text));
    forge_begin(f); /* mostly dead, with a frame that loses members, a bind, a tombstone */
    forge_frame(f, text, frame, 3, members);
    a = forge_blob(f, ENC_RAW, 0, noise + 20000, 500);
    *dead = forge_blob(f, ENC_RAW, 0, noise + 12000, 8000);
    forge_bind(f, &(struct digest){{1}}, &a);
    forge_ref(f, "gone", OBJ_NONE, &a);
    forge_ref(f, "a", OBJ_BLOB, &a);
    forge_ref(f, "m", OBJ_BLOB, &members[1]);
    forge_commit(f);
    forge_begin(f); /* a dead loose file, a slice of which is part of a live recipe */
    forge_loose(f, noise, 8000, cut, 2);
    forge_commit(f);
    chunks = forge_chunks(noise, cut, 3);
    forge_begin(f);
    forge_blob(f, ENC_RAW, 0, noise + 8000, 3000);
    user = forge_recipe(f, noise, 11000, chunks, 3);
    forge_ref(f, "user", OBJ_BLOB, &user);
    forge_commit(f);
    free(chunks);
    life_tree(f, NULL, 100, 5, 100);
    life_tree(f, "tree", 200, 5, 100);
}

TEST(any_single_fault)
{
    const struct gc_options o = {.grace_s = 0};
    bool fired = true;
    int n = 0;

    for (; fired; n++) {
        struct digest dead;
        struct gc_report r;
        struct forge f;
        enum err_code rc;
        int fds;

        lay_out(&f, &dead);
        fds = forge_fd_count();
        fault_arm(n);
        rc = store_gc(f.st, &o, &r, &f.err);
        fired = fault_disarm();
        if (!fired)
            EXPECT_OK(rc, &f.err);
        f.err = (struct err)ERR_INIT;
        EXPECT(forge_fd_count() <= fds + 3); /* open packs may be kept for the next reader */
        life_check(&f);
        forge_open(&f, STORE_WRITE); /* may finish it */
        life_check(&f);
        life_gc(&f, 0);
        EXPECT(!life_has(&f, &dead));
        life_check(&f);
        if (n % 16 == 0)
            life_rebuild_is_equal(&f);
        forge_free(&f);
    }
    print_message("%d calls\n", n - 1);
    EXPECT(n > 50);
}

RUN(any_single_fault)
