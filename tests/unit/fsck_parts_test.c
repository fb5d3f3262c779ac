/* A pack that is large enough to be checked in parts by several threads, with every form of blob: whole it is clean, and any damage is
 * found, named, and repaired without losing what else is in the pack. */
#include "tests/store_life.h"

enum { BLOBS = 60, MAX = 700000 };

struct large_pack {
    struct forge f;
    struct digest ids[BLOBS], key;
    struct loc locs[BLOBS];
};

/* Raw ones, long and short, and compressed ones. */
static void large_new(struct large_pack *l)
{
    char *bytes = mem_alloc(MAX);
    uint64_t seed = 3;

    forge_new(&l->f);
    forge_begin(&l->f);
    for (int i = 0; i < BLOBS; i++) {
        const size_t n = i % 5 == 4 ? 3000 : (size_t)MAX - (size_t)i * 1001;

        if (i % 3 == 0)
            gen_weights(&seed, (uint8_t *)bytes, n / 2 * 2, 2);
        else
            gen_noise(&seed, bytes, n);
        l->ids[i] = forge_blob(&l->f, i % 3 == 0 ? ENC_PLANES2 : ENC_RAW, 0, bytes, n / 2 * 2);
    }
    l->key = (struct digest){.b = {5}};
    forge_bind(&l->f, &l->key, &l->ids[0]);
    forge_ref(&l->f, "first", OBJ_BLOB, &l->ids[0]);
    forge_commit(&l->f);
    EXPECT_OK(index_get(l->f.st->index, l->ids, BLOBS, l->locs, &l->f.err), &l->f.err);
    free(bytes);
}

TEST(a_whole_one_is_clean)
{
    struct large_pack l;

    large_new(&l);
    life_fsck_clean(&l.f);
    forge_open(&l.f, STORE_WRITE);
    life_fsck_clean(&l.f);
    forge_free(&l.f);
}

TEST(each_damaged_blob_is_named)
{
    struct large_pack l;

    large_new(&l);
    for (int i = 0; i < BLOBS; i += 7) {
        const int64_t at = (int64_t)l.locs[i].off + PACK_RECORD_HEADER + l.locs[i].stored / 2;
        struct fsck_report r;

        forge_damage_pack(&l.f, &l.f.pack, at);
        EXPECT_ERR(life_fsck(&l.f, FSCK_FULL, false, &r), ERR_DAMAGED, &l.f.err);
        EXPECT_EQ(r.problem_count, 1);
        EXPECT(digest_eq(&r.problems[0].id, &l.ids[i]));
        fsck_report_release(&r);
        forge_damage_pack(&l.f, &l.f.pack, at); /* the same bit again */
    }
    life_fsck_clean(&l.f);
    forge_free(&l.f);
}

/* The bind lies in another part than the damage. */
TEST(what_is_whole_survives_the_repair)
{
    struct digest result;
    struct large_pack l;
    struct fsck_report r;
    int64_t stamp;

    large_new(&l);
    forge_damage_pack(&l.f, &l.f.pack, (int64_t)l.locs[1].off + PACK_RECORD_HEADER + 100);
    (void)!life_fsck(&l.f, FSCK_FULL, true, &r);
    fsck_report_release(&r);
    for (int i = 0; i < BLOBS; i++)
        EXPECT_EQ(life_has(&l.f, &l.ids[i]), i != 1);
    EXPECT_OK(index_action(l.f.st->index, &l.key, &result, &stamp, &l.f.err), &l.f.err);
    EXPECT(digest_eq(&result, &l.ids[0]));
    life_rebuild_is_equal(&l.f);
    EXPECT_OK(index_action(l.f.st->index, &l.key, &result, &stamp, &l.f.err), &l.f.err);
    life_fsck_clean(&l.f);
    forge_free(&l.f);
}

RUN(a_whole_one_is_clean, each_damaged_blob_is_named, what_is_whole_survives_the_repair)
