#include "store/gc_internal.h"
#include "tests/store_life.h"

#define HOUR 3600LL
#define NS 1000000000LL
#define MIB ((size_t)1 << 20)

static struct compact_report compact(struct forge *f, int64_t cold_s)
{
    const struct compact_options o = {.cold_s = cold_s};
    struct compact_report r;

    EXPECT_OK(store_compact(f->st, &o, &r, &f->err), &f->err);
    return r;
}

/* Through the writer: a loose file with a recipe, or a recipe when some of it is known. */
static struct digest add_file(struct forge *f, const char *ref, const void *p, size_t n)
{
    struct writer *w = NULL;
    struct digest d;
    int64_t size;
    int fd = -1;

    EXPECT_OK(os_write_file(f->st->tmp, "source", p, n, 0600, &f->err), &f->err);
    EXPECT_OK(os_open(f->st->tmp, "source", O_RDONLY, 0, &fd, &f->err), &f->err);
    EXPECT_OK(writer_open(f->st, &w, &f->err), &f->err);
    EXPECT_OK(writer_put_file(w, fd, "source", &d, &size, &f->err), &f->err);
    EXPECT_OK(writer_ref(w, str_of(ref), OBJ_BLOB, &d, &f->err), &f->err);
    EXPECT_OK(writer_commit(w, &f->err), &f->err);
    writer_release(w);
    os_close_quiet(&fd);
    EXPECT_OK(os_unlink(f->st->tmp, "source", &f->err), &f->err);
    return d;
}

/* A safetensors file of bf16 weights; the tensors from change on differ for each seed. */
static void checkpoint(struct buf *out, uint64_t seed, size_t tensors, size_t tensor_bytes,
                       size_t change)
{
    struct gen_tensor *t = mem_zero(tensors, sizeof(*t));
    size_t header = out->n;
    uint64_t same = 99;
    char(*names)[32] = mem_zero(tensors, sizeof(*names));

    for (size_t i = 0; i < tensors; i++) {
        snprintf(names[i], sizeof(names[i]), "layer.%zu", i);
        t[i] = (struct gen_tensor){
            .name = names[i], .dtype = "BF16", .bytes = tensor_bytes, .width = 2};
    }
    gen_safetensors(out, &same, t, tensors, 0);
    header = out->n - tensors * tensor_bytes;
    for (size_t i = 0; i < tensors; i++) {
        uint64_t s = i < change ? 1000 + i : seed * 5000 + i;

        gen_weights(&s, (uint8_t *)out->p + header + i * tensor_bytes, tensor_bytes, 2);
    }
    free(t);
    free(names);
}

static uint8_t loc_type(struct forge *f, const struct digest *id)
{
    struct loc loc;

    EXPECT_OK(index_get(f->st->index, id, 1, &loc, &f->err), &f->err);
    return loc.type;
}

static void reads_as(struct forge *f, const struct digest *id, const void *p, size_t n)
{
    struct buf bytes;

    buf_init(&bytes, n);
    EXPECT_OK(object_read(f->st, id, (int64_t)n, &bytes, &f->err), &f->err);
    EXPECT_EQ(bytes.n, n);
    EXPECT(memcmp(bytes.p, p, n) == 0);
    buf_release(&bytes);
}

TEST(a_checkpoint_becomes_compressed_chunks)
{
    struct compact_report r;
    struct digest d;
    struct forge f;
    struct buf file;

    forge_new(&f);
    buf_init(&file, 64 * MIB);
    checkpoint(&file, 1, 5, 3 * MIB, 0);
    d = add_file(&f, "model", file.p, file.n);
    EXPECT_EQ(loc_type(&f, &d), LOC_LOOSE);
    r = compact(&f, 0);
    EXPECT_EQ(r.loose_packed, 1);
    EXPECT_EQ(loc_type(&f, &d), LOC_RECIPE);
    EXPECT(!forge_loose_there(&f, &d));
    EXPECT((double)r.bytes_after <= 0.665 * (double)file.n);
    reads_as(&f, &d, file.p, file.n);
    life_check(&f);
    life_fsck_clean(&f);
    life_rebuild_is_equal(&f);
    life_gc(&f, 0);
    reads_as(&f, &d, file.p, file.n);
    r = compact(&f, 0); /* nothing is left to do but the small packs of the refs */
    EXPECT_EQ(r.loose_packed, 0);
    life_check(&f);
    buf_release(&file);
    forge_free(&f);
}

