#include <pthread.h>

#include "store/cut.h"
#include "store/pack_cache.h"
#include "store/reader.h"
#include "store/reader_fetch.h"
#include "tests/store_forge.h"
#include "tests/store_gen.h"

#define MIB ((size_t)1 << 20)

/* n bytes of noise, with every other KiB blank so that compressing pays. */
static char *noise(uint64_t seed, size_t n)
{
    char *p = mem_alloc(n + 8);

    gen_noise(&seed, p, n);
    for (size_t i = 0; i + 2048 <= n; i += 2048)
        memset(p + i, ' ', 1024);
    return p;
}

static void expect_object(struct forge *f, const struct digest *id, const char *p, size_t n)
{
    struct object *o = NULL;
    uint64_t seed = n;
    struct buf out;
    int64_t size;
    int fd = -1;
    char *room = mem_alloc(n + 1);

    EXPECT_OK(object_size(f->st, id, &size, &f->err), &f->err);
    EXPECT_EQ(size, n);
    buf_init(&out, n + 100);
    buf_str(&out, "before");
    EXPECT_OK(object_read(f->st, id, (int64_t)n, &out, &f->err), &f->err);
    EXPECT_EQ(out.n, n + 6);
    EXPECT_MEM(out.p, "before", 6);
    EXPECT_MEM(out.p + 6, p, n);
    buf_release(&out);
    EXPECT_OK(object_open(f->st, id, &o, &f->err), &f->err);
    EXPECT_EQ(object_bytes(o), n);
    for (int i = 0; i < 40; i++) {
        const size_t off = gen_below(&seed, n + 1), len = gen_below(&seed, n - off + 1);

        EXPECT_OK(object_pread(o, room, len, (int64_t)off, &f->err), &f->err);
        EXPECT_MEM(room, p + off, len);
    }
    EXPECT_ERR(object_pread(o, room, 1, (int64_t)n, &f->err), ERR_INPUT, &f->err);
    EXPECT_ERR(object_pread(o, room, n + 1, 0, &f->err), ERR_INPUT, &f->err);
    EXPECT_ERR(object_pread(o, room, 1, -1, &f->err), ERR_INPUT, &f->err);
    object_close(o);
    EXPECT_OK(os_open(f->st->tmp, "copy", O_RDWR | O_CREAT | O_EXCL, 0600, &fd, &f->err), &f->err);
    EXPECT_OK(object_copy(f->st, id, fd, NULL, &f->err), &f->err);
    EXPECT_OK(os_pread_all(fd, room, n, 0, &f->err), &f->err);
    EXPECT_MEM(room, p, n);
    EXPECT_EQ(lseek(fd, 0, SEEK_END), n);
    os_close_quiet(&fd);
    EXPECT_OK(os_unlink(f->st->tmp, "copy", &f->err), &f->err);
    free(room);
}

/* ---- every form -------------------------------------------------------------------------------- */

TEST(blobs_in_every_encoding)
{
    static const size_t sizes[] = {0, 1, 2, 1000, 100001, (2 << 20) + 3};
    struct forge f;

    forge_new(&f);
    for (int enc = 0; enc < ENC_COUNT; enc++)
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            char *p = noise((uint64_t)enc * 100 + i, sizes[i]);
            struct digest id;

            if (sizes[i] == 0 && enc != ENC_RAW) {
                free(p);
                continue;
            }
            forge_begin(&f);
            id = forge_blob(&f, (enum enc)enc, 0, p, sizes[i]);
            forge_commit(&f);
            expect_object(&f, &id, p, sizes[i]);
            free(p);
        }
    EXPECT_OK(store_check(f.st, &f.err), &f.err);
    forge_free(&f);
}

