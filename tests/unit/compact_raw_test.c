/* Second versions of large files: their new chunks lie raw in packs until a compaction compresses them. */
#include "store/gc_internal.h"
#include "tests/store_life.h"

#define HOUR 3600LL
#define NS 1000000000LL
#define MIB ((size_t)1 << 20)
#define TENSORS 6
#define TENSOR_BYTES MIB

static struct compact_report compact(struct forge *f, int64_t cold_s, bool dry_run)
{
    const struct compact_options o = {.cold_s = cold_s, .dry_run = dry_run};
    struct compact_report r;

    EXPECT_OK(store_compact(f->st, &o, &r, &f->err), &f->err);
    return r;
}

static void put_file(struct forge *f, struct writer *w, const struct buf *file, struct digest *d)
{
    int64_t size;
    int fd = -1;

    EXPECT_OK(os_write_file(f->st->tmp, "source", file->p, file->n, 0600, &f->err), &f->err);
    EXPECT_OK(os_open(f->st->tmp, "source", O_RDONLY, 0, &fd, &f->err), &f->err);
    EXPECT_OK(writer_put_file(w, fd, "source", d, &size, &f->err), &f->err);
    os_close_quiet(&fd);
    EXPECT_OK(os_unlink(f->st->tmp, "source", &f->err), &f->err);
}

static struct digest add_file(struct forge *f, const char *ref, const struct buf *file)
{
    struct writer *w = NULL;
    struct digest d;

    EXPECT_OK(writer_open(f->st, &w, &f->err), &f->err);
    put_file(f, w, file, &d);
    EXPECT_OK(writer_ref(w, str_of(ref), OBJ_BLOB, &d, &f->err), &f->err);
    EXPECT_OK(writer_commit(w, &f->err), &f->err);
    writer_release(w);
    return d;
}

/* The tensors from change on differ for each version. */
static void checkpoint(struct buf *out, uint64_t version, size_t change)
{
    struct gen_tensor t[TENSORS];
    char names[TENSORS][32];
    uint64_t same = 99;
    uint8_t *data;

    buf_init(out, 64 * MIB);
    for (size_t i = 0; i < TENSORS; i++) {
        snprintf(names[i], sizeof(names[i]), "layer.%zu", i);
        t[i] = (struct gen_tensor){
            .name = names[i], .dtype = "BF16", .bytes = TENSOR_BYTES, .width = 2};
    }
    gen_safetensors(out, &same, t, TENSORS, 0);
    data = (uint8_t *)out->p + out->n - TENSORS * TENSOR_BYTES;
    for (size_t i = 0; i < TENSORS; i++) {
        uint64_t s = i < change ? 1000 + i : version * 5000 + i;

        gen_weights(&s, data + i * TENSOR_BYTES, TENSOR_BYTES, 2);
    }
}

static void reads_as(struct forge *f, const struct digest *id, const struct buf *file)
{
    struct buf bytes;

    buf_init(&bytes, file->n);
    EXPECT_OK(object_read(f->st, id, (int64_t)file->n, &bytes, &f->err), &f->err);
    EXPECT_EQ(bytes.n, file->n);
    EXPECT(memcmp(bytes.p, file->p, file->n) == 0);
    buf_release(&bytes);
}

struct versions {
    struct forge f;
    struct buf one, two;
    struct digest first, second;
};

static void two_versions(struct versions *v)
{
    forge_new(&v->f);
    checkpoint(&v->one, 1, TENSORS / 2);
    checkpoint(&v->two, 2, TENSORS / 2);
    v->first = add_file(&v->f, "model/1", &v->one);
    v->second = add_file(&v->f, "model/2", &v->two);
}

static void both_are_whole(struct versions *v)
{
    reads_as(&v->f, &v->first, &v->one);
    reads_as(&v->f, &v->second, &v->two);
    life_check(&v->f);
}

static void versions_free(struct versions *v)
{
    buf_release(&v->one);
    buf_release(&v->two);
    forge_free(&v->f);
}

TEST(a_second_version_is_compressed_once)
{
    const double different = 1.5 * TENSORS * TENSOR_BYTES;
    struct compact_report r;
    struct buf before, after;
    struct versions v;

    two_versions(&v);
    life_dump(&v.f, &before);
    r = compact(&v.f, 0, true);
    EXPECT_EQ(r.packs_compressed, 1);
    EXPECT_EQ(r.loose_packed, 1);
    EXPECT((double)r.bytes_before >= different);
    life_dump(&v.f, &after);
    EXPECT_STR(before.p, after.p);
    buf_release(&before);
    buf_release(&after);

    r = compact(&v.f, 0, false);
    EXPECT_EQ(r.packs_compressed, 1);
    EXPECT((double)r.bytes_after <= 0.665 * different);
    both_are_whole(&v);
    life_fsck_clean(&v.f);
    life_rebuild_is_equal(&v.f);

    life_dump(&v.f, &before);
    r = compact(&v.f, 0, false);
    EXPECT_EQ(r.packs_compressed + r.packs_merged + r.loose_packed, 0);
    EXPECT_EQ(r.bytes_before, 0);
    life_dump(&v.f, &after);
    EXPECT_STR(before.p, after.p);
    buf_release(&before);
    buf_release(&after);
    life_gc(&v.f, 0);
    both_are_whole(&v);
    versions_free(&v);
}

