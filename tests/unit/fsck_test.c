#include <utime.h>

#include "store/fsck.h"
#include "store/fsck_internal.h"
#include "store/transfer.h"
#include "tests/store_life.h"

/* One of each kind of record, under refs; a few KiB in all. */
struct small {
    struct forge f;
    struct digest blob, packed, members[3], recipe, loose, loose_plain, tree, top, key;
    char noise[3000];
};

static void add(struct tree *t, const char *name, enum tree_mode mode, const struct digest *d)
{
    struct tree_entry e = {.mode = mode, .name = str_of(name), .digest = *d, .size = 1};
    struct err err = ERR_INIT;

    EXPECT_OK(tree_add(t, &e, 0, &err), &err);
}

static void small_new(struct small *s)
{
    static const size_t cut[] = {400, 600}, frame[] = {100, 0, 200};
    struct recipe_chunk *chunks;
    char text[600];
    uint64_t seed = 11;
    struct tree t;
    struct forge *f = &s->f;

    forge_new(f);
    gen_noise(&seed, s->noise, sizeof(s->noise));
    life_text(5, text, sizeof(text));
    chunks = forge_chunks(s->noise, cut, 2);
    forge_begin(f);
    s->blob = forge_blob(f, ENC_RAW, 0, "a blob", 6);
    s->packed = forge_blob(f, ENC_ZSTD, 0, text, sizeof(text));
    forge_frame(f, text, frame, 3, s->members);
    forge_blob(f, ENC_RAW, 0, s->noise, 400);
    forge_blob(f, ENC_RAW, 0, s->noise + 400, 600);
    s->recipe = forge_recipe(f, s->noise, 1000, chunks, 2);
    s->loose = forge_loose(f, s->noise + 1000, 1000, cut, 2);
    s->loose_plain = forge_loose(f, s->noise + 2000, 700, NULL, 0);
    tree_init(&t);
    add(&t, "packed", TREE_FILE, &s->packed);
    add(&t, "m0", TREE_FILE, &s->members[0]);
    add(&t, "m1", TREE_FILE, &s->members[1]);
    add(&t, "m2", TREE_FILE, &s->members[2]);
    s->tree = forge_tree(f, &t, NULL);
    tree_init(&t);
    add(&t, "blob", TREE_FILE, &s->blob);
    add(&t, "recipe", TREE_FILE, &s->recipe);
    add(&t, "loose", TREE_FILE, &s->loose);
    add(&t, "plain", TREE_EXEC, &s->loose_plain);
    add(&t, "sub", TREE_DIR, &s->tree);
    s->top = forge_tree(f, &t, NULL);
    sha256_of("key", 3, &s->key);
    forge_bind(f, &s->key, &s->top);
    forge_ref(f, "runs/1", OBJ_TREE, &s->top);
    forge_ref(f, "gone", OBJ_NONE, &s->top);
    forge_commit(f);
    free(chunks);
}

static void flip(int dir, const char *name, int64_t at, int bit)
{
    struct err err = ERR_INIT;
    uint8_t byte;
    size_t got;
    int fd = -1;

    EXPECT_EQ(fchmodat(dir, name, 0644, 0), 0);
    EXPECT_OK(os_open(dir, name, O_RDWR, 0, &fd, &err), &err);
    EXPECT_OK(os_pread(fd, &byte, 1, at, &got, &err), &err);
    EXPECT_EQ(got, 1);
    byte = (uint8_t)(byte ^ 1u << bit);
    EXPECT_OK(os_pwrite(fd, &byte, 1, at, &err), &err);
    os_close_quiet(&fd);
}

static int64_t size_of(int dir, const char *name)
{
    struct err err = ERR_INIT;
    struct stat info;

    EXPECT_OK(os_stat_at(dir, name, &info, &err), &err);
    return info.st_size;
}

static const struct fsck_problem *problem_with(const struct fsck_report *r, const char *text)
{
    for (size_t i = 0; i < r->problem_count; i++)
        if (strstr(r->problems[i].what, text))
            return &r->problems[i];
    return NULL;
}