TEST(members_of_frames)
{
    size_t sizes[300];
    struct digest ids[300];
    struct forge f;
    size_t n = 0;

    forge_new(&f);
    forge_begin(&f);
    for (size_t i = 0; i < 300; i++)
        n += sizes[i] = i * 7 % 1013; /* the first is empty */
    char *p = noise(3, n);

    forge_frame(&f, p, sizes, 300, ids);
    forge_commit(&f);
    n = 0;
    for (size_t i = 0; i < 300; n += sizes[i++])
        expect_object(&f, &ids[i], p + n, sizes[i]);
    free(p);
    forge_free(&f);
}

/* Chunks of all kinds: raw, encoded, in a frame, a slice of another file, and a recipe once more. */
TEST(recipes_of_mixed_chunks)
{
    const size_t sizes[] = {MIB, 3 * MIB, 700, 2 * MIB, 1, 40000}, inner[] = {MIB / 2, MIB / 2};
    size_t total = 0;
    struct forge f;
    struct digest id;

    for (size_t i = 0; i < 6; i++)
        total += sizes[i];

    char *p = noise(11, total), *other;
    struct recipe_chunk *chunks = forge_chunks(p, sizes, 6), *halves = forge_chunks(p, inner, 2);

    forge_new(&f);
    forge_begin(&f);
    forge_blob(&f, ENC_RAW, 0, p, MIB / 2);
    forge_blob(&f, ENC_ZSTD, 0, p + MIB / 2, MIB / 2);
    forge_recipe(&f, p, MIB, halves, 2);
    forge_blob(&f, ENC_PLANES2, 0, p + MIB, 3 * MIB);
    forge_frame(&f, p + 4 * MIB, (const size_t[]){700}, 1, NULL);
    other = mem_alloc(2 * MIB + 10);
    memset(other, 'o', 10);
    memcpy(other + 10, p + 4 * MIB + 700, 2 * MIB);
    forge_loose(&f, other, 2 * MIB + 10, (const size_t[]){10, 2 * MIB}, 2);
    forge_blob(&f, ENC_RAW, 0, p + 6 * MIB + 700, 1);
    forge_blob(&f, ENC_ZSTD, 0, p + 6 * MIB + 701, 40000);
    id = forge_recipe(&f, p, total, chunks, 6);
    forge_commit(&f);
    expect_object(&f, &id, p, total);
    EXPECT_OK(store_check(f.st, &f.err), &f.err);

    struct recipe_chunk *got = NULL;
    size_t count;

    EXPECT_OK(object_chunks(f.st, &id, &got, &count, &f.err), &f.err);
    EXPECT_EQ(count, 6);
    for (size_t i = 0; i < 6; i++) {
        EXPECT(digest_eq(&got[i].id, &chunks[i].id));
        EXPECT_EQ(got[i].len, sizes[i]);
    }
    free(got);
    EXPECT_OK(object_chunks(f.st, &chunks[2].id, &got, &count, &f.err), &f.err);
    EXPECT_EQ(count, 1);
    EXPECT(digest_eq(&got[0].id, &chunks[2].id));
    EXPECT_EQ(got[0].len, 700);
    free(got);
    free(chunks);
    free(halves);
    free(other);
    free(p);
    forge_free(&f);
}

TEST(loose_files_with_and_without_recipe)
{
    const size_t sizes[] = {3 * MIB, 8 * MIB, MIB + 5};
    const size_t n = 12 * MIB + 5;
    char *p = noise(21, n), *q = noise(22, 20 * MIB + 1);
    struct forge f;
    struct digest with, without;

    forge_new(&f);
    forge_begin(&f);
    with = forge_loose(&f, p, n, sizes, 3);
    without = forge_loose(&f, q, 20 * MIB + 1, NULL, 0);
    forge_commit(&f);
    expect_object(&f, &with, p, n);
    expect_object(&f, &without, q, 20 * MIB + 1);
    f.st->threads = 1;
    expect_object(&f, &with, p, n);
    free(p);
    free(q);
    forge_free(&f);
}

