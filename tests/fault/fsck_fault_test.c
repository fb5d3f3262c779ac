/* fsck --repair of a damaged store, with each of its fallible calls failing once: nothing that was whole is lost by it, nothing is
 * deleted, and the next repair comes to the same end as one that was never disturbed. */
#include <time.h>

#include "store/fsck_internal.h"
#include "tests/store_life.h"

/* A round forks several times, which the sanitizers' memory makes slow: with them only every STEP-th call fails, from an offset that
 * WEIR_SEED decides.  Without them all do. */
#ifdef WEIR_ARENA_DEBUG
#define STEP 4
#else
#define STEP 1
#endif

static int first_call(void)
{
    const char *text = getenv("WEIR_SEED");
    struct err err = ERR_INIT;
    int64_t seed = (int64_t)time(NULL);

    if (text)
        EXPECT_OK(str_to_i64(str_of(text), 0, INT64_MAX, &seed, &err), &err);
    print_message("seed %lld, each call of %d\n", (long long)seed, STEP);
    return (int)(seed % STEP);
}

static int64_t record_of(struct forge *f, const struct digest *id)
{
    struct loc loc;

    EXPECT_OK(index_get(f->st->index, id, 1, &loc, &f->err), &f->err);
    return loc.off;
}

static void lay_out(struct forge *f, struct digest *whole, struct digest *lost)
{
    static const size_t frame[] = {300, 400};
    struct digest members[2], good, pack, loose, missing;
    char text[700], noise[5000];
    char hex[DIGEST_HEX + 1];
    uint64_t seed = 4;

    forge_new(f);
    gen_noise(&seed, noise, sizeof(noise));
    life_text(1, text, sizeof(text));
    *whole = life_tree(f, "tree", 200, 5, 100);
    forge_begin(f); /* damaged in one record */
    good = forge_blob(f, ENC_RAW, 0, noise, 500);
    *lost = forge_blob(f, ENC_RAW, 0, noise + 500, 500);
    forge_frame(f, text, frame, 2, members);
    forge_ref(f, "good", OBJ_BLOB, &good);
    forge_ref(f, "member", OBJ_BLOB, &members[1]);
    forge_ref(f, "lost", OBJ_BLOB, lost);
    forge_commit(f);
    pack = f->pack;
    forge_begin(f); /* a damaged loose file that nothing needs */
    loose = forge_loose(f, noise + 1000, 1000, NULL, 0);
    forge_commit(f);
    forge_begin(f); /* a pack that vanishes, with a ref that the index still knows */
    missing = forge_blob(f, ENC_RAW, 0, noise + 3000, 100);
    forge_ref(f, "good-too", OBJ_BLOB, &good);
    forge_commit(f);
    (void)missing;
    forge_damage_pack(f, &pack, record_of(f, lost) + PACK_RECORD_HEADER + 7);
    forge_damage_loose(f, &loose, 100, true);
    digest_hex(&f->pack, hex);
    EXPECT_OK(os_unlink(f->st->packs, hex, &f->err), &f->err);
}

/* Repair does what it can, and says what it cannot. */
static void repair(struct forge *f, const struct digest *lost)
{
    struct fsck_report r;
    struct ref_row row;

    EXPECT_ERR(life_fsck(f, FSCK_FULL, true, &r), ERR_DAMAGED, &f->err);
    for (size_t i = 0; i < r.problem_count; i++)
        EXPECT(r.problems[i].repaired || digest_eq(&r.problems[i].id, lost));
    fsck_report_release(&r);
    f->err = (struct err)ERR_INIT;
    EXPECT_OK(index_ref(f->st->index, STR("good-too"), &row, &f->err), &f->err);
    life_read(f, OBJ_BLOB, &row.digest);
    EXPECT_OK(index_ref(f->st->index, STR("member"), &row, &f->err), &f->err);
    life_read(f, OBJ_BLOB, &row.digest);
    life_unref(f, "lost");
    life_check(f);
    life_fsck_clean(f);
    life_rebuild_is_equal(f);
}

/* After a disturbed run: nothing whole is lost, and an undisturbed one comes to the end. */
static void recover(struct forge *f, const struct digest *whole, const struct digest *lost)
{
    f->err = (struct err)ERR_INIT;
    forge_open(f, STORE_WRITE);
    life_read(f, OBJ_TREE, whole);
    repair(f, lost);
    EXPECT_EQ(forge_count_names(f, f->st->quarantine), 2);
    forge_free(f);
}

/* The calls of the child that compares the index are counted from where the parent's were: as long as the child has more of them, it
 * is the child that fails, and says so. */
TEST(any_single_fault_of_the_child)
{
    const struct fsck_options o = {.level = FSCK_FULL, .repair = true};
    enum err_code rc = ERR_IO;
    int n = first_call();

    for (; rc == ERR_IO || rc == ERR_FULL; n += STEP) {
        struct digest whole, lost;
        struct fsck_report r;
        struct forge f;
        int fds;

        lay_out(&f, &whole, &lost);
        fds = forge_fd_count();
        fault_arm(n);
        rc = store_fsck(f.st, &o, &r, &f.err);
        fault_disarm();
        fsck_report_release(&r);
        EXPECT(forge_fd_count() <= fds + 4); /* open packs may be kept for the next reader */
        recover(&f, &whole, &lost);
    }
    print_message("%d calls\n", n - STEP);
    EXPECT(n > 50);
}

TEST(any_single_fault_of_the_rest)
{
    const struct fsck_options o = {.level = FSCK_FULL, .repair = true};
    bool fired = true;
    int n = first_call();

    for (; fired; n += STEP) {
        struct digest whole, lost;
        struct fsck_report r;
        struct fsck check;
        struct forge f;
        int fds;

        lay_out(&f, &whole, &lost);
        fds = forge_fd_count();
        fsck_begin(&check, f.st, &o, &r);
        fault_arm(n);
        (void)!fsck_rest(&check, &f.err);
        fired = fault_disarm();
        fsck_end(&check);
        fsck_report_release(&r);
        EXPECT(forge_fd_count() <= fds + 4);
        recover(&f, &whole, &lost);
    }
    print_message("%d calls\n", n - STEP);
    EXPECT(n > 50);
}

TEST(a_fault_while_only_looking_changes_nothing)
{
    const struct fsck_options o = {.level = FSCK_FULL};
    struct digest whole, lost;
    struct buf before, after;
    bool fired = true;
    struct forge f;

    lay_out(&f, &whole, &lost);
    life_dump(&f, &before);
    for (int n = first_call(); fired; n += STEP) {
        struct fsck_report r;
        enum err_code rc;

        fault_arm(n);
        rc = store_fsck(f.st, &o, &r, &f.err);
        fired = fault_disarm() || rc != ERR_DAMAGED;
        EXPECT(rc != OK);
        fsck_report_release(&r);
    }
    f.err = (struct err)ERR_INIT;
    life_dump(&f, &after);
    EXPECT_STR(before.p, after.p);
    EXPECT_EQ(forge_count_names(&f, f.st->quarantine), 0);
    buf_release(&before);
    buf_release(&after);
    forge_free(&f);
}

RUN(any_single_fault_of_the_child, any_single_fault_of_the_rest,
    a_fault_while_only_looking_changes_nothing)