static const struct fsck_problem *problem_about(const struct fsck_report *r,
                                                const struct digest *id)
{
    for (size_t i = 0; i < r->problem_count; i++)
        if (digest_eq(&r->problems[i].id, id))
            return &r->problems[i];
    return NULL;
}

/* ---- a store without damage ---------------------------------------------------------------------- */

TEST(nothing_is_found_where_nothing_is_wrong)
{
    struct fsck_report r;
    struct small s;

    small_new(&s);
    for (int level = FSCK_QUICK; level <= FSCK_LOGICAL; level++)
        for (int repair = 0; repair < 2; repair++) {
            EXPECT_OK(life_fsck(&s.f, (enum fsck_level)level, repair, &r), &s.f.err);
            EXPECT_EQ(r.problem_count, 0);
            EXPECT_EQ(r.packs, 1);
            EXPECT_EQ(r.loose, 2);
            EXPECT_EQ(r.objects, 15);
            EXPECT(r.bytes > 4000);
            fsck_report_release(&r);
        }
    life_check(&s.f);
    life_rebuild_is_equal(&s.f);
    forge_free(&s.f);
}

TEST(an_empty_store_is_whole)
{
    struct fsck_report r;
    struct forge f;

    forge_new(&f);
    EXPECT_OK(life_fsck(&f, FSCK_LOGICAL, true, &r), &f.err);
    EXPECT_EQ(r.problem_count + (size_t)r.packs + (size_t)r.loose, 0);
    fsck_report_release(&r);
    forge_free(&f);
}

/* Big enough that records are longer than any window, on real writers. */
TEST(a_store_in_use_is_whole)
{
    struct compact_report packed;
    char *noise = mem_alloc(3 << 20);
    struct digest d;
    struct forge f;
    uint64_t seed = 3;

    forge_new(&f);
    gen_noise(&seed, noise, 3 << 20);
    life_tree(&f, "t", 1, 400, 3000);
    forge_begin(&f);
    forge_blob(&f, ENC_RAW, 0, noise, 2 << 20);
    d = forge_loose(&f, noise, 3 << 20, NULL, 0);
    forge_ref(&f, "d", OBJ_BLOB, &d);
    forge_commit(&f);
    life_fsck_clean(&f);
    EXPECT_OK(store_compact(f.st, NULL, &packed, &f.err), &f.err);
    life_fsck_clean(&f);
    life_check(&f);
    free(noise);
    forge_free(&f);
}

/* ---- every bit ----------------------------------------------------------------------------------- */

static size_t look_at_packs(struct small *s, enum fsck_level level)
{
    const struct fsck_options o = {.level = level};
    struct fsck_report r;
    struct fsck f;
    size_t found;

    fsck_begin(&f, s->f.st, &o, &r);
    EXPECT_OK(fsck_packs(&f, &s->f.err), &s->f.err);
    found = r.problem_count;
    fsck_end(&f);
    fsck_report_release(&r);
    return found;
}

TEST(every_bit_of_a_pack_matters)
{
    char hex[DIGEST_HEX + 1];
    struct small s;
    int64_t n;

    small_new(&s);
    digest_hex(&s.f.pack, hex);
    n = size_of(s.f.st->packs, hex);
    EXPECT_EQ(look_at_packs(&s, FSCK_FULL), 0);
    for (int64_t at = 0; at < n; at++)
        for (int bit = 0; bit < 8; bit++) {
            flip(s.f.st->packs, hex, at, bit);
            EXPECT(look_at_packs(&s, bit == at % 8 ? FSCK_CRC : FSCK_FULL) > 0);
            flip(s.f.st->packs, hex, at, bit);
        }
    EXPECT_EQ(look_at_packs(&s, FSCK_FULL), 0);
    forge_free(&s.f);
}