/* Files that nodes moved in, without a recipe, and with half of their tensors in common. */
TEST(equal_parts_are_stored_once)
{
    struct compact_report r;
    struct digest a, b;
    struct forge f;
    struct buf one, two;

    forge_new(&f);
    buf_init(&one, 64 * MIB);
    buf_init(&two, 64 * MIB);
    checkpoint(&one, 1, 4, 2 * MIB, 2);
    checkpoint(&two, 2, 4, 2 * MIB, 2);
    forge_begin(&f);
    a = forge_loose(&f, one.p, one.n, NULL, 0);
    b = forge_loose(&f, two.p, two.n, NULL, 0);
    forge_ref(&f, "a", OBJ_BLOB, &a);
    forge_ref(&f, "b", OBJ_BLOB, &b);
    forge_commit(&f);
    r = compact(&f, 0);
    EXPECT_EQ(r.loose_packed, 2);
    EXPECT((double)r.bytes_after <= 0.665 * 6.1 * (double)MIB * 2);
    EXPECT_EQ(loc_type(&f, &a), LOC_RECIPE);
    EXPECT_EQ(loc_type(&f, &b), LOC_RECIPE);
    reads_as(&f, &a, one.p, one.n);
    reads_as(&f, &b, two.p, two.n);
    life_check(&f);
    life_fsck_clean(&f);
    life_rebuild_is_equal(&f);
    buf_release(&one);
    buf_release(&two);
    forge_free(&f);
}

/* The second file is a recipe over slices of the first, which is packed away under it. */
TEST(slices_follow_their_file_into_the_packs)
{
    struct digest a, b;
    struct forge f;
    struct buf one, two;

    forge_new(&f);
    buf_init(&one, 64 * MIB);
    buf_init(&two, 64 * MIB);
    checkpoint(&one, 1, 4, 2 * MIB, 2);
    checkpoint(&two, 2, 4, 2 * MIB, 2);
    a = add_file(&f, "a", one.p, one.n);
    b = add_file(&f, "b", two.p, two.n);
    EXPECT_EQ(loc_type(&f, &a), LOC_LOOSE);
    EXPECT_EQ(loc_type(&f, &b), LOC_RECIPE);
    EXPECT_EQ(compact(&f, 0).loose_packed, 1);
    EXPECT(!forge_loose_there(&f, &a));
    reads_as(&f, &a, one.p, one.n);
    reads_as(&f, &b, two.p, two.n);
    life_check(&f);
    life_fsck_clean(&f);
    life_rebuild_is_equal(&f);
    life_unref(&f, "a");
    life_gc(&f, 0);
    reads_as(&f, &b, two.p, two.n);
    life_check(&f);
    buf_release(&one);
    buf_release(&two);
    forge_free(&f);
}

/* Another record announces the same file, cut differently, and somebody's recipe uses a chunk of that. */
TEST(a_file_that_others_read_from_stays)
{
    static const size_t cut[] = {5000, 15000}, other_cut[] = {7000, 13000, 500};
    struct recipe_chunk *chunks;
    struct compact_report r;
    struct digest whole, user;
    struct forge f;
    char noise[20500];
    uint64_t seed = 2;

    forge_new(&f);
    gen_noise(&seed, noise, sizeof(noise));
    chunks = forge_chunks(noise, other_cut, 3);
    forge_begin(&f);
    whole = forge_loose(&f, noise, 20000, cut, 2);
    forge_ref(&f, "whole", OBJ_BLOB, &whole);
    forge_commit(&f);
    forge_begin(&f);
    forge_loose(&f, noise, 20000, other_cut, 2);
    forge_blob(&f, ENC_RAW, 0, noise + 20000, 500);
    user = forge_recipe(&f, noise, 20500, chunks, 3);
    forge_ref(&f, "user", OBJ_BLOB, &user);
    forge_commit(&f);
    r = compact(&f, 0);
    EXPECT_EQ(r.loose_packed, 0);
    EXPECT(forge_loose_there(&f, &whole));
    life_check(&f);
    life_fsck_clean(&f);
    life_gc(&f, 0);
    compact(&f, 0);
    life_gc(&f, 0);
    EXPECT(!forge_loose_there(&f, &whole));
    life_check(&f);
    life_rebuild_is_equal(&f);
    free(chunks);
    forge_free(&f);
}