/* While a loose file is still there, a packed object is read from it; without it, or when it is damaged, from the packs. */
TEST(hot_copies_are_used_and_not_needed)
{
    const size_t sizes[] = {MIB, 2 * MIB};
    char *p = noise(31, 3 * MIB);
    struct recipe_chunk *chunks = forge_chunks(p, sizes, 2);
    struct forge f;
    struct digest id;
    struct loc loc;

    forge_new(&f);
    forge_begin(&f);
    forge_blob(&f, ENC_ZSTD, 0, p, MIB);
    forge_blob(&f, ENC_ZSTD, 0, p + MIB, 2 * MIB);
    forge_recipe(&f, p, 3 * MIB, chunks, 2);
    id = forge_loose(&f, p, 3 * MIB, sizes, 2);
    forge_commit(&f);
    EXPECT_OK(object_locate(f.st, &id, 1, &loc, &f.err), &f.err);
    EXPECT_EQ(loc.type, LOC_RECIPE);
    expect_object(&f, &id, p, 3 * MIB);
    forge_damage_loose(&f, &id, MIB + 7, true);
    expect_object(&f, &id, p, 3 * MIB);
    forge_damage_loose(&f, &id, MIB + 9, false); /* now it is noticed and quarantined */
    expect_object(&f, &id, p, 3 * MIB);
    EXPECT(!forge_loose_there(&f, &id));
    expect_object(&f, &id, p, 3 * MIB);
    free(chunks);
    free(p);
    forge_free(&f);
}

/* ---- limits and absence ------------------------------------------------------------------------ */