TEST(every_bit_of_a_loose_file_matters)
{
    const struct fsck_options o = {.level = FSCK_FULL};
    char name[LOOSE_NAME];
    struct small s;

    small_new(&s);
    loose_name(&s.loose_plain, name);
    for (int64_t at = 0; at < 700; at++) {
        struct fsck_report r;
        struct fsck f;

        forge_damage_loose(&s.f, &s.loose_plain, at, true);
        fsck_begin(&f, s.f.st, &o, &r);
        EXPECT_OK(fsck_loose(&f, &s.f.err), &s.f.err);
        EXPECT_EQ(r.problem_count, 1);
        EXPECT(digest_eq(&r.problems[0].id, &s.loose_plain));
        fsck_end(&f);
        fsck_report_release(&r);
        forge_damage_loose(&s.f, &s.loose_plain, at, true);
    }
    forge_free(&s.f);
}

TEST(a_pack_cut_short_anywhere_is_found)
{
    char hex[DIGEST_HEX + 1];
    struct small s;
    int64_t n;
    int fd = -1;

    small_new(&s);
    digest_hex(&s.f.pack, hex);
    n = size_of(s.f.st->packs, hex);
    EXPECT_EQ(fchmodat(s.f.st->packs, hex, 0644, 0), 0);
    EXPECT_OK(os_open(s.f.st->packs, hex, O_RDWR, 0, &fd, &s.f.err), &s.f.err);
    for (int64_t at = n - 1; at >= 0; at -= 3) {
        EXPECT_OK(os_truncate(fd, at, &s.f.err), &s.f.err);
        EXPECT(look_at_packs(&s, FSCK_QUICK) > 0);
        EXPECT(look_at_packs(&s, FSCK_FULL) > 0);
    }
    os_close_quiet(&fd);
    forge_free(&s.f);
}

/* ---- what it says -------------------------------------------------------------------------------- */

static int64_t record_of(struct forge *f, const struct digest *id)
{
    struct loc loc;

    EXPECT_OK(index_get(f->st->index, id, 1, &loc, &f->err), &f->err);
    EXPECT(loc.type != 0);
    return loc.off;
}

TEST(damage_is_named_with_what_it_was_part_of)
{
    const struct fsck_problem *p;
    struct fsck_report r;
    struct small s;
    int64_t at;

    small_new(&s);
    life_ref(&s.f, "again", OBJ_TREE, &s.tree);
    at = record_of(&s.f, &s.packed) + PACK_RECORD_HEADER + 3;
    forge_damage_pack(&s.f, &s.f.pack, at);
    EXPECT_ERR(life_fsck(&s.f, FSCK_FULL, false, &r), ERR_DAMAGED, &s.f.err);
    p = problem_about(&r, &s.packed);
    EXPECT(p != NULL);
    EXPECT(strstr(p->what, "pack ") != NULL);
    EXPECT(strstr(p->what, "record at") != NULL);
    EXPECT(!p->repaired);
    EXPECT_STR(p->part_of, "ref again: packed; ref runs/1: sub/packed");
    fsck_report_release(&r);
    forge_free(&s.f);
}

TEST(a_damaged_frame_names_its_members)
{
    struct fsck_report r;
    struct small s;

    small_new(&s);
    forge_damage_pack(&s.f, &s.f.pack,
                      record_of(&s.f, &s.members[0]) + PACK_RECORD_HEADER + 4 + 3 * 40 + 20);
    EXPECT_ERR(life_fsck(&s.f, FSCK_FULL, false, &r), ERR_DAMAGED, &s.f.err);
    EXPECT(problem_about(&r, &s.members[0]) && problem_about(&r, &s.members[2]));
    EXPECT_STR(problem_about(&r, &s.members[2])->part_of, "ref runs/1: sub/m2");
    fsck_report_release(&r);
    forge_free(&s.f);
}

TEST(a_damaged_chunk_names_the_file)
{
    struct fsck_report r;
    struct digest chunk;
    struct small s;

    small_new(&s);
    sha256_of(s.noise, 400, &chunk);
    forge_damage_pack(&s.f, &s.f.pack, record_of(&s.f, &chunk) + PACK_RECORD_HEADER + 20);
    EXPECT_ERR(life_fsck(&s.f, FSCK_CRC, false, &r), ERR_DAMAGED, &s.f.err);
    EXPECT_STR(problem_about(&r, &chunk)->part_of, "ref runs/1: recipe");
    fsck_report_release(&r);
    forge_free(&s.f);
}