TEST(small_and_odd_files)
{
    struct digest empty, small, tree;
    char text[3000];
    struct forge f;

    forge_new(&f);
    life_text(1, text, sizeof(text));
    forge_begin(&f);
    empty = forge_loose(&f, "", 0, NULL, 0);
    small = forge_loose(&f, text, sizeof(text), NULL, 0);
    forge_ref(&f, "empty", OBJ_BLOB, &empty);
    forge_ref(&f, "small", OBJ_BLOB, &small);
    forge_commit(&f);
    tree = life_tree(&f, "tree", 1, 3, 100);
    EXPECT_EQ(compact(&f, 0).loose_packed, 2);
    EXPECT_EQ(loc_type(&f, &empty), LOC_BLOB);
    EXPECT_EQ(loc_type(&f, &small), LOC_BLOB); /* one chunk: no recipe is needed */
    reads_as(&f, &small, text, sizeof(text));
    life_read(&f, OBJ_TREE, &tree);
    life_check(&f);
    life_fsck_clean(&f);
    life_rebuild_is_equal(&f);
    forge_free(&f);
}

TEST(small_packs_are_merged)
{
    enum { N = 12 };
    struct compact_report r;
    struct digest trees[N], key, result;
    struct forge f;
    int64_t stamp;

    forge_new(&f);
    for (int i = 0; i < N; i++) {
        char name[16];

        snprintf(name, sizeof(name), "t/%d", i);
        trees[i] = life_tree(&f, name, (uint64_t)i * 7, 10, 300); /* some files are shared */
    }
    life_unref(&f, "t/3");
    sha256_of("key", 3, &key);
    forge_begin(&f);
    forge_bind(&f, &key, &trees[0]);
    forge_commit(&f);
    r = compact(&f, 0);
    EXPECT_EQ(r.packs_merged, N + 2);
    EXPECT_EQ(forge_count_names(&f, f.st->packs), 1);
    EXPECT(r.bytes_after < r.bytes_before);
    EXPECT_OK(index_action(f.st->index, &key, &result, &stamp, &f.err), &f.err);
    EXPECT(life_has(&f, &trees[3])); /* compaction deletes nothing that is only dead */
    life_check(&f);
    life_fsck_clean(&f);
    life_rebuild_is_equal(&f);
    EXPECT_OK(index_action(f.st->index, &key, &result, &stamp, &f.err), &f.err);
    r = compact(&f, 0);
    EXPECT_EQ(r.packs_merged, 0);
    forge_free(&f);
}

TEST(what_is_warm_stays)
{
    struct compact_report r;
    struct digest cold, warm;
    char name[LOOSE_NAME];
    struct forge f;
    char noise[30000];
    uint64_t seed = 1;
    int64_t now;

    forge_new(&f);
    gen_noise(&seed, noise, sizeof(noise));
    forge_begin(&f);
    cold = forge_loose(&f, noise, 20000, NULL, 0);
    warm = forge_loose(&f, noise + 1, 20000, NULL, 0);
    forge_ref(&f, "cold", OBJ_BLOB, &cold);
    forge_ref(&f, "warm", OBJ_BLOB, &warm);
    forge_commit(&f);
    r = compact(&f, HOUR);
    EXPECT_EQ(r.loose_packed, 0);
    now = os_now_ns();
    os_set_now(now + 3 * HOUR * NS);
    loose_name(&warm, name);
    EXPECT_EQ(
        utimensat(f.st->loose, name,
                  (struct timespec[]){{.tv_sec = now / NS + 5 * HOUR / 2}, {.tv_nsec = UTIME_OMIT}},
                  0),
        0);
    r = compact(&f, HOUR);
    EXPECT_EQ(r.loose_packed, 1);
    EXPECT(!forge_loose_there(&f, &cold));
    EXPECT(forge_loose_there(&f, &warm));
    os_set_now(0);
    life_check(&f);
    forge_free(&f);
}