/* The first version was packed before the second came. */
TEST(versions_come_one_by_one)
{
    struct compact_report r;
    struct versions v;
    struct buf three;
    struct digest third;

    two_versions(&v);
    compact(&v.f, 0, false);
    checkpoint(&three, 3, TENSORS / 2);
    third = add_file(&v.f, "model/3", &three);
    r = compact(&v.f, 0, false);
    EXPECT_EQ(r.packs_compressed, 1);
    /* The half that is new, and what was small before and joined it. */
    EXPECT((double)r.bytes_after <= 0.67 * (double)r.bytes_before || r.packs_merged > 1);
    reads_as(&v.f, &third, &three);
    both_are_whole(&v);
    EXPECT_EQ(compact(&v.f, 0, false).bytes_before, 0);
    buf_release(&three);
    versions_free(&v);
}

TEST(what_is_young_stays_raw)
{
    struct versions v;

    two_versions(&v);
    EXPECT_EQ(compact(&v.f, HOUR, false).packs_compressed, 0);
    os_set_now(os_now_ns() + 3 * HOUR * NS);
    EXPECT_EQ(compact(&v.f, HOUR, false).packs_compressed, 1);
    os_set_now(0);
    both_are_whole(&v);
    versions_free(&v);
}

/* Noise stays as it is, and is not tried for ever. */
TEST(what_does_not_shrink_is_tried_once)
{
    enum { CHUNKS = 3, CHUNK = 200000 };
    static char noise[CHUNKS * CHUNK];
    struct recipe_chunk chunks[CHUNKS];
    struct compact_report r;
    struct digest whole;
    uint64_t seed = 8;
    struct forge f;
    struct loc loc;

    forge_new(&f);
    gen_noise(&seed, noise, sizeof(noise));
    forge_begin(&f);
    for (int i = 0; i < CHUNKS; i++)
        chunks[i] = (struct recipe_chunk){
            .id = forge_blob(&f, ENC_RAW, 0, noise + i * CHUNK, CHUNK), .len = CHUNK};
    whole = forge_recipe(&f, noise, sizeof(noise), chunks, CHUNKS);
    forge_ref(&f, "noise", OBJ_BLOB, &whole);
    forge_commit(&f);
    r = compact(&f, 0, false);
    EXPECT_EQ(r.packs_compressed, 1);
    EXPECT(r.bytes_after >= (int64_t)sizeof(noise));
    EXPECT_OK(index_get(f.st->index, &chunks[1].id, 1, &loc, &f.err), &f.err);
    EXPECT_EQ(loc.enc, ENC_RAW);
    life_fsck_clean(&f);
    EXPECT_EQ(compact(&f, 0, false).bytes_before, 0);
    life_rebuild_is_equal(&f);
    EXPECT_EQ(compact(&f, 0, false).bytes_before, 0); /* it is the packs that know */
    forge_free(&f);
}

static struct digest noise_file(struct forge *f, const char *ref, uint64_t seed, int count)
{
    enum { CHUNK = 200000, MOST = 8 };
    static char noise[MOST * CHUNK];
    struct recipe_chunk chunks[MOST];
    struct digest whole;

    EXPECT(count <= MOST);
    gen_noise(&seed, noise, (size_t)count * CHUNK);
    for (int i = 0; i < count; i++)
        chunks[i] = (struct recipe_chunk){.id = forge_blob(f, ENC_RAW, 0, noise + i * CHUNK, CHUNK),
                                          .len = CHUNK};
    whole = forge_recipe(f, noise, (size_t)count * CHUNK, chunks, (size_t)count);
    forge_ref(f, ref, OBJ_BLOB, &whole);
    return whole;
}