TEST(a_quick_look_finds_what_is_gone)
{
    char hex[DIGEST_HEX + 1], name[LOOSE_NAME];
    struct fsck_report r;
    struct small s;

    small_new(&s);
    loose_name(&s.loose, name);
    EXPECT_OK(os_unlink(s.f.st->loose, name, &s.f.err), &s.f.err);
    EXPECT_ERR(life_fsck(&s.f, FSCK_QUICK, false, &r), ERR_DAMAGED, &s.f.err);
    EXPECT_STR(problem_about(&r, &s.loose)->part_of, "ref runs/1: loose");
    fsck_report_release(&r);
    forge_free(&s.f);

    small_new(&s);
    digest_hex(&s.f.pack, hex);
    EXPECT_OK(os_unlink(s.f.st->packs, hex, &s.f.err), &s.f.err);
    s.f.err = (struct err)ERR_INIT;
    EXPECT_ERR(life_fsck(&s.f, FSCK_QUICK, false, &r), ERR_DAMAGED, &s.f.err);
    EXPECT(problem_with(&r, "is gone") != NULL);
    fsck_report_release(&r);
    forge_free(&s.f);
}

TEST(parts_add_up_to_the_whole)
{
    struct small s;
    int found = 0;

    small_new(&s);
    forge_damage_loose(&s.f, &s.loose_plain, 5, true);
    for (int part = 0; part < 30; part++) {
        const struct fsck_options o = {.level = FSCK_FULL, .part = part, .parts = 30};
        struct fsck_report r;
        struct err err = ERR_INIT;

        found += store_fsck(s.f.st, &o, &r, &err) == ERR_DAMAGED;
        fsck_report_release(&r);
    }
    EXPECT_EQ(found, 1);
    forge_free(&s.f);
}

/* Chunks that are whole, and a recipe that puts them together into something else. */
TEST(a_recipe_that_lies_is_found_end_to_end)
{
    struct recipe_chunk chunks[2] = {{.len = 6}, {.len = 6}};
    struct fsck_report r;
    struct digest id;
    struct forge f;
    struct buf payload;

    forge_new(&f);
    forge_begin(&f);
    chunks[0].id = forge_blob(&f, ENC_RAW, 0, "first ", 6);
    chunks[1].id = forge_blob(&f, ENC_RAW, 0, "second", 6);
    sha256_of("secondfirst ", 12, &id);
    buf_init(&payload, 4096);
    recipe_encode(&id, chunks, 2, &payload);
    forge_record(&f, REC_RECIPE, ENC_RAW, 0, &id, 12, payload.p, payload.n);
    forge_ref(&f, "liar", OBJ_BLOB, &id);
    forge_commit(&f);
    buf_release(&payload);
    EXPECT_OK(life_fsck(&f, FSCK_FULL, false, &r), &f.err);
    fsck_report_release(&r);
    EXPECT_ERR(life_fsck(&f, FSCK_LOGICAL, false, &r), ERR_DAMAGED, &f.err);
    EXPECT_EQ(r.problem_count, 1);
    EXPECT_STR(r.problems[0].part_of, "ref liar");
    fsck_report_release(&r);
    forge_free(&f);
}

/* ---- the index ----------------------------------------------------------------------------------- */

TEST(an_index_that_lost_something_is_found_and_made_again)
{
    struct fsck_report r;
    struct small s;

    small_new(&s);
    EXPECT_OK(index_drop_objects(s.f.st->index, &s.members[2], 1, &s.f.err), &s.f.err);
    EXPECT_ERR(life_fsck(&s.f, FSCK_QUICK, false, &r), ERR_DAMAGED, &s.f.err);
    EXPECT(problem_about(&r, &s.members[2]) != NULL);
    fsck_report_release(&r);
    EXPECT_OK(life_fsck(&s.f, FSCK_FULL, true, &r), &s.f.err);
    EXPECT(r.problem_count > 0);
    fsck_report_release(&r);
    EXPECT(life_has(&s.f, &s.members[2]));
    life_fsck_clean(&s.f);
    life_check(&s.f);
    forge_free(&s.f);
}