TEST(limits_and_unknown_ids)
{
    const struct digest absent = {.b = {1, 2, 3}};
    struct object *o = NULL;
    struct forge f;
    struct digest id;
    struct buf out;
    int64_t size;

    forge_new(&f);
    forge_begin(&f);
    id = forge_blob(&f, ENC_RAW, 0, "0123456789", 10);
    forge_commit(&f);
    buf_init(&out, 100);
    EXPECT_ERR(object_read(f.st, &id, 9, &out, &f.err), ERR_LIMIT, &f.err);
    EXPECT_EQ(out.n, 0);
    EXPECT(!out.failed);
    buf_release(&out);
    buf_init(&out, 9);
    EXPECT_ERR(object_read(f.st, &id, 10, &out, &f.err), ERR_LIMIT, &f.err);
    buf_release(&out);
    EXPECT_ERR(object_read(f.st, &absent, 10, &out, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT(strstr(f.err.text, "sha256:010203"));
    EXPECT_ERR(object_size(f.st, &absent, &size, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_ERR(object_open(f.st, &absent, &o, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT(o == NULL);
    object_close(NULL);
    forge_free(&f);
}

TEST(lost_objects_are_the_same_each_time)
{
    enum { N = 2000 };
    struct digest *ids = mem_alloc(N * sizeof(*ids));
    bool *lost = mem_zero(N, sizeof(*lost));
    int count = 0, moved = 0;
    struct forge f;
    struct buf out;
    bool complete;

    forge_new(&f);
    forge_begin(&f);
    for (int i = 0; i < N; i++)
        ids[i] = forge_blob(&f, ENC_RAW, 0, &i, sizeof(i));
    forge_commit(&f);
    buf_init(&out, 100);
    setenv("WEIR_LOSE", "7,10", 1);
    for (int pass = 0; pass < 3; pass++) {
        if (pass == 2)
            setenv("WEIR_LOSE", "8,10", 1);
        forge_open(&f, STORE_READ);
        for (int i = 0; i < N; i++) {
            buf_clear(&out);

            const enum err_code rc = object_read(f.st, &ids[i], 100, &out, &f.err);

            EXPECT(rc == OK || rc == ERR_NOT_FOUND);
            EXPECT_OK(store_complete(f.st, OBJ_BLOB, &ids[i], &complete, NULL, &f.err), &f.err);
            EXPECT_EQ(complete, rc == OK);
            if (pass == 0) {
                lost[i] = rc != OK;
                count += lost[i];
            } else if (pass == 1) {
                EXPECT_EQ(lost[i], rc != OK);
            } else {
                moved += lost[i] != (rc != OK);
            }
        }
    }
    unsetenv("WEIR_LOSE");
    EXPECT(count > N / 20 && count < N / 5);
    EXPECT(moved > N / 20);
    buf_release(&out);
    free(ids);
    free(lost);
    forge_free(&f);
}

/* ---- damage ------------------------------------------------------------------------------------ */

static void expect_damaged(struct forge *f, const struct digest *id)
{
    char text[DIGEST_TEXT + 1];
    struct object *o = NULL;
    enum err_code rc;
    struct buf out;
    int fd = -1;

    digest_text(id, text);
    buf_init(&out, 64 * MIB);
    EXPECT_ERR(object_read(f->st, id, 64 * MIB, &out, &f->err), ERR_DAMAGED, &f->err);
    EXPECT(strstr(f->err.text, "run weir fsck"));
    EXPECT_EQ(out.n, 0);
    buf_release(&out);
    rc = object_open(f->st, id, &o, &f->err);
    if (!rc) {
        char *room = mem_alloc((size_t)object_bytes(o));

        rc = object_pread(o, room, (size_t)object_bytes(o), 0, &f->err);
        free(room);
    }
    EXPECT_ERR(rc, ERR_DAMAGED, &f->err);
    object_close(o);
    EXPECT_OK(os_open(f->st->tmp, "copy", O_RDWR | O_CREAT | O_TRUNC, 0600, &fd, &f->err), &f->err);
    EXPECT_ERR(object_copy(f->st, id, fd, NULL, &f->err), ERR_DAMAGED, &f->err);
    os_close_quiet(&fd);
}

/* A bit anywhere in the first record, header included: never a wrong byte, always an error. */
TEST(a_flipped_bit_in_a_pack_is_found)
{
    for (int form = 0; form < 3; form++)
        for (int64_t at = PACK_HEADER_BYTES; at < PACK_HEADER_BYTES + PACK_RECORD_HEADER + 90;
             at += 3) {
            struct forge f;
            struct digest id;
            char text[400];

            forge_new(&f);
            forge_begin(&f);
            for (size_t i = 0; i < sizeof(text); i++)
                text[i] = (char)(i * i % 251);
            if (form == 2)
                forge_frame(&f, text, (const size_t[]){sizeof(text)}, 1, &id);
            else
                id = forge_blob(&f, form ? ENC_ZSTD : ENC_RAW, 0, text, sizeof(text));
            forge_commit(&f);
            forge_damage_pack(&f, &f.pack, at);
            forge_open(&f, STORE_READ);
            expect_damaged(&f, &id);
            forge_free(&f);
        }
}

/* The record's checksum is right and the bytes decode, but they are not those of the name. */
TEST(bytes_of_another_name_are_found)
{
    const size_t sizes[] = {5, 5};
    struct digest id, member, whole;
    struct recipe_chunk chunk = {.len = 5};
    struct frame_member lie = {.len = 5};
    struct codec *codec = NULL;
    struct forge f;
    struct buf zstd;

    forge_new(&f);
    forge_begin(&f);
    sha256_of("hello", 5, &id);
    forge_record(&f, REC_BLOB, ENC_RAW, 0, &id, 5, "jello", 5);
    sha256_of("world", 5, &member);
    lie.id = member;
    buf_init(&zstd, 1000);
    EXPECT_OK(codec_new(&codec, &f.err), &f.err);
    EXPECT_OK(codec_encode(codec, ENC_ZSTD, 1, "w0rld", 5, &zstd, &f.err), &f.err);
    EXPECT_OK(pack_put_frame(f.w, &lie, 1, zstd.p, zstd.n, 5, NULL, &f.err), &f.err);
    chunk.id = id;
    whole = forge_recipe(&f, "hello", 5, &chunk, 1); /* the same id: the blob wins */
    forge_commit(&f);
    EXPECT(digest_eq(&whole, &id));
    expect_damaged(&f, &id);
    expect_damaged(&f, &member);
    (void)sizes;
    codec_free(codec);
    buf_release(&zstd);
    forge_free(&f);
}

TEST(a_recipe_of_itself_ends)
{
    struct recipe_chunk chunk = {.len = 5};
    struct forge f;
    struct digest id;

    forge_new(&f);
    sha256_of("hello", 5, &chunk.id);
    forge_begin(&f);
    id = forge_recipe(&f, "hello", 5, &chunk, 1);
    forge_commit(&f);
    expect_damaged(&f, &id);
    forge_free(&f);
}

TEST(a_missing_chunk_is_named)
{
    const size_t sizes[] = {3, 4};
    struct recipe_chunk *chunks = forge_chunks("abcdefg", sizes, 2);
    char text[DIGEST_TEXT + 1];
    struct forge f;
    struct digest id;
    struct buf out;

    forge_new(&f);
    forge_begin(&f);
    forge_blob(&f, ENC_RAW, 0, "abc", 3);
    id = forge_recipe(&f, "abcdefg", 7, chunks, 2);
    forge_commit(&f);
    buf_init(&out, 100);
    EXPECT_ERR(object_read(f.st, &id, 100, &out, &f.err), ERR_NOT_FOUND, &f.err);
    digest_text(&chunks[1].id, text);
    EXPECT(strstr(f.err.text, text));
    digest_text(&id, text);
    EXPECT(strstr(f.err.text, text));
    EXPECT_EQ(out.n, 0);
    buf_release(&out);
    free(chunks);
    forge_free(&f);
}

TEST(a_chunk_of_another_length_is_found)
{
    struct recipe_chunk chunks[2] = {{.len = 3}, {.len = 4}};
    struct forge f;
    struct digest id;

    forge_new(&f);
    forge_begin(&f);
    chunks[0].id = forge_blob(&f, ENC_RAW, 0, "abcd", 4);
    chunks[1].id = forge_blob(&f, ENC_RAW, 0, "defg", 4);
    id = forge_recipe(&f, "abcdefg", 7, chunks, 2);
    forge_commit(&f);
    expect_damaged(&f, &id);
    forge_free(&f);
}

/* The bytes change and the mtime does not: only reading can tell, and it does, chunk by chunk. */
TEST(a_flipped_bit_in_a_loose_file_is_found)
{
    const size_t sizes[] = {MIB, MIB};
    char *p = noise(41, 2 * MIB), room[16];
    struct recipe_chunk *chunks = forge_chunks(p, sizes, 2);
    struct object *o = NULL;
    struct forge f;
    struct digest with, without;

    forge_new(&f);
    forge_begin(&f);
    with = forge_loose(&f, p, 2 * MIB, sizes, 2);
    p[0] ^= 1;
    without = forge_loose(&f, p, 2 * MIB, NULL, 0);
    p[0] ^= 1;
    forge_commit(&f);
    forge_damage_loose(&f, &with, (int64_t)(MIB + 100), true);
    forge_damage_loose(&f, &without, (int64_t)(MIB + 100), true);
    EXPECT_OK(object_open(f.st, &with, &o, &f.err), &f.err);
    EXPECT_OK(object_pread(o, room, 16, MIB - 16, &f.err), &f.err); /* the good chunk */
    EXPECT_MEM(room, p + MIB - 16, 16);
    EXPECT_ERR(object_pread(o, room, 16, MIB - 1, &f.err), ERR_DAMAGED, &f.err);
    EXPECT_ERR(object_pread(o, room, 16, MIB + 16, &f.err), ERR_DAMAGED, &f.err);
    EXPECT_OK(object_pread(o, room, 16, 0, &f.err), &f.err);
    object_close(o);
    expect_damaged(&f, &with);
    expect_damaged(&f, &without);
    expect_damaged(&f, &chunks[1].id); /* a slice of it */
    EXPECT(forge_loose_there(&f, &with));
    free(chunks);
    free(p);
    forge_free(&f);
}

TEST(a_loose_file_that_is_gone_is_damage)
{
    char name[LOOSE_NAME];
    struct forge f;
    struct digest id;

    forge_new(&f);
    forge_begin(&f);
    id = forge_loose(&f, "hello", 5, NULL, 0);
    forge_commit(&f);
    loose_name(&id, name);
    EXPECT_OK(os_unlink(f.st->loose, name, &f.err), &f.err);
    expect_damaged(&f, &id);
    forge_free(&f);
}

/* Another process has moved an object to a new pack and deleted the old one. */
TEST(a_pack_that_moved_is_found_again)
{
    char hex[DIGEST_HEX + 1];
    struct condemned gone = {0};
    struct digest old, id;
    struct forge f;
    struct index_stat stat;
    struct loc before, after;
    struct buf out;
    int64_t commits;
    bool raced;

    forge_new(&f);
    forge_begin(&f);
    id = forge_blob(&f, ENC_RAW, 0, "hello", 5);
    forge_commit(&f);
    old = f.pack;
    EXPECT_OK(object_locate(f.st, &id, 1, &before, &f.err), &f.err);
    EXPECT_OK(index_stat(f.st->index, &stat, &f.err), &f.err);
    gone.packs = &old;
    gone.pack_count = 1;
    EXPECT_OK(index_condemn(f.st->index, &gone, stat.commits, &raced, &commits, &f.err), &f.err);
    EXPECT(!raced);
    forge_begin(&f);
    forge_blob(&f, ENC_RAW, 0, "other", 5);
    forge_blob(&f, ENC_RAW, 0, "hello", 5);
    forge_commit(&f);
    EXPECT_OK(index_purge(f.st->index, &f.err), &f.err);
    digest_hex(&old, hex);
    EXPECT_OK(os_unlink(f.st->packs, hex, &f.err), &f.err);
    EXPECT_OK(object_locate(f.st, &id, 1, &after, &f.err), &f.err);
    EXPECT(after.pack != before.pack);
    buf_init(&out, 100);
    EXPECT_OK(object_read(f.st, &id, 100, &out, &f.err), &f.err);
    EXPECT_STR(out.p, "hello");
    /* Who looked it up before all that and reads only now. */
    memset(out.p, 0, 5);
    EXPECT_OK(fetch_at(f.st, &id, &before, out.p, &f.err), &f.err);
    EXPECT_STR(out.p, "hello");
    buf_release(&out);
    /* And a pack that is gone for good is damage. */
    digest_hex(&f.pack, hex);
    EXPECT_OK(os_unlink(f.st->packs, hex, &f.err), &f.err);
    forge_open(&f, STORE_READ);
    expect_damaged(&f, &id);
    forge_free(&f);
}

/* ---- tensors ----------------------------------------------------------------------------------- */

TEST(one_tensor_without_the_rest)
{
    static const char header[] =
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[1048576],\"data_offsets\":"
        "[24,2097176]}}";
    const size_t head_n = sizeof(header) - 1, n = 8 + head_n + 2097176;
    const size_t sizes[] = {8 + head_n + 24, 2097152};
    char *p = noise(51, n);
    struct tensor_span span;
    struct forge f;
    struct digest id, small;
    struct buf out;

    for (int i = 0; i < 8; i++)
        p[i] = (char)(head_n >> (8 * i) & 0xff);
    memcpy(p + 8, header, head_n);
    forge_new(&f);
    forge_begin(&f);
    id = forge_loose(&f, p, n, sizes, 2);
    small = forge_blob(&f, ENC_RAW, 0, "no tensors", 10);
    forge_commit(&f);
    forge_damage_loose(&f, &id, (int64_t)n - 5, true); /* in b: who reads only a is not bothered */
    buf_init(&out, 10 * MIB);
    EXPECT_OK(object_tensor(f.st, &id, "a", &span, &out, 1000, &f.err), &f.err);
    EXPECT_EQ(out.n, 24);
    EXPECT_MEM(out.p, p + 8 + head_n, 24);
    EXPECT_EQ(span.rank, 2);
    EXPECT_STR(span.dtype, "F32");
    EXPECT_ERR(object_tensor(f.st, &id, "b", &span, &out, MIB, &f.err), ERR_LIMIT, &f.err);
    EXPECT_ERR(object_tensor(f.st, &id, "b", &span, &out, 4 * MIB, &f.err), ERR_DAMAGED, &f.err);
    EXPECT_EQ(out.n, 24);
    EXPECT_ERR(object_tensor(f.st, &id, "c", &span, &out, MIB, &f.err), ERR_NOT_FOUND, &f.err);
    EXPECT_ERR(object_tensor(f.st, &small, "a", &span, &out, MIB, &f.err), ERR_INPUT, &f.err);
    buf_release(&out);
    free(p);
    forge_free(&f);
}

/* ---- the cache --------------------------------------------------------------------------------- */

struct reading {
    struct forge *f;
    const struct digest *ids;
    const char *p;
    size_t n, count;
    uint64_t seed;
    int wrong;
};

static void *read_many(void *arg)
{
    struct reading *r = arg;
    struct err err = ERR_INIT;
    struct buf out;

    buf_init(&out, r->n);
    for (int i = 0; i < 3000; i++) {
        const size_t at = gen_below(&r->seed, r->count);

        buf_clear(&out);
        if (object_read(r->f->st, &r->ids[at], (int64_t)r->n, &out, &err) ||
            memcmp(out.p, r->p + at * r->n, r->n) != 0)
            r->wrong++;
    }
    buf_release(&out);
    return NULL;
}

/* More frames than the cache holds, in more packs than stay open, from several threads. */
TEST(the_cache_is_bounded_and_shared)
{
    enum { PACKS = 80, FRAMES = 4, MEMBERS = 4, SIZE = 1 << 16 };
    const size_t count = PACKS * FRAMES * MEMBERS;
    char *p = noise(61, count * SIZE);
    struct digest *ids = mem_alloc(count * sizeof(*ids));
    const size_t sizes[MEMBERS] = {SIZE, SIZE, SIZE, SIZE};
    struct reading readings[4];
    pthread_t threads[4];
    struct forge f;
    int fds;

    forge_new(&f);
    for (size_t i = 0; i < count; i += MEMBERS) {
        if (i % (FRAMES * MEMBERS) == 0)
            forge_begin(&f);
        forge_frame(&f, p + i * SIZE, sizes, MEMBERS, ids + i);
        if ((i + MEMBERS) % (FRAMES * MEMBERS) == 0)
            forge_commit(&f);
    }
    fds = forge_fd_count();
    for (int i = 0; i < 4; i++) {
        readings[i] = (struct reading){&f, ids, p, SIZE, count, (uint64_t)i, 0};
        EXPECT_EQ(pthread_create(&threads[i], NULL, read_many, &readings[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        EXPECT_EQ(pthread_join(threads[i], NULL), 0);
        EXPECT_EQ(readings[i].wrong, 0);
    }
    EXPECT(forge_fd_count() <= fds + PACKS_OPEN_MAX);
    free(p);
    free(ids);
    forge_free(&f);
}

TEST(records_are_shared_and_checked)
{
    const struct record *a = NULL, *b = NULL;
    struct forge f;
    struct digest id;
    struct loc loc;

    forge_new(&f);
    forge_begin(&f);
    forge_frame(&f, "hello", (const size_t[]){5}, 1, &id);
    forge_blob(&f, ENC_RAW, 0, "blob", 4);
    forge_commit(&f);
    EXPECT_OK(object_locate(f.st, &id, 1, &loc, &f.err), &f.err);
    EXPECT_OK(record_get(f.st, loc.pack, loc.off, &a, &f.err), &f.err);
    EXPECT_OK(record_get(f.st, loc.pack, loc.off, &b, &f.err), &f.err);
    EXPECT(a == b);
    EXPECT_MEM(a->data, "hello", 5);
    record_put(f.st, a);
    record_put(f.st, b);
    sha256_of("blob", 4, &id);
    EXPECT_OK(object_locate(f.st, &id, 1, &loc, &f.err), &f.err);
    EXPECT_ERR(record_get(f.st, loc.pack, loc.off, &a, &f.err), ERR_DAMAGED, &f.err);
    EXPECT(a == NULL);
    record_put(f.st, NULL);
    forge_free(&f);
}

/* ---- faults ------------------------------------------------------------------------------------ */

TEST(copy_survives_any_single_fault)
{
    const size_t sizes[] = {MIB, 4 * MIB, 4 * MIB};
    char *p = noise(71, 9 * MIB);
    struct recipe_chunk *chunks = forge_chunks(p, sizes, 3);
    struct digest ids[4];
    struct forge f;

    forge_new(&f);
    forge_begin(&f);
    forge_blob(&f, ENC_ZSTD, 0, p, MIB);
    forge_blob(&f, ENC_RAW, 0, p + MIB, 4 * MIB);
    forge_frame(&f, p + 5 * MIB, (const size_t[]){4 * MIB}, 1, NULL);
    ids[0] = forge_recipe(&f, p, 9 * MIB, chunks, 3);
    ids[1] = forge_loose(&f, p + 1, 9 * MIB - 1, (const size_t[]){5 * MIB, 4 * MIB - 1}, 2);
    ids[2] = forge_loose(&f, p + 2, 2 * MIB, NULL, 0);
    ids[3] = chunks[2].id;
    forge_commit(&f);
    for (int i = 0; i < 4; i++) {
        bool fired = true;

        for (int nth = 0; fired; nth++) {
            enum err_code rc;
            int fd = -1, fds;

            forge_open(&f, STORE_READ); /* an empty cache */
            f.st->threads = 2;
            EXPECT_OK(os_open(f.st->tmp, "c", O_RDWR | O_CREAT | O_TRUNC, 0600, &fd, &f.err),
                      &f.err);
            fds = forge_fd_count();
            fault_arm(nth);
            rc = object_copy(f.st, &ids[i], fd, NULL, &f.err);
            fired = fault_disarm();
            EXPECT_EQ(fired, rc != OK);
            EXPECT(forge_fd_count() <= fds + 1); /* the pack stays open in the cache */
            if (!rc) {
                struct digest is;
                const off_t n = lseek(fd, 0, SEEK_END);
                char *room = mem_alloc((size_t)n);

                EXPECT_OK(os_pread_all(fd, room, (size_t)n, 0, &f.err), &f.err);
                sha256_of(room, (size_t)n, &is);
                EXPECT(digest_eq(&is, &ids[i]));
                free(room);
            }
            os_close_quiet(&fd);
        }
    }
    free(chunks);
    free(p);
    forge_free(&f);
}

RUN(blobs_in_every_encoding, members_of_frames, recipes_of_mixed_chunks,
    loose_files_with_and_without_recipe, hot_copies_are_used_and_not_needed, limits_and_unknown_ids,
    lost_objects_are_the_same_each_time, a_flipped_bit_in_a_pack_is_found,
    bytes_of_another_name_are_found, a_recipe_of_itself_ends, a_missing_chunk_is_named,
    a_chunk_of_another_length_is_found, a_flipped_bit_in_a_loose_file_is_found,
    a_loose_file_that_is_gone_is_damage, a_pack_that_moved_is_found_again,
    one_tensor_without_the_rest, the_cache_is_bounded_and_shared, records_are_shared_and_checked,
    copy_survives_any_single_fault)