TEST(reading_a_file_to_pack_it_is_no_use_of_it)
{
    struct stat before, after;
    struct fsck_report report;
    char name[LOOSE_NAME];
    struct digest d;
    struct forge f;
    char noise[30000];
    uint64_t seed = 1;

    forge_new(&f);
    gen_noise(&seed, noise, sizeof(noise));
    forge_begin(&f);
    d = forge_loose(&f, noise, sizeof(noise), NULL, 0);
    forge_ref(&f, "d", OBJ_BLOB, &d);
    forge_commit(&f);
    loose_name(&d, name);
    EXPECT_EQ(utimensat(f.st->loose, name,
                        (struct timespec[]){{.tv_sec = 1000000}, {.tv_nsec = UTIME_OMIT}}, 0),
              0);
    EXPECT_OK(os_stat_at(f.st->loose, name, &before, &f.err), &f.err);
    EXPECT_OK(life_fsck(&f, FSCK_FULL, false, &report), &f.err);
    fsck_report_release(&report);
    EXPECT_OK(os_stat_at(f.st->loose, name, &after, &f.err), &f.err);
    EXPECT_EQ(before.st_atim.tv_sec, after.st_atim.tv_sec);
    EXPECT_EQ(compact(&f, 0).loose_packed, 1);
    EXPECT(!forge_loose_there(&f, &d));
    forge_free(&f);
}

TEST(a_damaged_file_is_not_replaced)
{
    struct compact_report r;
    struct digest d;
    struct forge f;
    char noise[30000];
    uint64_t seed = 1;

    for (int recipe = 0; recipe < 2; recipe++) {
        static const size_t sizes[] = {10000, 20000};

        forge_new(&f);
        gen_noise(&seed, noise, sizeof(noise));
        forge_begin(&f);
        d = forge_loose(&f, noise, sizeof(noise), sizes, recipe ? 2 : 0);
        forge_ref(&f, "d", OBJ_BLOB, &d);
        forge_commit(&f);
        forge_damage_loose(&f, &d, 12345, true);
        EXPECT_ERR(store_compact(f.st, NULL, &r, &f.err), ERR_DAMAGED, &f.err);
        EXPECT(forge_loose_there(&f, &d));
        EXPECT_EQ(forge_count_names(&f, f.st->packs), 1);
        EXPECT_EQ(forge_count_names(&f, f.st->tmp), 0);
        f.err = (struct err)ERR_INIT;
        forge_free(&f);
    }
}

TEST(a_dry_run_counts)
{
    const struct compact_options o = {.dry_run = true};
    struct compact_report r;
    struct buf before, after;
    struct digest d;
    struct forge f;
    char noise[30000];
    uint64_t seed = 1;

    forge_new(&f);
    gen_noise(&seed, noise, sizeof(noise));
    forge_begin(&f);
    d = forge_loose(&f, noise, sizeof(noise), NULL, 0);
    forge_commit(&f);
    life_tree(&f, "t", 1, 10, 100);
    life_dump(&f, &before);
    EXPECT_OK(store_compact(f.st, &o, &r, &f.err), &f.err);
    EXPECT_EQ(r.loose_packed, 1);
    EXPECT_EQ(r.packs_merged, 2);
    EXPECT(r.bytes_before > 30000);
    life_dump(&f, &after);
    EXPECT_STR(before.p, after.p);
    EXPECT(forge_loose_there(&f, &d));
    buf_release(&before);
    buf_release(&after);
    forge_free(&f);
}

RUN(a_checkpoint_becomes_compressed_chunks, equal_parts_are_stored_once,
    slices_follow_their_file_into_the_packs, a_file_that_others_read_from_stays,
    small_and_odd_files, small_packs_are_merged, what_is_warm_stays,
    reading_a_file_to_pack_it_is_no_use_of_it, a_damaged_file_is_not_replaced, a_dry_run_counts)