/* Any byte of the index file: never a crash of ours, never a wrong answer that goes unnoticed, and repair always works. */
TEST(a_damaged_index_is_found_and_made_again)
{
    struct fsck_report r;
    uint64_t seed = 4;

    for (int i = 0; i < 40; i++) {
        struct buf path;
        struct small s;
        int dir = -1;
        int64_t n;

        small_new(&s);
        buf_init(&path, 4096);
        buf_printf(&path, "%s/index", s.f.st->root);
        EXPECT_OK(os_open_dir(AT_FDCWD, path.p, &dir, &s.f.err), &s.f.err);
        n = size_of(dir, "data.mdb");
        /* Two meta pages come first: a damaged one makes LMDB use the other, or refuse to open. */
        for (int k = 0; k < 40; k++)
            flip(dir, "data.mdb", 8192 + (int64_t)gen_below(&seed, (size_t)n - 8192), k % 8);
        os_close_quiet(&dir);
        buf_release(&path);
        EXPECT_OK(life_fsck(&s.f, FSCK_FULL, true, &r), &s.f.err);
        fsck_report_release(&r);
        life_fsck_clean(&s.f);
        life_check(&s.f);
        EXPECT(life_has(&s.f, &s.members[2]));
        forge_free(&s.f);
    }
}

/* ---- repair -------------------------------------------------------------------------------------- */

/* Nothing is deleted: what was damaged is in quarantine/. */
static void repaired(struct small *s, int quarantined, bool complete)
{
    EXPECT_EQ(forge_count_names(&s->f, s->f.st->quarantine), quarantined);
    if (complete)
        life_check(&s->f);
    life_rebuild_is_equal(&s->f);
}

TEST(good_records_of_a_damaged_pack_are_saved)
{
    struct digest result;
    struct fsck_report r;
    struct ref_row row;
    struct small s;
    int64_t stamp;

    small_new(&s);
    forge_damage_pack(&s.f, &s.f.pack, record_of(&s.f, &s.blob) + PACK_RECORD_HEADER + 2);
    EXPECT_ERR(life_fsck(&s.f, FSCK_FULL, true, &r), ERR_DAMAGED, &s.f.err);
    EXPECT(!problem_about(&r, &s.blob)->repaired);
    EXPECT_STR(problem_about(&r, &s.blob)->part_of, "ref runs/1: blob");
    fsck_report_release(&r);
    EXPECT(!life_has(&s.f, &s.blob));
    life_read(&s.f, OBJ_TREE, &s.tree);
    life_read(&s.f, OBJ_BLOB, &s.recipe);
    life_read(&s.f, OBJ_BLOB, &s.loose);
    EXPECT_OK(index_ref(s.f.st->index, STR("runs/1"), &row, &s.f.err), &s.f.err);
    EXPECT_OK(index_action(s.f.st->index, &s.key, &result, &stamp, &s.f.err), &s.f.err);
    repaired(&s, 1, false);
    /* It stays known as missing until it comes back. */
    EXPECT_ERR(life_fsck(&s.f, FSCK_FULL, true, &r), ERR_DAMAGED, &s.f.err);
    EXPECT_EQ(r.problem_count, 1);
    fsck_report_release(&r);
    s.f.err = (struct err)ERR_INIT;
    forge_begin(&s.f);
    forge_blob(&s.f, ENC_RAW, 0, "a blob", 6);
    forge_commit(&s.f);
    life_fsck_clean(&s.f);
    life_check(&s.f);
    forge_free(&s.f);
}