/* A gc that writes the rest of such a pack anew passes on that it was tried; but not for what was never tried. */
TEST(a_gc_remembers_what_was_tried)
{
    for (int tried = 0; tried < 2; tried++) {
        struct forge f;

        forge_new(&f);
        forge_begin(&f);
        noise_file(&f, "stays", 8, 2);
        noise_file(&f, "goes", 9, 7);
        forge_commit(&f);
        if (tried)
            EXPECT_EQ(compact(&f, 0, false).packs_compressed, 1);
        life_unref(&f, "goes");
        EXPECT_EQ(life_gc(&f, 0).packs_rewritten, 1);
        EXPECT_EQ(compact(&f, 0, false).packs_compressed, tried ? 0 : 1);
        EXPECT_EQ(compact(&f, 0, false).packs_compressed, 0);
        life_fsck_clean(&f);
        forge_free(&f);
    }
}

/* Blobs of their own were offered to the codec when they were added. */
TEST(raw_blobs_without_a_recipe_are_left_alone)
{
    static char noise[300000];
    uint64_t seed = 8;
    struct forge f;
    struct digest d;

    forge_new(&f);
    gen_noise(&seed, noise, sizeof(noise));
    forge_begin(&f);
    d = forge_blob(&f, ENC_RAW, 0, noise, sizeof(noise));
    forge_ref(&f, "picture", OBJ_BLOB, &d);
    forge_commit(&f);
    EXPECT_EQ(compact(&f, 0, false).bytes_before, 0);
    forge_free(&f);
}

TEST(a_damaged_chunk_is_not_replaced)
{
    struct compact_report r;
    struct digest chunk, pack;
    struct pack_row row;
    struct versions v;
    struct loc loc;
    int before;

    two_versions(&v);
    sha256_of(v.two.p + v.two.n - TENSOR_BYTES, TENSOR_BYTES, &chunk);
    EXPECT_OK(index_get(v.f.st->index, &chunk, 1, &loc, &v.f.err), &v.f.err);
    EXPECT_EQ(loc.type, LOC_BLOB);
    EXPECT_EQ(loc.enc, ENC_RAW);
    EXPECT_OK(index_pack(v.f.st->index, loc.pack, &row, &v.f.err), &v.f.err);
    pack = row.name;
    forge_damage_pack(&v.f, &pack, (int64_t)loc.off + PACK_RECORD_HEADER + 1000);
    before = forge_count_names(&v.f, v.f.st->packs);
    EXPECT_ERR(store_compact(v.f.st, NULL, &r, &v.f.err), ERR_DAMAGED, &v.f.err);
    v.f.err = (struct err)ERR_INIT;
    EXPECT(forge_count_names(&v.f, v.f.st->packs) >= before);
    EXPECT_OK(index_pack_by_name(v.f.st->index, &pack, &row, &v.f.err), &v.f.err);
    EXPECT(forge_loose_there(&v.f, &v.first));
    reads_as(&v.f, &v.first, &v.one);
    versions_free(&v);
}

/* A reader that began before goes on, and a writer that found raw chunks commits, or is told to begin again. */
TEST(who_is_at_work_meanwhile_is_not_disturbed)
{
    struct object *o = NULL;
    struct writer *w = NULL;
    struct digest third;
    struct versions v;
    struct buf three;
    enum err_code rc;
    char *half;

    two_versions(&v);
    checkpoint(&three, 2, TENSORS / 2); /* the second, but for the last byte */
    three.p[three.n - 1] = (char)~three.p[three.n - 1];
    EXPECT_OK(object_open(v.f.st, &v.second, &o, &v.f.err), &v.f.err);
    half = mem_alloc(v.two.n);
    EXPECT_OK(object_pread(o, half, v.two.n / 2, 0, &v.f.err), &v.f.err);
    EXPECT_OK(writer_open(v.f.st, &w, &v.f.err), &v.f.err);
    put_file(&v.f, w, &three, &third);
    compact(&v.f, 0, false);
    EXPECT_OK(object_pread(o, half + v.two.n / 2, v.two.n - v.two.n / 2, (int64_t)(v.two.n / 2),
                           &v.f.err),
              &v.f.err);
    EXPECT(memcmp(half, v.two.p, v.two.n) == 0);
    object_close(o);
    rc = writer_commit(w, &v.f.err);
    writer_release(w);
    EXPECT(rc == OK || rc == ERR_CHANGED);
    v.f.err = (struct err)ERR_INIT;
    if (rc)
        third = add_file(&v.f, "model/3", &three);
    reads_as(&v.f, &third, &three);
    forge_open(&v.f, STORE_WRITE);
    reads_as(&v.f, &third, &three);
    both_are_whole(&v);
    free(half);
    buf_release(&three);
    versions_free(&v);
}

RUN(a_second_version_is_compressed_once, versions_come_one_by_one, what_is_young_stays_raw,
    what_does_not_shrink_is_tried_once, a_gc_remembers_what_was_tried,
    raw_blobs_without_a_recipe_are_left_alone, a_damaged_chunk_is_not_replaced,
    who_is_at_work_meanwhile_is_not_disturbed)