TEST(what_nothing_refers_to_is_no_loss)
{
    struct fsck_report r;
    struct digest d;
    struct forge f;

    forge_new(&f);
    life_tree(&f, "t", 1, 5, 100);
    forge_begin(&f);
    d = forge_blob(&f, ENC_RAW, 0, "unused", 6);
    forge_commit(&f);
    forge_damage_pack(&f, &f.pack, PACK_HEADER_BYTES + PACK_RECORD_HEADER + 1);
    EXPECT_OK(life_fsck(&f, FSCK_FULL, true, &r), &f.err);
    EXPECT(r.problem_count > 0);
    EXPECT(r.problems[0].repaired);
    EXPECT(r.problems[0].part_of == NULL);
    fsck_report_release(&r);
    EXPECT(!life_has(&f, &d));
    life_check(&f);
    life_fsck_clean(&f);
    forge_free(&f);
}

TEST(a_second_copy_takes_over)
{
    struct fsck_report r;
    struct small s;

    small_new(&s);
    forge_begin(&s.f);
    forge_blob(&s.f, ENC_RAW, 0, "a blob", 6);
    {
        const struct digest first = s.f.pack;

        forge_commit(&s.f);
        s.f.pack = first;
    }
    {
        struct pack_entry e = {0};
        struct pack *p = NULL;
        const struct pack_entry *toc;
        size_t n, i = 0;

        EXPECT_OK(pack_open(s.f.st->packs, &s.f.pack, &p, &s.f.err), &s.f.err);
        EXPECT_OK(pack_toc(p, &toc, &n, &s.f.err), &s.f.err);
        while (!digest_eq(&toc[i].id, &s.blob))
            i++;
        e = toc[i];
        pack_close(p);
        forge_damage_pack(&s.f, &s.f.pack, e.off + PACK_RECORD_HEADER + 1);
    }
    EXPECT_OK(life_fsck(&s.f, FSCK_FULL, true, &r), &s.f.err);
    EXPECT(problem_about(&r, &s.blob)->repaired);
    fsck_report_release(&r);
    repaired(&s, 1, true);
    forge_free(&s.f);
}

/* One byte of each part of a pack; everything that is not in that record comes back, refs and binds included. */
TEST(any_one_byte_of_a_pack_can_be_repaired)
{
    char hex[DIGEST_HEX + 1];
    struct fsck_report r;
    struct small s;
    int64_t n = 1;

    for (int64_t at = 0; at < n; at += 61) {
        struct ref_row row;
        enum err_code rc;

        small_new(&s);
        digest_hex(&s.f.pack, hex);
        n = size_of(s.f.st->packs, hex);
        flip(s.f.st->packs, hex, at, (int)(at % 8));
        rc = life_fsck(&s.f, FSCK_FULL, true, &r);
        EXPECT(rc == OK || rc == ERR_DAMAGED);
        EXPECT(r.problem_count > 0);
        for (size_t i = 0; i < r.problem_count; i++)
            EXPECT(r.problems[i].repaired || r.problems[i].part_of);
        fsck_report_release(&r);
        s.f.err = (struct err)ERR_INIT;
        EXPECT_OK(index_ref(s.f.st->index, STR("runs/1"), &row, &s.f.err), &s.f.err);
        repaired(&s, 1, rc == OK);
        forge_free(&s.f);
    }
}

TEST(refs_that_only_the_index_knows_are_written_again)
{
    struct digest a, refs;
    struct fsck_report r;
    struct ref_row row;
    char hex[DIGEST_HEX + 1];
    struct forge f;

    forge_new(&f);
    forge_begin(&f);
    a = forge_blob(&f, ENC_RAW, 0, "a", 1);
    forge_commit(&f);
    forge_begin(&f);
    forge_ref(&f, "lonely", OBJ_BLOB, &a);
    forge_bind(&f, &(struct digest){{1}}, &a);
    forge_commit(&f);
    refs = f.pack;
    digest_hex(&refs, hex);
    EXPECT_OK(os_unlink(f.st->packs, hex, &f.err), &f.err);
    EXPECT_ERR(life_fsck(&f, FSCK_QUICK, false, &r), ERR_DAMAGED, &f.err);
    EXPECT(problem_with(&r, "ref lonely") != NULL);
    fsck_report_release(&r);
    f.err = (struct err)ERR_INIT;
    EXPECT_OK(life_fsck(&f, FSCK_FULL, true, &r), &f.err);
    fsck_report_release(&r);
    life_rebuild_is_equal(&f);
    EXPECT_OK(index_ref(f.st->index, STR("lonely"), &row, &f.err), &f.err);
    EXPECT(digest_eq(&row.digest, &a));
    life_fsck_clean(&f);
    forge_free(&f);
}

TEST(loose_files_are_repaired)
{
    struct fsck_report r;
    char name[LOOSE_NAME];
    struct small s;

    small_new(&s);
    forge_damage_loose(&s.f, &s.loose, 100, true);
    loose_name(&s.loose_plain, name);
    EXPECT_EQ(utimensat(s.f.st->loose, name, NULL, 0), 0); /* only its time */
    EXPECT_ERR(life_fsck(&s.f, FSCK_FULL, false, &r), ERR_DAMAGED, &s.f.err);
    EXPECT_EQ(r.problem_count, 2);
    fsck_report_release(&r);
    EXPECT(forge_loose_there(&s.f, &s.loose));
    EXPECT_ERR(life_fsck(&s.f, FSCK_FULL, true, &r), ERR_DAMAGED, &s.f.err);
    EXPECT(problem_about(&r, &s.loose_plain)->repaired);
    EXPECT(!problem_about(&r, &s.loose)->repaired);
    EXPECT_STR(problem_about(&r, &s.loose)->part_of, "ref runs/1: loose");
    fsck_report_release(&r);
    EXPECT(!forge_loose_there(&s.f, &s.loose));
    EXPECT(!life_has(&s.f, &s.loose));
    repaired(&s, 1, false);
    s.f.err = (struct err)ERR_INIT;
    EXPECT_EQ(digest_cmp(&s.loose, (struct digest[]){forge_loose_file(&s.f, s.noise + 1000, 1000)}),
              0);
    forge_begin(&s.f);
    forge_loose(&s.f, s.noise + 1000, 1000, NULL, 0);
    forge_commit(&s.f);
    life_fsck_clean(&s.f);
    life_check(&s.f);
    forge_free(&s.f);
}

TEST(strangers_are_moved_out_of_the_way)
{
    struct fsck_report r;
    struct small s;

    small_new(&s);
    EXPECT_OK(os_write_file(s.f.st->packs, "notes.txt", "x", 1, 0600, &s.f.err), &s.f.err);
    EXPECT_OK(os_write_file(s.f.st->loose, "ab/notes.txt", "x", 1, 0600, &s.f.err), &s.f.err);
    EXPECT_OK(os_write_file(s.f.st->packs, ".nfs0001", "x", 1, 0600, &s.f.err), &s.f.err);
    EXPECT_ERR(life_fsck(&s.f, FSCK_QUICK, false, &r), ERR_DAMAGED, &s.f.err);
    EXPECT_EQ(r.problem_count, 2);
    fsck_report_release(&r);
    s.f.err = (struct err)ERR_INIT;
    EXPECT_OK(life_fsck(&s.f, FSCK_QUICK, true, &r), &s.f.err);
    fsck_report_release(&r);
    repaired(&s, 2, true);
    life_fsck_clean(&s.f);
    forge_free(&s.f);
}

/* A pack that has no good trailer, and a payload in it that looks like records of another pack: its ref is not believed. */
TEST(what_only_looks_like_a_record_is_not_believed)
{
    struct forge evil, f;
    struct fsck_report r;
    char hex[DIGEST_HEX + 1];
    struct ref_row row;
    struct digest a, inner;
    struct buf bytes;

    forge_new(&evil);
    forge_begin(&evil);
    inner = forge_blob(&evil, ENC_RAW, 0, "evil", 4);
    forge_ref(&evil, "victim", OBJ_BLOB, &inner);
    forge_commit(&evil);
    digest_hex(&evil.pack, hex);
    buf_init(&bytes, 1 << 20);
    EXPECT_OK(os_read_file(evil.st->packs, hex, 1 << 20, &bytes, &evil.err), &evil.err);

    forge_new(&f);
    forge_begin(&f);
    a = forge_blob(&f, ENC_RAW, 0, "the victim's file", 17);
    forge_blob(&f, ENC_RAW, 0, bytes.p, bytes.n);
    forge_commit(&f);
    digest_hex(&f.pack, hex);
    flip(f.st->packs, hex, size_of(f.st->packs, hex) - 10, 0);
    flip(f.st->packs, hex, PACK_HEADER_BYTES + PACK_RECORD_HEADER + 17 + 8, 0);
    EXPECT_OK(life_fsck(&f, FSCK_FULL, true, &r), &f.err);
    fsck_report_release(&r);
    EXPECT(life_has(&f, &a));
    EXPECT_ERR(index_ref(f.st->index, STR("victim"), &row, &f.err), ERR_NOT_FOUND, &f.err);
    f.err = (struct err)ERR_INIT;
    EXPECT_OK(store_check(f.st, &f.err), &f.err);
    buf_release(&bytes);
    forge_free(&f);
    forge_free(&evil);
}

TEST(remotes_give_back_what_is_lost)
{
    char remote[TMPDIR_MAX];
    struct transfer_report pushed;
    struct fsck_report r;
    struct buf config;
    struct small s;

    small_new(&s);
    tmpdir_new(remote);
    EXPECT_OK(store_push(s.f.st, remote, &(struct transfer_options){0}, &pushed, &s.f.err),
              &s.f.err);
    buf_init(&config, 4096);
    buf_printf(&config, "remotes:\n  backup: {dir: \"%s\"}\n", remote);
    {
        struct buf path;

        buf_init(&path, 4096);
        buf_printf(&path, "%s/config.yaml", s.f.st->root);
        EXPECT_OK(os_write_file(AT_FDCWD, path.p, config.p, config.n, 0644, &s.f.err), &s.f.err);
        buf_release(&path);
    }
    forge_open(&s.f, STORE_WRITE);
    forge_damage_pack(&s.f, &s.f.pack, record_of(&s.f, &s.blob) + PACK_RECORD_HEADER + 2);
    forge_damage_pack(&s.f, &s.f.pack, record_of(&s.f, &s.tree) + PACK_RECORD_HEADER + 2);
    forge_damage_loose(&s.f, &s.loose, 100, true);
    EXPECT_OK(life_fsck(&s.f, FSCK_FULL, true, &r), &s.f.err);
    EXPECT(problem_about(&r, &s.blob)->repaired);
    EXPECT(problem_about(&r, &s.loose)->repaired);
    fsck_report_release(&r);
    life_check(&s.f);
    life_fsck_clean(&s.f);
    buf_release(&config);
    tmpdir_free(remote);
    forge_free(&s.f);
}

RUN(nothing_is_found_where_nothing_is_wrong, an_empty_store_is_whole, a_store_in_use_is_whole,
    every_bit_of_a_pack_matters, every_bit_of_a_loose_file_matters,
    a_pack_cut_short_anywhere_is_found, damage_is_named_with_what_it_was_part_of,
    a_damaged_frame_names_its_members, a_damaged_chunk_names_the_file,
    a_quick_look_finds_what_is_gone, parts_add_up_to_the_whole,
    a_recipe_that_lies_is_found_end_to_end, an_index_that_lost_something_is_found_and_made_again,
    a_damaged_index_is_found_and_made_again, good_records_of_a_damaged_pack_are_saved,
    what_nothing_refers_to_is_no_loss, a_second_copy_takes_over,
    any_one_byte_of_a_pack_can_be_repaired, refs_that_only_the_index_knows_are_written_again,
    loose_files_are_repaired, strangers_are_moved_out_of_the_way,
    what_only_looks_like_a_record_is_not_believed, remotes_give_back_what_is_lost)
